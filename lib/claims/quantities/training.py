"""Did training do what was asked, and at what price? Student's t over seeds."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from lib.claims.quantities.quantity import Estimate, Evidence, Quantity, over_seeds
from lib.runs import Run

NO_TRACE = "its training left no trace on record"
SPENT = ("teacher", "score", "prune", "finetune")  # phases of a run's seconds


def sparsity(run: Run) -> int | float:
    """Share of the layers' parameters that is gone, counted on the tensors of what is left."""
    return 1 - run.kept["encoder"]


def hours(run: Run) -> int | float:
    """All training and pruning behind a run, the teacher's too."""
    return sum(run.seconds.get(phase, 0.0) for phase in SPENT) / 3600


def pruning_seconds(run: Run) -> float:
    """From the dense model to the smaller one: scores and pruning, calibration included."""
    return sum(run.seconds.get(phase, 0.0) for phase in ("score", "prune"))


def curve(run: Run) -> list[dict[str, int | float]]:
    """What a run noted on its way: step, expected, target and realised sparsity, losses."""
    trace = run.trace
    return [dict(zip(trace["columns"], row, strict=True)) for row in trace.get("curve", ())]


def _off(
    row: Callable[[Run], Mapping[str, int | float]], one: str, other: str
) -> Callable[[Evidence], Estimate | str]:
    """How far two sparsities of a training are apart, in absolute value."""

    def measure(e: Evidence) -> Estimate | str:
        told = [row(run) for run in e.runs if curve(run)]
        if not told:
            return NO_TRACE
        return over_seeds([abs(at[one] - at[other]) for at in told], least=0.0)

    return measure


def _last(run: Run) -> dict[str, int | float]:
    """The last row, beside the target that was asked for: the training may aim above it."""
    return curve(run)[-1] | {"asked": run.trace["target"]}


def _taken(run: Run) -> dict[str, int | float]:
    """The row of the step whose masks were kept; the last where none was noted."""
    rows = curve(run)
    return next((row for row in rows if row["step"] == run.trace.get("taken")), rows[-1])


def _each(value: Callable[[Run], Any], most: float = math.inf) -> Callable[[Evidence], Estimate]:
    return lambda e: over_seeds([value(run) for run in e.runs], least=0.0, most=most)


QUANTITIES = {
    "sparsity": Quantity(_each(sparsity, most=1.0), reads="layers"),
    "full-sparsity": Quantity(_each(lambda run: 1 - run.kept["model"], most=1.0), reads="layers"),
    "expected-off": Quantity(_off(_last, "expected", "asked"), reads="trace"),
    "realised-off": Quantity(_off(_taken, "realised", "expected"), reads="trace"),
    "hours": Quantity(_each(hours), reads="layers"),
    "seconds": Quantity(_each(pruning_seconds), reads="seconds"),
}
