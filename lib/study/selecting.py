"""Which specs does a selection mean?"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from lib.errors import StudyError, unknown
from lib.runs import Spec
from lib.study.arms import ARMS, own_sees
from lib.study.arms.coreset import FIXED
from lib.study.arms.kcm import ONCE

FIELDS = ("encoder", "task", "method", "budget", "unit", "seed")


def matches(s: Spec, select: Mapping[str, Any]) -> bool:
    """Does a spec fit a selection? Its keys: fields of a Spec, `arm`, `options.NAME`, `after`
    (none, steps, epochs), `sees` (own, other) and `sees.NAME`; a value may be a list of which one
    must hold."""
    return all(_holds(s, name, wanted) for name, wanted in select.items())


def check_select(select: Any, where: str) -> None:
    """StudyError unless `select` is a mapping with keys that `matches` knows."""
    if not isinstance(select, Mapping):
        raise StudyError(f"{where}: wanted a selection as a mapping, got {select!r}")
    for name in select:
        if name not in (*FIELDS, *_DERIVED) and not str(name).startswith(("options.", "sees.")):
            raise StudyError(f"{where}: {unknown('key of a selection', name, _KEYS)}")
    for stack in several(select.get("arm", ())):
        if not isinstance(stack, str):
            raise StudyError(f"{where}: wanted the name of an arm, got {stack!r}")
        for arm in stack.split("+"):
            if arm not in ARMS:
                raise StudyError(f"{where}: {unknown('arm', arm, ARMS)}")


_DERIVED = ("arm", "after", "sees")
_KEYS = (*FIELDS, *_DERIVED, "options.NAME", "sees.NAME")


def _holds(s: Spec, name: str, wanted: Any) -> bool:
    if name == "arm":
        return arm_of(s) in several(wanted)
    if name == "after":
        return after_of(s) in several(wanted)
    if name == "sees":
        return sees_of(s) in several(wanted)
    if name.startswith("sees."):
        return (s.training["sees"] or {}).get(name.removeprefix("sees.")) in several(wanted)
    if name.startswith("options."):
        return s.options.get(name.removeprefix("options.")) in several(wanted)
    if name not in FIELDS:
        raise unknown("key of a selection", name, _KEYS)
    return getattr(s, name) in several(wanted)


def several(wanted: Any) -> tuple:
    """A wanted value as the values of which one must hold."""
    return tuple(wanted) if isinstance(wanted, list | tuple) else (wanted,)


@cache
def arm_of(s: Spec) -> str:
    """The arm of a spec, or "" for another reading of its method; behind its base's and a plus."""
    same = (arm for arm, (method, own) in ARMS.items() if (method, own) == (s.method, s.own))
    arm = next(same, "")
    return f"{arm_of(s.base)}+{arm}" if s.base and arm else arm


def after_of(s: Spec) -> str:
    """How it was fine-tuned after pruning: none, steps or epochs."""
    after = s.training["after"]
    return "none" if after is None else "epochs" if after.get("epochs") else "steps"


@cache
def sees_of(s: Spec) -> str:
    """Does it read the training data that its arm reads by default? own or other."""
    last = arm_of(s).rpartition("+")[2]
    return "own" if s.training["sees"] in own_sees(last, s.task) else "other"


def draws(s: Spec) -> bool:
    """Would another seed give another model? Chance is in all training and sampling."""
    return s.training["after"] is not None or arm_of(s) not in ("dense", *FIXED, *ONCE)
