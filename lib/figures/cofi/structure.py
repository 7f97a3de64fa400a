"""What remains of each layer? Heads to the left, neurons to the right, the first layer below."""

from collections.abc import Iterable, Sequence

import pandas as pd
from matplotlib.axes import Axes

from lib.claims import Finding
from lib.claims.quantities import dense_hidden, units
from lib.figures import frames, style
from lib.figures.style import FAINT, GREY, INK, Drawn
from lib.runs import Run

PARTS = {"attention": ("heads", "#0072b2"), "feed-forward": ("neurons", "#e69f00")}
MOST = 3  # pictures side by side


def structure(found: Iterable[Run], findings: Iterable[Finding]) -> Drawn:
    """Share of its heads and neurons that each layer keeps: bars are means, dots are seeds.

    One picture an encoder and size of the first task: the smallest size of each, then larger ones.
    """
    own = frames.select(found, arm="cofi")
    if not own:
        return style.untested("structures", pd.DataFrame())
    task = own[0].spec.task
    own = [run for run in own if run.spec.task == task]
    places = sorted(
        dict.fromkeys((run.spec.encoder, run.spec.budget) for run in own),
        key=lambda place: (place[1], place[0] != own[0].spec.encoder),
    )
    smallest = [place for place in places if place[1] == places[0][1]]
    chosen = (smallest + [place for place in places[::-1] if place not in smallest])[:MOST]
    tables = []
    layers = max(len(run.shape["layers"]) for run in own)
    figure, axes = style.canvas(1, len(chosen), height=2.0 + 0.26 * layers)
    for ax, (encoder, size) in zip(axes, chosen, strict=True):
        runs = [run for run in own if (run.spec.encoder, run.spec.budget) == (encoder, size)]
        table = _kept(runs).assign(encoder=encoder, size=size)
        _picture(ax, table)
        ax.set_xlabel("share kept")
        ax.set_title(f"{encoder},\nsparsity {1 - size:g}", fontsize=10)
        tables.append(table)
    axes[0].set_ylabel("layer")
    style.key(figure, {words: colour for words, colour in PARTS.values()})
    return figure, pd.concat(tables, ignore_index=True)


def _kept(runs: Sequence[Run]) -> pd.DataFrame:
    rows = []
    for run in runs:
        whole = dense_units(run)
        for part in PARTS:
            for layer, count in enumerate(units(run, part), start=1):
                row = {"seed": run.spec.seed, "layer": layer, "part": part, "count": count}
                rows.append(row | {"share": count / whole[part]})
    return pd.DataFrame(rows)


def dense_units(run: Run) -> dict[str, int]:
    """Heads and neurons of a dense layer, from the record's parameter counts.

    A head's width is the pruned one's: CoFi takes heads whole. The feed-forward part of a layer
    has 2 D F + F + D parameters, its two LayerNorms 4 D.
    """
    layers, dense = len(run.shape["layers"]), run.dense
    hidden = dense_hidden(run)
    rest = (dense["encoder_params"] - dense["attention_params"]) / layers - 5 * hidden
    widths = [layer["vo"] for layer in run.shape["layers"] if layer["heads"]]
    width = max(widths, default=0) or hidden
    return {
        "attention": max(1, round(hidden / width)),
        "feed-forward": max(1, round(rest / (2 * hidden + 1))),
    }


def _picture(ax: Axes, table: pd.DataFrame) -> None:
    layers = sorted(table["layer"].unique())
    for side, (part, (_, colour)) in zip((-1, 1), PARTS.items(), strict=True):
        own = table[table["part"] == part]
        mean = own.groupby("layer")["share"].mean()
        ax.barh(layers, [side] * len(layers), height=0.8, color=FAINT, lw=0)
        ax.barh(layers, side * mean, height=0.8, color=colour, lw=0)
        if own["seed"].nunique() > 1:
            ax.plot(side * own["share"], own["layer"], color=INK, marker="o", ms=2.2, ls="")
        for layer, share in mean.items():
            if share == 0:
                ax.text(side * 0.5, layer, "gone", ha="center", va="center", color=GREY, fontsize=9)
    ax.axvline(0, color=INK, lw=1)
    ax.set_xlim(-1.02, 1.02)
    ax.set_xticks([-1, -0.5, 0, 0.5, 1], ["1", "0.5", "0", "0.5", "1"])
    ax.set_yticks(layers if len(layers) <= 6 else layers[::2])
    ax.set_ylim(layers[0] - 0.6, layers[-1] + 0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
