"""What do the runs look like? One function a figure: it returns the figure and its tidy data.

A notebook draws, saves the data where a reader finds it, and shows the figure:

    figure, table = figures.density(runs, findings, ["coreset.density"], ["none"])
    figures.save(figure, table, "coreset-density")
"""

import os
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from lib.figures import kcm
from lib.figures.anatomy import formats, length, parameters, precision, work
from lib.figures.ledger import verdicts
from lib.figures.rivals import baselines, others, rivals
from lib.figures.sampling import products, samplers
from lib.figures.slides import density, hypotheses, nearest
from lib.figures.speed import full_model, masks_alone, speed, unstructured

__all__ = [
    "baselines",
    "density",
    "formats",
    "full_model",
    "hypotheses",
    "kcm",
    "length",
    "masks_alone",
    "nearest",
    "others",
    "parameters",
    "precision",
    "products",
    "rivals",
    "samplers",
    "save",
    "speed",
    "unstructured",
    "verdicts",
    "work",
]

BOOK = Path(__file__).resolve().parent.parent.parent / "book" / "_static" / "data"


def save(figure: Figure, table: pd.DataFrame, name: str) -> Figure:
    """Leave a figure's data as <name>.csv for its reader; PRUNING_FIGURES names the folder."""
    folder = Path(os.environ.get("PRUNING_FIGURES", BOOK))
    folder.mkdir(parents=True, exist_ok=True)
    plain = table.drop(columns="run", errors="ignore")
    plain.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
    return figure
