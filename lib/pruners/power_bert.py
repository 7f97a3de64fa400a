"""PoWER-BERT: Progressive Word-vector Elimination (Goyal et al. 2020), https://arxiv.org/abs/2001.08950"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from lib import importance
from lib.compact import dense
from lib.errors import StudyError
from lib.importance import Batch
from lib.pruners import Needs, validate
from lib.tokens.dropping import Walk, ranks
from lib.tokens.model import wrap
from lib.tokens.rules import Gate, Weigh, watching
from lib.tokens.training import collect, settle, split, train


@dataclass
class Soft(Gate):
    """Soft-extract (Sec. 3.3): the token of rank k leaves layer l's attention times r[l, k]."""

    r: Tensor  # (layers, ranks)

    def weigh(self, index: int, walk: Walk) -> Weigh:
        return watching(walk, diagonal=False)

    def between(self, index: int, x: Tensor, walk: Walk) -> Tensor:
        return x * self.r[index][ranks(walk.column, walk.alive)][..., None]


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

    order: by "attention"; "random" and "first" (the text's first tokens) are controls, with the
    schedule found under attention, rescaled to equal MACs. retention_lr: the paper's 5e-4 is for
    epochs of thousands of steps.
    """

    version: ClassVar[int] = 1
    units: ClassVar[tuple[str, ...]] = ("executed",)
    needs: ClassVar[Needs] = "training"
    compact: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True  # dropout

    unit: str = "executed"
    seed: int = 0
    lr: float = 3e-5
    retention_lr: float = 5e-4
    penalty: float = 2e-4
    search: float = 0.4
    order: Literal["attention", "random", "first"] = "attention"

    def __post_init__(self) -> None:
        validate(self)
        if not 0 < self.search < 1:
            raise StudyError(f"wanted search between 0 and 1, got {self.search}")

    def __call__(self, model: nn.Module, data: Iterable[Batch], budget: float) -> nn.Module:
        batches = collect(model, data, budget, "between")
        if batches is None:
            return dense(model)
        longest = max(batch["input_ids"].shape[1] for batch in batches)
        with importance.throwaway(wrap(model, {"rule": "none"}), self.seed) as student:
            first, rest = split(batches, self.search)
            r, losses = self._retention(student, first, longest)
            own = schedule(r)
            rule = {"rule": "rank", "by": self.order, "lengths": own, "seed": self.seed}
            student = wrap(student, rule).requires_grad_(True)
            trace = settle(
                student, lambda knob: scaled(own, knob, longest), (first, rest), budget, self.lr
            )
        student.trace = {"searching": losses, "retention": own} | trace
        return student.train(model.training)

    def _retention(
        self, student: nn.Module, batches: list[Batch], longest: int
    ) -> tuple[Tensor, list[float]]:
        layers = len(student.config.layers)
        like = next(student.parameters())
        r = torch.ones(layers, longest, device=like.device, requires_grad=True)
        depth = torch.arange(1.0, layers + 1, device=like.device)

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            return importance.loss(model, batch) + self.penalty * (depth @ r.sum(1))

        @torch.no_grad()
        def clip(step: int) -> None:
            r.clamp_(0, 1)

        others = [(r, self.retention_lr)]
        losses = train(student, batches, self.lr, loss, Soft(r), others, after=clip)
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
