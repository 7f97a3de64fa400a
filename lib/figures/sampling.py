"""What does the way of sampling change: in the score, and in the products inside the heads?"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from lib.figures import frames, style
from lib.figures.style import GREY, INK, Drawn
from lib.runs import Run
from lib.study import CORESET


def samplers(found: Iterable[Run]) -> Drawn:
    """Every seed of every sampler at the headline axis and importance, rescaled and not."""
    table = _headline(frames.runs(_plain(found)))
    if table.empty:
        return style.untested("samplers", table)
    names = [sampler for sampler in style.SAMPLERS if sampler in set(table["sampler"])]
    budgets = sorted(set(table["budget"]), reverse=True)
    figure, axes = style.canvas(1, 2, height=3.7, sharey=True)
    titles = {False: "what is kept keeps its weight", True: "rescaled"}
    for ax, (rescale, title) in zip(axes, titles.items(), strict=True):
        own = table[table["rescale"] == rescale]
        ax.axhline(table["dense"].iloc[0], color=INK, lw=1)
        for number, sampler in enumerate(names):
            colour, marker = style.SAMPLERS[sampler]
            shift = (number - (len(names) - 1) / 2) * 0.13
            mine = own[own["sampler"] == sampler]
            x = [budgets.index(budget) + shift for budget in mine["budget"]]
            ax.plot(x, mine["score"], color=colour, marker=marker, ms=4.5, ls="", alpha=0.75)
            for budget, mean in mine.groupby("budget")["score"].mean().items():
                middle = budgets.index(budget) + shift
                ax.plot([middle - 0.06, middle + 0.06], [mean, mean], color=colour, lw=2.2)
        ax.set_xticks(range(len(budgets)), [f"{budget:g}" for budget in budgets])
        ax.set_xlim(-0.6, len(budgets) - 0.4)
        ax.set_xlabel(style.DENSITY["attention"])
        ax.set_title(title)
        if own.empty:
            style.remark(ax, "untested")
    axes[0].set_ylabel(f"{style.metric(table)} (line: dense)")
    style.markers(figure, {frames.SAMPLER_WORDS[name]: style.SAMPLERS[name] for name in names})
    return figure, table


def products(found: Iterable[Run]) -> Drawn:
    """Relative Frobenius error of the heads' two products, on the real weights, by sampler.

    Reads `product_error` {"qk", "vo"} of a run's pruned model; the bars span the seeds.
    """
    table = frames.runs(run for run in _plain(found) if run.pruned.get("product_error"))
    for side in ("qk", "vo"):
        table[side] = [run.pruned["product_error"][side] for run in table["run"]]
    table = pd.concat([_headline(table), table[table["method"] == "svd"]])
    if table.empty:
        return style.untested("the error of the heads' products", table)
    rescaled = table["rescale"].fillna(False).astype(bool)
    words = table["sampler"].map(frames.SAMPLER_WORDS).fillna(style.name("svd"))
    table = table.assign(how=words + np.where(rescaled, ", rescaled", ""))
    figure, axes = style.canvas(1, 2, height=4.0, sharey=True)
    for ax, side, title in zip(axes, ("qk", "vo"), ("query · key", "value · output"), strict=True):
        ends = []
        for how, own in table.groupby("how", sort=False):
            stats = own.groupby("budget")[side].agg(["mean", "min", "max"])
            bars = style.sides(stats, "mean", "min", "max")
            colour, marker = style.SAMPLERS.get(own["sampler"].iloc[0], style.METHODS["svd"])
            look = {"color": colour, "marker": marker, "ls": ":" if "rescaled" in how else "-"}
            ax.errorbar(stats.index, stats["mean"], bars, **look)
            ends.append((stats["mean"].iloc[0], how, colour))
        ax.axhline(1, color=GREY, lw=0.8, ls="--")
        style.densities(ax, table["budget"], style.DENSITY["attention"])
        ax.set_title(title)
    style.beside(axes[1], ends)
    axes[0].set_ylabel("relative Frobenius error")
    return figure, table


def _plain(found: Iterable[Run]) -> list[Run]:
    return frames.select(found, unit="attention", after="none", method=["coreset", "svd"])


def _headline(table: pd.DataFrame) -> pd.DataFrame:
    same = [table[name] == CORESET[name] for name in ("axis", "importance")]
    return table[(table["method"] == "coreset") & same[0] & same[1]]
