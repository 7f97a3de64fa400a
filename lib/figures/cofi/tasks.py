"""What does each task lose, and what does the validation talk's table say beside ours?"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lib.claims import Finding
from lib.figures import frames, style
from lib.figures.cofi.points import points, stated
from lib.figures.style import DOTS, GREY, INK, TALK, Drawn
from lib.runs import Run, Timing

SHADES = ("#0072b2", "#d55e00", "#00805e", "#882255")


def tasks(found: Iterable[Run], findings: Iterable[Finding]) -> Drawn:
    """What every task loses of its dense score by size; and from the larger size to the smaller."""
    found, findings = list(found), list(findings)
    table = points(frames.select(found, arm="cofi"), [])
    if table.empty:
        return style.untested("tasks", table)
    sizes = sorted(table["size"].unique())
    sizes = [size for size in (0.05, 0.4) if size in sizes] or sizes[:2]
    table = table[table["size"].isin(sizes)]
    encoders = list(dict.fromkeys(run.spec.encoder for run in found))
    rows = dict.fromkeys(zip(table["task"], table["encoder"], strict=True))
    rows = sorted(rows, key=lambda row: encoders.index(row[1]))
    falls = _falls(findings)
    figure, (left, right) = style.canvas(1, 2, height=1.9 + 0.36 * len(rows), sharey=True)
    for row in table.itertuples():
        at, y = sizes.index(row.size), rows.index((row.task, row.encoder))
        bars = [[100 * max(0, row.drop - row.drop_low)], [100 * max(0, row.drop_high - row.drop)]]
        look = {"color": SHADES[at], "marker": "os"[at % 2], "ls": "", "elinewidth": 1.4}
        left.errorbar(100 * row.drop, y + 0.16 * (0.5 - at), xerr=bars, **look)
    bound = stated(findings, "cofi.validate.improves")[0.05]
    left.axvline(0, color=INK, lw=1)
    left.axvline(100 * bound, color=INK, lw=0.8, ls=DOTS)
    left.plot(100 * bound, -0.75, **TALK | {"ms": 6})
    style.note(left, "talk: below, as we read it", (100 * bound, -0.75), (8, 0), va="center")
    left.set_xlabel("hundredths of the score lost")
    left.set_title("from the own dense model")
    for row in falls.itertuples():
        if (row.task, row.encoder) in rows:
            y = rows.index((row.task, row.encoder))
            bars = [[100 * max(0, row.fall - row.low)], [100 * max(0, row.high - row.fall)]]
            look = {"color": GREY, "marker": "v", "ls": "", "elinewidth": 1.4}
            right.errorbar(100 * row.fall, y, xerr=bars, **look)
            right.plot(100 * row.stated, y - 0.28, **TALK | {"ms": 6})
            if row.Index == 0:
                style.note(right, "paper", (100 * row.stated, y - 0.28), (8, 0), va="center")
    right.axvline(0, color=INK, lw=1)
    right.set_xlabel("hundredths of the score lost")
    right.set_title("from sparsity 0.6 to 0.95")
    if falls.empty:
        style.remark(right, "untested")
    style.rows(left, [f"{task}, {encoder}" for task, encoder in rows], top=1.1)
    looks = {f"sparsity {1 - s:g}": (SHADES[at], "os"[at % 2]) for at, s in enumerate(sizes)}
    style.markers(figure, looks)
    return figure, pd.concat([table, falls], ignore_index=True)


def _falls(findings: Iterable[Finding]) -> pd.DataFrame:
    rows = [
        (one.task, one.encoder, cell.stated, cell.measured, cell.low, cell.high)
        for one in findings
        if one.claim.key.endswith("-fall")
        for cell in one.cells
        if cell.measured is not None
    ]
    return pd.DataFrame(rows, columns=["task", "encoder", "stated", "fall", "low", "high"])


VALIDATED = {  # rows of the validation talk's table, and the claims on their speed
    "cofi.validate.mnli-checkpoint": "MNLI, released",
    "cofi.validate.mnli": "MNLI, own",
    "cofi.validate.sst2-checkpoint": "SST-2, released",
    "cofi.validate.sst2": "SST-2, own",
    "cofi.validate.cola-checkpoint": "CoLA, released",
    "cofi.validate.cola": "CoLA, own",
}


def validation(found: Iterable[Run], timed: Iterable[Timing], findings: Iterable[Finding]) -> Drawn:
    """The validation talk's six rows: its speedup and share of the dense score beside ours."""
    findings = list(findings)
    ours = points(
        [run for run in frames.select(found, arm="cofi") if run.spec.budget == 0.05], timed
    )
    rows = [row for key, words in VALIDATED.items() for row in _row(findings, key, words, ours)]
    table = pd.DataFrame(rows, columns=COLUMNS)
    if table[["speed", "share"]].isna().all(axis=None):
        return style.untested("the tasks of the validation talk", table)
    names = list(VALIDATED.values())
    figure, (left, right) = style.canvas(1, 2, height=3.7, sharey=True)
    for ax, column in ((left, "speed"), (right, "share")):
        for row in table.to_dict("records"):
            _ours(ax, row, column, names.index(row["row"]))
        for row in table.drop_duplicates("row").to_dict("records"):
            ax.plot(row[f"stated_{column}"], names.index(row["row"]) - 0.25, **TALK)
    left.axvline(10, color=INK, lw=0.8, ls=DOTS)
    style.note(left, "claimed: over 10", (10, -0.75), (4, 0), va="center", color=GREY)
    left.set_xlabel("times as fast as dense; diamonds: talk")
    left.set_xlim(left=0)
    right.axvline(1, color=INK, lw=1)
    style.note(right, "dense", (1, -0.75), (4, 0), va="center", color=GREY)
    right.set_xlabel("share of the dense score")
    style.rows(left, names, top=1.0)
    encoders = list(dict.fromkeys(table["encoder"].dropna()))
    looks = {encoder: (SHADES[at % 4], "os^v"[at % 4]) for at, encoder in enumerate(encoders)}
    if looks:
        style.markers(figure, looks)
    return figure, table


COLUMNS = [
    *("row", "encoder", "stated_speed", "stated_share", "place"),
    *(name + end for name in ("speed", "share") for end in ("", "_low", "_high")),
]


def _row(findings: list[Finding], key: str, words: str, ours: pd.DataFrame) -> Iterable[dict]:
    """One of the talk's rows with each of our encoders on its task; with none, by itself."""
    claim = frames.claim(findings, key)
    score, speed = claim.stated[0.05], stated(findings, f"{key}-speed")[0.05]
    share = score if claim.quantity == "share" else score / claim.dense
    told = {"row": words, "stated_speed": speed, "stated_share": share}
    own = ours[ours["task"] == claim.original["task"]]
    encoders = list(dict.fromkeys(ours["encoder"]))
    for row in own.to_dict("records"):
        here = {name: row[name] for name in COLUMNS if name in row}
        yield told | here | {"row": words, "place": encoders.index(row["encoder"])}
    if own.empty:
        yield told | dict.fromkeys(("speed", "share"), np.nan) | {"encoder": None}


def _ours(ax: Axes, row: dict, column: str, y: int) -> None:
    value = row[column]
    if value is None or np.isnan(value):
        return
    at = int(row["place"])
    bars = [[max(0, value - row[f"{column}_low"])], [max(0, row[f"{column}_high"] - value)]]
    look = {"color": SHADES[at % 4], "marker": "os^v"[at % 4], "ls": "", "elinewidth": 1.4}
    ax.errorbar(value, y + 0.16 * at, xerr=bars, **look)
