"""What does a number format buy beside pruning, and what does it cost in score?

The dense model and a pruned one, in every number format, on the reported split: scores with paired
intervals, and seconds for real texts in batches of like length, all taking turns in one process.
"""

import statistics
from typing import Any

import numpy as np
import torch
from torch import nn

from lib import bench, runs
from lib.bench import Bench
from lib.claims import answers
from lib.measures import costs, evaluate
from lib.measures.evaluate import Evaluation
from lib.models import encoder as encoders
from lib.models.compact import dense
from lib.runs import Spec
from lib.training import batches

VERSION = 1
BATCH, SHOWN = 32, 8  # texts of a timed batch, and how many batches stand for the split


def answer(
    encoder: str, task: str, seed: int, teacher: dict[str, Any], pruned: dict[str, Any], rounds: int
) -> dict:
    """`cells`: of each model and format the score, the drop from the dense model in float32 and the
    speed against it, the last two as [value, low, high].

    `pruned` names what is pruned, see `runs.Spec`; `kept` is its share of the encoder's MACs. A
    drop's interval holds 95% of the resamples, a speed's the middle half of the rounds. Weights are
    really cast, so that a score is that of the model that is timed. Int8 runs on a CPU only.
    """
    training = {"teacher": teacher, "sees": None, "after": None}
    spec = Spec(encoder, task, "dense", 1, 1.0, "macs", seed, {"base": pruned}, training)
    it = bench.prepare(spec)
    small, _ = bench.prune(spec, it, {})
    whole = dense(it.teacher.model)
    ways = {
        f"{name} {each}": costs.cast(model, each)
        for name, model in {"dense": whole, "pruned": small}.items()
        for each in costs.formats(next(small.parameters()).device)
    }
    said = {
        way: evaluate.score(model, it.teacher.tokenizer, it.dev, it.task, "float32")
        for way, model in ways.items()
    }
    seconds = costs.latency(ways, _texts(it), rounds, precision=None)
    first = "dense float32"
    return {
        "cells": [
            {
                **dict(zip(("model", "format"), way.split(), strict=True)),
                "score": said[way].score,
                "drop": _drop(said[first], said[way], it),
                "speed": _speed(seconds[first], seconds[way]),
                "seconds": round(statistics.median(seconds[way]), 6),
            }
            for way in ways
        ],
        "label": spec.base.label,
        "kept": round(_macs(small, it) / _macs(whole, it), 6),
        "metric": next(iter(it.dense.scores)),
    }


def _texts(it: Bench) -> list[dict[str, torch.Tensor]]:
    """Batches of 32 texts of like length, from the longest of the split to the shortest."""
    tokens = batches.tokenize(it.dev, it.teacher.tokenizer, it.task.max_tokens)
    order = np.argsort(-np.asarray(tokens["length"]), kind="stable")
    starts = np.linspace(0, max(0, len(order) - BATCH), SHOWN).astype(int)
    rows = [order[start : start + BATCH].tolist() for start in dict.fromkeys(starts.tolist())]
    some = (batches.evaluation(tokens.select(each), it.teacher.tokenizer, 10**9) for each in rows)
    return [batch for found in some for batch, _ in found]


def _drop(first: Evaluation, other: Evaluation, it: Bench) -> list[float]:
    metric, classes = next(iter(first.scores)), len(it.task.labels or ()) or None
    packed = runs.pack_examples(metric, first.labels, first.predictions, other.predictions, classes)
    about = (metric, packed["n"], packed["classes"], packed["labels"])
    (one, ones), (two, twos) = (answers.score(*about, packed[who]) for who in ("dense", "pruned"))
    return [round(float(x), 6) for x in (one - two, *np.percentile(ones - twos, [2.5, 97.5]))]


def _speed(slow: list[float], fast: list[float]) -> list[float]:
    ratios = np.asarray(slow) / np.asarray(fast)
    return [round(float(x), 4) for x in np.percentile(ratios, [50, 25, 75])]


def _macs(model: nn.Module, it: Bench) -> float:
    return costs.encoder_macs(encoders.shape(model), it.tokens)
