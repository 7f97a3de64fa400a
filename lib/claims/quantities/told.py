"""What do a probe, or a talk's own numbers, say? No run is read."""

from typing import Any

import numpy as np

from lib.claims.quantities.quantity import Estimate, Evidence, Quantity, exactly


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


def _own_figures(e: Evidence) -> Estimate:
    """Share of the talk's own numbers that lie above the cell."""
    return exactly(float(np.mean([number > e.cell for number in e.reference])), len(e.reference))


QUANTITIES = {
    "probe": Quantity(_probe, by="probe", reads="probe"),
    "own-figures": Quantity(_own_figures, by="speed", reads="claim"),
}
