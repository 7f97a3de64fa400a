"""Where do an encoder's parameters, MACs and seconds go? The opening chapter's runs and timings."""

from collections.abc import Iterator
from typing import Any

from lib.runs import Question, Spec
from lib.study.arms import spec, teacher_recipe
from lib.study.blocks import Group, teachers
from lib.study.profiles import Pair, Profile
from lib.study.selecting import after_of

LENGTHS = (16, 32, 64, 128, 256, 384, 512)  # one sequence at a time

FORMATS_AT = 0.6  # of the MACs: the pruned model beside which number formats are put

GROUPS: dict[str, Group] = {"teachers": teachers}


def protocols(s: Spec) -> list[dict[str, Any]]:
    """The dense model's, at every length."""
    lengths = LENGTHS if after_of(s) == "none" and s.method == "dense" else ()
    return [
        {"batch": 1, "length": length, "padding": length, "precision": "float32"}
        for length in lengths
    ]


def questions(p: Profile) -> Iterator[Question]:
    """What number formats buy, on the profile's own encoder and on its smaller one."""
    own = Pair(p.encoder, p.task)
    smaller = [pair for pair in p.others if pair.task == p.task and pair.encoder != p.encoder]
    for pair in (own, *smaller[:1]):
        pruned = spec(p, "kcm", FORMATS_AT, unit="macs", pair=pair).as_base()
        recipe = teacher_recipe(pair.encoder, pair.task)
        place = {"encoder": pair.encoder, "task": pair.task, "seed": 0, "teacher": recipe}
        yield Question("formats", 1, place | {"pruned": pruned, "rounds": 3 if p.quick else 9})
