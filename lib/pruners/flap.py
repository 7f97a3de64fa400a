"""Fluctuation-based Adaptive Structured Pruning for Large Language Models (An et al. 2024), https://arxiv.org/abs/2312.11983

A filter that hardly fluctuates is as good as its mean, and its mean can go into the bias.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from lib.measures import costs
from lib.pruners import Needs, validate
from lib.scoring import calibration, filters, importance, search
from lib.scoring.filters import Recovery, Sight
from lib.scoring.importance import Batch


@dataclass(frozen=True)
class Pruner:
    """Keep the filters of greatest Var(h) * ||w||^2, standardised in each layer; mend the biases.

    Only filters: the paper prunes heads by the same measure. `tokens` is the sequence length at
    which MACs are counted; a study fills in the task's mean.
    """

    version: ClassVar[int] = 1
    units: ClassVar[tuple[str, ...]] = ("macs",)
    needs: ClassVar[Needs] = "examples"
    compact: ClassVar[bool] = True
    stochastic: ClassVar[bool] = False

    unit: str = "macs"
    seed: int = 0
    recover: Recovery = "bias"
    tokens: int | float | None = None

    def __post_init__(self) -> None:
        validate(self)
        search.check_tokens(self.tokens)

    def __call__(self, model: nn.Module, data: Iterable[Batch], budget: float) -> nn.Module:
        filters.room(model, self.tokens, budget)  # infeasible? Then before the work
        return self.cut(model, self.scores(model, data), budget)

    def scores(self, model: nn.Module, data: Iterable[Batch]) -> Sight:
        """Standardised fluctuation and the mean of each filter's activation."""
        batches, seconds = calibration.sentences(data), {}
        with costs.clock(seconds, "activations"):
            mean, square = calibration.activations(model, batches, lambda h: h, torch.square)
        weight = importance.norms(model).down.square()
        wide = (square - mean.square()).clamp(min=0) * weight
        spread = wide.std(1, keepdim=True).clamp(min=torch.finfo(wide.dtype).tiny)
        standard = (wide - wide.mean(1, keepdim=True)) / spread
        return Sight({"score": standard, "mean": mean}, batches, seconds)

    def cut(self, model: nn.Module, scores: Sight, budget: float) -> nn.Module:
        """Keep the best of these scores."""

        def select(kept: int) -> torch.Tensor:
            return filters.greatest(scores.scores["score"], kept)

        return filters.prune(model, select, scores, budget, self.tokens, self.recover)
