"""Did the talk hold? Claims as data, findings and verdicts derived from the runs on record."""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from lib import study
from lib.errors import StudyError, unknown
from lib.quantities import QUANTITIES, Estimate, Evidence, wilson
from lib.runs import Run, Spec, Timing

FOLDER = study.DATA / "claims"
RELATIONS = ("equals", "above", "below")
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


class Verdict(StrEnum):
    """What a finding says of a claim."""

    REPRODUCED = "reproduced"
    PARTLY = "partly"
    NOT_REPRODUCED = "not reproduced"
    INCONCLUSIVE = "inconclusive"
    UNTESTED = "untested"


@dataclass(frozen=True)
class Source:
    """Where a claim is made; `paper` where a talk leaves the number to it."""

    talk: str
    slide: str
    paper: str = ""


@dataclass(frozen=True)
class Claim:
    """One row of a claims file.

    `select` (and `versus`, for a rival) say which runs it is about, `quantity` what is read from
    them, `relation` and `stated` what it should be and `tolerance` how far off it may be, by cell;
    a single number has one cell, named "". In the files a tolerance is absolute or relative, one
    for all cells or one each, with its `rationale`; here it is absolute. `original` is the encoder
    and task of the talk. A stated score on `examples` sentences has an interval of its own; with
    `dense`, the talk's dense score, a replication judges drops. A context row says `why` it is not
    measured.
    """

    chapter: str
    key: str
    figure: str
    source: Source
    text: str
    original: dict[str, str]
    kind: str = "measured"
    select: dict[str, Any] | None = None
    versus: dict[str, Any] | None = None
    quantity: str = ""
    relation: dict[Any, str] = field(default_factory=dict)
    stated: dict[Any, float] = field(default_factory=dict)
    dense: float | None = None
    examples: int | None = None
    tolerance: dict[Any, float] = field(default_factory=dict)
    rationale: str = ""
    protocol: dict[str, Any] | None = None
    seeds: int = 1
    why: str = ""


@dataclass(frozen=True)
class Cell:
    """One stated number beside the measured one, with the interval of each where it has one."""

    cell: Any
    relation: str
    stated: float
    stated_low: float | None
    stated_high: float | None
    measured: float | None
    low: float | None
    high: float | None
    n: int
    verdict: Verdict
    note: str = ""


@dataclass(frozen=True)
class Finding:
    """What the runs of one encoder and task say of a claim; `quantity` is the one judged."""

    claim: Claim
    encoder: str
    task: str
    quantity: str
    cells: tuple[Cell, ...]
    verdict: Verdict
    fidelity: str
    note: str


# --- reading the claims files ---------------------------------------------------------------------


def load(folder: Path = FOLDER) -> tuple[Claim, ...]:
    """Every claim of every chapter, in the order of the files; StudyError for a bad one."""
    found = [claim for path in sorted(Path(folder).glob("*.yaml")) for claim in _file(path)]
    seen: set[str] = set()
    for claim in found:
        if claim.key in seen:
            raise StudyError(f"the claim {claim.key} stands twice in {folder}; rename one of them")
        seen.add(claim.key)
    return tuple(found)


def digest(chapter: str | None = None, folder: Path = FOLDER) -> str | dict[str, str]:
    """sha256 of a chapter's claims file, for provenance; of every file without a name."""
    if chapter is None:
        return {path.stem: digest(path.stem, folder) for path in sorted(folder.glob("*.yaml"))}
    path = folder / f"{chapter}.yaml"
    if not path.is_file():
        raise unknown("claims file", chapter, (found.stem for found in folder.glob("*.yaml")))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _file(path: Path) -> list[Claim]:
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise StudyError(f"{path} is not YAML ({' '.join(str(error).split())}); mend it") from error
    if not isinstance(content, dict) or not {"chapter", "claims"} <= set(content):
        raise StudyError(f"{path}: wanted a mapping with chapter and claims; mend it")
    if content["chapter"] != path.stem:
        raise StudyError(f"{path}: its chapter is {content['chapter']!r}; name both alike")
    return [_claim(row, content["chapter"], path) for row in content["claims"]]


def _claim(row: Any, chapter: str, path: Path) -> Claim:
    where = f"{path.name}: claim {row.get('key', '?') if isinstance(row, dict) else row!r}"
    if not isinstance(row, dict):
        raise StudyError(f"{where}: wanted a mapping")
    for name, value in row.items():
        if name not in FIELDS:
            raise StudyError(f"{where}: {unknown('field', name, FIELDS)}")
        if not isinstance(value, FIELDS[name]) or isinstance(value, bool):
            raise StudyError(f"{where}: {name} cannot be {value!r}")
    lacking = {"key", "figure", "source", "text", "original"} - set(row)
    if lacking:
        raise StudyError(f"{where}: lacks {', '.join(sorted(lacking))}")
    source, original = row["source"], row["original"]
    if not {"talk", "slide"} <= set(source) <= {"talk", "slide", "paper"}:
        raise StudyError(f"{where}: wanted a source with talk and slide, perhaps paper")
    if set(original) != {"encoder", "task"}:
        raise StudyError(f"{where}: wanted original with encoder and task, got {original!r}")
    check = {"measured": _check_measured, "context": _check_context}.get(kind := _kind(row))
    if check is None:
        raise StudyError(f"{where}: {unknown('kind', kind, ('measured', 'context'))}")
    check(row, where)
    stated = {cell: float(value) for cell, value in _by_cell(row.get("stated", {})).items()}
    relation = row.get("relation", {})
    built = {
        "source": Source(**source),
        "stated": stated,
        "relation": relation if isinstance(relation, dict) else dict.fromkeys(stated, relation),
    }
    if "tolerance" in row:
        ((how, given),) = row["tolerance"].items()
        each = given if isinstance(given, dict) else dict.fromkeys(stated, given)
        built["tolerance"] = {
            cell: float(each[cell]) * (abs(value) if how == "relative" else 1)
            for cell, value in stated.items()
        }
    if "dense" in row:
        built["dense"] = float(row["dense"])
    return Claim(chapter=chapter, **row | built)


FIELDS: dict[str, Any] = {  # of a claims file, with what they may be before anything else is asked
    **dict.fromkeys(("key", "figure", "text", "kind", "quantity", "rationale", "why"), str),
    **dict.fromkeys(("source", "original", "select", "versus", "tolerance", "protocol"), dict),
    "relation": str | dict,
    "stated": int | float | dict,
    "dense": int | float,
    "examples": int,
    "seeds": int,
}


def _kind(row: dict[str, Any]) -> str:
    return row.get("kind", "measured")


def _by_cell(stated: Any) -> dict[Any, Any]:
    return stated if isinstance(stated, dict) else {"": stated}


def _check_context(row: dict[str, Any], where: str) -> None:
    if not row.get("why") or {"quantity", "stated", "select"} & set(row):
        raise StudyError(f"{where}: a context row says why, and has no quantity and nothing stated")


def _check_measured(row: dict[str, Any], where: str) -> None:
    lacking = {"select", "quantity", "relation", "stated", "tolerance", "rationale"} - set(row)
    if lacking:
        raise StudyError(f"{where}: lacks {', '.join(sorted(lacking))}")
    name, cells = row["quantity"], _by_cell(row["stated"])
    if name not in QUANTITIES:
        raise StudyError(f"{where}: {unknown('quantity', name, QUANTITIES)}")
    quantity = QUANTITIES[name]
    for select in (row[part] for part in ("select", "versus") if part in row):
        study.check_select(select, where)
    if ("versus" in row) != quantity.rival:
        raise StudyError(f"{where}: versus goes with the quantity difference and no other")
    if ("protocol" in row) != (quantity.reads == "timings"):
        raise StudyError(f"{where}: protocol goes with a quantity that is timed and no other")
    if not cells or not all(_number(value) for value in cells.values()):
        raise StudyError(f"{where}: wanted stated as a number or a table of numbers")
    for cell in cells:
        if cell != "" and not _cell_fits(cell, quantity.by):
            raise StudyError(f"{where}: the cell {cell!r} is not a {quantity.by}")
    relation = row["relation"]
    if isinstance(relation, dict) and set(relation) != set(cells):
        raise StudyError(f"{where}: wanted a relation for every cell that is stated")
    for one in relation.values() if isinstance(relation, dict) else [relation]:
        if one not in RELATIONS:
            raise StudyError(f"{where}: {unknown('relation', one, RELATIONS)}")
    tolerance = row["tolerance"]
    if set(tolerance) not in ({"absolute"}, {"relative"}):
        raise StudyError(f"{where}: wanted tolerance as absolute: x or relative: x")
    (given,) = tolerance.values()
    if isinstance(given, dict) and set(given) != set(cells):
        raise StudyError(f"{where}: wanted a tolerance for every cell that is stated")
    if not all(_number(x) and x >= 0 for x in _by_cell(given).values()):
        raise StudyError(f"{where}: wanted a tolerance of 0 or more, got {tolerance}")
    if not row["rationale"]:
        raise StudyError(f"{where}: wanted a rationale for its tolerance")
    if name == "score" and "dense" not in row:
        raise StudyError(f"{where}: a score wants the talk's dense score beside it, for drops")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _cell_fits(cell: Any, by: str) -> bool:
    if by == "part":
        return cell in ("attention", "feed-forward")
    return _number(cell) and (0 < cell <= 1 if by == "budget" else cell >= 2)


# --- findings -------------------------------------------------------------------------------------


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
    return [
        finding
        for claim in wanted
        for finding in judge(claim, p, specs[claim.chapter], runs, timings, why)
    ]


def judge(
    claim: Claim,
    p: study.Profile,
    specs: Sequence[Spec],
    runs: Mapping[Spec, Run],
    timings: Sequence[Timing],
    why: Mapping[Spec, str],
) -> list[Finding]:
    """The findings of one claim from the specs that its chapter rests on and their runs.

    `why` has the reasons for runs that are marked untested.
    """
    if claim.kind == "context":
        return [_untested(claim, p, claim.why)]
    quantity = QUANTITIES[claim.quantity]
    own = [s for s in specs if study.matches(s, claim.select)]
    rivals = [s for s in specs if claim.versus is not None and study.matches(s, claim.versus)]
    pairs: dict[tuple[str, str], None] = dict.fromkeys((s.encoder, s.task) for s in own)
    if quantity.reads != "answers":  # a matter of the encoder alone: its first task will do
        pairs = {(e, t): None for e, t in reversed({e: t for e, t in reversed(pairs)}.items())}
    found = [
        finding
        for encoder, task in pairs
        for finding in _finding(claim, encoder, task, own, rivals, runs, timings, why)
    ]
    return found or [_untested(claim, p, f"the profile {p.name} has no such runs")]


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
    why: Mapping[Spec, str],
) -> list[Finding]:
    """One finding, or none where the profile asks for none of the claim's cells."""
    fidelity = _fidelity(claim, encoder, task)
    # An absolute score means nothing on another encoder or task: judge the drop from its own dense.
    drops = claim.quantity == "score" and fidelity == "replication"
    judged = "drop" if drops else claim.quantity
    mine = [s for s in own if (s.encoder, s.task) == (encoder, task)]
    theirs = [s for s in rivals if (s.encoder, s.task) == (encoder, task)]
    near = _timings_of(timings, encoder, claim.protocol)
    cells, used, asked = [], [], {}
    for cell in claim.stated:
        at, against = _at(mine, cell, judged), _at(theirs, cell, judged)
        if not at or (claim.versus is not None and not against):
            continue
        evidence = Evidence(
            cell,
            tuple(runs[s] for s in at if s in runs),
            tuple(runs[s] for s in against if s in runs),
            tuple(runs[s] for s in mine if s in runs),
            near,
        )
        used += [*evidence.runs, *evidence.rivals]
        asked |= dict.fromkeys([*at, *against])
        cells.append(_cell(claim, cell, judged, evidence))
    if not cells:
        return []
    verdict = overall([cell.verdict for cell in cells])
    have = sum(s in runs for s in asked)
    notes = [f"{have} of {len(asked)} runs on record"] if have < len(asked) else []
    notes += dict.fromkeys(why[s] for s in asked if s in why)
    notes += [cell.note for cell in cells if cell.note] + _changed(claim, used)
    note = "; ".join(dict.fromkeys(notes))
    return [Finding(claim, encoder, task, judged, tuple(cells), verdict, fidelity, note)]


def _at(specs: Sequence[Spec], cell: Any, quantity: str) -> list[Spec]:
    by_budget = QUANTITIES[quantity].by == "budget" and cell != ""
    return [s for s in specs if not by_budget or s.budget == cell]


def _timings_of(
    timings: Sequence[Timing], encoder: str, protocol: Mapping[str, Any] | None
) -> tuple[Timing, ...]:
    """Timings under a protocol, of the machine that has most: a ratio never crosses machines.

    Weights that were zeroed are another matter: only a protocol that says `zeroed` sees them.
    """
    wanted = {"zeroed": None} | dict(protocol or {})
    fits = [
        timing
        for timing in timings
        if timing.encoder == encoder
        and all(timing.protocol.get(name) == value for name, value in wanted.items())
    ]
    machines = [timing.machine for timing in fits]
    chosen = max(sorted(set(machines)), key=machines.count, default=None)
    return tuple(timing for timing in fits if timing.machine == chosen)


def _cell(claim: Claim, cell: Any, judged: str, evidence: Evidence) -> Cell:
    stated, low, high = _stated(claim, cell, judged)
    relation = claim.relation[cell]
    blank = Cell(cell, relation, stated, low, high, None, None, None, 0, Verdict.UNTESTED)
    if not evidence.runs or (claim.versus is not None and not evidence.rivals):
        return blank
    estimate = QUANTITIES[judged].measure(evidence)
    if isinstance(estimate, str):
        return replace(blank, note=estimate)
    seeds = len(evidence.runs)
    few = f"{seeds} of the {claim.seeds} seeds asked for" if seeds < claim.seeds else ""
    return replace(
        blank,
        measured=estimate.value,
        low=estimate.low,
        high=estimate.high,
        n=estimate.n,
        verdict=verdict_of(relation, estimate, stated, claim.tolerance[cell]),
        note=few,
    )


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


def _changed(claim: Claim, used: Sequence[Run]) -> list[str]:
    now = digest(claim.chapter)
    old = sum(_digest_of(run, claim.chapter) != now for run in used)
    return [f"{old} of its runs were made under another claims file"] if old else []


def _digest_of(run: Run, chapter: str) -> str | None:
    recorded = run.provenance.get("claims")
    return recorded.get(chapter) if isinstance(recorded, dict) else recorded


# --- verdicts -------------------------------------------------------------------------------------


def verdict_of(relation: str, found: Estimate, stated: float, tolerance: float) -> Verdict:
    """The verdict on one number.

    equals: reproduced where the measured interval meets stated +- tolerance, inconclusive where it
    does so by being wider than that band. above, below: the interval's near end decides; the
    tolerance is leave to fall short. Where the interval holds the bound, nothing is decided.
    """
    if relation == "equals":
        if found.low > stated + tolerance or found.high < stated - tolerance:
            return Verdict.NOT_REPRODUCED
        wide = found.high - found.low > 2 * tolerance
        return Verdict.INCONCLUSIVE if wide else Verdict.REPRODUCED
    if relation == "below":  # the mirror image of above
        found = Estimate(-found.value, -found.high, -found.low, found.n)
        stated = -stated
    bound = stated - tolerance
    if found.low > bound:
        return Verdict.REPRODUCED
    return Verdict.NOT_REPRODUCED if found.high <= bound else Verdict.INCONCLUSIVE


def overall(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict on a claim of several cells.

    All: reproduced. At least half: partly. If what is not decided could still make up half:
    inconclusive (untested where no cell was measured). Else not reproduced.
    """
    if not verdicts or set(verdicts) == {Verdict.UNTESTED}:
        return Verdict.UNTESTED
    good, bad = verdicts.count(Verdict.REPRODUCED), verdicts.count(Verdict.NOT_REPRODUCED)
    if good == len(verdicts):
        return Verdict.REPRODUCED
    if 2 * good >= len(verdicts):
        return Verdict.PARTLY
    return Verdict.NOT_REPRODUCED if 2 * bad > len(verdicts) else Verdict.INCONCLUSIVE


# --- the ledger -----------------------------------------------------------------------------------


def table(found: Iterable[Finding]) -> pd.DataFrame:
    """The ledger, one row a stated number: COLUMNS.

    A claim of several cells has a row of its own with its verdict and the number of runs, then
    one a cell, named key@cell. `n` counts runs; where time is measured, rounds.
    """
    return pd.DataFrame([row for finding in found for row in _rows(finding)], columns=COLUMNS)


def _rows(finding: Finding) -> list[tuple]:
    place = (finding.encoder, finding.task)
    key, cells = finding.claim.key, finding.cells
    if len(cells) != 1:
        counts = [cell.n for cell in cells]  # cells of one shape rest on the same runs
        by_budget = cells and QUANTITIES[finding.quantity].by == "budget"
        total = sum(counts) if by_budget else max(counts, default=0)
        blank = (None,) * 4
        head = [(key, *place, *blank, total, finding.fidelity, finding.verdict.value)]
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
