"""Which runs does a chapter rest on? One file a chapter: the folder is the registry.

A chapter's file has GROUPS, by name and the most valuable first, each a generator of specs for a
profile; `protocols(spec)`, how the shape of that spec's run is timed (perhaps not at all);
where a shape does not tell, `clocked(run)`; and, where runs do not answer everything,
`questions(profile)` for lib/probes.
"""

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from lib import study
from lib.errors import unknown
from lib.runs import Question, Run, Spec
from lib.study.blocks import Group
from lib.study.profiles import Profile, profile

_FILES: dict[str, ModuleType] = {
    file.stem.replace("_", "-"): import_module(f"lib.study.chapters.{file.stem}")
    for file in sorted(Path(__file__).parent.glob("[a-z]*.py"))
}
CHAPTERS: dict[str, dict[str, Group]] = {name: file.GROUPS for name, file in _FILES.items()}


def groups(chapter: str, name: str | Profile, **overrides: Any) -> dict[str, list[Spec]]:
    """The specs of a chapter by group, the most valuable group first; groups may overlap."""
    if chapter not in study.CHAPTERS:
        raise unknown("chapter", chapter, study.CHAPTERS)
    p = profile(name, **overrides)
    return {name: list(dict.fromkeys(group(p))) for name, group in study.CHAPTERS[chapter].items()}


def specs(
    chapter: str, name: str | Profile, group: str | None = None, **overrides: Any
) -> list[Spec]:
    """Every run that a chapter rests on, each once; `overrides` are those of `profile`."""
    found = groups(chapter, name, **overrides)
    if group is not None and group not in found:
        raise unknown("group", group, found)
    chosen = found.values() if group is None else [found[group]]
    return list(dict.fromkeys(spec for part in chosen for spec in part))


def protocols(chapter: str, s: Spec) -> list[dict[str, Any]]:
    """How the shape of a spec's run is timed for a chapter."""
    return _FILES[chapter].protocols(s)


def clocks(chapter: str, run: Run) -> list[dict[str, Any]]:
    """How a run is timed: by its shape, and by what else it left where a shape does not tell."""
    own = getattr(_FILES[chapter], "clocked", None)
    return protocols(chapter, run.spec) + (own(run) if own else [])


def questions(chapter: str, name: str | Profile, **overrides: Any) -> list[Question]:
    """What a chapter asks that no run answers."""
    ask = getattr(_FILES.get(chapter), "questions", None)
    return list(dict.fromkeys(ask(profile(name, **overrides)))) if ask else []
