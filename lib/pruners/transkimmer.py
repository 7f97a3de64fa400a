"""Transkimmer: Transformer Learns to Layer-wise Skim (Guan et al. 2022), https://arxiv.org/abs/2205.07324"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib import importance
from lib.compact import dense
from lib.errors import StudyError
from lib.importance import Batch
from lib.pruners import Needs, validate
from lib.tokens.costs import fraction
from lib.tokens.dropping import Walk, weighed
from lib.tokens.model import wrap
from lib.tokens.rules import Gate, Weigh
from lib.tokens.training import collect, settle, split, train


@dataclass
class Soft(Gate):
    """Gumbel-softmax decisions, 0 or 1 with the gradient of the softmax (Eq. 3); a token that was
    sent away never returns."""

    predictors: nn.ModuleList
    normalise: bool
    kept: list[Tensor]  # mean mask of each layer in the last forward pass

    def before(self, index: int, x: Tensor, walk: Walk) -> Tensor:
        if index == 0:
            self.kept.clear()
            walk.weights = torch.ones_like(x[..., 0])
        drawn = F.gumbel_softmax(self.predictors[index](x).float(), tau=1, hard=True)[..., 1]
        stays = torch.cat([torch.ones_like(drawn[:, :1]), drawn[:, 1:]], dim=1)
        walk.weights = walk.weights * stays
        self.kept.append(walk.weights[walk.alive].mean())
        return x

    def weigh(self, index: int, walk: Walk) -> Weigh:
        return lambda probabilities: weighed(probabilities, walk.weights, self.normalise)


@dataclass(frozen=True)
class Pruner:
    """Before each layer a small predictor says which tokens enter it; CLS always does.

    Predictors are part of the model and of its MACs. They train with the weights, on the task's
    loss plus penalty times the mean mask. After the first `search` of the steps one shift of all
    logits meets the budget, which the paper meets by trying penalties; the rest of the steps train
    the model that really drops. Skimmed tokens are not forwarded to the output: the classifier
    reads CLS alone.

    The paper multiplies by the mask behind the softmax and does not normalise again (Eq. 4), so its
    model computes what no model that drops can. Here it is normalised; `faulty` gives the paper's
    form, which only masks. free: leave the decisions where training leaves them, whatever the
    budget, as the paper does. predictor_lr: the paper has one lr for all, over thousands of steps.
    """

    version: ClassVar[int] = 1
    units: ClassVar[tuple[str, ...]] = ("executed",)
    needs: ClassVar[Needs] = "training"
    compact: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True  # Gumbel noise, dropout

    unit: str = "executed"
    seed: int = 0
    lr: float = 2e-5
    predictor_lr: float = 2e-5
    penalty: float = 0.5
    search: float = 0.6
    faulty: bool = False
    free: bool = False

    def __post_init__(self) -> None:
        validate(self)
        if not 0 < self.search < 1:
            raise StudyError(f"wanted search between 0 and 1, got {self.search}")
        if self.faulty and not self.free:
            raise StudyError("the faulty form drops nothing, so meets no budget: set free too")

    def __call__(self, model: nn.Module, data: Iterable[Batch], budget: float) -> nn.Module:
        batches = collect(model, data, budget, "before")
        if batches is None:
            return dense(model)
        rule = {"rule": "skim", "shift": 0.0, "renormalise": not self.faulty}
        with importance.throwaway(wrap(model, rule), self.seed) as student:
            gate = Soft(student.encoder.predictors, not self.faulty, [])

            def loss(model: nn.Module, batch: Batch) -> Tensor:
                found = importance.loss(model, batch)
                return found + self.penalty * torch.stack(gate.kept).mean()

            first, rest = (batches, []) if self.free else split(batches, self.search)
            others = [(p, self.predictor_lr) for p in student.encoder.predictors.parameters()]
            losses = train(student, first, self.lr, loss, gate, others)
            if self.free:
                trace = {"own": round(fraction(student, first[:16], claimed=True)[0], 4)}
            else:
                trace = settle(student, shifted, (first, rest), budget, self.lr)
        student.trace = {"searching": losses} | trace
        return student.train(model.training)


def shifted(knob: float) -> dict[str, float]:
    """What all logits are shifted by: at 1/2 nothing, at 1 so much that none stays."""
    return {"shift": 4 * math.log((1 - knob) / knob) if knob < 1 else -1e4}
