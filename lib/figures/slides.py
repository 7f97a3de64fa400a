"""What do the slides' numbers look like beside ours, and which reading comes nearest to them?"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

from lib.claims import Claim, Finding
from lib.figures import frames, style
from lib.figures.style import GREY, INK, TALK_LINE, Drawn
from lib.runs import Run
from lib.study import CORESET

AXES = ("head-dims", "layer-dims", "heads", "inputs")
IMPORTANCES = ("product", "first", "second", "mussay")


def density(
    found: Iterable[Run], findings: Iterable[Finding], key: str, after: Sequence[str]
) -> Drawn:
    """The talk's table beside ours: the score, and the drop from the dense model of each.

    `key` is the claim whose numbers are drawn, `after` the fine-tunings of ours (study.after_of).
    """
    chosen = frames.select(found, arm="coreset", unit="attention", after=list(after))
    ours = frames.cells(chosen)
    claim = frames.claim(findings, key)
    talk = frames.talk(claim)
    data = pd.concat([ours.assign(source="ours"), talk], ignore_index=True)
    if ours.empty:
        return style.untested("the table of the slides", data)
    figure, (left, right) = style.canvas(1, 2, height=3.6)
    budgets = [*ours["budget"], *talk["budget"]]
    for ax, column in ((left, "score"), (right, "drop")):
        for how, own in ours.groupby("after", sort=False):
            own = own.sort_values("budget")
            look = style.look("coreset")
            if how == "epochs":
                look |= {"marker": "s", "ls": "--"}
            bars = style.sides(own, column)
            ax.errorbar(own["budget"], own[column], bars, capsize=3, label=style.AFTER[how], **look)
        bars = style.sides(talk, column)
        ax.errorbar(talk["budget"] - 0.012, talk[column], bars, **TALK_LINE)
        style.densities(ax, budgets, style.DENSITY["attention"])
    majority = frames.majority(chosen)
    if majority is not None and "none" in after:
        left.axhline(majority, color=GREY, lw=0.8, ls="--")
        style.note(left, "always the larger class", (max(budgets), majority), (0, 3), color=GREY)
    _dense_lines(left, ours["dense"].iloc[0], claim)
    left.set_ylabel(style.metric(ours))
    left.set_title("score")
    right.axhline(0, color=INK, lw=1)
    right.set_ylabel(f"{style.metric(ours)} lost")
    right.set_title("drop from its own dense model")
    right.legend(loc="upper left", handlelength=2.2)
    return figure, data


def _dense_lines(ax: Axes, dense: float, claim: Claim) -> None:
    """Both dense models' scores, named at the right."""
    ax.axhline(dense, color=INK, lw=1)
    ax.axhline(claim.dense, color=INK, lw=1, ls=style.DOTS)
    style.beside(ax, [(dense, "dense", INK), (claim.dense, "talk's", INK)], gap=0.06)


def hypotheses(found: Iterable[Run], findings: Iterable[Finding]) -> Drawn:
    """Distance of every reading of the slides to their table without fine-tuning; a heat map."""
    claim = frames.claim(findings, "coreset.density")
    table = frames.distances(found, claim.stated, claim.dense)
    if table.empty:
        return style.untested("readings of the slides", table)
    known = set(zip(table["sampler"], table["rescale"], strict=True))
    columns = [(s, r) for s in style.SAMPLERS for r in (False, True) if (s, r) in known]
    known = set(zip(table["axis"], table["importance"], strict=True))
    rows = [(axis, kind) for axis in AXES for kind in IMPORTANCES if (axis, kind) in known]
    grid = np.full((len(rows), len(columns)), np.nan)
    signs = {}
    for row in table.to_dict("records"):
        place = (row["axis"], row["importance"]), (row["sampler"], row["rescale"])
        at = rows.index(place[0]), columns.index(place[1])
        grid[at], signs[at] = row["distance"], frames.marks(row)
    figure, (ax,) = style.canvas(height=1.9 + 0.36 * len(rows))
    shades = LinearSegmentedColormap.from_list("near", ["#f7fbff", "#9ecae1", "#08519c"])
    top = np.nanmax(grid)
    ax.imshow(grid, cmap=shades, aspect="auto", vmin=0, vmax=top)
    for (y, x), value in np.ndenumerate(grid):
        if not np.isnan(value):
            colour = "white" if value > 0.65 * top else INK
            words = f"{100 * value:.1f}{signs[y, x]}"
            ax.text(x, y, words, ha="center", va="center", color=colour)
    y, x = divmod(int(np.nanargmin(grid)), len(columns))
    _frame(ax, x, y, "-")
    ours = (CORESET["axis"], CORESET["importance"]), (CORESET["sampler"], CORESET["rescale"])
    if ours[0] in rows and ours[1] in columns:
        _frame(ax, columns.index(ours[1]), rows.index(ours[0]), ":")
    ax.set_yticks(range(len(rows)), [_row_words(*row) for row in rows])
    _column_words(ax, columns)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel(
        "root-mean-square distance to the talk's drops, in hundredths of accuracy\n"
        "solid frame: the nearest reading; dotted: our headline reading\n"
        "* is over 5 points off its density; ' is so once padding is counted"
    )
    return figure, table


def _frame(ax: Axes, x: int, y: int, line: str) -> None:
    ax.add_patch(Rectangle((x - 0.47, y - 0.44), 0.94, 0.88, fill=False, ec=INK, lw=2.2, ls=line))


def _row_words(axis: str, importance: str) -> str:
    words = frames.AXIS_WORDS.get(axis, axis)
    return words if axis == "inputs" else f"{words}:\n{frames.IMPORTANCE_WORDS[importance]}"


def _column_words(ax: Axes, columns: Sequence[tuple[str, bool]]) -> None:
    """Samplers above, and under each whether what is kept is rescaled."""
    ax.set_xticks(range(len(columns)), ["scaled" if r else "as is" for _, r in columns])
    ax.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False)
    for sampler in dict.fromkeys(sampler for sampler, _ in columns):
        at = [x for x, (other, _) in enumerate(columns) if other == sampler]
        words = frames.SAMPLER_WORDS[sampler].replace(" ", "\n")
        place = (sum(at) / len(at), 1)
        ax.annotate(
            words,
            place,
            xycoords=("data", "axes fraction"),
            xytext=(0, 19),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=9.5,
        )


def nearest(found: Iterable[Run], findings: Iterable[Finding], show: int = 5) -> Drawn:
    """The nearest readings' drops beside the talk's."""
    claim = frames.claim(findings, "coreset.density")
    table = frames.distances(found, claim.stated, claim.dense).head(show)
    if table.empty:
        return style.untested("nearest readings", table)
    talk = frames.talk(claim)
    drops = talk.set_index("budget")["drop"]
    columns = {float(c.removeprefix("off@")): c for c in table.columns if c.startswith("off@")}
    figure, (ax,) = style.canvas(height=4.5)
    rows = []
    for row, (colour, marker) in zip(table.to_dict("records"), style.SEVERAL, strict=False):
        ours = {budget: row[column] + drops[budget] for budget, column in columns.items()}
        words = f"{100 * row['distance']:.1f}{frames.marks(row)}: {frames.reading(row)}"
        ax.plot(list(ours), list(ours.values()), color=colour, marker=marker, label=words)
        rows += [
            {"reading": frames.reading(row), "distance": row["distance"], "budget": b, "drop": d}
            for b, d in ours.items()
        ]
    ax.errorbar(talk["budget"], talk["drop"], style.sides(talk, "drop"), **TALK_LINE)
    ax.axhline(0, color=INK, lw=1)
    style.densities(ax, [*columns, *talk["budget"]], style.DENSITY["attention"])
    ax.set_ylabel("accuracy lost")
    figure.legend(
        loc="outside lower left",
        ncols=1,
        title="distance in hundredths, and the reading",
        title_fontsize=9,
        alignment="left",
    )
    return figure, pd.concat([pd.DataFrame(rows), talk.assign(reading="talk")], ignore_index=True)
