"""How is a training held to a target sparsity? By a price on missing it, which learns too.

Structured Pruning of Large Language Models (Wang et al. 2020), https://arxiv.org/abs/1910.04732:
loss + l1 (s - t) + l2 (s - t)^2, minimised by the gates and maximised by l1 and l2.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

WOUND = -3.0  # how far l1 may stay wound up once the target is reached
Warmup = Literal["cubic", "linear"]


@dataclass(frozen=True)
class Course:
    """The target by step: from `begin` to `end` over `steps`, then constant.

    "cubic" is Zhu and Gupta's (2017), which spends the steps at its end, where sparsity is dear.
    """

    begin: float
    end: float
    steps: int
    kind: Warmup = "cubic"

    def target(self, step: int) -> float:
        """The target at the given step, counted from 0."""
        left = 1 - min(step / self.steps, 1.0) if self.steps else 0.0
        return self.end + (self.begin - self.end) * (left**3 if self.kind == "cubic" else left)


class Price(nn.Module):
    """l1 and l2, and their own optimiser: gradient ascent by AdamW."""

    def __init__(self, lr: float, unwind: bool = True, device: torch.device | None = None):
        super().__init__()
        self.l1 = nn.Parameter(torch.zeros((), device=device))
        self.l2 = nn.Parameter(torch.zeros((), device=device))
        self.unwind = unwind
        self.optimiser = torch.optim.AdamW(
            [self.l1, self.l2], lr=lr, weight_decay=0.0, maximize=True
        )

    def forward(self, sparsity: Tensor, target: float) -> Tensor:
        """What is added to the loss."""
        gap = sparsity - target
        return self.l1 * gap + self.l2 * gap**2

    def step(self, sparsity: float, target: float) -> None:
        """Raise the price of the last gap; with `unwind`, forget old debts once it is closed.

        During the warm-up l1 winds up to pull the gates along; without this it overshoots for as
        long again, and the sparsity swings instead of settling.
        """
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.unwind and sparsity >= target:
            with torch.no_grad():
                self.l1.clamp_(min=WOUND)
