"""What did every run that dropped tokens leave, and where is it drawn?"""

import math
from collections.abc import Iterable

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib import study
from lib.claims.quantities import macs
from lib.figures import style
from lib.figures.style import INK
from lib.runs import Run

PADDED, PRUNED = "#b0b0b0", "#0072b2"
PAPERS = {"talk's papers": (INK, "$\\diamond$")}


def ran(found: Iterable[Run]) -> pd.DataFrame:
    """One row a run that dropped tokens: its score, and MACs of a text padded, alone and pruned."""
    rows = []
    for run in (run for run in found if "tokens" in run.trace and not run.spec.base):
        counted, spec = run.trace["tokens"]["macs"], run.spec
        to = study.padded(spec.task)
        padded = sum(macs(run.shape, to).values())
        rows.append(
            {
                "encoder": spec.encoder,
                "task": spec.task,
                "arm": study.arm_of(spec),
                "budget": spec.budget,
                "seed": spec.seed,
                "metric": run.per_example["metric"],
                "dense": run.dense["score"],
                "score": run.pruned["score"],
                "padded_to": to,
                "macs_padded": padded,
                "macs_batch": counted["batch"],
                "macs_dense": counted["dense"],
                "macs_pruned": counted["pruned"],
                "kept": run.kept["macs"],
                "claimed": counted["claimed"] / counted["dense"],
                "run": run,
            }
        )
    columns = ["encoder", "task", "arm", "budget", "seed", "metric", "dense", "score", "padded_to"]
    columns += ["macs_padded", "macs_batch", "macs_dense", "macs_pruned", "kept", "claimed", "run"]
    return pd.DataFrame(rows, columns=columns)


def panels(
    table: pd.DataFrame, found: Iterable[Run] = ()
) -> tuple[Figure, list[tuple[Axes, tuple, pd.DataFrame]]]:
    """A panel for each encoder and task of `table`, its dense score drawn; with its rows.

    Dashed: the dense model of `found` that was trained on for as long as the methods train.
    """
    longer = {
        (run.spec.encoder, run.spec.task): run.pruned["score"]
        for run in found
        if run.spec.method == "dense" and run.spec.training["after"]
    }
    places = list(table.groupby(["encoder", "task"], sort=False))
    rows, columns = math.ceil(len(places) / 2), min(2, len(places))
    figure, axes = style.canvas(rows, columns, height=0.9 + 2.7 * rows)
    for ax in axes[len(places) :]:
        ax.set_axis_off()
    for ax, ((encoder, task), own) in zip(axes, places, strict=False):
        ax.axhline(own["dense"].iloc[0], color=INK, lw=1)
        if (encoder, task) in longer:
            ax.axhline(longer[encoder, task], color=INK, lw=1, ls="--")
        ax.set_title(f"{encoder}, {task} (line: dense)", fontsize=10)
        ax.set_ylabel(style.metric(own))
    return figure, [(ax, *place) for ax, place in zip(axes, places, strict=False)]
