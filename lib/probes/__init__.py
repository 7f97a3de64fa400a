"""What do we ask that no run answers? One file a question: the folder is the registry.

A file has VERSION, which a mended fault raises, and `answer(**parameters)`, which returns named
values that JSON holds. A value that a claim rests on is a table by cell, of numbers or of
[value, low, high].
"""

import time
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from lib import claims, devices, origin
from lib.errors import StudyError, unknown
from lib.runs import Probe, Question


def names() -> list[str]:
    """Every question's name, sorted."""
    return sorted(file.stem for file in Path(__file__).parent.glob("[a-z]*.py"))


def answer(question: Question) -> Probe:
    """Compute the answer to a question; StudyErrors for a name or a version that is not here."""
    if question.name not in names():
        raise unknown("question", question.name, names())
    file = import_module(f"lib.probes.{question.name}")
    if file.VERSION != question.version:
        raise StudyError(
            f"{question.name} is at version {file.VERSION}, the study asks for {question.version}; "
            "check out the code of that version or ask for this one"
        )
    devices.keep_memory()
    start = time.perf_counter()
    values = file.answer(**question.parameters)
    provenance = origin.machine() | {
        "seconds": round(time.perf_counter() - start, 3),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "claims": claims.digest(),
    }
    return Probe(question, values, provenance)
