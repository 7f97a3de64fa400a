"""How are the answers to every example packed into a record, and taken out again?"""

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from lib.errors import StudyError


@dataclass(frozen=True)
class Examples:
    """The answers behind two scores; class indices, or floats for a regression."""

    metric: str
    labels: np.ndarray
    dense: np.ndarray
    pruned: np.ndarray


def pack_examples(
    metric: str, labels: np.ndarray, dense: np.ndarray, pruned: np.ndarray, classes: int | None
) -> dict[str, Any]:
    """`per_example` of a run: labels and both models' answers; `classes` None for a regression."""
    if not len(labels) == len(dense) == len(pruned):
        raise StudyError(
            f"wanted as many answers as labels ({len(labels)}), got {len(dense)} and {len(pruned)};"
            " evaluate both models on the same split"
        )
    arrays = {"labels": labels, "dense": dense, "pruned": pruned}
    packed = {
        name: pack_values(array) if classes is None else pack_labels(array, classes)
        for name, array in arrays.items()
    }
    return {"metric": metric, "n": len(labels), "classes": classes or 0} | packed


def unpack_examples(packed: Mapping[str, Any]) -> Examples:
    """What `pack_examples` packed; a ValueError where the answers are not as many as it says."""
    n, classes = packed["n"], packed["classes"]
    arrays = {
        name: unpack_labels(packed[name], n, classes) if classes else unpack_values(packed[name], n)
        for name in ("labels", "dense", "pruned")
    }
    return Examples(packed["metric"], **arrays)


def pack_labels(values: Int[np.ndarray, " n"], classes: int) -> str:
    """Class indices as base64: one bit each for two classes, else one byte each."""
    values = np.asarray(values)
    if not 2 <= classes <= 256 or (values.size and not 0 <= values.min() <= values.max() < classes):
        raise StudyError(f"wanted class indices below {classes}, 2 to 256 classes; check the task")
    values = values.astype(np.uint8)
    return _encode(np.packbits(values) if classes == 2 else values)


def unpack_labels(text: str, n: int, classes: int) -> Int[np.ndarray, " n"]:
    """What `pack_labels` packed; a ValueError where it is not n answers."""
    raw = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    values = np.unpackbits(raw)[:n] if classes == 2 else raw
    if len(values) != n or len(raw) != (math.ceil(n / 8) if classes == 2 else n):
        raise ValueError(f"wanted {n} answers, got {len(values)}")
    return values.astype(np.int64)


def pack_values(values: Float[np.ndarray, " n"]) -> str:
    """Floats as base64, rounded to float16."""
    return _encode(np.asarray(values).astype("<f2"))


def unpack_values(text: str, n: int) -> Float[np.ndarray, " n"]:
    """What `pack_values` packed; a ValueError where it is not n finite numbers."""
    values = np.frombuffer(base64.b64decode(text, validate=True), "<f2").astype(np.float64)
    if len(values) != n or not np.isfinite(values).all():
        raise ValueError(f"wanted {n} finite answers, got {len(values)}")
    return values


def _encode(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()
