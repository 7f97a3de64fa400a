"""Learning both Weights and Connections for Efficient Neural Networks (Han et al. 2015), https://arxiv.org/abs/1506.02626

Structured, which is a departure: not single weights but whole head dims and neurons, by the norms
of their slices; the largest are kept as they are.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from lib.models.compact import compact
from lib.pruners import Needs, validate
from lib.scoring import importance, search
from lib.scoring.importance import Batch


@dataclass(frozen=True)
class Pruner:
    """Keep the dims of every head, and the neurons of every layer, of greatest norm product."""

    version: ClassVar[int] = 1
    units: ClassVar[tuple[str, ...]] = ("attention", "encoder")
    needs: ClassVar[Needs] = "nothing"
    compact: ClassVar[bool] = True
    stochastic: ClassVar[bool] = False

    unit: str = "attention"
    seed: int = 0

    def __post_init__(self) -> None:
        validate(self)

    def __call__(self, model: nn.Module, data: Iterable[Batch], budget: float) -> nn.Module:
        norms = importance.norms(model)
        kept = {
            "qk": search.even(norms.query * norms.key, budget),
            "vo": search.even(norms.value * norms.output, budget),
        }
        if self.unit == "encoder":
            kept["neurons"] = search.even(norms.up * norms.down, budget)
        return compact(model, search.masks(model, **kept))
