"""How good is it? Scores on a split, with every example's prediction."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from torch import nn

from lib import devices
from lib.errors import StudyError
from lib.tasks import Task
from lib.training import batches

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Evaluation:
    """What a model said about a split, in the split's own order."""

    score: float  # the task's headline metric, 0..1 (Matthews and correlations: -1..1)
    scores: dict[str, float]  # every metric of the task, by name
    predictions: np.ndarray  # (examples,) class ids, or values for regression
    labels: np.ndarray  # (examples,)


def autocast(device: torch.device, precision: str, frozen: bool = False) -> torch.autocast:
    """The context that runs matrix products in `precision`, bfloat16 where that pays.

    Where the weights are `frozen` they are cast once for the whole context; where an optimiser
    moves them inside it, a cast kept from before would be stale.
    """
    if precision not in PRECISIONS:
        raise StudyError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")
    low = devices.precision(precision, device) == "bfloat16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=low, cache_enabled=frozen)


def score(
    model: nn.Module, tokenizer, data: Dataset, task: Task, precision: str = "bfloat16"
) -> Evaluation:
    """Evaluate `model` on `data` (columns text, optionally text_pair, label).

    Batches are sorted by length and padded to their longest sentence only, so padding costs almost
    nothing; predictions come back in the order of `data`. Raises StudyError on an empty split or
    logits that are not finite: a diverged model has no score.
    """
    if not len(data):
        raise StudyError(f"nothing to evaluate: the split of {task.name} is empty")
    tokens = batches.tokenize(data, tokenizer, task.max_tokens)
    device, training = next(model.parameters()).device, model.training
    model.eval()
    rows, logits = [], []
    # Not inference_mode: autocast keeps its cache of cast weights only for ordinary tensors.
    with torch.no_grad(), autocast(device, precision, frozen=True):
        for batch, order in batches.evaluation(tokens, tokenizer):
            batch = {k: v.to(device) for k, v in batch.items() if k != "labels"}
            logits.append(model(**batch).logits.float().cpu())
            rows.append(np.asarray(order))
    model.train(training)
    logits, order = torch.cat(logits).numpy(), np.concatenate(rows)
    if not np.isfinite(logits).all():
        raise StudyError(f"the model's logits on {task.name} are not finite; it has diverged")
    outputs = logits[:, 0] if task.labels is None else logits.argmax(1)
    predictions = np.empty_like(outputs)
    predictions[order] = outputs
    labels = np.asarray(data["label"])
    scores = metrics(task, predictions, labels)
    return Evaluation(next(iter(scores.values())), scores, predictions, labels)


def metrics(task: Task, predictions: np.ndarray, labels: np.ndarray) -> Mapping[str, float]:
    """Every metric of a task, the headline one first."""
    return {name: METRICS[name](labels, predictions) for name in HEADLINES[task.metric]}


HEADLINES = {
    "accuracy": ("accuracy",),
    "matthews": ("matthews", "accuracy"),
    "f1": ("f1", "accuracy"),
    "pearson_spearman": ("spearman", "pearson"),
}


def _correlation(measure):
    # A constant prediction correlates with nothing; scipy would say nan.
    return lambda labels, p: float(measure(labels, p).statistic) if np.ptp(p) > 0 else 0.0


METRICS = {
    "accuracy": lambda labels, p: float(accuracy_score(labels, p)),
    "matthews": lambda labels, p: float(matthews_corrcoef(labels, p)),
    "f1": lambda labels, p: float(f1_score(labels, p, zero_division=0.0)),
    "pearson": _correlation(pearsonr),
    "spearman": _correlation(spearmanr),
}
