"""What does each part of the method add? Units, distillation, matching; arm by arm."""

from collections.abc import Iterable, Sequence

import pandas as pd
from matplotlib.axes import Axes

from lib.claims import Finding
from lib.figures import frames, style
from lib.figures.cofi.points import points
from lib.figures.style import DOTS, FAINT, INK, TALK, Drawn
from lib.runs import Run, Timing

UNITS = ("cofi-fine", "cofi-fine-wide", "cofi-hidden", "cofi-layers", "cofi")
DISTILLED = ("cofi-undistilled", "cofi-prediction", "cofi")
MATCHED = ("cofi-fixed", "cofi-unordered", "cofi")
WORDS = {"cofi": {"units": "all", "distil": "+ layers", "match": "matched in order"}}


def units(found: Iterable[Run], timed: Iterable[Timing], findings: Iterable[Finding]) -> Drawn:
    """Sparsity, speed and score at the smallest size by the units that may go."""
    findings = list(findings)
    table = _ablation(found, timed, UNITS)
    if table.empty:
        return style.untested("sets of units", table)
    arms = list(table["arm"])
    figure, axes = style.canvas(1, 3, height=1.3 + 0.42 * len(arms), sharey=True)
    sparse, fast, good = axes
    target = 1 - table["size"].iloc[0]
    for row in table.itertuples():
        sparse.plot(row.sparsity, arms.index(row.arm), ls="", ms=7, **style.look(row.arm))
    sparse.axvline(target, color=INK, lw=1)
    low = min(table["sparsity"].min(), target) - 0.01
    sparse.set_xlim(low, max(table["sparsity"].max(), target) + 0.01)
    sparse.set_xlabel("sparsity")
    sparse.set_title("line: asked for", fontsize=10)
    _dots(fast, table, arms, "speed")
    if table["speed"].isna().all():
        style.remark(fast, "untimed")
    stated = frames.claim(findings, "cofi.units")
    for arm, bound in stated.stated.items():
        if arm in arms:
            side = {"below": "<", "above": ">"}[stated.relation[arm]]
            hollow = TALK | {"marker": side, "ms": 6}
            fast.plot(bound, arms.index(arm) - 0.3, **hollow)
    fast.axvline(10, color=INK, lw=0.8, ls=DOTS)
    fast.set_xlim(left=0)
    fast.set_xlabel("times as fast")
    fast.set_title("talk: arrows", fontsize=10)
    _dots(good, table, arms, "drop", 100)
    good.axvline(0, color=INK, lw=1)
    good.set_xlabel("hundredths lost")
    good.set_title(style.metric(table), fontsize=10)
    _names(sparse, arms, "units")
    return figure, table


def distillation(
    found: Iterable[Run], timed: Iterable[Timing], findings: Iterable[Finding]
) -> Drawn:
    """Score lost by what is distilled, at every size that was run; the talk's where it has one."""
    findings = list(findings)
    found = list(found)
    tables = [
        _ablation(frames.select(found, task=task), timed, DISTILLED, size).assign(
            place=f"{task}, sparsity {1 - size:g}"
        )
        for task, size in _places(found)
    ]
    tables = [table for table in tables if len(table) > 1]
    if not tables:
        return style.untested("distillation", pd.DataFrame())
    table = pd.concat(tables, ignore_index=True)
    arms = [arm for arm in DISTILLED if arm in set(table["arm"])]
    places = list(dict.fromkeys(table["place"]))
    figure, axes = style.canvas(1, len(places), height=1.9 + 0.4 * len(arms), sharey=True)
    claim = frames.claim(findings, "cofi.distil")
    for ax, place in zip(axes, places, strict=True):
        own = table[table["place"] == place]
        _dots(ax, own, arms, "drop", 100)
        ax.axvline(0, color=INK, lw=1)
        if own["task"].iloc[0] == claim.original["task"] and own["size"].min() <= 0.05:
            for arm, score in claim.stated.items():
                if arm in arms:
                    spot = 100 * (claim.dense - score), arms.index(arm) - 0.3
                    ax.plot(*spot, **TALK | {"ms": 6})
            style.note(ax, "talk", spot, (7, 0), va="center")
        ax.set_title(place, fontsize=10)
        ax.set_xlabel("hundredths lost")
    _names(axes[0], arms, "distil")
    return figure, table


def _places(found: Iterable[Run]) -> list[tuple[str, float]]:
    """Tasks and sizes at which distillation was varied; the smallest first."""
    chosen = frames.select(found, arm=["cofi-prediction", "cofi-undistilled"])
    return sorted(
        dict.fromkeys((run.spec.task, run.spec.budget) for run in chosen),
        key=lambda place: (place[0] != chosen[0].spec.task, place[1]),
    )


def matching(found: Iterable[Run], timed: Iterable[Timing], findings: Iterable[Finding]) -> Drawn:
    """Score lost by how layers are matched, and the difference that each way makes."""
    findings = list(findings)
    table = _ablation(found, timed, MATCHED)
    if len(table) < 2:
        return style.untested("ways of matching layers", table)
    arms = list(table["arm"])
    figure, (left, right) = style.canvas(1, 2, height=1.7 + 0.4 * len(arms), sharey=True)
    _dots(left, table, arms, "drop", 100)
    left.axvline(0, color=INK, lw=1)
    left.set_xlabel(f"hundredths of {style.metric(table)} lost")
    encoder, task = table["encoder"].iloc[0], table["task"].iloc[0]
    for key in ("cofi.matching", "cofi.matching-order"):
        for one in findings:
            if (one.claim.key, one.encoder, one.task) == (key, encoder, task):
                _difference(right, one, arms)
    right.axvline(0, color=INK, lw=1)
    reach = 1.1 * max(abs(limit) for limit in right.get_xlim())
    right.set_xlim(-reach, reach)
    right.axvspan(0, reach, color=FAINT, alpha=0.45, lw=0, zorder=0)
    if "cofi-fixed" in arms:
        spot = (0, arms.index("cofi-fixed") - 0.3)
        right.plot(*spot, **TALK | {"ms": 6})
        style.note(right, "talk: above", spot, (8, 0), va="center")
    right.set_xlabel("hundredths by which in order is better")
    _names(left, arms, "match")
    return figure, table


def _difference(ax: Axes, finding: Finding, arms: Sequence[str]) -> None:
    arm = finding.claim.versus["arm"]
    for cell in finding.cells:
        if cell.measured is not None and arm in arms:
            bars = [[100 * (cell.measured - cell.low)], [100 * (cell.high - cell.measured)]]
            look = {"elinewidth": 1.4, "ms": 6, "ls": ""} | style.look(arm)
            ax.errorbar(100 * cell.measured, arms.index(arm), xerr=bars, **look)


def _ablation(
    found: Iterable[Run], timed: Iterable[Timing], arms: Sequence[str], size: float | None = None
) -> pd.DataFrame:
    """The arms in their order at one size, by default the smallest, of the first encoder and task.

    Empty unless one of them other than CoFi itself was run.
    """
    table = points(frames.select(found, arm=list(arms)), timed)
    if table.empty or set(table["arm"]) == {"cofi"}:
        return table.head(0)
    varied = table[table["arm"] != "cofi"]
    size = varied["size"].min() if size is None else size
    place = varied[varied["size"] == size].iloc[0]
    same = (table["encoder"] == place["encoder"]) & (table["task"] == place["task"])
    own = table[same & (table["size"] == size)]
    order = own["arm"].map({arm: at for at, arm in enumerate(arms)})
    return own.assign(order=order).sort_values("order").drop(columns="order").reset_index(drop=True)


def _dots(ax: Axes, table: pd.DataFrame, arms: Sequence[str], column: str, times: int = 1) -> None:
    for row in table[table[column].notna()].itertuples():
        value, low, high = (getattr(row, column + end) for end in ("", "_low", "_high"))
        bars = [[times * max(0, value - low)], [times * max(0, high - value)]]
        look = {"elinewidth": 1.4, "ms": 6, "ls": ""} | style.look(row.arm)
        ax.errorbar(times * value, arms.index(row.arm), xerr=bars, **look)


def _names(ax: Axes, arms: Sequence[str], kind: str) -> None:
    words = [WORDS.get(arm, {}).get(kind, style.name(arm)) for arm in arms]
    style.rows(ax, words, top=0.8)
    for label, arm in zip(ax.get_yticklabels(), arms, strict=True):
        label.set_color(style.look(arm)["color"])
