"""What do packed answers score, and how sure is that? Every resample of the examples at once."""

from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy import stats

from lib.errors import unknown
from lib.runs import unpack_labels, unpack_values

REPLICATES, SEED, LEVEL = 5000, 20230912, 0.95


@lru_cache(maxsize=16384)
def score(
    metric: str, n: int, classes: int, labels: str, answers: str
) -> tuple[float, Float[np.ndarray, " replicates"]]:
    """A metric of packed answers: its value and that of every resample of the examples."""
    weights = _weights(n)
    known = CONFUSION if classes else CORRELATION
    if metric not in known:
        raise unknown("metric", metric, known)
    if classes:
        truth, said = unpack_labels(labels, n, classes), unpack_labels(answers, n, classes)
        cells = np.eye(classes * classes, dtype=np.float32)[truth * classes + said]
        counts = (weights @ cells).astype(np.float64).reshape(-1, classes, classes)
        values = CONFUSION[metric](counts)
    else:
        values = CORRELATION[metric](unpack_values(labels, n), unpack_values(answers, n), weights)
    return float(values[0]), values[1:]


def commonest(n: int, classes: int, answers: str) -> float:
    """Share of the texts that get the answer given most often; 0 for a regression."""
    if not classes:
        return 0.0
    return float(np.bincount(unpack_labels(answers, n, classes)).max() / n)


@lru_cache(maxsize=4)
def _weights(n: int) -> Float[np.ndarray, "replicates_and_one n"]:
    """How often each of n examples counts: once, then as it is drawn in every resample; the same
    for all models."""
    weights = np.ones((1 + REPLICATES, n), np.float32)
    weights[1:] = np.random.default_rng(SEED).multinomial(n, np.full(n, 1 / n), size=REPLICATES)
    return weights


Counts = Float[np.ndarray, "replicates labels answers"]


def _accuracy(counts: Counts) -> Float[np.ndarray, " replicates"]:
    return np.trace(counts, axis1=1, axis2=2) / counts.sum((1, 2))


def _matthews(counts: Counts) -> Float[np.ndarray, " replicates"]:
    """Gorodkin's form for any number of classes; 0 where one side is constant."""
    total = counts.sum((1, 2))
    truth, said = counts.sum(2), counts.sum(1)
    covariance = np.trace(counts, axis1=1, axis2=2) * total - (truth * said).sum(1)
    scale = np.sqrt((total**2 - (truth**2).sum(1)) * (total**2 - (said**2).sum(1)))
    return np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0)


def _f1(counts: Counts) -> Float[np.ndarray, " replicates"]:
    """Of class 1; 0 where it neither occurs nor is answered."""
    scale = counts[:, 1].sum(1) + counts[:, :, 1].sum(1)
    return np.divide(2 * counts[:, 1, 1], scale, out=np.zeros_like(scale), where=scale > 0)


def _pearson(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted correlation; 0 where one side is constant."""
    total = weights.sum(1)
    x, y = x - x.mean(), y - y.mean()
    mean_x, mean_y, xx, yy, xy = (weights @ v / total for v in (x, y, x * x, y * y, x * y))
    scale = np.sqrt(np.maximum((xx - mean_x**2) * (yy - mean_y**2), 0))
    out = np.zeros_like(scale)
    return np.divide(xy - mean_x * mean_y, scale, out=out, where=scale > 1e-12)


def _spearman(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Ranks are those of the whole sample, in every resample too."""
    return _pearson(stats.rankdata(x), stats.rankdata(y), weights)


CONFUSION = {"accuracy": _accuracy, "matthews": _matthews, "f1": _f1}
CORRELATION = {"pearson": _pearson, "spearman": _spearman}


def wilson(right: int, n: int) -> tuple[float, float]:
    """95% interval of a proportion from its counts (Wilson 1927)."""
    interval = stats.binomtest(right, n).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)
