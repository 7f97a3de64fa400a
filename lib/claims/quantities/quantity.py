"""What is a quantity, what does it read, and what does it give?"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from lib.claims.answers import LEVEL, REPLICATES
from lib.runs import Run, Timing

TAIL = (1 - LEVEL) / 2
# Further out by a percentile's Monte Carlo error, so that no verdict hangs on which resamples
# were drawn.
OUTER = TAIL - math.sqrt(TAIL * (1 - TAIL) / REPLICATES)


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval; `n` runs or, where time is read, rounds are behind it."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Evidence:
    """What one cell of a claim rests on.

    `runs` and `rivals` are of this cell, `all` the claim's runs of every cell, `timings` those of
    one machine and encoder under the claim's protocol; `reference` is the claim's row of numbers
    for the task, `values` what the claim's probe found, by cell.
    """

    cell: Any
    runs: tuple[Run, ...]
    rivals: tuple[Run, ...]
    all: tuple[Run, ...]
    timings: tuple[Timing, ...]
    reference: tuple[int | float, ...] = ()
    values: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Quantity:
    """How to measure: an estimate, or a line that says what is missing.

    `by` names a claim's cells, `reads` what is looked at: answers, shape, work (what ran on the
    texts of a task), timings or, of models that drop tokens, token-timings, or what a run did on
    its way; `rival` asks for a claim's `versus`; `loss` is the quantity that stands for a score in
    a replication; `joint` says that all cells of a claim have to hold at once, `home` that it means
    something on the claim's own encoder alone: elsewhere it is shown and not judged. `held` says
    that it is about what is left of the dense score, of which one answer for every text keeps some;
    `caveat` goes with every number that is measured.
    """

    measure: Callable[[Evidence], Estimate | str]
    by: str = "budget"
    reads: str = "answers"
    rival: bool = False
    loss: str = ""
    joint: bool = False
    home: bool = False
    held: bool = False
    caveat: str = ""


def exactly(value: float, n: int) -> Estimate:
    """What is counted and not sampled: no interval."""
    return Estimate(value, value, value, n)


def of_draws(value: float, draws: Float[np.ndarray, " replicates"], n: int) -> Estimate:
    """A value with the interval of its resamples."""
    low, high = np.percentile(draws, (100 * OUTER, 100 * (1 - OUTER)))
    return Estimate(float(value), float(low), float(high), n)


def over_seeds(
    values: Sequence[float], least: float = -math.inf, most: float = math.inf
) -> Estimate:
    """The mean; of a single value nothing says how sure it is, so it stands as a count does.

    `least` and `most` are what a value can be: Student's t knows no bounds.
    """
    mean = float(np.mean(values))
    if len(values) < 2 or np.ptp(values) == 0:
        return exactly(mean, len(values))
    low, high = stats.t.interval(LEVEL, len(values) - 1, mean, stats.sem(values))
    return Estimate(mean, max(float(low), least), min(float(high), most), len(values))
