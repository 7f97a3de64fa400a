"""What happened, and is a record of it whole?"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lib.runs.examples import pack_labels, pack_values, unpack_examples, unpack_labels
from lib.runs.files import refused
from lib.runs.naming import digest, shape_key, slug
from lib.runs.spec import Question, Spec

MEASURED = ("score", "scores", "params", "encoder_params", "attention_params", "macs")
FRACTIONS = ("attention", "encoder", "model", "macs")
EXAMPLES = ("metric", "n", "classes", "labels", "dense", "pruned")
TIMINGS = "timings"  # folder of a store beside those of encoders


@dataclass(frozen=True)
class Run:
    """What happened.

    `dense` and `pruned` hold MEASURED, `kept` and `nonzero` FRACTIONS of the dense model (MACs by
    shape, but kept["macs"] of a model that drops tokens: executed on the reported texts),
    `per_example` what `pack_examples` made, `shape` the pruned model's, `seconds` by phase.
    `provenance["claims"]` is `claims.digest()`, of every file, at the time of the run. `trace` is
    what a method wrote down of its own way (a pruned model's attribute of that name): training
    curves, errors by layer; a record without any has no such field.
    """

    spec: Spec
    dense: dict[str, Any]
    pruned: dict[str, Any]
    kept: dict[str, float]
    nonzero: dict[str, float]
    shape: dict[str, Any]
    seconds: dict[str, float]
    per_example: dict[str, Any]
    provenance: dict[str, Any]
    trace: dict[str, Any] = field(default_factory=dict)

    def in_accuracy(self) -> "Run":
        """The same answers counted right or wrong, whatever the task's own metric; a regression,
        of which there is no accuracy, stays as it is."""
        if not self.per_example["classes"]:
            return self

        def scored(part: dict[str, Any]) -> dict[str, Any]:
            return part | {"score": part["scores"]["accuracy"]}

        packed = self.per_example | {"metric": "accuracy"}
        return replace(
            self, dense=scored(self.dense), pruned=scored(self.pruned), per_example=packed
        )

    def constant(self) -> "Run":
        """The same texts with the commonest label as the pruned model's only answer; of a
        regression, with 0. Of the numbers beside them, which are not so, none is to be read."""
        packed = self.per_example
        if classes := packed["classes"]:
            labels = unpack_labels(packed["labels"], packed["n"], classes)
            one = pack_labels(np.full(packed["n"], np.bincount(labels).argmax()), classes)
        else:
            one = pack_values(np.zeros(packed["n"]))
        return replace(self, per_example=packed | {"pruned": one})


@dataclass(frozen=True)
class Timing:
    """How fast one shape ran on one machine, every arm interleaved with the others.

    `protocol` is {batch, length, precision, threads, ...}; `seconds` holds the samples of each
    arm (dense_padded, dense, pruned, hf), `ratio` the median over rounds of what each arm took,
    over what the pruned one took in the same round.
    """

    encoder: str
    shape: dict[str, Any]
    protocol: dict[str, Any]
    machine: str
    seconds: dict[str, list[float]]
    ratio: dict[str, float]
    provenance: dict[str, Any]

    @property
    def key(self) -> str:
        """16 hex digits that name encoder, shape, protocol and machine."""
        return digest([self.encoder, self.shape, self.protocol, self.machine])

    @property
    def file(self) -> Path:
        return Path(TIMINGS, slug(self.encoder), f"{shape_key(self.shape)}-{self.key}.json")


def of_one_machine(found: Iterable[Timing]) -> list[Timing]:
    """Those of the machine that timed most, of two that timed as much the one that did so last: a
    ratio never crosses machines."""
    by: dict[str, list[Timing]] = {}
    for timing in found:
        by.setdefault(timing.machine, []).append(timing)
    last = {m: max(str(t.provenance.get("finished", "")) for t in own) for m, own in by.items()}
    return max(by.values(), key=lambda own: (len(own), last[own[0].machine]), default=[])


@dataclass(frozen=True)
class Probe:
    """The answer to a question: named values, numbers or lists and tables of them."""

    question: Question
    values: dict[str, Any]
    provenance: dict[str, Any]


def check_run(run: Run, path: Path) -> None:
    """A StudyError where a run lacks what its readers rest on."""
    wanted = {
        "dense": (run.dense, MEASURED),
        "pruned": (run.pruned, MEASURED),
        "kept": (run.kept, FRACTIONS),
        "nonzero": (run.nonzero, FRACTIONS),
        "per_example": (run.per_example, EXAMPLES),
    }
    for name, (part, keys) in wanted.items():
        if not isinstance(part, dict) or not set(keys) <= set(part):
            raise refused(path, f"{name} lacks {sorted(set(keys) - set(part or ()))}")
    try:
        unpack_examples(run.per_example)
    except (TypeError, ValueError) as error:
        raise refused(path, f"its per_example cannot be unpacked ({error})") from error


def check_timing(timing: Timing, path: Path) -> None:
    """A StudyError where a timing has nothing measured."""
    samples = list(timing.seconds.values()) if isinstance(timing.seconds, dict) else []
    if not samples or not all(arm and all(second > 0 for second in arm) for arm in samples):
        raise refused(path, "a timing needs at least one positive sample of every arm")


def check_probe(probe: Probe, path: Path) -> None:
    """A StudyError where nothing was answered."""
    if not isinstance(probe.values, dict) or not probe.values:
        raise refused(path, "an answer needs at least one value")
