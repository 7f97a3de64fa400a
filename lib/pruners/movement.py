"""Movement Pruning: Adaptive Sparsity by Fine-Tuning (Sanh et al. 2020), https://arxiv.org/abs/2005.07683

Structured, a departure that its successor took (Lagunas et al. 2021, block movement pruning,
https://arxiv.org/abs/2109.04838): a score for each head dim and neuron, not for each weight.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lib.errors import StudyError
from lib.models.compact import compact, dense
from lib.models.masks import Masks, applied
from lib.pruners import Needs, validate
from lib.scoring import importance, search
from lib.scoring.importance import Batch


@dataclass(frozen=True)
class Pruner:
    """Fine-tune a copy under masks that follow S = -sum_t W * dL/dW; return the copy, pruned.

    sum W * dL/dW over a unit's masked weights is the derivative by the unit's mask, so S gathers
    that; it is passed straight through the choice, so a dropped unit can return (Sec. 4). The kept
    fraction v follows Zhu and Gupta's cubic schedule (Sec. 5): 1 for the first `warmup` of the
    steps, the budget for the last `cooldown`. Top-v in each head and in each layer's neurons. As
    many steps as data has batches. The paper's learning rate of the scores drops out of their
    ranking. A budget of 1 prunes nothing and so trains nothing.
    """

    version: ClassVar[int] = 1
    units: ClassVar[tuple[str, ...]] = ("attention", "encoder")
    needs: ClassVar[Needs] = "training"
    compact: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True  # dropout

    unit: str = "attention"
    seed: int = 0
    lr: float = 3e-5
    warmup: float = 0.1
    cooldown: float = 0.2

    def __post_init__(self) -> None:
        validate(self)
        if min(self.warmup, self.cooldown) < 0 or self.warmup + self.cooldown >= 1:
            raise StudyError(
                "wanted warmup and cooldown of at least 0 and together below 1, got "
                f"{self.warmup} and {self.cooldown}"
            )

    def __call__(self, model: nn.Module, data: Iterable[Batch], budget: float) -> nn.Module:
        if search.check(budget) == 1:
            return dense(model)
        parts = ("qk", "vo", "neurons") if self.unit == "encoder" else ("qk", "vo")
        scores = {part: torch.zeros_like(getattr(Masks.dense(model), part)) for part in parts}
        _select(model, scores, budget)  # infeasible? Then before the work
        batches = importance.collect(data, "labelled training batches")
        with importance.throwaway(model, self.seed) as student:
            for step, batch in enumerate(importance.steps(student, batches, self.lr)):
                masks = _select(student, scores, self.kept(step / len(batches), budget))
                leaves = [getattr(masks, part).requires_grad_() for part in parts]
                with applied(student, masks):
                    importance.loss(student, batch).backward()
                for part, leaf in zip(parts, leaves, strict=True):
                    scores[part] -= leaf.grad
        return compact(student.train(model.training), _select(student, scores, budget))

    def kept(self, progress: float, budget: float) -> float:
        """The fraction kept when `progress`, 0 to 1, of the steps are done."""
        ramp = (progress - self.warmup) / (1 - self.warmup - self.cooldown)
        return budget + (1 - budget) * (1 - min(max(ramp, 0.0), 1.0)) ** 3


def _select(model: nn.Module, scores: dict[str, Tensor], budget: float) -> Masks:
    return search.masks(model, **{part: search.even(s, budget) for part, s in scores.items()})
