"""What does it cost to make such a model? Hours of ours beside those of the talk."""

from collections.abc import Iterable

import pandas as pd

from lib.claims import Finding
from lib.figures import frames, style
from lib.figures.cofi.points import stated
from lib.figures.style import TALK, Drawn
from lib.runs import Run

PHASES = {  # of a run's seconds: (words, colour)
    "teacher": ("teacher", "#b0b0b0"),
    "prune": ("pruning", "#0072b2"),
    "finetune": ("fine-tuning after", "#e69f00"),
}
GENERAL = 350  # hours of TinyBERT's general distillation, from the authors' talk


def cost(found: Iterable[Run], findings: Iterable[Finding]) -> Drawn:
    """Left, minutes by phase at the smallest size; right, all of it beside the talk's hours."""
    table = _hours(frames.select(found, arm="cofi"))
    if table.empty:
        return style.untested("hours of compute", table)
    mean = table.groupby(["encoder", "task"], sort=False)[list(PHASES)].mean()
    names = [f"{task}, {encoder}" for encoder, task in mean.index]
    figure, (left, right) = style.canvas(
        1, 2, height=1.5 + 0.34 * max(len(names), 3), width_ratios=(1.5, 1)
    )
    before = 0 * mean["teacher"]
    for phase, (words, colour) in PHASES.items():
        places = range(len(names))
        left.barh(places, 60 * mean[phase], left=60 * before, height=0.6, color=colour, label=words)
        before = before + mean[phase]
    style.rows(left, names, top=0.7)
    left.grid(visible=False)
    left.set_xlabel("minutes")
    left.set_title("ours, mean over seeds")
    hours = {
        "ours, the longest": before.max(),
        "CoFi, paper": stated(findings, "cofi.cost")[0.05],
        "TinyBERT": GENERAL,
    }
    for y, (words, value) in enumerate(hours.items()):
        mark = {"color": "#0072b2", "marker": "o"} if words.startswith("ours") else TALK
        right.plot(value, y, **mark)
        text = f"{value:.2g} h" if words.startswith("ours") else f"{value:g} h"
        text = f"talk: {text}" if words == "TinyBERT" else text
        style.note(right, text, (value, y), (0, 8), ha="center")
    right.set_xscale("log")
    right.set_xlim(before.max() / 6, 8 * GENERAL)
    style.rows(right, hours, top=0.8)
    right.set_xlabel("hours")
    right.set_title("all of it")
    style.key(figure, dict(PHASES.values()))
    return figure, table


def _hours(found: Iterable[Run]) -> pd.DataFrame:
    """One row a run at the smallest size: hours by phase, and the machine."""
    found = list(found)
    size = min((run.spec.budget for run in found), default=None)
    rows = [
        {"encoder": run.spec.encoder, "task": run.spec.task, "seed": run.spec.seed}
        | {phase: run.seconds.get(phase, 0.0) / 3600 for phase in PHASES}
        | {"device": run.provenance.get("device", ""), "threads": run.provenance.get("threads")}
        for run in found
        if run.spec.budget == size
    ]
    return pd.DataFrame(rows)
