"""Which cells does the study do without, and why? They are listed in data/untested.yaml."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from lib import study
from lib.errors import StudyError
from lib.runs import Question, Spec
from lib.study.profiles import DATA, Profile
from lib.study.selecting import check_select, matches, several

UNTESTED = DATA / "untested.yaml"
PLACE = ("profile", "chapter", "group")
ASKED = {"profile", "chapter", "question"}  # what a row about questions may name


@dataclass(frozen=True)
class Mark:
    """Cells that were not run, and why; `select` may also name profile, chapter and group.

    One that names a `question` is about the answers of lib/probes, and about no run.
    """

    select: dict[str, Any]
    why: str

    def covers_question(self, profile_name: str, chapter: str, question: Question) -> bool:
        """Is this question marked as unanswered?"""
        place = {"profile": profile_name, "chapter": chapter, "question": question.name}
        return "question" in self.select and all(
            place[name] in several(value) for name, value in self.select.items()
        )

    def covers(self, profile_name: str, chapter: str, group: str, s: Spec) -> bool:
        """Is this cell of the study marked as untested?"""
        if "question" in self.select:
            return False
        place = dict(zip(PLACE, (profile_name, chapter, group), strict=True))
        rest = {name: value for name, value in self.select.items() if name not in PLACE}
        here = (
            place[name] in several(value) for name, value in self.select.items() if name in PLACE
        )
        return all(here) and matches(s, rest)


def untested(p: Profile | None = None) -> tuple[Mark, ...]:
    """The cells that the study does without, from data/untested.yaml; a reader's own study, whose
    encoder or task is another, does without none."""
    if p is not None and p.forked:
        return ()
    path = study.UNTESTED
    try:
        rows = yaml.safe_load(path.read_text()) or []
    except yaml.YAMLError as error:
        line = " ".join(str(error).split())
        raise StudyError(f"{path} is not YAML ({line}); mend it") from error
    found = []
    for row in rows if isinstance(rows, list) else [rows]:
        if not isinstance(row, dict) or set(row) != {"select", "why"} or not row["why"]:
            raise StudyError(f"{path}: wanted rows of select and why, got {row!r}; mend it")
        select = row["select"]
        if isinstance(select, Mapping) and "question" in select:
            if not set(select) <= ASKED:
                raise StudyError(f"{path}: a row about a question names only {sorted(ASKED)}")
            inner = {}
        elif isinstance(select, Mapping):
            inner = {name: value for name, value in select.items() if name not in PLACE}
        else:
            inner = select
        check_select(inner, str(path))
        found.append(Mark(select, row["why"]))
    return tuple(found)
