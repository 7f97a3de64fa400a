"""What do the runs say, as tidy tables? One row a run, a cell, a stated number or a timing."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lib import study
from lib.claims import Claim, Finding
from lib.claims.answers import wilson
from lib.claims.quantities import QUANTITIES, Evidence, macs
from lib.errors import StudyError
from lib.runs import Run, Timing, of_one_machine, shape_key, unpack_examples

READING = ("axis", "importance", "sampler", "rescale")  # what the slides leave open
CELL = ("encoder", "task", "arm", "unit", "after", "budget")
PARTS = ("attention", "encoder_part", "model", "macs")  # densities: of parameters, three ways, MACs
MEASURES = ("score", "drop")


def runs(found: Iterable[Run]) -> pd.DataFrame:
    """One row a run: what was asked, the scores, and what was kept of each part."""
    rows = [
        {
            "encoder": run.spec.encoder,
            "task": run.spec.task,
            "arm": study.arm_of(run.spec),
            "method": run.spec.method,
            **{name: run.spec.options.get(name) for name in READING},
            "unit": run.spec.unit,
            "after": study.after_of(run.spec),
            "budget": run.spec.budget,
            "seed": run.spec.seed,
            "metric": run.per_example["metric"],
            "dense": run.dense["score"],
            "score": run.pruned["score"],
            "drop": run.dense["score"] - run.pruned["score"],
            "attention": run.kept["attention"],
            "encoder_part": run.kept["encoder"],
            "model": run.kept["model"],
            "macs": run.kept["macs"],
            "nonzero_attention": run.nonzero["attention"],
            "examples": run.per_example["n"],
            "key": run.spec.key,
            "run": run,
        }
        for run in found
    ]
    return pd.DataFrame(rows, columns=_RUN_COLUMNS)


_RUN_COLUMNS = [
    *("encoder", "task", "arm", "method", *READING, "unit", "after", "budget", "seed", "metric"),
    *("dense", "score", "drop", *PARTS, "nonzero_attention", "examples", "key", "run"),
]


def cells(found: Iterable[Run], by: Sequence[str] = CELL) -> pd.DataFrame:
    """One row a cell: mean score and drop over its runs, each with its 95% interval."""
    columns = [*by, "metric", "dense", *_with_intervals(MEASURES), *PARTS, "runs"]
    table = runs(found)
    rows = [
        {
            **dict(zip(by, place, strict=True)),
            "metric": group["metric"].iloc[0],
            "dense": group["dense"].mean(),
            **_estimates(group["run"]),
            **{part: group[part].mean() for part in PARTS},
            "runs": len(group),
        }
        for place, group in table.groupby(list(by), sort=False, dropna=False)
    ]
    return pd.DataFrame(rows, columns=columns)


def _with_intervals(names: Iterable[str]) -> list[str]:
    return [column for name in names for column in (name, f"{name}_low", f"{name}_high")]


def _estimates(found: Iterable[Run]) -> dict[str, float]:
    found = tuple(found)
    evidence = Evidence("", found, (), found, ())
    values = {}
    for name in MEASURES:
        estimate = QUANTITIES[name].measure(evidence)
        values |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return values


def findings(found: Iterable[Finding]) -> pd.DataFrame:
    """One row a stated number: the talk's and ours, each with its interval, and the verdict."""
    rows = [
        {
            "key": finding.claim.key,
            "encoder": finding.encoder,
            "task": finding.task,
            "quantity": finding.quantity,
            **{name: getattr(cell, name) for name in _FINDING_CELL},
            "verdict": cell.verdict.value,
            "fidelity": finding.fidelity,
        }
        for finding in found
        for cell in finding.cells
    ]
    numbers = ["stated", "stated_low", "stated_high", "measured", "low", "high"]
    table = pd.DataFrame(
        rows, columns=["key", "encoder", "task", "quantity", *_FINDING_CELL, "verdict", "fidelity"]
    )
    return table.astype(dict.fromkeys(numbers, float))


_FINDING_CELL = (
    *("cell", "relation", "stated", "stated_low", "stated_high", "measured", "low", "high", "n"),
    "note",
)


def timings(found: Iterable[Timing]) -> pd.DataFrame:
    """One row a timing and arm: median seconds with the quartiles of its rounds; models that drop
    tokens are another matter (figures.tokens.speed).

    Only of one machine: see `runs.of_one_machine`.
    """
    rows = [
        {
            "encoder": timing.encoder,
            "shape": shape_key(timing.shape),
            "machine": timing.machine,
            **{name: timing.protocol.get(name) for name in _PROTOCOL},
            "arm": arm,
            "seconds": float(np.median(samples)),
            "low": float(np.percentile(samples, 25)),
            "high": float(np.percentile(samples, 75)),
            "rounds": len(samples),
        }
        for timing in of_one_machine(it for it in found if "tokens" not in it.protocol)
        for arm, samples in timing.seconds.items()
    ]
    columns = ["encoder", "shape", "machine", *_PROTOCOL, "arm", "seconds", "low", "high", "rounds"]
    return pd.DataFrame(rows, columns=columns)


_PROTOCOL = ("batch", "length", "padding", "precision", "zeroed", "threads")


def densities(found: Iterable[Run]) -> pd.DataFrame:
    """The three densities, and MACs, at every budget of the coreset and of the dense model."""
    table = runs(select(found, arm=["dense", "coreset"]))
    names = {
        "unit": "pruned",
        "budget": "budget",
        "attention": "density of attention",
        "encoder_part": "density of the encoder",
        "model": "density of the whole model",
        "macs": "MACs kept",
    }
    shown = table.groupby(["encoder", "unit", "budget"], sort=False)[list(PARTS)].mean()
    shown = shown.reset_index().sort_values(["encoder", "unit", "budget"], ascending=[1, 1, 0])
    shown["unit"] = shown["unit"].map({"encoder": "attention and feed-forward"}).fillna("attention")
    return shown.rename(columns=names).reset_index(drop=True)


def parts(found: Iterable[Run]) -> pd.DataFrame:
    """Parameters of each dense encoder by part, and their shares of the encoder and the model."""
    rows = []
    for encoder, run in one_each(found):
        shape, whole = run.shape, run.dense
        hidden, layers = shape["hidden"], shape["layers"]
        feed_forward = sum(layer["neurons"] * (2 * hidden + 1) + hidden for layer in layers)
        counted = {
            "attention": whole["attention_params"],
            "feed-forward": feed_forward,
            "layer norms": whole["encoder_params"] - whole["attention_params"] - feed_forward,
            "embeddings and head": whole["params"] - whole["encoder_params"],
        }
        for part, count in counted.items():
            inside = part != "embeddings and head"
            of_encoder = count / whole["encoder_params"] if inside else np.nan
            rows.append((encoder, part, count, of_encoder, count / whole["params"]))
    return pd.DataFrame(
        rows, columns=["encoder", "part", "parameters", "of_encoder", "of_model"]
    ).astype({"of_encoder": float, "of_model": float})


def work(found: Iterable[Run], lengths: Iterable[int]) -> pd.DataFrame:
    """MACs of one sequence by part and length, for each dense encoder."""
    names = {
        "projections": "attention projections",
        "products": "attention scores and context",
        "feed-forward": "feed-forward",
    }
    rows = []
    lengths = list(lengths)
    for encoder, run in one_each(found):
        for tokens in lengths:
            counted = macs(run.shape, tokens)
            total = sum(counted.values())
            rows += [(encoder, tokens, names[p], n, n / total) for p, n in counted.items()]
    return pd.DataFrame(rows, columns=["encoder", "length", "part", "macs", "share"])


def one_each(found: Iterable[Run]) -> Iterable[tuple[str, Run]]:
    """One dense run for each encoder: its shape does not depend on the task."""
    dense = {}
    for run in found:
        if run.spec.method == "dense":
            dense.setdefault(run.spec.encoder, run)
    return dense.items()


def exponents(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """The local exponent p of `value` ~ length^p between neighbouring lengths, by encoder."""
    rows = []
    for encoder, group in table.groupby("encoder", sort=False):
        group = group.sort_values("length")
        ratio = np.diff(np.log(group[value])) / np.diff(np.log(group["length"]))
        middle = np.sqrt(group["length"].to_numpy()[1:] * group["length"].to_numpy()[:-1])
        rows += [(encoder, x, p) for x, p in zip(middle, ratio, strict=True)]
    return pd.DataFrame(rows, columns=["encoder", "length", "exponent"])


def distances(found: Iterable[Run], stated: Mapping[float, float], dense: float) -> pd.DataFrame:
    """How far each reading of the slides lies from their table, nearest first.

    The distance is the root mean square, over densities, of our drop from our own dense model less
    the talk's drop from its own. Every reading goes by the same one seed, that which most have: a
    mean over several would come nearer by having less noise. `low` and `high` are the least and the
    greatest distance of its single seeds, `seeds` so many. Compared are the densities at which most
    readings were run (the columns off@...); a reading that lacks one of them is left out. `size`
    and `nonzero` are by how much, at the most, the parameters that attention keeps, and those of
    them that are not 0, miss the density: heads of a layer are padded to the widest, inputs are
    zeroed, and what is drawn twice is kept once.
    """
    table = runs(run for run in found if _is_reading(run))
    table = table[table["budget"].isin(list(stated))]
    columns = [*READING, "distance", "low", "high", "seeds", "size", "nonzero"]
    if table.empty:
        return pd.DataFrame(columns=columns)
    off = table["drop"] - dense + table["budget"].map(stated).astype(float)
    by = [*READING, "seed"]
    wide = table.assign(off=off).pivot(index=by, columns="budget", values="off")
    seed = wide.index.get_level_values("seed")
    shown = seed.value_counts().sort_index().idxmax()
    first = wide[seed == shown]
    sets = first.notna().apply(lambda row: tuple(first.columns[row]), axis=1)
    shared = list(sets.mode().iloc[0])
    wide = wide[shared[::-1]].dropna()
    each = np.sqrt((wide**2).mean(axis=1))
    chance = each.groupby(level=list(READING)).agg(low="min", high="max", seeds="size")
    wide.columns = [f"off@{budget:g}" for budget in wide.columns]
    own = table[table["seed"].eq(shown) & table["budget"].isin(shared)]
    missed = own.assign(
        size=(own["attention"] - own["budget"]).abs(),
        nonzero=(own["nonzero_attention"] - own["budget"]).abs(),
    )
    missed = missed.groupby(list(READING))[["size", "nonzero"]].max()
    near = wide.assign(distance=each).xs(shown, level="seed").join(chance).join(missed)
    return near.sort_values("distance", kind="stable").reset_index()


MISSED = 0.05  # of a density: more is another density


def marks(row: Mapping[str, Any]) -> str:
    """What to put behind a reading's distance: * where what is not 0, else ' where the size, is
    another share than its density says."""
    return "*" if row["nonzero"] > MISSED else "'" if row["size"] > MISSED else ""


def _is_reading(run: Run) -> bool:
    plain = run.spec.unit == "attention" and study.after_of(run.spec) == "none"
    return run.spec.method == "coreset" and plain


def reading(row: Mapping[str, Any]) -> str:
    """A reading of the slides in words."""
    words = [AXIS_WORDS.get(row["axis"], str(row["axis"]))]
    if row["sampler"] != "uniform" and row["axis"] != "inputs":
        words.append(IMPORTANCE_WORDS.get(row["importance"], str(row["importance"])))
    words.append(SAMPLER_WORDS.get(row["sampler"], str(row["sampler"])))
    return ", ".join(words) + (", rescaled" if row["rescale"] else "")


ARM_WORDS = {
    "dense": "dense",
    "coreset": "coreset",
    "uniform": "uniform sampling",
    "magnitude": "magnitude",
    "svd": "SVD rotation",
    "random": "random",
    "unstructured": "unstructured",
    "gradient-talk": "gradient change",
    "gradient-michel": "gradient of heads",
    "taylor-once": "Taylor, one shot",
    "taylor-steps": "Taylor, iterative",
    "taylor-apart": "Taylor, kinds apart",
    "movement": "movement",
    "kcm": "KCM",
    "kcm-unscaled": "KCM, unscaled",
    "kcm-refit": "KCM, refitted",
    "kcm-r2": "R2 alone",
    "kcm-d2": "D2 alone",
    "kcm-r2-unscaled": "R2 alone, unscaled",
    "kcm-d2-unscaled": "D2 alone, unscaled",
    "kcm-voting": "KCM by votes",
    "kcm-layerwise": "KCM, R2 by layer",
    "kcm-even": "KCM, evenly by layer",
    "kcm-512": "KCM + 512 labels",
    "kcm-1k": "KCM + 1024 labels",
    "ffn-w1": "norm of W1, scaled",
    "ffn-w2": "norm of W2, scaled",
    "ffn-both": "norms of both, scaled",
    "ffn-w1-unscaled": "norm of W1",
    "ffn-w2-unscaled": "norm of W2",
    "ffn-both-unscaled": "norms of both",
    "ffn-output": "output magnitude",
    "ffn-rms": "rms output",
    "ffn-energy": "share of energy",
    "ffn-random": "random filters",
    "flap": "FLAP",
    "mask-tuning": "Mask-Tuning",
    "mask-tuning-untuned": "Mask-Tuning, untuned",
    "k-prune": "K-prune",
    "cofi": "CoFi",
    "cofi-authors": "CoFi, authors' settings",
    "cofi-paper": "CoFi, paper's schedule",
    "cofi-pretrained": "CoFi, pretrained start",
    "cofi-fine": "heads + neurons, as published",
    "cofi-fine-wide": "heads + neurons",
    "cofi-layers": "+ layers",
    "cofi-hidden": "+ hidden dims",
    "cofi-undistilled": "no distillation",
    "cofi-prediction": "+ predictions",
    "cofi-fixed": "matched by number",
    "cofi-unordered": "matched out of order",
    "power-bert": "PoWER-BERT",
    "ltp": "LTP",
    "transkimmer": "Transkimmer",
    "transkimmer-free": "Transkimmer, free",
    "transkimmer-paper": "Transkimmer, as released",
    "top": "ToP",
    "top-released": "ToP by its code",
    "ltp-rising": "LTP, rising",
    "tokens-random": "random tokens",
    "tokens-first": "first tokens",
    "tokens-random-taught": "random tokens, distilled",
}
ARM_WORDS |= {arm: arm for arm in study.ARMS if arm not in ARM_WORDS}
AXIS_WORDS = {
    "head-dims": "dims of each head",
    "layer-dims": "dims across heads",
    "heads": "whole heads",
    "inputs": "input columns",
}
IMPORTANCE_WORDS = {
    "product": "product of norms",
    "first": "first matrix's norm",
    "second": "second matrix's norm",
    "mussay": "Mussay's importance",
}
SAMPLER_WORDS = {
    "top": "largest",
    "uniform": "uniform",
    "pps": "proportional",
    "without": "without replacement",
    "until-unique": "until unique",
    "with": "with replacement",
}


def select(found: Iterable[Run], **wanted: Any) -> list[Run]:
    """The runs whose specs match, by the words of `study.matches`."""
    return [run for run in found if study.matches(run.spec, wanted)]


# --- the talk's side ------------------------------------------------------------------------------


def finding(found: Iterable[Finding], key: str) -> Finding:
    """The first finding on a claim: that of the chapter's own encoder and task."""
    for one in found:
        if one.claim.key == key:
            return one
    raise StudyError(f"wanted a finding on {key}, got none; give claims.findings of its chapter")


def claim(found: Iterable[Finding], key: str) -> Claim:
    """The claim of that key among the findings; a StudyError where there is none."""
    return finding(found, key).claim


def talk(said: Claim) -> pd.DataFrame:
    """The talk's scores and its drops from its own dense model, with the intervals of counts."""
    rows = []
    for budget, score in said.stated.items():
        low, high = score, score
        if said.examples:
            low, high = wilson(round(score * said.examples), said.examples)
        drops = (said.dense - score, said.dense - high, said.dense - low)
        rows.append(("talk", budget, score, low, high, *drops))
    return pd.DataFrame(rows, columns=["source", "budget", *_with_intervals(MEASURES)])


def talk_line(said: Claim) -> tuple[float, float]:
    """Slope and start of the straight line through the talk's times, in units of its dense time."""
    times = {1.0: 1.0} | {density: 1 / speedup for density, speedup in said.stated.items()}
    slope, start = np.polyfit(list(times), list(times.values()), 1)
    return float(slope), float(start)


def majority(found: Iterable[Run]) -> float | None:
    """Accuracy of always answering the more frequent class; None where no accuracy is scored."""
    for run in found:
        if run.per_example["metric"] == "accuracy":
            counts = np.bincount(unpack_examples(run.per_example).labels)
            return float(counts.max() / counts.sum())
    return None
