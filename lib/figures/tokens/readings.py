"""Do other readings of a paper or its code do better?"""

from collections.abc import Iterable

import pandas as pd

from lib import study
from lib.figures import frames, style
from lib.figures.style import GREY, INK, Drawn
from lib.runs import Run

OTHERS = {"top-released": "top", "ltp-rising": "ltp"}  # a reading: the study's own


def readings(found: Iterable[Run]) -> Drawn:
    """Score by the work that is left, of both readings of a method (the other one dashed).

    Means over the seeds, bars the 95% intervals of the drop from the dense model (the line).
    """
    table = frames.cells(_both(list(found)))
    if table.empty:
        return style.untested("other readings", table)
    arms = [arm for pair in OTHERS.items() for arm in pair[::-1] if arm in set(table["arm"])]
    figure, (ax,) = style.canvas(height=3.6)
    ax.axhline(table["dense"].iloc[0], color=INK, lw=1)
    labels = []
    for number, arm in enumerate(arms):
        own = table[table["arm"] == arm].sort_values("budget", ascending=False)
        look = style.look(arm) | {"ls": "--" if arm in OTHERS else "-"}
        at = own["budget"] + 0.004 * (number - 1.5)
        ax.errorbar(at, own["score"], yerr=style.sides(own, "drop")[::-1], **look)
        labels.append((own["score"].iloc[-1], style.name(arm), look["color"]))
    budgets = sorted(set(table["budget"]), reverse=True)
    ax.set_xticks(budgets, [f"{budget:g}" for budget in budgets])
    ax.set_xlim(max(budgets) + 0.03, min(budgets) - 0.03)
    ax.set_xlabel("share of the executed MACs that is left")
    encoder, task = table[["encoder", "task"]].iloc[0]
    ax.set_title(f"{encoder}, {task} (line: dense)", fontsize=10, color=GREY)
    ax.set_ylabel(style.metric(table))
    style.beside(ax, labels, gap=0.08)
    columns = ["encoder", "task", "arm", "budget", "metric", "dense", "score"]
    return figure, pd.DataFrame(table[[*columns, "drop", "drop_low", "drop_high", "runs"]])


def _both(found: list[Run]) -> list[Run]:
    """The runs of other readings, and those of the study's own at the same place and work."""
    plain = [run for run in found if not run.spec.base and study.sees_of(run.spec) == "own"]
    places = {
        (OTHERS[arm], run.spec.encoder, run.spec.task, run.spec.budget)
        for run in plain
        if (arm := study.arm_of(run.spec)) in OTHERS
    }

    def place(run: Run) -> tuple:
        arm = study.arm_of(run.spec)
        return OTHERS.get(arm, arm), run.spec.encoder, run.spec.task, run.spec.budget

    return [run for run in plain if place(run) in places]
