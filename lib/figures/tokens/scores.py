"""What is the score at how much work, and does it matter which tokens go?"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lib import study
from lib.claims import Finding
from lib.figures import frames, style
from lib.figures.style import FAINT, GREY, PAPER, TALK, Drawn
from lib.figures.tokens.rows import PAPERS, panels, ran
from lib.runs import Run

APART = 0.018  # of a panel's width, between the marks of two methods at one budget


def frontier(found: Iterable[Run], findings: Iterable[Finding]) -> Drawn:
    """Score by the share of executed MACs that is left, a panel for each encoder and task.

    Bars are the 95% intervals of the drop from the dense model; marks of one budget stand a little
    apart, or bars would hide each other. Diamonds are the papers' drops from our own dense model.
    What merely masks stands, hollow, at the work that it claims, beside what it really takes.
    """
    found = list(found)
    table = _cells(found)
    if table.empty:
        return style.untested("token pruning", table)
    arms = [arm for arm in study.TOKEN_ARMS if arm in set(table["arm"])]
    figure, places = panels(table, found)
    for ax, (encoder, task), own in places:
        here, marks = [arm for arm in arms if arm in set(own["arm"])], []
        step = APART * max(np.ptp(own[["kept", "claimed"]]), 0.1)
        for place, arm in enumerate(here):
            points = own[own["arm"] == arm].sort_values("budget")
            apart = (place - (len(here) - 1) / 2) * step
            look = style.look(arm) | {"ls": "-" if not arm.startswith("tokens-") else ":"}
            bars = style.sides(points, "drop")[::-1]  # a greater drop is a lower score
            at = points["kept"] + apart
            ax.errorbar(at, points["score"], yerr=bars, elinewidth=1, lw=1.2, **look)
            masks = points[points["claimed"] < points["kept"] - 1e-3]
            hollow = look | {"ls": "", "mfc": PAPER}
            ax.plot(masks["claimed"] + apart, masks["score"], **hollow)
            marks += [*at, *(masks["claimed"] + apart)]
        marks += _stated(ax, findings, encoder, task, own["dense"].iloc[0])
        ax.set_xlim(max(marks) + 0.05, min(marks) - 0.05)  # all marks, and no empty half
        ax.set_xlabel("MACs executed, of dense unpadded")
    style.markers(figure, {style.name(arm): style.METHODS[arm] for arm in arms} | PAPERS)
    return figure, table


def _cells(found: list[Run]) -> pd.DataFrame:
    """One row an encoder, task, arm and budget: means over seeds, the drop with its interval."""
    by = ["encoder", "task", "arm", "budget"]
    work = ran(found).groupby(by)[["kept", "claimed"]].mean().reset_index()
    dropped = [run for run in found if "tokens" in run.trace and not run.spec.base]
    return frames.cells(dropped).merge(work, on=by)


def _stated(
    ax: Axes, findings: Iterable[Finding], encoder: str, task: str, dense: float
) -> list[float]:
    """Draw the papers' drops from `dense`; the work at which they stand."""
    drawn = []
    for one in findings:
        here = (one.claim.chapter, one.encoder, one.task, one.quantity)
        if here != ("tokens", encoder, task, "drop"):
            continue
        for budget, drop in one.claim.stated.items():
            if budget:
                ax.plot(budget, dense - drop, **TALK)
                drawn.append(budget)
    return drawn


def controls(found: Iterable[Run], findings: Iterable[Finding]) -> Drawn:
    """Score of each method less that of tokens chosen blindly, at equal work; a row a task.

    The table has the work that both really have left: budgets are met on training texts.
    """
    findings = list(findings)
    work = ran(found).groupby(["encoder", "task", "arm", "budget"])["kept"].mean()
    rows = [
        (one.claim.key, one.encoder, one.task, cell.cell, cell.measured, cell.low, cell.high)
        for one in findings
        if one.quantity == "difference" and one.claim.versus["arm"].startswith("tokens-")
        for cell in one.cells
        if cell.measured is not None
    ]
    names = ["key", "encoder", "task", "budget", "difference", "low", "high"]
    table = pd.DataFrame(rows, columns=names)
    arms = {one.claim.key: one.claim.select.get("arm") for one in findings if one.claim.select}
    rivals = {one.claim.key: one.claim.versus["arm"] for one in findings if one.claim.versus}
    for name, sides in (("kept", arms), ("kept_control", rivals)):
        table[name] = [
            work.get((row.encoder, row.task, sides[row.key], row.budget))
            for row in table.itertuples()
        ]
    if table.empty:
        return style.untested("token pruning beside its controls", table)
    budgets = sorted(set(table["budget"]), reverse=True)
    places = table[["key", "encoder", "task"]].drop_duplicates().values.tolist()
    tasks = list(dict.fromkeys(table["task"]))
    places.sort(key=lambda place: tasks.index(place[2]))  # scores of one metric stand together
    figure, axes = style.canvas(1, len(budgets), height=1.2 + 0.27 * len(places), sharey=True)
    for ax, budget in zip(axes, budgets, strict=True):
        ax.axvspan(0, 1, color=FAINT, lw=0)
        ax.axvline(0, color=GREY, lw=1)
        for row in table[table["budget"] == budget].itertuples():
            y = places.index([row.key, row.encoder, row.task])
            arm = arms[row.key]
            bars = [[row.difference - row.low], [row.high - row.difference]]
            look = style.look(arm)
            ax.errorbar(row.difference, y, xerr=bars, ls="", **look)
        ends = np.abs(table[["low", "high"]].to_numpy()).max() * 1.1 + 0.005
        ax.set_xlim(-ends, ends)
        ax.set_title(f"{budget:g} of the MACs left")
        ax.set_xlabel("score less the control's")
    words = [f"{style.name(arms[key])} over {_blind(rivals[key])}, {t}" for key, _, t in places]
    if len({encoder for _, encoder, _ in places}) > 1:
        words = [f"{word} ({e})" for word, (_, e, _) in zip(words, places, strict=True)]
    style.rows(axes[0], words)
    return figure, table


def _blind(control: str) -> str:
    """A control's tokens in a word or two."""
    return style.name(control).replace(" tokens", "")
