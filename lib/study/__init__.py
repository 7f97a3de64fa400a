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

from lib.study.arms import ARMS, FAMILIES, VERSIONS, after_recipe, spec
from lib.study.arms.coreset import CORESET, FIXED, PRUNED
from lib.study.arms.tokens import ARMS as TOKEN_ARMS
from lib.study.asking import answerable, excused, unanswered
from lib.study.blocks import BATCHED
from lib.study.chapters import CHAPTERS, groups, protocols, questions, specs
from lib.study.chapters.anatomy import LENGTHS
from lib.study.chapters.coreset import AXES, SAMPLERS, ZEROED, readings
from lib.study.chapters.tokens import clocked, lead, padded
from lib.study.clocks import Clocked, timings, untimed
from lib.study.coverage import Cell, Sweep, cells, describe_missing, expected, missing, sweeps
from lib.study.marks import UNTESTED, untested
from lib.study.profiles import DATA, LOCAL, PROFILES, Pair, Profile, profile
from lib.study.selecting import after_of, arm_of, check_select, draws, matches, sees_of

__all__ = [
    "ARMS",
    "AXES",
    "BATCHED",
    "CHAPTERS",
    "CORESET",
    "DATA",
    "FAMILIES",
    "FIXED",
    "LENGTHS",
    "LOCAL",
    "PROFILES",
    "PRUNED",
    "SAMPLERS",
    "TOKEN_ARMS",
    "UNTESTED",
    "VERSIONS",
    "ZEROED",
    "Cell",
    "Clocked",
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
    "timings",
    "unanswered",
    "untested",
    "untimed",
]
