"""Which runs does the KCM chapter rest on? Its groups, the most valuable first."""

from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

from lib.runs import Question, Spec
from lib.study.arms import VERSIONS, own_sees, spec, teacher_recipe
from lib.study.arms.kcm import ARMS
from lib.study.blocks import BATCHED, Group, pruned
from lib.study.profiles import Pair, Profile
from lib.study.selecting import after_of, arm_of, sees_of

HEADLINE = ("kcm", "mask-tuning", "ffn-w2", "ffn-both-unscaled")
BY_BUDGET = (*HEADLINE, "ffn-rms", "k-prune")  # with the best control and the strongest peer
ALONE = ("kcm-r2", "kcm-d2")
REST = (  # of the two budgets of the paper's table
    *("kcm-unscaled", "kcm-refit", *ALONE, "kcm-r2-unscaled", "kcm-d2-unscaled", "kcm-voting"),
    *("kcm-layerwise", "kcm-even", "kcm-512", "kcm-1k"),
    *("ffn-w1", "ffn-both", "ffn-w1-unscaled", "ffn-w2-unscaled", "ffn-output", "ffn-rms"),
    *("ffn-energy", "ffn-random", "flap", "mask-tuning-untuned", "k-prune"),
    *("taylor-apart", "taylor-steps"),
)
DRAWN = (*ALONE, "ffn-output")  # of the paper's figure, where little is pruned
PAIRS = {  # the cheapest first, MNLI's ten thousand pairs last
    "published": tuple(
        Pair(encoder, task)
        for tasks in (("sst2", "cola", "mrpc", "stsb"), ("mnli",))
        for encoder in ("minilm-l6", "mpnet-base")
        for task in tasks
    ),
    "paper": tuple(
        Pair("bert-base-uncased", task) for task in ("sst2", "mrpc", "stsb", "mnli", "qnli", "qqp")
    ),
}
SPEED = 0.6  # the budget at which shapes are timed
TIMED = ("kcm", "mask-tuning", "ffn-w2")
SIZES = (512, 1024, 4096)  # of the calibration sample, beside the arm's own
ELSEWHERE = "cola"  # the task whose sentences are the calibration sample out of domain


def pairs(p: Profile) -> list[Pair]:
    """The profile's own encoder and task, then the chapter's others; a fork has only its own."""
    own = Pair(p.encoder, p.task)
    others = PAIRS.get(p.name, ()) if p.others else ()
    return [own, *(pair for pair in others if pair != own)]


def _cells(p: Profile, arms: Iterable[str], budgets: Iterable[float]) -> Iterator[Spec]:
    for pair in pairs(p):
        yield from pruned(p, arms, budgets, p.seeds, unit="macs", pair=pair)


def teachers(p: Profile) -> Iterator[Spec]:
    """Every dense model that something is compared with."""
    for pair in pairs(p):
        yield spec(p, "dense", 1.0, pair=pair)


def headline(p: Profile) -> Iterator[Spec]:
    """KCM beside what reads labels, what reads row norms, and the magnitude that it should beat."""
    yield from _cells(p, HEADLINE, p.macs[:2])


def methods(p: Profile) -> Iterator[Spec]:
    """Every other method, and the parts of KCM, at the two budgets of the paper's table."""
    if p.quick:
        yield from _cells(p, (*ALONE, "kcm-unscaled", "ffn-random"), p.macs[:1])
    else:
        yield from _cells(p, REST, p.macs[:2])


def budgets(p: Profile) -> Iterator[Spec]:
    """The rest of the curve, with the cliff that the paper has at one half."""
    yield from _cells(p, ("kcm", "ffn-w2") if p.quick else BY_BUDGET, p.macs[2:])


def alone(p: Profile) -> Iterator[Spec]:
    """R2 and D2 each by itself where little is pruned: there the paper's merge gains nothing.

    And the scaled magnitude that the paper's figure has, at every budget.
    """
    if not p.quick:
        yield from _cells(p, ("ffn-both",), p.macs[2:])
        yield from _cells(p, DRAWN, [budget for budget in p.macs[2:] if budget > p.macs[0]])


def seeds(p: Profile) -> Iterator[Spec]:
    """Ten calibration samples, which is what chance there is in KCM."""
    for pair in pairs(p):
        yield from pruned(p, ("kcm",), p.macs[:1], p.calibrated, unit="macs", pair=pair)


def samples(p: Profile) -> Iterator[Spec]:
    """More calibration sentences, fewer, and another task's."""
    sizes = (64, 128) if p.quick else SIZES
    changes: list[dict[str, Any]] = [{"examples": size} for size in sizes]
    if not p.quick and p.others and p.task != ELSEWHERE:
        changes.append({"task": ELSEWHERE})
    for change in changes:
        yield from pruned(p, ("kcm",), p.macs[:1], p.seeds, unit="macs", sees=change)


STATISTICS, NORMALISERS = ("abs", "mean", "rms"), ("l2", "min-max", "sum", "max")
SINGLE = ({"kernel": "s2"}, {"stop": "abs"}, {"guide": "dense"}, {"heads": True})
# Some fifty updates of 2 N^3 a layer: minutes on the small encoder, an hour on a larger one, which
# only the profile is worth in which the paper's counts by layer can decide.
SLOW = {"stop": "l1"}
SMALL = "minilm-l6"


def readings(p: Profile) -> Iterator[Spec]:
    """What paper and talk leave open, beside the method's own reading (the first of either list):
    D2's statistic and its normaliser, R2's kernel and stop rule, the teacher of the scaling and
    whether heads are scaled too."""
    own, changes = {"activation": STATISTICS[0], "normaliser": NORMALISERS[0]}, []
    for pair in product(STATISTICS, NORMALISERS):
        given = dict(zip(own, pair, strict=True))
        changes.append({name: value for name, value in given.items() if value != own[name]})
    changes = [{"activation": "mean", "normaliser": "min-max"}] if p.quick else [*changes, *SINGLE]
    for pair in pairs(p)[:2]:
        slow = [SLOW] if (pair.encoder == SMALL or p.name == "paper") and not p.quick else []
        for change in filter(None, [*changes, *slow]):
            yield spec(p, "kcm", p.macs[0], unit="macs", seed=p.seeds[0], options=change, pair=pair)


GROUPS: dict[str, Group] = {
    "teachers": teachers,
    "headline": headline,
    "methods": methods,
    "budgets": budgets,
    "seeds": seeds,
    "samples": samples,
    "readings": readings,
    "alone": alone,
}


def protocols(s: Spec) -> list[dict[str, Any]]:
    """Of the dense model, and of one seed of what is compared for speed, at the talk's budget."""
    plain = after_of(s) == "none" and s.seed == 0
    chosen = s.unit == "macs" and s.budget == SPEED and arm_of(s) in TIMED and sees_of(s) == "own"
    if plain and (s.method == "dense" or chosen):
        return [BATCHED | {"precision": "float32"}]
    return []


def questions(p: Profile) -> Iterator[Question]:
    """What no run answers: hulls, rankings on the main encoder, and a transformer of images."""
    yield Question("hull", 2, _hull(p.quick))
    place = {"encoder": p.encoder, "task": p.task, "seed": 0}
    sees = own_sees("kcm", p.task)[p.quick]
    place |= {"teacher": teacher_recipe(p.encoder, p.task), "sees": sees}
    versions = {ARMS[arm][0]: VERSIONS[ARMS[arm][0]] for arm in RANKED}
    arms = {arm: {"method": ARMS[arm][0], "options": ARMS[arm][1]} for arm in RANKED}
    yield Question("rankings", 1, place | {"arms": arms, "versions": versions})
    norms = {name: place[name] for name in ("encoder", "task", "seed", "teacher")}
    yield Question("norms", 1, norms | {"readings": [list(r) for r in _readings(p)]})
    yield Question("vision", 1, _vision(p))


RANKED = (
    *("kcm", "kcm-r2", "kcm-d2", "kcm-layerwise", "ffn-w1", "ffn-w2", "ffn-both"),
    *("ffn-output", "ffn-rms", "ffn-energy", "flap", "mask-tuning-untuned"),
)


def _readings(p: Profile) -> list[tuple[str, str]]:
    """Kernel and stop rule of R2; the slow one where it may decide."""
    first = [("2s2", "signed"), ("s2", "signed"), ("2s2", "abs")]
    more = [("s2", "abs"), *([("2s2", SLOW["stop"])] if p.name == "paper" else [])]
    return first if p.quick else [*first, *more]


def _hull(quick: bool) -> dict[str, Any]:
    """Normal points for the typical hull, points of a curve for the worst."""
    return {
        "points": 60 if quick else 200,
        "dimensions": list(range(2, 7 if quick else 9)),
        "curve": {"dimensions": [2, 4] if quick else [2, 4, 6], "points": [64, 128]},
        "kernel": {"points": 256 if quick else 1024, "dimensions": [2, 4, 8, 32, 128, 768]},
        "rounds": 1 if quick else 5,
        "seed": 0,
    }


def _vision(p: Profile) -> dict[str, Any]:
    """Training from scratch, and the budgets at which it is pruned."""
    return {
        "epochs": 20 if p.quick else 60,
        "seeds": list(range(1 if p.quick else 3)),
        "budgets": sorted(p.macs[:1] if p.quick else p.macs, reverse=True),
        "calibration": 256 if p.quick else 1024,
        "versions": {"kcm": VERSIONS["kcm"], "ffn": VERSIONS["ffn"]},
    }
