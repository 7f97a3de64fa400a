"""What does pruning buy in time, and what do zeros in place buy?"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lib.claims import Finding
from lib.figures import frames, style
from lib.figures.style import GREY, INK, TALK, Drawn
from lib.runs import Run, Timing, shape_key


def speed(found: Iterable[Run], findings: Iterable[Finding], key: str, unit: str) -> Drawn:
    """Speedup over the dense model by density: ours, the talk's, and what MACs alone would give."""
    finding = frames.finding(findings, key)
    kept = frames.runs(frames.select(found, arm="coreset", unit=unit, after="none"))
    kept = kept.groupby("budget")["macs"].mean()
    stated = pd.Series(finding.claim.stated, dtype=float)
    equals = finding.claim.relation[stated.index[0]] == "equals"
    ours = frames.findings([finding]).set_index("cell")[["measured", "low", "high", "n"]]
    data = pd.DataFrame({"density": sorted({1.0, *kept.index, *stated.index}, reverse=True)})
    data["talk"] = data["density"].map(stated) if equals else np.nan
    data["from_macs"] = (1 / data["density"].map(kept)).where(data["density"] < 1, 1.0)
    data = data.join(ours, on="density")
    if ours["measured"].isna().all() and kept.empty:
        return style.untested("speed by density", data)
    figure, (ax,) = style.canvas(height=3.6)
    ax.axhline(1, color=INK, lw=1)
    style.densities(ax, data["density"], style.DENSITY[unit])
    ends = [*_from_macs(ax, data), *_measured(ax, data)]
    ax.plot(stated.index, stated if equals else [1.0] * len(stated), **TALK)
    if equals:
        slope, start = frames.talk_line(finding.claim)
        x = np.linspace(min(stated.index), 1, 100)
        ax.plot(x, 1 / (start + slope * x), color=INK, lw=1, ls=style.DOTS)
        ends.append((stated.iloc[-1], "talk, and its line", INK))
    else:
        ends.append((1.0, "talk: above", INK))
    _times(ax, max(height for height, _, _ in ends))
    ax.set_ylabel("times as fast as dense")
    style.beside(ax, ends)
    return figure, data


def _from_macs(ax: Axes, data: pd.DataFrame) -> list[tuple[float, str, str]]:
    known = data[data["from_macs"].notna()]
    if len(known) < 2:
        return []
    ax.plot(known["density"], known["from_macs"], color=GREY, ls="--", lw=1.2)
    return [(known["from_macs"].iloc[-1], "from MACs", GREY)]


def _measured(ax: Axes, data: pd.DataFrame) -> list[tuple[float, str, str]]:
    own = data[data["measured"].notna()]
    if own.empty:
        style.remark(ax, "untimed")
        return []
    look = style.look("coreset")
    ax.plot([1, own["density"].iloc[0]], [1, own["measured"].iloc[0]], color=look["color"])
    bars = style.sides(own, "measured", "low", "high")
    ax.errorbar(own["density"], own["measured"], bars, capsize=3, **look)
    return [(own["measured"].iloc[-1], "measured", look["color"])]


def _times(ax: Axes, top: float) -> None:
    """An axis of speedups; logarithmic where they span much."""
    if top > 4:
        ax.set_yscale("log", base=2)
        ax.set_ylim(0.85, top * 1.2)
        ax.yaxis.set_major_locator(FixedLocator([1, 2, 4, 8, 16]))
        ax.yaxis.set_minor_locator(NullLocator())
    else:
        low = min(0.9, ax.get_ylim()[0])
        ax.set_ylim(low, top + 0.08 * (top - low))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))


def full_model(found: Iterable[Run], findings: Iterable[Finding]) -> Drawn:
    """Attention and feed-forward part pruned alike: score by density, and score against speed."""
    table = frames.cells(frames.select(found, unit="encoder", after="none"))
    table = table[table["arm"].isin(style.METHODS)].reset_index(drop=True)
    if table.empty:
        return style.untested("the full model pruned", table)
    speeds = frames.findings([frames.finding(findings, "coreset.time")])
    speeds = {1.0: 1.0} | dict(zip(speeds["cell"], speeds["measured"], strict=True))
    table["speedup"] = table["budget"].map(speeds).where(table["arm"] == "coreset").astype(float)
    figure, (left, right) = style.canvas(1, 2, height=3.5, sharey=True)
    for arm, own in table.groupby("arm", sort=False):
        own = own.sort_values("budget", ascending=False)
        look = {"capsize": 2, "elinewidth": 1} | style.look(arm)
        left.errorbar(own["budget"], own["score"], style.sides(own, "score"), **look)
        timed = own[own["speedup"].notna()]
        right.errorbar(timed["speedup"], timed["score"], style.sides(timed, "score"), **look)
        for row in timed.itertuples():
            style.note(right, f"{row.budget:g}", (row.speedup, row.score), (6, 4))
    for ax in (left, right):
        ax.axhline(table["dense"].iloc[0], color=INK, lw=1)
    style.densities(left, table["budget"], style.DENSITY["encoder"])
    left.set_ylabel(f"{style.metric(table)} (line: dense)")
    left.set_title("score by density")
    style.lines(left, {}, arms=dict.fromkeys(table["arm"]))
    right.set_title("coreset: score by speed, density at points")
    right.set_xlabel("times as fast as dense")
    if table["speedup"].notna().sum() < 2:
        style.remark(right, "untimed")
    return figure, table


def masks_alone(
    found: Iterable[Run], timed: Iterable[Timing], findings: Iterable[Finding]
) -> Drawn:
    """Speed of one and the same density as zeros in place and as smaller matrices."""
    table = _zeros_and_compact(list(found), timed)
    if table.empty:
        return style.untested("zeros against smaller matrices", table)
    figure, (ax,) = style.canvas(height=0.9 + 0.4 * len(table))
    _bars(ax, table, frames.claim(findings, "coreset.unstructured").stated[""])
    return figure, table


def unstructured(
    found: Iterable[Run], timed: Iterable[Timing], findings: Iterable[Finding]
) -> Drawn:
    """Zeroing single weights: what it costs in score, and what it buys in time."""
    found, findings = list(found), list(findings)
    arms = ("unstructured", "magnitude", "coreset")
    chosen = frames.select(found, arm=list(arms), unit="attention", after=["none", "steps"])
    table = frames.cells(chosen)
    if not (table["arm"] == "unstructured").any():
        return style.untested("unstructured pruning", table)
    figure, (left, right) = style.canvas(1, 2, height=3.5, width_ratios=(1.1, 1))
    left.axhline(0, color=INK, lw=1)
    for (arm, after), own in table.groupby(["arm", "after"], sort=False):
        own = own.sort_values("budget")
        look = {"ls": ":" if after == "steps" else "-", "capsize": 2, "elinewidth": 1}
        bars = style.sides(own, "drop")
        left.errorbar(own["budget"], own["drop"], bars, **look | style.look(arm))
    cells = frames.claim(findings, "coreset.unstructured-sparsity").stated
    left.plot(list(cells), list(cells.values()), **TALK)
    low, high = left.get_ylim()
    left.set_ylim(low - 0.1 * (high - low), high)
    first = next(iter(cells.items()))
    style.note(left, "talk: below, if tuned", (first[0], 0), (4, -4), ha="center", va="top")
    style.densities(left, table["budget"], "share of attention's weights left")
    left.set_ylabel(f"{style.metric(table)} lost")
    left.set_title("score")
    style.lines(left, {"not fine-tuned": "-", "fine-tuned": ":"}, arms=arms)
    speeds = _zeros_and_compact(found, timed)
    right.set_title("speed")
    if speeds.empty:
        style.remark(right, "untimed")
        right.set_axis_off()
    else:
        _bars(right, speeds, frames.claim(findings, "coreset.unstructured").stated[""])
    return figure, pd.concat([table, speeds.rename(columns={"what": "arm"})], ignore_index=True)


ZEROS, COMPACT = "zeros in place", {"attention": "attention, compact", "encoder": "all, compact"}


def _zeros_and_compact(found: list[Run], timed: Iterable[Timing]) -> pd.DataFrame:
    """Speed over dense of a model full of zeros, and of compact ones at the same density."""
    shapes = {
        (run.spec.encoder, shape_key(run.shape)): run.spec
        for run in frames.select(found, arm="coreset", after="none")
        if run.spec.budget < 1
    }
    encoders = list(dict.fromkeys(run.spec.encoder for run in found))
    table = frames.timings(timed)
    table = table[(table["batch"] > 1) & (table["precision"] == "float32")]
    rows = []
    for (encoder, shape, zeroed), own in table.groupby(
        ["encoder", "shape", "zeroed"], sort=False, dropna=False
    ):
        spec = shapes.get((encoder, shape))
        if pd.notna(zeroed):
            what, density = ZEROS, 1 - zeroed
        elif spec:
            what, density = COMPACT[spec.unit], spec.budget
        else:
            continue
        arms = own.drop_duplicates("arm").set_index("arm")
        dense, pruned = arms.loc["dense"], arms.loc["pruned"]
        fast = dense["seconds"] / pruned["seconds"]
        ends = dense["low"] / pruned["high"], dense["high"] / pruned["low"]
        rows.append((encoder, what, round(float(density), 4), fast, *ends))
    columns = ["encoder", "what", "density", "speedup", "low", "high"]
    speeds = pd.DataFrame(rows, columns=columns)
    zeros = set(speeds[speeds["what"] == ZEROS]["density"])
    speeds = speeds[speeds["density"].isin(zeros) & speeds["encoder"].isin(encoders)]
    order = speeds["encoder"].map({encoder: at for at, encoder in enumerate(encoders)})
    return speeds.assign(order=order).sort_values(["order", "speedup"]).drop(columns="order")


def _bars(ax: Axes, table: pd.DataFrame, stated: float) -> None:
    many = table["encoder"].nunique() > 1
    words = [
        (f"{row.encoder}, " if many else "") + f"{row.what} at {row.density:g}"
        for row in table.itertuples()
    ]
    arms = ["unstructured" if what == ZEROS else "coreset" for what in table["what"]]
    bars = style.sides(table, "speedup", "low", "high")
    colours = [style.look(arm)["color"] for arm in arms]
    ax.barh(range(len(table)), table["speedup"], xerr=bars, color=colours, height=0.5)
    for y, row in enumerate(table.itertuples()):
        style.note(ax, f"{row.speedup:.2f}x", (row.high, y), (4, 0), va="center", fontsize=10)
        if row.what == ZEROS:
            ax.plot(stated, y - 0.42, **TALK | {"ms": 6})
            style.note(ax, "talk", (stated, y - 0.42), (8, 0), va="center")
    ax.axvline(1, color=INK, lw=1)
    style.rows(ax, words, top=0.8)
    ax.grid(visible=False)
    ax.set_xlim(0, table["high"].max() * 1.25)
    ax.set_xlabel("times as fast as dense (line)")
