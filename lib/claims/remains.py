"""What is left of an encoder, and did training do what was asked? Quantities by shape and trace."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from scipy import stats

from lib.claims.quantities import QUANTITIES, Estimate, Evidence, Quantity, exactly, over_seeds
from lib.runs import Run

NO_TRACE = "its training left no trace on record"
PARTS = {"attention": "heads", "feed-forward": "neurons"}  # of a layer: which units are counted


def units(run: Run, part: str) -> list[int]:
    """Heads or neurons kept by each layer, first to last; an absent sublayer keeps none."""
    return [layer[PARTS[part]] for layer in run.shape["layers"]]


def dense_hidden(run: Run) -> int:
    """The dense hidden size: attention has 4 D^2 + 4 D parameters in every layer."""
    each = run.dense["attention_params"] / len(run.shape["layers"])
    return round((each / 4 + 0.25) ** 0.5 - 0.5)


def sparsity(run: Run) -> int | float:
    """Share of the layers' parameters that is gone, counted on the tensors of what is left."""
    return 1 - run.kept["encoder"]


def hours(run: Run) -> int | float:
    """All training and pruning behind a run, the teacher's too."""
    return sum(run.seconds.get(phase, 0.0) for phase in SPENT) / 3600


SPENT = ("teacher", "score", "prune", "finetune")  # phases of a run's seconds


# --- training curves ------------------------------------------------------------------------------


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
        return over_seeds([abs(at[one] - at[other]) for at in told])

    return measure


def _last(run: Run) -> dict[str, int | float]:
    """The last row, beside the target that was asked for: the training may move its own."""
    return curve(run)[-1] | {"asked": run.trace["target"]}


def _taken(run: Run) -> dict[str, int | float]:
    """The row of the step whose masks were kept; the last where none was noted."""
    rows = curve(run)
    return next((row for row in rows if row["step"] == run.trace.get("taken")), rows[-1])


# --- layers ---------------------------------------------------------------------------------------


def _gone(part: str) -> Callable[[Evidence], Estimate]:
    """Share of the layers that lost this part whole, less the rival's; seed by seed if it can."""

    def measure(e: Evidence) -> Estimate:
        own, rival = (
            {run.spec.seed: float(np.mean([n == 0 for n in units(run, part)])) for run in side}
            for side in (e.runs, e.rivals)
        )
        shared = sorted(own.keys() & rival.keys())
        if shared:
            return over_seeds([own[seed] - rival[seed] for seed in shared])
        return over_seeds([share - float(np.mean(list(rival.values()))) for share in own.values()])

    return measure


def _ends_first(e: Evidence) -> Estimate | str:
    """Chance that the first or last layer keeps more neurons than one between; ties count half."""
    if len(e.runs[0].shape["layers"]) < 3:
        return "an encoder of fewer than three layers has no middle"
    return over_seeds([_chance(units(run, "feed-forward")) for run in e.runs])


def _chance(kept: Sequence[int]) -> float:
    pairs = product((kept[0], kept[-1]), kept[1:-1])
    return float(np.mean([(end > inner) + (end == inner) / 2 for end, inner in pairs]))


def _depth(e: Evidence) -> Estimate | str:
    """Spearman's correlation of what a layer keeps with its number: below 0 the top goes first."""
    kept = [found for run in e.runs if len(set(found := units(run, e.cell))) > 1]
    if not kept:
        return "every layer keeps the same, so there is no order"
    found = [stats.spearmanr(range(len(one)), one).statistic for one in kept]
    return over_seeds([float(value) for value in found])


# --- sizes, prices, and a talk's own numbers ------------------------------------------------------


def _within_layers(e: Evidence) -> Estimate:
    """Share of the full dense model that its layers hold: the most that pruning them can take."""
    whole = e.runs[0].dense
    return exactly(whole["encoder_params"] / whole["params"], len(e.runs))


def _own_figures(e: Evidence) -> Estimate:
    """Share of the talk's own numbers that lie above the cell."""
    return exactly(float(np.mean([number > e.cell for number in e.reference])), len(e.reference))


def _each(value: Callable[[Run], Any]) -> Callable[[Evidence], Estimate]:
    return lambda e: over_seeds([value(run) for run in e.runs])


QUANTITIES |= {
    "sparsity": Quantity(_each(sparsity), reads="layers"),
    "full-sparsity": Quantity(_each(lambda run: 1 - run.kept["model"]), reads="layers"),
    "within-layers": Quantity(_within_layers, reads="shape"),
    "expected-off": Quantity(_off(_last, "expected", "asked"), reads="trace"),
    "realised-off": Quantity(_off(_taken, "realised", "expected"), reads="trace"),
    "attention-gone": Quantity(_gone("attention"), reads="layers", rival=True),
    "feed-forward-gone": Quantity(_gone("feed-forward"), reads="layers", rival=True),
    "ends-first": Quantity(_ends_first, reads="layers"),
    "depth": Quantity(_depth, by="part", reads="layers"),
    "hours": Quantity(_each(hours), reads="layers"),
    "own-figures": Quantity(_own_figures, by="speed", reads="claim"),
}
