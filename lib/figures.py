"""What do the runs look like? One function a figure: it returns the figure and its tidy data."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from lib import frames, style
from lib.claims import Claim, Finding
from lib.errors import StudyError
from lib.runs import Run, Timing, shape_key
from lib.style import GREY, INK, TALK

Drawn = tuple[Figure, pd.DataFrame]
BOOK = Path(__file__).resolve().parent.parent / "book" / "_static" / "data"
METRICS = {"accuracy": "accuracy", "matthews": "Matthews correlation", "f1": "F1"}


def save(figure: Figure, frame: pd.DataFrame, name: str) -> Figure:
    """Leave a figure's data as <name>.csv for its reader; PRUNING_FIGURES names the folder."""
    folder = Path(os.environ.get("PRUNING_FIGURES", BOOK))
    folder.mkdir(parents=True, exist_ok=True)
    frame.drop(columns="run", errors="ignore").to_csv(
        folder / f"{name}.csv", index=False, float_format="%.6g"
    )
    return figure


# --- anatomy --------------------------------------------------------------------------------------


def parameters(found: Iterable[Run], claims: Iterable[Finding]) -> Drawn:
    """Where the parameters of each encoder sit; the talk's shares are of the encoder's layers."""
    table = frames.parts(found)
    if table.empty:
        return _untested("parameters by part", table)
    stated = _claim(claims, "coreset.share").cells
    encoders = list(dict.fromkeys(table["encoder"]))
    figure, axes = style.canvas(1, 2, height=1.6 + 0.55 * len(encoders), sharey=True)
    titles = ("of the encoder's layers", "of the whole model")
    for ax, column, title in zip(axes, ("of_encoder", "of_model"), titles, strict=True):
        for row, encoder in enumerate(encoders):
            own = table[(table["encoder"] == encoder) & table[column].notna()]
            left = 0.0
            for part, share in zip(own["part"], own[column], strict=True):
                ax.barh(row, share, left=left, height=0.62, color=style.PARTS[part], ec="white")
                if share > 0.06:
                    dark = part in ("attention", "layer norms")
                    words = f"{share:.1%}" if column == "of_encoder" else f"{share:.0%}"
                    ax.text(
                        left + share / 2,
                        row,
                        words,
                        ha="center",
                        va="center",
                        color="white" if dark else INK,
                    )
                left += share
        ax.set_title(title)
        ax.set_xlim(0, 1)
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.set_xlabel("share of the parameters")
        ax.set_yticks(range(len(encoders)), encoders)
        ax.set_ylim(len(encoders) - 0.45, -1.0)
        ax.tick_params(axis="y", length=0)
    axes[0].plot(stated["attention"], -0.5, **TALK)
    axes[0].annotate(
        f"talk: attention {stated['attention']:.0%}, feed-forward {stated['feed-forward']:.0%}",
        (stated["attention"], -0.5),
        xytext=(8, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
    )
    _key(figure, {part: style.PARTS[part] for part in dict.fromkeys(table["part"])})
    return figure, table


def work(found: Iterable[Run], lengths: Iterable[int], claims: Iterable[Finding]) -> Drawn:
    """Share of an encoder's MACs by part and sequence length, with the half that the talk claims."""
    table = frames.work(found, lengths)
    if table.empty:
        return _untested("MACs by part", table)
    claim = _claim(claims, "kcm.ffn-costly")
    encoders = list(dict.fromkeys(table["encoder"]))
    figure, axes = style.canvas(1, len(encoders), height=3.5, sharey=True)
    for ax, encoder in zip(axes, encoders, strict=True):
        own = table[table["encoder"] == encoder]
        wide = own.pivot(index="length", columns="part", values="share")
        order = ["feed-forward", "attention projections", "attention scores and context"]
        ax.stackplot(
            wide.index,
            *(wide[part] for part in order),
            colors=[style.PARTS[part] for part in order],
            ec="white",
        )
        ax.plot(list(claim.cells), list(claim.cells.values()), **TALK)
        style.lengths(ax, wide.index)
        _thin(ax)
        ax.set_ylim(0, 1)
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.set_title(encoder)
        middle = wide.index[len(wide) // 2]
        heights = wide[order].loc[middle].cumsum()
        for part, top in heights.items():
            share = wide.loc[middle, part]
            if share > 0.08:
                words = part.replace(" scores", "\nscores")
                dark = part == "attention projections"
                ax.text(
                    middle,
                    top - share / 2 + (0.07 if part == "feed-forward" else 0),
                    words,
                    ha="center",
                    va="center",
                    color="white" if dark else INK,
                    fontsize=9,
                )
    axes[0].set_ylabel("share of the encoder's MACs")
    axes[0].annotate(
        "talk: above half",
        (list(claim.cells)[0], 0.5),
        xytext=(0, -14),
        textcoords="offset points",
        fontsize=9,
    )
    _key(figure, {part: style.PARTS[part] for part in dict.fromkeys(table["part"])})
    return figure, table


def length(found: Iterable[Run], timed: Iterable[Timing], claims: Iterable[Finding]) -> Drawn:
    """Milliseconds of one sequence by length, and the exponent p of cost ~ length^p."""
    found = list(found)
    dense = {encoder: shape_key(run.shape) for encoder, run in frames.one_each(found)}
    seconds = frames.timings(timed)
    fits = seconds["shape"] == seconds["encoder"].map(dense)
    alone = (seconds["batch"] == 1) & (seconds["arm"] == "dense") & seconds["zeroed"].isna()
    seconds = seconds[fits & alone & (seconds["precision"] == "float32")].sort_values("length")
    marks = sorted(set(seconds["length"])) or _LENGTHS
    macs = frames.work(found, marks).groupby(["encoder", "length"], sort=False)["macs"].sum()
    macs = macs.reset_index()
    if macs.empty:
        return _untested("cost by length", macs)
    stated = _claim(claims, "cost.quadratic")
    claimed = next(iter(stated.cells.values()))
    figure, (left, right) = style.canvas(1, 2, height=3.5)
    counted, clocked = frames.exponents(macs, "macs"), frames.exponents(seconds, "seconds")
    ends = []
    for encoder, colour in zip(dense, style.ENCODERS, strict=False):
        own = seconds[seconds["encoder"] == encoder]
        if len(own):
            error = [(own["seconds"] - own["low"]) * 1e3, (own["high"] - own["seconds"]) * 1e3]
            left.errorbar(
                own["length"], own["seconds"] * 1e3, error, color=colour, marker="o", capsize=2
            )
            ends.append((own["seconds"].iloc[-1] * 1e3, encoder, colour))
            mine = clocked[clocked["encoder"] == encoder]
            right.plot(mine["length"], mine["exponent"], color=colour, marker="o")
        mine = counted[counted["encoder"] == encoder]
        right.plot(mine["length"], mine["exponent"], color=colour, ls=":", marker="")
    left.set_yscale("log")
    left.set_ylabel("milliseconds, one sequence")
    left.set_title("time")
    right.set_title("local exponent p, cost ~ length$^p$")
    right.set_ylabel("exponent p")
    right.axhline(1, color=GREY, lw=0.8, ls="--")
    right.plot(list(stated.cells), [claimed] * len(stated.cells), **TALK)
    right.set_ylim(min(0, right.get_ylim()[0]), max(claimed + 0.25, right.get_ylim()[1]))
    for ax in (left, right):
        style.lengths(ax, marks)
        _thin(ax)
    if ends:
        left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        left.set_ylim(left.get_ylim()[0], left.get_ylim()[1] * 1.6)
        for height, words, colour in ends:
            left.annotate(
                words,
                (marks[-1], height),
                xytext=(-4, 7),
                textcoords="offset points",
                ha="right",
                color=colour,
            )
    else:
        left.text(0.5, 0.5, "untimed here", transform=left.transAxes, ha="center", color=GREY)
    right.annotate(
        "talk: quadratic",
        (marks[0], claimed),
        xytext=(2, -4),
        textcoords="offset points",
        va="top",
        fontsize=9,
    )
    right.annotate(
        "linear", (marks[-1], 1), xytext=(0, -12), textcoords="offset points", ha="right", color=GREY
    )
    _lines(right, {"time": "-", "MACs": ":"})
    data = macs.merge(
        seconds[["encoder", "length", "seconds", "low", "high", "rounds", "machine"]],
        on=["encoder", "length"],
        how="left",
    )
    return figure, data


def masks_alone(found: Iterable[Run], timed: Iterable[Timing]) -> Drawn:
    """Speed of one and the same density as zeros in place and as smaller matrices."""
    table = _unmasked(list(found), frames.timings(timed))
    if table.empty:
        return _untested("zeros against smaller matrices", table)
    figure, (ax,) = style.canvas(height=0.9 + 0.42 * len(table))
    _speed_bars(ax, table)
    return figure, table


def precision(found: Iterable[Run], timed: Iterable[Timing]) -> Drawn:
    """What number formats buy beside pruning: every bar against the dense model in float32."""
    table = frames.timings(timed)
    table = table[(table["batch"] > 1) & table["zeroed"].isna()]
    shapes = {}
    for run in found:
        if run.spec.method == "dense" or (run.spec.method == "coreset"):
            shapes.setdefault(shape_key(run.shape), run)
    dense = {shape_key(run.shape) for run in shapes.values() if run.spec.method == "dense"}
    base = table[(table["precision"] == "float32") & (table["arm"] == "dense")]
    if base.empty or not dense:
        return _untested("number formats", table)
    base = base.groupby("encoder")["seconds"].median()
    own = table[(table["arm"] == "pruned") & table["shape"].isin(shapes)].copy()
    for column in ("seconds", "low", "high"):
        own[column] = own["encoder"].map(base) / own[column]
    own = own.rename(columns={"seconds": "speedup", "low": "high", "high": "low"})
    own["macs"] = own["shape"].map({key: run.kept["macs"] for key, run in shapes.items()})
    own["what"] = own["shape"].map(
        {
            key: "dense" if key in dense else f"{_part(run)} at {run.spec.budget:g}"
            for key, run in shapes.items()
        }
    )
    own = own.sort_values(["encoder", "macs"], ascending=[True, False])
    encoders = list(dict.fromkeys(own["encoder"]))
    rows = list(dict.fromkeys(own["what"]))
    figure, axes = style.canvas(
        1, len(encoders), height=1.2 + 0.34 * len(rows), sharey=True, sharex=True
    )
    colours = {"float32": "#0072b2", "bfloat16": "#e69f00"}
    for ax, encoder in zip(axes, encoders, strict=True):
        mine = own[own["encoder"] == encoder]
        for number, (kind, colour) in enumerate(colours.items()):
            at = mine[mine["precision"] == kind]
            y = [rows.index(what) + 0.19 * (2 * number - 1) for what in at["what"]]
            error = _sides(at, "speedup", "low", "high")
            ax.barh(y, at["speedup"], height=0.36, color=colour, xerr=error, error_kw={"lw": 1})
        ax.axvline(1, color=INK, lw=1)
        ax.set_title(encoder)
        ax.set_xlabel("times as fast as dense float32")
        ax.set_yticks(range(len(rows)), rows)
        ax.invert_yaxis() if not ax.yaxis_inverted() else None
    _key(figure, colours)
    columns = ["encoder", "what", "precision", "macs", "speedup", "low", "high", "rounds"]
    return figure, own[[*columns, "machine"]]


# --- coreset: the table of the slides --------------------------------------------------------------


def density(
    found: Iterable[Run], claims: Iterable[Finding], keys: Sequence[str], after: Sequence[str]
) -> Drawn:
    """The talk's table beside ours: the score, and the drop from the dense model of each.

    `keys` are the claims whose numbers are drawn, `after` the fine-tunings of ours.
    """
    found = list(found)
    ours = frames.cells(
        frames.select(found, arm="coreset", unit="attention", after=list(after))
    )
    claim = _claim(claims, keys[0])
    talk = _talk(claim)
    data = pd.concat([ours.assign(source="ours"), talk], ignore_index=True)
    if ours.empty:
        return _untested("the table of the slides", data)
    dense = ours["dense"].iloc[0]
    figure, (left, right) = style.canvas(1, 2, height=3.6)
    colour = style.look("coreset")["color"]
    styles = {"none": "-", "steps": "-", "epochs": ":"}
    marks = {"none": "o", "steps": "o", "epochs": "s"}
    for how, own in ours.groupby("after", sort=False):
        own = own.sort_values("budget")
        for ax, name in ((left, "score"), (right, "drop")):
            ax.errorbar(
                own["budget"],
                own[name],
                _sides(own, name),
                color=colour,
                ls=styles[how],
                marker=marks[how],
                capsize=3,
                label=_AFTER[how],
            )
    for ax, name in ((left, "score"), (right, "drop")):
        ax.errorbar(
            talk["budget"],
            talk[name],
            _sides(talk, name),
            **TALK | {"ls": (0, (1, 2)), "color": INK, "lw": 1, "elinewidth": 1, "label": "talk"},
        )
        style.densities(ax, [*ours["budget"], *talk["budget"]], "density of attention")
    left.axhline(dense, color=INK, lw=1)
    left.axhline(claim.dense, color=INK, lw=1, ls=(0, (1, 2)))
    low = min(ours["score_low"].min(), talk["score_low"].min())
    left.set_ylim(min(0.45, low - 0.03), max(dense, claim.dense) + 0.06)
    near = abs(dense - claim.dense) < 0.035
    top, bottom = (dense, claim.dense) if dense >= claim.dense else (claim.dense, dense)
    words = ("our dense", "talk's dense") if dense >= claim.dense else ("talk's dense", "our dense")
    x = max(*ours["budget"], *talk["budget"])
    left.annotate(words[0], (x, top), xytext=(0, 3), textcoords="offset points", fontsize=9)
    if not near:
        left.annotate(words[1], (x, bottom), xytext=(0, 3), textcoords="offset points", fontsize=9)
    metric = ours["metric"].iloc[0]
    left.set_ylabel(METRICS.get(metric, metric))
    left.set_title("score")
    right.axhline(0, color=INK, lw=1)
    right.set_ylabel(f"{METRICS.get(metric, metric)} lost")
    right.set_title("drop from its own dense model")
    left.legend(loc="lower left", handlelength=2.2)
    return figure, data


def hypotheses(found: Iterable[Run], claims: Iterable[Finding]) -> Drawn:
    """Distance of every reading of the slides to their table without fine-tuning; a heat map."""
    claim = _claim(claims, "coreset.density")
    table = frames.distances(found, claim.cells, claim.dense)
    if table.empty:
        return _untested("readings of the slides", table)
    samplers = [s for s in style.SAMPLERS if s in set(table["sampler"])]
    columns = [
        (s, r)
        for s in samplers
        for r in (False, True)
        if ((table["sampler"] == s) & (table["rescale"] == r)).any()
    ]
    rows = [
        place
        for place in ((a, i) for a in _AXES for i in _IMPORTANCES)
        if ((table["axis"] == place[0]) & (table["importance"] == place[1])).any()
    ]
    grid = np.full((len(rows), len(columns)), np.nan)
    for row in table.itertuples():
        place = rows.index((row.axis, row.importance)), columns.index((row.sampler, row.rescale))
        grid[place] = row.distance
    figure, (ax,) = style.canvas(height=1.7 + 0.36 * len(rows))
    shades = LinearSegmentedColormap.from_list("near", ["#f7fbff", "#9ecae1", "#08519c"])
    ax.imshow(grid, cmap=shades, aspect="auto", vmin=0, vmax=max(0.3, np.nanmax(grid)))
    limit = max(0.3, np.nanmax(grid)) * 0.6
    for (y, x), value in np.ndenumerate(grid):
        if not np.isnan(value):
            ax.text(
                x,
                y,
                f"{100 * value:.1f}",
                ha="center",
                va="center",
                color="white" if value > limit else INK,
                fontsize=9.5,
            )
    best = np.unravel_index(np.nanargmin(grid), grid.shape)
    ax.add_patch(_frame(best[1], best[0], INK, "-"))
    ours = (("head-dims", "product"), ("without", False))
    if ours[0] in rows and ours[1] in columns:
        ax.add_patch(_frame(columns.index(ours[1]), rows.index(ours[0]), INK, ":"))
    ax.set_xticks(
        range(len(columns)),
        [
            frames.SAMPLER_WORDS[s].replace(" ", "\n") + ("\nrescaled" if r else "")
            for s, r in columns
        ],
        fontsize=9,
    )
    ax.set_yticks(range(len(rows)), [_row_words(axis, importance) for axis, importance in rows])
    ax.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    ax.spines[:].set_visible(False)
    ax.set_xlabel(
        "root-mean-square distance to the talk's drops, in hundredths;\n"
        "solid frame: nearest, dotted: our headline reading"
    )
    return figure, table


def nearest(found: Iterable[Run], claims: Iterable[Finding], show: int = 5) -> Drawn:
    """The nearest readings' curves beside the talk's."""
    found = list(found)
    claim = _claim(claims, "coreset.density")
    table = frames.distances(found, claim.cells, claim.dense).head(show)
    if table.empty:
        return _untested("nearest readings", table)
    talk = _talk(claim)
    figure, (ax,) = style.canvas(height=3.6)
    offs = [name for name in table.columns if name.startswith("off@")]
    budgets = [float(name.removeprefix("off@")) for name in offs]
    drops = talk.set_index("budget")["drop"]
    rows = []
    for number, (_, row) in enumerate(table.iterrows()):
        ours = [row[name] + drops[budget] for name, budget in zip(offs, budgets, strict=True)]
        colour, marker = style.ENCODERS[number % len(style.ENCODERS)], "osv^h"[number % 5]
        label = f"{100 * row['distance']:.1f}  {frames.reading(row)}"
        ax.plot(budgets, ours, color=colour, marker=marker, label=label)
        rows += [
            {"reading": frames.reading(row), "budget": b, "drop": d, "distance": row["distance"]}
            for b, d in zip(budgets, ours, strict=True)
        ]
    ax.errorbar(
        talk["budget"],
        talk["drop"],
        _sides(talk, "drop"),
        **TALK | {"ls": (0, (1, 2)), "color": INK, "lw": 1, "elinewidth": 1, "label": "talk"},
    )
    ax.axhline(0, color=INK, lw=1)
    style.densities(ax, [*budgets, *talk["budget"]], "density of attention")
    ax.set_ylabel("accuracy lost, from its own dense model")
    ax.legend(loc="upper left", fontsize=9, title="distance (hundredths), reading")
    ax.get_legend().get_title().set_fontsize(9)
    ax.get_legend()._legend_box.align = "left"
    data = pd.concat([pd.DataFrame(rows), talk.assign(reading="talk")], ignore_index=True)
    return figure, data


# --- coreset: against the others -------------------------------------------------------------------


def baselines(found: Iterable[Run]) -> Drawn:
    """Every method at every density, without fine-tuning and with a short one."""
    found = frames.select(found, unit="attention", after=["none", "steps"])
    table = frames.cells(found)
    table = table[table["arm"].isin(style.METHODS)].reset_index(drop=True)
    pruned = table[table["arm"] != "dense"]
    if pruned.empty:
        return _untested("methods by density", table)
    budgets = sorted(set(pruned["budget"]), reverse=True)
    arms = [arm for arm in style.METHODS if arm in set(pruned["arm"])]
    figure, axes = style.canvas(
        len(budgets),
        2,
        height=0.9 + len(budgets) * (0.35 + 0.19 * len(arms)),
        sharex=True,
        sharey=True,
    )
    metric = METRICS.get(table["metric"].iloc[0], table["metric"].iloc[0])
    for number, ax in enumerate(axes):
        budget, after = budgets[number // 2], ("none", "steps")[number % 2]
        own = pruned[(pruned["budget"] == budget) & (pruned["after"] == after)]
        ax.axvline(table["dense"].iloc[0], color=INK, lw=1)
        tuned = table[(table["arm"] == "dense") & (table["after"] == after)]
        if after == "steps" and len(tuned):
            ax.axvspan(
                tuned["score_low"].min(), tuned["score_high"].max(), color=INK, alpha=0.1, lw=0
            )
        for row in own.itertuples():
            y = arms.index(row.arm)
            error = [[row.score - row.score_low], [row.score_high - row.score]]
            ax.errorbar(row.score, y, xerr=error, **style.look(row.arm), ms=6, ls="", elinewidth=1.4)
        missing = [arm for arm in arms if arm not in set(own["arm"])]
        for arm in missing:
            ax.text(
                0.02,
                arms.index(arm),
                "untested",
                transform=ax.get_yaxis_transform(),
                va="center",
                fontsize=8.5,
                color=GREY,
            )
        ax.set_yticks(range(len(arms)), [style.name(arm) for arm in arms])
        ax.grid(axis="y", color="#e6e6e6", lw=0.8)
        ax.set_axisbelow(True)
        ax.set_title(f"density {budget:g}, {_AFTER[after]}", fontsize=10)
        ax.tick_params(axis="y", length=0)
        if number % 2 == 0:
            for label, arm in zip(ax.get_yticklabels(), arms, strict=True):
                label.set_color(style.look(arm)["color"])
    axes[0].set_ylim(len(arms) - 0.4, -0.6)
    for ax in axes[-2:]:
        ax.set_xlabel(f"{metric} (line: dense)")
    return figure, table


def rivals(claims: Iterable[Finding]) -> Drawn:
    """How much better the coreset does than each rival where the talk says that it wins."""
    claims = [f for f in claims if f.claim.key.startswith("coreset.beats-")]
    table = frames.findings(claims)
    table = table[table["measured"].notna()].copy()
    if table.empty:
        return _untested("the coreset against its rivals", table)
    texts = {f.claim.key: f.claim for f in claims}
    table["rival"] = [_arm(texts[key].versus) for key in table["key"]]
    table["after"] = [texts[key].select.get("after", "none") for key in table["key"]]
    afters = [after for after in _AFTER if after in set(table["after"])]
    cells = sorted(set(table["cell"]), reverse=True)
    names = [arm for arm in style.METHODS if arm in set(table["rival"])]
    figure, axes = style.canvas(
        1, len(afters), height=1.5 + 0.42 * len(names), sharey=True, sharex=True
    )
    for ax, after in zip(axes, afters, strict=True):
        ax.axvline(0, color=INK, lw=1)
        for row in table[table["after"] == after].itertuples():
            at = cells.index(row.cell)
            y = names.index(row.rival) + (at - (len(cells) - 1) / 2) * 0.3
            error = [[row.measured - row.low], [row.high - row.measured]]
            shape = {"marker": "os^v"[at % 4], "mfc": "white" if at == 0 else None}
            colour = style.look(row.rival)["color"]
            ax.errorbar(
                row.measured, y, xerr=error, color=colour, ls="", elinewidth=1.4, ms=6, **shape
            )
        ax.set_title(_AFTER[after])
        ax.set_yticks(range(len(names)), [f"against {style.name(name)}" for name in names])
        ax.set_ylim(len(names) - 0.45, -1.0)
        ax.grid(axis="y", color="#e6e6e6", lw=0.8)
        ax.set_axisbelow(True)
        ax.tick_params(axis="y", length=0)
    reach = max(abs(table["low"].min()), abs(table["high"].max())) * 1.08
    for ax in axes:
        ax.set_xlim(-reach, reach)
        ax.plot(0.012 * reach, -0.68, **TALK | {"ms": 6})
        ax.annotate(
            "talk: above 0 →", (0, -0.68), xytext=(8, 0), textcoords="offset points", va="center",
            fontsize=9,
        )
    figure.supxlabel("score of the coreset minus score of the rival", fontsize=10)
    handles = {f"density {c:g}": "os^v"[n % 4] for n, c in enumerate(cells)}
    _markers(figure, handles, hollow=1)
    return figure, table


def samplers(found: Iterable[Run]) -> Drawn:
    """Every seed of every sampler, with and without rescaling what is kept."""
    found = [
        run
        for run in frames.select(found, method="coreset", unit="attention", after="none")
        if (run.spec.options["axis"], run.spec.options["importance"]) == ("head-dims", "product")
    ]
    table = frames.runs(found)
    if table.empty:
        return _untested("samplers", table)
    names = [s for s in style.SAMPLERS if s in set(table["sampler"])]
    figure, axes = style.canvas(1, 2, height=3.7, sharey=True)
    for ax, rescale in zip(axes, (False, True), strict=True):
        own = table[table["rescale"] == rescale]
        ax.axhline(table["dense"].iloc[0], color=INK, lw=1)
        budgets = sorted(set(table["budget"]), reverse=True)
        for number, sampler in enumerate(names):
            colour, marker = style.SAMPLERS[sampler]
            shift = (number - (len(names) - 1) / 2) * 0.13
            mine = own[own["sampler"] == sampler]
            x = [budgets.index(budget) + shift for budget in mine["budget"]]
            ax.plot(x, mine["score"], color=colour, marker=marker, ms=4.5, ls="", alpha=0.75)
            means = mine.groupby("budget")["score"].mean()
            for budget, mean in means.items():
                at = budgets.index(budget) + shift
                ax.plot([at - 0.06, at + 0.06], [mean, mean], color=colour, lw=2.2)
        ax.set_xticks(range(len(budgets)), [f"{budget:g}" for budget in budgets])
        ax.set_xlabel("density of attention")
        ax.set_title("rescaled" if rescale else "what is kept keeps its weight")
        if own.empty:
            ax.text(0.5, 0.5, "untested", transform=ax.transAxes, ha="center", color=GREY)
    metric = table["metric"].iloc[0]
    axes[0].set_ylabel(METRICS.get(metric, metric))
    handles = {frames.SAMPLER_WORDS[s]: style.SAMPLERS[s] for s in names}
    _markers(figure, handles)
    return figure, table


def unstructured(
    found: Iterable[Run], timed: Iterable[Timing], claims: Iterable[Finding]
) -> Drawn:
    """Zeroing single weights: what it costs in score, and what it buys in time."""
    found = list(found)
    names = ("unstructured", "magnitude", "coreset")
    here = frames.select(found, arm=list(names), unit="attention", after=["none", "steps"])
    table = frames.cells(here)
    if not (table["arm"] == "unstructured").any():
        return _untested("unstructured pruning", table)
    figure, (left, right) = style.canvas(1, 2, height=3.4, width_ratios=(1.15, 1))
    left.axhline(0, color=INK, lw=1)
    for (arm, after), own in table.groupby(["arm", "after"], sort=False):
        own = own.sort_values("budget")
        left.errorbar(
            own["budget"],
            own["drop"],
            _sides(own, "drop"),
            **style.look(arm),
            ls=":" if after == "steps" else "-",
            capsize=2,
            elinewidth=1,
        )
    claim = _claim(claims, "coreset.unstructured-sparsity")
    left.plot(list(claim.cells), list(claim.cells.values()), **TALK)
    style.densities(left, table["budget"], "share of attention's weights that is not 0")
    left.set_ylabel("drop from the dense model")
    left.set_title("score lost")
    _lines(left, {"no fine-tuning": "-", "fine-tuned": ":"}, arms=names)
    speeds = _unmasked(found, frames.timings(timed))
    if speeds.empty:
        right.text(0.5, 0.5, "untimed", transform=right.transAxes, ha="center", color=GREY)
        right.set_axis_off()
    else:
        speeds = speeds[speeds["encoder"] == speeds["encoder"].iloc[0]]
        _speed_bars(right, speeds, stated=_claim(claims, "coreset.unstructured").cells[""])
        right.set_title("speed")
    return figure, pd.concat([table, speeds.assign(arm=speeds["what"])], ignore_index=True)


# --- coreset: speed -------------------------------------------------------------------------------


def speed(found: Iterable[Run], claims: Iterable[Finding], key: str, unit: str) -> Drawn:
    """Speedup over the dense model by density: ours, the talk's, and what MACs alone would give."""
    found = list(found)
    finding = _finding(claims, key)
    kept = frames.runs(frames.select(found, arm="coreset", unit=unit, after="none"))
    kept = kept.groupby("budget")["macs"].mean()
    ours = frames.findings([finding])
    measured = ours[ours["measured"].notna()]
    stated = pd.Series(finding.claim.cells, dtype=float)
    equals = finding.claim.relation_of(next(iter(stated.index))) == "equals"
    budgets = sorted({*kept.index, *stated.index, 1.0}, reverse=True)
    data = pd.DataFrame({"density": budgets})
    data["talk"] = data["density"].map(stated) if equals else np.nan
    data["from_macs"] = 1 / data["density"].map(kept)
    for column in ("measured", "low", "high", "n"):
        data[column] = data["density"].map(ours.set_index("cell")[column])
    if measured.empty and kept.empty:
        return _untested("speed by density", data)
    figure, (ax,) = style.canvas(height=3.6)
    ax.axhline(1, color=INK, lw=1)
    ends = []
    macs = data[data["from_macs"].notna()]
    if len(macs):
        ax.plot(macs["density"], macs["from_macs"], color=GREY, ls="--", lw=1.2)
        ends.append((macs["from_macs"].iloc[-1], "from MACs", GREY))
    if len(measured):
        own = measured.sort_values("cell", ascending=False)
        look = style.look("coreset")
        ax.errorbar(own["cell"].astype(float), own["measured"], _sides(own), **look, capsize=3)
        ends.append((own["measured"].iloc[-1], "measured", look["color"]))
    else:
        ax.text(0.5, 0.5, "untimed: no speed on record", transform=ax.transAxes, color=GREY)
    style.densities(ax, budgets, _DENSITY[unit])
    if equals:
        slope, start = talk_line(finding.claim)
        x = np.linspace(min(stated.index), 1, 100)
        ax.plot(x, 1 / (start + slope * x), color=INK, lw=1, ls=(0, (1, 2)))
        ax.plot(stated.index, stated, **TALK)
        ends.append((stated.iloc[-1], "talk, and its line", INK))
    else:
        ax.plot(stated.index, stated, **TALK)
        ends.append((1.0, "talk: above 1", INK))
    top = max(height for height, _, _ in ends)
    ax.set_ylim(0.85 if top < 2 else 0.5, top * 1.08)
    if top > 6:
        ax.set_yscale("log", base=2)
        ax.set_ylim(0.8, top * 1.15)
        ax.yaxis.set_major_locator(FixedLocator([1, 2, 4, 8, 16]))
        ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    ax.set_ylabel("times as fast as dense")
    style.beside(ax, ends)
    return figure, data


def talk_line(claim: Claim) -> tuple[float, float]:
    """Slope and start of the straight line through the talk's times, in units of its dense time."""
    times = {1.0: 1.0} | {density: 1 / speedup for density, speedup in claim.cells.items()}
    slope, start = np.polyfit(list(times), list(times.values()), 1)
    return float(slope), float(start)


def full_model(found: Iterable[Run], claims: Iterable[Finding]) -> Drawn:
    """Attention and feed-forward part pruned alike: score by density, and score against speed."""
    table = frames.cells(frames.select(found, unit="encoder", after="none"))
    table = table[table["arm"].isin(style.METHODS)].reset_index(drop=True)
    speeds = frames.findings([_finding(claims, "coreset.time")]).set_index("cell")["measured"]
    if table.empty:
        return _untested("the full model pruned", table)
    figure, (left, right) = style.canvas(1, 2, height=3.5, sharey=True)
    ends = []
    for arm, own in table.groupby("arm", sort=False):
        own = own.sort_values("budget", ascending=False)
        look = style.look(arm)
        left.errorbar(
            own["budget"], own["score"], _sides(own, "score"), **look, capsize=2, elinewidth=1
        )
        ends.append((own["score"].iloc[-1], style.name(arm), look["color"]))
        if arm == "coreset":
            at = own["budget"].map({1.0: 1.0} | speeds.to_dict()).astype(float)
            right.errorbar(at, own["score"], _sides(own, "score"), **look, capsize=2, elinewidth=1)
            for x, y, budget in zip(at, own["score"], own["budget"], strict=True):
                if np.isfinite(x):
                    right.annotate(
                        f"{budget:g}",
                        (x, y),
                        xytext=(6, 4),
                        textcoords="offset points",
                        fontsize=9,
                    )
    for ax in (left, right):
        ax.axhline(table["dense"].iloc[0], color=INK, lw=1)
    metric = METRICS.get(table["metric"].iloc[0], table["metric"].iloc[0])
    style.densities(left, table["budget"], _DENSITY["encoder"])
    left.set_ylabel(f"{metric} (line: dense)")
    left.set_title("score by density")
    right.set_title("coreset, score by speed")
    right.set_xlabel("times as fast as dense (density beside each point)")
    if not speeds.notna().any():
        right.text(0.5, 0.5, "untimed", transform=right.transAxes, ha="center", color=GREY)
    _lines(left, {}, arms=list(dict.fromkeys(table["arm"])))
    return figure, table


# --- coreset: elsewhere, and inside ----------------------------------------------------------------


def others(found: Iterable[Run]) -> Drawn:
    """The other encoders and tasks: what each method loses of its own dense model's score."""
    found = frames.select(found, unit="attention", after=["none", "steps"])
    table = frames.cells(found)
    table = table[table["arm"].isin(set(style.METHODS) - {"dense"})].reset_index(drop=True)
    if table.empty:
        return _untested("other encoders and tasks", table)
    pairs = list(dict.fromkeys(zip(table["encoder"], table["task"], strict=True)))
    afters = [after for after in ("none", "steps") if after in set(table["after"])]
    names = [arm for arm in style.METHODS if arm in set(table["arm"])]
    figure, axes = style.canvas(
        len(afters), len(pairs), height=1.1 + 2.5 * len(afters), sharex=True
    )
    grid = np.array(axes, dtype=object).reshape(len(afters), len(pairs))
    for row, after in enumerate(afters):
        for column, pair in enumerate(pairs):
            ax = grid[row, column]
            here = (table["encoder"] == pair[0]) & (table["task"] == pair[1])
            own = table[here & (table["after"] == after)]
            ax.axhline(0, color=INK, lw=1)
            for arm, line in own.groupby("arm", sort=False):
                line = line.sort_values("budget")
                strong = arm in ("coreset", "magnitude", "svd")
                ax.errorbar(
                    line["budget"],
                    line["drop"],
                    _sides(line, "drop") if strong else None,
                    **style.look(arm),
                    lw=1.8 if strong else 1,
                    elinewidth=0.9,
                    ms=5 if strong else 4,
                )
            style.densities(ax, table["budget"], "density of attention" if row == len(afters) - 1 else "")
            ax.set_title(f"{pair[1]}, {_AFTER[after]}", fontsize=10)
            if own.empty:
                ax.text(0.5, 0.5, "untested", transform=ax.transAxes, ha="center", color=GREY)
        grid[row, 0].set_ylabel("drop from own dense")
    handles = {style.name(arm): tuple(style.METHODS[arm][1:]) for arm in names}
    _markers(figure, handles)
    return figure, table


def products(found: Iterable[Run]) -> Drawn:
    """Relative Frobenius error of the heads' two products, on the real weights, by sampler."""
    found = [run for run in found if "product_error" in run.pruned]
    table = frames.runs(frames.select(found, unit="attention", after="none"))
    for side in ("qk", "vo"):
        table[side] = [run.pruned["product_error"][side] for run in table["run"]]
    samplers_ = table["method"].eq("coreset") & table["axis"].eq("head-dims")
    table = table[(samplers_ & table["importance"].eq("product")) | table["method"].eq("svd")]
    if table.empty:
        return _untested("error of the heads' products", table)
    rescaled = table["rescale"].fillna(False).astype(bool)
    names = table["sampler"].map(frames.SAMPLER_WORDS).fillna("SVD rotation")
    table = table.assign(how=names + np.where(rescaled, ", rescaled", ""))
    figure, axes = style.canvas(1, 2, height=4.0, sharey=True)
    for ax, side, title in zip(axes, ("qk", "vo"), ("query · key", "value · output"), strict=True):
        ends = []
        for how, own in table.groupby("how", sort=False):
            stats = own.groupby("budget")[side].agg(["mean", "min", "max"])
            sampler = own["sampler"].iloc[0]
            colour, marker = style.SAMPLERS.get(sampler, style.METHODS["svd"][1:])
            error = _sides(stats, "mean", "min", "max")
            dashed = ":" if how.endswith("rescaled") else "-"
            ax.errorbar(stats.index, stats["mean"], error, color=colour, marker=marker, ls=dashed)
            ends.append((stats["mean"].iloc[0], how, colour))
        ax.axhline(1, color=GREY, lw=0.8, ls="--")
        style.densities(ax, table["budget"], "density of attention")
        ax.set_title(title)
    style.beside(axes[1], ends)
    axes[0].set_ylabel("relative Frobenius error")
    return figure, table


# --- verdicts -------------------------------------------------------------------------------------


def verdicts(claims: Iterable[Finding]) -> Drawn:
    """Every claim's verdict, a badge for each encoder and task."""
    claims = list(claims)
    rows = [
        (f.claim.key, f.encoder, f.task, f.fidelity, f.verdict.value, f.claim.text) for f in claims
    ]
    columns = ["key", "encoder", "task", "fidelity", "verdict", "claim"]
    table = pd.DataFrame(rows, columns=columns)
    if table.empty:
        return _untested("verdicts", table)
    keys = list(dict.fromkeys(table["key"]))
    pairs = list(dict.fromkeys(zip(table["encoder"], table["task"], strict=True)))
    figure, (ax,) = style.canvas(height=0.75 + 0.27 * len(keys))
    for row in table.itertuples():
        x, y = pairs.index((row.encoder, row.task)), keys.index(row.key)
        ax.barh(y, 0.96, left=x - 0.48, height=0.84, color=style.VERDICTS[row.verdict], lw=0)
        ax.text(x, y, row.verdict, ha="center", va="center", color="white", fontsize=9.5)
    ax.set_yticks(range(len(keys)), keys)
    ax.set_xticks(range(len(pairs)), [f"{encoder}\n{task}" for encoder, task in pairs])
    ax.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    ax.set_ylim(len(keys) - 0.5, -0.5)
    ax.set_xlim(-0.5, max(len(pairs), 3) - 0.5)
    ax.spines[:].set_visible(False)
    return figure, table


# --- pieces ---------------------------------------------------------------------------------------

_LENGTHS = (16, 32, 64, 128, 256, 512)
_AFTER = {"none": "not fine-tuned", "steps": "fine-tuned briefly", "epochs": "a whole epoch"}
_DENSITY = {"attention": "density of attention", "encoder": "density of attention and feed-forward"}
_AXES = ("head-dims", "layer-dims", "heads", "inputs")
_IMPORTANCES = ("product", "first", "second", "mussay")


def _finding(claims: Iterable[Finding], key: str) -> Finding:
    """The first finding on a claim: that of the chapter's own encoder and task."""
    for finding in claims:
        if finding.claim.key == key:
            return finding
    raise StudyError(f"wanted a finding on {key}, got none; give claims.findings of its chapter")


def _claim(claims: Iterable[Finding], key: str) -> Claim:
    return _finding(claims, key).claim


def _talk(claim: Claim) -> pd.DataFrame:
    """The talk's scores, and drops from its own dense model, with the intervals of its counts."""
    from lib.quantities import wilson

    rows = []
    for budget, score in claim.cells.items():
        low, high = score, score
        if claim.examples:
            low, high = wilson(round(score * claim.examples), claim.examples)
        drops = (claim.dense - score, claim.dense - high, claim.dense - low)
        rows.append(("talk", budget, score, low, high, *drops))
    names = ["score", "score_low", "score_high", "drop", "drop_low", "drop_high"]
    return pd.DataFrame(rows, columns=["source", "budget", *names])


def _arm(select: Mapping) -> str:
    arm = select["arm"]
    return arm if isinstance(arm, str) else arm[0]


def _part(run: Run) -> str:
    return "encoder" if run.spec.unit == "encoder" else "attention"


def _unmasked(found: list[Run], seconds: pd.DataFrame) -> pd.DataFrame:
    """Speed over dense of the zeroed model and of compact ones at the same density."""
    rows = []
    zeros = seconds[(seconds["batch"] > 1) & (seconds["precision"] == "float32")]
    shapes = {(run.spec.encoder, shape_key(run.shape)): run for run in found if _small(run)}
    for (encoder, shape, zeroed), own in zeros.groupby(
        ["encoder", "shape", "zeroed"], sort=False, dropna=False
    ):
        arms = own.set_index("arm")
        run = shapes.get((encoder, shape))
        masked = pd.notna(zeroed) and zeroed
        if not masked and (run is None or run.spec.budget == 1):
            continue
        kept = 1 - zeroed if masked else run.spec.budget
        what = "zeros in place" if masked else f"{_part(run)}, compact"
        dense, pruned = arms.loc["dense"], arms.loc["pruned"]
        rows.append(
            {
                "encoder": encoder,
                "what": what,
                "density": round(float(kept), 4),
                "speedup": dense["seconds"] / pruned["seconds"],
                "low": dense["low"] / pruned["high"],
                "high": dense["high"] / pruned["low"],
            }
        )
    columns = ["encoder", "what", "density", "speedup", "low", "high"]
    table = pd.DataFrame(rows, columns=columns)
    same = set(table[table["what"] == "zeros in place"]["density"])
    return table[table["density"].isin(same)].sort_values(
        ["encoder", "density", "speedup"], ascending=[True, False, True]
    )


def _small(run: Run) -> bool:
    return run.spec.method == "coreset" and run.spec.training["after"] is None


def _speed_bars(ax: Axes, table: pd.DataFrame, stated: float | None = None) -> None:
    many = table["encoder"].nunique() > 1
    names = [
        (f"{row.encoder}: " if many else "") + f"{row.what} at {row.density:g}"
        for row in table.itertuples()
    ]
    colours = [
        style.METHODS["unstructured" if row.what == "zeros in place" else "coreset"][1]
        for row in table.itertuples()
    ]
    y = range(len(table))
    ax.barh(
        y, table["speedup"], xerr=_sides(table, "speedup", "low", "high"), color=colours, height=0.6
    )
    for at, value, high in zip(y, table["speedup"], table["high"], strict=True):
        ax.annotate(
            f"{value:.2f}x", (max(value, high), at), xytext=(4, 0), textcoords="offset points",
            va="center",
        )
    ax.axvline(1, color=INK, lw=1)
    if stated is not None:
        zeros = [at for at, row in zip(y, table.itertuples(), strict=True) if row.what[0] == "z"]
        ax.plot([stated] * len(zeros), [at - 0.42 for at in zeros], **TALK | {"ms": 6})
    ax.set_yticks(y, names)
    ax.invert_yaxis()
    ax.set_xlim(0, table["high"].max() * 1.22)
    ax.set_xlabel("times as fast as dense (line)")
    ax.tick_params(axis="y", length=0)


def _sides(
    table: pd.DataFrame, name: str = "measured", low: str = "", high: str = ""
) -> np.ndarray:
    """Error bars of a column, from its bounds; never negative."""
    plain = name == "measured"
    low = low or ("low" if plain else f"{name}_low")
    high = high or ("high" if plain else f"{name}_high")
    sides = np.stack([table[name] - table[low], table[high] - table[name]]).astype(float)
    return np.clip(sides, 0, None)


def _frame(x: int, y: int, colour: str, line: str):
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, fill=False, ec=colour, lw=2.2, ls=line)


def _row_words(axis: str, importance: str) -> str:
    words = frames.reading(
        {"axis": axis, "importance": importance, "sampler": "top", "rescale": False}
    )
    return words.removesuffix(", largest").replace(", ", ":\n")


def _thin(ax: Axes) -> None:
    """Every other length is named where there are many."""
    if len(ax.get_xticks()) > 6:
        marks = ax.get_xticks()
        ax.xaxis.set_major_formatter(
            FuncFormatter(lambda value, at: f"{value:g}" if at % 2 == (len(marks) - 1) % 2 else "")
        )


def _key(figure: Figure, colours: Mapping[str, str]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=words) for words, colour in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4))


def _lines(ax: Axes, styles: Mapping[str, str], arms: Sequence[str] = ()) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], **style.look(arm), label=style.name(arm)) for arm in arms]
    handles += [Line2D([], [], color=INK, ls=line, label=words) for words, line in styles.items()]
    ax.legend(handles=handles, loc="best", fontsize=9, handlelength=2.2)


def _markers(figure: Figure, handles: Mapping, hollow: int = 0) -> None:
    from matplotlib.lines import Line2D

    shown = []
    for number, (words, look) in enumerate(handles.items()):
        colour, marker = look if isinstance(look, tuple) else (INK, look)
        face = "white" if number < hollow else colour
        shown.append(
            Line2D([], [], color=colour, marker=marker, ls="", mfc=face, label=words, ms=6)
        )
    columns = 3 if len(shown) > 4 else len(shown)
    figure.legend(handles=shown, loc="outside lower center", ncols=columns, fontsize=9)


def _untested(what: str, table: pd.DataFrame) -> Drawn:
    """In place of a figure that has no runs: one line, and the empty table."""
    figure, (ax,) = style.canvas(height=0.8)
    ax.set_axis_off()
    ax.text(0.5, 0.5, f"untested: no records of {what}", ha="center", va="center", color=GREY)
    return figure, table
