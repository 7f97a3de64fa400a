"""Which rows of a matrix stand for the others? The kernel form of a convex hull.

min over C >= 0 of ||W - WC||^2, by multiplicative updates (semi-NMF, Ding et al. 2010) with
W^T W replaced by a Gaussian kernel, as in Nova et al. 2023, Sec. 3.1. An exact hull of N points in
d dimensions costs O(N^(d/2)); an update costs 2 N^3, and the first one alone N^2.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lib.errors import StudyError

Kernel = Literal["2s2", "s2"]  # exp(-d^2 / 2 sigma^2) or exp(-d^2 / sigma^2)
Stop = Literal["signed", "abs", "l1"]
MOST = 200  # updates; the limits of the paper stop well before


def gaussian(
    rows: Float[Tensor, "N d"], sigma: float = 1.0, kernel: Kernel = "2s2"
) -> Float[Tensor, "N N"]:
    """K_ij in float64, of the distance between rows i and j."""
    rows = rows.double()
    squares = rows.square().sum(1)
    distance = torch.addmm(squares[:, None] + squares, rows, rows.T, alpha=-2).clamp_(min=0)
    distance.fill_diagonal_(0)
    return distance.mul_(-1 / (2 * sigma**2 if kernel == "2s2" else sigma**2)).exp_()


def representatives(
    rows: Float[Tensor, "N d"],
    sigma: float = 1.0,
    kernel: Kernel = "2s2",
    stop: Stop = "signed",
    limit: float = 0.01,
    floor: float = 1e-30,
) -> tuple[Float[Tensor, "N"], int]:
    """The diagonal of C in float64, how much of itself each row needs, and the updates it took.

    C begins as ones / N; an update is C * sqrt(K / (K C + floor)). It stops once the change,
    relative to the sum of C, is at most `limit`: the sum of differences as printed ("signed"), its
    absolute value, or the sum of absolute differences ("l1"). The signed change of the first
    update is never positive (Jensen's inequality), so as printed there is one update, and its
    diagonal is 1 / (N sqrt(mean_j K_ij)). Raises a StudyError where rows are not finite or the
    updates do not settle.
    """
    if not rows.isfinite().all():
        raise StudyError("wanted finite weights to find representatives of, got NaN or infinity")
    kern, size = gaussian(rows, sigma, kernel), len(rows)
    if not size:
        return rows.new_zeros(0).double(), 0
    if stop == "signed":
        return 1 / (size * (kern.mean(1) + floor).sqrt()), 1
    share = torch.full_like(kern, 1 / size)
    for update in range(1, MOST + 1):
        new = share * (kern / (kern @ share + floor)).sqrt()
        moved = new - share
        change = moved.sum().abs() if stop == "abs" else moved.abs().sum()
        change, share = change / share.sum(), new
        if change <= limit:
            return share.diagonal().clone(), update
    raise StudyError(
        f"representatives of {size} rows moved by {float(change):.3g} after {MOST} updates, "
        f"limit {limit}; raise the limit"
    )
