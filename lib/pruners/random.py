"""The Unreasonable Effectiveness of Random Pruning (Liu et al. 2022), https://arxiv.org/abs/2202.02643

The control of every importance: head dims and neurons drawn alike, whatever their weights. A
departure: structured, and one draw an even share of each head and layer, where the paper draws
single weights.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, Tensor, nn

from lib.models.compact import compact
from lib.models.masks import Masks
from lib.pruners import Needs, validate
from lib.scoring import sampling, search
from lib.scoring.importance import Batch


@dataclass(frozen=True)
class Pruner:
    """Keep any dims of every head and any neurons of every layer, as they are."""

    version: ClassVar[int] = 1
    units: ClassVar[tuple[str, ...]] = ("attention", "encoder")
    needs: ClassVar[Needs] = "nothing"
    compact: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True

    unit: str = "attention"
    seed: int = 0

    def __post_init__(self) -> None:
        validate(self)

    def __call__(self, model: nn.Module, data: Iterable[Batch], budget: float) -> nn.Module:
        generator, dense = Generator().manual_seed(self.seed), Masks.dense(model)

        def drawn(ones: Tensor) -> Tensor:
            kept = search.count(ones.shape[-1], budget)
            return sampling.draw("uniform", ones, kept, generator, rescale=False)

        kept = {"qk": drawn(dense.qk), "vo": drawn(dense.vo)}
        if self.unit == "encoder":
            kept["neurons"] = drawn(dense.neurons)
        return compact(model, search.masks(model, **kept))
