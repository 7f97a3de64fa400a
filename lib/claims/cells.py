"""What do the runs measure beside one stated number?"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lib import study
from lib.claims import chance
from lib.claims.answers import commonest, wilson
from lib.claims.claim import Cell, Claim, Verdict
from lib.claims.quantities import ANSWERED, QUANTITIES, Evidence
from lib.claims.verdicts import verdict_of
from lib.runs import Run, Spec, Timing, of_one_machine

SAME = 0.97  # of the texts with one answer, where not so many are: a model that stopped reading


def at_cell(specs: Sequence[Spec], cell: Any, quantity: str) -> list[Spec]:
    """The specs that a cell is about: those of its budget or arm, where it names one."""
    if QUANTITIES[quantity].by != "budget" or cell == "":
        return list(specs)
    if isinstance(cell, str):
        return [s for s in specs if study.arm_of(s) == cell]
    return [s for s in specs if s.budget == cell]


def timings_of(
    timings: Sequence[Timing],
    encoder: str,
    protocol: Mapping[str, Any] | None,
    others: Iterable[str] = (),
    tokens: bool = False,
) -> tuple[Timing, ...]:
    """Timings under a protocol, of one machine.

    `others` are encoders of rivals, wanted beside those of `encoder`.

    Weights that were zeroed are another matter: only a protocol that says `zeroed` sees them. So
    are models that drop tokens: `tokens` asks for them and for nothing else.
    """
    wanted = {"zeroed": None} | dict(protocol or {})
    fits = [
        timing
        for timing in timings
        if timing.encoder in (encoder, *others)
        and ("tokens" in timing.protocol) == tokens
        and all(timing.protocol.get(name) == value for name, value in wanted.items())
    ]
    return tuple(of_one_machine(fits))


def cell_of(claim: Claim, cell: Any, judged: str, evidence: Evidence) -> Cell:
    """A stated number beside what `judged`, a quantity, measures; untested without evidence."""
    stated, low, high = _stated(claim, cell, judged)
    relation = claim.relation[cell]
    blank = Cell(cell, relation, stated, low, high, None, None, None, 0, Verdict.UNTESTED)
    if evidence.values is None and not evidence.runs:
        return blank
    if claim.versus is not None and not evidence.rivals:
        return blank
    estimate = QUANTITIES[judged].measure(evidence)
    if isinstance(estimate, str):
        return replace(blank, note=estimate)
    seeds = len(evidence.runs)
    notes = [f"{seeds} of the {claim.seeds} seeds asked for"] if 0 < seeds < claim.seeds else []
    if QUANTITIES[judged].reads in ANSWERED:
        each = [group for side in (evidence.runs, evidence.rivals) for group in chance.groups(side)]
        notes += [note for group in each for note in (*_stopped(group), *_unmended(group))]
    doubts = chance.doubts(claim, cell, stated, judged, evidence)
    verdict = verdict_of(relation, estimate, stated, claim.tolerance[cell])
    return replace(
        blank,
        measured=estimate.value,
        low=estimate.low,
        high=estimate.high,
        n=estimate.n,
        verdict=Verdict.INCONCLUSIVE if doubts else verdict,
        note="; ".join(notes + doubts),
    )


def _stopped(runs: Sequence[Run]) -> list[str]:
    """A line about pruned models that give nearly every text the same answer."""
    same = sum(
        commonest(it["n"], it["classes"], it["pruned"])
        >= SAME
        > commonest(it["n"], it["classes"], it["labels"])
        for it in (run.per_example for run in runs)
    )
    if not same:
        return []
    return [
        f"{chance.place(runs)}: one answer for {SAME:.0%} of the texts or more in {_of(same, runs)}"
    ]


def _unmended(runs: Sequence[Run]) -> list[str]:
    """A line about least squares that were given up: what lies above is not mended."""
    tuned = [run.trace["tuned"][-1] for run in runs if run.trace.get("tuned")]
    layers = [step["layer"] + 1 for step in tuned if not step["accepted"]]
    if not layers:
        return []
    at = ", ".join(str(layer) for layer in sorted(set(layers)))
    return [f"{chance.place(runs)}: not mended from layer {at} on in {_of(len(layers), runs)}"]


def _of(some: int, runs: Sequence[Run]) -> str:
    return f"{some} of its {len(runs)} runs" if len(runs) > 1 else "its run"


def _stated(claim: Claim, cell: Any, judged: str) -> tuple[float, float | None, float | None]:
    """A stated number and, where it counts right answers, the 95% interval of its own."""
    stated, low, high = claim.stated[cell], None, None
    if claim.examples is not None:
        low, high = wilson(round(stated * claim.examples), claim.examples)
    if judged == claim.quantity:
        return stated, low, high
    if low is None:
        return _drop(claim, stated), None, None
    return _drop(claim, stated), _drop(claim, high), _drop(claim, low)


def _drop(claim: Claim, score: float) -> float:
    return round(claim.dense - score, 6)  # talks state four digits
