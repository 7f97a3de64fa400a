"""Which numbers does the prose quote? Short texts by name, made from records and claims.

A number that no record gives is the word "untested".
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import pandas as pd

from lib import study
from lib.claims import Finding, Verdict
from lib.claims.quantities import macs
from lib.figures import frames
from lib.runs import Probe, Run

UNTESTED = "untested"


def place(p: study.Profile, findings: Sequence[Finding]) -> dict[str, str]:
    """What a chapter is about: its profile, encoder and task, and how its claims fared."""
    counts = Counter(finding.verdict for finding in findings)
    words = [f"{counts[verdict]} {verdict.value}" for verdict in Verdict if counts[verdict]]
    tested = [finding for finding in findings if finding.claim.kind != "context"]
    own = {f.fidelity for f in tested if (f.encoder, f.task) == (p.encoder, p.task)}
    fidelity = "replication" if "replication" in own else "reproduction"
    return {
        "profile": p.name,
        "encoder": p.encoder,
        "task": p.task,
        "fidelity": fidelity if own else UNTESTED,
        "findings": str(len(findings)),
        "verdicts": ", ".join(words) or "none",
        "steps": str(p.steps),
    }


def verdicts(findings: Iterable[Finding]) -> dict[str, str]:
    """The first finding on each claim, its verdict with the fidelity beside it."""
    facts = {}
    for one in findings:
        words = (
            one.verdict.value
            if one.verdict == Verdict.UNTESTED
            else (f"{one.verdict.value} ({one.fidelity})")
        )
        facts.setdefault(f"verdict-{one.claim.key}", words)
    return facts


def anatomy(found: Sequence[Run], findings: Sequence[Finding]) -> dict[str, str]:
    """Of the opening chapter; `found` are runs of one encoder, its dense one among them."""
    parts = frames.parts(found)
    dense = next((run for _, run in frames.one_each(found)), None)
    if dense is None:
        return dict.fromkeys(_ANATOMY, UNTESTED)
    share = parts.set_index("part")
    total, inside = dense.dense["params"], dense.dense["encoder_params"]
    facts = {
        "parameters": f"{total / 1e6:.1f} million",
        "encoder-parameters": f"{inside / 1e6:.1f} million",
        "attention-share": f"{share['of_encoder']['attention']:.1%}",
        "feed-forward-share": f"{share['of_encoder']['feed-forward']:.1%}",
        "embeddings-share": f"{share['of_model']['embeddings and head']:.0%}",
        "tenth": f"{_length_of(dense, 0.1):.0f}",
        "half": f"{_length_of(dense, 0.5):.0f}",
    }
    for tokens in (32, 128, 512):
        counted = macs(dense.shape, tokens)
        every = sum(counted.values())
        facts[f"feed-forward-macs-{tokens}"] = f"{counted['feed-forward'] / every:.1%}"
        facts[f"quadratic-macs-{tokens}"] = f"{counted['products'] / every:.1%}"
    facts["exponent-macs"] = _measured(findings, "cost.quadratic", 512, ".2f")
    facts["exponent-seconds"] = _measured(findings, "cost.quadratic-seconds", 512, ".2f")
    facts["exponent-seconds-128"] = _measured(findings, "cost.quadratic-seconds", 128, ".2f")
    facts["zeros-speed"] = _measured(findings, "coreset.unstructured", "", ".2f")
    facts["compact-speed"] = _measured(findings, "coreset.attention-speed", 0.3, ".2f")
    facts["full-speed"] = _measured(findings, "coreset.time", 0.3, ".2f")
    return facts


_ANATOMY = (
    *("parameters", "encoder-parameters", "attention-share", "feed-forward-share"),
    *(
        "embeddings-share",
        "tenth",
        "half",
        "exponent-macs",
        "exponent-seconds",
        "exponent-seconds-128",
    ),
    *("zeros-speed", "compact-speed", "full-speed"),
    *(f"{part}-macs-{n}" for part in ("feed-forward", "quadratic") for n in (32, 128, 512)),
)


def formats(probes: Iterable[Probe], encoder: str) -> dict[str, str]:
    """What number formats buy and cost, of the dense model and of a pruned one of `encoder`."""
    cells = {
        (cell["model"], cell["format"]): cell
        for probe in probes
        if probe.question.name == "formats" and probe.question.parameters["encoder"] == encoder
        for cell in probe.values["cells"]
    }
    facts = {}
    for model, each in product(("dense", "pruned"), ("float32", "bfloat16", "int8")):
        cell = cells.get((model, each))
        speed = f"{cell['speed'][0]:.1f}" if cell else UNTESTED
        drop = "{:+.3f} [{:.3f}, {:.3f}]".format(*cell["drop"]) if cell else UNTESTED
        facts |= {f"{model}-{each}-speed": speed, f"{model}-{each}-drop": drop}
    return facts


def _length_of(dense: Run, share: float) -> float:
    """The length at which attention's two products take this share of an encoder's MACs."""
    one = macs(dense.shape, 1)
    return share / (1 - share) * (one["projections"] + one["feed-forward"]) / one["products"]


def coreset(found: Sequence[Run], findings: Sequence[Finding]) -> dict[str, str]:
    """Of the coreset chapter; `found` are the runs of its own encoder and task."""
    said = frames.claim(findings, "coreset.density")
    tuned = frames.claim(findings, "coreset.density-ft")
    n = said.examples
    right = {budget: round(score * n) for budget, score in said.stated.items()}
    above = right[0.9] - round(said.dense * n)
    slope, start = frames.talk_line(frames.claim(findings, "coreset.time"))
    facts = {
        "sentences": str(n),
        "talk-dense": f"{said.dense:.4f}",
        "talk-dense-right": str(round(said.dense * n)),
        "talk-error": f"{math.sqrt(said.dense * (1 - said.dense) / n):.4f}",
        "talk-above": str(above),
        "line-start": f"{start:.2f}",
        "line-slope": f"{slope:.2f}",
    }
    for budget in said.stated:
        facts[f"talk-{budget:g}"] = f"{said.stated[budget]:.4f}"
        facts[f"talk-ft-{budget:g}"] = f"{tuned.stated[budget]:.4f}"
    table = frames.cells(frames.select(found, unit="attention"))
    facts["dense"] = f"{table['dense'].iloc[0]:.4f}" if len(table) else UNTESTED
    for budget in (0.9, 0.7, 0.5, 0.3):
        for after, name in (("none", ""), ("steps", "-ft"), ("epochs", "-epoch")):
            facts[f"ours{name}-{budget:g}"] = _score(table, "coreset", budget, after)
    for after, name in (("none", ""), ("steps", "-ft")):
        facts[f"best{name}"] = _best(table, 0.3, after)
    for key in ("beats-magnitude", "beats-uniform", "beats-svd"):
        facts[key] = _measured(findings, f"coreset.{key}", 0.3, "+.3f")
    full = frames.runs(frames.select(found, arm="coreset", unit="attention", budget=0.5))
    facts["macs-0.5"] = f"{full['macs'].mean():.0%}" if len(full) else UNTESTED
    facts["ceiling-0.5"] = f"{1 / full['macs'].mean():.2f}" if len(full) else UNTESTED
    for budget in (0.5, 0.1):
        facts[f"speed-{budget:g}"] = _measured(findings, "coreset.time", budget, ".2f")
        facts[f"talk-speed-{budget:g}"] = (
            f"{frames.claim(findings, 'coreset.time').stated[budget]:.2f}"
        )
    return facts | _readings(found, said)


def _readings(found: Sequence[Run], said: Any) -> dict[str, str]:
    table = frames.distances(found, said.stated, said.dense)
    if table.empty:
        return dict.fromkeys(_READINGS, UNTESTED)
    same = (table[list(study.CORESET)] == pd.Series(study.CORESET)).all(axis=1)
    best = table.iloc[0].to_dict()
    shared = [name.removeprefix("off@") for name in table.columns if name.startswith("off@")]
    return {
        "compared": ", ".join(shared),
        "nearest": frames.reading(best),
        "nearest-by": f"{100 * best['distance']:.1f}",
        "readings": str(len(table)),
        **(_chance(table, int(same.idxmax())) if same.any() else dict.fromkeys(_CHANCE, UNTESTED)),
    }


def _chance(table: pd.DataFrame, at: int) -> dict[str, str]:
    """Where the headline reading, row `at`, stands, and how far its own seeds lie apart."""
    own = table.iloc[at]
    if own["seeds"] < 2:
        return dict.fromkeys(_CHANCE, UNTESTED) | {"headline-rank": str(at + 1)}
    between = table["distance"].between(own["low"], own["high"])
    nearer = table["distance"] < own["low"]
    return {
        "headline-rank": str(at + 1),
        "headline-seeds": str(own["seeds"]),
        "headline-range": f"{100 * own['low']:.1f} to {100 * own['high']:.1f}",
        "headline-between": str(int(between.sum())),
        "headline-nearer": str(int(nearer.sum())),
    }


_CHANCE = ("headline-rank", *(f"headline-{n}" for n in ("seeds", "range", "between", "nearer")))
_READINGS = ("compared", "nearest", "nearest-by", "readings", *_CHANCE)


def _score(table: pd.DataFrame, arm: str, budget: float, after: str) -> str:
    here = (table["arm"] == arm) & (table["budget"] == budget) & (table["after"] == after)
    if not here.any():
        return UNTESTED
    row = table[here].iloc[0]
    return f"{row['score']:.4f} [{row['score_low']:.3f}, {row['score_high']:.3f}]"


def _best(table: pd.DataFrame, budget: float, after: str) -> str:
    """The arm with the highest score at a density, as people call it, and that score."""
    here = (table["budget"] == budget) & (table["after"] == after) & (table["arm"] != "")
    if not here.any():
        return UNTESTED
    row = table[here].sort_values("score", kind="stable").iloc[-1]
    return f"{frames.ARM_WORDS.get(row['arm'], row['arm'])} ({row['score']:.4f})"


def _measured(findings: Iterable[Finding], key: str, cell: Any, form: str) -> str:
    """What the first finding on a claim measured in a cell, with its interval where it has one."""
    for one in frames.finding(findings, key).cells:
        if one.cell == cell and one.measured is not None:
            if one.low == one.high:
                return f"{one.measured:{form}}"
            return f"{one.measured:{form}} [{one.low:{form}}, {one.high:{form}}]"
    return UNTESTED
