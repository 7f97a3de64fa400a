"""What does KCM ask for, in sentences and seconds, and what does it give in speed?"""

from collections.abc import Iterable
from itertools import cycle

import numpy as np
import pandas as pd

from lib import study
from lib.claims import Finding
from lib.claims.cells import timings_of
from lib.claims.quantities import QUANTITIES, Evidence
from lib.figures import frames, style
from lib.figures.kcm import tables
from lib.figures.style import DOTS, FAINT, GREY, INK, TALK, Drawn
from lib.runs import Run, Timing
from lib.study.chapters.kcm import TIMED

MARKERS = "osv^hD<>PX*dp8H"  # phases are more than hues: each has a mark of its own


def samples(found: Iterable[Run], budget: float) -> Drawn:
    """What KCM loses by the size of its calibration sample, and with another task's sentences."""
    chosen = frames.select(found, arm="kcm", unit="macs", after="none", budget=budget)
    groups: dict[tuple, list[Run]] = {}
    for run in chosen:
        sees = run.spec.training["sees"]
        groups.setdefault((sees["examples"], sees.get("task", run.spec.task)), []).append(run)
    rows = []
    for (size, source), runs in sorted(groups.items(), key=str):
        lost = tables.estimate("drop", runs)
        rows.append((size, source, lost.value, lost.low, lost.high, len(runs)))
    columns = ["sentences", "of", "drop", "drop_low", "drop_high", "runs"]
    data = pd.DataFrame(rows, columns=columns).sort_values(["of", "sentences"])
    if data.empty:
        return style.untested("calibration samples", data)
    figure, (ax,) = style.canvas(height=3.2)
    own = chosen[0].spec.task
    ends = []
    for at, (source, part) in enumerate(data.groupby("of", sort=False)):
        colour, marker = style.SEVERAL[0 if source == own else 1 + at % 3]
        look = {"color": colour, "marker": marker, "ls": "-" if source == own else ""}
        shift = 1 if source == own else 1.05
        ax.errorbar(part["sentences"] * shift, part["drop"], style.sides(part, "drop"), **look)
        ends.append((part["drop"].iloc[-1], f"sentences of {source}", colour))
    ax.axhline(0, color=INK, lw=1)
    sizes_ = sorted(set(data["sentences"]))
    ax.set_xscale("log", base=2)
    ax.set_xticks(sizes_, [str(size) for size in sizes_])
    ax.minorticks_off()
    ax.set_xlabel("calibration sentences")
    ax.set_ylabel(f"{style.metric(frames.runs(chosen))} lost")
    style.beside(ax, ends, gap=0.09)
    return figure, data


CLOCKED = (
    *("kcm", "kcm-unscaled", "kcm-refit", "kcm-512", "kcm-1k"),
    *("ffn-w2", "flap", "mask-tuning", "k-prune", "taylor-steps", "taylor-apart"),
)


def seconds(found: Iterable[Run], findings: Iterable[Finding], task: str) -> Drawn:
    """Seconds from the dense model to the smaller one on one task, by phase; the talk's minutes."""
    place = {"unit": "macs", "after": "none", "sees": "own", "budget": 0.6, "task": task}
    rows = []
    for run in frames.select(found, arm=list(CLOCKED), **place):
        place = (run.spec.encoder, run.spec.task, study.arm_of(run.spec), run.spec.seed)
        phases = {"score": run.seconds.get("score", 0.0), "prune": run.seconds.get("prune", 0.0)}
        rows.append((*place, "all", sum(phases.values())))
        rows += [(*place, phase, spent) for phase, spent in run.trace.get("seconds", {}).items()]
    data = pd.DataFrame(rows, columns=["encoder", "task", "arm", "seed", "phase", "seconds"])
    if data.empty:
        return style.untested("seconds of pruning", data)
    own = data.groupby(["encoder", "arm", "phase"], sort=False)["seconds"].median().reset_index()
    rows_ = list(dict.fromkeys(zip(own["encoder"], own["arm"], strict=True)))
    rows_.sort(key=lambda row: row[0])
    phases = [phase for phase in dict.fromkeys(own["phase"]) if phase != "all"]
    colours = cycle(colour for colour, _ in style.SEVERAL)
    looks = dict(zip(phases, zip(colours, MARKERS, strict=False), strict=False))
    figure, (ax,) = style.canvas(height=1.5 + 0.22 * len(rows_))
    for row in own[own["seconds"] > 0].itertuples():
        at = rows_.index((row.encoder, row.arm))
        if row.phase == "all":
            ax.plot([row.seconds] * 2, [at - 0.36, at + 0.36], color=INK, lw=2)
        else:
            colour, marker = looks[row.phase]
            ax.plot(row.seconds, at, color=colour, marker=marker, ls="", ms=5)
    claim = frames.claim(findings, "kcm.minutes")
    bound = next(iter(claim.stated.values()))
    ax.axvline(bound, color=INK, lw=1, ls=DOTS)
    ax.set_xscale("log")
    style.rows(ax, [f"{encoder}: {style.name(arm)}" for encoder, arm in rows_], top=1.4)
    ax.plot(bound, -0.9, **TALK | {"ms": 6})
    ax.annotate(
        "talk: below",
        (bound, -0.9),
        xytext=(-8, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        fontsize=9,
    )
    ax.set_xlabel(f"seconds on {task} (bar: from the dense model to the smaller one)")
    style.markers(figure, looks, place="upper")
    return figure, data


def speed(found: Iterable[Run], findings: Iterable[Finding], timed: Iterable[Timing]) -> Drawn:
    """Times as fast as our own dense model at 60% of the MACs; the talk's and the paper's."""
    findings, timed = list(findings), list(timed)
    claim, paper = (frames.claim(findings, f"kcm.speed{end}") for end in ("", "-paper"))
    groups: dict[tuple, list[Run]] = {}
    chosen = frames.select(
        found, arm=list(TIMED), unit="macs", after="none", sees="own", budget=0.6
    )
    for run in chosen:
        place = (run.spec.encoder, run.spec.task, study.arm_of(run.spec))
        groups.setdefault(place, []).append(run)
    rows, seen = [], set()
    for place, runs in groups.items():
        if place[2] != "kcm" and (place[0], place[2]) in seen:
            continue  # of the others one task an encoder will do
        seen.add((place[0], place[2]))
        near = timings_of(timed, place[0], claim.protocol)
        estimate = QUANTITIES["speedup"].measure(Evidence(0.6, tuple(runs), (), tuple(runs), near))
        if not isinstance(estimate, str):
            rows.append((*place, estimate.value, estimate.low, estimate.high, estimate.n))
    columns = ["encoder", "task", "arm", "speedup", "speedup_low", "speedup_high", "rounds"]
    data = pd.DataFrame(rows, columns=columns)
    if data.empty:
        return style.untested("speed at 60% of the MACs", data)
    figure, (ax,) = style.canvas(height=1.7 + 0.24 * len(data))
    stated, told = claim.stated[0.6], paper.stated[0.6]
    ax.axvspan(told - 0.075, told + 0.075, color=FAINT, lw=0)
    ax.axvline(1, color=INK, lw=1)
    ax.axvline(1 / 0.6, color=GREY, lw=1, ls="--")
    for at, row in enumerate(data.itertuples()):
        bars = [[row.speedup - row.speedup_low], [row.speedup_high - row.speedup]]
        ax.errorbar(row.speedup, at, xerr=np.clip(bars, 0, None), ls="", **style.look(row.arm))
    words = [f"{row.encoder}, {row.task}: {style.name(row.arm)}" for row in data.itertuples()]
    style.rows(ax, words, top=1.6)
    ax.plot(stated, -1, **TALK | {"ms": 6})
    style.note(ax, "talk", (stated, -1), (8, 0), va="center")
    style.note(ax, "paper", (told, -1), (0, 0), va="center", ha="center")
    style.note(ax, "ideal", (1 / 0.6, -1), (4, 0), va="center", color=GREY)
    ax.set_xlim(min(0.9, data["speedup_low"].min()), max(2.1, data["speedup_high"].max()))
    ax.set_xlabel("times as fast as dense (32 sentences of 32 tokens)")
    return figure, data
