"""Is R2 more than the norm of a filter's output weights? And when does it stop?

Per layer of a fine-tuned encoder and for some readings of kernel and stop rule: how many updates R2
takes, and Spearman's correlation of its scores with the plain row norms.
"""

from collections.abc import Sequence
from typing import Any

import torch
from scipy.stats import spearmanr

from lib.errors import StudyError
from lib.models import encoder as encoders
from lib.scoring import hull
from lib.training.teachers import teacher

VERSION = 1
SHOWN = 250  # filters of a layer that are kept for a picture


def answer(
    encoder: str, task: str, seed: int, teacher: dict[str, Any], readings: Sequence[Sequence[str]]
) -> dict:
    """By reading ("2s2 signed", ...): updates and correlation by layer, and over all layers.

    None where the updates do not settle. `points` holds [row norm, R2] of some filters of the
    first, the middle and the last layer, for the reading that is printed.
    """
    rows = _rows(encoder, task, teacher)
    norms = [layer.norm(dim=1) for layer in rows]
    found = {" ".join(reading): _reading(rows, norms, *reading) for reading in readings}
    order = torch.Generator().manual_seed(seed)
    points = {}
    for index in dict.fromkeys((0, len(rows) // 2, len(rows) - 1)):
        share, _ = hull.representatives(rows[index])
        some = torch.randperm(len(share), generator=order)[:SHOWN]
        pairs = torch.stack([norms[index][some], share[some]], dim=1)
        points[str(index + 1)] = [[float(f"{x:.6g}") for x in pair] for pair in pairs.tolist()]
    return {"readings": found, "points": points, "filters": len(rows[0])}


def _rows(name: str, task: str, recipe: dict[str, Any]) -> list[torch.Tensor]:
    """The second matrix of every layer, a filter a row, in float64."""
    found = teacher(name, task, recipe)
    return [layer.down.weight.detach().T.double().cpu() for layer in encoders.layers(found.model)]


def _reading(rows: list, norms: list, kernel: hull.Kernel, stop: hull.Stop) -> dict[str, Any]:
    shares, updates = [], []
    for layer in rows:
        try:
            share, count = hull.representatives(layer, kernel=kernel, stop=stop)
        except StudyError:  # it does not settle: the answer says so
            share, count = None, None
        shares.append(share)
        updates.append(count)
    by_layer = [
        None if share is None else float(spearmanr(share, norm).statistic)
        for share, norm in zip(shares, norms, strict=True)
    ]
    whole = None
    if all(share is not None for share in shares):
        whole = float(spearmanr(torch.cat(shares), torch.cat(norms)).statistic)
    return {"updates": updates, "by_layer": by_layer, "overall": whole}
