"""How fast does an exact convex hull grow with the dimension, and how fast the kernel form?

The talk takes representative filters for the vertices of a convex hull, which nothing computes in
768 dimensions, and puts a kernel in its place. Three measurements: facets, vertices and seconds of
the hull of normal points (Quickhull; Barber, Dobkin and Huhdanpaa 1996); facets of the hull of
points on the trigonometric moment curve, which has the most that any points can have (McMullen
1970); and seconds of R2 as printed, which stops after one update and so is a closed form in N^2
kernel values, on as many rows of any width. Rules that update on cost 2 N^3 an update, whatever the
width.
"""

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.spatial import ConvexHull

from lib.scoring.hull import representatives

VERSION = 2  # 1 timed the kernel form one width after the other
KERNEL_ROUNDS = 10  # for one of the hull's: it takes milliseconds


def answer(
    points: int,
    dimensions: Sequence[int],
    curve: dict[str, list[int]],
    kernel: dict,
    rounds: int,
    seed: int,
) -> dict:
    """Lists by dimension, and three tables that claims rest on.

    facets_growth: facets in a dimension over those in one less. power: p in facets ~ points^p
    between the curve's two numbers of points. kernel_growth: seconds over those at 2 dimensions,
    the median over rounds in which every width takes its turn.
    """
    draw = np.random.default_rng(seed)
    hulls, seconds = [], []
    for dimension in dimensions:
        cloud = draw.standard_normal((points, dimension))
        hulls.append(ConvexHull(cloud))
        seconds.append(_seconds(lambda cloud=cloud: ConvexHull(cloud), rounds))
    facets = [len(hull.simplices) for hull in hulls]
    few, many = curve["points"]
    curves = {
        dimension: [len(ConvexHull(_moments(n, dimension)).simplices) for n in (few, many)]
        for dimension in curve["dimensions"]
    }
    rows = {
        width: torch.from_numpy(draw.standard_normal((kernel["points"], width)))
        for width in kernel["dimensions"]
    }
    turns = [
        {width: _seconds(lambda own=own: representatives(own), 1) for width, own in rows.items()}
        for _ in range(KERNEL_ROUNDS * rounds)
    ]
    return {
        "dimensions": list(dimensions),
        "facets": facets,
        "vertices": [len(hull.vertices) for hull in hulls],
        "seconds": seconds,
        "facets_growth": {
            str(dimension): facets[at] / facets[at - 1]
            for at, dimension in enumerate(dimensions)
            if at
        },
        "curve": {str(dimension): counts for dimension, counts in curves.items()},
        "power": {
            str(dimension): math.log(after / before) / math.log(many / few)
            for dimension, (before, after) in curves.items()
        },
        "kernel_seconds": {
            str(width): float(np.median([turn[width] for turn in turns])) for width in rows
        },
        "kernel_growth": {
            str(width): float(np.median([turn[width] / turn[2] for turn in turns]))
            for width in rows
        },
    }


def _moments(points: int, dimension: int) -> np.ndarray:
    """Points (cos t, sin t, cos 2t, sin 2t, ...) of a cyclic polytope of an even dimension."""
    angles = np.arange(points) * 2 * np.pi / points
    waves = [turn(k * angles) for k in range(1, dimension // 2 + 1) for turn in (np.cos, np.sin)]
    return np.stack(waves, axis=1)


def _seconds(call: Callable[[], object], rounds: int) -> float:
    """The median of several calls, after one that nobody times."""
    call()
    spent = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        spent.append(time.perf_counter() - start)
    return float(np.median(spent))
