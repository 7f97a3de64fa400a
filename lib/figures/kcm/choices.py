"""Which reading of what paper and talk leave open comes nearest the paper's numbers?

Two of its numbers can say: the score lost, and how many filters each layer of BERT-base loses. The
counts belong to BERT-base's weights, so on another encoder they decide nothing.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy import stats

from lib.claims import Finding
from lib.figures import frames, style
from lib.figures.facts import UNTESTED
from lib.figures.kcm import tables
from lib.figures.kcm.layers import shares
from lib.figures.style import GREY, TALK, Drawn
from lib.runs import Run
from lib.study.arms import own_sees

PAPERS = "bert-base-uncased"  # whose weights the paper's counts belong to
OWN = {"activation": "abs", "normaliser": "l2", "kernel": "2s2", "stop": "signed", "guide": "sqrt"}
OWN |= {"heads": False}
STATISTIC = {"abs": "mean |h|", "mean": "mean h", "rms": "rms h"}
REST = {
    ("kernel", "s2"): "narrower kernel",
    ("stop", "abs"): "stop rule with absolute values",
    ("stop", "l1"): "stop rule with the l1 norm",
    ("guide", "dense"): "scaled after the dense model",
    ("heads", True): "heads scaled too",
}


def table(found: Iterable[Run], findings: Iterable[Finding]) -> pd.DataFrame:
    """A row an encoder and reading: the score lost, its interval, and the paper's loss.

    `off` is the mean over layers of |share of filters kept less the paper's|, `rank` Spearman's
    correlation of the two; NaN where the paper has no counts, or an encoder of other depth.
    """
    findings = list(findings)
    said, counts = tables.papers(findings), frames.claim(findings, "kcm.fingerprint").reference
    rows = []
    for run in frames.select(found, method="kcm", unit="macs", after="none", seed=0):
        spec = run.spec
        if set(spec.options) - set(OWN) or spec.training["sees"] not in own_sees("kcm", spec.task):
            continue  # a part of KCM, or another sample
        lost = tables.estimate("accuracy-drop", [run])
        stated = said[
            (said["arm"] == "kcm") & (said["task"] == spec.task) & (said["budget"] == spec.budget)
        ]["drop"]
        paper = float(stated.iloc[0]) if len(stated) else float("nan")
        place = (spec.encoder, spec.task, spec.budget, name(spec.options), not spec.options)
        prints = fingerprint(run, counts.get(spec.task))
        rows.append((*place, lost.value, lost.low, lost.high, paper, *prints))
    columns = ["encoder", "task", "budget", "reading", "own", "drop", "low", "high", "paper"]
    return pd.DataFrame(rows, columns=[*columns, "off", "rank"])


def fingerprint(run: Run, counts: Iterable[float] | None) -> tuple[float, float]:
    """How far a run's shares of filters kept lie from the paper's, and their rank correlation."""
    ours, told = np.array(shares(run)), np.array([1 - count / 3072 for count in counts or ()])
    if len(ours) != len(told):
        return float("nan"), float("nan")
    flat = np.ptp(ours) == 0  # nothing to put in order
    rank = float("nan") if flat else float(stats.spearmanr(ours, told).statistic)
    return float(np.abs(ours - told).mean()), rank


def name(options: dict[str, Any]) -> str:
    """A reading in words: what differs from ours."""
    given = OWN | options
    words = f"{STATISTIC[given['activation']]}, {given['normaliser']}"
    rest = [text for (key, value), text in REST.items() if options.get(key) == value]
    return rest[0] if rest else words


def nearest(
    found: Iterable[Run], findings: Iterable[Finding], encoder: str, task: str, budget: float
) -> dict[str, str]:
    """Which reading comes nearest the paper's loss, and which its counts by layer, in words."""
    data = table(found, findings)
    data = data[(data["encoder"] == encoder) & (data["task"] == task) & (data["budget"] == budget)]
    words = {"nearest-reading": UNTESTED, "nearest-counts": UNTESTED}
    if data["reading"].nunique() < 2:
        return words
    words["nearest-reading"] = f"none: the paper has no loss on {task}"
    if data["paper"].notna().any():
        row = data.loc[(data["drop"] - data["paper"]).abs().idxmin()]
        lost, paper = 100 * row["drop"], 100 * row["paper"]
        words["nearest-reading"] = f"{row['reading']} (loses {lost:.1f}, the paper {paper:.1f})"
    if data["off"].isna().all():
        words["nearest-counts"] = f"none: no counts of the paper fit {encoder} on {task}"
        return words
    row = data.loc[data["off"].idxmin()]
    words["nearest-counts"] = (
        f"{row['reading']} (off by {row['off']:.2f} of a layer's filters, "
        f"rank correlation {row['rank']:+.2f})"
    )
    if encoder != PAPERS:
        words["nearest-counts"] += f", which decides nothing: the counts are {PAPERS}'s"
    return words


def readings(found: Iterable[Run], findings: Iterable[Finding], budget: float) -> Drawn:
    """Every reading that was run, an axis an encoder and task, least lost on top: the score lost,
    and below it how far the filters kept by layer are from the paper's counts."""
    data = table(found, findings)
    counts = data.groupby(["encoder", "task"])["reading"].transform("nunique")
    data = data[(data["budget"] == budget) & (counts > 1)].reset_index(drop=True)
    if data.empty:
        return style.untested("readings of KCM", data)
    places = list(dict.fromkeys(zip(data["encoder"], data["task"], strict=True)))
    order = data.groupby("reading", sort=False)["drop"].mean().sort_values(kind="stable")
    names = list(order.index)
    figure, axes = style.canvas(
        2, len(places), height=2.4 + 0.48 * len(names), sharex="row", sharey=True
    )
    above, below = axes[: len(places)], axes[len(places) :]
    for ax, under, (encoder, task) in zip(above, below, places, strict=True):
        own = data[(data["encoder"] == encoder) & (data["task"] == task)]
        _lost(ax, own, names)
        _counts(under, own, names)
        ax.set_title(f"{encoder}, {task}")
    if data["off"].notna().any():
        below[0].set_xlim(0, 1.35 * data["off"].max())  # room for the numbers
    for ax in (above[0], below[0]):
        style.rows(ax, names, top=1.3)
        for label, reading in zip(ax.get_yticklabels(), names, strict=True):
            if data.loc[data["reading"] == reading, "own"].any():
                label.set_color(style.look("kcm")["color"])
    above[0].set_xlabel(f"score lost at {budget:.0%} of the MACs")
    below[0].set_xlabel("share of filters by which a layer\nis off the paper's, mean of layers")
    figure.supxlabel(
        "blue: ours; hollow: the paper's, on BERT-base; numbers: rank correlation with its\n"
        f"counts, which belong to {PAPERS} and decide on no other encoder",
        fontsize=10,
    )
    return figure, data


def _lost(ax: Axes, own: pd.DataFrame, names: list[str]) -> None:
    for row in own.itertuples():
        bars = [[row.drop - row.low], [row.high - row.drop]]
        at = names.index(row.reading)
        ax.errorbar(row.drop, at, xerr=bars, ls="", marker="o", color=_shade(row), elinewidth=1.3)
    if own["paper"].notna().any():
        ax.axvline(own["paper"].iloc[0], color=GREY, lw=1, ls=style.DOTS)
        ax.plot(own["paper"].iloc[0], -0.9, **TALK | {"ms": 6})


def _counts(ax: Axes, own: pd.DataFrame, names: list[str]) -> None:
    own = own[own["off"].notna()]
    if own.empty:
        style.remark(ax, "no counts of the paper fit:\ncannot decide")
        return
    for row in own.itertuples():
        at = names.index(row.reading)
        ax.plot(row.off, at, ls="", marker="o", color=_shade(row))
        if not np.isnan(row.rank):
            style.note(ax, f"{row.rank:+.2f}", (row.off, at), (7, 0), va="center")


def _shade(row: Any) -> str:
    return style.look("kcm")["color"] if row.own else GREY
