"""Does everything follow the model's device? Asked without a GPU, of a device that is made up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import test_pruners
import torch
from conftest import tiny

from lib import pruners
from lib.tokens.costs import fraction

HERE = Path(__file__).parent


def batches(device: torch.device) -> list[dict[str, torch.Tensor]]:
    """Two batches of four texts of up to nine words, padded with 1."""
    draw, found = torch.Generator().manual_seed(0), []
    for _ in range(2):
        mask = (torch.arange(9) < torch.tensor([9, 5, 7, 9])[:, None]).long()
        ids = torch.randint(2, 50, (4, 9), generator=draw).masked_fill(mask == 0, 1)
        labels = torch.randint(3, (4,), generator=draw)
        batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        found.append({name: tensor.to(device) for name, tensor in batch.items()})
    return found


def logits(model: torch.nn.Module) -> torch.Tensor:
    device = next(model.parameters()).device
    return model(**batches(device)[0]).logits.detach()


def pruned(variant):
    def case(model):
        def data(needs):
            for batch in batches(next(model.parameters()).device):
                yield {n: t for n, t in batch.items() if needs != "examples" or n != "labels"}

        small = test_pruners.run(variant, model, data, 0.8)
        if pruners.get(variant[0], **variant[1]).unit == "executed":
            fraction(small, batches(next(model.parameters()).device))
        return logits(small)

    return case


def cofi(**options):
    def case(model):
        data = batches(next(model.parameters()).device) * 6
        aids = pruners.Aids(start=lambda: tiny("bert"))  # loaded where no accelerator is
        return logits(pruners.get("cofi", reg_lr=2.0, **options)(model, data, 0.4, aids))

    return case


CASES = {test_pruners.label(variant): pruned(variant) for variant in test_pruners.VARIANTS}
CASES |= {f"cofi-{units}": cofi(prune=units) for units in ("layers", "hidden", "all")}
CASES |= {"cofi-undistilled": cofi(prediction=0.0, layers=0.0)}
CASES |= {"cofi-pretrained": cofi(start="pretrained", before=0.25)}


def stays_behind(model):
    return logits(model) + torch.ones(3)


def test_pruning_follows_the_model_to_its_device():
    command = [sys.executable, HERE / "other_device.py"]
    paths = os.pathsep.join([str(HERE.parent), str(HERE)])
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["cases"] == list(CASES)
    assert found["wrong"] == {}
