"""Which runs does the CoFi chapter rest on? Its groups, the most valuable first.

A size is what is left of the layers' parameters: 0.05 is a sparsity of 0.95.
"""

from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

from lib.runs import Spec
from lib.study.arms import distilled_recipe, spec
from lib.study.arms.cofi import ARMS, STEPS, TUNED
from lib.study.blocks import BATCHED, Group
from lib.study.profiles import Pair, Profile
from lib.study.selecting import after_of, arm_of

UNIT = "parameters"
SMALL, LARGE = "minilm-l6", "mpnet-base"  # of the published study: the main one, and the other
TASKS = ("cola", "mrpc", "stsb")  # beside the main one
UNITS = ("cofi-fine-wide", "cofi-fine", "cofi-layers", "cofi-hidden")
DISTILLED = ("cofi-prediction", "cofi-undistilled")
MATCHED = ("cofi-fixed", "cofi-unordered")
RIVALS = {  # arm: what its budget is a share of, and budgets from twice to ten times the speed
    "magnitude": ("encoder", (0.5, 0.2, 0.1, 0.03)),
    "mask-tuning": ("macs", (0.5, 0.2, 0.1, 0.05)),
    "kcm": ("macs", (0.5, 0.4)),  # it prunes no attention
}
BEHIND = (0.2, 0.1, 0.05)  # sizes of the larger encoder around the speed of the small one
EPOCHS = 20  # of the authors' fine-tuning after


def main(p: Profile) -> Pair:
    """The encoder and task of most runs: the small one, unless a reader asks for another."""
    return Pair(SMALL if p.name == "published" and p.others else p.encoder, p.task)


def large(p: Profile) -> Pair | None:
    """The larger encoder of the published study on the same task; no other study has one."""
    own = Pair(LARGE, p.task)
    return own if p.name == "published" and p.others and own != main(p) else None


def tasks(p: Profile, names: Iterable[str] = TASKS) -> list[Pair]:
    """The main encoder on other tasks; a reader's study has none."""
    return [Pair(main(p).encoder, name) for name in names] if p.others else []


QUICK = {"steps": 240, "selections": 2}  # of the fine-tuning after


def pruned(
    p: Profile,
    arms: Iterable[str],
    sizes: Iterable[float],
    seeds: Iterable[int],
    pair: Pair | None = None,
    unit: str = UNIT,
) -> Iterator[Spec]:
    """Arms x sizes, seed by seed, each fine-tuned after; a rival for no less time in all: a step of
    CoFi's pruning takes the time of two of fine-tuning, and it may end before its last."""
    sizes = tuple(sizes)
    for seed, size, arm in product(seeds, sizes, arms):
        longer = {} if arm in ARMS else {"steps": 2 * STEPS["steps"] + TUNED["steps"]}
        recipe = distilled_recipe(arm, **(QUICK if p.quick else longer))
        yield spec(p, arm, size, unit=unit, seed=seed, pair=pair or main(p), after=recipe)


def teachers(p: Profile) -> Iterator[Spec]:
    """Every dense model that something is compared with."""
    others = [pair for pair in (large(p), *tasks(p)) if pair]
    for pair in (main(p), *others):
        yield spec(p, "dense", 1.0, pair=pair)


def headline(p: Profile) -> Iterator[Spec]:
    """The two sizes of the talk's table."""
    for size in p.sizes[:2]:
        yield from pruned(p, ("cofi",), (size,), p.seeds)


def larger(p: Profile) -> Iterator[Spec]:
    """The larger encoder at the same two sizes, one seed each."""
    if pair := large(p):
        yield from pruned(p, ("cofi",), p.sizes[:2], p.seeds[:1], pair)


def other_tasks(p: Profile) -> Iterator[Spec]:
    """The other tasks at the same two sizes."""
    for seed, pair in product(p.seeds, tasks(p)):
        yield from pruned(p, ("cofi",), p.sizes[:2], (seed,), pair)


def curve(p: Profile) -> Iterator[Spec]:
    """The sizes between, for score against speed."""
    yield from pruned(p, ("cofi",), p.sizes[2:], p.seeds)


def units(p: Profile) -> Iterator[Spec]:
    """Which masks there are: fine ones alone, with layers, with hidden dims."""
    if not p.quick:
        yield from pruned(p, UNITS, p.sizes[:1], p.seeds)


def distillation(p: Profile) -> Iterator[Spec]:
    """Which losses there are: none, or on predictions alone; the latter at the larger size too."""
    if p.quick:
        return
    yield from pruned(p, DISTILLED, p.sizes[:1], p.seeds)
    yield from pruned(p, DISTILLED[:1], p.sizes[1:2], p.seeds)
    if pair := next(iter(tasks(p, ("mrpc",))), None):
        yield from pruned(p, DISTILLED, p.sizes[:1], p.seeds[:1], pair)


def matching(p: Profile) -> Iterator[Spec]:
    """To which layer of the student a layer of the teacher is matched."""
    if not p.quick:
        yield from pruned(p, MATCHED, p.sizes[:1], p.seeds)


def authors(p: Profile) -> Iterator[Spec]:
    """The settings of the published code, in as many steps as ours."""
    if not p.quick:
        yield from pruned(p, ("cofi-authors",), p.sizes[:1], p.seeds)


def starts(p: Profile) -> Iterator[Spec]:
    """The pretrained encoder as a student, which first learns with all masks dense."""
    if not p.quick:
        yield from pruned(p, ("cofi-pretrained",), p.sizes[:1], p.seeds)


def rivals(p: Profile) -> Iterator[Spec]:
    """Earlier methods from twice to ten times the speed, distilled alike and for no less time."""
    if p.quick:
        return
    for seed, (arm, (unit, sizes)) in product(p.seeds, RIVALS.items()):
        yield from pruned(p, (arm,), sizes, (seed,), unit=unit)


def behind(p: Profile) -> Iterator[Spec]:
    """The larger encoder by magnitude, about as fast as the small one is dense."""
    if pair := large(p):
        yield from pruned(p, ("magnitude",), BEHIND, p.seeds[:1], pair, unit="encoder")


def more(p: Profile) -> Iterator[Spec]:
    """Tier 2: MNLI, and the larger encoder on other tasks."""
    if not p.others:
        return
    for pair in tasks(p, ("mnli",)):
        yield spec(p, "dense", 1.0, pair=pair)
        yield from pruned(p, ("cofi",), p.sizes[:2], p.seeds[:1], pair)
    if large(p):
        for task in TASKS[:2]:
            yield spec(p, "dense", 1.0, pair=Pair(LARGE, task))
            yield from pruned(p, ("cofi",), p.sizes[:2], p.seeds[:1], Pair(LARGE, task))


def whole(p: Profile) -> Iterator[Spec]:
    """The paper's whole schedule, with its own start and rate for the masks."""
    if p.name != "paper" or not p.others:
        return
    recipe = distilled_recipe("cofi-paper", epochs=EPOCHS, lr=2e-5)
    del recipe["steps"]
    for size in p.sizes[:2]:
        yield spec(p, "cofi-paper", size, unit=UNIT, after=recipe)


GROUPS: dict[str, Group] = {
    "teachers": teachers,
    "headline": headline,
    "larger": larger,
    "other_tasks": other_tasks,
    "curve": curve,
    "units": units,
    "distillation": distillation,
    "matching": matching,
    "authors": authors,
    "starts": starts,
    "rivals": rivals,
    "behind": behind,
    "more": more,
    "whole": whole,
}

BATCHES, LENGTHS = (1, 32, 128), (32, 128)
SHORT = BATCHED | {"precision": "float32"}
ALONE = {"batch": 1, "length": 32, "padding": 32, "precision": "float32"}
SMALLEST = 0.05


def protocols(s: Spec) -> list[dict[str, Any]]:
    """Of the dense model and every pruned one in short batches; of the smallest in every way.

    Only SST-2's smallest is timed in every way: by batch, length and precision. A rival, and an
    ablation that is not about speed, is timed for one seed.
    """
    arm, tuned = arm_of(s), after_of(s) != "none"
    if s.method == "dense":
        return [] if tuned else [SHORT]
    if not tuned or (s.seed and arm not in ("cofi", *UNITS)):
        return []
    if arm != "cofi" or s.seed or s.budget != SMALLEST:
        return [SHORT]
    low = SHORT | {"precision": "bfloat16"}
    if s.task != "sst2":
        return [SHORT, low, ALONE]
    every = product(BATCHES, LENGTHS, ("float32", "bfloat16"))
    ways = [
        {"batch": batch, "length": length, "padding": length, "precision": precision}
        for batch, length, precision in every
        if (batch, length) != (32, 32)
    ]
    return [SHORT, low, *ways]
