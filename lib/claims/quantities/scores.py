"""How good are the answers? A paired bootstrap over examples, Student's t over seeds."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from lib.claims.answers import REPLICATES, SEED, score
from lib.claims.quantities.quantity import Estimate, Evidence, Quantity, of_draws
from lib.runs import Run

Combine = Callable[[Any, Any, Any], Any]  # of the dense, the pruned and the rival's score


def _of_answers(combine: Combine, plain: bool = False) -> Callable[[Evidence], Estimate]:
    """A quantity of scores, each the mean over its runs; `plain` has accuracy for F1.

    Examples are resampled for all models at once (paired). Where several seeds were run, a value
    of Student's t with their standard error joins each resample: with equal answers in all seeds
    this is the paired bootstrap, without a spread over examples it is the t interval.
    """

    def measure(e: Evidence) -> Estimate:
        dense = mean_score(e.runs, "dense", plain)
        pruned = mean_score(e.runs, "pruned", plain)
        rival = mean_score(e.rivals, "pruned", plain) if e.rivals else (0.0, 0.0)
        spread = (0.0, seed_noise(e.runs, 0, plain), seed_noise(e.rivals, 1, plain))
        parts = (dense, pruned, rival)
        value = combine(*(point for point, _ in parts))
        draws = combine(*(d + noise for (_, d), noise in zip(parts, spread, strict=True)))
        return of_draws(value, draws, len(e.runs))

    return measure


def mean_score(
    runs: Sequence[Run], side: str, plain: bool
) -> tuple[float, Float[np.ndarray, " replicates"]]:
    """The mean score of one side, "dense" or "pruned", and that of every resample."""
    scores = [_score(run, side, plain) for run in runs]
    points, draws = zip(*scores, strict=True)
    return float(np.mean(points)), np.mean(draws, axis=0)


def seed_noise(
    runs: Sequence[Run], stream: int, plain: bool
) -> Float[np.ndarray, " replicates"] | float:
    """What the spread over seeds adds to each resample; 0 for a single seed. `stream` keeps the
    draws of several sides apart."""
    points = [_score(run, "pruned", plain)[0] for run in runs]
    if len(points) < 2:
        return 0.0
    error = np.std(points, ddof=1) / math.sqrt(len(points))
    # Evenly spaced quantiles in random order: Student's t without the noise of drawing it.
    order = np.random.default_rng((SEED, stream)).permutation(REPLICATES)
    return error * stats.t.ppf((order + 0.5) / REPLICATES, len(points) - 1)


def leads(runs: Sequence[Run], others: Sequence[Run]) -> bool:
    """Is the mean score clearly above that of other answers to these texts? Accuracy for F1."""
    draws = mean_score(runs, "pruned", True)[1] - mean_score(others, "pruned", True)[1]
    return of_draws(0.0, draws + seed_noise(runs, 0, True), len(runs)).low > 0


def _score(run: Run, side: str, plain: bool) -> tuple[float, Float[np.ndarray, " replicates"]]:
    packed = run.per_example
    metric = "accuracy" if plain and packed["metric"] == "f1" else packed["metric"]
    return score(metric, packed["n"], packed["classes"], packed["labels"], packed[side])


def _change(plain: bool = False) -> Callable[[Evidence], Estimate | str]:
    """Score at the largest budget less that at the smallest.

    With a rival: how much more the runs lead it at the larger budget than at the smaller.
    """

    def measure(e: Evidence) -> Estimate | str:
        budgets = sorted({run.spec.budget for run in e.runs})
        value, draws = 0.0, 0.0
        for place, (side, sign) in enumerate(((e.runs, 1), (e.rivals, -1))):
            for end, budget in enumerate((budgets[0], budgets[-1])):
                own = [run for run in side if run.spec.budget == budget]
                if side and (len(budgets) < 2 or not own):
                    return "wanted runs at two budgets"
                if own:
                    score, found = mean_score(own, "pruned", plain)
                    weight = sign * (1 if end else -1)
                    value += weight * score
                    draws = draws + weight * (found + seed_noise(own, 2 * place + end, plain))
        return of_draws(value, draws, len(e.runs))

    return measure


QUANTITIES = {
    "score": Quantity(_of_answers(lambda dense, pruned, rival: pruned), loss="drop"),
    "drop": Quantity(_of_answers(lambda dense, pruned, rival: dense - pruned), held=True),
    "share": Quantity(_of_answers(lambda dense, pruned, rival: pruned / dense), held=True),
    "difference": Quantity(_of_answers(lambda dense, pruned, rival: pruned - rival), rival=True),
    "accuracy": Quantity(
        _of_answers(lambda dense, pruned, rival: pruned, plain=True), loss="accuracy-drop"
    ),
    "accuracy-drop": Quantity(
        _of_answers(lambda dense, pruned, rival: dense - pruned, plain=True), held=True
    ),
    "accuracy-share": Quantity(
        _of_answers(lambda dense, pruned, rival: pruned / dense, plain=True), held=True
    ),
    "fall": Quantity(_change()),
    "accuracy-fall": Quantity(_change(plain=True)),
    "gain-difference": Quantity(_change(), rival=True),
}
