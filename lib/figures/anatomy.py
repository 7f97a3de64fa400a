"""Where do parameters, MACs and milliseconds sit in an encoder?"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, MultipleLocator, PercentFormatter

from lib import study
from lib.claims import Finding
from lib.figures import frames, style
from lib.figures.style import FAINT, GREY, INK, TALK, Drawn
from lib.runs import Probe, Run, Timing, shape_key

LENGTHS = (16, 32, 64, 128, 256, 512)


def parameters(found: Iterable[Run], findings: Iterable[Finding]) -> Drawn:
    """Share of the parameters by part; the talk's shares are of the encoder's layers."""
    table = frames.parts(found)
    if table.empty:
        return style.untested("parameters by part", table)
    stated = frames.claim(findings, "coreset.share").stated
    encoders = list(dict.fromkeys(table["encoder"]))
    figure, axes = style.canvas(1, 2, height=1.7 + 0.5 * len(encoders), sharey=True)
    columns = {"of_encoder": "of the encoder's layers", "of_model": "of the whole model"}
    for ax, (column, title) in zip(axes, columns.items(), strict=True):
        for row, encoder in enumerate(encoders):
            own = table[(table["encoder"] == encoder) & table[column].notna()]
            _stack(ax, row, dict(zip(own["part"], own[column], strict=True)))
        ax.set_title(title)
        ax.set_xlim(0, 1)
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.set_xlabel("share of the parameters")
        style.rows(ax, encoders, top=0.85)
        ax.grid(visible=False)
    axes[0].plot(stated["attention"], -0.55, **TALK)
    words = " and ".join(f"{share:.0%}" for share in stated.values())
    style.note(axes[0], f"talk: {words}", (stated["attention"], -0.55), (8, 0), va="center")
    style.key(figure, {part: style.PARTS[part] for part in dict.fromkeys(table["part"])})
    return figure, table


def _stack(ax, row: int, shares: dict[str, float]) -> None:
    left = 0.0
    for part, share in shares.items():
        ax.barh(row, share, left=left, height=0.62, color=style.PARTS[part], ec="white")
        if share > 0.06:
            colour = "white" if part == "attention" else INK
            ax.text(left + share / 2, row, f"{share:.1%}", ha="center", va="center", color=colour)
        left += share


def work(found: Iterable[Run], lengths: Sequence[int], findings: Iterable[Finding]) -> Drawn:
    """Share of an encoder's MACs by part and sequence length, with the half that is claimed."""
    table = frames.work(found, lengths)
    if table.empty:
        return style.untested("MACs by part", table)
    claim = frames.claim(findings, "kcm.ffn-costly")
    encoders = list(dict.fromkeys(table["encoder"]))
    figure, axes = style.canvas(1, len(encoders), height=3.3, sharey=True)
    order = ["feed-forward", "attention projections", "attention scores and context"]
    for ax, encoder in zip(axes, encoders, strict=True):
        wide = table[table["encoder"] == encoder].pivot(
            index="length", columns="part", values="share"
        )
        colours = [style.PARTS[part] for part in order]
        ax.stackplot(wide.index, *(wide[part] for part in order), colors=colours, ec="white")
        ax.plot(list(claim.stated), list(claim.stated.values()), **TALK)
        style.lengths(ax, wide.index)
        ax.set_ylim(0, 1)
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.set_title(encoder)
        ax.set_title("scores and context", loc="right", color=colours[2], fontsize=9.5)
        x = wide.index[0] * 1.15
        ax.text(x, 0.2, "feed-forward", va="center")
        ax.text(x, wide["feed-forward"].iloc[0] + 0.13, "attention's projections", color="white")
        first = next(iter(claim.stated.items()))
        style.note(ax, "talk: above", first, (0, -8), ha="center", va="top")
    axes[0].set_ylabel("share of the encoder's MACs")
    return figure, table


def length(found: Iterable[Run], timed: Iterable[Timing], findings: Iterable[Finding]) -> Drawn:
    """Milliseconds of one sequence by length, and the local exponent p of cost ~ length^p."""
    found = list(found)
    seconds = _alone(found, timed)
    marks = sorted(set(seconds["length"])) or LENGTHS
    macs = frames.work(found, marks)
    if macs.empty:
        return style.untested("cost by length", macs)
    macs = macs.groupby(["encoder", "length"], sort=False)["macs"].sum().reset_index()
    counted, clocked = frames.exponents(macs, "macs"), frames.exponents(seconds, "seconds")
    figure, (left, right) = style.canvas(1, 2, height=3.5)
    for encoder, (colour, _) in zip(dict.fromkeys(macs["encoder"]), style.SEVERAL, strict=False):
        own = seconds[seconds["encoder"] == encoder]
        if len(own):
            thousand = own[["seconds", "low", "high"]] * 1e3
            bars = style.sides(thousand, "seconds", "low", "high")
            look = {"color": colour, "marker": "o", "capsize": 2}
            left.errorbar(own["length"], thousand["seconds"], bars, **look)
            last = (own["length"].iloc[-1], thousand["seconds"].iloc[-1])
            style.note(left, encoder, last, (-4, 7), ha="right", color=colour, fontsize=10)
        for table, line in ((clocked, "-"), (counted, ":")):
            mine = table[table["encoder"] == encoder]
            marker = "o" if line == "-" else ""
            right.plot(mine["length"], mine["exponent"], color=colour, ls=line, marker=marker)
    _claimed(right, findings, marks)
    for ax in (left, right):
        style.lengths(ax, marks)
    left.set_yscale("log")
    left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    left.set_ylabel("milliseconds, one sequence")
    left.set_title("time")
    if seconds.empty:
        style.remark(left, "untimed")
    else:
        left.set_ylim(left.get_ylim()[0], left.get_ylim()[1] * 1.8)
    columns = ["encoder", "length", "seconds", "low", "high", "rounds", "machine"]
    return figure, macs.merge(seconds[columns], on=["encoder", "length"], how="left")


def _claimed(ax, findings: Iterable[Finding], marks: Sequence[int]) -> None:
    """The exponent's axis: the talk's 2 and the line of linear growth."""
    cells = frames.claim(findings, "cost.quadratic").stated
    ax.plot(list(cells), list(cells.values()), **TALK)
    first = (next(iter(cells)), next(iter(cells.values())))
    style.note(ax, "talk: quadratic", first, (-8, 0), ha="right", va="center")
    ax.axhline(1, color=GREY, lw=0.8, ls="--")
    style.note(ax, "linear", (marks[-1], 1), (0, -12), ha="right", color=GREY)
    ax.set_ylim(min(0, ax.get_ylim()[0]), max(first[1] + 0.25, ax.get_ylim()[1]))
    ax.yaxis.set_major_locator(MultipleLocator(0.5))
    ax.set_ylabel("exponent p")
    ax.set_title("p in cost ~ length$^p$, locally")
    style.lines(ax, {"time": "-", "MACs": ":"})


def _alone(found: list[Run], timed: Iterable[Timing]) -> pd.DataFrame:
    """Float32 timings of single sequences through the dense encoders."""
    dense = {encoder: shape_key(run.shape) for encoder, run in frames.one_each(found)}
    table = frames.timings(timed)
    fits = table["shape"] == table["encoder"].map(dense)
    alone = (table["batch"] == 1) & (table["arm"] == "dense") & table["zeroed"].isna()
    chosen = table[fits & alone & (table["precision"] == "float32")]
    return chosen.sort_values(["encoder", "length"])


def precision(found: Iterable[Run], timed: Iterable[Timing]) -> Drawn:
    """What bfloat16 buys beside pruning: every bar against the dense float32 model.

    That which took turns with the shape in float32. `found` are runs of one encoder. The two
    formats took their turns one after the other on the same machine, not interleaved.
    """
    shapes = {shape_key(run.shape): run for run in found if run.spec.method in ("dense", "coreset")}
    shapes |= {key: run for key, run in shapes.items() if run.spec.budget == 1}
    encoders = {run.spec.encoder for run in shapes.values()}
    table = frames.timings(timed)
    batched = (table[list(study.BATCHED)] == pd.Series(study.BATCHED)).all(axis=1)
    table = table[batched & table["zeroed"].isna() & table["encoder"].isin(encoders)]
    dense = table[(table["precision"] == "float32") & (table["arm"] == "dense")]
    base = dense.drop_duplicates("shape").set_index("shape")["seconds"]
    own = table[(table["arm"] == "pruned") & table["shape"].isin(base.index.intersection(shapes))]
    if own.empty:
        return style.untested("number formats", own)
    taken = own["shape"].map(base)
    own = own.assign(
        speedup=taken / own["seconds"],
        low=taken / own["high"],
        high=taken / own["low"],
        unit=[shapes[key].spec.unit * (shapes[key].spec.budget < 1) for key in own["shape"]],
        macs=[shapes[key].kept["macs"] for key in own["shape"]],
        what=[_what(shapes[key]) for key in own["shape"]],
    ).sort_values(["unit", "macs"], ascending=[True, False])
    rows = list(dict.fromkeys(own["what"]))
    figure, (ax,) = style.canvas(height=1.2 + 0.36 * len(rows))
    colours = {name: FORMATS[name] for name in ("float32", "bfloat16")}
    for number, (kind, colour) in enumerate(colours.items()):
        at = own[own["precision"] == kind]
        y = [rows.index(what) + 0.19 * (2 * number - 1) for what in at["what"]]
        bars = style.sides(at, "speedup", "low", "high")
        ax.barh(y, at["speedup"], height=0.36, color=colour, xerr=bars, error_kw={"lw": 1})
        for place, value, high in zip(y, at["speedup"], at["high"], strict=True):
            style.note(ax, f"{value:.2f}x", (high, place), (4, 0), va="center")
    ax.axvline(1, color=INK, lw=1)
    style.rows(ax, rows)
    ax.grid(visible=False)
    ax.set_xlim(0, own["high"].max() * 1.1)
    ax.set_xlabel("times as fast as the dense model in float32 (line)")
    style.key(figure, colours)
    columns = ["encoder", "what", "precision", "macs", "speedup", "low", "high", "rounds"]
    return figure, own[[*columns, "machine"]]


def formats(probes: Iterable[Probe]) -> Drawn:
    """Speed and score of the dense and of a pruned model in each number format, by encoder.

    Speed is against the dense model in float32, all taking turns; bars hold the middle half of the
    rounds. Scores have the 95% interval of their difference from that model's.
    """
    rows = [
        {
            "encoder": probe.question.parameters["encoder"],
            "task": probe.question.parameters["task"],
            "metric": probe.values["metric"],
            "what": "dense" if cell["model"] == "dense" else probe.values["label"],
            "macs": 1.0 if cell["model"] == "dense" else probe.values["kept"],
            "format": cell["format"],
            "score": cell["score"],
            **dict(zip(("drop", "drop_low", "drop_high"), cell["drop"], strict=True)),
            **dict(zip(("speed", "speed_low", "speed_high"), cell["speed"], strict=True)),
            "seconds": cell["seconds"],
        }
        for probe in probes
        if probe.question.name == "formats"
        for cell in probe.values["cells"]
    ]
    columns = ["encoder", "task", "metric", "what", "macs", "format", "score", "drop", "drop_low"]
    columns += ["drop_high", "speed", "speed_low", "speed_high", "seconds"]
    table = pd.DataFrame(rows, columns=columns)
    if table.empty:
        return style.untested("number formats on a trained model", table)
    words = [_format(row) for row in table.itertuples()]
    figure, (left, right) = style.canvas(1, 2, height=1.3 + 0.3 * len(table), sharey=True)
    for y, row in enumerate(table.itertuples()):
        colour = FORMATS[row.format]
        bars = [[row.speed - row.speed_low], [row.speed_high - row.speed]]
        left.barh(y, row.speed, height=0.7, color=colour, xerr=bars, error_kw={"lw": 1})
        style.note(left, f"{row.speed:.2f}x", (row.speed_high, y), (4, 0), va="center")
        sides = [[row.drop_high - row.drop], [row.drop - row.drop_low]]
        marker = "o" if row.macs == 1 else "s"
        right.errorbar(row.score, y, xerr=np.clip(sides, 0, None), color=colour, marker=marker)
    first = (table["macs"] == 1) & (table["format"] == "float32")
    starts = np.flatnonzero(first).tolist()
    for start in starts:
        size = sum(table["encoder"] == table["encoder"][start])
        right.vlines(table["score"][start], start - 0.5, start + size - 0.5, color=INK, lw=1)
    style.rows(left, words)
    left.axvline(1, color=INK, lw=1)
    left.set_xlim(0, table["speed_high"].max() * 1.2)
    left.set_xlabel("times as fast")
    right.tick_params(axis="y", length=0)
    right.grid(axis="y", color=FAINT, lw=0.8)
    right.set_xlabel(style.metric(table))
    style.key(figure, {name: FORMATS[name] for name in FORMATS if name in set(table["format"])})
    return figure, table


FORMATS = {"float32": "#0072b2", "bfloat16": "#e69f00", "int8": "#00805e"}


def _format(row: Any) -> str:
    left = "dense" if row.macs == 1 else f"pruned to {row.macs:.2g}"
    return f"{row.encoder} {left}, {row.format}"


def _what(run: Run) -> str:
    if run.spec.budget == 1:
        return "dense"
    part = "attention and feed-forward" if run.spec.unit == "encoder" else "attention"
    return f"{part} at {run.spec.budget:g}"
