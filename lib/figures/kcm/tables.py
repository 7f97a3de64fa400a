"""What does KCM lose by task and budget, beside what the paper states?"""

from collections.abc import Iterable, Sequence
from itertools import product

import pandas as pd

from lib import study
from lib.claims import Finding
from lib.claims.quantities import QUANTITIES, Estimate, Evidence
from lib.figures import frames
from lib.figures.facts import UNTESTED
from lib.runs import Run

PAPERS = {  # the paper's numbers: claims by arm, without the task; and the mark of each
    "kcm": ("kcm.table", "D"),
    "mask-tuning": ("kcm.mask-tuning", "o"),
    "ffn-both-unscaled": ("kcm.magnitude", "d"),
    "ffn-both": ("kcm.magnitude-scaled", "s"),
    "kcm-r2": ("kcm.r2", "^"),
    "kcm-d2": ("kcm.d2", "v"),
    "ffn-output": ("kcm.output", "P"),
}


def cells(found: Iterable[Run]) -> pd.DataFrame:
    """One row an encoder, task, arm and budget: the score lost, with accuracy in place of F1.

    Only what read its own calibration sample. Columns drop, drop_low, drop_high, dense and runs.
    """
    chosen = frames.select(found, unit="macs", after="none", sees="own")
    groups: dict[tuple, list[Run]] = {}
    for run in chosen:
        place = (run.spec.encoder, run.spec.task, study.arm_of(run.spec), run.spec.budget)
        if not place[2]:
            continue  # another reading of its method: readings.py has those
        groups.setdefault(place, []).append(run)
    rows = []
    for place, runs in groups.items():
        lost = estimate("accuracy-drop", runs)
        score = estimate("accuracy", runs).value
        rows.append((*place, lost.value, lost.low, lost.high, score + lost.value, len(runs)))
    columns = ["encoder", "task", "arm", "budget", "drop", "drop_low", "drop_high", "dense", "runs"]
    return pd.DataFrame(rows, columns=columns)


def estimate(quantity: str, runs: Sequence[Run]) -> Estimate | str:
    """A quantity of these runs alone, no claim beside them."""
    return QUANTITIES[quantity].measure(Evidence("", tuple(runs), (), tuple(runs), ()))


def papers(findings: Iterable[Finding]) -> pd.DataFrame:
    """The paper's drops from its own dense model, one row an arm, task and budget."""
    said = {finding.claim.key: finding.claim for finding in findings}
    rows = [
        (arm, claim.original["task"], budget, claim.dense - score)
        for arm, (stem, _) in PAPERS.items()
        for key, claim in said.items()
        if key == f"{stem}-{claim.original['task']}"
        for budget, score in claim.stated.items()
    ]
    return pd.DataFrame(rows, columns=["arm", "task", "budget", "drop"])


def table(found: Iterable[Run], findings: Iterable[Finding]) -> pd.DataFrame:
    """The claim table: hundredths of the score lost by KCM, by task and budget, and the paper's."""
    own, said = cells(frames.select(found, arm="kcm")), papers(findings)
    said = said[said["arm"] == "kcm"].set_index(["task", "budget"])["drop"]
    measured = {(row.encoder, row.task, row.budget): row for row in own.itertuples()}
    rows: dict[tuple, dict] = {(encoder, task): {} for encoder, task, _ in measured}
    for budget, (place, line) in product(sorted(set(own["budget"]), reverse=True), rows.items()):
        row, stated = measured.get((*place, budget)), said.get((place[1], budget))
        line[f"{budget:.0%}"] = (
            UNTESTED
            if row is None
            else f"{100 * row.drop:.1f} [{100 * row.drop_low:.1f}, {100 * row.drop_high:.1f}]"
        )
        line[f"paper {budget:.0%}"] = "-" if stated is None else f"{100 * stated:.1f}"
    shown = pd.DataFrame(rows.values(), index=pd.MultiIndex.from_tuples(rows) if rows else None)
    shown.index.names = ["encoder", "task"] if rows else [None]
    return shown.reset_index()
