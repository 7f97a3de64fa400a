"""Which runs does the coreset chapter rest on? Its groups, the most valuable first."""

from collections.abc import Iterator
from itertools import product
from typing import Any

from lib.runs import Spec
from lib.study.arms import spec
from lib.study.arms.coreset import CALIBRATED, CORESET, FIXED, PRUNED, SAMPLED
from lib.study.blocks import BATCHED, Group, pruned, teachers, tuned
from lib.study.profiles import Profile
from lib.study.selecting import after_of, arm_of

AXES = ("head-dims", "layer-dims", "heads", "inputs")
IMPORTANCES = ("product", "first", "second")
SAMPLERS = ("pps", "without", "until-unique", "with")  # that weigh by importance
ZEROED = 0.3  # the density at which mere zeros are timed


def headline(p: Profile) -> Iterator[Spec]:
    """The slides' table without fine-tuning, beside what needs no data either."""
    if p.quick:
        yield from pruned(p, ("coreset", "uniform", "magnitude", "svd"), p.budgets, p.sampled)
        yield from pruned(p, ("unstructured",), p.budgets[-1:], p.sampled)
    else:
        yield from pruned(p, SAMPLED + FIXED, p.budgets, p.sampled)


def baselines(p: Profile) -> Iterator[Spec]:
    """The methods that look at data or labels, without fine-tuning."""
    if p.quick:
        yield from pruned(p, ("gradient-talk", "gradient-michel"), p.budgets[-1:], p.seeds)
    else:
        yield from pruned(p, CALIBRATED, p.budgets, p.seeds)


def samplers(p: Profile) -> Iterator[Spec]:
    """Five seeds of whatever samples, at the headline reading."""
    if p.quick:
        return
    ways = product(p.sampled, ("uniform", *SAMPLERS), (False, True), p.budgets)
    for seed, sampler, rescale, budget in ways:
        options = {"sampler": sampler, "rescale": rescale}
        yield spec(p, "coreset", budget, seed=seed, options=options)


def grid(p: Profile) -> Iterator[Spec]:
    """The readings that the slides leave open: axis x importance x sampler x rescale.

    Left out, as they mean nothing: an importance for uniform sampling or for `inputs` (each matrix
    goes by its own norms there), and a rescaled `top` (what is sure to be kept has weight 1). The
    last point is Gordon's of 2020: Mussay's importance, drawn without replacement and rescaled as
    if drawn with it.
    """
    middle = min(p.budgets, key=lambda budget: abs(budget - 0.5))
    for budget, options in product((middle,) if p.quick else p.budgets, readings(p.quick)):
        yield spec(p, "coreset", budget, seed=p.sampled[0], options=options)


def readings(quick: bool = False) -> list[dict[str, Any]]:
    """Every reading of the slides, as options of `coreset`; `quick` gives a slice."""
    if quick:
        changes = (
            *({"axis": axis} for axis in AXES[1:]),
            *({"sampler": sampler} for sampler in ("top", "pps", "until-unique", "with")),
            {"rescale": True},
            {"importance": "first"},
        )
        return [CORESET | change for change in changes]
    found = []
    for axis in AXES:
        for importance in ("product",) if axis == "inputs" else IMPORTANCES:
            base = {"axis": axis, "importance": importance}
            found.append(base | {"sampler": "top", "rescale": False})
            for sampler, rescale in product(("uniform", *SAMPLERS), (False, True)):
                if sampler != "uniform" or importance == "product":
                    found.append(base | {"sampler": sampler, "rescale": rescale})
    # a public experiment on BERT of 2020: weighted 1 / (m p), but drawn without replacement
    gordon = {"importance": "mussay", "rescale": True, "rounding": "down"}
    return [*found, CORESET | gordon]


def small_encoder(p: Profile) -> Iterator[Spec]:
    """The other encoders and tasks, without fine-tuning."""
    for pair in p.others:
        yield from pruned(p, PRUNED, p.budgets, p.seeds, pair=pair)


def full_model(p: Profile) -> Iterator[Spec]:
    """Attention and feed-forward part pruned alike, for score and time."""
    names = ("coreset",) if p.quick else ("coreset", "uniform", "magnitude")
    for budget in p.full:  # nothing is drawn where everything is kept
        seeds = p.seeds if budget < 1 else p.seeds[:1]
        yield from pruned(p, names, (budget,), seeds, unit="encoder")


def fine_tuned(p: Profile) -> Iterator[Spec]:
    """Every method fine-tuned for a few steps; the dense model too, which is the fair rival."""
    names = ("coreset", "magnitude") if p.quick else PRUNED
    budgets = p.budgets[-1:] if p.quick else p.budgets
    yield from tuned(p, names, budgets, p.seeds, steps=p.steps)


def small_tuned(p: Profile) -> Iterator[Spec]:
    """The other encoders and tasks, fine-tuned for a few steps."""
    pairs = [pair for pair in p.others if pair.tuned]
    for seed, pair in product(p.seeds, pairs):
        yield from tuned(p, PRUNED, p.budgets, (seed,), pair=pair, steps=p.steps)


def epoch(p: Profile) -> Iterator[Spec]:
    """A whole epoch where few steps may not be enough."""
    if not p.quick:
        names = ("coreset", "magnitude", "svd", "uniform")
        yield from tuned(p, names, p.budgets[-2:], p.seeds[:1], epochs=1)


GROUPS: dict[str, Group] = {
    "teachers": teachers,
    "headline": headline,
    "baselines": baselines,
    "samplers": samplers,
    "grid": grid,
    "small_encoder": small_encoder,
    "full_model": full_model,
    "fine_tuned": fine_tuned,
    "small_tuned": small_tuned,
    "epoch": epoch,
}


def protocols(s: Spec) -> list[dict[str, Any]]:
    """Of the dense model, of one seed of the coreset, and of zeros that are merely multiplied."""
    plain = after_of(s) == "none"
    if plain and arm_of(s) == "unstructured" and s.budget == ZEROED:
        return [BATCHED | {"precision": "float32", "zeroed": round(1 - ZEROED, 6)}]
    if plain and (s.method == "dense" or (arm_of(s) == "coreset" and s.seed == 0)):
        return [BATCHED | {"precision": precision} for precision in ("float32", "bfloat16")]
    return []
