"""Learning both Weights and Connections for Efficient Neural Networks (Han et al. 2015), https://arxiv.org/abs/1506.02626

Single weights by magnitude: zeros in matrices of the old shape, and so no speed.
"""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

from torch import nn
from torch.nn.utils import prune

from lib.errors import StudyError
from lib.models import encoder
from lib.pruners import Needs, validate
from lib.scoring import search
from lib.scoring.importance import Batch


@dataclass(frozen=True)
class Pruner:
    """Zero the smallest weights of all layers together; biases stay.

    The budget counts biases as parameters kept. Attention and FFN are ranked apart, so that with
    unit "encoder" each is at the budget.
    """

    version: ClassVar[int] = 1
    units: ClassVar[tuple[str, ...]] = ("attention", "encoder")
    needs: ClassVar[Needs] = "nothing"
    compact: ClassVar[bool] = False
    stochastic: ClassVar[bool] = False

    unit: str = "attention"
    seed: int = 0

    def __post_init__(self) -> None:
        validate(self)

    def __call__(self, model: nn.Module, data: Iterable[Batch], budget: float) -> nn.Module:
        search.check(budget)
        model = deepcopy(model)
        layers = encoder.layers(model)
        _zero([m for a in layers for m in (a.query, a.key, a.value, a.output)], budget)
        if self.unit == "encoder":
            _zero([m for a in layers for m in (a.up, a.down)], budget)
        return model


def _zero(matrices: list[nn.Linear], budget: float) -> None:
    parameters = sum(p.numel() for matrix in matrices for p in matrix.parameters())
    weights = [(matrix, "weight") for matrix in matrices]
    dropped = parameters - search.count(parameters, budget, "parameters")
    most = sum(matrix.weight.numel() for matrix in matrices)
    if dropped >= most:
        raise StudyError(
            f"a budget of {budget} drops {dropped} of {parameters} parameters, but biases stay and "
            f"there are {most} weights; ask for more"
        )
    prune.global_unstructured(weights, prune.L1Unstructured, amount=dropped)
    for matrix, name in weights:
        prune.remove(matrix, name)
