"""Importance Estimation for Neural Network Pruning (Molchanov et al. 2019), https://arxiv.org/abs/1906.10771

As in TextPruner (Yang et al. 2022, https://arxiv.org/abs/2203.15996): first-order Taylor scores of
heads and neurons, re-scored on the masked model as it shrinks, ranked over all layers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from lib.errors import StudyError
from lib.models import encoder
from lib.models.compact import compact
from lib.models.masks import Masks, applied
from lib.pruners import Needs, validate
from lib.scoring import importance, search
from lib.scoring.importance import Batch


@dataclass(frozen=True)
class Pruner:
    """Keep what the loss would miss most: |sum W * dL/dW| over a unit's slices.

    A head by its slice of W_O, a dim of VO by its column, a dim of QK by its row and bias of W_Q
    (that of W_K has the same sum), a neuron by its column of W_down and - only where all layers
    keep equally many, as in TextPruner - its row and bias of W_up, their absolute values added.
    Absolute values are of each batch, then summed over batches.

    granularity: what attention loses, whole "heads" or "dims" of heads. steps: how often to score
    and cut, the fraction kept falling linearly to the budget. uneven: rank over all layers; dims
    then still keep one width in all heads of a layer. Without it every layer, or with dims every
    head, keeps the same fraction. With unit "macs", heads and neurons share the budget at `tokens`
    a sequence (a study fills in the task's mean), whatever `uneven` would say, so it must be True.
    They do so in one list, though sums of absolute values flatter what is many: thousands of
    neurons of either sign outweigh few heads. `apart` ranks each kind by itself, to the same
    fraction of it, as TextPruner does, and as with all other units.
    """

    version: ClassVar[int] = 1
    units: ClassVar[tuple[str, ...]] = ("attention", "encoder", "macs")
    needs: ClassVar[Needs] = "labels"
    compact: ClassVar[bool] = True
    stochastic: ClassVar[bool] = False

    unit: str = "attention"
    seed: int = 0
    granularity: Literal["heads", "dims"] = "heads"
    steps: int = 8
    uneven: bool = True
    apart: bool = False
    tokens: int | float | None = None

    def __post_init__(self) -> None:
        validate(self)
        search.check_tokens(self.tokens)
        if self.steps < 1:
            raise StudyError(f"wanted steps above 0, got {self.steps}")
        if self.unit == "macs" and (self.granularity != "heads" or not self.uneven):
            raise StudyError("unit macs searches over all layers' heads: wants heads and uneven")

    def __call__(self, model: nn.Module, data: Iterable[Batch], budget: float) -> nn.Module:
        masks = Masks.dense(model)
        self._select(model, vars(masks) | {"inputs": masks.neurons}, budget)  # infeasible? Then now
        batches = importance.collect(data, "labelled batches")
        copy = importance.scored(model)
        for step in range(1, self.steps + 1):
            found = scores(copy, masks, batches)
            masks = self._select(copy, found, 1 - (1 - budget) * step / self.steps)
        return compact(model, masks)

    def _select(self, model: nn.Module, scores: dict[str, Tensor], budget: float) -> Masks:
        if self.unit == "macs":
            shape, heads, neurons = encoder.shape(model), scores["heads"], scores["neurons"]
            tokens = search.length(self.tokens)
            find = search.apart if self.apart else search.search
            found = find(heads, neurons, shape, tokens, budget)
            return search.masks(model, heads=found.heads, neurons=found.neurons)
        rank = search.overall if self.uneven else search.even
        if self.granularity == "heads":
            kept = {"heads": rank(scores["heads"], budget, "heads")}
        else:
            dims = search.uneven if self.uneven else search.even
            kept = {part: dims(scores[part], budget) for part in ("qk", "vo")}
        if self.unit == "encoder":
            neurons = scores["neurons"] + (0 if self.uneven else scores["inputs"])
            kept["neurons"] = rank(neurons, budget, "neurons")
        return search.masks(model, **kept)


def scores(model: nn.Module, masks: Masks, batches: list[Batch]) -> dict[str, Tensor]:
    """Taylor scores by part of `Masks`, of the masked model; what it drops scores 0.

    "inputs" are the neurons' scores once more, by what they read.
    """
    totals: dict[str, Tensor] = {}
    for batch in batches:
        with applied(model, masks):
            slopes = importance.gradients(model, batch)
        sums = importance.units(model, lambda weight, slopes=slopes: weight * slopes[weight])
        parts = {
            "qk": sums.query.abs(),
            "vo": sums.output.abs(),
            "heads": sums.output.sum(-1).abs(),
            "neurons": sums.down.abs(),
            "inputs": sums.up.abs(),
        }
        totals = {name: totals.get(name, 0) + part for name, part in parts.items()}
    return totals
