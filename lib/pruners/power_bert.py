"""PoWER-BERT: Progressive Word-vector Elimination (Goyal et al. 2020), https://arxiv.org/abs/2001.08950"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from lib.errors import StudyError
from lib.models.compact import dense
from lib.pruners import Needs, validate
from lib.scoring import importance
from lib.scoring.importance import Batch
from lib.tokens.dropping import Walk, ranks
from lib.tokens.model import wrap
from lib.tokens.rules import Gate, Weigh, order, watching
from lib.tokens.training import Loss, collect, distilled, draw, settle, split, train


@dataclass
class Soft(Gate):
    """Soft-extract (Sec. 3.3): the token of rank k leaves layer l's attention times r[l, k]."""

    r: Tensor  # (layers, ranks)
    by: str = "attention"
    seed: int = 0

    def weigh(self, index: int, walk: Walk) -> Weigh | None:
        return watching(walk, diagonal=False) if self.by == "attention" else None

    def between(self, index: int, x: Tensor, walk: Walk) -> Tensor:
        rank = ranks(order(self.by, walk, self.seed), walk.alive)
        return x * self.r[index][rank][..., None]


@dataclass(frozen=True)
class Pruner:
    """Learn how many tokens each layer needs, then keep those with most attention.

    The score of a token is the attention paid to it, summed over heads and the other queries; it is
    cut between attention and feed-forward part. The first `search` of the steps train weights and
    retention r in [0, 1] together, the task's loss plus penalty * sum_l l * sum_k r[l, k]; a layer
    then keeps floor(sum_k r[l, k]) tokens, no more than the one before. All lengths are scaled
    alike to meet the budget, which the paper meets by trying penalties, and the rest of the steps
    train the model that really drops. Lengths do not depend on the text, so a text shorter than a
    layer's length passes whole.

    order: by "attention"; "random" and "first" (the text's first tokens) are controls, which learn
    and meet their lengths in the same way. distil: weight of the KL from the dense model's answers,
    for a control of methods that are distilled; the paper has none. retention_lr: without it 4 by
    the number of steps, so that r, on a rate that falls to 0, can go from 1 to 0 and back; the
    paper's 5e-4 is for epochs of thousands of steps.
    """

    version: ClassVar[int] = 2  # 1 could not shut what it began to, and searched controls unlike
    units: ClassVar[tuple[str, ...]] = ("executed",)
    needs: ClassVar[Needs] = "training"
    compact: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True  # dropout

    unit: str = "executed"
    seed: int = 0
    lr: float = 3e-5
    retention_lr: int | float | None = None
    penalty: float = 2e-4
    search: float = 0.4
    order: Literal["attention", "random", "first"] = "attention"
    distil: float = 0.0

    def __post_init__(self) -> None:
        validate(self)
        if not 0 < self.search < 1 or self.distil < 0:
            raise StudyError(
                "wanted search between 0 and 1 and distil of at least 0, got "
                f"{self.search} and {self.distil}"
            )

    def __call__(self, model: nn.Module, data: Iterable[Batch], budget: float) -> nn.Module:
        batches = collect(model, data, budget, "between")
        if batches is None:
            return dense(model)
        longest = max(batch["input_ids"].shape[1] for batch in batches)
        texts = draw(model, batches, self.seed)
        whole = wrap(model, {"rule": "none"}).eval().requires_grad_(False)

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            if not self.distil:
                return importance.loss(model, batch)
            return distilled(model, whole, batch, self.distil)

        with importance.throwaway(whole, self.seed) as student:
            first, rest = split(batches, self.search)
            r, losses = self._retention(student, first, longest, loss)
            own = schedule(r)
            rule = {"rule": "rank", "by": self.order, "lengths": own, "seed": self.seed}
            student = wrap(student, rule).requires_grad_(True)
            trace = settle(
                student, lambda knob: scaled(own, knob, longest), texts, rest, budget, self.lr, loss
            )
        student.trace = {"searching": losses, "retention": own} | trace
        return student.train(model.training)

    def _retention(
        self,
        student: nn.Module,
        batches: list[Batch],
        longest: int,
        loss: Loss = importance.loss,
    ) -> tuple[Tensor, list[float]]:
        layers = len(student.config.layers)
        like = next(student.parameters())
        r = torch.ones(layers, longest, device=like.device, requires_grad=True)
        depth = torch.arange(1.0, layers + 1, device=like.device)

        def penalised(model: nn.Module, batch: Batch) -> Tensor:
            return loss(model, batch) + self.penalty * (depth @ r.sum(1))

        @torch.no_grad()
        def clip(step: int) -> None:
            r.clamp_(0, 1)

        others = [(r, self.retention_lr or 4 / len(batches))]
        gate = Soft(r, self.order, self.seed)
        losses = train(student, batches, self.lr, penalised, gate, others, after=clip)
        return r.detach(), losses


def schedule(r: Tensor) -> list[int]:
    """How many tokens each layer keeps: what its retention sums to, never more than before."""
    found, least = [], r.shape[1]
    for total in r.double().sum(1).tolist():
        least = max(1, min(least, int(total + 1e-6)))
        found.append(least)
    return found


def scaled(lengths: list[int], knob: float, longest: int) -> dict[str, list[int]]:
    """All lengths times (1 - knob) / knob: at 1/2 as they are, at 1 CLS alone."""
    factor = (1 - knob) / knob
    return {"lengths": [max(1, min(longest, round(n * factor))) for n in lengths]}
