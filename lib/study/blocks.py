"""Of what are a chapter's groups and timings built? Arms x budgets x seeds, tuned or not."""

from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Any

from lib.runs import Spec
from lib.study.arms import after_recipe, spec
from lib.study.arms.coreset import FIXED
from lib.study.arms.kcm import ONCE
from lib.study.profiles import Pair, Profile

Group = Callable[[Profile], Iterator[Spec]]
BATCHED = {"batch": 32, "length": 32, "padding": 128}  # short sentences, as SST-2's


def teachers(p: Profile) -> Iterator[Spec]:
    """Every dense model that something is compared with."""
    yield spec(p, "dense", 1.0)
    for pair in p.others:
        yield spec(p, "dense", 1.0, pair=pair)


def pruned(
    p: Profile, names: Iterable[str], budgets: Iterable[float], seeds: Iterable[int], **more: Any
) -> Iterator[Spec]:
    """Arms x budgets, seed by seed; without fine-tuning one seed does for what is fixed."""
    budgets = tuple(budgets)
    for place, seed in enumerate(seeds):
        for name in names:
            if place == 0 or name not in FIXED + ONCE:
                yield from (spec(p, name, budget, seed=seed, **more) for budget in budgets)


def tuned(
    p: Profile,
    names: Iterable[str],
    budgets: Iterable[float],
    seeds: Iterable[int],
    pair: Pair | None = None,
    **length: Any,
) -> Iterator[Spec]:
    """The same fine-tuned after, by steps or epochs; by steps the dense model is too."""
    after = after_recipe(pair.encoder if pair else p.encoder, **length)
    for seed in seeds:
        if "steps" in length and not p.quick:
            yield spec(p, "dense", 1.0, seed=seed, pair=pair, after=after)
        for name, budget in product(names, budgets):
            yield spec(p, name, budget, seed=seed, pair=pair, after=after)
