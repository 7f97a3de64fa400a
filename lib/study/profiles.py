"""Which studies are there, of what size, and in which store?"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib import study
from lib.assets import CACHE
from lib.errors import StudyError, unknown
from lib.runs import Store

DATA = Path(__file__).resolve().parent.parent.parent / "data"
LOCAL = CACHE / "runs"


@dataclass(frozen=True)
class Pair:
    """One more encoder and task that a study covers; `tuned` asks for fine-tuning after too."""

    encoder: str
    task: str
    tuned: bool = False


@dataclass(frozen=True)
class Profile:
    """A study of one size, on one encoder and task in the main, kept in one store."""

    name: str
    folder: Path
    encoder: str
    task: str
    others: tuple[Pair, ...] = ()
    budgets: tuple[float, ...] = (0.9, 0.7, 0.5, 0.3)
    full: tuple[float, ...] = (1.0, 0.9, 0.7, 0.5, 0.3, 0.1)
    executed: tuple[float, ...] = (0.6, 0.42)  # of MACs that run, where tokens are dropped
    seeds: tuple[int, ...] = (0, 1, 2)
    sampled: tuple[int, ...] = (0, 1, 2, 3, 4)  # of what samples, without fine-tuning
    macs: tuple[float, ...] = (0.6, 0.7, 0.5, 0.8, 0.9)  # of the FLOPs-constrained, two first
    calibrated: tuple[int, ...] = tuple(range(10))  # of calibration samples, at the first of them
    sizes: tuple[float, ...] = (0.05, 0.4, 0.1, 0.2)  # of CoFi: what is left, the headline first
    steps: int = 200
    quick: bool = False  # a slice of every group, for minutes instead of hours

    @property
    def store(self) -> Store:
        return Store(self.folder)

    @property
    def forked(self) -> bool:
        """Is it a reader's own, of another encoder or task than the profile of its name?"""
        own = PROFILES.get(self.name, self)
        return (self.encoder, self.task) != (own.encoder, own.task)


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            "quick",
            LOCAL,
            "minilm-l6",
            "mr",
            full=(1.0, 0.5, 0.3, 0.1),
            executed=(0.5,),
            seeds=(0,),
            sampled=(0,),
            calibrated=(0,),
            sizes=(0.05,),
            steps=60,
            quick=True,
        ),
        Profile(
            "published",
            DATA / "runs",
            "mpnet-base",
            "sst2",
            others=(
                Pair("minilm-l6", "sst2"),
                Pair("minilm-l6", "cola", tuned=True),
                Pair("minilm-l6", "mrpc", tuned=True),
            ),
        ),
        Profile(
            "paper",
            DATA / "runs",
            "bert-base-uncased",
            "sst2",
            others=(
                Pair("bert-base-uncased", "cola", tuned=True),
                Pair("bert-base-uncased", "mrpc", tuned=True),
            ),
        ),
    )
}


def profile(
    name: str | Profile,
    encoder: str | None = None,
    task: str | None = None,
    seeds: Any = None,
    budgets: Iterable[float] | None = None,
) -> Profile:
    """A profile, with a forker's wishes; another encoder or task goes to the local store.

    `seeds` is how many, as a whole number, or which.
    """
    if not isinstance(name, Profile):
        if name not in PROFILES:
            raise unknown("profile", name, PROFILES)
        name = PROFILES[name]
    if (encoder or name.encoder, task or name.task) != (name.encoder, name.task):
        pair = {"encoder": encoder or name.encoder, "task": task or name.task}
        name = replace(name, **pair, others=(), folder=study.LOCAL)
    if seeds is not None:
        try:
            chosen = tuple(range(seeds) if isinstance(seeds, int) else seeds)
        except TypeError:
            chosen = ()
        if not chosen:
            raise StudyError(
                f"wanted a whole number of seeds above 0, or a list of them, got {seeds!r}; give 3"
            )
        name = replace(name, seeds=chosen, sampled=chosen, calibrated=chosen)
    if budgets is not None:
        chosen = tuple(budgets)
        if not chosen:
            raise StudyError("wanted at least one budget, got none; give fractions in (0, 1]")
        name = replace(
            name, budgets=chosen, full=chosen, macs=chosen, sizes=chosen, executed=chosen
        )
    return name
