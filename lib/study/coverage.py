"""What of a study is on record, what is marked untested, and what is missing?"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lib import study
from lib.runs import Question, Spec, Store
from lib.study.asking import excused, unanswered
from lib.study.chapters import groups, questions, specs
from lib.study.marks import Mark, untested
from lib.study.profiles import Profile, profile


def expected(
    chapter: str, name: str | Profile, group: str | None = None, **overrides: Any
) -> list[Spec]:
    """What a book can ask for: `specs` without the cells that are missing and marked untested."""
    p = profile(name, **overrides)
    cells_of = {cell.spec: cell for cell in cells(p, chapters=(chapter,))}
    return [s for s in specs(chapter, p, group) if cells_of[s].status != "untested"]


@dataclass(frozen=True)
class Cell:
    """One spec in its chapter and group: present, untested (with the reason) or missing."""

    chapter: str
    group: str
    spec: Spec
    status: str
    why: str = ""


def cells(name: str | Profile, chapters: Iterable[str] | None = None) -> list[Cell]:
    """Every cell of a profile once, at the first group that wants it; of every chapter, or some."""
    p = profile(name)
    marks, store, found = untested(p), p.store, {}
    for chapter in study.CHAPTERS if chapters is None else chapters:
        for group, wanted in groups(chapter, p).items():
            for s in wanted:
                if (chapter, s) not in found:
                    found[chapter, s] = _cell(chapter, group, s, p, store, marks)
    return list(found.values())


def _cell(
    chapter: str, group: str, s: Spec, p: Profile, store: Store, marks: tuple[Mark, ...]
) -> Cell:
    if store.has(s):
        return Cell(chapter, group, s, "present")
    mark = next((mark for mark in marks if mark.covers(p.name, chapter, group, s)), None)
    return Cell(chapter, group, s, "untested" if mark else "missing", mark.why if mark else "")


def missing(name: str | Profile, chapter: str | None = None) -> list[Spec]:
    """What is not on record, the most valuable first; marked untested or not."""
    chapters = None if chapter is None else (chapter,)
    found = (cell.spec for cell in cells(name, chapters) if cell.status != "present")
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Sweep:
    """Missing specs that one process computes: they share encoder, task, method and seed.

    Or one question that has no answer on record.
    """

    name: str
    specs: tuple[Spec, ...]
    questions: tuple[Question, ...] = ()


def sweeps(name: str | Profile, chapter: str | None = None) -> list[Sweep]:
    """Missing specs as jobs; the order is that of the groups, so the best value comes first.

    Questions come last: what they read of a teacher is then at hand.
    """
    chapters = None if chapter is None else (chapter,)
    jobs: dict[str, dict[Spec, None]] = {}
    taken: set[Spec] = set()
    for cell in cells(name, chapters):
        s = cell.spec
        if cell.status != "present" and s not in taken:
            taken.add(s)
            parts = (cell.group, s.encoder, s.task, s.method, f"s{s.seed}")
            job = "--".join(part.replace("/", "-") for part in parts)
            jobs.setdefault(job, {})[s] = None
    return [Sweep(job, tuple(wanted)) for job, wanted in jobs.items()] + [
        Sweep(f"question--{question.name}--{question.key}", (), (question,))
        for question in unanswered(name, chapters)
    ]


def describe_missing(name: str | Profile) -> str:
    """A line a group: how many of its cells are on record, untested and missing."""
    counts: dict[tuple[str, str], Counter] = {}
    for cell in cells(name):
        counts.setdefault((cell.chapter, cell.group), Counter())[cell.status] += 1
    return "\n".join(
        f"{chapter}/{group}: {count.total()} cells, {count['present']} on record, "
        f"{count['untested']} untested, {count['missing']} missing"
        for (chapter, group), count in counts.items()
    ) + _describe_questions(profile(name))


def _describe_questions(p: Profile) -> str:
    asked = {question for chapter in study.CHAPTERS for question in questions(chapter, p)}
    lost, marked = set(unanswered(p)), set(excused(p))
    if not asked:
        return ""
    return (
        f"\nquestions: {len(asked)} asked, {len(asked - lost)} on record, "
        f"{len(marked)} untested, {len(lost - marked)} missing"
    )
