"""What do the scores look like by task, budget and size of encoder?"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lib.claims import Finding
from lib.figures import frames, style
from lib.figures.kcm import tables
from lib.figures.style import DOTS, GREY, INK, TALK, Drawn
from lib.runs import Run
from lib.study.chapters.kcm import BY_BUDGET

ACROSS = "share of the MACs kept"


def tasks(found: Iterable[Run], findings: Iterable[Finding]) -> Drawn:
    """What KCM loses on every task at the two budgets of the paper's table; the talk's bound."""
    findings = list(findings)
    data = tables.cells(frames.select(found, arm="kcm"))
    said = tables.papers(findings)
    bound = frames.claim(findings, "kcm.flops40").stated[0.6]
    data = data.merge(
        said[said["arm"] == "kcm"].rename(columns={"drop": "paper"}),
        how="left",
        on=["arm", "task", "budget"],
    )
    if data.empty:
        return style.untested("KCM by task", data)
    budgets = sorted(set(data["budget"]))
    budgets = [budget for budget in (0.6, 0.7) if budget in budgets] or budgets[:2]
    encoders, names = list(dict.fromkeys(data["encoder"])), list(dict.fromkeys(data["task"]))
    figure, axes = style.canvas(
        1, len(encoders), height=1.7 + 0.42 * len(names), sharex=True, sharey=True
    )
    for ax, encoder in zip(axes, encoders, strict=True):
        ax.axvline(0, color=INK, lw=1)
        ax.axvline(100 * bound, color=INK, lw=1, ls=DOTS)
        for at, budget in enumerate(budgets):
            own = data[(data["encoder"] == encoder) & (data["budget"] == budget)]
            place = [
                names.index(task) + 0.24 * (at - 0.5 * (len(budgets) - 1)) for task in own.task
            ]
            look = {"color": _SHADES[at], "marker": "os"[at], "ls": "", "elinewidth": 1.4}
            ax.errorbar(
                100 * own["drop"], place, xerr=100 * style.sides(own, "drop"), **look | {"ms": 6}
            )
            told = own["paper"].notna().to_numpy()
            hollow = TALK | {"marker": "^" if at == 0 else "v", "ms": 6}
            ax.plot(100 * own["paper"][told], np.asarray(place)[told], **hollow)
        ax.plot(100 * bound, -0.66, **TALK | {"ms": 6})
        style.note(ax, "talk: below", (100 * bound, -0.66), (8, 0), va="center")
        style.rows(ax, names, top=1.0)
        ax.set_title(encoder)
    figure.supxlabel("hundredths of the score lost", fontsize=10)
    looks = {f"{b:.0%} of the MACs": (_SHADES[at], "os"[at]) for at, b in enumerate(budgets)}
    looks |= {f"the paper's, {b:.0%}": (GREY, "^v"[at]) for at, b in enumerate(budgets)}
    style.markers(figure, looks, place="upper")
    return figure, data


_SHADES = ("#0072b2", "#3d9fd6")


def curves(found: Iterable[Run], findings: Iterable[Finding], encoder: str) -> Drawn:
    """Score against MACs, a panel a task: the rivals by budget, and the paper's points as drops."""
    findings = list(findings)
    data = tables.cells(frames.select(found, arm=list(BY_BUDGET), encoder=encoder))
    if data.empty:
        return style.untested("scores by budget", data)
    said = tables.papers(findings)
    names = list(dict.fromkeys(data["task"]))
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, axes = style.canvas(rows, columns, height=0.9 + 2.6 * rows, sharex=True)
    _spare(axes, len(names), columns)
    for ax, task in zip(axes, names, strict=False):
        own = data[data["task"] == task]
        ax.axhline(0, color=INK, lw=1)
        for arm in BY_BUDGET:
            line = own[own["arm"] == arm].sort_values("budget")
            if len(line):
                bars = style.sides(line, "drop")
                look = style.look(arm) | {"elinewidth": 1, "ms": 5}
                ax.errorbar(line["budget"], line["drop"], bars, **look)
        for arm in BY_BUDGET:
            told = said[(said["arm"] == arm) & (said["task"] == task)].sort_values("budget")
            if arm in tables.PAPERS and len(told):
                hollow = TALK | {"marker": tables.PAPERS[arm][1], "mec": style.look(arm)["color"]}
                hollow |= {"ms": 5.5, "ls": DOTS, "color": style.look(arm)["color"], "lw": 1}
                ax.plot(told["budget"], told["drop"], **hollow)
        style.densities(ax, [*own["budget"], *said["budget"]], "")
        ax.set_ylim(*_reach(own))
        ax.set_title(task)
    for ax in axes[::columns]:
        ax.set_ylabel("score lost")
    figure.supxlabel(f"{ACROSS} (hollow, dotted: the paper's, on BERT-base)", fontsize=10)
    named = {style.name(arm): style.METHODS[arm] for arm in BY_BUDGET}
    style.markers(figure, named, place="upper")
    return figure, pd.concat(
        [data.assign(source="ours"), said[said["task"].isin(names)].assign(source="paper")],
        ignore_index=True,
    )


def _spare(axes: list[Axes], used: int, columns: int) -> None:
    """Hide the axes that no task needs; the one above such an axis names its own ticks."""
    for ax in axes[used:]:
        ax.set_axis_off()
    for ax in axes[max(0, used - columns) : used]:
        ax.tick_params(labelbottom=True)


def _reach(own: pd.DataFrame) -> tuple[float, float]:
    """Limits that show our means; a few of the paper's lowest points may lie outside."""
    low = min(-0.02, own["drop_low"].min())
    high = max(0.1, 1.1 * own["drop"].max(), own[own["arm"] == "kcm"]["drop_high"].max())
    return float(low), float(high)


def sizes(found: Iterable[Run]) -> Drawn:
    """The small encoder beside the large one: what KCM loses by budget, a panel a task."""
    data = tables.cells(frames.select(found, arm=["kcm", "mask-tuning"]))
    if data.empty:
        return style.untested("encoders of two sizes", data)
    encoders, names = list(dict.fromkeys(data["encoder"])), list(dict.fromkeys(data["task"]))
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, axes = style.canvas(rows, columns, height=0.9 + 2.4 * rows, sharex=True)
    _spare(axes, len(names), columns)
    looks = dict(zip(encoders, style.SEVERAL, strict=False))
    for ax, task in zip(axes, names, strict=False):
        ax.axhline(0, color=INK, lw=1)
        own = data[data["task"] == task]
        for (encoder, arm), line in own.groupby(["encoder", "arm"], sort=False):
            line = line.sort_values("budget")
            colour, marker = looks[encoder]
            look = {"color": colour, "marker": marker, "ls": "-" if arm == "kcm" else ":"}
            bars = style.sides(line, "drop") if arm == "kcm" else None
            ax.errorbar(line["budget"], line["drop"], bars, elinewidth=1, ms=5, **look)
        style.densities(ax, own["budget"], "")
        ax.set_title(task)
    for ax in axes[::columns]:
        ax.set_ylabel("score lost")
    figure.supxlabel(f"{ACROSS} (dotted: Mask-Tuning)", fontsize=10)
    style.markers(figure, looks, place="upper")
    return figure, data
