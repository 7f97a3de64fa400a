"""What do test figures and notebooks read? Runs, timings and probes with made-up answers."""

import math
import zlib
from collections.abc import Iterable

import made_cofi
import numpy as np

from lib import runs, study
from lib.claims.quantities import macs
from lib.runs import Probe, Question, Run, Spec, Timing

SIZES = {"mpnet-base": (768, 12, 12, 3072), "minilm-l6": (384, 6, 12, 1536)}
TASKS = {
    "sst2": ("accuracy", 872),
    "mr": ("accuracy", 853),
    "cola": ("matthews", 1043),
    "mnli": ("accuracy", 9815),
    "stsb": ("spearman", 1500),
}
SHARP = {"svd": 0.75, "magnitude": 0.9, "taylor-steps": 0.8, "movement": 0.85, "uniform": 1.15}


def run(spec: Spec, examples: int | None = None) -> Run:
    """A run whose model loses more, the less it keeps; the same numbers every time."""
    metric, count = TASKS.get(spec.task, ("f1", 408))
    count = examples or count
    labels = np.arange(count) % 2
    if metric == "spearman":
        labels = np.arange(count) / count
    arm, after = study.arm_of(spec), study.after_of(spec)
    harm = SHARP.get(arm, 1 + 0.25 * _dice(spec.options))
    lost = 0.45 * harm * (1 - spec.budget) ** 1.6
    lost *= (
        {"none": 1, "steps": 0.2 if spec.method == "cofi" else 0.4, "epochs": 0.25}[after]
        if spec.budget < 1
        else 0
    )
    lost += 0.01 * _dice((spec.seed, spec.key)) * (spec.budget < 1)
    if spec.unit == "macs" and spec.budget < 1:
        lost = 0.3 * harm * (1 - spec.budget) ** 2.5 + 0.01 * _dice((spec.seed, spec.key))
    dense = _answers(labels, 0.93 if metric == "accuracy" else 0.9, spec.task)
    pruned = _answers(labels, max(0.5, 0.93 - lost), spec.task)
    kept = spec.budget if spec.method != "unstructured" else 1.0
    whole, shape = _shape(spec.encoder, 1.0, 1.0), _shape(spec.encoder, kept, _ffn(spec, kept))
    if spec.unit == "macs" and spec.budget < 1:
        shape = _fewer_filters(whole, spec)
    cofi = spec.method == "cofi"
    shape = made_cofi.shape(spec, whole) if cofi else shape
    full, left = _params(spec.encoder, whole), _params(spec.encoder, shape)
    fractions = {name: left[key] / full[key] for name, key in _PARAMS.items()}
    fractions["macs"] = left["macs"] / full["macs"]
    fractions |= {"encoder": 0.98 * spec.budget} if cofi else {}
    if spec.unit == "executed" and spec.method != "dense":
        shape, left = whole, full
        fractions = dict.fromkeys(fractions, 1.0)
    trace = made_cofi.trace(spec, shape) if cofi else {}
    if spec.unit == "executed":
        trace = {"settling": [0.5, 0.25], "tokens": dropped(spec, whole)}
        counted = trace["tokens"]["macs"]
        fractions["macs"] = counted["pruned"] / counted["dense"]
    metrics = dict.fromkeys([metric] if metric == "spearman" else [metric, "accuracy"])
    scores = {
        side: {name: _score(name, labels, answers) for name in metrics}
        for side, answers in (("dense", dense), ("pruned", pruned))
    }
    return Run(
        spec=spec,
        dense={"score": scores["dense"][metric], "scores": scores["dense"]} | full,
        pruned={
            "score": scores["pruned"][metric],
            "scores": scores["pruned"],
            "product_error": {"qk": harm * (1 - spec.budget), "vo": 0.8 * harm * (1 - spec.budget)},
        }
        | left,
        kept=fractions,
        nonzero=fractions | {"attention": spec.budget},
        shape=shape,
        seconds={"teacher": 60.0, "prune": 1.0, "evaluate": 2.0}
        | ({"prune": 400.0, "finetune": 200.0} if cofi else {}),
        per_example=runs.pack_examples(
            metric, labels, dense, pruned, None if metric == "spearman" else 2
        ),
        provenance={
            "commit": "0" * 40,
            "dirty": False,
            "device": "made up",
            "threads": 1,
            "precision": "bfloat16",
            "macs_tokens": 128,
            "finished": "2026-01-01T00:00:00+00:00",
            "versions": {"torch": "0"},
            "sha256": {"teacher": spec.encoder + spec.task},
            "claims": {},
        },
        trace=trace or _trace(spec, len(shape["layers"])),
    )


def _trace(spec: Spec, layers: int) -> dict:
    """What the methods of the KCM chapter write down of their own way."""
    if spec.unit != "macs" or spec.budget == 1:
        return {}
    harm = 0.1 + 0.1 * _dice(study.arm_of(spec)) + 0.01 * spec.seed
    return {
        "layer_errors": [round(harm * (1 + layer / layers), 4) for layer in range(layers)],
        "seconds": {"r2": 0.2, "d2": 0.4, "scale": 0.9 + 0.01 * spec.seed},
        "process_peak_bytes": 3 * 2**29,
    }


def _fewer_filters(whole: dict, spec: Spec) -> dict:
    """Layers that lose more, the higher they are and the smaller the budget."""
    floor, layers = 0.35, whole["layers"]
    share = max(0.0, (spec.budget - floor) / (1 - floor))
    slope = 0.5 * (1 - share) * (0.5 + _dice((study.arm_of(spec), spec.task)))
    steps = np.linspace(slope, -slope, len(layers)) + 0.01 * _dice(spec.seed)
    kept = np.clip(share + steps, 0, 1)
    return whole | {
        "layers": [
            layer | {"neurons": round(layer["neurons"] * share)}
            for layer, share in zip(layers, kept.tolist(), strict=True)
        ]
    }


def probe(question: Question) -> Probe:
    """An answer of the form that the question's own file gives."""
    asked = question.parameters
    values = {
        "formats": _formats,
        "hull": _hull,
        "norms": _norms,
        "rankings": _rankings,
        "vision": _vision,
    }[question.name](asked)
    return Probe(question, values, {"device": "made up", "claims": {}})


def _formats(asked: dict) -> dict:
    cells = []
    for model, kept in (("dense", 1.0), ("pruned", 0.6)):
        for each, faster in (("float32", 1.0), ("bfloat16", 2.9), ("int8", 3.7)):
            lost = round(1 - kept + 0.002 * (each == "int8"), 4) / 10
            speed = faster / kept
            cells.append(
                {
                    "model": model,
                    "format": each,
                    "score": 0.9 - lost,
                    "drop": [lost, lost - 0.01, lost + 0.01] if lost else [0.0, 0.0, 0.0],
                    "speed": [speed, 0.97 * speed, 1.03 * speed],
                    "seconds": 1 / speed,
                }
            )
    label = f"{asked['encoder']} {asked['task']} kcm 0.6 of macs, seed 0"
    return {"cells": cells, "label": label, "kept": 0.6, "metric": "accuracy"}


def _hull(asked: dict) -> dict:
    dims, widths = asked["dimensions"], asked["kernel"]["dimensions"]
    facets = [9 * 4 ** (d - 2) for d in dims]
    kernel = {str(width): 1e-3 * (1 + width / 500) for width in widths}
    return {
        "dimensions": dims,
        "facets": facets,
        "vertices": [min(asked["points"], 12 * d) for d in dims],
        "seconds": [1e-5 * count for count in facets],
        "facets_growth": {str(d): 4.0 for d in dims[1:]},
        "curve": {str(d): [16, 16 * 2 ** (d // 2)] for d in asked["curve"]["dimensions"]},
        "power": {str(d): d / 2 for d in asked["curve"]["dimensions"]},
        "kernel_seconds": kernel,
        "kernel_growth": {width: seconds / kernel["2"] for width, seconds in kernel.items()},
    }


def _norms(asked: dict) -> dict:
    layers = SIZES.get(asked["encoder"], (0, 2))[1]
    readings = {
        f"{kernel} {stop}": {
            "updates": [1 if stop == "signed" else 2 + layer for layer in range(layers)],
            "by_layer": [0.9 + 0.05 * _dice((kernel, stop, layer)) for layer in range(layers)],
            "overall": 0.9,
        }
        for kernel, stop in asked["readings"]
    }
    readings["2s2 abs"]["by_layer"][0] = readings["2s2 abs"]["updates"][0] = None
    norms = np.linspace(1, 3, 50)
    points = {
        str(layer): [[x, 1e-3 * x**layer] for x in norms] for layer in (1, layers // 2, layers)
    }
    return {"readings": readings, "points": points, "filters": 100}


def _rankings(asked: dict) -> dict:
    arms = list(asked["arms"])
    pairs = [(a, b) for at, a in enumerate(arms) for b in arms[at + 1 :]]
    overall = [[a, b, round(2 * _dice((a, b)) - 1, 3)] for a, b in pairs]
    return {"arms": arms, "overall": overall, "within": [[a, b, 0.5] for a, b, _ in overall]}


def _vision(asked: dict) -> dict:
    budgets = [f"{budget:g}" for budget in asked["budgets"]]
    arms = {"kcm": 0.02, "kcm-r2": 0.04, "ffn-w2": 0.05, "ffn-random": 0.2}
    return {
        "dense": [0.95 for _ in asked["seeds"]],
        "scores": {
            arm: {b: [0.95 - lost * (1 - float(b)) for _ in asked["seeds"]] for b in budgets}
            for arm, lost in arms.items()
        },
        "drop": {b: [0.01, 0.0, 0.02] for b in budgets},
        "over_random": {b: [0.1, 0.08, 0.12] for b in budgets},
        "images": {"train": 1297, "test": 500},
        "tokens": 17,
        "layers": 4,
    }


def dropped(spec: Spec, shape: dict) -> dict:
    """What a model that drops tokens leaves on record; nothing is counted, only of that form."""
    depth, own, masks = len(shape["layers"]), {}, bool(spec.options.get("faulty"))
    for length in (8, 24, 60):
        mean = [max(1.0, length * spec.budget ** (part / depth)) for part in range(2 * depth)]
        whole = sum(macs(shape, length).values())
        counted = {"dense": whole, "pruned": whole if masks else round(whole * spec.budget)}
        own[str(length)] = {"length": float(length), "mean": mean, "macs": counted}
    whole = own["24"]["macs"]["dense"]
    kept = spec.budget * (1 + 0.01 * _dice(spec.key))
    words = "[CLS] an old , sly film of $ 20 that keeps its many promises to nobody [SEP]".split()
    layers = [round(depth * _dice((spec.key, word))) for word in words]
    return {
        "rule": {"rule": "threshold", "thresholds": [0.01] * depth, "of": spec.key},
        "macs": {
            "padded": 5 * whole,
            "batch": round(1.4 * whole),
            "dense": whole,
            "pruned": whole if masks else round(whole * kept),
            "pruned_batch": round(whole * kept * 1.2),
            "claimed": round(whole * kept),
        },
        "mean": own["24"]["mean"],
        "length": 24.0,
        "batched": own["24"] | {"length": 25.0},
        "histogram": {"8": 50, "24": 100, "60": 50},
        "by_length": own,
        "sentences": [{"tokens": words, "layers": [depth, *layers[1:]]}] * 2,
    }


def timings(found: Iterable[Run]) -> list[Timing]:
    """Every timing that the chapters ask for, and zeroed weights at a density of 0.3."""
    wanted = {}
    found = list(found)
    for item in found:
        shape, encoder = item.shape, item.spec.encoder
        if item.spec.method == "dense":
            for length in study.LENGTHS:
                for batch in (1,):
                    protocol = {"batch": batch, "length": length, "padding": length}
                    wanted[_key(encoder, shape, protocol)] = timing(encoder, shape, protocol)
            protocol = study.BATCHED | {"zeroed": 0.7}
            wanted[_key(encoder, shape, protocol)] = timing(encoder, shape, protocol)
        if item.spec.unit == "macs" or item.spec.method == "dense":
            for protocol in study.protocols("kcm", item.spec):
                wanted[_key(encoder, shape, protocol)] = timing(encoder, shape, protocol)
        for protocol in study.protocols("cofi", item.spec):
            wanted[_key(encoder, shape, protocol)] = timing(encoder, shape, protocol)
        if item.spec.method in ("dense", "coreset") and item.spec.training["after"] is None:
            for precision in ("float32", "bfloat16"):
                protocol = study.BATCHED | {"precision": precision}
                wanted[_key(encoder, shape, protocol)] = timing(encoder, shape, protocol)
        for protocol in study.clocked(item):
            wanted[_key(encoder, shape, protocol)] = timing(encoder, shape, protocol)
    return list(wanted.values())


def timing(encoder: str, shape: dict, protocol: dict) -> Timing:
    protocol = {"precision": "float32"} | protocol | {"threads": 1}
    whole = _shape(encoder, 1.0, 1.0)
    speed = 4e10 * (2.4 if protocol["precision"] == "bfloat16" else 1)

    def samples(layers: dict, tokens: int) -> list[float]:
        seconds = 2e-3 + protocol["batch"] * sum(macs(layers, tokens).values()) / speed
        return [round(seconds * (1 + 0.01 * (n - 4)), 6) for n in range(9)]

    arms = {
        "dense_padded": samples(whole, protocol["padding"]),
        "dense": samples(whole, protocol["length"]),
        "hf": samples(whole, protocol["length"]),
        "pruned": samples(shape, round(protocol["length"] * (0.55 if "tokens" in protocol else 1))),
    }
    return Timing(encoder, shape, protocol, "made up", arms, {"dense": 1.0}, {})


_PARAMS = {"attention": "attention_params", "encoder": "encoder_params", "model": "params"}


def _key(encoder: str, shape: dict, protocol: dict) -> str:
    return runs.digest([encoder, shape, protocol])


def _dice(value: object) -> float:
    return zlib.crc32(repr(value).encode()) / 2**32


def _answers(labels: np.ndarray, right: float, salt: str) -> np.ndarray:
    order = np.random.default_rng(zlib.crc32(salt.encode())).permutation(len(labels))
    wrong = order[: round((1 - right) * len(labels))]
    answers = labels.copy()
    answers[wrong] = 1 - answers[wrong]  # of values: as far off as they are from one half
    return answers


def _score(metric: str, labels: np.ndarray, answers: np.ndarray) -> float:
    if metric in ("matthews", "spearman"):
        return float(np.corrcoef(labels, answers)[0, 1])
    return float((labels == answers).mean())


def _ffn(spec: Spec, kept: float) -> float:
    return kept if spec.unit == "encoder" else 1.0


def _shape(encoder: str, attention: float, feed_forward: float) -> dict:
    hidden, layers, heads, neurons = SIZES.get(encoder, (32, 2, 4, 64))
    width = max(1, math.ceil(hidden // heads * attention))
    layer = {"heads": heads, "qk": width, "vo": width, "neurons": round(neurons * feed_forward)}
    return {"hidden": hidden, "layers": [layer] * layers}


def _params(encoder: str, shape: dict) -> dict[str, int]:
    hidden = shape["hidden"]
    attention = feed_forward = 0
    for layer in shape["layers"]:
        width = layer["heads"] * layer["qk"]
        attention += 4 * width * hidden + 3 * width + hidden
        feed_forward += layer["neurons"] * (2 * hidden + 1) + hidden
    inside = attention + feed_forward + 4 * hidden * len(shape["layers"])
    whole = inside + 30522 * hidden + 514 * hidden
    return {
        "params": whole,
        "encoder_params": inside,
        "attention_params": attention,
        "macs": sum(macs(shape, 128).values()),
    }
