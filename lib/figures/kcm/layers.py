"""What is kept of each layer, and what is its output off by?"""

from collections.abc import Iterable

import pandas as pd
from matplotlib.colors import LinearSegmentedColormap

from lib import study
from lib.claims import Finding
from lib.claims.quantities import layer_errors, pruned_neurons
from lib.figures import frames, style
from lib.figures.style import Drawn
from lib.runs import Run

KEPT = LinearSegmentedColormap.from_list("kept", ["#ffffff", "#9ecae1", "#08519c"])


def layers(found: Iterable[Run], findings: Iterable[Finding], encoder: str, task: str) -> Drawn:
    """Filters kept in every layer: KCM by task, methods on one task, and the paper's BERT-base."""
    reference = frames.claim(findings, "kcm.fingerprint").reference
    chosen = frames.select(
        found, unit="macs", after="none", sees="own", budget=0.6, encoder=encoder
    )
    rows = [_kept(run) for run in chosen if study.arm_of(run.spec) == "kcm"]
    rows += [_kept(run) for run in chosen if run.spec.task == task]
    data = pd.DataFrame(rows, columns=["task", "arm", "layer", "kept"])
    data = data.explode(["layer", "kept"]).astype({"kept": float})
    if data.empty:
        return style.untested("filters kept by layer", data)
    shown = data.groupby(["task", "arm", "layer"], sort=False)["kept"].mean().unstack()
    by_task = shown.xs("kcm", level="arm") if "kcm" in shown.index.get_level_values(1) else None
    by_arm = shown.loc[[task]].droplevel(0) if task in shown.index.get_level_values(0) else None
    told = pd.DataFrame({t: [1 - n / 3072 for n in counts] for t, counts in reference.items()}).T
    told.columns = range(1, 13)
    parts = [
        (f"KCM on {encoder}", by_task),
        (f"methods on {encoder}, {task}", by_arm.rename(index=style.name)),
        ("the paper's KCM on BERT-base", told),
    ]
    heights = [max(1, len(part)) for _, part in parts]
    figure, axes = style.canvas(
        3, 1, height=1.9 + 0.25 * sum(heights), gridspec_kw={"height_ratios": heights}
    )
    for ax, (title, part) in zip(axes, parts, strict=True):
        image = ax.imshow(part.to_numpy(float), cmap=KEPT, vmin=0, vmax=1, aspect="auto")
        ax.set_xticks(range(len(part.columns)), part.columns)
        ax.set_yticks(range(len(part)), part.index)
        ax.tick_params(length=0)
        ax.set_title(title)
    axes[-1].set_xlabel("layer")
    bar = figure.colorbar(image, ax=axes, shrink=0.5, pad=0.02)
    bar.set_label("share of filters kept")
    bar.outline.set_visible(False)
    return figure, data


def _kept(run: Run) -> tuple:
    found = shares(run)
    return run.spec.task, study.arm_of(run.spec), list(range(1, len(found) + 1)), found


def shares(run: Run) -> list[float]:
    """The share of filters that each layer kept."""
    left = [layer["neurons"] for layer in run.shape["layers"]]
    return [kept / (kept + gone) for kept, gone in zip(left, pruned_neurons(run), strict=True)]


ERRORS = (
    *("kcm", "kcm-r2", "kcm-d2", "kcm-unscaled", "kcm-r2-unscaled", "kcm-d2-unscaled"),
    *("ffn-w2", "mask-tuning"),
)


def errors(found: Iterable[Run]) -> Drawn:
    """Relative error of what leaves each layer, for R2, D2 and both, each mended or not, at 60%."""
    chosen = frames.select(
        found, arm=list(ERRORS), unit="macs", after="none", sees="own", budget=0.6
    )
    rows = [
        (run.spec.encoder, run.spec.task, study.arm_of(run.spec), run.spec.seed, layer, error)
        for run in chosen
        for layer, error in enumerate(layer_errors(run) or [], start=1)
    ]
    columns = ["encoder", "task", "arm", "seed", "layer", "error"]
    data = pd.DataFrame(rows, columns=columns)
    if data.empty:
        return style.untested("errors by layer", data)
    figure, (ax,) = style.canvas(height=3.6)
    ends = []
    for arm, own in data.groupby("arm", sort=False):
        line = own.groupby("layer")["error"].agg(["mean", "min", "max"])
        bars = style.sides(line, "mean", "min", "max")
        ax.errorbar(line.index, line["mean"], bars, elinewidth=1, **style.look(arm))
        ends.append((line["mean"].iloc[-1], style.name(arm), style.look(arm)["color"]))
    ax.set_xticks(sorted(set(data["layer"])))
    ax.set_xlabel("layer (bars: least and greatest over calibration samples)")
    ax.set_ylabel("relative error of its output")
    ax.set_ylim(bottom=0)
    ax.set_title(f"{data['encoder'].iloc[0]}, {data['task'].iloc[0]}, 60% of the MACs")
    style.beside(ax, ends)
    return figure, data
