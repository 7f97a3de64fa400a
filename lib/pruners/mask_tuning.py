"""A Fast Post-Training Pruning Framework for Transformers (Kwon et al. 2022), https://arxiv.org/abs/2204.09656

Three stages: a search by the diagonal of the Fisher information, a rearrangement within each layer
by its blocks, and a least-squares tuning of what survives. Departures, where the authors' code is
at fault: samples are drawn without replacement, the search may keep no head at all, a system that
LSMR solved is never taken for a failure, and the model really shrinks. One that is ours alone: the
last FFN follows the teacher on all tokens, theirs on the class token for classification; its
factors are those that are most often refused (`tuning.BOUND`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lib.measures import costs
from lib.models import encoder
from lib.models.compact import compact
from lib.models.masks import Masks, applied
from lib.pruners import Needs, validate
from lib.scoring import filters, importance, search, tuning
from lib.scoring.calibration import sentences
from lib.scoring.filters import Sight
from lib.scoring.importance import Batch

UNITS = ("heads", "neurons")


@dataclass(frozen=True)
class Pruner:
    """Keep the heads and neurons that the loss would miss most, and rescale them.

    tune: the last stage; its teacher is the model that the search keeps at the square root of the
    budget. `tokens` is the sequence length at which MACs are counted; a study fills in the task's
    mean.
    """

    version: ClassVar[int] = 1
    units: ClassVar[tuple[str, ...]] = ("macs",)
    needs: ClassVar[Needs] = "labels"
    compact: ClassVar[bool] = True
    stochastic: ClassVar[bool] = False

    unit: str = "macs"
    seed: int = 0
    tune: bool = True
    tokens: int | float | None = None

    def __post_init__(self) -> None:
        validate(self)
        search.check_tokens(self.tokens)

    def __call__(self, model: nn.Module, data: Iterable[Batch], budget: float) -> nn.Module:
        search.prices(encoder.shape(model), search.length(self.tokens), budget)  # infeasible?
        return self.cut(model, self.scores(model, data), budget)

    def scores(self, model: nn.Module, data: Iterable[Batch]) -> Sight:
        """dL/dmask of each batch, by kind of unit; no budget has a part in it."""
        batches, seconds = importance.collect(data, "labelled batches"), {}
        with costs.clock(seconds, "fisher"):
            found = gradients(model, batches)
        return Sight(found, sentences(batches), seconds)

    def cut(self, model: nn.Module, scores: Sight, budget: float) -> nn.Module:
        """Search, rearrange, shrink and tune."""
        seconds, steps = dict(scores.seconds), []
        with costs.clock(seconds, "search"):
            found = self._search(model, scores, budget)
        with costs.clock(seconds, "rearrange"):
            kept = {unit: rearranged(scores.scores[unit], found[unit]) for unit in UNITS}
        pruned = compact(model, search.masks(model, **kept)).eval()
        if self.tune and budget < 1:
            with costs.clock(seconds, "scale"):
                guide = self._search(model, scores, sqrt(budget))
                teacher = compact(model, search.masks(model, **guide)).eval()
                tuned = tuning.tune(pruned, teacher, scores.batches, heads=True)
                pruned, steps = tuned.model, tuned.steps
        trace = filters.traced(model, pruned, scores.batches)
        pruned.trace = trace | ({"tuned": steps} if steps else {}) | {"seconds": seconds}
        return pruned.train(model.training)

    def _search(self, model: nn.Module, scores: Sight, budget: float) -> dict[str, Tensor]:
        heads, neurons = (scores.scores[unit].square().sum(0) for unit in UNITS)
        shape, tokens = encoder.shape(model), search.length(self.tokens)
        found = search.search(heads, neurons, shape, tokens, budget)
        return {unit: getattr(found, unit) != 0 for unit in UNITS}


def gradients(model: nn.Module, batches: list[Batch]) -> dict[str, Float[Tensor, "N L _"]]:
    """dL/dmask of heads (N, L, H) and neurons (N, L, F) at masks of 1, for each of N batches.

    Raises a StudyError where one is not finite, or the sum of squares the same of every unit.
    """
    model = importance.scored(model).requires_grad_(False)
    masks = Masks.dense(model)
    leaves = [getattr(masks, unit).requires_grad_() for unit in UNITS]
    slopes = []
    for batch in batches:
        with torch.enable_grad(), applied(model, masks):
            slopes.append(torch.autograd.grad(importance.loss(model, batch), leaves))
    found = {
        unit: torch.stack(part).double()
        for unit, part in zip(UNITS, zip(*slopes, strict=True), strict=True)
    }
    for unit, part in found.items():
        search.check_ranks(part.square().sum(0), unit[:-1], importance.LABELS)
    return found


def rearranged(slopes: Float[Tensor, "N L n"], kept: Bool[Tensor, "L n"]) -> Bool[Tensor, "L n"]:
    """As many units of each layer, chosen so that what is pruned has gradients that cancel."""
    found = [
        _exchange(slopes[:, layer].T.cpu().numpy(), int((~kept[layer]).sum()))
        for layer in range(len(kept))
    ]
    return torch.from_numpy(np.stack(found)).to(kept.device)


def _exchange(slopes: Float[np.ndarray, "n N"], count: int) -> Bool[np.ndarray, "n"]:
    """Which units stay when `count` go: the least first, then each better exchange in turn.

    Units come in the order of their sums of squares. Each joins the pruned, and of those the one
    leaves whose leaving makes ||sum of pruned slopes||^2 least.
    """
    squares = (slopes**2).sum(1)
    order = np.argsort(squares, kind="stable")
    pruned = order[: count + 1].copy()
    if 0 < count < len(order):
        total = slopes[order[:count]].sum(0)
        for unit in order[count:]:
            pruned[-1], total = unit, total + slopes[unit]
            # ||total - s_i||^2 without ||total||^2
            leaving = int(np.argmin(squares[pruned] - 2 * slopes[pruned] @ total))
            total = total - slopes[pruned[leaving]]
            pruned[leaving] = pruned[-1]
    stays = np.ones(len(order), dtype=bool)
    stays[pruned[:count]] = False
    return stays
