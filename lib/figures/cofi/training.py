"""How did training go? Sparsity and score by step; how layers go, whole or unit by unit."""

from collections.abc import Iterable

import pandas as pd
from matplotlib.axes import Axes

from lib import study
from lib.claims import Finding
from lib.claims.quantities import units
from lib.claims.quantities.training import curve
from lib.figures import frames, style
from lib.figures.style import DOTS, INK, TALK, Drawn
from lib.runs import Run

COURSES = ("cofi", "cofi-authors")
MASKED = ("cofi", "cofi-layers", "cofi-hidden", "cofi-fine-wide", "cofi-fine")


def curves(found: Iterable[Run], arms: Iterable[str], size: float) -> pd.DataFrame:
    """One row a check of a training; the score where it was taken, on a piece of train."""
    rows = []
    for run in frames.select(found, arm=list(arms), budget=size):
        scores = dict(run.trace.get("scores", ()))
        place = {"arm": study.arm_of(run.spec), "seed": run.spec.seed}
        told = curve(run)
        steps = {row["step"] for row in told}
        told += [{"step": step} for step in scores if step not in steps]
        rows += [place | row | {"score": scores.get(row["step"])} for row in told]
    columns = ["arm", "seed", "step", "target", "expected", "realised", "score"]
    table = pd.DataFrame(rows)
    return table.reindex(columns=columns).sort_values(["arm", "seed", "step"])


def training(found: Iterable[Run], findings: Iterable[Finding]) -> Drawn:
    """Expected and realised sparsity by step beside the target, and the score meanwhile."""
    found, findings = list(found), list(findings)
    size = min((run.spec.budget for run in frames.select(found, arm="cofi")), default=0.05)
    table = curves(found, COURSES, size)
    if table.empty:
        return style.untested("trainings", table)
    figure, axes = style.canvas(2, 2, height=5.2, sharex="col", sharey="row")
    for column, arm in enumerate(COURSES):
        top, bottom = axes[column], axes[2 + column]
        own = table[table["arm"] == arm]
        top.set_title({"cofi": "our settings", "cofi-authors": "the authors' settings"}[arm])
        bottom.set_xlabel("step of pruning")
        if own.empty:
            style.remark(top, "untested")
            style.remark(bottom, "untested")
            continue
        _sparsity(top, own)
        for seed, mine in own[own["score"].notna()].groupby("seed"):
            bottom.plot(mine["step"], mine["score"], **style.look(arm), label=f"seed {seed}")
        if (dense := _dense(found)) is not None:
            bottom.axhline(dense, color=INK, lw=1)
    top = axes[0]
    last = table["step"].max()
    top.plot(last, 1 - size, clip_on=False, **TALK)
    style.note(top, "talk: meets its target", (last, 1 - size), (-6, -16), ha="right")
    axes[0].set_ylabel("sparsity of the layers")
    axes[2].set_ylabel("score on a piece of train\n(line: the dense model's)")
    axes[0].legend(loc="lower right", bbox_to_anchor=(1, 0.12))
    return figure, table


def _sparsity(ax: Axes, own: pd.DataFrame) -> None:
    kinds = {"expected": ("#0072b2", "-"), "realised": ("#d55e00", "--")}
    known = own[own["target"].notna()]
    for seed, mine in known.groupby("seed"):
        first = seed == known["seed"].min()
        for name, (colour, line) in kinds.items():
            words = name if first else None
            width = 1.6 if first else 0.7
            ax.plot(mine["step"], mine[name], color=colour, ls=line, lw=width, label=words)
        if first:
            ax.plot(mine["step"], mine["target"], color=INK, ls=DOTS, lw=1.2, label="target")
    ax.set_ylim(0, 1.04)


def _dense(found: Iterable[Run]) -> float | None:
    """The teacher's best score on the selection split, of which `scores` are on a piece."""
    taught = frames.select(found, method="cofi")[0].provenance.get("teacher", {})
    return max((score for _, score in taught.get("selection", ())), default=None)


def heads(found: Iterable[Run], findings: Iterable[Finding]) -> Drawn:
    """Are layers removed where only heads and neurons can be? Score by step, and layers gone."""
    found = list(found)
    size = min((run.spec.budget for run in frames.select(found, arm="cofi")), default=0.05)
    chosen = frames.select(found, arm=list(MASKED), budget=size)
    gone = _gone(chosen)
    if gone.empty:
        return style.untested("layers that went", gone)
    arms = [arm for arm in MASKED if arm in set(gone["arm"])]
    figure, (left, right) = style.canvas(1, 2, height=3.6, width_ratios=(1, 1.1))
    for at, (part, colour) in enumerate(PARTS.items()):
        mean = gone.groupby("arm")[part].mean()
        places = [number + (at - 0.5) * 0.32 for number in range(len(arms))]
        left.barh(places, [mean[arm] for arm in arms], height=0.3, color=colour, label=part)
        for place, arm in zip(places, arms, strict=True):
            spots = gone[gone["arm"] == arm][part]
            left.plot(spots, [place] * len(spots), color=INK, marker="o", ms=2.5, ls="")
    style.rows(left, [WORDS.get(arm, style.name(arm)) for arm in arms], top=0.7)
    left.grid(visible=False)
    left.set_xlim(0, 1)
    left.set_xlabel("share of the layers")
    left.set_title("went whole")
    left.legend(loc="lower right")
    told = curves(chosen, ("cofi", "cofi-fine-wide"), size)
    told = told[told["score"].notna()]
    for arm, own in told.groupby("arm", sort=False):
        mean = own.groupby("step")["score"].mean()
        right.plot(mean.index, mean, label=WORDS.get(arm, style.name(arm)), **style.look(arm))
    right.set_xlabel("step of pruning")
    right.set_ylabel("score on a piece of train")
    right.set_title("score as the sparsity rises")
    if told.empty:
        style.remark(right, "untested")
    else:
        right.legend(loc="lower left")
    return figure, gone


WORDS = {"cofi": "all masks", "cofi-fine": "heads + neurons,\nas published"}
PARTS = {"attention": style.PARTS["attention"], "feed-forward": style.PARTS["feed-forward"]}


def _gone(found: Iterable[Run]) -> pd.DataFrame:
    rows = []
    for run in found:
        row = {"arm": study.arm_of(run.spec), "seed": run.spec.seed}
        for part in PARTS:
            kept = units(run, part)
            row[part] = sum(count == 0 for count in kept) / len(kept)
        rows.append(row)
    return pd.DataFrame(rows, columns=["arm", "seed", *PARTS])
