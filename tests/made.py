"""What do test figures and notebooks read? Runs and timings with made-up answers, for any spec."""

import math
import zlib
from collections.abc import Iterable

import numpy as np

from lib import runs, study
from lib.claims.quantities import macs
from lib.runs import Run, Spec, Timing

SIZES = {"mpnet-base": (768, 12, 12, 3072), "minilm-l6": (384, 6, 12, 1536)}
TASKS = {"sst2": ("accuracy", 872), "mr": ("accuracy", 853), "cola": ("matthews", 1043)}
SHARP = {"svd": 0.75, "magnitude": 0.9, "taylor-steps": 0.8, "movement": 0.85, "uniform": 1.15}


def run(spec: Spec, examples: int | None = None) -> Run:
    """A run whose model loses more, the less it keeps; the same numbers every time."""
    metric, count = TASKS.get(spec.task, ("f1", 408))
    count = examples or count
    labels = np.arange(count) % 2
    arm, after = study.arm_of(spec), study.after_of(spec)
    harm = SHARP.get(arm, 1 + 0.25 * _dice(spec.options))
    lost = 0.45 * harm * (1 - spec.budget) ** 1.6
    lost *= {"none": 1, "steps": 0.4, "epochs": 0.25}[after] if spec.budget < 1 else 0
    lost += 0.01 * _dice((spec.seed, spec.key)) * (spec.budget < 1)
    dense = _answers(labels, 0.93 if metric == "accuracy" else 0.9, spec.task)
    pruned = _answers(labels, max(0.5, 0.93 - lost), spec.task)
    kept = spec.budget if spec.method != "unstructured" else 1.0
    whole, shape = _shape(spec.encoder, 1.0, 1.0), _shape(spec.encoder, kept, _ffn(spec, kept))
    full, left = _params(spec.encoder, whole), _params(spec.encoder, shape)
    fractions = {name: left[key] / full[key] for name, key in _PARAMS.items()}
    fractions["macs"] = left["macs"] / full["macs"]
    if spec.unit == "executed" and spec.method != "dense":
        shape, left = whole, full
        fractions = dict.fromkeys(fractions, 1.0)
    trace = {"tokens": dropped(spec, whole)} if spec.unit == "executed" else {}
    if trace:
        counted = trace["tokens"]["macs"]
        fractions["macs"] = counted["pruned"] / counted["dense"]
    scores = {"dense": _score(metric, labels, dense), "pruned": _score(metric, labels, pruned)}
    return Run(
        spec=spec,
        dense={"score": scores["dense"], "scores": {metric: scores["dense"]}} | full,
        pruned={
            "score": scores["pruned"],
            "scores": {metric: scores["pruned"]},
            "product_error": {"qk": harm * (1 - spec.budget), "vo": 0.8 * harm * (1 - spec.budget)},
        }
        | left,
        kept=fractions,
        nonzero=fractions | {"attention": spec.budget},
        shape=shape,
        seconds={"teacher": 60.0, "prune": 1.0, "evaluate": 2.0},
        per_example=runs.pack_examples(metric, labels, dense, pruned, 2),
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
        trace=trace,
    )


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
    answers[wrong] = 1 - answers[wrong]
    return answers


def _score(metric: str, labels: np.ndarray, answers: np.ndarray) -> float:
    if metric == "matthews":
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
