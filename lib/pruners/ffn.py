"""Pruning Filters for Efficient ConvNets (Li et al. 2017), https://arxiv.org/abs/1608.08710

The controls of KCM: one plain score of a filter, one way to mend what stays, all else alike. By
its weights as in that paper; by its output also as in Wanda (Sun et al. 2024,
https://arxiv.org/abs/2306.11695).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn

from lib.errors import StudyError
from lib.measures import costs
from lib.pruners import Needs, validate
from lib.scoring import calibration, filters, importance, search
from lib.scoring.filters import Recovery, Sight
from lib.scoring.importance import Batch

BY_OUTPUT = {  # what is averaged of a filter's activation h
    "output": torch.abs,
    "rms": torch.square,
    "energy": torch.square,
}


@dataclass(frozen=True)
class Pruner:
    """Keep the filters of greatest score over all layers.

    score: the norm of its row of W_up with its bias ("w1"), of its column of W_down ("w2"), or
    their product ("both"); mean |h| * ||w|| for activation h and column w ("output"), how long the
    vectors are that it puts out; rms(h) * ||w|| ("rms"); its share of its layer's
    sum of E[h^2] * ||w||^2 ("energy": as it stands that is the square of "rms", the same ranking);
    or none ("random"), drawn with `seed`. recover: see `filters.prune`; not "bias". `tokens` is
    the sequence length at which MACs are counted; a study fills in the task's mean.
    """

    version: ClassVar[int] = 1
    units: ClassVar[tuple[str, ...]] = ("macs",)
    compact: ClassVar[bool] = True

    unit: str = "macs"
    seed: int = 0
    score: Literal["w1", "w2", "both", "output", "rms", "energy", "random"] = "w2"
    recover: Recovery = "scale"
    tokens: int | float | None = None

    def __post_init__(self) -> None:
        validate(self)
        search.check_tokens(self.tokens)
        if self.recover == "bias":
            raise StudyError("recover 'bias' is flap's; wanted none, scale or refit")

    @property
    def needs(self) -> Needs:
        return "examples" if self.recover != "none" or self.score in BY_OUTPUT else "nothing"

    @property
    def stochastic(self) -> bool:
        return self.score == "random"

    def __call__(self, model: nn.Module, data: Iterable[Batch], budget: float) -> nn.Module:
        filters.room(model, self.tokens, budget)  # infeasible? Then before the work
        return self.cut(model, self.scores(model, data), budget)

    def scores(self, model: nn.Module, data: Iterable[Batch]) -> Sight:
        """The score of each filter, and the sentences; no budget has a part in it."""
        batches = calibration.sentences(data) if self.needs == "examples" else []
        seconds: dict[str, float] = {}
        with costs.clock(seconds, "score"):
            return Sight({"score": self._score(model, batches)}, batches, seconds)

    def cut(self, model: nn.Module, scores: Sight, budget: float) -> nn.Module:
        """Keep the best of these scores."""

        def select(kept: int) -> Tensor:
            return filters.greatest(scores.scores["score"], kept)

        return filters.prune(model, select, scores, budget, self.tokens, self.recover)

    def _score(self, model: nn.Module, batches: list[Batch]) -> Tensor:
        norms = importance.norms(model)
        if self.score == "random":
            generator = Generator().manual_seed(self.seed)
            return torch.rand(norms.down.shape, generator=generator).to(norms.down)
        if self.score in BY_OUTPUT:
            [found] = calibration.activations(model, batches, BY_OUTPUT[self.score])
            if self.score == "output":
                return found * norms.down
            energy = found * norms.down.square()
            if self.score == "rms":
                return energy.sqrt()
            return energy / energy.sum(1, keepdim=True).clamp(min=torch.finfo(energy.dtype).tiny)
        return {"w1": norms.up, "w2": norms.down, "both": norms.up * norms.down}[self.score]
