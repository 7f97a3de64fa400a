"""Learned Token Pruning for Transformers (Kim et al. 2022), https://arxiv.org/abs/2107.00910"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lib.errors import StudyError
from lib.models import encoder
from lib.models.compact import dense
from lib.pruners import Needs, validate
from lib.scoring import importance
from lib.scoring.importance import Batch
from lib.tokens.dropping import Walk
from lib.tokens.model import ruled, wrap
from lib.tokens.rules import Gate, Weigh, watching
from lib.tokens.training import calibrate, collect, draw, settle, split, train
from lib.training.lagrangian import Course

LEAST = 1e-5  # of a threshold


@dataclass
class Soft(Gate):
    """Layer l's output times sigmoid((score - threshold[l]) / T) (Eq. 5)."""

    thresholds: Tensor  # (layers,)
    temperatures: Tensor  # T of each layer
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
        mask = ((walk.column - self.thresholds[index]) / self.temperatures[index]).sigmoid()
        mask = torch.cat([torch.ones_like(mask[:, :1]), mask[:, 1:]], dim=1)
        self.kept.append(mask[walk.alive].mean())
        return x * mask[..., None].to(x)


@dataclass(frozen=True)
class Pruner:
    """Learn a threshold for each layer; a token that receives less attention goes no further.

    The score is the mean over heads and over the text's own tokens: divided by the padded length,
    as it could be read, a threshold would depend on padding. The first `search` of the steps train
    thresholds with the weights under sigmoid masks, the task's loss plus penalty times the sum of
    all layers' mean masks; the rest train the model that really drops: the released code only
    masks. CLS stays; the last layer has nothing to decide.

    A departure: the paper meets a budget by trying penalties, in epochs of thousands of steps. Here
    thresholds begin in proportion to its 0.01 l / L, but where they meet the budget on the dense
    model, or with `rising` at nothing, whence they rise to that in the first half of the search.
    Behind the search one factor for all, kept in the trace, corrects what it is missed by.
    `temperature` is in full thresholds, as the paper's 1e-3 stands beside its 0.01, and so is
    `threshold_lr`: without it 1 by the number of steps, so that, on a rate that falls to 0, a
    threshold can go up or down by half.
    """

    version: ClassVar[int] = 2  # 1 began at 0.01 l / L whatever the budget: the factor decided all
    units: ClassVar[tuple[str, ...]] = ("executed",)
    needs: ClassVar[Needs] = "training"
    compact: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True  # dropout

    unit: str = "executed"
    seed: int = 0
    lr: float = 2e-5
    threshold_lr: int | float | None = None
    penalty: float = 0.1
    temperature: float = 0.1
    search: float = 0.4
    rising: bool = False

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
        rule = {"rule": "threshold", "thresholds": paper(model)}
        texts = draw(model, batches, self.seed)
        with importance.throwaway(wrap(model, rule), self.seed) as student:
            first, rest = split(batches, self.search)
            calibrate(student, lambda knob: scaled(paper(model), knob), texts, budget)
            own, losses = self._thresholds(student, first)
            ruled(student, thresholds=own)
            trace = settle(student, lambda knob: scaled(own, knob), texts, rest, budget, self.lr)
            factor = round(student.config.tokens["thresholds"][0] / own[0], 4)
        student.trace = {"searching": losses, "thresholds": own, "factor": factor} | trace
        return student.train(model.training)

    def _thresholds(
        self, student: nn.Module, batches: list[Batch]
    ) -> tuple[list[float], list[float]]:
        """The student's own thresholds, trained; what is learned is a factor of each."""
        device = next(student.parameters()).device
        begin = torch.tensor(student.config.tokens["thresholds"], device=device).clamp(min=LEAST)
        factors = torch.ones_like(begin, requires_grad=True)
        gate = Soft(begin, self.temperature * begin, [])
        rises = len(batches) // 2 if self.rising else 0
        course, done = Course(0.0, 1.0, rises, "linear"), 0

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            theta = begin * factors
            gate.thresholds = theta * course.target(done)
            gate.temperatures = self.temperature * theta.detach()
            found = importance.loss(model, batch)
            return found + self.penalty * torch.stack(gate.kept).sum()

        @torch.no_grad()
        def clip(step: int) -> None:
            nonlocal done
            done = step
            factors.copy_(factors.maximum(LEAST / begin))

        others = [(factors, self.threshold_lr or 1 / len(batches))]
        losses = train(student, batches, self.lr, loss, gate, others, after=clip)
        return (begin * factors).tolist(), losses


def paper(model: nn.Module) -> list[float]:
    """Where the paper's thresholds begin."""
    layers = len(encoder.blocks(model))
    return [0.01 * layer / layers for layer in range(1, layers + 1)]


def scaled(thresholds: list[float], knob: float) -> dict[str, list[float]]:
    """All thresholds times knob / (1 - knob): at 1/2 as they are, at 1 beyond any score."""
    return {"thresholds": [t * knob / (1 - knob) if knob < 1 else 2.0 for t in thresholds]}
