"""Which numbers does the KCM chapter's prose quote? Short texts; "untested" where no record is."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from lib.claims import Finding, Verdict
from lib.claims.quantities import macs
from lib.figures import frames
from lib.figures.facts import UNTESTED
from lib.figures.kcm import tables
from lib.figures.kcm.probed import of
from lib.runs import Probe, Run

BUDGETS = (0.9, 0.8, 0.7, 0.6, 0.5)
LEADS = (
    *("merge-r2", "merge-d2", "scale", "supervised", "row-norm"),
    *("beats-taylor-steps", "beats-taylor-apart"),
)
PAPER = ("sst2", "mrpc", "stsb", "mnli", "qnli", "qqp")


def facts(
    found: Sequence[Run], findings: Sequence[Finding], probes: Sequence[Probe]
) -> dict[str, str]:
    """Of the KCM chapter; `found` are the runs of its own encoder and task."""
    own = tables.cells(frames.select(found, arm="kcm")).set_index("budget")
    facts = {f"kcm-{b:g}": _lost(own, b) for b in BUDGETS}
    said = tables.papers(findings).set_index(["arm", "task", "budget"])["drop"]
    for task in PAPER:
        facts[f"paper-{task}"] = f"{100 * said['kcm', task, 0.6]:.2f}"
    facts["paper-cliff"] = f"{100 * said['kcm', 'mrpc', 0.5]:.0f}"
    bound = frames.claim(findings, "kcm.flops40").stated[0.6]
    facts["bound"] = f"{100 * bound:.0f}"
    facts["over-bound"] = str(sum(said["kcm", task, 0.6] > bound for task in PAPER))
    facts["tasks-held"] = _held(findings, "kcm.flops40")
    facts["tasks-held-relative"] = _held(findings, "kcm.flops40-relative")
    for key in LEADS:
        facts[key] = _measured(findings, f"kcm.{key}", 0.6, 100, "+.1f")
    facts["row-norm-held"] = _held(findings, "kcm.row-norm")
    facts["seconds"] = _measured(findings, "kcm.minutes", 0.6, 1, ".0f")
    facts["talk-minutes"] = f"{frames.claim(findings, 'kcm.minutes').stated[0.6] / 60:.0f}"
    facts["speed"] = _measured(findings, "kcm.speed", 0.6, 1, ".2f")
    facts["talk-speed"] = f"{frames.claim(findings, 'kcm.speed').stated[0.6]:g}"
    facts["ideal"] = f"{1 / 0.6:.2f}"
    facts["propagation"] = _measured(findings, "kcm.propagation", 0.6, 1, ".2f")
    facts["propagation-data"] = _measured(findings, "kcm.propagation-data", 0.6, 1, "+.3f")
    facts |= _unmended(found) | {"memory": _memory(found)}
    facts["sample-size"] = _measured(findings, "kcm.sample-size", 0.6, 100, "+.1f")
    facts["out-of-domain"] = _measured(findings, "kcm.out-of-domain", 0.6, 100, "+.1f")
    facts["spread"] = _measured(findings, "kcm.dynamic", 0.6, 1, ".2f")
    facts["fingerprint"] = _measured(findings, "kcm.fingerprint", 0.6, 1, "+.2f")
    return facts | _floor(found) | _probed(probes)


def matthews(found: Iterable[Run]) -> dict[str, str]:
    """What KCM loses on CoLA in CoLA's own metric, encoder by encoder, in hundredths."""
    own = [run for run in found if run.per_example["metric"] == "matthews"]
    own = frames.select(own, arm="kcm", unit="macs", sees="own", budget=0.6)
    lost: dict[str, list[Run]] = {}
    for run in own:
        lost.setdefault(run.spec.encoder, []).append(run)
    told = {encoder: tables.estimate("drop", runs) for encoder, runs in lost.items()}
    words = [
        f"{100 * it.value:.1f} [{100 * it.low:.1f}, {100 * it.high:.1f}] ({encoder})"
        for encoder, it in told.items()
    ]
    return {"matthews": " and ".join(words) or UNTESTED}


def _lost(own: Any, budget: float) -> str:
    if budget not in own.index:
        return UNTESTED
    row = own.loc[budget]
    return f"{100 * row['drop']:.1f} [{100 * row['drop_low']:.1f}, {100 * row['drop_high']:.1f}]"


def _held(findings: Iterable[Finding], key: str) -> str:
    """On how many encoders and tasks a claim holds, holds in part, fails, and is undecided."""
    verdicts = [f.verdict for f in findings if f.claim.key == key]
    words = {
        Verdict.REPRODUCED: "holds",
        Verdict.PARTLY: "holds in part",
        Verdict.NOT_REPRODUCED: "fails",
        Verdict.INCONCLUSIVE: "is undecided",
    }
    told = [f"{word} on {verdicts.count(v)}" for v, word in words.items() if v in verdicts]
    return ", ".join(told) or f"is {UNTESTED}"


def _measured(findings: Iterable[Finding], key: str, cell: Any, scale: int, form: str) -> str:
    """What the first finding on a claim that has it measured in a cell, with its interval.

    Where that is not of the chapter's own encoder and task, it says of which.
    """
    own = frames.finding(findings, key)
    for finding in (own, *(one for one in findings if one.claim.key == key)):
        for one in finding.cells:
            if one.cell == cell and one.measured is not None:
                value, low, high = (scale * x for x in (one.measured, one.low, one.high))
                said = f"{value:{form}}" + (f" [{low:{form}}, {high:{form}}]" if low < high else "")
                place = (finding.encoder, finding.task)
                here = place == (own.encoder, own.task)
                return said if here else f"{said} ({' on '.join(place)})"
    return UNTESTED


def _unmended(found: Sequence[Run]) -> dict[str, str]:
    """How errors grow where no least squares mends them: last layer's over the mean of all."""
    facts = {}
    for name, arm in (("r2", "kcm-r2"), ("d2", "kcm-d2"), ("both", "kcm")):
        runs = frames.select(found, arm=f"{arm}-unscaled", budget=0.6, sees="own")
        grown = tables.estimate("error-growth", runs) if runs else UNTESTED
        measured = not isinstance(grown, str)
        facts[f"propagation-{name}-unscaled"] = f"{grown.value:.2f}" if measured else UNTESTED
    return facts


def _memory(found: Iterable[Run]) -> str:
    """The process's peak when KCM had pruned, in GiB; the greatest of the runs that have it."""
    peaks = [run.trace.get("process_peak_bytes", 0) for run in frames.select(found, arm="kcm")]
    return f"{max(peaks) / 2**30:.1f}" if any(peaks) else UNTESTED


def _floor(found: Sequence[Run]) -> dict[str, str]:
    """The share of MACs that attention takes by itself, at the length that a run counted at."""
    dense = next((run for _, run in frames.one_each(found)), None)
    run = next((run for run in found if run.spec.unit == "macs"), None)
    if dense is None or run is None:
        return {"floor": UNTESTED, "tokens": UNTESTED}
    tokens = run.provenance["macs_tokens"]
    parts = macs(dense.shape, tokens)
    share = 1 - parts["feed-forward"] / sum(parts.values())
    return {"floor": f"{share:.0%}", "tokens": f"{tokens:g}"}


_PROBED = (
    *("hull-dimension", "hull-facets", "hull-points", "hull-vertices", "kernel-growth"),
    *("norms-least", "updates-abs", "updates-signed"),
    *("vision-dense", "vision-kcm", "vision-random", "vision-images"),
)
TWINS = {  # arms that rank filters much alike, some only within a layer
    "ranked-row-norm": ("kcm-r2", "ffn-w2"),
    "ranked-kcm": ("kcm", "kcm-d2"),
    "ranked-output": ("kcm", "ffn-output"),
}


def _probed(probes: Sequence[Probe]) -> dict[str, str]:
    return (
        dict.fromkeys((*_PROBED, *TWINS, *(f"{name}-within" for name in TWINS)), UNTESTED)
        | _hull(of(probes, "hull"))
        | _norms(of(probes, "norms"))
        | _ranked(of(probes, "rankings"))
        | _vision(of(probes, "vision"))
    )


def _hull(probe: Probe | None) -> dict[str, str]:
    if probe is None:
        return {}
    found, points = probe.values, probe.question.parameters["points"]
    widest = max(found["kernel_growth"], key=int)
    return {
        "hull-points": str(points),
        "hull-dimension": str(found["dimensions"][-1]),
        "hull-facets": f"{found['facets'][-1]:,}",
        "hull-vertices": f"{found['vertices'][-1] / points:.0%}",
        "kernel-growth": f"{found['kernel_growth'][widest]:.1f}",
    }


def _norms(probe: Probe | None) -> dict[str, str]:
    if probe is None:
        return {}
    readings = probe.values["readings"]
    printed = [value for value in readings["2s2 signed"]["by_layer"] if value is not None]
    counts = [count for count in readings["2s2 abs"]["updates"] if count is not None]
    signed = [count for count in readings["2s2 signed"]["updates"] if count is not None]
    return {
        "norms-least": f"{math.floor(1000 * min(printed)) / 1000:.3f}" if printed else UNTESTED,
        "updates-abs": f"{min(counts)} to {max(counts)}" if counts else UNTESTED,
        "updates-signed": str(max(signed)) if signed else UNTESTED,
    }


def _ranked(probe: Probe | None) -> dict[str, str]:
    if probe is None:
        return {}
    facts = {}
    for side, end, form in (("overall", "", ".2f"), ("within", "-within", ".4f")):
        found = {frozenset((a, b)): value for a, b, value in probe.values[side]}
        named = {f"{name}{end}": found.get(frozenset(pair)) for name, pair in TWINS.items()}
        facts |= {name: f"{value:{form}}" for name, value in named.items() if value is not None}
    return facts


def _vision(probe: Probe | None) -> dict[str, str]:
    if probe is None:
        return {}
    found, facts = probe.values, {}
    facts["vision-images"] = str(found["images"]["test"])
    facts["vision-dense"] = f"{np.mean(found['dense']):.3f}"
    for name, arm in (("vision-kcm", "kcm"), ("vision-random", "ffn-random")):
        scores = found["scores"].get(arm, {}).get("0.6")
        facts[name] = UNTESTED if scores is None else f"{np.mean(scores):.3f}"
    return facts
