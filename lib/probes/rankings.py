"""Which methods rank filters alike? Spearman's correlations between their scores on one encoder."""

from itertools import combinations
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from torch import nn

from lib import bench, pruners
from lib.measures.evaluate import autocast
from lib.runs import Spec
from lib.training import batches

VERSION = 1


def answer(
    encoder: str,
    task: str,
    seed: int,
    teacher: dict[str, Any],
    sees: dict[str, int],
    arms: dict[str, dict[str, Any]],
    versions: dict[str, int],
) -> dict:
    """Correlation of each pair of arms, over all filters and as the mean of the layers'.

    `within` is what tells methods apart that differ only in how they weigh layers. All arms read
    one sample, of `examples_read` sentences: fewer than asked for where the task has no more.
    `versions` are those of their methods: they are part of the question.
    """
    del versions
    training = {"teacher": teacher, "sees": sees, "after": None}
    it = bench.prepare(Spec(encoder, task, "dense", 1, 1.0, "macs", seed, {}, training))
    order = torch.Generator().manual_seed(seed)
    sample = batches.sample(it.train, min(sees["examples"], len(it.train)), order)
    data = list(batches.training(sample, it.teacher.tokenizer, sees["batch"], order))
    model = it.teacher.model
    ranks = {name: _ranks(model, it.tokens, arm, data, seed) for name, arm in arms.items()}
    return {
        "examples_read": len(sample),
        "arms": list(ranks),
        "overall": [[a, b, _overall(ranks[a], ranks[b])] for a, b in combinations(ranks, 2)],
        "within": [[a, b, _within(ranks[a], ranks[b])] for a, b in combinations(ranks, 2)],
    }


def _ranks(
    model: nn.Module, tokens: float, arm: dict[str, Any], data: list, seed: int
) -> np.ndarray:
    """(L, F) scores of an arm's method."""
    options = {"unit": "macs", "seed": seed, "tokens": tokens} | arm["options"]
    pruner = pruners.get(arm["method"], **options)
    device = next(model.parameters()).device
    given = ({n: t.to(device) for n, t in batch.items()} for batch in data)
    precision = "float32" if pruner.needs == "nothing" else bench.PRECISION
    with autocast(device, precision):
        found = pruner.scores(model, given).scores
    if hasattr(pruner, "merged"):
        scores = pruner.merged(found)
    elif "score" in found:
        scores = found["score"]
    else:  # Mask-Tuning keeps the gradient of every batch: its score is the Fisher information
        scores = found["neurons"].square().sum(0)
    return scores.detach().double().cpu().numpy()


def _overall(a: np.ndarray, b: np.ndarray) -> float:
    return _spearman(a.ravel(), b.ravel())


def _within(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean([_spearman(x, y) for x, y in zip(a, b, strict=True)]))


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    """0 where one side ranks nothing."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])
