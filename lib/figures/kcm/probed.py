"""What do the probes' answers look like: hulls, row norms, rankings, images?"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator

from lib.claims import Finding
from lib.figures import frames, style
from lib.figures.style import DOTS, INK, PAPER, TALK, Drawn
from lib.runs import Probe

SHADES = "Blues"


def of(probes: Iterable[Probe], name: str) -> Probe | None:
    """The answer to the question of that name, None where there is none."""
    return next((probe for probe in probes if probe.question.name == name), None)


def hull(probes: Iterable[Probe], findings: Iterable[Finding]) -> Drawn:
    """Facets of an exact hull by dimension, and its seconds beside those of one update of R2."""
    probe = of(probes, "hull")
    columns = ["what", "dimension", "value"]
    if probe is None:
        return style.untested("convex hulls", pd.DataFrame(columns=columns))
    found, points = probe.values, probe.question.parameters["points"]
    dims = found["dimensions"]
    lines = {
        "facets": dict(zip(dims, found["facets"], strict=True)),
        "vertices": dict(zip(dims, found["vertices"], strict=True)),
        "exact hull, seconds": dict(zip(dims, found["seconds"], strict=True)),
        "kernel form in one update, seconds": {
            int(d): s for d, s in found["kernel_seconds"].items()
        },
    }
    data = pd.DataFrame(
        [(what, d, value) for what, line in lines.items() for d, value in line.items()],
        columns=columns,
    )
    figure, (left, right) = style.canvas(1, 2, height=3.5)
    for (what, ax), (colour, marker) in zip(
        {"facets": left, "vertices": left, "exact hull, seconds": right}.items(),
        style.SEVERAL,
        strict=False,
    ):
        line = lines[what]
        ax.plot(list(line), list(line.values()), color=colour, marker=marker)
        word = what.removesuffix(", seconds")
        style.note(ax, word, (dims[-1], list(line.values())[-1]), (-4, 6), color=colour, ha="right")
    line = lines["kernel form in one update, seconds"]
    right.plot(list(line), list(line.values()), color=style.SEVERAL[3][0], marker="^")
    style.note(
        right,
        "kernel form, one update",
        (max(line), line[max(line)]),
        (0, 7),
        ha="right",
        color=style.SEVERAL[3][0],
    )
    stated = frames.claim(findings, "kcm.hull").stated
    start = next(iter(sorted(stated)))
    low = lines["facets"].get(int(start) - 1)
    if low:
        told = {d: low * np.prod([stated[e] for e in stated if e <= d]) for d in sorted(stated)}
        told = {d: value for d, value in told.items() if d in dims}
        left.plot(list(told), list(told.values()), **TALK | {"ls": DOTS, "color": INK, "lw": 1})
        style.note(left, "talk: steeper", (max(told), told[max(told)]), (-9, 4), ha="right")
    for ax in (left, right):
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(numticks=6))
        ax.set_xlabel("dimension")
    right.set_xscale("log", base=2)
    ticks = sorted({*line, *dims} & {2, 4, 8, 32, 128, 768})
    right.set_xticks(ticks, [str(tick) for tick in ticks])
    right.minorticks_off()
    left.set_xticks(dims)
    left.set_ylabel(f"of the hull of {points} normal points")
    right.set_ylabel("seconds")
    return figure, data


def norms(probes: Iterable[Probe]) -> Drawn:
    """R2 against the norm of a filter's output weights, and their rank correlation by layer."""
    probe = of(probes, "norms")
    if probe is None:
        return style.untested("R2 and row norms", pd.DataFrame(columns=["reading", "layer"]))
    found = probe.values
    rows = [
        (reading, layer, correlation, updates)
        for reading, it in found["readings"].items()
        for layer, (correlation, updates) in enumerate(
            zip(it["by_layer"], it["updates"], strict=True), start=1
        )
    ]
    data = pd.DataFrame(rows, columns=["reading", "layer", "correlation", "updates"])
    figure, axes = style.canvas(1, 3, height=3.5)
    left, middle, right = axes
    for (layer, points), (colour, marker) in zip(
        found["points"].items(), style.SEVERAL, strict=False
    ):
        x, y = np.transpose(points)
        left.plot(x, y, color=colour, marker=marker, ls="", ms=3, alpha=0.6, label=f"layer {layer}")
    left.set_yscale("log")
    left.set_xlabel("norm of the row of $W_2$")
    left.set_ylabel("R2, as printed")
    left.legend(loc="best", handletextpad=0.2, markerscale=1.6)
    looks = {
        reading: (style.SEVERAL[at % 5][0], "s" if reading.startswith("s2") else "o")
        for at, reading in enumerate(found["readings"])
    }
    for reading, own in data.groupby("reading", sort=False):
        colour, marker = looks[reading]
        look = {"color": colour, "marker": marker, "ms": 4, "ls": "-" if marker == "o" else ":"}
        middle.plot(own["layer"], own["correlation"].astype(float), **look)
        right.plot(own["layer"], own["updates"].astype(float), **look)
    middle.set_ylabel("rank correlation of the two")
    middle.axhline(1, color=INK, lw=0.8)
    right.set_ylabel("updates until R2 stops")
    right.set_ylim(bottom=0)
    for ax in (middle, right):
        ax.set_xlabel("layer")
    style.markers(figure, {r.replace(" ", ", "): v for r, v in looks.items()})
    return figure, data


def rankings(probes: Iterable[Probe]) -> Drawn:
    """Spearman's correlation of the methods' scores: all filters above, within layers below."""
    probe = of(probes, "rankings")
    if probe is None:
        empty = pd.DataFrame(columns=["one", "other", "overall", "within"])
        return style.untested("rankings of filters", empty)
    arms, found = probe.values["arms"], probe.values
    within = {(a, b): value for a, b, value in found["within"]}
    rows = [(a, b, value, within[a, b]) for a, b, value in found["overall"]]
    data = pd.DataFrame(rows, columns=["one", "other", "overall", "within"])
    grid = np.full((len(arms), len(arms)), np.nan)
    for row in data.itertuples():
        y, x = arms.index(row.one), arms.index(row.other)
        grid[y, x], grid[x, y] = row.overall, row.within
    figure, (ax,) = style.canvas(height=1.9 + 0.33 * len(arms))
    ax.imshow(np.clip(grid, 0, 1), cmap=SHADES, vmin=0, vmax=1.1, aspect="auto")
    for (y, x), value in np.ndenumerate(grid):
        if not np.isnan(value):
            colour = PAPER if value > 0.65 else INK
            words = f"{value:.2f}".replace("0.", ".", 1)
            ax.text(x, y, words, ha="center", va="center", color=colour, fontsize=9)
    ax.set_yticks(range(len(arms)), map(style.name, arms))
    ax.set_xticks(
        range(len(arms)), map(style.name, arms), rotation=40, ha="left", rotation_mode="anchor"
    )
    ax.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    ax.spines[:].set_visible(False)
    place = probe.question.parameters
    ax.set_xlabel(
        "rank correlation: over all filters above the diagonal, mean of the layers' below\n"
        f"{place['encoder']}, {place['task']}"
    )
    return figure, data


def vision(probes: Iterable[Probe], findings: Iterable[Finding]) -> Drawn:
    """Accuracy of a small vision transformer on digits, by budget and method."""
    probe = of(probes, "vision")
    columns = ["arm", "budget", "mean", "least", "greatest"]
    if probe is None:
        return style.untested("a transformer of images", pd.DataFrame(columns=columns))
    found = probe.values
    rows = [
        (arm, float(budget), np.mean(scores), min(scores), max(scores))
        for arm, line in found["scores"].items()
        for budget, scores in line.items()
    ]
    data = pd.DataFrame(rows, columns=columns)
    dense = float(np.mean(found["dense"]))
    figure, (ax,) = style.canvas(height=3.4)
    ax.axhline(dense, color=INK, lw=1)
    ends = [(dense, "dense", INK)]
    for arm, own in data.groupby("arm", sort=False):
        own = own.sort_values("budget", ascending=False)
        bars = style.sides(own, "mean", "least", "greatest")
        ax.errorbar(own["budget"], own["mean"], bars, elinewidth=1, **style.look(arm))
        ends.append((own["mean"].iloc[-1], style.name(arm), style.look(arm)["color"]))
    stated = frames.claim(findings, "kcm.vision").stated
    for budget, drop in stated.items():
        ax.plot(budget, dense - drop, **TALK)
        style.note(ax, "talk: above", (budget, dense - drop), (-8, -12), ha="right")
    style.densities(ax, [*data["budget"], *stated, 1.0], "share of the MACs kept")
    ax.set_ylabel("accuracy on digits")
    style.beside(ax, ends)
    return figure, data
