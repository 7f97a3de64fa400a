"""Could chance have done it, or a model that has stopped reading? Then a number decides nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from lib import study
from lib.claims.claim import Claim, Verdict
from lib.claims.quantities import DRAWN, LOSSES, QUANTITIES, Evidence, leads
from lib.claims.verdicts import verdict_of
from lib.runs import Run


def doubts(claim: Claim, cell: Any, stated: float, judged: str, e: Evidence) -> list[str]:
    """Why a measured number cannot be told from chance, a line each; nothing where it can."""
    found = [_once(e)] if judged in DRAWN else []
    if QUANTITIES[judged].held and cell != "speedup":
        found.append(_held(claim, cell, stated, judged, e))
    elif QUANTITIES[judged].rival and QUANTITIES[judged].reads == "answers":
        found.append(_silent(e))
    return [line for line in found if line]


def groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs by arm and budget: a cell of speed rests on a whole curve."""
    found: dict[tuple[str, float], list[Run]] = {}
    for run in runs:
        found.setdefault((study.arm_of(run.spec), run.spec.budget), []).append(run)
    return list(found.values())


def place(runs: Sequence[Run]) -> str:
    """Which group this is: its arm and budget."""
    return f"{study.arm_of(runs[0].spec)} at {runs[0].spec.budget:g}"


def _sides(e: Evidence) -> Iterator[list[Run]]:
    for side in (e.runs, e.rivals):
        yield from groups(side)


def _once(e: Evidence) -> str:
    """A single run of what another seed would make otherwise has no interval."""
    specs = [own[0].spec for own in _sides(e) if len(own) == 1]
    alone = dict.fromkeys(study.arm_of(spec) for spec in specs if study.draws(spec))
    return f"one run of {' and of '.join(alone)}, so chance is in no interval" if alone else ""


def _silent(e: Evidence) -> str:
    """Where both sides have stopped reading, which of them is ahead is how labels are spread."""
    if any(leads(own, [run.constant() for run in own]) for own in _sides(e)):
        return ""
    return "neither side is clearly better than one answer for every text"


def _held(claim: Claim, cell: Any, stated: float, judged: str, e: Evidence) -> str:
    """What one answer for every text would be told, and whether what reads can lose as much."""
    lost, relation = judged in LOSSES, claim.relation[cell]
    if relation == ("above" if lost else "below"):
        return ""  # that much goes, says the claim: no less than with what has stopped reading
    constant = QUANTITIES[judged].measure(replace(e, runs=tuple(run.constant() for run in e.runs)))
    if isinstance(constant, str):
        return ""
    leave = claim.tolerance[cell]
    exact = replace(constant, low=constant.value, high=constant.value)
    if verdict_of(relation, exact, stated, leave) is Verdict.REPRODUCED:
        return f"one answer for every text would do, with {constant.value:.3f}"
    if relation == "equals" and lost and constant.value < stated - leave:
        return f"more is stated than one answer for every text loses, {constant.value:.3f}"
    return ""
