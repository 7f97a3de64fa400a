"""What number do runs give, and how sure is it? Small named quantities with 95% intervals."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from lib import study
from lib.claims.answers import LEVEL, REPLICATES, SEED, score
from lib.runs import Run, Timing, shape_key

TAILS = (100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2)  # percentiles


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
    a replication; `joint` says that all cells of a claim have to hold at once.
    """

    measure: Callable[[Evidence], Estimate | str]
    by: str = "budget"
    reads: str = "answers"
    rival: bool = False
    loss: str = ""
    joint: bool = False


# --- answers: paired bootstrap over examples, Student's t over seeds ------------------------------

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
        low, high = np.percentile(draws, TAILS)
        return Estimate(float(value), float(low), float(high), len(e.runs))

    return measure


def mean_score(
    runs: Sequence[Run], side: str, plain: bool
) -> tuple[float, Float[np.ndarray, " replicates"]]:
    scores = [_score(run, side, plain) for run in runs]
    points, draws = zip(*scores, strict=True)
    return float(np.mean(points)), np.mean(draws, axis=0)


def seed_noise(
    runs: Sequence[Run], stream: int, plain: bool
) -> Float[np.ndarray, " replicates"] | float:
    points = [_score(run, "pruned", plain)[0] for run in runs]
    if len(points) < 2:
        return 0.0
    error = np.std(points, ddof=1) / math.sqrt(len(points))
    # Evenly spaced quantiles in random order: Student's t without the noise of drawing it.
    order = np.random.default_rng((SEED, stream)).permutation(REPLICATES)
    return error * stats.t.ppf((order + 0.5) / REPLICATES, len(points) - 1)


def _score(run: Run, side: str, plain: bool) -> tuple[float, Float[np.ndarray, " replicates"]]:
    packed = run.per_example
    metric = "accuracy" if plain and packed["metric"] == "f1" else packed["metric"]
    return score(metric, packed["n"], packed["classes"], packed["labels"], packed[side])


# --- shape: counted, so without an interval -------------------------------------------------------


def exactly(value: float, n: int) -> Estimate:
    return Estimate(value, value, value, n)


def _parameters(e: Evidence) -> Estimate:
    """Share of the encoder's parameters that one part of its layers holds."""
    shape, total = e.runs[0].shape, e.runs[0].dense["encoder_params"]
    attention = e.runs[0].dense["attention_params"]
    feed_forward = sum(
        layer["neurons"] * (2 * shape["hidden"] + 1) + shape["hidden"] for layer in shape["layers"]
    )
    part = {"attention": attention, "feed-forward": feed_forward}[e.cell]
    return exactly(part / total, len(e.runs))


def macs(shape: Mapping[str, Any], tokens: int) -> dict[str, int]:
    """MACs of one sequence: of attention's projections, its two products, and the FFN.

    They sum to `costs.encoder_macs`, which says why both products count the wider of two widths.
    """
    hidden, layers = shape["hidden"], shape["layers"]
    attend = [layer for layer in layers if layer["heads"] * layer["vo"]]
    return {
        "projections": sum(
            2 * tokens * hidden * layer["heads"] * (layer["qk"] + layer["vo"]) for layer in attend
        ),
        "products": sum(
            2 * tokens * tokens * layer["heads"] * max(layer["qk"], layer["vo"]) for layer in attend
        ),
        "feed-forward": sum(2 * tokens * hidden * layer["neurons"] for layer in layers),
    }


def _feed_forward_share(e: Evidence) -> Estimate:
    """Share of an encoder's MACs that the feed-forward part takes, at a length."""
    parts = macs(e.runs[0].shape, e.cell)
    return exactly(parts["feed-forward"] / sum(parts.values()), len(e.runs))


def _exponent(e: Evidence) -> Estimate:
    """p in MACs ~ length^p, from half of the cell's length to the whole of it."""
    whole, half = (sum(macs(e.runs[0].shape, tokens).values()) for tokens in (e.cell, e.cell // 2))
    return exactly(math.log2(whole / half), len(e.runs))


# --- work: counted on the texts of a task; Student's t over seeds ---------------------------------


def _work(above: str, below: str) -> Callable[[Evidence], Estimate | str]:
    """How many times more MACs: a mean over the reported texts, from a run's trace."""

    def measure(e: Evidence) -> Estimate | str:
        counted = [run.trace["tokens"]["macs"] for run in e.runs if "tokens" in run.trace]
        if not counted:
            return "no record of what ran"
        ratios = [macs[above] / macs[below] for macs in counted]
        mean, n = float(np.mean(ratios)), len(ratios)
        if n < 2:
            return exactly(mean, n)
        half = stats.t.ppf((1 + LEVEL) / 2, n - 1) * np.std(ratios, ddof=1) / math.sqrt(n)
        return Estimate(mean, float(mean - half), float(mean + half), n)

    return measure


def _padding(e: Evidence) -> Estimate | str:
    """How many times more work the dense model has with texts padded to the cell's length."""
    counted = [run.trace["tokens"]["macs"]["dense"] for run in e.runs if "tokens" in run.trace]
    if not counted:
        return "no record of what ran"
    return exactly(sum(macs(e.runs[0].shape, e.cell).values()) / counted[0], len(counted))


def _together(e: Evidence) -> Estimate | str:
    """How many times more work the dense model has, on texts as papers pad them, than what ran."""
    pairs = [(run, run.trace["tokens"]["macs"]) for run in e.runs if "tokens" in run.trace]
    if not pairs:
        return "no record of what ran"
    return over_seeds(
        [
            sum(macs(run.shape, study.padded(run.spec.task)).values()) / counted["pruned"]
            for run, counted in pairs
        ]
    )


# --- timings: bootstrap over rounds ---------------------------------------------------------------


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


UNTIMED = "no timing of its shape on record; `make timings` measures it"


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
    low, high = np.percentile(slower[1:] / faster[1:], TAILS)
    return Estimate(float(slower[0] / faster[0]), float(low), float(high), len(rounds[0]))


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
    low, high = np.percentile(found[1:], TAILS)
    return Estimate(float(found[0]), float(low), float(high), min(len(above), len(below)))


def _ratios(above: np.ndarray, below: np.ndarray) -> Float[np.ndarray, " replicates"]:
    """Ratio of the medians, then of those of every resample; arms of one length stay paired."""
    rng = np.random.default_rng((SEED, 2))
    picks = rng.integers(len(above), size=(REPLICATES, len(above)))
    paired = len(above) == len(below)
    others = picks if paired else rng.integers(len(below), size=(REPLICATES, len(below)))
    draws = np.median(above[picks], axis=1) / np.median(below[others], axis=1)
    return np.concatenate([[np.median(above) / np.median(below)], draws])


# --- what a run did on its way: Student's t over seeds --------------------------------------------


def over_seeds(values: Sequence[float]) -> Estimate:
    """The mean; of a single value nothing says how sure it is, so it stands as a count does."""
    mean = float(np.mean(values))
    if len(values) < 2 or np.ptp(values) == 0:
        return exactly(mean, len(values))
    low, high = stats.t.interval(LEVEL, len(values) - 1, mean, stats.sem(values))
    return Estimate(mean, float(low), float(high), len(values))


def pruning_seconds(run: Run) -> float:
    """From the dense model to the smaller one: scores and pruning, calibration included."""
    return sum(run.seconds.get(phase, 0.0) for phase in ("score", "prune"))


def layer_errors(run: Run) -> list[float] | None:
    """Relative error of each layer's output after pruning, first to last; None if not recorded."""
    return run.trace.get("layer_errors") or None


NO_ERRORS = "its runs have no errors by layer on record"


def _error_growth(e: Evidence) -> Estimate | str:
    """The last layer's error over the mean of all layers': above 1 where errors add up."""
    found = [errors for run in e.runs if (errors := layer_errors(run))]
    if not found:
        return NO_ERRORS
    return over_seeds([errors[-1] / np.mean(errors) if any(errors) else 1.0 for errors in found])


def _error_difference(e: Evidence) -> Estimate | str:
    """The last layer's error less the rival's, seed by seed where both have the same seeds."""
    own, rival = (
        {run.spec.seed: errors[-1] for run in side if (errors := layer_errors(run))}
        for side in (e.runs, e.rivals)
    )
    if not own or not rival:
        return NO_ERRORS
    if shared := sorted(own.keys() & rival.keys()):
        return over_seeds([own[seed] - rival[seed] for seed in shared])
    return over_seeds([error - float(np.mean(list(rival.values()))) for error in own.values()])


def pruned_neurons(run: Run) -> list[int]:
    """How many neurons each layer lost."""
    dense, shape = run.dense, run.shape
    layers, hidden = shape["layers"], shape["hidden"]
    feed_forward = dense["encoder_params"] - dense["attention_params"] - 4 * hidden * len(layers)
    whole = round((feed_forward / len(layers) - hidden) / (2 * hidden + 1))
    return [whole - layer["neurons"] for layer in layers]


def _spread(e: Evidence) -> Estimate:
    """Share of its neurons that the hardest pruned layer loses, less that of the least pruned."""
    shares = []
    for run in e.runs:
        lost = pruned_neurons(run)
        shares.append((max(lost) - min(lost)) / (lost[0] + run.shape["layers"][0]["neurons"]))
    return over_seeds(shares)


def _fingerprint(e: Evidence) -> Estimate | str:
    """Spearman's correlation of the neurons lost by layer with the claim's reference."""
    if not e.reference:
        return "the source has no counts for this task"
    if (ours := len(e.runs[0].shape["layers"])) != len(e.reference):
        return f"the source's encoder has {len(e.reference)} layers, this one {ours}"
    lost = [pruned_neurons(run) for run in e.runs]
    if any(len(set(counts)) == 1 for counts in lost):
        return "every layer loses the same, so there is no order to compare"
    return over_seeds([float(stats.spearmanr(c, e.reference).statistic) for c in lost])


def _probe(e: Evidence) -> Estimate | str:
    """A value that a probe found: a number, or one with its interval."""
    found = (e.values or {}).get(cell_name(e.cell))
    if found is None:
        return "the probe on record has no such cell"
    value, low, high = found if isinstance(found, list) else (found,) * 3
    return Estimate(float(value), float(low), float(high), 1)


def cell_name(cell: Any) -> str:
    """A claim's cell as a probe names it: 0.6, 3."""
    return cell if isinstance(cell, str) else f"{cell:g}"


TIMED = ("timings", "token-timings", "trade")  # what wants a protocol
PER_ENCODER = ("shape", "timings", "seconds")  # a matter of the encoder alone, whatever the task

QUANTITIES = {
    "score": Quantity(_of_answers(lambda dense, pruned, rival: pruned), loss="drop"),
    "drop": Quantity(_of_answers(lambda dense, pruned, rival: dense - pruned)),
    "share": Quantity(_of_answers(lambda dense, pruned, rival: pruned / dense)),
    "difference": Quantity(_of_answers(lambda dense, pruned, rival: pruned - rival), rival=True),
    "accuracy": Quantity(
        _of_answers(lambda dense, pruned, rival: pruned, plain=True), loss="accuracy-drop"
    ),
    "accuracy-drop": Quantity(_of_answers(lambda dense, pruned, rival: dense - pruned, plain=True)),
    "accuracy-share": Quantity(
        _of_answers(lambda dense, pruned, rival: pruned / dense, plain=True)
    ),
    "parameters": Quantity(_parameters, by="part", reads="shape"),
    "feed-forward": Quantity(_feed_forward_share, by="length", reads="shape"),
    "exponent": Quantity(_exponent, by="length", reads="shape"),
    "speedup": Quantity(_speedup, reads="timings"),
    "padding": Quantity(_padding, by="length", reads="work"),
    "pruning": Quantity(_work("dense", "pruned"), reads="work"),
    "claimed": Quantity(_work("dense", "claimed"), reads="work"),
    "together": Quantity(_together, reads="work"),
    "token-speedup": Quantity(_token_speedup("dense"), reads="token-timings"),
    "padded-speedup": Quantity(_token_speedup("dense_padded"), reads="token-timings"),
    "step": Quantity(_step, reads="timings"),
    "exponent-seconds": Quantity(_exponent_seconds, by="length", reads="timings"),
    "seconds": Quantity(
        lambda e: over_seeds([pruning_seconds(run) for run in e.runs]), reads="seconds"
    ),
    "error-growth": Quantity(_error_growth, reads="trace"),
    "error-difference": Quantity(_error_difference, reads="trace", rival=True),
    "spread": Quantity(_spread, reads="layers"),
    "fingerprint": Quantity(_fingerprint, reads="layers"),
    "probe": Quantity(_probe, by="probe", reads="probe"),
}
