"""Where do an encoder's parameters, MACs and seconds go? The opening chapter's runs and timings."""

from typing import Any

from lib.runs import Spec
from lib.study.blocks import Group, teachers
from lib.study.selecting import after_of

LENGTHS = (16, 32, 64, 128, 256, 384, 512)  # one sequence at a time

GROUPS: dict[str, Group] = {"teachers": teachers}


def protocols(s: Spec) -> list[dict[str, Any]]:
    """The dense model's, at every length."""
    lengths = LENGTHS if after_of(s) == "none" and s.method == "dense" else ()
    return [
        {"batch": 1, "length": length, "padding": length, "precision": "float32"}
        for length in lengths
    ]
