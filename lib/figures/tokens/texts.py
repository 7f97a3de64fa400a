"""Which words of a text are read to the end, and what do short and long texts save?"""

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from lib import study
from lib.figures import style
from lib.figures.style import FAINT, INK, Drawn
from lib.runs import Run

LINE, SHOWN = 80, 4  # characters of a sentence that fit a line, and methods that are shown


def by_length(found: Iterable[Run]) -> Drawn:
    """Share of the executed MACs that is left, by the length of the text."""
    rows = [
        {
            "encoder": run.spec.encoder,
            "task": run.spec.task,
            "arm": study.arm_of(run.spec),
            "budget": run.spec.budget,
            "length": here["length"],
            "texts": run.trace["tokens"]["histogram"][bucket],
            "kept": here["macs"]["pruned"] / here["macs"]["dense"],
        }
        for run in found
        if "tokens" in run.trace and run.spec.seed == 0 and not run.spec.base
        for bucket, here in run.trace["tokens"]["by_length"].items()
    ]
    names = ["encoder", "task", "arm", "budget", "length", "texts", "kept"]
    table = pd.DataFrame(rows, columns=names)
    hidden = ["tokens-first", "tokens-random-taught", "transkimmer-paper"]
    table = table[~table["arm"].isin(hidden)]
    if table.empty:
        return style.untested("token pruning by length", table)
    least = table.groupby(["encoder", "task", "arm"])["budget"].transform("min")
    table = table[table["budget"] == least]
    places = list(table.groupby(["encoder", "task"], sort=False))
    rows = math.ceil(len(places) / 3)
    columns = min(3, len(places))
    figure, axes = style.canvas(rows, columns, height=0.9 + 2.7 * rows, sharey=True)
    arms = [arm for arm in study.TOKEN_ARMS if arm in set(table["arm"])]
    for ax in axes[len(places) :]:
        ax.set_axis_off()
    for ax, ((encoder, task), mine) in zip(axes, places, strict=False):
        for arm in arms:
            line = mine[mine["arm"] == arm].sort_values("length")
            ax.plot(line["length"], line["kept"], **style.look(arm))
        ax.axhline(1, color=INK, lw=1)
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.set_xlabel("tokens of a text")
        ax.set_title(f"{encoder}, {task}", fontsize=10)
        ax.set_ylim(0, None)
    for ax in axes[::columns]:
        ax.set_ylabel("MACs executed, of dense")
    style.markers(figure, {style.name(arm): style.METHODS[arm] for arm in arms})
    return figure, table


def survivors(found: Iterable[Run]) -> Drawn:
    """One sentence, layer by layer: a word stands as long as it is read and leaves a gap behind."""
    shown = _sentences(found)
    table = pd.DataFrame(
        [
            (run.spec.encoder, run.spec.task, arm, run.spec.budget, place, token, layers)
            for arm, run, _ in shown
            for sentence in run.trace["tokens"]["sentences"]
            for place, (token, layers) in enumerate(
                zip(sentence["tokens"], sentence["layers"], strict=True)
            )
        ],
        columns=["encoder", "task", "arm", "budget", "place", "token", "layers"],
    )
    if table.empty:
        return style.untested("sentences", table)
    depth = len(shown[0][1].shape["layers"])
    height = 0.3 + len(shown) * (0.35 + 0.185 * (depth + 1))
    figure, axes = style.canvas(len(shown), 1, height=height)
    for ax, (arm, run, sentence) in zip(axes, shown, strict=True):
        _words(ax, sentence, depth, style.look(arm)["color"])
        left = f"{run.kept['macs']:.0%} of the MACs"
        ax.set_title(f"{style.name(arm)}: {left}", fontsize=10)
    return figure, table


def _sentences(found: Iterable[Run]) -> list[tuple[str, Run, dict]]:
    """The same sentence under several methods, at the smallest budget that was run of each."""
    best: dict[str, Run] = {}
    for run in found:
        arm = study.arm_of(run.spec)
        if "tokens" in run.trace and run.spec.seed == 0 and arm in study.TOKEN_ARMS:
            if arm not in best or run.spec.budget < best[arm].spec.budget:
                best[arm] = run
    arms = [arm for arm in study.TOKEN_ARMS if arm in best and not arm.startswith("transkimmer-")]
    if not arms:
        return []
    sentences = best[arms[0]].trace["tokens"]["sentences"]
    sizes = [sum(len(_plain(token)) + 1 for token in s["tokens"]) for s in sentences]
    fits = [n for n, size in enumerate(sizes) if size <= LINE]
    chosen = max(fits, key=sizes.__getitem__) if fits else int(np.argmin(sizes))
    traces = {arm: best[arm].trace["tokens"]["sentences"] for arm in arms[:SHOWN]}
    return [(arm, best[arm], traces[arm][chosen]) for arm in traces]


def _plain(token: str) -> str:
    """A token as people write it; $ would begin a formula."""
    return token.replace("Ġ", "").replace("$", "\\$") if token != "Ġ" else "_"


def _words(ax: Axes, sentence: dict, depth: int, colour: str) -> None:
    x = 0
    for token, layers in zip(sentence["tokens"], sentence["layers"], strict=True):
        word = _plain(token)
        if x + len(word) > LINE:
            break
        for layer in range(depth + 1):
            if layer <= layers:
                ink = INK if layer == 0 else colour
                style.put(ax, word, (x, layer), color=ink)
        if layers < depth:
            ax.plot([x, x + len(word)], [layers + 0.55] * 2, color=FAINT, lw=1)
        x += len(word) + 1
    ax.set_xlim(0, LINE)
    names = ["text"] + [f"layer {n + 1}" for n in range(depth)]
    ax.set_yticks(range(depth + 1), names)
    ax.set_ylim(depth + 0.5, -0.5)
    ax.set_xticks([])
    ax.tick_params(axis="y", length=0)
    ax.spines[:].set_visible(False)
    ax.grid(False)
    ax.set_xlabel("")
