"""How much work is there? Counted from shapes, and on the texts of a task."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from lib import study
from lib.claims.quantities.quantity import Estimate, Evidence, Quantity, exactly, over_seeds

NO_COUNT = "no record of what ran"
SET = "how much is pruned is the budget that the study sets, whatever score is left"


def _parameters(e: Evidence) -> Estimate:
    """Share of the encoder's parameters that one part of its layers holds."""
    shape, total = e.runs[0].shape, e.runs[0].dense["encoder_params"]
    attention = e.runs[0].dense["attention_params"]
    feed_forward = sum(
        layer["neurons"] * (2 * shape["hidden"] + 1) + shape["hidden"] for layer in shape["layers"]
    )
    part = {"attention": attention, "feed-forward": feed_forward}[e.cell]
    return exactly(part / total, len(e.runs))


def _within_layers(e: Evidence) -> Estimate:
    """Share of the full dense model that its layers hold: the most that pruning them can take."""
    whole = e.runs[0].dense
    return exactly(whole["encoder_params"] / whole["params"], len(e.runs))


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


def _work(above: str, below: str) -> Callable[[Evidence], Estimate | str]:
    """How many times more MACs: a mean over the reported texts, from a run's trace."""

    def measure(e: Evidence) -> Estimate | str:
        counted = [run.trace["tokens"]["macs"] for run in e.runs if "tokens" in run.trace]
        if not counted:
            return NO_COUNT
        return over_seeds([macs[above] / macs[below] for macs in counted])

    return measure


def _padding(e: Evidence) -> Estimate | str:
    """How many times more work the dense model has with texts padded to the cell's length."""
    counted = [run.trace["tokens"]["macs"]["dense"] for run in e.runs if "tokens" in run.trace]
    if not counted:
        return NO_COUNT
    return exactly(sum(macs(e.runs[0].shape, e.cell).values()) / counted[0], len(counted))


def _together(e: Evidence) -> Estimate | str:
    """How many times more work the dense model has, on texts as papers pad them, than what ran."""
    pairs = [(run, run.trace["tokens"]["macs"]) for run in e.runs if "tokens" in run.trace]
    if not pairs:
        return NO_COUNT
    return over_seeds(
        [
            sum(macs(run.shape, study.padded(run.spec.task)).values()) / counted["pruned"]
            for run, counted in pairs
        ]
    )


QUANTITIES = {
    "parameters": Quantity(_parameters, by="part", reads="shape"),
    "within-layers": Quantity(_within_layers, reads="shape"),
    "feed-forward": Quantity(_feed_forward_share, by="length", reads="shape"),
    "exponent": Quantity(_exponent, by="length", reads="shape"),
    "padding": Quantity(_padding, by="length", reads="work"),
    "pruning": Quantity(_work("dense", "pruned"), reads="work", caveat=SET),
    "claimed": Quantity(_work("dense", "claimed"), reads="work"),
    "together": Quantity(_together, reads="work", caveat=SET),
}
