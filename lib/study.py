"""Which runs does a chapter rest on? Profiles, the cells of the study, and what is missing."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from lib.errors import StudyError, unknown
from lib.runs import Run, Spec, Store, shape_key

DATA = Path(__file__).resolve().parent.parent / "data"
LOCAL = Path(os.environ.get("PRUNING_CACHE", DATA / "cache")) / "runs"
UNTESTED = DATA / "untested.yaml"

# --- arms: a method with the options that this study gives it -----------------------------------

# The headline reading of the slides: sample a subset of each head's dims by their norms. What is
# kept keeps its weight; `magnitude` is the same scores with the largest taken instead of sampled.
CORESET = {"axis": "head-dims", "importance": "product", "sampler": "without", "rescale": False}
AXES = ("head-dims", "layer-dims", "heads", "inputs")
IMPORTANCES = ("product", "first", "second")
SAMPLERS = ("pps", "without", "until-unique", "with")  # that weigh by importance
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "dense": ("dense", {}),
    "coreset": ("coreset", CORESET),
    "uniform": ("coreset", CORESET | {"sampler": "uniform"}),
    "magnitude": ("magnitude", {}),
    "svd": ("svd", {}),
    "random": ("random", {}),
    "unstructured": ("unstructured", {}),
    "gradient-talk": ("gradient", {"reading": "talk"}),
    "gradient-michel": ("gradient", {"reading": "michel"}),
    "taylor-once": ("taylor", {"steps": 1, "uneven": True}),
    "taylor-steps": ("taylor", {"steps": 8, "uneven": True}),
    "movement": ("movement", {}),
}
SAMPLED = ("coreset", "uniform")  # a seed draws what is kept; `random` draws just what uniform does
CALIBRATED = ("gradient-talk", "gradient-michel", "taylor-once", "taylor-steps", "movement")
FIXED = ("magnitude", "svd", "unstructured")  # nothing is drawn unless fine-tuning follows
PRUNED = SAMPLED + FIXED + CALIBRATED
SEES = {  # training data that an arm itself reads: a sample, or a stream of batches
    "gradient-talk": {"steps": 100, "batch": 32},
    "gradient-michel": {"examples": 512, "batch": 32},
    "taylor-once": {"examples": 512, "batch": 32},
    "taylor-steps": {"examples": 512, "batch": 32},
    "movement": {"steps": 200, "batch": 32},
}
SEES_QUICK = {"steps": 30, "examples": 128}
VERSIONS = dict.fromkeys((method for method, _ in ARMS.values()), 1)  # a test holds pruners to it

# --- recipes ------------------------------------------------------------------------------------

RECIPE = {"batch": 32, "warmup": 0.06, "precision": "bfloat16"}
TEACHERS = {  # (encoder, task): epochs, learning rate
    ("mpnet-base", "sst2"): (1, 3e-5),
    ("minilm-l6", "sst2"): (2, 5e-5),
    ("minilm-l6", "cola"): (5, 5e-5),
    ("minilm-l6", "mrpc"): (5, 5e-5),
    ("minilm-l6", "mr"): (2, 5e-5),
}
TEACHER_LR = {"bert-base-uncased": 2e-5}
AFTER_LR = {"minilm-l6": 5e-5}


def teacher_recipe(encoder: str, task: str) -> dict[str, Any]:
    """How the dense classifier is trained; its best state on a piece of train is kept."""
    epochs, lr = TEACHERS.get((encoder, task), (3, TEACHER_LR.get(encoder, 3e-5)))
    return RECIPE | {"epochs": epochs, "lr": lr, "selections": 4}


def after_recipe(
    encoder: str, *, steps: int | None = None, epochs: int | float | None = None
) -> dict:
    """How a pruned model is fine-tuned; give either steps or epochs."""
    length = {"steps": steps} if epochs is None else {"epochs": epochs}
    return RECIPE | length | {"lr": AFTER_LR.get(encoder, 2e-5)}


# --- profiles -----------------------------------------------------------------------------------


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
    seeds: tuple[int, ...] = (0, 1, 2)
    sampled: tuple[int, ...] = (0, 1, 2, 3, 4)  # of what samples, without fine-tuning
    steps: int = 200
    quick: bool = False  # a slice of every group, for minutes instead of hours

    @property
    def store(self) -> Store:
        return Store(self.folder)


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            "quick",
            LOCAL,
            "minilm-l6",
            "mr",
            full=(1.0, 0.7, 0.3, 0.1),
            seeds=(0,),
            sampled=(0,),
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
    seeds: int | Iterable[int] | None = None,
    budgets: Iterable[float] | None = None,
) -> Profile:
    """A profile, with a forker's wishes; another encoder or task goes to the local store."""
    if not isinstance(name, Profile):
        if name not in PROFILES:
            raise unknown("profile", name, PROFILES)
        name = PROFILES[name]
    if (encoder or name.encoder, task or name.task) != (name.encoder, name.task):
        pair = {"encoder": encoder or name.encoder, "task": task or name.task}
        name = replace(name, **pair, others=(), folder=LOCAL)
    if seeds is not None:
        chosen = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
        if not chosen:
            raise StudyError(f"wanted at least one seed, got {seeds!r}; give a number or a list")
        name = replace(name, seeds=chosen, sampled=chosen)
    if budgets is not None:
        chosen = tuple(budgets)
        if not chosen:
            raise StudyError("wanted at least one budget, got none; give fractions in (0, 1]")
        name = replace(name, budgets=chosen, full=chosen)
    return name


# --- groups of the opening chapter and of the coreset chapter, the most valuable first -----------

Group = Callable[[Profile], Iterator[Spec]]


def teachers(p: Profile) -> Iterator[Spec]:
    """Every dense model that something is compared with."""
    yield spec(p, "dense", 1.0)
    for pair in p.others:
        yield spec(p, "dense", 1.0, pair=pair)


def headline(p: Profile) -> Iterator[Spec]:
    """The slides' table without fine-tuning, beside what needs no data either."""
    if p.quick:
        yield from _cells(p, ("coreset", "uniform", "magnitude", "svd"), p.budgets, p.sampled)
        yield from _cells(p, ("unstructured",), p.budgets[-1:], p.sampled)
    else:
        yield from _cells(p, SAMPLED + FIXED, p.budgets, p.sampled)


def baselines(p: Profile) -> Iterator[Spec]:
    """The methods that look at data or labels, without fine-tuning."""
    if p.quick:
        yield from _cells(p, ("gradient-talk", "gradient-michel"), p.budgets[-1:], p.seeds)
    else:
        yield from _cells(p, CALIBRATED, p.budgets, p.seeds)


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
    for budget, options in product(p.budgets[2:3] if p.quick else p.budgets, readings(p.quick)):
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
    gordon = {"importance": "mussay", "rescale": True, "rounding": "down"}
    return [*found, CORESET | gordon]


def small_encoder(p: Profile) -> Iterator[Spec]:
    """The other encoders and tasks, without fine-tuning."""
    for pair in p.others:
        yield from _cells(p, PRUNED, p.budgets, p.seeds, pair=pair)


def full_model(p: Profile) -> Iterator[Spec]:
    """Attention and feed-forward part pruned alike, for score and time."""
    names = ("coreset",) if p.quick else ("coreset", "uniform", "magnitude")
    for budget in p.full:  # nothing is drawn where everything is kept
        seeds = p.seeds if budget < 1 else p.seeds[:1]
        yield from _cells(p, names, (budget,), seeds, unit="encoder")


def fine_tuned(p: Profile) -> Iterator[Spec]:
    """Every method fine-tuned for a few steps; the dense model too, which is the fair rival."""
    names = ("coreset", "magnitude") if p.quick else PRUNED
    budgets = p.budgets[-2:] if p.quick else p.budgets
    yield from _tuned(p, names, budgets, p.seeds, steps=p.steps)


def small_tuned(p: Profile) -> Iterator[Spec]:
    """The other encoders and tasks, fine-tuned for a few steps."""
    pairs = [pair for pair in p.others if pair.tuned]
    for seed, pair in product(p.seeds, pairs):
        yield from _tuned(p, PRUNED, p.budgets, (seed,), pair=pair, steps=p.steps)


def epoch(p: Profile) -> Iterator[Spec]:
    """A whole epoch where few steps may not be enough."""
    if not p.quick:
        names = ("coreset", "magnitude", "svd", "uniform")
        yield from _tuned(p, names, p.budgets[-2:], p.seeds[:1], epochs=1)


CHAPTERS: dict[str, dict[str, Group]] = {
    "anatomy": {"teachers": teachers},
    "coreset": {
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
    },
}


def spec(
    p: Profile,
    arm: str,
    budget: float,
    *,
    unit: str = "attention",
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    pair: Pair | None = None,
    after: Mapping[str, Any] | None = None,
) -> Spec:
    """One cell of a study: an arm, with `options` put over its own."""
    if arm not in ARMS:
        raise unknown("arm", arm, ARMS)
    method, own = ARMS[arm]
    encoder, task = (pair.encoder, pair.task) if pair else (p.encoder, p.task)
    teacher = teacher_recipe(encoder, task)
    training = {"teacher": teacher, "sees": _sees(p, arm), "after": after}
    version = VERSIONS[method]
    given = own | dict(options or {})
    return Spec(encoder, task, method, version, budget, unit, seed, given, training)


def _sees(p: Profile, arm: str) -> dict[str, int] | None:
    sees = SEES.get(arm)
    if sees and p.quick:
        return {name: SEES_QUICK.get(name, value) for name, value in sees.items()}
    return sees


def _cells(
    p: Profile, names: Iterable[str], budgets: Iterable[float], seeds: Iterable[int], **more: Any
) -> Iterator[Spec]:
    """Arms x budgets, seed by seed; without fine-tuning one seed does for what is fixed."""
    budgets = tuple(budgets)
    for place, seed in enumerate(seeds):
        for name in names:
            if place == 0 or name not in FIXED:
                yield from (spec(p, name, budget, seed=seed, **more) for budget in budgets)


def _tuned(
    p: Profile,
    names: Iterable[str],
    budgets: Iterable[float],
    seeds: Iterable[int],
    pair: Pair | None = None,
    **length: Any,
) -> Iterator[Spec]:
    after = after_recipe(pair.encoder if pair else p.encoder, **length)
    for seed in seeds:
        if "steps" in length and not p.quick:
            yield spec(p, "dense", 1.0, seed=seed, pair=pair, after=after)
        for name, budget in product(names, budgets):
            yield spec(p, name, budget, seed=seed, pair=pair, after=after)


# --- what a chapter rests on ----------------------------------------------------------------------


def groups(chapter: str, name: str | Profile, **overrides: Any) -> dict[str, list[Spec]]:
    """The specs of a chapter by group, the most valuable group first; groups may overlap."""
    if chapter not in CHAPTERS:
        raise unknown("chapter", chapter, CHAPTERS)
    p = profile(name, **overrides)
    return {name: list(dict.fromkeys(group(p))) for name, group in CHAPTERS[chapter].items()}


def specs(
    chapter: str, name: str | Profile, group: str | None = None, **overrides: Any
) -> list[Spec]:
    """Every run that a chapter rests on, each once; `overrides` are those of `profile`."""
    found = groups(chapter, name, **overrides)
    if group is not None and group not in found:
        raise unknown("group", group, found)
    chosen = found.values() if group is None else [found[group]]
    return list(dict.fromkeys(spec for part in chosen for spec in part))


def expected(
    chapter: str, name: str | Profile, group: str | None = None, **overrides: Any
) -> list[Spec]:
    """What a book can ask for: `specs` without the cells that are missing and marked untested."""
    p = profile(name, **overrides)
    cells_of = {cell.spec: cell for cell in cells(p, chapters=(chapter,))}
    return [s for s in specs(chapter, p, group) if cells_of[s].status != "untested"]


@dataclass(frozen=True)
class Cell:
    """One spec in its chapter and group: present, untested (with the reason) or missing."""

    chapter: str
    group: str
    spec: Spec
    status: str
    why: str = ""


def cells(name: str | Profile, chapters: Iterable[str] = tuple(CHAPTERS)) -> list[Cell]:
    """Every cell of a profile once, at the first group that wants it."""
    p = profile(name)
    marks, store, found = untested(), p.store, {}
    for chapter in chapters:
        for group, wanted in groups(chapter, p).items():
            for s in wanted:
                if (chapter, s) not in found:
                    found[chapter, s] = _cell(chapter, group, s, p, store, marks)
    return list(found.values())


def _cell(
    chapter: str, group: str, s: Spec, p: Profile, store: Store, marks: tuple["Mark", ...]
) -> Cell:
    if store.has(s):
        return Cell(chapter, group, s, "present")
    mark = next((mark for mark in marks if mark.covers(p.name, chapter, group, s)), None)
    return Cell(chapter, group, s, "untested" if mark else "missing", mark.why if mark else "")


def missing(name: str | Profile, chapter: str | None = None) -> list[Spec]:
    """What is not on record, the most valuable first; marked untested or not."""
    chapters = CHAPTERS if chapter is None else (chapter,)
    found = (cell.spec for cell in cells(name, chapters) if cell.status != "present")
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Sweep:
    """Missing specs that one process computes: they share encoder, task, method and seed."""

    name: str
    specs: tuple[Spec, ...]


def sweeps(name: str | Profile, chapter: str | None = None) -> list[Sweep]:
    """Missing specs as jobs; the order is that of the groups, so the best value comes first."""
    chapters = CHAPTERS if chapter is None else (chapter,)
    jobs: dict[str, dict[Spec, None]] = {}
    taken: set[Spec] = set()
    for cell in cells(name, chapters):
        s = cell.spec
        if cell.status != "present" and s not in taken:
            taken.add(s)
            parts = (cell.group, s.encoder, s.task, s.method, f"s{s.seed}")
            job = "--".join(part.replace("/", "-") for part in parts)
            jobs.setdefault(job, {})[s] = None
    return [Sweep(job, tuple(wanted)) for job, wanted in jobs.items()]


def describe_missing(name: str | Profile) -> str:
    """A line a group: how many of its cells are on record, untested and missing."""
    counts: dict[tuple[str, str], Counter] = {}
    for cell in cells(name):
        counts.setdefault((cell.chapter, cell.group), Counter())[cell.status] += 1
    return "\n".join(
        f"{chapter}/{group}: {count.total()} cells, {count['present']} on record, "
        f"{count['untested']} untested, {count['missing']} missing"
        for (chapter, group), count in counts.items()
    )


# --- selecting ------------------------------------------------------------------------------------

FIELDS = ("encoder", "task", "method", "budget", "unit", "seed")


def matches(s: Spec, select: Mapping[str, Any]) -> bool:
    """Does a spec fit a selection? Its keys: fields of a Spec, `arm`, `options.NAME`, and `after`
    (none, steps, epochs); a value may be a list of which one must hold."""
    return all(_holds(s, name, wanted) for name, wanted in select.items())


def check_select(select: Any, where: str) -> None:
    """StudyError unless `select` is a mapping with keys that `matches` knows."""
    if not isinstance(select, Mapping):
        raise StudyError(f"{where}: wanted a selection as a mapping, got {select!r}")
    for name in select:
        if name not in (*FIELDS, "arm", "after") and not str(name).startswith("options."):
            raise StudyError(f"{where}: {unknown('key of a selection', name, _KEYS)}")
    for arm in _several(select.get("arm", ())):
        if arm not in ARMS:
            raise StudyError(f"{where}: {unknown('arm', arm, ARMS)}")


_KEYS = (*FIELDS, "arm", "after", "options.NAME")


def _holds(s: Spec, name: str, wanted: Any) -> bool:
    if name == "arm":
        return arm_of(s) in _several(wanted)
    if name == "after":
        return after_of(s) in _several(wanted)
    if name.startswith("options."):
        return s.options.get(name.removeprefix("options.")) in _several(wanted)
    if name not in FIELDS:
        raise unknown("key of a selection", name, _KEYS)
    return getattr(s, name) in _several(wanted)


def _several(wanted: Any) -> tuple:
    return tuple(wanted) if isinstance(wanted, list | tuple) else (wanted,)


@cache
def arm_of(s: Spec) -> str:
    """The arm of a spec, or "" for another reading of its method."""
    same = (arm for arm, (method, own) in ARMS.items() if (method, own) == (s.method, s.options))
    return next(same, "")


def after_of(s: Spec) -> str:
    """How it was fine-tuned after pruning: none, steps or epochs."""
    after = s.training["after"]
    return "none" if after is None else "epochs" if after.get("epochs") else "steps"


# --- untested -------------------------------------------------------------------------------------


PLACE = ("profile", "chapter", "group")


@dataclass(frozen=True)
class Mark:
    """Cells that were not run, and why; `select` may also name profile, chapter and group."""

    select: dict[str, Any]
    why: str

    def covers(self, profile_name: str, chapter: str, group: str, s: Spec) -> bool:
        place = dict(zip(PLACE, (profile_name, chapter, group), strict=True))
        rest = {name: value for name, value in self.select.items() if name not in PLACE}
        here = (
            place[name] in _several(value) for name, value in self.select.items() if name in PLACE
        )
        return all(here) and matches(s, rest)


def untested() -> tuple[Mark, ...]:
    """The cells that the study does without, from data/untested.yaml."""
    path = UNTESTED
    try:
        rows = yaml.safe_load(path.read_text()) or []
    except yaml.YAMLError as error:
        line = " ".join(str(error).split())
        raise StudyError(f"{path} is not YAML ({line}); mend it") from error
    found = []
    for row in rows if isinstance(rows, list) else [rows]:
        if not isinstance(row, dict) or set(row) != {"select", "why"} or not row["why"]:
            raise StudyError(f"{path}: wanted rows of select and why, got {row!r}; mend it")
        select = row["select"]
        if isinstance(select, Mapping):
            inner = {name: value for name, value in select.items() if name not in PLACE}
        else:
            inner = select
        check_select(inner, str(path))
        found.append(Mark(select, row["why"]))
    return tuple(found)


# --- timings --------------------------------------------------------------------------------------

LENGTHS = (16, 32, 64, 128, 256, 384, 512)  # of the opening chapter, one sequence at a time
BATCHED = {"batch": 32, "length": 32, "padding": 128}  # short sentences, as SST-2's
ZEROED = 0.3  # the density at which mere zeros are timed


@dataclass(frozen=True)
class Clocked:
    """A shape to be timed, and how; `make timings` adds the machine's own part of the protocol."""

    encoder: str
    shape: dict[str, Any]
    protocol: dict[str, Any]


def timings(chapter: str, name: str | Profile, runs: Iterable[Run]) -> list[Clocked]:
    """What to time for a chapter, from the shapes on record; each shape and protocol once."""
    wanted = set(specs(chapter, name))
    found: dict[tuple, Clocked] = {}
    for run in (run for run in runs if run.spec in wanted):
        for protocol in _protocols(chapter, run.spec):
            key = (run.spec.encoder, shape_key(run.shape), tuple(protocol.items()))
            found.setdefault(key, Clocked(run.spec.encoder, run.shape, protocol))
    return list(found.values())


def _protocols(chapter: str, s: Spec) -> list[dict[str, Any]]:
    plain = after_of(s) == "none"
    if chapter == "anatomy":
        lengths = LENGTHS if plain and s.method == "dense" else ()
        return [
            {"batch": 1, "length": length, "padding": length, "precision": "float32"}
            for length in lengths
        ]
    if plain and arm_of(s) == "unstructured" and s.budget == ZEROED:
        return [BATCHED | {"precision": "float32", "zeroed": round(1 - ZEROED, 6)}]
    if plain and (s.method == "dense" or (arm_of(s) == "coreset" and s.seed == 0)):
        return [BATCHED | {"precision": precision} for precision in ("float32", "bfloat16")]
    return []
