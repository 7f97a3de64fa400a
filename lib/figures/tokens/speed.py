"""Is less work less time?"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from lib import study
from lib.claims import Finding
from lib.figures import style
from lib.figures.facts import UNTESTED
from lib.figures.style import GREY, INK, TALK, Drawn
from lib.figures.tokens.rows import PADDED, PAPERS, PRUNED, panels, ran
from lib.runs import Run, Timing, of_one_machine, shape_key

TIMED = 0.5  # of the MACs: only models that keep no more have a row of their own


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


def alone(found: Iterable[Run], timed: Iterable[Timing], pair: study.Pair) -> dict[str, str]:
    """For prose: the methods' speeds on one text of `pair` at a time, at the smallest budget."""
    table = _timings(list(found), list(timed))
    own = (table["encoder"] == pair.encoder) & (table["task"] == pair.task)
    table = table[own & (table["batch"] == 1) & (table["timed"] == "pruned")]
    table = table[~table["arm"].str.startswith("tokens-")]
    table = table[table["budget"] == table["budget"].min()]
    if table.empty:
        return {"alone-speeds": UNTESTED}
    return {"alone-speeds": f"{table['speed'].min():.2f} to {table['speed'].max():.2f}"}


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
    figure, places = panels(table, found)
    for ax, _, own in places:
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
    own = {
        (t.encoder, shape_key(t.shape), t.protocol["batch"], str(t.protocol["tokens"])): t
        for t in of_one_machine(t for t in timed if "tokens" in t.protocol)
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
