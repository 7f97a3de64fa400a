"""What would CoFi leave and write down on its way? Made up, for any spec of it."""

import zlib

from lib import study
from lib.runs import Spec

FINE = ("cofi-fine", "cofi-fine-wide", "cofi-hidden")  # without masks of whole layers


def shape(spec: Spec, whole: dict) -> dict:
    """Ends of the feed-forward part stay, its middle goes; attention goes from the top."""
    layers, fine = whole["layers"], study.arm_of(spec) in FINE
    last, found = len(layers) - 1, []
    for number, layer in enumerate(layers):
        end = number in (0, last)
        share = spec.budget * (1.0 if fine else 2.2 if end else 0.4)
        heads = layer["heads"] * min(1, 2 * spec.budget * (1.6 - 1.5 * number / max(last, 1)))
        own = layer | {
            "heads": round(heads + 0.3 * _dice((spec.seed, number))),
            "neurons": min(layer["neurons"], round(layer["neurons"] * share)),
        }
        if fine:
            own["heads"] = max(1, own["heads"])
        elif spec.budget < 0.2 and not end and number % 2:
            own |= {"neurons": 0, "ffn": False}
        if not own["heads"]:
            own |= {"qk": 0, "vo": 0, "mha": False}
        found.append(own)
    return {"hidden": whole["hidden"] - 2, "layers": found}


def trace(spec: Spec, shape: dict) -> dict:
    """A training of twenty checks whose sparsity tracks its target."""
    target, steps = 1 - spec.budget, (spec.training["sees"] or {}).get("steps", 2400)
    late = 0.02 if "authors" in study.arm_of(spec) else 0.002
    curve = []
    for check in range(1, 21):
        aim = target * min(1, 1 - (1 - min(1, 1.5 * check / 20)) ** 3)
        expected = aim + late * (1 if check % 2 else -1)
        row = [check * steps // 20, expected, aim, expected - 0.003, 0.2, 0.4, 0.0, -1.0, 2.0]
        curve.append([round(value, 5) for value in row])
    drop = 0.05 + 0.05 * _dice(study.arm_of(spec))
    scores = [[steps * n // 4, round(0.92 - drop * n / 4, 4)] for n in range(1, 5)]
    layers = shape["layers"]
    return {
        "columns": "step expected target realised prediction layers task l1 l2".split(),
        "curve": curve,
        "scores": scores,
        "taken": steps,
        "target": target,
        "realised": target + 0.001,
        "masks": {
            "heads": [layer["heads"] for layer in layers],
            "neurons": [layer["neurons"] for layer in layers],
            "useful_heads": [max(0, layer["heads"] - 1) for layer in layers],
            "useful_neurons": [layer["neurons"] // 2 for layer in layers],
            "hidden": shape["hidden"],
            "useful_hidden": shape["hidden"] - 1,
        },
    }


def _dice(value: object) -> float:
    return zlib.crc32(repr(value).encode()) / 2**32
