"""How is an FFN made smaller without retraining? Score filters, keep the best, mend the rest.

A filter is a neuron with its row of W_up and its column of W_down. All heads stay, the filters of
all layers compete for one budget of MACs, and a layer may lose its whole FFN: then its output bias
is added to the residual and its LayerNorm stays, as if every mask there were 0.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from math import sqrt
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lib.measures import costs
from lib.models import encoder
from lib.models.compact import CompactForSequenceClassification, compact, dense
from lib.scoring import calibration, search, tuning
from lib.scoring.importance import Batch

Recovery = Literal["none", "scale", "refit", "bias"]
Guide = Literal["sqrt", "dense"]
Select = Callable[[int], Bool[Tensor, "L F"]]  # from how many filters to which


@dataclass(frozen=True)
class Sight:
    """What a method learns from teacher and sentences before it knows a budget."""

    scores: Mapping[str, Tensor]  # (L, F) each, or as the method has them
    batches: Sequence[Batch] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    trace: dict[str, Any] = field(default_factory=dict)


def room(model: nn.Module, tokens: int | float | None, budget: float) -> int:
    """How many filters the budget keeps; a StudyError where it is infeasible."""
    return search.filters(encoder.shape(model), search.length(tokens), budget)


def check(scores: Float[Tensor, "L F"]) -> None:
    """A StudyError for scores that rank nothing."""
    search.check_ranks(scores, "filter", "do the calibration sentences make any of them fire?")


def greatest(scores: Float[Tensor, "L F"], kept: int) -> Bool[Tensor, "L F"]:
    """The greatest scores of all layers together; a StudyError for scores that rank nothing."""
    check(scores)
    return search.top(scores.flatten(), kept).view_as(scores)


@torch.no_grad()
def prune(
    model: nn.Module,
    select: Select,
    sight: Sight,
    budget: float,
    tokens: int | float | None,
    recover: Recovery,
    guide: Guide = "sqrt",
    heads: bool = False,
) -> CompactForSequenceClassification:
    """The compact model that keeps the filters of `select` and mends them as `recover` says.

    "scale" and "refit" are those of `tuning`, after the teacher with filters for the square root
    of the budget, as in Mask-Tuning, or after the whole one; with `heads` they mend attention too.
    "bias" adds to a layer's output bias what its pruned filters put out on average; their means are
    the scores named "mean". Leaves a `trace`: seconds by phase, the steps of tuning, and the
    relative error of each layer's hidden states on up to 64 sentences where there are any.
    """
    seconds = dict(sight.seconds)
    kept = select(room(model, tokens, budget))
    steps: list[dict[str, Any]] = []
    if recover in ("scale", "refit") and not kept.all():
        with costs.clock(seconds, recover):
            share = sqrt(budget) if guide == "sqrt" else 1.0
            teacher = _compact(model, select(room(model, tokens, share)))
            student = _compact(model, kept)
            tuned = tuning.tune(student, teacher, sight.batches, recover, heads)
            pruned, steps = tuned.model, tuned.steps
            del teacher, student  # memory, for the dense copy below
    else:
        pruned = _compact(model, kept)
        if recover == "bias":
            _compensate(model, pruned, kept, sight.scores["mean"])
    trace = traced(model, pruned, sight.batches) | sight.trace
    pruned.trace = trace | ({"tuned": steps} if steps else {}) | {"seconds": seconds}
    return pruned.train(model.training)


def traced(
    model: nn.Module, pruned: CompactForSequenceClassification, batches: Sequence[Batch]
) -> dict[str, Any]:
    """For a pruner's trace: the relative error of every layer's hidden states, where there are
    batches, and the process's peak of memory until now, which bounds what pruning took."""
    peak = {"process_peak_bytes": costs.peak_memory()}
    if not batches:
        return peak
    few = calibration.first(batches, calibration.WATCHED)
    whole, small = dense(model).eval(), pruned if not pruned.training else deepcopy(pruned).eval()
    return {"layer_errors": calibration.layer_errors(whole, small, few)} | peak


def _compact(model: nn.Module, kept: Bool[Tensor, "L F"]) -> CompactForSequenceClassification:
    return compact(model, search.masks(model, neurons=kept)).eval()


def _compensate(
    model: nn.Module,
    pruned: CompactForSequenceClassification,
    kept: Bool[Tensor, "L F"],
    means: Float[Tensor, "L F"],
) -> None:
    for layer, small, own, mean in zip(
        encoder.layers(model), encoder.layers(pruned), kept, means, strict=True
    ):
        lost = mean.masked_fill(own, 0).to(layer.down.weight.dtype)
        with torch.autocast(lost.device.type, enabled=False):
            small.down.bias += layer.down.weight @ lost
