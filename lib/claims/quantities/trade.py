"""How much score at how much speed? Quantities that read answers and timings together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from lib.claims.quantities import scores, times
from lib.claims.quantities.quantity import Estimate, Evidence, Quantity, of_draws
from lib.claims.quantities.scores import mean_score, seed_noise
from lib.claims.quantities.times import UNTIMED
from lib.runs import Run, Timing, shape_key

Draws = Float[np.ndarray, " replicates"]


@dataclass(frozen=True)
class Point:
    """The runs of one arm and budget: how fast or how small, how good, the score in every resample.

    `speed` is how many times faster than dense or, where size is asked for, how many times smaller.
    """

    speed: int | float
    score: float
    draws: Draws


def speed_of(run: Run, timings: Sequence[Timing], encoder: str) -> float | None:
    """How many times faster than the dense `encoder`; None without a timing.

    Against its own dense model the two took turns; against another encoder's it is a ratio of
    medians of one machine.
    """
    own = [t for t in timings if t.encoder == run.spec.encoder and "dense" in t.seconds]
    if run.spec.method == "dense":
        taken = [float(np.median(t.seconds["dense"])) for t in own]
        seconds = float(np.median(taken)) if taken else None
        base = seconds
    else:
        key = shape_key(run.shape)
        mine = next((t for t in own if shape_key(t.shape) == key and "pruned" in t.seconds), None)
        seconds = float(np.median(mine.seconds["pruned"])) if mine else None
        base = float(np.median(mine.seconds["dense"])) if mine else None
    if run.spec.encoder != encoder:
        theirs = [t for t in timings if t.encoder == encoder and "dense" in t.seconds]
        base = float(np.median([np.median(t.seconds["dense"]) for t in theirs])) if theirs else None
    return base / seconds if base and seconds else None


def smallness(run: Run) -> float:
    """How many times fewer parameters the layers have than the dense ones."""
    return 1 / run.kept["encoder"]


def curve(
    runs: Sequence[Run],
    timings: Sequence[Timing],
    encoder: str,
    stream: int = 0,
    speed: Callable[[Run], float | None] | None = None,
) -> list[Point]:
    """Points by rising speed, one an arm and budget; with the dense `encoder` itself at 1.

    `speed` may be another measure of a run than that of `timings`.
    """
    speed = speed or (lambda run: speed_of(run, timings, encoder))
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        groups.setdefault((run.spec.method, run.spec.budget), []).append(run)
    points = []
    for number, own in enumerate(groups.values()):
        speeds = [s for run in own if (s := speed(run)) is not None]
        if speeds:
            score, draws = mean_score(own, "pruned", False)
            draws = draws + seed_noise(own, 10 * stream + number, False)
            points.append(Point(float(np.mean(speeds)), score, draws))
    home = [run for run in runs if run.spec.encoder == encoder]
    if home and all(point.speed != 1 for point in points):
        points.append(Point(1.0, *mean_score(home, "dense", False)))
    return sorted(points, key=lambda point: point.speed)


def at_speed(points: Sequence[Point], speed: int | float) -> Point:
    """Between two points by the logarithm of speed; beyond the ends the end itself."""
    logs, at = np.log([point.speed for point in points]), np.log(speed)
    right = int(np.clip(np.searchsorted(logs, at), 1, max(len(points) - 1, 1)))
    left, right = points[right - 1], points[min(right, len(points) - 1)]
    span = np.log(right.speed / left.speed)
    part = float(np.clip((at - np.log(left.speed)) / span, 0, 1)) if span else 0.0
    score = (1 - part) * left.score + part * right.score
    return Point(speed, score, (1 - part) * left.draws + part * right.draws)


def _lead(e: Evidence) -> Estimate | str:
    """Score less the rival's where both are as fast as the cell says, or as the rival is.

    A side that is nowhere so fast stands with its fastest run, which is in its favour.
    """
    encoder = e.runs[0].spec.encoder
    own, rival = (curve(side, e.timings, encoder, n) for n, side in enumerate((e.runs, e.rivals)))
    if not _pruned(own) or not _pruned(rival):
        return UNTIMED
    speed = e.cell if e.cell != "" else rival[0].speed
    mine, theirs = at_speed(own, speed), at_speed(rival, speed)
    return of_draws(mine.score - theirs.score, mine.draws - theirs.draws, len(e.runs))


def _lead_at_size(e: Evidence) -> Estimate:
    """Score less the rival's where both have the cell's share of the layers' parameters."""
    encoder = e.runs[0].spec.encoder
    own, rival = (
        curve(side, (), encoder, number, smallness)
        for number, side in enumerate((e.runs, e.rivals))
    )
    mine, theirs = at_speed(own, 1 / e.cell), at_speed(rival, 1 / e.cell)
    return of_draws(mine.score - theirs.score, mine.draws - theirs.draws, len(e.runs))


def _pruned(points: Sequence[Point]) -> bool:
    return any(point.speed != 1 for point in points)


def _at_speed(lost: bool) -> Callable[[Evidence], Estimate | str]:
    """The score, or what of the dense score is lost, at the cell's speed."""

    def measure(e: Evidence) -> Estimate | str:
        points = curve(e.runs, e.timings, e.runs[0].spec.encoder)
        if not _pruned(points):
            return UNTIMED
        if points[-1].speed < e.cell:
            return f"no run is so fast: the fastest is at {points[-1].speed:.1f}"
        found = at_speed(points, e.cell)
        if not lost:
            return of_draws(found.score, found.draws, len(e.runs))
        dense, draws = mean_score(e.runs, "dense", False)
        return of_draws(dense - found.score, draws - found.draws, len(e.runs))

    return measure


def _speed_and_share(e: Evidence) -> Estimate | str:
    """Two sides of the same runs: how many times faster, and what share of the dense score."""
    return (times.QUANTITIES | scores.QUANTITIES)[e.cell].measure(e)


QUANTITIES = {
    "speed-and-share": Quantity(_speed_and_share, by="side", reads="trade", joint=True, held=True),
    "score-at-speed": Quantity(_at_speed(lost=False), "speed", "trade", loss="drop-at-speed"),
    "drop-at-speed": Quantity(_at_speed(lost=True), "speed", "trade", held=True),
    "lead-at-speed": Quantity(_lead, "speed", "trade", rival=True),
    "lead-at-size": Quantity(_lead_at_size, "size", rival=True),
}
