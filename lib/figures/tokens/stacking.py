"""Do the gains of two kinds of pruning multiply? Two roads to the same work."""

from collections.abc import Iterable

import pandas as pd

from lib import study
from lib.figures import style
from lib.figures.style import INK, Drawn
from lib.runs import Run

ROADS = {"tokens alone": ("#d55e00", "o"), "KCM, then tokens": ("#0072b2", "s")}


def stacked(found: Iterable[Run]) -> Drawn:
    """Score by executed MACs, a panel a token method: tokens alone, or behind another method.

    Means over the seeds, with the range of the seeds as bars.
    """
    found = list(found)
    table = _roads(found)
    if table.empty:
        return style.untested("token pruning on top of another method", table)
    methods = list(dict.fromkeys(table["method"]))
    figure, axes = style.canvas(1, len(methods), height=3.6, sharey=True)
    for ax, method in zip(axes, methods, strict=True):
        own = table[table["method"] == method]
        ax.axhline(own["dense"].iloc[0], color=INK, lw=1)
        for road, line in own.groupby("road", sort=False):
            colour, marker = ROADS["KCM, then tokens" if "+" in road else "tokens alone"]
            line = line.sort_values("kept", ascending=False)
            first = line.iloc[0]
            start = ([1, first["kept"]], [first["dense"], first["score"]])
            ax.plot(*start, color=colour, ls=":", marker="")
            bars = style.sides(line, "score", "low", "high")
            ax.errorbar(line["kept"], line["score"], yerr=bars, color=colour, marker=marker)
        ax.set_xlim(1.05, own["kept"].min() - 0.1)
        ax.set_xlabel("MACs executed, of dense without padding")
        encoder, task = own[["encoder", "task"]].iloc[0]
        ax.set_title(f"{style.name(method)}: {encoder}, {task} (line: dense)", fontsize=10)
    axes[0].set_ylabel(style.metric(table))
    style.markers(figure, ROADS)
    return figure, table


def _roads(found: list[Run]) -> pd.DataFrame:
    """One row a stop of a road: where it begins, where its base leaves it, where it ends."""
    rows = []
    both = [run for run in found if run.spec.base]
    for arm in dict.fromkeys(study.arm_of(run.spec) for run in both):
        ends = [run for run in both if study.arm_of(run.spec) == arm]
        spec, last = ends[0].spec, arm.rpartition("+")[2]
        here = [r for r in found if (r.spec.encoder, r.spec.task) == (spec.encoder, spec.task)]
        bases = {run.spec.base for run in ends}
        alone = [run for run in here if study.arm_of(run.spec) == last]
        by_budget: dict[float, list[Run]] = {}
        for run in alone:
            by_budget.setdefault(run.spec.budget, []).append(run)
        for road, stops in (
            (arm, [[run for run in here if run.spec in bases], ends]),
            (last, list(by_budget.values())),
        ):
            rows += [_stop(last, road, stop) for stop in stops if stop]
    columns = ["method", "road", "encoder", "task", "metric", "dense", "seeds", "kept"]
    return pd.DataFrame(rows, columns=[*columns, "score", "low", "high"])


def _stop(method: str, road: str, stop: list[Run]) -> dict:
    scores = [run.pruned["score"] for run in stop]
    spec = stop[0].spec
    return {
        "method": method,
        "road": road,
        "encoder": spec.encoder,
        "task": spec.task,
        "metric": stop[0].per_example["metric"],
        "dense": stop[0].dense["score"],
        "seeds": len(stop),
        "kept": sum(run.kept["macs"] for run in stop) / len(stop),
        "score": sum(scores) / len(scores),
        "low": min(scores),
        "high": max(scores),
    }
