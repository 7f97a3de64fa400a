"""Is a row of a claims file well formed? A StudyError says which row, and what was wanted."""

import math
from typing import Any

from lib import study
from lib.claims.claim import RELATIONS
from lib.claims.quantities import QUANTITIES, TIMED
from lib.errors import StudyError, unknown

FIELDS: dict[str, Any] = {  # of a claims file, with what they may be before anything else is asked
    **dict.fromkeys(("key", "figure", "text", "kind", "quantity", "rationale", "why"), str),
    **dict.fromkeys(("source", "original", "select", "versus", "tolerance", "protocol"), dict),
    "relation": str | dict,
    "stated": int | float | dict,
    "dense": int | float,
    "examples": int,
    "seeds": int,
    "probe": dict,
    "reference": dict,
}


def check(row: Any, where: str) -> None:
    """StudyError, with `where` in front, unless the row is a claim."""
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
    kinds = {"measured": _check_measured, "context": _check_context}
    kind = row.get("kind", "measured")
    if kind not in kinds:
        raise StudyError(f"{where}: {unknown('kind', kind, kinds)}")
    kinds[kind](row, where)


def by_cell(stated: Any) -> dict[Any, Any]:
    """A table by cell; of a single number, whose cell is named ""."""
    return stated if isinstance(stated, dict) else {"": stated}


def _check_context(row: dict[str, Any], where: str) -> None:
    if not row.get("why") or {"quantity", "stated", "select"} & set(row):
        raise StudyError(f"{where}: a context row says why, and has no quantity and nothing stated")


def _check_measured(row: dict[str, Any], where: str) -> None:
    name = row.get("quantity")
    if name is not None and name not in QUANTITIES:
        raise StudyError(f"{where}: {unknown('quantity', name, QUANTITIES)}")
    itself = name is not None and QUANTITIES[name].reads == "claim"
    about = "reference" if itself else "probe" if "probe" in row else "select"
    lacking = {about, "quantity", "relation", "stated", "tolerance", "rationale"} - set(row)
    if lacking:
        raise StudyError(f"{where}: lacks {', '.join(sorted(lacking))}")
    quantity, cells = QUANTITIES[name], by_cell(row["stated"])
    for select in (row[part] for part in ("select", "versus") if part in row):
        study.check_select(select, where)
    if ("versus" in row) != quantity.rival:
        raise StudyError(f"{where}: versus goes with a quantity that is a difference and no other")
    if ("probe" in row) != (quantity.reads == "probe") or {"probe", "select"} <= set(row):
        raise StudyError(f"{where}: probe goes with the quantity probe, and without a selection")
    if "probe" in row and set(row["probe"]) != {"question", "value"}:
        raise StudyError(f"{where}: wanted probe with question and value, got {row['probe']!r}")
    for numbers in row.get("reference", {}).values():
        if not isinstance(numbers, list) or not all(map(_number, numbers)):
            raise StudyError(
                f"{where}: wanted reference as a list of numbers a task, got {numbers!r}"
            )
    if name == "fingerprint" and not row.get("reference"):
        raise StudyError(f"{where}: a fingerprint wants its reference, a list of counts by task")
    if ("protocol" in row) != (quantity.reads in TIMED):
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
    if not all(_number(x) and x >= 0 for x in by_cell(given).values()):
        raise StudyError(f"{where}: wanted a tolerance of 0 or more, got {tolerance}")
    if not row["rationale"]:
        raise StudyError(f"{where}: wanted a rationale for its tolerance")
    if quantity.loss and "dense" not in row:
        raise StudyError(f"{where}: a score wants the talk's dense score beside it, for drops")


WORDS = {"part": ("attention", "feed-forward"), "side": ("speedup", "share")}  # cells with names


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _cell_fits(cell: Any, by: str) -> bool:
    if by in WORDS:
        return cell in WORDS[by]
    if by == "budget" and isinstance(cell, str):
        return cell in study.ARMS
    if by == "speed":
        return _number(cell) and cell >= 1
    if by == "probe":
        return _number(cell)
    return _number(cell) and (0 < cell <= 1 if by in ("budget", "size") else cell >= 2)
