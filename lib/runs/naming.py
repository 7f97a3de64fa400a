"""By which name is a value known for good, whatever it is called elsewhere?"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from lib.errors import StudyError


def digest(value: Any) -> str:
    """16 hex digits of the sha256 of a value's canonical JSON."""
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def shape_key(shape: Mapping[str, Any]) -> str:
    """What ties a run to the timings of its shape."""
    return digest(dict(shape))


def canonical(value: Any) -> Any:
    """One spelling a value: 1.0 is 1, a tuple is a list; what JSON cannot hold is refused."""
    if isinstance(value, Mapping):
        return {str(name): canonical(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise StudyError(f"wanted plain finite values in a record, got {value!r}; convert it first")


def slug(name: str) -> str:
    """A folder's name for an encoder, task or method; the key keeps two of them apart."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "unnamed"
