"""Which runs does the study rest on, and what is missing? Nothing here imports torch.

    profiles    which studies are there, of what size, and in which store?
    arms        which methods, with what options and training? One file a family of methods
    blocks      of what are a chapter's groups built?
    chapters    which runs does a chapter rest on? One file a chapter; the folder is the registry
    selecting   which specs does a selection mean?
    marks       which cells does the study do without, and why?
    asking      which questions have no answer on record?
    coverage    what is on record, and what is missing?
    clocks      what is timed?

LOCAL, UNTESTED and CHAPTERS are read through this module, at call time.
"""

from lib.study.arms import (
    AFTER_LR,
    ARMS,
    FAMILIES,
    RECIPE,
    TEACHER_LR,
    TEACHERS,
    VERSIONS,
    after_recipe,
    distilled_recipe,
    spec,
    teacher_recipe,
)
from lib.study.arms.coreset import CALIBRATED, CORESET, FIXED, PRUNED, SAMPLED
from lib.study.arms.tokens import ARMS as TOKEN_ARMS
from lib.study.asking import answerable, excused, unanswered
from lib.study.blocks import BATCHED, Group, teachers
from lib.study.chapters import CHAPTERS, groups, protocols, questions, specs
from lib.study.chapters.anatomy import LENGTHS
from lib.study.chapters.coreset import AXES, IMPORTANCES, SAMPLERS, ZEROED, readings
from lib.study.chapters.tokens import clocked, lead, padded
from lib.study.clocks import Clocked, timings, untimed
from lib.study.coverage import Cell, Sweep, cells, describe_missing, expected, missing, sweeps
from lib.study.marks import PLACE, UNTESTED, Mark, untested
from lib.study.profiles import DATA, LOCAL, PROFILES, Pair, Profile, profile
from lib.study.selecting import (
    FIELDS,
    after_of,
    arm_of,
    check_select,
    draws,
    matches,
    sees_of,
)

__all__ = [
    "AFTER_LR",
    "ARMS",
    "AXES",
    "BATCHED",
    "CALIBRATED",
    "CHAPTERS",
    "CORESET",
    "DATA",
    "FAMILIES",
    "FIELDS",
    "FIXED",
    "IMPORTANCES",
    "LENGTHS",
    "LOCAL",
    "PLACE",
    "PROFILES",
    "PRUNED",
    "RECIPE",
    "SAMPLED",
    "SAMPLERS",
    "TEACHERS",
    "TEACHER_LR",
    "TOKEN_ARMS",
    "UNTESTED",
    "VERSIONS",
    "ZEROED",
    "Cell",
    "Clocked",
    "Group",
    "Mark",
    "Pair",
    "Profile",
    "Sweep",
    "after_of",
    "after_recipe",
    "answerable",
    "arm_of",
    "cells",
    "check_select",
    "clocked",
    "describe_missing",
    "distilled_recipe",
    "draws",
    "excused",
    "expected",
    "groups",
    "lead",
    "matches",
    "missing",
    "padded",
    "profile",
    "protocols",
    "questions",
    "readings",
    "sees_of",
    "spec",
    "specs",
    "sweeps",
    "teacher_recipe",
    "teachers",
    "timings",
    "unanswered",
    "untested",
    "untimed",
]
