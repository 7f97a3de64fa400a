"""How do we refuse? With one line: what was wanted, what came, what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class StudyError(Exception):
    """A refusal that a person can act on; the command line prints it and exits with status 1."""


def unknown(kind: str, name: object, known: Iterable[str]) -> StudyError:
    """The error for a name that is not among `known`, with the nearest ones first."""
    known = sorted(map(str, known))
    near = get_close_matches(str(name), known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known) or 'none'}"
    return StudyError(f"unknown {kind} {str(name)!r}; {hint}")
