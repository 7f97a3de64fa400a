"""What did each layer lose, and how far off is its output? Student's t over seeds."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from operator import itemgetter

import numpy as np
from scipy import stats

from lib.claims.quantities.quantity import Estimate, Evidence, Quantity, over_seeds
from lib.runs import Run

NO_ERRORS = "its runs have no errors by layer on record"
PARTS = {"attention": "heads", "feed-forward": "neurons"}  # of a layer: which units are counted


def units(run: Run, part: str) -> list[int]:
    """Heads or neurons kept by each layer, first to last; an absent sublayer keeps none."""
    return [layer[PARTS[part]] for layer in run.shape["layers"]]


def dense_hidden(run: Run) -> int:
    """The dense hidden size: attention has 4 D^2 + 4 D parameters in every layer."""
    each = run.dense["attention_params"] / len(run.shape["layers"])
    return round((each / 4 + 0.25) ** 0.5 - 0.5)


def pruned_neurons(run: Run) -> list[int]:
    """How many neurons each layer lost."""
    dense, shape = run.dense, run.shape
    layers, hidden = shape["layers"], shape["hidden"]
    feed_forward = dense["encoder_params"] - dense["attention_params"] - 4 * hidden * len(layers)
    whole = round((feed_forward / len(layers) - hidden) / (2 * hidden + 1))
    return [whole - layer["neurons"] for layer in layers]


def layer_errors(run: Run) -> list[float] | None:
    """Relative error of each layer's output after pruning, first to last; None if not recorded."""
    return run.trace.get("layer_errors") or None


def _growth(errors: Sequence[float]) -> float:
    """The last layer's error over the mean of all layers': above 1 where errors add up."""
    return float(errors[-1] / np.mean(errors)) if any(errors) else 1.0


def _error_growth(e: Evidence) -> Estimate | str:
    found = [_growth(errors) for run in e.runs if (errors := layer_errors(run))]
    return over_seeds(found, least=0.0) if found else NO_ERRORS


def _less_the_rival(
    value: Callable[[Sequence[float]], float],
) -> Callable[[Evidence], Estimate | str]:
    """Something of a run's errors by layer less the rival's."""

    def measure(e: Evidence) -> Estimate | str:
        own, rival = (
            {run.spec.seed: value(errors) for run in side if (errors := layer_errors(run))}
            for side in (e.runs, e.rivals)
        )
        return _difference(own, rival) if own and rival else NO_ERRORS

    return measure


def _difference(own: Mapping[int, float], rival: Mapping[int, float]) -> Estimate:
    """Own values less the rival's, seed by seed where both have the same seeds; one that draws
    nothing, and so has a single run, is held against each of the other's."""
    if len(own) == 1 or len(rival) == 1:
        return over_seeds([mine - theirs for mine in own.values() for theirs in rival.values()])
    if shared := sorted(own.keys() & rival.keys()):
        return over_seeds([own[seed] - rival[seed] for seed in shared])
    return over_seeds([value - float(np.mean(list(rival.values()))) for value in own.values()])


def _spread(e: Evidence) -> Estimate:
    """Share of its neurons that the hardest pruned layer loses, less that of the least pruned."""
    shares = []
    for run in e.runs:
        lost = pruned_neurons(run)
        shares.append((max(lost) - min(lost)) / (lost[0] + run.shape["layers"][0]["neurons"]))
    return over_seeds(shares, 0.0, 1.0)


def _fingerprint(e: Evidence) -> Estimate | str:
    """Spearman's correlation of the neurons lost by layer with the claim's reference."""
    if not e.reference:
        return "the source has no counts for this task"
    if (ours := len(e.runs[0].shape["layers"])) != len(e.reference):
        return f"the source's encoder has {len(e.reference)} layers, this one {ours}"
    lost = [pruned_neurons(run) for run in e.runs]
    if any(len(set(counts)) == 1 for counts in lost):
        return "every layer loses the same, so there is no order to compare"
    return over_seeds([float(stats.spearmanr(c, e.reference).statistic) for c in lost], -1.0, 1.0)


def _gone(part: str) -> Callable[[Evidence], Estimate]:
    """Share of the layers that lost this part whole, less the rival's; seed by seed if it can."""

    def measure(e: Evidence) -> Estimate:
        own, rival = (
            {run.spec.seed: float(np.mean([n == 0 for n in units(run, part)])) for run in side}
            for side in (e.runs, e.rivals)
        )
        return _difference(own, rival)

    return measure


def _ends_first(e: Evidence) -> Estimate | str:
    """Chance that the first or last layer keeps more neurons than one between; ties count half."""
    if len(e.runs[0].shape["layers"]) < 3:
        return "an encoder of fewer than three layers has no middle"
    return over_seeds([_chance(units(run, "feed-forward")) for run in e.runs], 0.0, 1.0)


def _chance(kept: Sequence[int]) -> float:
    pairs = product((kept[0], kept[-1]), kept[1:-1])
    return float(np.mean([(end > inner) + (end == inner) / 2 for end, inner in pairs]))


def _depth(e: Evidence) -> Estimate | str:
    """Spearman's correlation of what a layer keeps with its number: below 0 the top goes first."""
    kept = [found for run in e.runs if len(set(found := units(run, e.cell))) > 1]
    if not kept:
        return "every layer keeps the same, so there is no order"
    found = [stats.spearmanr(range(len(one)), one).statistic for one in kept]
    return over_seeds([float(value) for value in found], -1.0, 1.0)


QUANTITIES = {
    "error-growth": Quantity(_error_growth, reads="trace"),
    "error-difference": Quantity(_less_the_rival(itemgetter(-1)), reads="trace", rival=True),
    "growth-difference": Quantity(_less_the_rival(_growth), reads="trace", rival=True),
    "spread": Quantity(_spread, reads="layers"),
    "fingerprint": Quantity(_fingerprint, reads="layers", home=True),
    "attention-gone": Quantity(_gone("attention"), reads="layers", rival=True),
    "feed-forward-gone": Quantity(_gone("feed-forward"), reads="layers", rival=True),
    "ends-first": Quantity(_ends_first, reads="layers"),
    "depth": Quantity(_depth, by="part", reads="layers"),
}
