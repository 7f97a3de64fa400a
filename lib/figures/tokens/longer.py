"""Does more training close the gap to the papers?"""

from collections.abc import Iterable

import pandas as pd

from lib import study
from lib.claims import Finding
from lib.figures import frames, style
from lib.figures.style import GREY, INK, TALK, Drawn
from lib.runs import Run

PLACE = ["encoder", "task", "arm", "budget"]


def longer(found: Iterable[Run], findings: Iterable[Finding]) -> Drawn:
    """Score by the steps of training, of what was trained for longer too, each at its paper's work.

    Means over the seeds, bars the 95% intervals of the drop from the dense model (the line).
    Diamonds are the papers' drops, after trainings of thousands of steps.
    """
    table = _by_steps(list(found))
    if table.empty:
        return style.untested("longer training", table)
    figure, (ax,) = style.canvas(height=3.2)
    lengths = sorted(set(table["steps"]))
    paper = len(lengths)  # a place of its own, to the right of what we ran
    told = {
        (one.encoder, one.task, one.claim.select["arm"]): one.claim.stated
        for one in findings
        if (one.claim.figure, one.quantity) == ("tokens-longer", "drop")
    }
    labels = []
    ax.axhline(table["dense"].iloc[0], color=INK, lw=1)
    for number, (place, own) in enumerate(table.groupby(PLACE, sort=False)):
        *where, arm, budget = place
        own = own.sort_values("steps")
        apart = 0.06 * (number - 0.5)
        at = [lengths.index(steps) + apart for steps in own["steps"]]
        bars = style.sides(own, "drop")[::-1]  # a greater drop is a lower score
        ax.errorbar(at, own["score"], yerr=bars, **style.look(arm))
        said = told.get((*where, arm), {}).get(budget)
        if said is not None:
            ax.plot(paper + apart, own["dense"].iloc[0] - said, **TALK)
        words = f"{style.name(arm)}, {budget:g} of the MACs"
        labels.append((own["score"].iloc[-1], words, style.look(arm)["color"]))
    ax.set_xlim(-0.4, paper + 0.4)
    ax.set_xticks([*range(paper), paper], [*map(str, lengths), "the papers"])
    ax.set_xlabel("steps of training, of 32 texts each")
    encoder, task = table[["encoder", "task"]].iloc[0]
    ax.set_title(f"{encoder}, {task} (line: dense)", fontsize=10, color=GREY)
    ax.set_ylabel(style.metric(table))
    style.beside(ax, labels, gap=0.08)
    return figure, table


def _by_steps(found: list[Run]) -> pd.DataFrame:
    """One row a place and number of steps: means over the seeds, the drop with its interval."""
    long = {_place(run) for run in found if study.sees_of(run.spec) == "other"}
    by_steps: dict[int, list[Run]] = {}
    for run in found:
        if "tokens" in run.trace and not run.spec.base and _place(run) in long:
            by_steps.setdefault(run.spec.training["sees"]["steps"], []).append(run)
    tables = [frames.cells(runs).assign(steps=steps) for steps, runs in sorted(by_steps.items())]
    columns = [*PLACE, "metric", "dense", "score", "drop", "drop_low", "drop_high", "runs", "steps"]
    return pd.concat(tables)[columns] if tables else pd.DataFrame(columns=columns)


def _place(run: Run) -> tuple:
    return run.spec.encoder, run.spec.task, study.arm_of(run.spec), run.spec.budget
