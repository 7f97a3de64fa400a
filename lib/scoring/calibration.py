"""What does an encoder compute on calibration sentences? Never a gradient, never a label."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lib.errors import StudyError
from lib.models import encoder
from lib.models.compact import CompactForSequenceClassification, config
from lib.scoring.importance import Batch, collect

POOL = 2048  # padded tokens of a batch: few large batches, as autocast casts the weights in each
WATCHED = 64  # sentences on which the error of every layer is measured


def sentences(data: Iterable[Batch]) -> list[Batch]:
    """The batches without their labels; a StudyError where there are none."""
    batches = collect(data, "batches of calibration sentences")
    return [{name: t for name, t in batch.items() if name != "labels"} for batch in batches]


def regroup(model: nn.Module, batches: Sequence[Batch], most: int = POOL) -> list[Batch]:
    """The same sentences, longest first, in batches of at most `most` padded tokens.

    Padding goes to the right, as the model's own padding token. What lies outside the attention
    mask is left out, so sentences may come padded on either side.
    """
    pad = config(model.config, encoder.shape(model)).pad_token_id
    rows = [
        {name: tensor[row][batch["attention_mask"][row].bool()] for name, tensor in batch.items()}
        for batch in batches
        for row in range(len(batch["input_ids"]))
    ]
    rows.sort(key=lambda row: -len(row["input_ids"]))
    found, start = [], 0
    while start < len(rows):
        size = max(1, most // max(1, len(rows[start]["input_ids"])))
        found.append(_padded(rows[start : start + size], pad))
        start += size
    return found


def _padded(rows: list[dict[str, Tensor]], pad: int) -> Batch:
    return {
        name: nn.utils.rnn.pad_sequence(
            [row[name] for row in rows],
            batch_first=True,
            padding_value=pad if name == "input_ids" else 0,
        )
        for name in rows[0]
    }


def first(batches: Sequence[Batch], count: int) -> list[Batch]:
    """The first `count` sentences, or as many as there are."""
    found, left = [], count
    for batch in batches:
        if left > 0:
            found.append({name: tensor[:left] for name, tensor in batch.items()})
            left -= len(batch["input_ids"])
    return found


def arguments(module: nn.Module, run: Callable[[], object]) -> tuple[Any, ...]:
    """What `module` is called with while `run` runs; the run ends there."""

    class Reached(Exception):
        pass

    def stop(_: nn.Module, args: tuple[Any, ...]) -> None:
        raise Reached(args)

    hook = module.register_forward_pre_hook(stop)
    try:
        run()
    except Reached as reached:
        return reached.args[0]
    finally:
        hook.remove()
    raise StudyError(f"wanted a run through {type(module).__name__}, got one that passes it by")


@dataclass(frozen=True)
class States:
    """The hidden states that enter a layer of a compact model, and what else the layer is given."""

    x: Float[Tensor, "B T D"]
    rest: tuple[Tensor | None, ...]  # attention mask and relative positions
    real: Bool[Tensor, "B T"]  # no padding

    def tokens(self, values: Float[Tensor, "B T n"]) -> Float[Tensor, "N n"]:
        """The values of real tokens alone."""
        return values.flatten(0, 1) if self.real.all() else values[self.real]

    def moved(self, x: Float[Tensor, "B T D"]) -> "States":
        """The same texts, further on."""
        return replace(self, x=x)


def entrances(model: CompactForSequenceClassification, batches: Sequence[Batch]) -> list[States]:
    """What enters the first layer, batch by batch."""
    found = []
    for batch in batches:
        run = _run(model.encoder, batch)
        x, *rest = arguments(model.encoder.layers[0], run)
        found.append(States(x, tuple(rest), batch["attention_mask"].bool()))
    return found


def _run(model: nn.Module, batch: Batch) -> Callable[[], object]:
    return lambda: model(**batch)


@torch.no_grad()
def activations(
    model: nn.Module, batches: Sequence[Batch], *of: Callable[[Tensor], Tensor]
) -> list[Float[Tensor, "L F"]]:
    """Means over all real tokens of functions `of` what leaves each neuron's activation, float64.

    Raises a StudyError where an activation is not finite.
    """
    layers, batches = encoder.layers(model), regroup(model, batches)
    device, widths = layers[0].down.weight.device, [each.down.in_features for each in layers]
    sums = [[torch.zeros(n, dtype=torch.float64, device=device) for n in widths] for _ in of]
    training = model.training
    model.eval()
    try:
        for batch in batches:
            with ExitStack() as hooks:
                for index, layer in enumerate(layers):
                    own = [part[index] for part in sums]
                    watch = _summing(batch["attention_mask"].bool(), of, own)
                    hooks.callback(layer.down.register_forward_pre_hook(watch).remove)
                model(**batch)
    finally:
        model.train(training)
    count = sum(int(batch["attention_mask"].sum()) for batch in batches)
    for part in sums:
        for index, total in enumerate(part):
            if not total.isfinite().all():
                raise StudyError(
                    f"activations of layer {index + 1} are not finite on the calibration "
                    "sentences; the teacher has diverged"
                )
    return [torch.stack(part) / count for part in sums]


def _summing(
    real: Bool[Tensor, "B T"], of: Sequence[Callable[[Tensor], Tensor]], sums: list[Tensor]
) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def add(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        values = args[0][real]
        values = values if values.dtype == torch.float64 else values.float()
        for function, total in zip(of, sums, strict=True):
            total += function(values).sum(0)

    return add


@torch.no_grad()
def layer_errors(
    dense: CompactForSequenceClassification,
    pruned: CompactForSequenceClassification,
    batches: Sequence[Batch],
) -> list[float]:
    """||X - X_dense|| / ||X_dense|| of what leaves each layer, over all real tokens."""
    batches = regroup(dense, batches)
    off, whole = (torch.zeros(len(dense.encoder.layers)).double() for _ in range(2))
    for batch in batches:
        real = batch["attention_mask"].bool()
        pair = (
            m.encoder(**batch, output_hidden_states=True).hidden_states for m in (dense, pruned)
        )
        for index, (before, after) in enumerate(list(zip(*pair, strict=True))[1:]):
            before, after = before[real].double(), after[real].double()
            off[index] += (after - before).square().sum().cpu()
            whole[index] += before.square().sum().cpu()
    return [round(value, 6) for value in (off / whole).sqrt().tolist()]
