"""What is timed for a chapter? Shapes on record, each under the protocols of the chapter."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lib import study
from lib.runs import Run, shape_key
from lib.study.chapters import clocks, specs
from lib.study.profiles import Profile, profile


@dataclass(frozen=True)
class Clocked:
    """A shape to be timed, and how; `make timings` adds the machine's own part of the protocol."""

    encoder: str
    shape: dict[str, Any]
    protocol: dict[str, Any]


def timings(chapter: str, name: str | Profile, runs: Iterable[Run]) -> list[Clocked]:
    """What to time for a chapter, from the shapes on record; each shape and protocol once."""
    wanted = set(specs(chapter, name))
    found: dict[tuple, Clocked] = {}
    for run in (run for run in runs if run.spec in wanted):
        for protocol in clocks(chapter, run):
            key = (run.spec.encoder, shape_key(run.shape), str(sorted(protocol.items())))
            found.setdefault(key, Clocked(run.spec.encoder, run.shape, protocol))
    return list(found.values())


def untimed(name: str | Profile, chapters: Iterable[str] | None = None) -> list[Clocked]:
    """The shapes on record whose speed is not, on any machine; of every chapter, or of some."""
    store = profile(name).store
    timed: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for timing in store.timings():
        timed.setdefault((timing.encoder, shape_key(timing.shape)), []).append(timing.protocol)
    recorded = store.all()
    named = study.CHAPTERS if chapters is None else chapters
    return [
        it
        for chapter in named
        for it in timings(chapter, name, recorded)
        if not any(
            it.protocol.items() <= protocol.items()
            for protocol in timed.get((it.encoder, shape_key(it.shape)), [])
        )
    ]
