"""How does every method do beside every other?"""

from collections.abc import Iterable

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm

from lib.claims import Finding
from lib.figures import frames, style
from lib.figures.kcm import tables
from lib.figures.style import INK, PAPER, TALK, Drawn
from lib.runs import Run

LEAD = LinearSegmentedColormap.from_list("lead", ["#b35806", "#f7f7f7", "#2166ac"])


def baselines(found: Iterable[Run], findings: Iterable[Finding], encoder: str, task: str) -> Drawn:
    """Every method at two budgets, best first, on one encoder and task; the paper's as drops."""
    data = tables.cells(frames.select(found, encoder=encoder, task=task))
    said = tables.papers(findings)
    said = said[said["task"] == task].rename(columns={"drop": "paper"})
    data = data.merge(said, how="left", on=["arm", "task", "budget"])
    data = data[data["arm"].isin(style.METHODS)].reset_index(drop=True)
    if data.empty:
        return style.untested("methods", data)
    budgets = [budget for budget in (0.6, 0.7) if (data["budget"] == budget).any()]
    budgets = budgets or sorted(set(data["budget"]))[:2]
    first = data[data["budget"] == budgets[0]].sort_values("drop", kind="stable")
    arms = list(dict.fromkeys([*first["arm"], *data["arm"]]))
    figure, axes = style.canvas(
        1, len(budgets), height=1.3 + 0.21 * len(arms), sharex=True, sharey=True
    )
    for ax, budget in zip(axes, budgets, strict=True):
        ax.axvline(0, color=INK, lw=1)
        for row in data[data["budget"] == budget].itertuples():
            bars = [[max(0, row.drop - row.drop_low)], [max(0, row.drop_high - row.drop)]]
            at = arms.index(row.arm)
            ax.errorbar(
                row.drop, at, xerr=bars, ls="", ms=5.5, elinewidth=1.3, **style.look(row.arm)
            )
            if not np.isnan(row.paper):
                ax.plot(row.paper, at - 0.3, **TALK | {"ms": 5})
        style.rows(ax, map(style.name, arms), top=0.9)
        ax.set_title(f"{budget:.0%} of the MACs")
    for label, arm in zip(axes[0].get_yticklabels(), arms, strict=True):
        label.set_color(style.look(arm)["color"])
    figure.supxlabel("score lost (hollow: the paper's, on BERT-base)", fontsize=10)
    return figure, data


def rivals(findings: Iterable[Finding], budget: float = 0.6) -> Drawn:
    """Every comparison that claims or controls make, at one budget: a map over encoders and tasks.

    A cell is our difference in hundredths; bold where its interval leaves 0 on one side.
    """
    judged = [f for f in findings if f.quantity == "difference" and f.claim.relation]
    judged = [f for f in judged if set(f.claim.relation.values()) == {"above"}]
    data = frames.findings(judged)
    data = data[(data["cell"] == budget) & data["measured"].notna()].reset_index(drop=True)
    if data.empty:
        return style.untested("KCM against its rivals", data)
    claims = {f.claim.key: f.claim for f in judged}
    words = {
        key: f"{style.name(claims[key].select['arm'])} over {style.name(claims[key].versus['arm'])}"
        for key in dict.fromkeys(data["key"])
    }
    data = data.assign(comparison=data["key"].map(words))
    keys, places = list(words), list(dict.fromkeys(zip(data["encoder"], data["task"], strict=True)))
    figure, (ax,) = style.canvas(height=1.8 + 0.27 * len(keys))
    grid = np.full((len(keys), len(places)), np.nan)
    for row in data.itertuples():
        y, x = keys.index(row.key), places.index((row.encoder, row.task))
        grid[y, x] = 100 * row.measured
        sure = row.low > 0 or row.high < 0
        weight = "bold" if sure else "normal"
        dark = abs(100 * row.measured) > 12
        ax.text(
            x,
            y,
            f"{100 * row.measured:+.1f}",
            ha="center",
            va="center",
            fontsize=9,
            fontweight=weight,
            color=PAPER if dark else INK,
        )
    norm = TwoSlopeNorm(0, vmin=-15, vmax=15)
    ax.imshow(np.clip(grid, -15, 15), cmap=LEAD, norm=norm, aspect="auto")
    ax.set_yticks(range(len(keys)), [words[key] for key in keys])
    style.places(ax, places)
    ax.set_xlabel(
        f"the first's score less the second's, in hundredths,\nat {budget:.0%} of the MACs\n"
        "talk: above 0; bold: interval on one side of 0"
    )
    return figure, data
