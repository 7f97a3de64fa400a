"""What do the runs say, as tidy tables? One row a run, a cell, a stated number or a timing."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lib import study
from lib.claims import Finding
from lib.quantities import QUANTITIES, Evidence, macs
from lib.runs import Run, Timing, shape_key

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
    """One row a timing and arm: median seconds with the quartiles of its rounds.

    Only of the machine that timed most: a ratio never crosses machines.
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
        for timing in found
        for arm, samples in timing.seconds.items()
    ]
    columns = ["encoder", "shape", "machine", *_PROTOCOL, "arm", "seconds", "low", "high", "rounds"]
    table = pd.DataFrame(rows, columns=columns)
    if table.empty:
        return table
    return table[table["machine"] == table["machine"].mode().iloc[0]].reset_index(drop=True)


_PROTOCOL = ("batch", "length", "padding", "precision", "zeroed")


def densities(found: Iterable[Run]) -> pd.DataFrame:
    """The three densities, and MACs, of every budget: a budget says of which part it is."""
    table = runs(found)
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

    The distance is the root mean square, over the densities, of our drop from our own dense model
    less the talk's drop from its own. A reading that lacks one of the densities is left out.
    """
    readings = [run for run in found if run.spec.method == "coreset" and _is_reading(run)]
    table = cells(readings, by=(*READING, "budget"))
    table = table[table["budget"].isin(list(stated))].copy()
    table["stated_drop"] = dense - table["budget"].map(stated).astype(float)
    table["off"] = table["drop"] - table["stated_drop"]
    rows = []
    wanted = table["budget"].nunique()
    for place, group in table.groupby(list(READING), sort=False, dropna=False):
        if len(group) == wanted:
            row = dict(zip(READING, place, strict=True))
            row |= {f"off@{b:g}": off for b, off in zip(group["budget"], group["off"], strict=True)}
            rows.append(row | {"distance": float(np.sqrt((group["off"] ** 2).mean()))})
    offs = [f"off@{budget:g}" for budget in sorted(table["budget"].unique(), reverse=True)]
    found_ = pd.DataFrame(rows, columns=[*READING, *offs, "distance"])
    return found_.sort_values("distance", kind="stable").reset_index(drop=True)


def _is_reading(run: Run) -> bool:
    return run.spec.unit == "attention" and study.after_of(run.spec) == "none"


def reading(row: Mapping[str, Any]) -> str:
    """A reading of the slides in words."""
    axis = {
        "head-dims": "dims of each head",
        "layer-dims": "dims across heads",
        "heads": "whole heads",
        "inputs": "input columns",
    }
    importance = {
        "product": "product of norms",
        "first": "first matrix's norm",
        "second": "second matrix's norm",
        "mussay": "Mussay's importance",
    }
    words = [axis.get(row["axis"], str(row["axis"]))]
    if row["sampler"] != "uniform" and row["axis"] != "inputs":
        words.append(importance.get(row["importance"], str(row["importance"])))
    words.append(SAMPLER_WORDS.get(row["sampler"], str(row["sampler"])))
    return ", ".join(words) + (", rescaled" if row["rescale"] else "")


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
