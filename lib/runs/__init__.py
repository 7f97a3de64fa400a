"""What was asked and what happened? One JSON file a run, written once, with everything to judge it.

spec      what was asked? records: what happened?
examples  how are the answers to every example packed?
store     where do records lie? files: how is one written and read?
naming    by which name is a value known for good?
"""

from lib.runs.examples import (
    Examples,
    pack_examples,
    pack_labels,
    pack_values,
    unpack_examples,
    unpack_labels,
    unpack_values,
)
from lib.runs.naming import digest, shape_key
from lib.runs.records import FRACTIONS, Probe, Run, Timing, of_one_machine
from lib.runs.spec import Question, Spec
from lib.runs.store import Store

__all__ = [
    "FRACTIONS",
    "Examples",
    "Probe",
    "Question",
    "Run",
    "Spec",
    "Store",
    "Timing",
    "digest",
    "of_one_machine",
    "pack_examples",
    "pack_labels",
    "pack_values",
    "shape_key",
    "unpack_examples",
    "unpack_labels",
    "unpack_values",
]
