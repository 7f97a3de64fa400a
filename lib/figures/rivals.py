"""How does every method do beside every other?"""

from collections.abc import Iterable

from matplotlib.axes import Axes

from lib.claims import Finding
from lib.figures import frames, style
from lib.figures.style import FAINT, GREY, INK, TALK, Drawn
from lib.runs import Run

STRONG = ("coreset", "magnitude", "svd")  # drawn thicker, with intervals, where lines are many


def baselines(found: Iterable[Run], findings: Iterable[Finding]) -> Drawn:
    """Every method at every density, without fine-tuning and with a short one.

    The talk's mark is where its drop would put the coreset, from our own dense model.
    """
    found = frames.select(found, unit="attention", after=["none", "steps"])
    table = frames.cells(found)
    table = table[table["arm"].isin(style.METHODS)].reset_index(drop=True)
    pruned = table[table["arm"] != "dense"]
    if pruned.empty:
        return style.untested("methods by density", table)
    budgets = sorted(set(pruned["budget"]), reverse=True)
    arms = [arm for arm in style.METHODS if arm in set(pruned["arm"])]
    height = 0.9 + len(budgets) * (0.35 + 0.19 * len(arms))
    figure, axes = style.canvas(len(budgets), 2, height=height, sharex=True, sharey=True)
    findings = list(findings)
    claims = {
        "none": frames.claim(findings, "coreset.density"),
        "steps": frames.claim(findings, "coreset.density-ft"),
    }
    dense = table["dense"].iloc[0]
    for number, ax in enumerate(axes):
        budget, after = budgets[number // 2], ("none", "steps")[number % 2]
        ax.axvline(dense, color=INK, lw=1)
        tuned = table[(table["arm"] == "dense") & (table["after"] == "steps")]
        if after == "steps" and len(tuned):
            ends = tuned["score_low"].min(), tuned["score_high"].max()
            ax.axvspan(*ends, color=INK, alpha=0.1, lw=0)
        _dots(ax, pruned[(pruned["budget"] == budget) & (pruned["after"] == after)], arms)
        if budget in claims[after].stated and "coreset" in arms:
            drop = claims[after].dense - claims[after].stated[budget]
            ax.plot(dense - drop, arms.index("coreset") - 0.32, **TALK | {"ms": 5.5})
        style.rows(ax, map(style.name, arms), top=0.7)
        ax.set_title(f"density {budget:g}, {style.AFTER[after]}", fontsize=10)
        if number % 2 == 0:
            for label, arm in zip(ax.get_yticklabels(), arms, strict=True):
                label.set_color(style.look(arm)["color"])
    for ax in axes[-2:]:
        ax.set_xlabel(f"{style.metric(table)} (line: dense)")
    return figure, table


def _dots(ax: Axes, table, arms: list[str]) -> None:
    for row in table.itertuples():
        bars = [[max(0, row.score - row.score_low)], [max(0, row.score_high - row.score)]]
        look = style.look(row.arm)
        ax.errorbar(row.score, arms.index(row.arm), xerr=bars, ms=6, ls="", elinewidth=1.4, **look)
    for arm in set(arms) - set(table["arm"]):
        side = ax.get_yaxis_transform()
        place = arms.index(arm)
        ax.text(0.02, place, "untested", transform=side, va="center", fontsize=8.5, color=GREY)


def rivals(findings: Iterable[Finding]) -> Drawn:
    """How much better the coreset does than each rival, where the talk says that it wins."""
    judged = [f for f in findings if f.claim.key.startswith("coreset.beats-")]
    claims = {f.claim.key: f.claim for f in judged}
    table = frames.findings(judged)
    table = table[table["measured"].notna()]
    if table.empty:
        return style.untested("the coreset against its rivals", table)
    table = table.assign(
        rival=[claims[key].versus["arm"] for key in table["key"]],
        after=[claims[key].select["after"] for key in table["key"]],
    )
    afters = [after for after in style.AFTER if after in set(table["after"])]
    cells = sorted(set(table["cell"]), reverse=True)
    arms = [arm for arm in style.METHODS if arm in set(table["rival"])]
    height = 1.6 + 0.42 * len(arms)
    figure, axes = style.canvas(1, len(afters), height=height, sharex=True, sharey=True)
    reach = 1.08 * max(table["low"].abs().max(), table["high"].abs().max())
    for ax, after in zip(axes, afters, strict=True):
        ax.axvline(0, color=INK, lw=1)
        for row in table[table["after"] == after].itertuples():
            at = cells.index(row.cell)
            y = arms.index(row.rival) + (at - (len(cells) - 1) / 2) * 0.3
            bars = [[max(0, row.measured - row.low)], [max(0, row.high - row.measured)]]
            look = {"color": style.look(row.rival)["color"], "marker": _CELLS[at % len(_CELLS)]}
            ax.errorbar(row.measured, y, xerr=bars, ls="", elinewidth=1.4, ms=6, **look)
        style.rows(ax, [f"against {style.name(arm)}" for arm in arms], top=1.0)
        ax.set_title(style.AFTER[after])
        ax.set_xlim(-reach, reach)
        ax.axvspan(0, reach, color=FAINT, alpha=0.45, lw=0, zorder=0)
        ax.plot(0, -0.68, **TALK | {"ms": 6})
        style.note(ax, "talk: above", (0, -0.68), (8, 0), va="center")
    figure.supxlabel("score of the coreset less the rival's", fontsize=10)
    names = {f"density {cell:g}": (INK, _CELLS[at % 4]) for at, cell in enumerate(cells)}
    style.markers(figure, names, place="upper")
    return figure, table


_CELLS = "os^v"


def others(found: Iterable[Run]) -> Drawn:
    """The other encoders and tasks: what each method loses of its own dense model's score."""
    found = frames.select(found, unit="attention", after=["none", "steps"])
    table = frames.cells(found)
    table = table[table["arm"].isin(set(style.METHODS) - {"dense"})].reset_index(drop=True)
    if table.empty:
        return style.untested("other encoders and tasks", table)
    pairs = list(dict.fromkeys(zip(table["encoder"], table["task"], strict=True)))
    afters = [after for after in ("none", "steps") if after in set(table["after"])]
    height = 1.1 + 2.5 * len(afters)
    figure, axes = style.canvas(len(afters), len(pairs), height=height, sharex=True)
    for number, ax in enumerate(axes):
        after, (encoder, task) = afters[number // len(pairs)], pairs[number % len(pairs)]
        here = (table["encoder"] == encoder) & (table["task"] == task)
        ax.set_title(f"{task}, {'not ' * (after == 'none')}fine-tuned", fontsize=10)
        own = table[here & (table["after"] == after)]
        if own.empty:
            style.remark(ax, "untested")
            ax.set_yticks([])
        else:
            ax.axhline(0, color=INK, lw=1)
            _curves(ax, own)
        last = after == afters[-1]
        style.densities(ax, table["budget"], style.DENSITY["attention"] if last else "")
        words = f"{style.metric(table[here])} lost"
        ax.set_ylabel("" if own.empty else words, fontsize=9.5)
    arms = [arm for arm in style.METHODS if arm in set(table["arm"])]
    style.markers(figure, {style.name(arm): style.METHODS[arm] for arm in arms})
    return figure, table


def _curves(ax: Axes, table) -> None:
    for arm, own in table.groupby("arm", sort=False):
        own = own.sort_values("budget")
        strong = arm in STRONG
        bars = style.sides(own, "drop") if strong else None
        size = {"lw": 1.8, "ms": 5} if strong else {"lw": 1, "ms": 4}
        ax.errorbar(own["budget"], own["drop"], bars, elinewidth=0.9, **size, **style.look(arm))
