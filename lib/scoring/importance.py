"""What do its weights, or their gradients, say about each unit?"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import get_linear_schedule_with_warmup

from lib.errors import StudyError
from lib.models import encoder

Batch = Mapping[str, Tensor]
HeadDims = Float[Tensor, "L H d"]
Neurons = Float[Tensor, "L F"]


@dataclass(frozen=True)
class Units:
    """One number a unit from each of a layer's six matrices.

    Of query, key, value and up a unit owns a row and its bias, of output and down a column.
    """

    query: HeadDims
    key: HeadDims
    value: HeadDims
    output: HeadDims
    up: Neurons
    down: Neurons


@torch.no_grad()
def units(
    model: nn.Module, of: Callable[[Tensor], Tensor], reduce: Callable[..., Tensor] = torch.sum
) -> Units:
    """Reduce an element-wise quantity `of` each parameter to one float64 a unit."""

    def row(linear: nn.Linear) -> Tensor:
        both = torch.stack([reduce(of(linear.weight), dim=1), of(linear.bias)])
        return reduce(both, dim=0)

    def column(linear: nn.Linear) -> Tensor:
        return reduce(of(linear.weight), dim=0)

    shapes = set(encoder.shape(model).layers)
    if len(shapes) != 1:
        raise StudyError("wanted a dense encoder, every layer of one shape; prune the teacher")
    layers, heads = encoder.layers(model), shapes.pop().heads

    def gather(part: str, slices: Callable[[nn.Linear], Tensor]) -> Tensor:
        return torch.stack([slices(getattr(layer, part)) for layer in layers]).double()

    def by_head(part: str, slices: Callable[[nn.Linear], Tensor]) -> Tensor:
        return gather(part, slices).unflatten(1, (heads, -1))

    return Units(
        query=by_head("query", row),
        key=by_head("key", row),
        value=by_head("value", row),
        output=by_head("output", column),
        up=gather("up", row),
        down=gather("down", column),
    )


def norms(model: nn.Module) -> Units:
    """The L2 norm of each unit's row (with its bias) or column."""
    squares = units(model, torch.square)
    return Units(**{part: value.sqrt() for part, value in vars(squares).items()})


def peaks(model: nn.Module) -> Units:
    """The largest absolute value in each unit's row (with its bias) or column."""
    return units(model, torch.abs, torch.amax)


def weights(model: nn.Module) -> list[nn.Parameter]:
    """Weights and biases of the six matrices of every layer."""
    return [
        parameter
        for layer in encoder.layers(model)
        for part in fields(Units)
        for parameter in getattr(layer, part.name).parameters()
    ]


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """The mean loss of a labelled batch, moved to the model's device."""
    if "labels" not in batch:
        raise StudyError(f"wanted labelled batches, got one with only {', '.join(sorted(batch))}")
    device = next(model.parameters()).device
    return model(**{name: tensor.to(device) for name, tensor in batch.items()}).loss


LABELS = "are the sentences labelled, with labels of the task?"  # where a loss teaches nothing


def collect(data: Iterable[Batch], what: str, least: int = 1) -> list[Batch]:
    """The batches as a list; a StudyError where there are fewer than `least`."""
    batches = list(data)
    if len(batches) < least:
        raise StudyError(f"wanted {what}, at least {least} of them, got {len(batches)} batches")
    return batches


def gradients(model: nn.Module, batch: Batch) -> dict[Tensor, Tensor]:
    """dL/dW of every parameter of the layers, by parameter."""
    leaves = weights(model)
    return dict(zip(leaves, torch.autograd.grad(loss(model, batch), leaves), strict=True))


def scored(model: nn.Module) -> nn.Module:
    """A copy to take gradients of: no dropout, nothing left behind in the model given."""
    return deepcopy(model).eval().requires_grad_(True)


@contextmanager
def throwaway(model: nn.Module, seed: int) -> Iterator[nn.Module]:
    """A copy to train; its dropout follows `seed`, torch's own generators stay as they were."""
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield deepcopy(model).train().requires_grad_(True)


def steps(
    model: nn.Module,
    batches: list[Batch],
    lr: float,
    others: Iterable[tuple[Tensor, float]] = (),
) -> Iterator[Batch]:
    """Train on `batches` once: AdamW, lr falling linearly to 0, gradients clipped at norm 1.

    The caller runs forward and backward on each batch it is handed; the step follows. `others` are
    tensors that a method learns beside the weights, each with its own lr and no weight decay.
    """
    others = list(others)
    apart = {id(leaf) for leaf, _ in others}
    groups = [{"params": [p for p in model.parameters() if id(p) not in apart]}]
    groups += [{"params": [leaf], "lr": own, "weight_decay": 0.0} for leaf, own in others]
    optimizer = torch.optim.AdamW(groups, lr=lr, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, len(batches))
    for batch in batches:
        optimizer.zero_grad()
        yield batch
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
