"""Which reading of what paper and talk leave open comes nearest the paper's number?"""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from lib.claims import Finding
from lib.figures import frames, style
from lib.figures.kcm import tables
from lib.figures.style import GREY, TALK, Drawn
from lib.runs import Run
from lib.study.arms import own_sees

OWN = {"activation": "abs", "normaliser": "l2", "kernel": "2s2", "stop": "signed", "guide": "sqrt"}
STATISTIC = {"abs": "mean |h|", "mean": "mean h", "rms": "rms h"}
REST = {
    ("kernel", "s2"): "wider exponent in the kernel",
    ("stop", "abs"): "stop rule with absolute values",
    ("guide", "dense"): "scaled after the dense model",
}


def table(found: Iterable[Run], findings: Iterable[Finding]) -> pd.DataFrame:
    """A row an encoder and reading: the score lost, its interval, and the paper's loss."""
    said = tables.papers(findings)
    rows = []
    for run in frames.select(found, method="kcm", unit="macs", after="none", seed=0):
        spec = run.spec
        if set(spec.options) - set(OWN) or spec.training["sees"] not in own_sees("kcm"):
            continue  # a part of KCM, or another sample
        lost = tables.estimate("accuracy-drop", [run])
        stated = said[
            (said["arm"] == "kcm") & (said["task"] == spec.task) & (said["budget"] == spec.budget)
        ]["drop"]
        paper = float(stated.iloc[0]) if len(stated) else float("nan")
        place = (spec.encoder, spec.task, spec.budget, name(spec.options), not spec.options)
        rows.append((*place, lost.value, lost.low, lost.high, paper))
    columns = ["encoder", "task", "budget", "reading", "own", "drop", "low", "high", "paper"]
    return pd.DataFrame(rows, columns=columns)


def name(options: dict[str, Any]) -> str:
    """A reading in words: what differs from ours."""
    given = OWN | options
    words = f"{STATISTIC[given['activation']]}, {given['normaliser']}"
    rest = [text for (key, value), text in REST.items() if options.get(key) == value]
    return rest[0] if rest else words


def readings(found: Iterable[Run], findings: Iterable[Finding], budget: float) -> Drawn:
    """The score lost by every reading that was run, an axis an encoder, least lost on top."""
    data = table(found, findings)
    counts = data.groupby(["encoder", "task"])["reading"].transform("nunique")
    data = data[(data["budget"] == budget) & (counts > 1)].reset_index(drop=True)
    if data.empty:
        return style.untested("readings of KCM", data)
    places = list(dict.fromkeys(zip(data["encoder"], data["task"], strict=True)))
    order = data.groupby("reading", sort=False)["drop"].mean().sort_values(kind="stable")
    names = list(order.index)
    figure, axes = style.canvas(
        1, len(places), height=1.3 + 0.24 * len(names), sharex=True, sharey=True
    )
    for ax, (encoder, task) in zip(axes, places, strict=True):
        own = data[(data["encoder"] == encoder) & (data["task"] == task)]
        for row in own.itertuples():
            colour = style.look("kcm")["color"] if row.own else GREY
            bars = [[row.drop - row.low], [row.high - row.drop]]
            at = names.index(row.reading)
            ax.errorbar(row.drop, at, xerr=bars, ls="", marker="o", color=colour, elinewidth=1.3)
        if own["paper"].notna().any():
            ax.axvline(own["paper"].iloc[0], color=GREY, lw=1, ls=style.DOTS)
            ax.plot(own["paper"].iloc[0], -0.9, **TALK | {"ms": 6})
        ax.set_title(f"{encoder}, {task}")
    style.rows(axes[0], names, top=0.9)
    for label, reading in zip(axes[0].get_yticklabels(), names, strict=True):
        if data.loc[data["reading"] == reading, "own"].any():
            label.set_color(style.look("kcm")["color"])
    figure.supxlabel(
        f"score lost at {budget:.0%} of the MACs (blue: ours; hollow: the paper's, on BERT-base)",
        fontsize=10,
    )
    return figure, data
