"""What does a talk state, and what can be found of it? Claims and findings as data."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

RELATIONS = ("equals", "above", "below")
OURS = ("our control", "our question", "computed by us")  # how the text of a claim says so


class Verdict(StrEnum):
    """What a finding says of a claim."""

    REPRODUCED = "reproduced"
    PARTLY = "partly"
    NOT_REPRODUCED = "not reproduced"
    INCONCLUSIVE = "inconclusive"
    UNTESTED = "untested"


@dataclass(frozen=True)
class Source:
    """Where a claim is made; `paper` where a talk leaves the number to it."""

    talk: str
    slide: str
    paper: str = ""


@dataclass(frozen=True)
class Claim:
    """One row of `file`, the stem of a claims file's name.

    `select` (and `versus`, for a rival) say which runs it is about, of those that read what the
    study gives their arm by default unless it names what they see; `quantity` what is read from
    them, `relation` and `stated` what it should be and `tolerance` how far off it may be, by cell;
    a single number has one cell, named "". In the files a tolerance is absolute or relative, one
    for all cells or one each, with its `rationale`; here it is absolute. `original` is the encoder
    and task of the talk. A stated score on `examples` sentences has an interval of its own; with
    `dense`, the talk's dense score, a replication judges drops. A context row says `why` it is not
    measured. In place of runs a claim may rest on a `probe`: the question, and the name of the
    table in its answer that has the claim's cells. `reference` is a row of numbers a task, for
    quantities that compare with one.
    """

    chapter: str
    file: str
    key: str
    figure: str
    source: Source
    text: str
    original: dict[str, str]
    kind: str = "measured"
    select: dict[str, Any] | None = None
    versus: dict[str, Any] | None = None
    quantity: str = ""
    relation: dict[Any, str] = field(default_factory=dict)
    stated: dict[Any, float] = field(default_factory=dict)
    dense: float | None = None
    examples: int | None = None
    tolerance: dict[Any, float] = field(default_factory=dict)
    rationale: str = ""
    protocol: dict[str, Any] | None = None
    seeds: int = 1
    why: str = ""
    probe: dict[str, str] | None = None
    reference: dict[str, list[int | float]] = field(default_factory=dict)

    @property
    def ours(self) -> bool:
        """Is it a question of this study about its source, and no statement of the source?"""
        return any(words in self.text.lower() for words in OURS)


@dataclass(frozen=True)
class Cell:
    """One stated number beside the measured one, with the interval of each where it has one."""

    cell: Any
    relation: str
    stated: float
    stated_low: float | None
    stated_high: float | None
    measured: float | None
    low: float | None
    high: float | None
    n: int
    verdict: Verdict
    note: str = ""


@dataclass(frozen=True)
class Finding:
    """What the runs of one encoder and task say of a claim; `quantity` is the one judged."""

    claim: Claim
    encoder: str
    task: str
    quantity: str
    cells: tuple[Cell, ...]
    verdict: Verdict
    fidelity: str
    note: str
