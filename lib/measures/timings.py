"""How fast is each recorded shape here? Speed is a ratio within one process, never across machines.

Every arm of one comparison takes its turn in every round: the dense model padded to a common
length, the dense model padded to the batch, Hugging Face's own, and every pruned shape. All but
the last are dense models of the same widths in different dress, so that what padding saves and what
pruning saves are told apart. Weights are random: time depends on shapes alone, except where a claim
says that zeros cost nothing, and there the weights are really zeroed. A model that drops tokens
takes the time of its rule and of the tokens that it leaves: a random one is told how many to leave.
"""

import statistics
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import groupby, islice

import torch
from torch import nn
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForSequenceClassification

from lib import assets, devices, runs, study
from lib.measures import costs
from lib.models import encoder
from lib.origin import machine
from lib.tokens.model import wrap

ROUNDS, FEW = 9, 5  # timed turns of every arm; medians are reported, all samples kept
TOGETHER = 5  # shapes in one comparison, so that their models fit in memory


def measure(
    profile: str | study.Profile, rounds: int | None = None, chapters: Iterable[str] = ()
) -> list[runs.Timing]:
    """Time every shape that a profile's chapters rest on, and put the records into its store.

    A timing of the same shape, protocol and machine is replaced: the newest counts. In FEW rounds
    for a quick study.
    """
    p = study.profile(profile)
    rounds = rounds or (FEW if p.quick else ROUNDS)
    store, records = p.store, []
    recorded = store.all()
    wanted = [
        clocked
        for chapter in chapters or study.CHAPTERS
        for clocked in study.timings(chapter, profile, recorded)
    ]
    wanted = sorted(wanted, key=_comparison)
    with tqdm(total=len(wanted), desc="timings", unit="shape") as progress:
        for _, group in groupby(wanted, key=_comparison):
            for some in batched(group, TOGETHER):
                for timing in compare(some, rounds):
                    store.put_timing(timing, replace=True)
                    records.append(timing)
                progress.update(len(some))
    return records


def batched(group: Iterable, size: int) -> Iterator[list]:
    """Lists of at most `size`; itertools has it only from Python 3.12 on."""
    group = iter(group)
    while some := list(islice(group, size)):
        yield some


def compare(group: list[study.Clocked], rounds: int) -> list[runs.Timing]:
    """Time shapes of one encoder under one protocol against the dense model, all interleaved."""
    devices.keep_memory()
    name, protocol = group[0].encoder, group[0].protocol
    config = AutoConfig.from_pretrained(assets.encoder_folder(name), num_labels=2)
    theirs = AutoModelForSequenceClassification.from_config(config).eval()
    whole = encoder.shape(theirs)
    short = random_batch(config.vocab_size, protocol["batch"], protocol["length"])
    padded = random_batch(
        config.vocab_size, protocol["batch"], protocol["length"], protocol["padding"]
    )
    dense = costs.random_model(whole, config)
    models = {"dense_padded": dense, "dense": dense, "hf": theirs}
    for number, clocked in enumerate(group):
        model = costs.random_model(encoder.Shape.from_json(clocked.shape), config)
        if tokens := protocol.get("tokens"):
            model = wrap(model, tokens)
        if zeroed := protocol.get("zeroed"):
            zero(model, zeroed)
        models[f"pruned {number}"] = model
    batches = {key: [short] for key in models} | {"dense_padded": [padded]}
    models = {key: model.to(devices.device()) for key, model in models.items()}
    seconds = costs.latency(models, batches, rounds, protocol["precision"])
    here = machine()
    records = []
    for number, clocked in enumerate(group):
        own = {arm: seconds[arm] for arm in ("dense_padded", "dense", "hf")}
        own["pruned"] = seconds[f"pruned {number}"]
        records.append(
            runs.Timing(
                encoder=clocked.encoder,
                shape=clocked.shape,
                protocol=dict(protocol) | {"threads": here["threads"]},
                machine=here["device"],
                seconds={arm: [round(s, 6) for s in samples] for arm, samples in own.items()},
                ratio={arm: round(ratio(own[arm], own["pruned"]), 4) for arm in own},
                provenance=here | {"finished": datetime.now(UTC).isoformat(timespec="seconds")},
            )
        )
    return records


def ratio(slow: list[float], fast: list[float]) -> float:
    """How many times faster: median over rounds of the ratio within a round."""
    return statistics.median(s / f for s, f in zip(slow, fast, strict=True))


def random_batch(vocabulary: int, size: int, length: int, padding: int = 0) -> dict:
    """`size` random sequences of `length` tokens, padded to `padding` tokens where that is more."""
    tokens = max(length, padding)
    order = torch.Generator().manual_seed(0)
    ids = torch.randint(5, vocabulary, (size, tokens), generator=order)
    mask = (torch.arange(tokens) < length).long().expand(size, tokens).contiguous()
    return {"input_ids": ids.where(mask.bool(), 1), "attention_mask": mask}


@torch.no_grad()
def zero(model: nn.Module, fraction: float) -> None:
    """Set a random fraction of every layer's weights to 0, in place."""
    order = torch.Generator().manual_seed(0)
    for layer in encoder.layers(model):
        for linear in (layer.query, layer.key, layer.value, layer.output, layer.up, layer.down):
            drawn = torch.rand(linear.weight.shape, generator=order)
            linear.weight[drawn < fraction] = 0


def _comparison(clocked: study.Clocked) -> tuple[str, str]:
    return clocked.encoder, str(sorted(clocked.protocol.items()))
