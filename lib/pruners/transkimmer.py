"""Transkimmer: Transformer Learns to Layer-wise Skim (Guan et al. 2022), https://arxiv.org/abs/2205.07324"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.errors import StudyError
from lib.models import encoder
from lib.models.compact import dense
from lib.pruners import Needs, validate
from lib.scoring import importance
from lib.scoring.importance import Batch
from lib.tokens.costs import fraction
from lib.tokens.dropping import Walk, weighed
from lib.tokens.model import wrap
from lib.tokens.rules import Gate, Weigh
from lib.tokens.training import collect, draw, settle, split, train
from lib.training.lagrangian import Course, Price


@dataclass
class Soft(Gate):
    """Gumbel-softmax decisions, 0 or 1 with the gradient of the softmax (Eq. 3); a token that was
    sent away never returns."""

    predictors: nn.ModuleList
    normalise: bool
    kept: list[Tensor]  # mean mask of each layer in the last forward pass
    sure: Tensor | None = None  # masks without noise, as the hard rule has them
    left: list[Tensor] = field(default_factory=list)  # their means

    def before(self, index: int, x: Tensor, walk: Walk) -> Tensor:
        logits = self.predictors[index](x).float()
        drawn = F.gumbel_softmax(logits, tau=1, hard=True)[..., 1]
        stays, sure = (
            torch.cat([torch.ones_like(mask[:, :1]), mask[:, 1:]], dim=1)
            for mask in (drawn, (logits[..., 1] > logits[..., 0]).to(drawn))
        )
        if index == 0:
            self.kept.clear()
            self.left.clear()
        walk.weights = stays if index == 0 else walk.weights * stays
        self.sure = sure if index == 0 else self.sure * sure
        self.kept.append(walk.weights[walk.alive].mean())
        self.left.append(self.sure[walk.alive].mean())
        return x

    def weigh(self, index: int, walk: Walk) -> Weigh:
        return lambda probabilities: weighed(probabilities, walk.weights, self.normalise)


@dataclass(frozen=True)
class Pruner:
    """Before each layer a small predictor says which tokens enter it; CLS always does.

    Predictors are part of the model and of its MACs. They train with the weights, on the task's
    loss plus penalty times the mean mask. The paper meets a budget by trying penalties; here, in
    the first `search` of the steps, the penalty is a price that rises and falls until MACs without
    noise are at a target, which goes from all to the budget in the first half of them. Then one
    shift of all logits corrects what is missed, and the rest of the steps train the model that
    really drops. Skimmed tokens are not forwarded to the output: the classifier reads CLS alone.

    The paper multiplies by the mask behind the softmax and does not normalise again (Eq. 4), so its
    model computes what no model that drops can. Here it is normalised; `faulty` gives the paper's
    form, which only masks. free: all steps with the penalty as it is, and the decisions where
    training leaves them, whatever the budget. predictor_lr: the paper has one lr for all, over
    thousands of steps.
    """

    version: ClassVar[int] = 2  # 1 met budgets by the shift alone
    units: ClassVar[tuple[str, ...]] = ("executed",)
    needs: ClassVar[Needs] = "training"
    compact: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True  # Gumbel noise, dropout

    unit: str = "executed"
    seed: int = 0
    lr: float = 2e-5
    predictor_lr: float = 2e-5
    penalty: float = 0.5
    price_lr: float = 0.1
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
        texts = draw(model, batches, self.seed)
        with importance.throwaway(wrap(model, rule), self.seed) as student:
            if self.free:
                trace = {"searching": self._freely(student, batches)}
                trace |= {"own": round(fraction(student, texts, claimed=True)[0], 4)}
            else:
                first, rest = split(batches, self.search)
                trace = self._priced(student, first, budget)
                trace |= settle(student, shifted, texts, rest, budget, self.lr)
        student.trace = trace
        return student.train(model.training)

    def _freely(self, student: nn.Module, batches: list[Batch]) -> list[float]:
        gate = Soft(student.encoder.predictors, not self.faulty, [])

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            found = importance.loss(model, batch)
            return found + self.penalty * torch.stack(gate.kept).mean()

        return train(student, batches, self.lr, loss, gate, self._others(student))

    def _priced(self, student: nn.Module, batches: list[Batch], budget: float) -> dict:
        gate, shape = Soft(student.encoder.predictors, True, []), encoder.shape(student)
        price = Price(self.price_lr, device=next(student.parameters()).device)
        with torch.no_grad():
            price.l1.fill_(-self.penalty)
        course, curve = Course(0.0, 1 - budget, len(batches) // 2, "linear"), []

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            found = importance.loss(model, batch)
            tokens = batch["attention_mask"].sum(1).float().mean().to(found.device)
            kept, left = (executed(shape, each, tokens) for each in (gate.kept, gate.left))
            now, target = 1 - kept + (kept - left).detach(), course.target(len(curve))
            curve.append((now.item(), target))
            return found + price(now, target)

        def step(_: int) -> None:
            price.step(*curve[-1])

        losses = train(student, batches, self.lr, loss, gate, self._others(student), after=step)
        went = [round(1 - now, 4) for now, _ in curve[:: -(-len(curve) // 50)]]
        return {"searching": losses, "executed": went}

    def _others(self, student: nn.Module) -> list[tuple[Tensor, float]]:
        return [(p, self.predictor_lr) for p in student.encoder.predictors.parameters()]


def executed(shape: encoder.Shape, kept: list[Tensor], tokens: Tensor) -> Tensor:
    """MACs, predictors included, over the dense model's, of a text of `tokens` tokens of which each
    layer's work is done on the fraction `kept`."""
    spent, whole, before = 0, 0, 1.0
    for layer, own in zip(shape.layers, kept, strict=True):
        linear = 2 * shape.hidden * (layer.heads * (layer.qk + layer.vo) + layer.neurons)
        square = 2 * layer.heads * max(layer.qk, layer.vo) * tokens
        spent = spent + linear * own + square * own**2
        spent = spent + shape.hidden * (shape.hidden + 2) * before
        whole, before = whole + linear + square, own
    return spent / whole


def shifted(knob: float) -> dict[str, float]:
    """What all logits are shifted by: at 1/2 nothing, at 1 so much that none stays."""
    return {"shift": 4 * math.log((1 - knob) / knob) if knob < 1 else -1e4}
