"""Which numbers does the prose of the CoFi chapter quote? Short texts by name."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lib import study
from lib.claims import Finding, Verdict
from lib.claims.quantities import dense_hidden
from lib.figures import frames
from lib.figures.cofi.cost import GENERAL
from lib.figures.cofi.points import points, stated
from lib.figures.cofi.speed import clocked
from lib.figures.cofi.tasks import VALIDATED
from lib.figures.facts import UNTESTED
from lib.runs import Run, Timing
from lib.study.chapters.cofi import main

MNLI_SPEED, OTHER_GPU = 12.1, 5.2  # of the authors' smallest MNLI model: on their GPU, on another
# Matthews correlations of the released models, from the authors' list: sparsity .95 and .60
RELEASED_COLA, RELEASED_COLA_LOW = 0.389, 0.604


def facts(
    p: study.Profile, found: Sequence[Run], timed: Iterable[Timing], findings: Sequence[Finding]
) -> dict[str, str]:
    """`found` are all runs of the chapter, of every encoder and task."""
    pair = main(p)
    place, timed = (pair.encoder, pair.task), list(timed)
    table = points(found, timed)
    own = frames.select(found, arm="cofi", encoder=pair.encoder, task=pair.task)
    mine = [one for one in findings if one.encoder == pair.encoder]
    mine = sorted(mine, key=lambda one: one.task != pair.task)
    return (
        _headline(table, place, p.sizes)
        | _larger(table, place, p.sizes[0])
        | _measures(mine, findings)
        | _clock(own, timed)
        | _validators(findings)
        | _left(own)
    )


def _headline(table: pd.DataFrame, place: tuple[str, str], sizes: Sequence[float]) -> dict:
    """Of CoFi at every size, and of the ablations at the smallest.

    "high" and "low" are the sparsities of the talk's table, or those that a reader asked for.
    """
    own = table[(table["encoder"] == place[0]) & (table["task"] == place[1])]
    found = {"dense": UNTESTED, "target-low": UNTESTED, "target-90": "0.9", "target-80": "0.8"}
    if len(own):
        found["dense"] = f"{(own['score'] + own['drop']).iloc[0]:.4f}"
    for size, name in ((0.1, "90"), (0.2, "80"), *zip(sizes, ("high", "low"), strict=False)):
        found |= _at(_row(own, "cofi", size), name)
    for name, size in zip(("high", "low"), sizes, strict=False):
        found[f"target-{name}"] = f"{1 - size:.2f}"
    if len(sizes) < 2:
        found |= _at(None, "low")
    for arm in ABLATED:
        found |= _at(_row(own, f"cofi-{arm}", sizes[0]), arm)
    return found


ABLATED = (
    *("fine", "fine-wide", "layers", "hidden"),
    *("undistilled", "prediction", "authors", "pretrained"),
)


def _at(row: dict | None, name: str) -> dict[str, str]:
    return {
        f"score-{name}": _interval(row, "score", ".4f"),
        f"drop-{name}": _interval(row, "drop", ".1f", 100),
        f"share-{name}": _interval(row, "share", ".3f"),
        f"speed-{name}": _interval(row, "speed", ".1f"),
        f"sparsity-{name}": UNTESTED if row is None else f"{row['sparsity']:.3f}",
    }


def _larger(table: pd.DataFrame, place: tuple[str, str], size: float) -> dict[str, str]:
    """The other encoder on the same task, at the smallest size."""
    other = table[(table["encoder"] != place[0]) & (table["task"] == place[1])]
    row = _row(other, "cofi", size)
    return {
        "large": UNTESTED if row is None else str(row["encoder"]),
        "large-drop": _interval(row, "drop", ".1f", 100),
        "large-speed": _interval(row, "speed", ".1f"),
    }


def _row(table: pd.DataFrame, arm: str, size: float) -> dict | None:
    own = table[(table["arm"] == arm) & (table["size"] == size)]
    return None if own.empty else own.iloc[0].to_dict()


def _interval(row: dict | None, column: str, form: str, times: int = 1) -> str:
    if row is None or np.isnan(row[column]):
        return UNTESTED
    value, low, high = (times * row[column + end] for end in ("", "_low", "_high"))
    if low == high:
        return f"{value:{form}}"
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


MEASURED = {  # name: claim, cell, form, times
    "alone-speed": ("cofi.ten-x-one", "speedup", ".1f", 1),
    "expected-off": ("cofi.lagrangian", 0.05, ".4f", 1),
    "realised-off": ("cofi.lagrangian-realised", 0.05, ".4f", 1),
    "authors-off": ("cofi.lagrangian-authors", 0.05, ".4f", 1),
    "authors-sparsity": ("cofi.sparsity-authors", 0.05, ".3f", 1),
    "joint": ("cofi.joint", "", "+.1f", 100),
    "joint-speed": ("cofi.joint-speed", "", ".2f", 1),
    "attention-gone": ("cofi.heads-optimise", "", "+.2f", 1),
    "feed-forward-gone": ("cofi.heads-optimise-ffn", "", "+.2f", 1),
    "prediction-gain": ("cofi.distil-prediction", "", "+.1f", 100),
    "layer-gain": ("cofi.distil-layer", "", "+.1f", 100),
    "low-gain": ("cofi.distil-low", "", "+.1f", 100),
    "matching": ("cofi.matching", "", "+.1f", 100),
    "order": ("cofi.matching-order", "", "+.1f", 100),
    "ends-first": ("cofi.structure.ffn", "", ".2f", 1),
    "depth-heads": ("cofi.structure.top", "attention", "+.2f", 1),
    "depth-neurons": ("cofi.structure.top", "feed-forward", "+.2f", 1),
    "lead-magnitude-2": ("cofi.beats", 2, "+.1f", 100),
    "lead-magnitude-10": ("cofi.beats", 10, "+.1f", 100),
    "lead-mask-tuning-10": ("cofi.beats-mask-tuning", 10, "+.1f", 100),
    "lead-kcm-2": ("cofi.beats-kcm", 2, "+.1f", 100),
    "lead-size": ("cofi.beats-size", 0.05, "+.1f", 100),
    "full-sparsity": ("cofi.validate.sparsity-full", 0.05, ".3f", 1),
    "within-layers": ("cofi.validate.sparsity-definition", "", ".3f", 1),
    "hours": ("cofi.cost", 0.05, ".2f", 1),
    "share-cola": ("cofi.validate.cola", 0.05, ".2f", 1),
}
ELSEWHERE = {  # of another encoder than the chapter's own
    "lead-small": ("cofi.beats-small", "", "+.1f", 100),
    "lead-small-pruned": ("cofi.beats-small-pruned", 10, "+.1f", 100),
    "behind": ("cofi.pruning-behind", "", "+.1f", 100),
}


def _measures(mine: Sequence[Finding], findings: Sequence[Finding]) -> dict[str, str]:
    found = {name: _measure(mine, *what) for name, what in MEASURED.items()}
    found |= {name: _measure(findings, *what) for name, what in ELSEWHERE.items()}
    for name, key in (("reached", "cofi.sparsity"), ("tenfold", "cofi.ten-x")):
        judged = [one.verdict for one in findings if one.claim.key == key]
        judged = [verdict for verdict in judged if verdict != Verdict.UNTESTED]
        held = judged.count(Verdict.REPRODUCED)
        found[name] = f"{held} of {len(judged)}" if judged else UNTESTED
    return found


def _measure(findings: Iterable[Finding], key: str, cell: Any, form: str, times: int) -> str:
    """What the first finding on a claim measured in a cell, with its interval where it has one."""
    for one in findings:
        for at in one.cells if one.claim.key == key else ():
            if at.cell == cell and at.measured is not None:
                row = {"x": at.measured, "x_low": at.low, "x_high": at.high}
                return _interval(row, "x", form, times)
    return UNTESTED


def _clock(own: Sequence[Run], timed: Sequence[Timing]) -> dict[str, str]:
    """How much of the MACs' ratio the clock confirms, for the smallest size of the first seed."""
    size = min((run.spec.budget for run in own), default=None)
    first = [run for run in own if run.spec.budget == size and run.spec.seed == 0][:1]
    table = clocked(first, timed)
    found = {}
    for batch, length in ((1, 32), (32, 32), (128, 32), (1, 128), (32, 128), (128, 128)):
        here = table[(table["batch"] == batch) & (table["length"] == length)]
        for precision, mark in (("float32", ""), ("bfloat16", "-bf16")):
            row = here[here["precision"] == precision]
            name = f"{batch}x{length}{mark}"
            there = len(row) > 0
            found[f"clock-{name}"] = f"{row['speed'].iloc[0]:.1f}" if there else UNTESTED
            found[f"kept-{name}"] = f"{row['kept'].iloc[0]:.0%}" if there else UNTESTED
            found[f"macs-{name}"] = f"{row['from_macs'].iloc[0]:.1f}" if there else UNTESTED
    return found | _milliseconds(table) | _machine(table)


def _milliseconds(table: pd.DataFrame) -> dict[str, str]:
    """Of one sentence of 32 tokens in float32, in batches of 1, 32 and 128."""
    short = table[(table["length"] == 32) & (table["precision"] == "float32")]
    by = short.set_index("batch")
    found = {}
    for arm in ("dense", "pruned"):
        each = [
            f"{1e3 * by.loc[batch, arm] / batch:.2f}" if batch in by.index else UNTESTED
            for batch in (1, 32, 128)
        ]
        found[f"ms-{arm}"] = f"{each[0]}, {each[1]} and {each[2]}"
    return found


def _machine(table: pd.DataFrame) -> dict[str, str]:
    """Where the clock stood, and how much faster the dense model is there in bfloat16."""
    if table.empty:
        return dict.fromkeys(("device", "threads", "dense-bf16"), UNTESTED)
    batch = table[(table["batch"] == 32) & (table["length"] == 32)]
    dense = batch.set_index("precision")["dense"]
    both = {"float32", "bfloat16"} <= set(dense.index)
    return {
        "device": str(table["machine"].iloc[0]),
        "threads": str(table["threads"].iloc[0]),
        "dense-bf16": f"{dense['float32'] / dense['bfloat16']:.1f}" if both else UNTESTED,
    }


def _validators(findings: Sequence[Finding]) -> dict[str, str]:
    """What the validation talk's own table says of itself."""
    claim = frames.claim(findings, "cofi.validate.confirmed")
    speeds = [speed for row in claim.reference.values() for speed in row]
    sst2 = frames.claim(findings, "cofi.validate.sst2")
    right = {key: stated(findings, f"cofi.validate.sst2{key}")[0.05] for key in ("", "-checkpoint")}
    multiple = {key: stated(findings, f"cofi.validate.cola{key}")[0.05] for key in right}
    distil = stated(findings, "cofi.distil")
    found = {
        "general-hours": f"{GENERAL:g}",
        "paper-hours": f"{stated(findings, 'cofi.cost')[0.05]:g}",
        "paper-speed": f"{MNLI_SPEED:g}",
        "other-gpu": f"{OTHER_GPU:g}",
        "talk-layer-loss": f"{100 * (distil['cofi-prediction'] - distil['cofi']):.1f}",
        "talk-over-ten": str(sum(speed > 10 for speed in speeds)),
        "talk-speeds": str(len(speeds)),
        "talk-sentences": str(sst2.examples),
        "talk-own-right": str(round(right[""] * sst2.examples)),
        "talk-released-right": str(round(right["-checkpoint"] * sst2.examples)),
        "talk-own-multiple": f"{multiple['']:.3f}",
        "talk-released-multiple": f"{multiple['-checkpoint']:.3f}",
        "released-cola": f"{RELEASED_COLA:.3f}",
        "released-cola-low": f"{RELEASED_COLA_LOW:.3f}",
        "implied-cola": f"{RELEASED_COLA / multiple['-checkpoint']:.3f}",
    }
    for key, words in VALIDATED.items():
        name = words.lower().replace(", ", "-").replace("sst-2", "sst2")
        score = stated(findings, key)[0.05]
        found[f"talk-{name}"] = f"{score:.4f}" if score < 1 else f"{score:.3f} times"
        found[f"talk-{name}-speed"] = f"{stated(findings, f'{key}-speed')[0.05]:.2f}"
    for name, key in (
        ("none", "cofi-undistilled"),
        ("prediction", "cofi-prediction"),
        ("all", "cofi"),
    ):
        found[f"talk-distil-{name}"] = f"{distil[key]:.3f}"
    return found


def _left(own: Sequence[Run]) -> dict[str, str]:
    """Hidden dims, and units that are kept without being of much use, at the smallest size."""
    size = min((run.spec.budget for run in own), default=None)
    first = next((run for run in own if run.spec.budget == size), None)
    names = (
        "hidden",
        "hidden-dense",
        "heads-left",
        "heads-useful",
        "neurons-left",
        "neurons-useful",
    )
    masks = first.trace.get("masks") if first else None
    if not masks:
        return dict.fromkeys(names, UNTESTED)
    values = (
        first.shape["hidden"],
        dense_hidden(first),
        *(sum(masks[name]) for name in ("heads", "useful_heads", "neurons", "useful_neurons")),
    )
    return {name: str(value) for name, value in zip(names, values, strict=True)}
