"""Did the talk hold? What the runs of one encoder and task say of one claim."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lib import study
from lib.claims.cells import at_cell, cell_of, timings_of
from lib.claims.claim import Claim, Finding, Verdict
from lib.claims.quantities import ANSWERED, PER_ENCODER, QUANTITIES, Evidence, cell_name
from lib.claims.reading import digest
from lib.claims.verdicts import overall
from lib.runs import Probe, Question, Run, Spec, Timing

ABROAD = "shown, not judged: what it is held against belongs to another encoder's weights"
ABOUT_SPARSITY = ("sparsity", "full-sparsity", "within-layers", "expected-off", "realised-off")
# By chapter the metrics in whose place its talk states accuracies. Held against them its numbers
# would mean something else: F1 is 0 for a model that never says yes and high for one that always
# does, though both have stopped reading. CoFi's talks give CoLA in Matthews' correlation.
ACCURACIES = {"coreset": ("f1", "matthews"), "kcm": ("f1", "matthews"), "cofi": ("f1",)}


def judge(
    claim: Claim,
    p: study.Profile,
    specs: Sequence[Spec],
    runs: Mapping[Spec, Run],
    timings: Sequence[Timing],
    why: Mapping[Spec | Question, str],
    probes: Mapping[Question, Probe | None] | None = None,
) -> list[Finding]:
    """The findings of one claim from the specs that its chapter rests on and their runs.

    `why` has the reasons for what is marked untested, `probes` the chapter's questions with their
    answers, None where there is none.
    """
    if claim.kind == "context":
        return [_untested(claim, p, claim.why)]
    if claim.probe is not None:
        return _probed(claim, p, probes or {}, why)
    quantity = QUANTITIES[claim.quantity]
    if quantity.reads == "claim":
        return [_of_itself(claim)]
    own, rivals = (_meant(specs, select) for select in (claim.select, claim.versus))
    pairs: dict[tuple[str, str], None] = dict.fromkeys((s.encoder, s.task) for s in own)
    if quantity.reads in PER_ENCODER:  # its first task will do
        firsts: dict[str, str] = {}
        for encoder, task in pairs:
            firsts.setdefault(encoder, task)
        pairs = dict.fromkeys(firsts.items())
    found = [
        finding
        for encoder, task in pairs
        for finding in _finding(claim, encoder, task, own, rivals, runs, timings, why)
    ]
    return found or [_untested(claim, p, f"the profile {p.name} has no such runs")]


def _meant(specs: Sequence[Spec], select: Mapping[str, Any] | None) -> list[Spec]:
    """The specs that a claim selects: of other training data than the arm's own if it says so."""
    if select is None:
        return []
    says = any(name.partition(".")[0] == "sees" for name in select)
    return [s for s in specs if study.matches(s, select if says else {"sees": "own"} | select)]


def _untested(claim: Claim, p: study.Profile, note: str) -> Finding:
    fidelity = _fidelity(claim, p.encoder, p.task)
    return Finding(claim, p.encoder, p.task, claim.quantity, (), Verdict.UNTESTED, fidelity, note)


def _fidelity(claim: Claim, encoder: str, task: str) -> str:
    same_task = claim.original["task"] in (task, "any")
    same = same_task and claim.original["encoder"] in (encoder, "any")
    return "reproduction" if same else "replication"


def _finding(
    claim: Claim,
    encoder: str,
    task: str,
    own: Sequence[Spec],
    rivals: Sequence[Spec],
    runs: Mapping[Spec, Run],
    timings: Sequence[Timing],
    why: Mapping[Spec | Question, str],
) -> list[Finding]:
    """One finding, or none where the profile asks for none of the claim's cells."""
    fidelity = _fidelity(claim, encoder, task)
    # An absolute score means nothing on another encoder or task: judge the drop from its own dense.
    loss = QUANTITIES[claim.quantity].loss
    judged = loss if loss and fidelity == "replication" else claim.quantity
    mine = [s for s in own if (s.encoder, s.task) == (encoder, task)]
    abroad = "encoder" in (claim.versus or {})  # a rival of another encoder answers the same task
    theirs = [s for s in rivals if s.task == task and (abroad or s.encoder == encoder)]
    dropped = QUANTITIES[judged].reads == "token-timings"
    near = timings_of(timings, encoder, claim.protocol, {s.encoder for s in theirs}, dropped)
    told = ACCURACIES.get(claim.chapter, ()) if QUANTITIES[judged].reads in ANSWERED else ()
    cells, used, asked, failed, other = [], [], {}, {}, False
    for cell in claim.stated:
        at, against = at_cell(mine, cell, judged), at_cell(theirs, cell, judged)
        if not at or (claim.versus is not None and not against):
            continue
        evidence = Evidence(
            cell,
            tuple(runs[s] for s in at if s in runs),
            tuple(runs[s] for s in against if s in runs),
            tuple(runs[s] for s in mine if s in runs),
            near,
            tuple(claim.reference.get(task, ())),
        )
        used += [*evidence.runs, *evidence.rivals]
        plain = _in_accuracy(evidence, told)
        other, evidence = other or plain != evidence, plain
        asked |= dict.fromkeys([*at, *against])
        found = cell_of(claim, cell, judged, evidence)
        short = QUANTITIES[judged].reads not in PER_ENCODER and any(
            spec not in runs for spec in (*at, *against)
        )
        missed = _missed([*evidence.runs, *evidence.rivals], judged)
        # no verdict before all runs are there, and none on models larger than they should be
        if (short or missed) and found.verdict is not Verdict.UNTESTED:
            found = replace(found, verdict=Verdict.INCONCLUSIVE)
        if QUANTITIES[judged].home and fidelity == "replication" and found.measured is not None:
            note = "; ".join(filter(None, (ABROAD, found.note)))
            found = replace(found, verdict=Verdict.UNTESTED, note=note)
        failed |= dict.fromkeys(missed)
        cells.append(found)
    if not cells:
        return []
    verdict = overall([cell.verdict for cell in cells], QUANTITIES[judged].joint)
    have = sum(s in runs for s in asked)
    notes = [f"{have} of {len(asked)} runs on record"] if have < len(asked) else []
    if len(cells) < len(claim.stated):
        notes.append(f"{len(cells)} of its {len(claim.stated)} stated numbers are asked for here")
    bad = sum(cell.verdict is Verdict.NOT_REPRODUCED for cell in cells)
    if bad and verdict in (Verdict.PARTLY, Verdict.INCONCLUSIVE):
        notes.append(f"{bad} of its {len(cells)} numbers not reproduced")
    notes += [f"{len(failed)} of its runs missed the sparsity they name"] if failed else []
    notes += dict.fromkeys(why[s] for s in asked if s in why)
    if any(cell.measured is not None for cell in cells):
        notes += [QUANTITIES[judged].caveat] if QUANTITIES[judged].caveat else []
        notes += _by_our_rule(used, judged)
    notes += ["judged in accuracy, which is what the talk states"] if other else []
    notes += [cell.note for cell in cells if cell.note] + _changed(claim, used) + _teachers(used)
    note = "; ".join(dict.fromkeys("; ".join(notes).split("; ")))
    return [Finding(claim, encoder, task, judged, tuple(cells), verdict, fidelity, note)]


def _missed(runs: Sequence[Run], quantity: str) -> list[Spec]:
    """Which of these runs say that they are no success: their pruning missed its target.

    One that was told to come as near as it can is as it should be, and where the sparsity itself is
    judged, a miss is the finding.
    """
    if quantity in ABOUT_SPARSITY:
        return []
    own = [run.spec for run in runs if run.trace.get("missed")]
    return [spec for spec in own if spec.options.get("strict", True)]


def _by_our_rule(used: Sequence[Run], quantity: str) -> list[str]:
    """A sparsity that is met because runs end where it is says nothing of what led there."""
    ends = [run.spec.options.get("meet", True) for run in used if run.spec.method == "cofi"]
    if quantity not in ABOUT_SPARSITY or not ends or not all(ends):
        return []
    return ["a rule of ours ends a run where its target is met"]


def _in_accuracy(e: Evidence, metrics: Sequence[str]) -> Evidence:
    """The evidence with those of its runs told in accuracy that are told in one of these."""

    def told(runs: Sequence[Run]) -> tuple[Run, ...]:
        return tuple(
            run.in_accuracy() if run.per_example["metric"] in metrics else run for run in runs
        )

    return replace(e, runs=told(e.runs), rivals=told(e.rivals), all=told(e.all))


def _of_itself(claim: Claim) -> Finding:
    """What a talk's own numbers say of its claim: no run is needed."""
    numbers = tuple(number for row in claim.reference.values() for number in row)
    cells = tuple(
        cell_of(claim, cell, claim.quantity, Evidence(cell, (), (), (), (), numbers, {}))
        for cell in claim.stated
    )
    place, verdict = claim.original, overall([cell.verdict for cell in cells])
    note = "arithmetic on the talk's own numbers"
    return Finding(
        claim,
        place["encoder"],
        place["task"],
        claim.quantity,
        cells,
        verdict,
        _fidelity(claim, **place),
        note,
    )


def _probed(
    claim: Claim,
    p: study.Profile,
    probes: Mapping[Question, Probe | None],
    why: Mapping[Spec | Question, str],
) -> list[Finding]:
    """One finding a question of the claim's name, on the question's encoder and task."""
    found = []
    for question, probe in probes.items():
        if question.name != claim.probe["question"]:
            continue
        encoder, task = (question.parameters.get(n, getattr(p, n)) for n in ("encoder", "task"))
        values = probe.values.get(claim.probe["value"], {}) if probe else None
        cells = tuple(
            cell_of(claim, cell, claim.quantity, Evidence(cell, (), (), (), (), (), values))
            for cell in claim.stated
            if values is None or cell_name(cell) in values
        )
        if probe is None:
            note = why.get(question, "not on record")
        elif not cells:
            note = "the probe on record has none of its cells"
        else:
            note = ""
        verdict = overall([cell.verdict for cell in cells])
        fidelity = _fidelity(claim, encoder, task)
        found.append(Finding(claim, encoder, task, claim.quantity, cells, verdict, fidelity, note))
    return found or [_untested(claim, p, f"the profile {p.name} does not ask")]


def _changed(claim: Claim, used: Sequence[Run]) -> list[str]:
    now = digest(claim.file)
    old = sum(_digest_of(run, claim.file) != now for run in used)
    return [f"{old} of its runs were made under another claims file"] if old else []


def _teachers(used: Sequence[Run]) -> list[str]:
    """Seeds vary the pruning, not what is pruned: say so where a study went on from another dense
    model, as it does on a machine that trains one anew and rounds in another order."""
    dense: dict[tuple[str, str], dict[str | None, set[str]]] = {}
    for run in used:
        place = (run.spec.encoder, run.spec.task)
        own = run.provenance.get("sha256", {}).get("teacher")
        dense.setdefault(place, {}).setdefault(own, set()).add(study.arm_of(run.spec))
    most = max(dense.values(), key=len, default={})
    if len(most) < 2:
        return []
    apart = not set.intersection(*most.values())  # no arm prunes them all
    return [f"its runs prune {len(most)} teachers of one recipe{', each side its own' * apart}"]


def _digest_of(run: Run, file: str) -> str | None:
    recorded = run.provenance.get("claims")
    return recorded.get(file) if isinstance(recorded, dict) else recorded
