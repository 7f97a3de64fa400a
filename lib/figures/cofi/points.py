"""How good, how small and how fast is each arm at each size, on each encoder and task?"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lib import study
from lib.claims import Finding
from lib.claims.cells import timings_of
from lib.claims.quantities import QUANTITIES, Estimate, Evidence, sparsity
from lib.figures import frames
from lib.runs import Run, Timing
from lib.study.chapters.cofi import SHORT, main

MEASURES = ("score", "drop", "share")
PLACE = ("encoder", "task", "arm", "size")


def here(p: study.Profile) -> study.Profile:
    """The profile with the chapter's own encoder and task, and only its name for facts."""
    pair = main(p)
    return (
        study.profile(p, encoder=pair.encoder, task=pair.task) if pair.encoder != p.encoder else p
    )


def own(p: study.Profile, found: Iterable[Run], same_task: bool = False) -> list[Run]:
    """The runs of the chapter's own encoder; with `same_task` of its own task alone."""
    pair = main(p)
    place = {"encoder": pair.encoder} | ({"task": pair.task} if same_task else {})
    return frames.select(found, **place)


def points(
    found: Iterable[Run], timed: Iterable[Timing], protocol: Mapping[str, Any] = SHORT
) -> pd.DataFrame:
    """Scores, sizes and speeds with their intervals, means over seeds; by falling size.

    Dense models are those that were not fine-tuned again; all others were.
    """
    groups: dict[tuple, list[Run]] = {}
    for run in found:
        tuned = study.after_of(run.spec) != "none"
        if tuned != (run.spec.method == "dense"):
            place = (run.spec.encoder, run.spec.task, study.arm_of(run.spec), run.spec.budget)
            groups.setdefault(place, []).append(run)
    timed, rows = list(timed), []
    for place, runs in groups.items():
        near = timings_of(timed, place[0], {k: v for k, v in protocol.items() if k != "padding"})
        evidence = Evidence("", tuple(runs), (), tuple(runs), near)
        row = dict(zip(PLACE, place, strict=True)) | {"metric": runs[0].per_example["metric"]}
        for name in MEASURES:
            row |= _named(name, QUANTITIES[name].measure(evidence))
        row |= _named("speed", _speed(evidence))
        rows.append(row | _sizes(runs))
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.sort_values("size", ascending=False, kind="stable").reset_index(drop=True)


def _speed(evidence: Evidence) -> Estimate | str:
    if evidence.runs[0].spec.method == "dense":
        return Estimate(1.0, 1.0, 1.0, 1) if evidence.timings else "untimed"
    return QUANTITIES["speedup"].measure(evidence)


def _named(name: str, found: Estimate | str) -> dict[str, float]:
    if isinstance(found, str):
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), np.nan)
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def _sizes(runs: Sequence[Run]) -> dict[str, float]:
    return {
        "sparsity": float(np.mean([sparsity(run) for run in runs])),
        "model": float(np.mean([run.kept["model"] for run in runs])),
        "macs": float(np.mean([run.kept["macs"] for run in runs])),
        "parameters": float(np.mean([run.pruned["encoder_params"] for run in runs])),
        "runs": len(runs),
    }


COLUMNS = [
    *PLACE,
    "metric",
    *(name + end for name in (*MEASURES, "speed") for end in ("", "_low", "_high")),
    *("sparsity", "model", "macs", "parameters", "runs"),
]


def table(found: Iterable[Run], timed: Iterable[Timing]) -> pd.DataFrame:
    """Every arm as people read it: what was asked for, what came, and runs that missed it."""
    found = list(found)
    rows = points(found, timed)
    missed = _missed(found)
    shown = {
        "encoder": rows["encoder"],
        "task": rows["task"],
        "arm": rows["arm"].map(frames.ARM_WORDS),
        "budget": rows["size"],
        "sparsity": rows["sparsity"].map("{:.3f}".format),
        "score": rows["score"].map("{:.4f}".format),
        "lost": _words(rows, "drop", 100),
        "times as fast": _words(rows, "speed", 1),
        "runs": rows["runs"],
        "missed": [missed.get(tuple(row), 0) for row in rows[list(PLACE)].to_numpy()],
    }
    return pd.DataFrame(shown)


def _missed(found: Iterable[Run]) -> dict[tuple, int]:
    """How many runs of each place fell short of the sparsity that was asked for."""
    counts: dict[tuple, int] = {}
    for run in found:
        place = (run.spec.encoder, run.spec.task, study.arm_of(run.spec), run.spec.budget)
        counts[place] = counts.get(place, 0) + ("missed" in run.trace)
    return counts


def _words(rows: pd.DataFrame, column: str, times: int) -> list[str]:
    return [
        "-" if np.isnan(value) else f"{times * value:.1f} [{times * low:.1f}, {times * high:.1f}]"
        for value, low, high in rows[[column, f"{column}_low", f"{column}_high"]].to_numpy(float)
    ]


def stated(findings: Iterable[Finding], key: str) -> dict[Any, float]:
    """What a talk states of a claim, by cell."""
    return frames.claim(findings, key).stated
