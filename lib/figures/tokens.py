"""Which tokens go, what does that save, and how much of it is padding?"""

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from lib import study
from lib.claims import Finding, Verdict
from lib.claims.quantities import macs
from lib.figures import style
from lib.figures.style import FAINT, GREY, INK, PAPER, TALK, Drawn
from lib.runs import Run, Timing, shape_key

PADDED, TEXTS, PRUNED = "#b0b0b0", "#e69f00", "#0072b2"
PAPERS = {"talk's papers": (INK, "$\\diamond$")}
TIMED = 0.5  # of the MACs: only models that keep no more have a row of their own
LINE, SHOWN = 80, 4  # characters of a sentence that fit a line, and methods that are shown


def ran(found: Iterable[Run]) -> pd.DataFrame:
    """One row a run that dropped tokens: its score, and MACs of a text padded, alone and pruned."""
    rows = []
    for run in (run for run in found if "tokens" in run.trace and not run.spec.base):
        counted, spec = run.trace["tokens"]["macs"], run.spec
        to = study.padded(spec.task)
        padded = sum(macs(run.shape, to).values())
        rows.append(
            {
                "encoder": spec.encoder,
                "task": spec.task,
                "arm": study.arm_of(spec),
                "budget": spec.budget,
                "seed": spec.seed,
                "metric": run.per_example["metric"],
                "dense": run.dense["score"],
                "score": run.pruned["score"],
                "padded_to": to,
                "macs_padded": padded,
                "macs_batch": counted["batch"],
                "macs_dense": counted["dense"],
                "macs_pruned": counted["pruned"],
                "kept": run.kept["macs"],
                "claimed": counted["claimed"] / counted["dense"],
                "run": run,
            }
        )
    columns = ["encoder", "task", "arm", "budget", "seed", "metric", "dense", "score", "padded_to"]
    columns += ["macs_padded", "macs_batch", "macs_dense", "macs_pruned", "kept", "claimed", "run"]
    return pd.DataFrame(rows, columns=columns)


def frontier(found: Iterable[Run], findings: Iterable[Finding]) -> Drawn:
    """Score by the share of executed MACs that is left, a panel for each encoder and task.

    Diamonds are the papers' drops from our own dense model. What merely masks stands, hollow, at
    the work that it claims, beside what it really takes.
    """
    table = ran(found)
    if table.empty:
        return style.untested("token pruning", table)
    arms = [arm for arm in study.TOKEN_ARMS if arm in set(table["arm"])]
    figure, panels = _panels(table)
    for ax, (encoder, task), own in panels:
        for arm in arms:
            points = own[own["arm"] == arm].groupby("budget")[["kept", "claimed", "score"]].mean()
            look = style.look(arm) | {"ls": "-" if not arm.startswith("tokens-") else ":"}
            ax.plot(points["kept"], points["score"], **look)
            masks = points[points["claimed"] < points["kept"] - 1e-3]
            hollow = look | {"ls": "", "mfc": PAPER}
            ax.plot(masks["claimed"], masks["score"], **hollow)
        _stated(ax, findings, encoder, task, own["dense"].iloc[0])
        ax.set_xlim(max(1.0, own["kept"].max()) + 0.05, 0)
        ax.set_xlabel("MACs executed, of dense without padding")
    style.markers(figure, {style.name(arm): style.METHODS[arm] for arm in arms} | PAPERS)
    return figure, table


def _panels(table: pd.DataFrame) -> tuple[Figure, list[tuple[Axes, tuple, pd.DataFrame]]]:
    """A panel for each encoder and task of `table`, its dense score drawn; with its rows."""
    places = list(table.groupby(["encoder", "task"], sort=False))
    rows, columns = math.ceil(len(places) / 2), min(2, len(places))
    figure, axes = style.canvas(rows, columns, height=0.9 + 2.7 * rows)
    for ax in axes[len(places) :]:
        ax.set_axis_off()
    for ax, ((encoder, task), own) in zip(axes, places, strict=False):
        ax.axhline(own["dense"].iloc[0], color=INK, lw=1)
        ax.set_title(f"{encoder}, {task} (line: dense)", fontsize=10)
        ax.set_ylabel(style.metric(own))
    return figure, [(ax, *place) for ax, place in zip(axes, places, strict=False)]


def _stated(ax: Axes, findings: Iterable[Finding], encoder: str, task: str, dense: float) -> None:
    for one in findings:
        here = (one.claim.chapter, one.encoder, one.task, one.quantity)
        if here != ("tokens", encoder, task, "drop"):
            continue
        for budget, drop in one.claim.stated.items():
            if budget:
                ax.plot(budget, dense - drop, **TALK)


def padding(found: Iterable[Run], findings: Iterable[Finding]) -> Drawn:
    """How many times less work, by whom: padding left away, then tokens pruned; log scale.

    Diamonds are the factor of the padding alone in the headline of ToP.
    """
    table = ran(found)
    table = table[~table["arm"].str.startswith("tokens-")]
    if table.empty:
        return style.untested("token pruning", table)
    least = table.groupby(["encoder", "task", "arm"])["budget"].transform("min")
    table = table[table["budget"] == least]
    by = ["encoder", "task", "padded_to", "arm"]
    names = ["macs_padded", "macs_dense", "macs_pruned"]
    mean = table.groupby(by, sort=False)[names].mean().reset_index()
    mean["padding"] = mean["macs_padded"] / mean["macs_dense"]
    mean["pruning"] = mean["macs_dense"] / mean["macs_pruned"]
    mean["together"] = mean["padding"] * mean["pruning"]
    words = [f"{style.name(row.arm)}, {row.task}" for row in mean.itertuples()]
    if mean["encoder"].nunique() > 1:
        words = [f"{w} ({e})" for w, e in zip(words, mean["encoder"], strict=True)]
    figure, (ax,) = style.canvas(height=1.3 + 0.3 * len(mean))
    told = {}  # by row of the figure: what the padding's share is said to be
    for one in findings:
        if one.quantity == "padding" and one.verdict is not Verdict.UNTESTED:
            mine = (mean["encoder"] == one.encoder) & (mean["task"] == one.task)
            for y in np.flatnonzero(mine)[:1]:
                told[y] = next(iter(one.claim.stated.values()))
    for y, row in enumerate(mean.itertuples()):
        low, high = sorted((row.padding, row.together))
        ax.barh(y, row.padding - 1, left=1, color=TEXTS, height=0.7)
        ax.barh(y, high - low, left=low, color=PRUNED, height=0.7)
        label = f"{row.padding:.1f} by {row.pruning:.1f} = {row.together:.1f}"
        beyond = told.get(y, 0) > high  # the diamond stands there: begin behind it
        style.note(ax, label, (max(high, told.get(y, 0)), y), (10 if beyond else 4, 0), va="center")
        if y in told:
            ax.plot(told[y], y, **TALK)
    ax.set_xscale("log")
    ax.set_xlim(1, 2.6 * mean[["padding", "together"]].to_numpy().max())
    ax.xaxis.set_minor_locator(NullLocator())
    ticks = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= ax.get_xlim()[1]]
    ax.set_xticks(ticks)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    style.rows(ax, words)
    ax.set_xlabel("times less work than the dense model on padded texts")
    style.key(figure, {"padding left away": TEXTS, "tokens pruned": PRUNED})
    return figure, mean


def controls(found: Iterable[Run], findings: Iterable[Finding]) -> Drawn:
    """Score of each method less that of tokens chosen blindly, at equal work; a row a task.

    The table has the work that both really have left: budgets are met on training texts.
    """
    findings = list(findings)
    work = ran(found).groupby(["encoder", "task", "arm", "budget"])["kept"].mean()
    rows = [
        (one.claim.key, one.encoder, one.task, cell.cell, cell.measured, cell.low, cell.high)
        for one in findings
        if one.quantity == "difference"
        for cell in one.cells
        if cell.measured is not None
    ]
    names = ["key", "encoder", "task", "budget", "difference", "low", "high"]
    table = pd.DataFrame(rows, columns=names)
    arms = {one.claim.key: one.claim.select.get("arm") for one in findings if one.claim.select}
    rivals = {one.claim.key: one.claim.versus["arm"] for one in findings if one.claim.versus}
    for name, sides in (("kept", arms), ("kept_control", rivals)):
        table[name] = [
            work.get((row.encoder, row.task, sides[row.key], row.budget))
            for row in table.itertuples()
        ]
    if table.empty:
        return style.untested("token pruning beside its controls", table)
    budgets = sorted(set(table["budget"]), reverse=True)
    places = table[["key", "encoder", "task"]].drop_duplicates().values.tolist()
    figure, axes = style.canvas(1, len(budgets), height=1.2 + 0.27 * len(places), sharey=True)
    for ax, budget in zip(axes, budgets, strict=True):
        ax.axvspan(0, 1, color=FAINT, lw=0)
        ax.axvline(0, color=GREY, lw=1)
        for row in table[table["budget"] == budget].itertuples():
            y = places.index([row.key, row.encoder, row.task])
            arm = arms[row.key]
            bars = [[row.difference - row.low], [row.high - row.difference]]
            look = style.look(arm)
            ax.errorbar(row.difference, y, xerr=bars, ls="", **look)
        ends = np.abs(table[["low", "high"]].to_numpy()).max() * 1.1 + 0.005
        ax.set_xlim(-ends, ends)
        ax.set_title(f"{budget:g} of the MACs left")
        ax.set_xlabel("score less the control's")
    style.rows(axes[0], [f"{key.removeprefix('token.')}, {task}" for key, _, task in places])
    return figure, table


def times(found: Iterable[Run], timed: Iterable[Timing], findings: Iterable[Finding]) -> Drawn:
    """How many times as fast as the dense model on texts without padding: padded, ours, theirs and
    pruned, a text at a time and in batches; all arms of a row took turns."""
    table = _timings(list(found), list(timed))
    least = table.groupby(["encoder", "task", "arm"])["budget"].transform("min")
    small = table["budget"] <= least.clip(lower=TIMED)  # or the smallest that there is
    table = table[small & ~table["arm"].str.startswith("tokens-")]
    if table.empty:
        return style.untested("the time of models that drop tokens", table)
    batches = sorted(set(table["batch"]))
    figure, axes = style.canvas(1, len(batches), height=1.4 + 0.32 * table["what"].nunique())
    looks = {"dense_padded": (PADDED, "s"), "hf": (GREY, "d"), "pruned": (PRUNED, "o")}
    said = {
        (one.encoder, one.task, one.claim.select["arm"], budget): stated
        for one in findings
        if one.quantity == "token-speedup" and one.claim.original["encoder"] != "any"  # not our own
        for budget, stated in one.claim.stated.items()
    }
    for ax, batch in zip(axes, batches, strict=True):
        own = table[table["batch"] == batch]
        words = list(dict.fromkeys(own["what"]))
        ax.axvline(1, color=INK, lw=1)
        for row in own.itertuples():
            y = words.index(row.what)
            colour, marker = looks[row.timed]
            bars = [[row.speed - row.low], [row.high - row.speed]]
            ax.errorbar(row.speed, y, xerr=bars, color=colour, marker=marker, ls="")
            stated = said.get((row.encoder, row.task, row.arm, row.budget))
            if batch > 1 and row.timed == "pruned" and stated:
                ax.plot(stated, y - 0.25, **TALK)
        style.rows(ax, words if ax is axes[0] else [""] * len(words))
        ax.set_xlim(0, None)
        ax.set_xlabel("times as fast as dense")
        ax.set_title("one text at a time" if batch == 1 else f"batches of {batch}")
    names = {"dense_padded": "dense, padded", "hf": "Hugging Face's dense", "pruned": "pruned"}
    style.markers(figure, {names[timed]: look for timed, look in looks.items()} | PAPERS)
    return figure, table


def pace(found: Iterable[Run], timed: Iterable[Timing]) -> Drawn:
    """Score by how many times as fast as the dense model on texts without padding, in batches of
    32; a panel for each encoder and task. Squares are the dense model on padded texts."""
    found = list(found)
    table = _timings([run for run in found if not run.spec.base], list(timed))
    table = table[(table["batch"] == 32) & table["timed"].isin(["dense_padded", "pruned"])]
    scores = ran(found)[["encoder", "task", "arm", "budget", "metric", "dense", "score"]]
    by = ["encoder", "task", "arm", "budget"]
    scores = scores.groupby([*by, "metric"], sort=False)[["dense", "score"]].mean().reset_index()
    table = table.merge(scores, on=by)
    if table.empty:
        return style.untested("the time of models that drop tokens", table)
    arms = [arm for arm in study.TOKEN_ARMS if arm in set(table["arm"])]
    figure, panels = _panels(table)
    for ax, _, own in panels:
        padded = own[own["timed"] == "dense_padded"]
        ax.plot(padded["speed"].median(), own["dense"].iloc[0], color=PADDED, marker="s", ls="")
        for arm in arms:
            points = own[(own["arm"] == arm) & (own["timed"] == "pruned")].sort_values("speed")
            line = ":" if arm.startswith("tokens-") else "-"
            ax.plot(points["speed"], points["score"], **style.look(arm) | {"ls": line})
        ax.set_xlim(0, None)
        ax.set_xlabel("times as fast as dense without padding")
    names = {style.name(arm): style.METHODS[arm] for arm in arms}
    style.markers(figure, names | {"dense, padded": (PADDED, "s")})
    return figure, table


def _timings(found: list[Run], timed: list[Timing]) -> pd.DataFrame:
    machines = [t.machine for t in timed if "tokens" in t.protocol]
    most = max(sorted(set(machines)), key=machines.count, default=None)
    own = {
        (t.encoder, shape_key(t.shape), t.protocol["batch"], str(t.protocol["tokens"])): t
        for t in timed
        if "tokens" in t.protocol and t.machine == most
    }
    rows = []
    several = len({run.spec.encoder for run in found}) > 1
    for run in found:
        for protocol in study.clocked(run):
            key = (run.spec.encoder, shape_key(run.shape), protocol["batch"])
            timing = own.get((*key, str(protocol["tokens"])))
            if timing is None:
                continue
            arm = study.arm_of(run.spec)
            what = f"{style.name(arm)} {run.spec.budget:g}, {run.spec.task}"
            if several:
                what += f" ({run.spec.encoder})"
            dense = np.asarray(timing.seconds["dense"])
            for name in ("dense_padded", "hf", "pruned"):
                ratio = dense / np.asarray(timing.seconds[name])
                low, middle, high = np.percentile(ratio, [25, 50, 75])
                place = (run.spec.encoder, run.spec.task, arm, run.spec.budget, what)
                rows.append((*place, protocol["batch"], name, middle, low, high))
    names = ["encoder", "task", "arm", "budget", "what", "batch", "timed", "speed", "low", "high"]
    return pd.DataFrame(rows, columns=names)


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
