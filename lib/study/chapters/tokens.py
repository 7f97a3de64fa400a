"""Which runs does the token chapter rest on? Its groups, the most valuable first."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lib.runs import Run, Spec
from lib.study import blocks
from lib.study.arms import RECIPE, spec
from lib.study.arms.tokens import CONTROLS, FREE, LONGER, READINGS, TAUGHT, TOKENS, WEIGHTS
from lib.study.blocks import Group
from lib.study.profiles import Pair, Profile
from lib.study.selecting import arm_of, sees_of

SMALL = "minilm-l6"  # the published study's encoder of this chapter
FACTOR = 0.48  # of LTP, 2.1 times less work
FIRST, BOTH = 0.6, 0.3  # work that filters leave, and that tokens leave of it after them
STACKED = ("power-bert", "ltp")
PADDED = {"sst2": 64, "cola": 64, "mr": 64, "imdb": 512}  # tokens that papers pad to; else 128
PRECISION = "float32"  # of timings


def lead(p: Profile) -> Pair:
    """The encoder and task that the chapter is mainly about."""
    small = Pair(SMALL, p.task)
    return small if small in p.others else Pair(p.encoder, p.task)


def padded(task: str) -> int:
    """To how many tokens the papers pad a task's texts."""
    return PADDED.get(task, 128)


def _cells(
    p: Profile,
    pair: Pair,
    arms: Iterable[str],
    budgets: Iterable[float],
    seeds: Iterable[int],
    sees: Mapping[str, Any] | None = None,
) -> Iterator[Spec]:
    budgets, arms = tuple(budgets), tuple(arms)
    for seed in seeds:
        for budget in budgets:
            for arm in arms:
                yield spec(p, arm, budget, unit="executed", seed=seed, pair=pair, sees=sees)


def _wide(p: Profile) -> bool:
    """More than one encoder and task: a study of ours, and no fork of it."""
    return bool(p.others)


def teachers(p: Profile) -> Iterator[Spec]:
    """The dense models; long reviews need one of their own."""
    yield from blocks.teachers(p)
    if p.name == "published" and _wide(p):
        yield spec(p, "dense", 1.0, pair=Pair(SMALL, "imdb"))


def frontier(p: Profile) -> Iterator[Spec]:
    """Every method and control at equal executed MACs."""
    full = (*TOKENS, *CONTROLS, TAUGHT)
    arms = ("power-bert", "ltp", *CONTROLS) if p.quick else full
    yield from _cells(p, lead(p), arms, p.executed, p.seeds)


def own(p: Profile) -> Iterator[Spec]:
    """The papers' own points: LTP's factor, Transkimmer left alone, in both its forms.

    A paper's drop is asked of it, not whether another choice of tokens does better: no controls.
    """
    if _wide(p):
        yield from _cells(p, lead(p), FREE, (1 / 2,), p.seeds)
        yield from _cells(p, lead(p), ("ltp",), (FACTOR,), p.seeds)


def cola(p: Profile) -> Iterator[Spec]:
    """Short sentences, of which padding is most; PoWER-BERT's own point has no controls."""
    if _wide(p):
        pair = Pair(lead(p).encoder, "cola")
        yield from _cells(p, pair, TOKENS + CONTROLS, p.executed, p.seeds)
        yield from _cells(p, pair, ("power-bert",), (0.22,), p.seeds)


def mrpc(p: Profile) -> Iterator[Spec]:
    """Pairs of sentences."""
    if _wide(p):
        pair = Pair(lead(p).encoder, "mrpc")
        yield from _cells(p, pair, TOKENS + CONTROLS, p.executed, p.seeds[:1])


def imdb(p: Profile) -> Iterator[Spec]:
    """Reviews of up to 512 tokens, where the quadratic part counts.

    The dense model is trained on as well: its teacher has read no more reviews than a method trains
    on, so that a method may gain by the training what it loses by the pruning.
    """
    if p.name == "published" and _wide(p):
        pair = Pair(SMALL, "imdb")
        cells = list(_cells(p, pair, TOKENS + CONTROLS, p.executed[-1:], p.seeds[:1]))
        yield from cells
        sees = {name: cells[0].training["sees"][name] for name in ("steps", "batch")}
        yield spec(p, "dense", 1.0, pair=pair, after=RECIPE | sees | WEIGHTS)


def large(p: Profile) -> Iterator[Spec]:
    """The larger encoder."""
    if _wide(p) and lead(p).encoder != p.encoder:
        pair = Pair(p.encoder, p.task)
        arms = ("power-bert", "ltp", *CONTROLS)
        yield from _cells(p, pair, arms, p.executed[-1:], p.seeds[:1])


def stacked(p: Profile) -> Iterator[Spec]:
    """Two roads to the same work: tokens alone, or filters first and then tokens. Each road is the
    other's control."""
    if _wide(p):
        pair = lead(p)
        for seed in p.seeds:
            first = spec(p, "kcm", FIRST, unit="macs", seed=seed, pair=pair)
            yield first
            for arm in STACKED:
                yield from _cells(p, pair, (arm,), (BOTH,), (seed,))
                yield spec(p, arm, BOTH, unit="executed", seed=seed, pair=pair, base=first)


def longer(p: Profile) -> Iterator[Spec]:
    """Four times the steps: does more training close the gap to the papers? At their own points."""
    if _wide(p):
        for arm, budget in (("power-bert", p.executed[-1]), ("ltp", FACTOR)):
            yield from _cells(p, lead(p), (arm,), (budget,), p.seeds[:1], sees=LONGER)


def readings(p: Profile) -> Iterator[Spec]:
    """ToP by its released code, and LTP with thresholds that rise to the budget; the latter on the
    stacked road's own work too, where the study's LTP does not learn."""
    if _wide(p):
        yield from _cells(p, lead(p), READINGS, p.executed, p.seeds)
        yield from _cells(p, lead(p), READINGS[1:], (BOTH,), p.seeds)


def more(p: Profile) -> Iterator[Spec]:
    """Tier 2: MNLI, pairs of sentences and three answers."""
    if p.name == "published" and _wide(p):
        pair = Pair(SMALL, "mnli")
        yield spec(p, "dense", 1.0, pair=pair)
        yield from _cells(p, pair, ("power-bert", "ltp"), p.executed[-1:], p.seeds[:1])


GROUPS: dict[str, Group] = {
    "teachers": teachers,
    "frontier": frontier,
    "own": own,
    "stacked": stacked,
    "cola": cola,
    "mrpc": mrpc,
    "imdb": imdb,
    "large": large,
    "longer": longer,
    "readings": readings,
    "more": more,
}


def protocols(s: Spec) -> list[dict[str, Any]]:
    """Nothing: how long a token-pruned model takes, its shape does not tell. See `clocked`."""
    return []


def clocked(run: Run) -> list[dict[str, Any]]:
    """How a run that dropped tokens is timed: its rule on random weights, forced to leave the mean
    number of tokens that it left in each layer; a text at a time, and batches of 32 of like length,
    as long as their longest. Of one seed, and of no run that was merely trained for longer or by
    another reading."""
    ran = run.trace.get("tokens")
    if not ran or run.spec.seed or sees_of(run.spec) == "other" or arm_of(run.spec) in READINGS:
        return []
    part = 1 if ran["rule"]["rule"] == "rank" else 0  # what a rule forces: see tokens.config
    found = []
    for batch, lengths in ((1, ran), (32, ran["batched"])):
        forced = [max(1, round(n)) for n in lengths["mean"][part::2]]
        length = max(1, round(lengths["length"]))
        padding = max(length, padded(run.spec.task))
        own = {"batch": batch, "length": length, "padding": padding, "precision": PRECISION}
        found.append(own | {"tokens": ran["rule"] | {"forced": forced}})
    return found
