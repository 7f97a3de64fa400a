"""Learned Token Pruning for Transformers (Kim et al. 2022), https://arxiv.org/abs/2107.00910"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lib import importance
from lib.compact import dense
from lib.errors import StudyError
from lib.importance import Batch
from lib.pruners import Needs, validate
from lib.tokens.dropping import Walk
from lib.tokens.model import wrap
from lib.tokens.rules import Gate, Weigh, watching
from lib.tokens.training import collect, settle, split, train

LEAST = 1e-5  # of a threshold


@dataclass
class Soft(Gate):
    """Layer l's output times sigmoid((score - threshold[l]) / temperature) (Eq. 5)."""

    thresholds: Tensor  # (layers,)
    temperature: float
    kept: list[Tensor]  # mean mask of each layer in the last forward pass

    def before(self, index: int, x: Tensor, walk: Walk) -> Tensor:
        if index == 0:
            self.kept.clear()
        return x

    def weigh(self, index: int, walk: Walk) -> Weigh | None:
        return watching(walk) if index + 1 < len(self.thresholds) else None

    def after(self, index: int, x: Tensor, walk: Walk) -> Tensor:
        if index + 1 == len(self.thresholds):
            return x
        mask = ((walk.column - self.thresholds[index]) / self.temperature).sigmoid()
        mask = torch.cat([torch.ones_like(mask[:, :1]), mask[:, 1:]], dim=1)
        self.kept.append(mask[walk.alive].mean())
        return x * mask[..., None].to(x)


@dataclass(frozen=True)
class Pruner:
    """Learn a threshold for each layer; a token that receives less attention goes no further.

    The score is the mean over heads and over the text's own tokens: divided by the padded length,
    as it could be read, a threshold would depend on padding. Thresholds begin at 0.01 l / L. The
    first `search` of the steps train them with the weights under sigmoid masks, the task's loss
    plus penalty times the mean mask; then all are scaled by one factor to meet the budget, which
    the paper meets by trying penalties, and the rest of the steps train the model that really
    drops: the released code only masks. CLS stays; the last layer has nothing to decide.

    threshold_lr: the paper has one lr for all, in epochs of thousands of steps.
    """

    version: ClassVar[int] = 1
    units: ClassVar[tuple[str, ...]] = ("executed",)
    needs: ClassVar[Needs] = "training"
    compact: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True  # dropout

    unit: str = "executed"
    seed: int = 0
    lr: float = 2e-5
    threshold_lr: float = 2e-5
    penalty: float = 0.1
    temperature: float = 1e-3
    search: float = 0.4

    def __post_init__(self) -> None:
        validate(self)
        if not 0 < self.search < 1 or self.temperature <= 0:
            raise StudyError(
                "wanted search between 0 and 1 and a temperature above 0, got "
                f"{self.search} and {self.temperature}"
            )

    def __call__(self, model: nn.Module, data: Iterable[Batch], budget: float) -> nn.Module:
        batches = collect(model, data, budget, "after")
        if batches is None:
            return dense(model)
        with importance.throwaway(wrap(model, {"rule": "none"}), self.seed) as student:
            first, rest = split(batches, self.search)
            own, losses = self._thresholds(student, first)
            student = wrap(student, {"rule": "threshold", "thresholds": own}).requires_grad_(True)
            trace = settle(student, lambda knob: scaled(own, knob), (first, rest), budget, self.lr)
        student.trace = {"searching": losses, "thresholds": own} | trace
        return student.train(model.training)

    def _thresholds(
        self, student: nn.Module, batches: list[Batch]
    ) -> tuple[list[float], list[float]]:
        layers, device = len(student.config.layers), next(student.parameters()).device
        theta = 0.01 * torch.arange(1, layers + 1, device=device) / layers
        theta.requires_grad_(True)
        gate = Soft(theta, self.temperature, [])

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            found = importance.loss(model, batch)
            return found + self.penalty * torch.stack(gate.kept).mean()

        @torch.no_grad()
        def clip(step: int) -> None:
            theta.clamp_(min=LEAST)

        others = [(theta, self.threshold_lr)]
        losses = train(student, batches, self.lr, loss, gate, others, after=clip)
        return theta.tolist(), losses


def scaled(thresholds: list[float], knob: float) -> dict[str, list[float]]:
    """All thresholds times knob / (1 - knob): at 1/2 as they are, at 1 beyond any score."""
    return {"thresholds": [t * knob / (1 - knob) if knob < 1 else 2.0 for t in thresholds]}
