"""How much of the saved work is padding that nobody has to compute?"""

from collections.abc import Iterable

import numpy as np
from matplotlib.ticker import FuncFormatter, NullLocator

from lib.claims import Finding, Verdict
from lib.figures import style
from lib.figures.style import TALK, Drawn
from lib.figures.tokens.rows import PRUNED, ran
from lib.runs import Run

TEXTS = "#e69f00"


def padding(found: Iterable[Run], findings: Iterable[Finding]) -> Drawn:
    """How many times less work, by whom: padding left away, then tokens pruned; log scale.

    Diamonds are the factor of the padding alone in the headline of ToP.
    """
    table = ran(found)
    table = table[~table["arm"].str.startswith("tokens-")]
    if table.empty:
        return style.untested("token pruning", table)
    least = table.groupby(["encoder", "task", "arm"])["budget"].transform("min")
    table = table[table["budget"] == least]
    by = ["encoder", "task", "padded_to", "arm"]
    names = ["macs_padded", "macs_dense", "macs_pruned"]
    mean = table.groupby(by, sort=False)[names].mean().reset_index()
    mean["padding"] = mean["macs_padded"] / mean["macs_dense"]
    mean["pruning"] = mean["macs_dense"] / mean["macs_pruned"]
    mean["together"] = mean["padding"] * mean["pruning"]
    words = [f"{style.name(row.arm)}, {row.task}" for row in mean.itertuples()]
    if mean["encoder"].nunique() > 1:
        words = [f"{w} ({e})" for w, e in zip(words, mean["encoder"], strict=True)]
    figure, (ax,) = style.canvas(height=1.3 + 0.3 * len(mean))
    told = {}  # by row of the figure: what the padding's share is said to be
    for one in findings:
        if one.quantity == "padding" and one.verdict is not Verdict.UNTESTED:
            mine = (mean["encoder"] == one.encoder) & (mean["task"] == one.task)
            for y in np.flatnonzero(mine)[:1]:
                told[y] = next(iter(one.claim.stated.values()))
    for y, row in enumerate(mean.itertuples()):
        low, high = sorted((row.padding, row.together))
        ax.barh(y, row.padding - 1, left=1, color=TEXTS, height=0.7)
        ax.barh(y, high - low, left=low, color=PRUNED, height=0.7)
        label = f"{row.padding:.1f} by {row.pruning:.1f} = {row.together:.1f}"
        beyond = told.get(y, 0) > high  # the diamond stands there: begin behind it
        style.note(ax, label, (max(high, told.get(y, 0)), y), (10 if beyond else 4, 0), va="center")
        if y in told:
            ax.plot(told[y], y, **TALK)
    ax.set_xscale("log")
    ax.set_xlim(1, 2.6 * mean[["padding", "together"]].to_numpy().max())
    ax.xaxis.set_minor_locator(NullLocator())
    ticks = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= ax.get_xlim()[1]]
    ax.set_xticks(ticks)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    style.rows(ax, words)
    ax.set_xlabel("times less work than the dense model on padded texts")
    style.key(figure, {"padding left away": TEXTS, "tokens pruned": PRUNED})
    return figure, mean
