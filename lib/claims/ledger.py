"""Which claims held? Every finding of a profile, and their table."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from lib import study
from lib.claims.claim import Finding
from lib.claims.judging import judge
from lib.claims.quantities import QUANTITIES
from lib.claims.reading import load

COLUMNS = (
    "key",
    "encoder",
    "task",
    "stated",
    "measured",
    "low",
    "high",
    "n",
    "fidelity",
    "verdict",
)


def findings(
    name: str | study.Profile, chapters: Iterable[str] | None = None, **overrides: Any
) -> list[Finding]:
    """What the store of a profile says of every claim, one finding an encoder and task.

    Works on a store that is filled in part: what is missing is untested, and the note says so.
    `overrides` are those of `study.profile`.
    """
    p = study.profile(name, **overrides)
    wanted = [claim for claim in load() if chapters is None or claim.chapter in set(chapters)]
    used = dict.fromkeys(claim.chapter for claim in wanted)
    specs = {chapter: study.specs(chapter, p) for chapter in used}
    store = p.store
    asked = dict.fromkeys(spec for part in specs.values() for spec in part)
    runs = {spec: store.get(spec) for spec in asked if store.has(spec)}
    timings = store.timings()
    why = {cell.spec: cell.why for cell in study.cells(p, tuple(specs)) if cell.why}
    why |= study.excused(p, used)
    probes = {
        chapter: {
            question: store.probe(question) if store.answers(question) else None
            for question in study.questions(chapter, p)
        }
        for chapter in used
    }
    return [
        finding
        for claim in wanted
        for finding in judge(
            claim, p, specs[claim.chapter], runs, timings, why, probes[claim.chapter]
        )
    ]


def table(found: Iterable[Finding]) -> pd.DataFrame:
    """The ledger, one row a stated number: COLUMNS.

    A claim of several cells has a row of its own with its verdict and the number of runs, then
    one a cell, named key@cell. `n` counts runs; where time is measured, rounds.
    """
    return pd.DataFrame([row for finding in found for row in _rows(finding)], columns=COLUMNS)


def counted(finding: Finding) -> int:
    """How many runs a finding rests on; where time is measured, rounds."""
    counts = [cell.n for cell in finding.cells]  # cells of one shape rest on the same runs
    by_budget = finding.cells and QUANTITIES[finding.quantity].by == "budget"
    return sum(counts) if by_budget else max(counts, default=0)


def _rows(finding: Finding) -> list[tuple]:
    place = (finding.encoder, finding.task)
    key, cells = finding.claim.key, finding.cells
    if len(cells) != 1:
        blank = (None,) * 4
        head = [(key, *place, *blank, counted(finding), finding.fidelity, finding.verdict.value)]
    else:
        head = []
    return head + [
        (
            f"{key}@{cell.cell}" if len(cells) > 1 else key,
            *place,
            cell.stated,
            cell.measured,
            cell.low,
            cell.high,
            cell.n,
            finding.fidelity,
            cell.verdict.value,
        )
        for cell in cells
    ]
