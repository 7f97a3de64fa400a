"""Which questions does the study ask that no run answers, and which have no answer on record?"""

from collections.abc import Iterable
from typing import Any

from lib import study
from lib.runs import Question
from lib.study.chapters import questions
from lib.study.marks import untested
from lib.study.profiles import Profile, profile


def answerable(chapter: str, name: str | Profile, **overrides: Any) -> list[Question]:
    """What a book can ask for: `questions` without those missing and marked untested."""
    p = profile(name, **overrides)
    lost = excused(p, (chapter,))
    return [question for question in questions(chapter, p) if question not in lost]


def unanswered(name: str | Profile, chapters: Iterable[str] | None = None) -> list[Question]:
    """Every question without an answer on record, marked untested or not; each once."""
    p = profile(name)
    found = (
        question
        for chapter in (study.CHAPTERS if chapters is None else chapters)
        for question in questions(chapter, p)
        if not p.store.answers(question)
    )
    return list(dict.fromkeys(found))


def excused(name: str | Profile, chapters: Iterable[str] | None = None) -> dict[Question, str]:
    """The unanswered questions that are marked untested, with the reasons."""
    p, found = profile(name), {}
    marks = untested(p)
    for chapter in study.CHAPTERS if chapters is None else chapters:
        for question in questions(chapter, p):
            mark = next((m for m in marks if m.covers_question(p.name, chapter, question)), None)
            if mark and not p.store.answers(question):
                found[question] = mark.why
    return found
