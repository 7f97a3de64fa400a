"""How fast is it? A bootstrap over the rounds of a timing."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from lib import study
from lib.claims.answers import REPLICATES, SEED
from lib.claims.quantities.quantity import Estimate, Evidence, Quantity, of_draws, over_seeds
from lib.runs import Run, Timing, shape_key

UNTIMED = "no timing of its shape on record; `make timings` measures it"


def _speedup(e: Evidence) -> Estimate | str:
    """How many times faster than our own dense model, both padded to the batch."""
    timed = [(shape_key(run.shape), _rounds([run], e.timings)) for run in e.runs]
    found = [(key, _ratio(*rounds)) for key, rounds in timed if rounds is not None]
    if not found:
        return UNTIMED
    if len({key for key, _ in found}) == 1:
        return found[0][1]
    # Seeds of one arm that left different shapes: how much they differ says how sure the mean is.
    return replace(over_seeds([one.value for _, one in found]), n=sum(one.n for _, one in found))


def _faster(e: Evidence) -> Estimate | str:
    """Speedup over the rival's speedup; each took turns with the same dense model."""
    own, rival = (_speedup(replace(e, runs=r)) for r in (e.runs, e.rivals))
    for found in (own, rival):
        if isinstance(found, str):
            return found
    ends = own.low / rival.high, own.high / rival.low
    return Estimate(own.value / rival.value, *ends, min(own.n, rival.n))


def _token_speedup(dense: str) -> Callable[[Evidence], Estimate | str]:
    """How many times faster than our own dense model where tokens go; "dense" reads texts without
    padding, "dense_padded" as the papers pad them."""

    def measure(e: Evidence) -> Estimate | str:
        wanted = [protocol for run in e.runs for protocol in study.clocked(run)]
        rules = [protocol["tokens"] for protocol in wanted]
        for timing in e.timings:
            if timing.protocol["tokens"] in rules and {dense, "pruned"} <= set(timing.seconds):
                return _ratio(*(np.asarray(timing.seconds[arm]) for arm in (dense, "pruned")))
        return "no timing of what it leaves on record; `make timings` measures it"

    return measure


def _step(e: Evidence) -> Estimate | str:
    """Time relative to that of the next larger budget: below 1 where pruning more is faster."""
    larger = min((run.spec.budget for run in e.all if run.spec.budget > e.cell), default=None)
    before = _rounds([run for run in e.all if run.spec.budget == larger], e.timings)
    rounds = _rounds(e.runs, e.timings)
    if before is None or rounds is None:
        return "no timing of its shape, or of the next larger, on record; `make timings` does it"
    # Each against the dense model that it took turns with, so that a slow minute cancels out.
    faster, slower = _ratios(*rounds), _ratios(*before)
    return of_draws(slower[0] / faster[0], slower[1:] / faster[1:], len(rounds[0]))


def _exponent_seconds(e: Evidence) -> Estimate | str:
    """p in seconds ~ length^p, from half of the cell's length to the whole of it."""
    key = shape_key(e.runs[0].shape)
    seconds = {t.protocol["length"]: t.seconds["dense"] for t in e.timings if _is(t, key)}
    if not {e.cell, e.cell // 2} <= set(seconds):
        return f"no timing at lengths {e.cell // 2} and {e.cell}; `make timings` measures them"
    found = _ratio(np.asarray(seconds[e.cell]), np.asarray(seconds[e.cell // 2]))
    return Estimate(*(math.log2(x) for x in (found.value, found.low, found.high)), found.n)


def _is(timing: Timing, key: str) -> bool:
    return shape_key(timing.shape) == key and "dense" in timing.seconds


def _rounds(
    runs: Sequence[Run], timings: Sequence[Timing]
) -> tuple[Float[np.ndarray, " rounds"], Float[np.ndarray, " rounds"]] | None:
    """Seconds of the dense and of the pruned model, round by round; None without a timing."""
    keys = {shape_key(run.shape) for run in runs}
    for timing in timings:
        if shape_key(timing.shape) in keys and {"dense", "pruned"} <= set(timing.seconds):
            return np.asarray(timing.seconds["dense"]), np.asarray(timing.seconds["pruned"])
    return None


def _ratio(above: np.ndarray, below: np.ndarray) -> Estimate:
    found = _ratios(above, below)
    return of_draws(found[0], found[1:], min(len(above), len(below)))


def _ratios(above: np.ndarray, below: np.ndarray) -> Float[np.ndarray, " replicates"]:
    """Ratio of the medians, then of those of every resample; arms of one length stay paired."""
    rng = np.random.default_rng((SEED, 2))
    picks = rng.integers(len(above), size=(REPLICATES, len(above)))
    paired = len(above) == len(below)
    others = picks if paired else rng.integers(len(below), size=(REPLICATES, len(below)))
    draws = np.median(above[picks], axis=1) / np.median(below[others], axis=1)
    return np.concatenate([[np.median(above) / np.median(below)], draws])


QUANTITIES = {
    "speedup": Quantity(_speedup, reads="timings"),
    "faster": Quantity(_faster, reads="timings", rival=True),
    "token-speedup": Quantity(_token_speedup("dense"), reads="token-timings"),
    "padded-speedup": Quantity(_token_speedup("dense_padded"), reads="token-timings"),
    "step": Quantity(_step, reads="timings"),
    "exponent-seconds": Quantity(_exponent_seconds, by="length", reads="timings"),
}
