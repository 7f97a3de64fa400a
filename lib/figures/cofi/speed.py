"""What do parameters and MACs promise, and how much of it does the clock confirm?"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from lib.claims import Finding
from lib.claims.quantities import dense_hidden, macs
from lib.figures import frames, style
from lib.figures.cofi.points import points
from lib.figures.style import GREY, INK, TALK, Drawn
from lib.runs import Run, Timing, shape_key

KINDS = {  # what is left, by how it is counted: (words, colour)
    "layers": ("parameters of the layers", "#0072b2"),
    "model": ("parameters of the full model", "#56b4e9"),
    "macs": ("MACs", "#d55e00"),
    "time": ("time", "#1a1a1a"),
}


def sizes(found: Iterable[Run], timed: Iterable[Timing], findings: Iterable[Finding]) -> Drawn:
    """What is left at each size: of the layers, of the full model, of MACs and of time."""
    table = points(frames.select(found, arm="cofi"), timed)
    table = table.drop_duplicates(["encoder", "size"]).reset_index(drop=True)
    if table.empty:
        return style.untested("sizes", table)
    table = table.assign(layers=1 - table["sparsity"], time=1 / table["speed"])
    encoders = list(dict.fromkeys(table["encoder"]))
    sizes = sorted(table["size"].unique(), reverse=True)
    figure, axes = style.canvas(1, len(encoders), height=1.5 + 0.75 * len(sizes), sharey=True)
    stated = frames.claim(findings, "cofi.validate.sparsity-full").stated
    for ax, encoder in zip(axes, encoders, strict=True):
        own = table[table["encoder"] == encoder]
        for at, (kind, (words, colour)) in enumerate(KINDS.items()):
            places = [sizes.index(size) + (at - 1.5) * 0.2 for size in own["size"]]
            ax.barh(places, own[kind], height=0.19, color=colour, label=words)
            for place, share in zip(places, own[kind], strict=True):
                text = "untimed" if np.isnan(share) else f"{share:.1%}"
                style.note(ax, text, (0 if np.isnan(share) else share, place), (3, 0), va="center")
        for row, size in enumerate(sizes):
            if size not in set(own["size"]):
                ax.text(0.03, row, "untested", va="center", color=GREY)
            elif size in stated:
                ax.plot(1 - stated[size], row - 0.1, **TALK | {"ms": 6})
        style.rows(ax, [f"sparsity {1 - size:g}" for size in sizes], top=0.6)
        ax.grid(visible=False)
        ax.set_xlim(0, 1)
        ax.set_title(encoder)
        ax.set_xlabel("share left")
    looks = {words: colour for words, colour in KINDS.values()}
    style.key(figure, looks)
    return figure, table


def speed(found: Iterable[Run], timed: Iterable[Timing], findings: Iterable[Finding]) -> Drawn:
    """Measured speedup by batch, length and precision beside the ratio of MACs at that length."""
    chosen = [run for run in frames.select(found, arm="cofi") if run.spec.seed == 0]
    size = min((run.spec.budget for run in chosen), default=None)
    table = clocked([run for run in chosen if run.spec.budget == size], timed)
    if table.empty:
        return style.untested("speed by batch and length", table)
    encoders = list(dict.fromkeys(table["encoder"]))
    ways = list(dict.fromkeys(zip(table["batch"], table["length"], strict=True)))
    ways = sorted(ways, key=lambda way: (way[1], way[0]))
    figure, axes = style.canvas(
        1, len(encoders), height=1.7 + 0.34 * len(ways), sharey=True, sharex=True
    )
    for ax, encoder in zip(axes, encoders, strict=True):
        own = table[table["encoder"] == encoder]
        for row in own.itertuples():
            y = ways.index((row.batch, row.length))
            ax.plot([row.from_macs] * 2, [y - 0.35, y + 0.35], color="#d55e00", lw=2.4)
            look = {"float32": ("#0072b2", "o"), "bfloat16": ("#00805e", "s")}[row.precision]
            shift = 0.14 if row.precision == "bfloat16" else -0.14
            bars = [[max(0, row.speed - row.low)], [max(0, row.high - row.speed)]]
            ax.errorbar(
                row.speed, y + shift, xerr=bars, color=look[0], marker=look[1], elinewidth=1.2
            )
        ax.axvline(1, color=INK, lw=1)
        ax.plot(10, -0.7, **TALK | {"ms": 6})
        style.note(ax, "talk: above", (10, -0.7), (8, 0), va="center")
        ax.axvline(10, color=INK, lw=0.8, ls=style.DOTS)
        style.rows(ax, [f"{batch} x {length}" for batch, length in ways], top=1.05)
        ax.set_xlim(0, 1.08 * max(table["high"].max(), table["from_macs"].max()))
        ax.set_title(f"{encoder}, sparsity {1 - size:g}")
        ax.set_xlabel("times as fast as dense")
    axes[0].set_ylabel("sentences x tokens")
    looks = {"float32": ("#0072b2", "o"), "bfloat16": ("#00805e", "s")}
    style.markers(figure, looks | {"ratio of MACs": ("#d55e00", "|")})
    return figure, table


def clocked(found: Iterable[Run], timed: Iterable[Timing]) -> pd.DataFrame:
    """One row a protocol of each encoder's first shape: speed, its quartiles, MACs' ratio, and the
    seconds of both."""
    whole: dict[str, Run] = {}
    for run in found:
        whole.setdefault(run.spec.encoder, run)
    rows = []
    for encoder, run in whole.items():
        clock = frames.timings(t for t in timed if t.encoder == encoder)
        if clock.empty:
            continue
        clock = clock[(clock["shape"] == shape_key(run.shape)) & clock["zeroed"].isna()]
        for (batch, length, precision), own in clock.groupby(["batch", "length", "precision"]):
            arms = own.drop_duplicates("arm").set_index("arm")
            if not {"dense", "pruned"} <= set(arms.index):
                continue
            dense, pruned = arms.loc["dense"], arms.loc["pruned"]
            promised = _macs(run, int(length))
            rows.append(
                {
                    **{"encoder": encoder, "batch": batch, "length": length},
                    **{"precision": precision, "from_macs": promised},
                    **{"dense": dense["seconds"], "pruned": pruned["seconds"]},
                    **{name: own[name].iloc[0] for name in ("machine", "threads")},
                    "speed": dense["seconds"] / pruned["seconds"],
                    "low": dense["low"] / pruned["high"],
                    "high": dense["high"] / pruned["low"],
                }
            )
    columns = ["encoder", "batch", "length", "precision", "from_macs", "speed", "low", "high"]
    columns += ["dense", "pruned", "machine", "threads"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(kept=table["speed"] / table["from_macs"])


def _macs(run: Run, length: int) -> float:
    """Dense MACs over those left, at a length: the record has the dense ones at 128 tokens."""
    return _dense_macs(run, length) / sum(macs(run.shape, length).values())


def _dense_macs(run: Run, length: int) -> int | float:
    """Dense MACs at a length, from those at 128 tokens and the width of its attention.

    Linear in the tokens but for the products: 2 T^2 D in every layer.
    """
    layers, hidden = len(run.shape["layers"]), dense_hidden(run)
    products = 2 * 128 * 128 * hidden * layers
    linear = (run.dense["macs"] - products) / 128
    return linear * length + 2 * length * length * hidden * layers
