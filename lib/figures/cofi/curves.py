"""How much score is left at which speed and size, and do rivals of the same speed keep more?"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lib.claims import Finding
from lib.claims.cells import timings_of
from lib.claims.quantities.trade import curve as line_of
from lib.figures import frames, style
from lib.figures.cofi.points import points
from lib.figures.style import GREY, INK, TALK, TALK_LINE, Drawn
from lib.runs import Run, Timing
from lib.study.chapters.cofi import RIVALS, SHORT

TIMES = (1, 2, 4, 8, 16, 32, 64, 128)
VALIDATED = {"cofi.validate.sst2-checkpoint": "released", "cofi.validate.sst2": "own"}
LINES = ("-", "--", ":", "-.")  # encoders


def curve(found: Iterable[Run], timed: Iterable[Timing], findings: Iterable[Finding]) -> Drawn:
    """What is lost of the dense score by speed, and by size, with both talks' points."""
    findings, timed = list(findings), list(timed)
    ours = points(frames.select(found, arm=["dense", "cofi"]), timed)
    task = ours["task"].iloc[0] if len(ours) else ""
    ours = ours[ours["task"] == task]
    if not (ours["arm"] == "cofi").any():
        return style.untested("the curve of speed and score", ours)
    figure, (left, right) = style.canvas(1, 2, height=3.9, sharey=True)
    talk = _talk(findings) if task == "sst2" else pd.DataFrame(columns=TOLD)
    for number, (encoder, own) in enumerate(ours.groupby("encoder", sort=False)):
        own = own.sort_values("sparsity")
        look = style.look("cofi") | {"ls": LINES[number % 4], "capsize": 2, "elinewidth": 1}
        look |= {"mfc": style.PAPER} if number else {}
        quick = own[own["speed"].notna()]
        bars = 100 * style.sides(quick, "drop")
        left.errorbar(quick["speed"], 100 * quick["drop"], bars, label=encoder, **look)
        right.errorbar(
            1 - own["sparsity"], 100 * own["drop"], 100 * style.sides(own, "drop"), **look
        )
    if ours["speed"].notna().sum() < 2:
        style.remark(left, "untimed")
    for ax, column in ((left, "speed"), (right, "size")):
        said = talk[talk["source"] == "talk"].dropna(subset=[column])
        ax.errorbar(said[column], 100 * said["drop"], **TALK_LINE)
        other = talk[talk["source"] != "talk"].dropna(subset=[column])
        ax.plot(other[column], 100 * other["drop"], **TALK | {"marker": "s", "label": "validators"})
        ax.axhline(0, color=INK, lw=1)
    left.invert_yaxis()  # shared: less is lost the higher
    if len(talk):
        left.axvline(10, color=GREY, lw=0.8, ls="--")
    _times(left)
    left.set_ylabel(f"hundredths of {style.metric(ours)} lost")
    left.set_title(f"by speed ({task})")
    right.set_xscale("log")
    right.xaxis.set_major_locator(FixedLocator(sorted({1, *ours["size"].round(3)})))
    right.xaxis.set_minor_locator(NullLocator())
    right.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    right.invert_xaxis()
    right.set_xlabel("share of the layers' parameters left")
    right.set_title("by size")
    left.legend(loc="lower left", handlelength=2.8)
    return figure, pd.concat([ours.assign(source="ours"), talk], ignore_index=True)


TOLD = ["source", "speed", "size", "score", "drop"]


def _talk(findings: Iterable[Finding]) -> pd.DataFrame:
    """Points of both talks on SST-2, as drops from the dense score of the authors' paper."""
    said = frames.claim(findings, "cofi.curve")
    rows = [
        ("talk", speed, np.nan, score, said.dense - score) for speed, score in said.stated.items()
    ]
    sizes = frames.claim(findings, "cofi.sst2")
    rows += [
        ("talk", np.nan, size, score, said.dense - score) for size, score in sizes.stated.items()
    ]
    for key in VALIDATED:
        claim, speed = frames.claim(findings, key), frames.claim(findings, f"{key}-speed")
        for size, score in claim.stated.items():
            place = (f"validators, {VALIDATED[key]}", speed.stated[size], size)
            rows.append((*place, score, said.dense - score))
    return pd.DataFrame(rows, columns=TOLD)


def _times(ax: Axes) -> None:
    """A logarithmic axis of speedups."""
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_locator(FixedLocator(TIMES))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    low, high = ax.get_xlim()
    ax.set_xlim(min(low, 0.9) if low > 0 else 0.9, max(high, 13))
    ax.set_xlabel("times as fast as dense")


def rivals(found: Iterable[Run], timed: Iterable[Timing], findings: Iterable[Finding]) -> Drawn:
    """Score by speed of CoFi and its rivals, each distilled alike and for no less time.

    Left the chapter's encoder; right the larger, with the small dense and pruned ones at their
    speed beside the larger dense model.
    """
    found = list(found)
    own = frames.select(found, method="cofi")
    if not own:
        return style.untested(
            "rivals at equal speed", pd.DataFrame(columns=["arm", "speed", "score"])
        )
    small, task = own[0].spec.encoder, own[0].spec.task
    same = [run for run in found if run.spec.task == task]
    others = [run.spec.encoder for run in same if run.spec.encoder != small]
    large = next(iter(others), None)
    figure, axes = style.canvas(1, 2 if large else 1, height=3.9, sharey=True)
    rows = []
    for ax, base in zip(axes, (small, large), strict=False):
        # on the right the small encoder too: its models are rivals of the large one's
        within = same if base != small else [r for r in same if r.spec.encoder == small]
        near = timings_of(list(timed), base, _PROTOCOL, {run.spec.encoder for run in within})
        for encoder, arm, runs in _arms(within, base):
            for point in line_of(runs, near, base):
                low, high = np.percentile(point.draws, (2.5, 97.5))
                rows.append((base, encoder, arm, point.speed, point.score, low, high))
        table = pd.DataFrame(rows, columns=COLUMNS)
        _lines(ax, table[table["against"] == base], base)
        ax.set_title(f"times as fast as dense {base}", fontsize=10)
    if table.empty or not (table["speed"] != 1).any():
        return style.untested("rivals at equal speed", table)
    axes[0].set_ylabel(style.METRICS.get(own[0].per_example["metric"], "score"))
    arms = [arm for arm in ("cofi", *RIVALS) if arm in set(table["arm"])]
    looks = {style.name(arm): tuple(LOOKS.get(arm, style.look(arm)).values()) for arm in arms}
    if large:
        looks |= {f"{small}, dense and pruned": (GREY, "o")}
    style.markers(figure, looks)
    return figure, table


_PROTOCOL = {name: value for name, value in SHORT.items() if name != "padding"}
COLUMNS = ["against", "encoder", "arm", "speed", "score", "low", "high"]


def _arms(found: Iterable[Run], base: str) -> Iterable[tuple[str, str, list[Run]]]:
    found = list(found)
    for encoder in dict.fromkeys((base, *(run.spec.encoder for run in found))):
        for arm in ("cofi", *RIVALS):
            runs = frames.select(found, encoder=encoder, arm=arm, after="steps")
            if runs and encoder != base:
                runs += frames.select(found, encoder=encoder, arm="dense", after="none")
            if runs and (encoder == base or arm == "cofi"):
                yield encoder, arm, runs


LOOKS = {"kcm": {"color": "#00805e", "marker": "s"}}  # CoFi has its family's colour here


def _lines(ax: Axes, table: pd.DataFrame, base: str) -> None:
    for (encoder, arm), own in table.groupby(["encoder", "arm"], sort=False):
        look = LOOKS.get(arm, style.look(arm)) | {"ls": "-" if encoder == base else "--"}
        if encoder != base:
            look["color"] = GREY
        bars = style.sides(own, "score", "low", "high")
        ax.errorbar(own["speed"], own["score"], bars, capsize=2, elinewidth=1, **look)
    _times(ax)
    if table.empty:
        style.remark(ax, "untimed")
