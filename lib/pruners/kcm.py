"""Gradient-Free Structured Pruning with Unlabeled Data (Nova et al. 2023), https://arxiv.org/abs/2303.04185

R2, how far a filter's output weights stand for the others' (lib/scoring/hull.py), times D2, how
much it fires on sentences without labels; what stays is rescaled by least squares
(lib/scoring/tuning.py). Paper and talk leave kernel, stop rule, statistic, normaliser and teacher
open: the options below.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lib.errors import StudyError
from lib.measures import costs
from lib.models import encoder
from lib.models.masks import Masks, applied
from lib.pruners import Needs, validate
from lib.scoring import calibration, filters, hull, importance, search
from lib.scoring.filters import Guide, Recovery, Sight
from lib.scoring.importance import Batch

STATISTICS = {"mean": lambda h: h, "abs": torch.abs, "rms": torch.square}


@dataclass(frozen=True)
class Pruner:
    """Keep the filters of greatest R2 * D2 over all layers, as many as the MACs allow.

    ranks: both, or one score alone. kernel, sigma, stop, limit, floor: of R2, see
    `hull.representatives`. activation: D2 is its mean, mean absolute value or rms over all real
    tokens. normaliser: of D2 in each layer, before the product; a constant layer becomes 0.
    layerwise: normalise R2, or the one score that ranks, in each layer too. even: keep equally many
    filters of every layer, one more of the first where it must be. merge: the "product";
    or by "voting" (in the talk, not in the paper) each score votes for its own best, and the
    product decides between equal votes. recover, guide, heads: see `filters.prune`; not "bias".
    labels: so many labelled sentences, the first of the sample, refine the choice by one backward
    pass (Sec. 3.4): the filters of greatest |dL/dmask| outside it replace the lowest ranked inside,
    for as long as each swap raises the gradient kept. Without, none is read. R2 alone, not
    rescaled, chooses without a sentence: it reads them for the errors by layer of its trace.
    `tokens` is the sequence length at which MACs are counted; a study fills in the task's mean.

    Defaults: kernel and stop as printed; statistic and normaliser by unscaled accuracy at 60% on
    300 sentences of the selection split (never dev) of SST-2, mpnet-base: abs with l2 .890, rms
    with sum .877, abs with min-max .783, mean with min-max .773, mean with sum .760. There a few
    filters fire so strongly that min-max empties the middle layers. On MRPC, minilm-l6, the same
    five lie within .03 of each other.
    """

    version: ClassVar[int] = 1
    units: ClassVar[tuple[str, ...]] = ("macs",)
    compact: ClassVar[bool] = True
    stochastic: ClassVar[bool] = False

    unit: str = "macs"
    seed: int = 0
    ranks: Literal["r2d2", "r2", "d2"] = "r2d2"
    kernel: hull.Kernel = "2s2"
    sigma: float = 1.0
    stop: hull.Stop = "signed"
    limit: float = 0.01
    floor: float = 1e-30
    activation: Literal["mean", "abs", "rms"] = "abs"
    normaliser: Literal["min-max", "l2", "sum", "max"] = "l2"
    layerwise: bool = False
    even: bool = False
    merge: Literal["product", "voting"] = "product"
    recover: Recovery = "scale"
    guide: Guide = "sqrt"
    heads: bool = False
    labels: int = 0
    tokens: int | float | None = None

    def __post_init__(self) -> None:
        validate(self)
        search.check_tokens(self.tokens)
        if self.recover == "bias":
            raise StudyError("recover 'bias' is flap's; wanted none, scale or refit")
        if self.heads and self.recover == "none":
            raise StudyError("recover 'none' mends no heads; wanted scale or refit, or no heads")
        if self.merge == "voting" and self.ranks != "r2d2":
            raise StudyError(f"voting wants two scores, got ranks {self.ranks!r}; use the product")
        if self.labels < 0 or not (self.sigma > 0 and self.limit > 0 and self.floor >= 0):
            raise StudyError("wanted labels and floor of at least 0, sigma and limit above 0")

    @property
    def needs(self) -> Needs:
        return "labels" if self.labels else "examples"

    def __call__(self, model: nn.Module, data: Iterable[Batch], budget: float) -> nn.Module:
        filters.room(model, self.tokens, budget)  # infeasible? Then before the work
        return self.cut(model, self.scores(model, data), budget)

    @property
    def weighing(self) -> list[Any]:
        """What decides `weighed`, besides the model."""
        ranked = self.ranks != "d2"
        return [ranked, self.sigma, self.kernel, self.stop, self.limit, self.floor]

    def weighed(self, model: nn.Module) -> Sight:
        """R2 of each filter, where it has a part in the ranking: of the weights alone."""
        found: dict[str, Tensor] = {}
        seconds: dict[str, float] = {}
        trace: dict[str, Any] = {}
        if self.ranks != "d2":
            with costs.clock(seconds, "r2"):
                found["r2"], trace["iterations"] = self._r2(model)
        return Sight(found, seconds=seconds, trace=trace)

    def scores(
        self, model: nn.Module, data: Iterable[Batch], weighed: Sight | None = None
    ) -> Sight:
        """R2 and D2 of each filter, perhaps its gradient, and the sentences: all but the budget."""
        before = self.weighed(model) if weighed is None else weighed
        found, seconds, trace = dict(before.scores), dict(before.seconds), dict(before.trace)
        if self.labels:
            data = importance.collect(data, "labelled batches")
            with costs.clock(seconds, "gradient"):
                found["gradient"] = gradient(model, labelled(data, self.labels))
        batches = calibration.sentences(data)
        if self.ranks != "r2":
            with costs.clock(seconds, "d2"):
                [found["d2"]] = calibration.activations(model, batches, STATISTICS[self.activation])
                found["d2"] = found["d2"].sqrt() if self.activation == "rms" else found["d2"]
        return Sight(found, batches, seconds, trace)

    def cut(self, model: nn.Module, scores: Sight, budget: float) -> nn.Module:
        """Keep the best of these scores."""

        def select(kept: int) -> Bool[Tensor, "L F"]:
            return self.select(scores.scores, kept)

        how = (self.recover, self.guide, self.heads)
        return filters.prune(model, select, scores, budget, self.tokens, *how)

    def select(self, scores: dict[str, Tensor], kept: int) -> Bool[Tensor, "L F"]:
        """Which filters stay, of how many."""
        merged = self.merged(scores)
        best = filters.greatest(merged, kept)
        if self.merge == "voting":
            votes = sum(filters.greatest(scores[name], kept) for name in ("r2", "d2"))
            place = merged.flatten().argsort(stable=True).argsort() / merged.numel()
            merged = votes + place.view_as(merged)
            best = filters.greatest(merged, kept)
        return swapped(best, merged, scores["gradient"]) if self.labels else best

    def merged(self, scores: dict[str, Tensor]) -> Float[Tensor, "L F"]:
        """The score that ranks over all layers; an even choice goes by the place in each."""
        found = self._merged(scores)
        if not self.even:
            return found
        filters.check(found)  # places would hide it
        return found.argsort(dim=1, stable=True).argsort(dim=1).to(found)

    def _merged(self, scores: dict[str, Tensor]) -> Float[Tensor, "L F"]:
        alone = None if self.ranks == "r2d2" else scores[self.ranks]
        if alone is not None:
            return normalised(alone, self.normaliser) if self.layerwise else alone
        r2 = normalised(scores["r2"], self.normaliser) if self.layerwise else scores["r2"]
        return r2 * normalised(scores["d2"], self.normaliser)

    def _r2(self, model: nn.Module) -> tuple[Float[Tensor, "L F"], list[int]]:
        settings = (self.sigma, self.kernel, self.stop, self.limit, self.floor)
        with torch.no_grad():
            each = [
                hull.representatives(layer.down.weight.T, *settings)
                for layer in encoder.layers(model)
            ]
        return torch.stack([share for share, _ in each]), [updates for _, updates in each]


def normalised(scores: Float[Tensor, "L F"], how: str) -> Float[Tensor, "L F"]:
    """Each layer's scores on one scale: within 0 and 1, or over their L2 norm, sum or maximum.

    The last three are of absolute values. A layer without any spread, or of zeros, becomes 0.
    """
    if how == "min-max":
        scores = scores - scores.amin(1, keepdim=True)
        how = "max"
    sizes = {
        "l2": lambda x: x.norm(dim=1, keepdim=True),
        "sum": lambda x: x.abs().sum(1, keepdim=True),
        "max": lambda x: x.abs().amax(1, keepdim=True),
    }
    return scores / sizes[how](scores).clamp(min=torch.finfo(scores.dtype).tiny)


def labelled(batches: Iterable[Batch], count: int) -> list[Batch]:
    """The first `count` sentences with their labels; a StudyError where there are fewer."""
    found = calibration.first(list(batches), count)
    there = sum(len(batch["input_ids"]) for batch in found)
    if there < count:
        raise StudyError(
            f"wanted {count} labelled sentences, got {there}; give more or ask for fewer"
        )
    return found


def gradient(model: nn.Module, batches: Iterable[Batch]) -> Float[Tensor, "L F"]:
    """|sum over sentences of dL/dmask| of each filter at masks of 1, in float64.

    Raises a StudyError where it is not finite, or the same of every filter.
    """
    model = importance.scored(model).requires_grad_(False)
    masks = Masks.dense(model)
    masks.neurons.requires_grad_()
    total = torch.zeros_like(masks.neurons, dtype=torch.float64)
    for batch in batches:
        with applied(model, masks):
            loss = importance.loss(model, batch) * len(batch["input_ids"])
        [slope] = torch.autograd.grad(loss, [masks.neurons])
        total += slope
    search.check_ranks(total.abs(), "filter", importance.LABELS)
    return total.abs()


def swapped(
    kept: Bool[Tensor, "L F"], scores: Float[Tensor, "L F"], gradient: Float[Tensor, "L F"]
) -> Bool[Tensor, "L F"]:
    """The lowest ranked filters kept give way to those of greatest gradient that are not.

    Pair by pair down the gradients, until a swap would not raise the gradient that is kept.
    """
    inside, scores, gradient = kept.flatten().clone(), scores.flatten(), gradient.flatten()
    order = gradient.argsort(descending=True, stable=True)
    coming = order[~inside[order]]
    order = scores.argsort(stable=True)
    going = order[inside[order]]
    pairs = min(len(coming), len(going))
    worse = gradient[coming[:pairs]] <= gradient[going[:pairs]]
    swaps = int(worse.nonzero()[0]) if worse.any() else pairs
    inside[coming[:swaps]], inside[going[:swaps]] = True, False
    return inside.view_as(kept)
