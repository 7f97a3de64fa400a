"""How do our figures look? One style, one colour and one marker a method, one mark for the talk."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lib import study
from lib.figures import frames

Drawn = tuple[Figure, pd.DataFrame]
WIDTH = 7.0  # inches: 700 px at 100 dpi, the width of a page of the book
INK, GREY, FAINT, PAPER = "#1a1a1a", "#6b6b6b", "#e6e6e6", "#ffffff"
DOTS = (0, (1, 2))
TALK = {"marker": "D", "mfc": PAPER, "mec": INK, "mew": 1.4, "ms": 7, "ls": "", "zorder": 5}
TALK_LINE = TALK | {"ls": DOTS, "color": INK, "lw": 1, "elinewidth": 1, "label": "talk"}

# Okabe and Ito's colours, darkened where they are faint on white, and some of Tol's.
METHODS: dict[str, tuple[str, str]] = {  # arm of the study: (colour, marker)
    "dense": (INK, "_"),
    "coreset": ("#0072b2", "o"),
    "uniform": ("#3d9fd6", "s"),
    "magnitude": ("#d55e00", "^"),
    "svd": ("#00805e", "v"),
    "random": ("#7f7f7f", "X"),
    "unstructured": ("#4d4d4d", "P"),
    "gradient-talk": ("#b8558f", "<"),
    "gradient-michel": ("#882255", ">"),
    "taylor-once": ("#c98500", "h"),
    "taylor-steps": ("#8a5a00", "H"),
    "taylor-apart": ("#6b4500", "D"),
    "movement": ("#332288", "d"),
    # 26 are more than hues can part: blues are KCM's, oranges and browns weights', greens
    # outputs', reds and purples other papers'; lightness and marker do the rest.
    "kcm": ("#0072b2", "o"),
    "kcm-unscaled": ("#3d9fd6", "s"),
    "kcm-refit": ("#004b78", "D"),
    "kcm-r2": ("#5b6fd8", "^"),
    "kcm-d2": ("#2e3fa3", "v"),
    "kcm-r2-unscaled": ("#4a90a4", "*"),
    "kcm-d2-unscaled": ("#1f6075", "8"),
    "kcm-voting": ("#7b93c4", "<"),
    "kcm-layerwise": ("#2a8fa8", ">"),
    "kcm-even": ("#56b4e9", "X"),
    "kcm-512": ("#6a7a99", "p"),
    "kcm-1k": ("#3f4d6b", "h"),
    "ffn-w1": ("#b86b00", "^"),
    "ffn-w2": ("#d55e00", "v"),
    "ffn-both": ("#8a5a00", "s"),
    "ffn-w1-unscaled": ("#d9962f", "<"),
    "ffn-w2-unscaled": ("#e68a5c", ">"),
    "ffn-both-unscaled": ("#b39056", "d"),
    "ffn-output": ("#00805e", "P"),
    "ffn-rms": ("#4da380", "X"),
    "ffn-energy": ("#117733", "H"),
    "ffn-random": ("#7f7f7f", "X"),
    "flap": ("#999933", "*"),
    "mask-tuning": ("#882255", "o"),
    "mask-tuning-untuned": ("#b8558f", "s"),
    "k-prune": ("#332288", "d"),
    "cofi": ("#0072b2", "o"),
    "cofi-authors": ("#6b6b6b", "X"),
    "cofi-paper": ("#4d4d4d", "p"),
    "cofi-pretrained": ("#7a7a00", ">"),
    "cofi-fine": ("#c98500", "<"),
    "cofi-fine-wide": ("#d55e00", "^"),
    "cofi-layers": ("#00805e", "s"),
    "cofi-hidden": ("#8a5a00", "v"),
    "cofi-undistilled": ("#b8558f", "d"),
    "cofi-prediction": ("#882255", "P"),
    "cofi-fixed": ("#332288", "h"),
    "cofi-unordered": ("#3d9fd6", "D"),
    "power-bert": ("#0072b2", "o"),
    "ltp": ("#d55e00", "^"),
    "transkimmer": ("#00805e", "v"),
    "transkimmer-free": ("#3d9f86", "<"),
    "transkimmer-paper": ("#8a5a00", ">"),
    "top": ("#882255", "s"),
    "top-released": ("#b8558f", "D"),
    "ltp-rising": ("#a0522d", "v"),
    "tokens-random": ("#7f7f7f", "X"),
    "tokens-first": ("#b0893a", "P"),
    "tokens-random-taught": ("#4d4d4d", "x"),
}
PLAIN = (GREY, "o")  # of an arm that no row names
METHODS |= {arm: PLAIN for arm in study.ARMS if arm not in METHODS}
PARTS = {  # of an encoder
    "feed-forward": "#e69f00",
    "attention": "#0072b2",
    "attention projections": "#0072b2",
    "attention scores and context": "#b8558f",
    "layer norms": "#882255",
    "embeddings and head": "#b0b0b0",
}
SAMPLERS = {  # option of the coreset: (colour, marker)
    "top": ("#d55e00", "^"),
    "uniform": ("#3d9fd6", "s"),
    "pps": ("#00805e", "v"),
    "without": ("#0072b2", "o"),
    "until-unique": ("#882255", "<"),
    "with": ("#8a5a00", "h"),
}
SEVERAL = (("#0072b2", "o"), ("#d55e00", "s"), ("#00805e", "v"), ("#882255", "^"), ("#8a5a00", "h"))
VERDICTS = {  # the dashboard's colours; the word in the badge says the same
    "reproduced": "#56b4e9",
    "partly": "#f0e442",
    "not reproduced": "#e69f00",
    "inconclusive": "#dddddd",
    "untested": "#f7f7f7",
}
AFTER = {"none": "not fine-tuned", "steps": "fine-tuned briefly", "epochs": "a whole epoch"}
DENSITY = {"attention": "density of attention", "encoder": "density of attention and feed-forward"}
METRICS = {"accuracy": "accuracy", "matthews": "Matthews correlation", "f1": "F1"}

sns.set_theme(
    style="ticks",
    font="DejaVu Sans",
    rc={
        "figure.dpi": 100,
        "savefig.dpi": 200,
        "figure.facecolor": PAPER,
        "font.size": 10,
        "axes.titlesize": 10.5,
        "axes.titlelocation": "left",
        "axes.labelsize": 10,
        "xtick.labelsize": 9.5,
        "ytick.labelsize": 9.5,
        "legend.fontsize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": GREY,
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "lines.linewidth": 1.6,
        "lines.markersize": 5.5,
        "legend.frameon": False,
        "svg.hashsalt": "pruning",  # the same figure is the same file
    },
)


def canvas(rows: int = 1, columns: int = 1, height: float = 3.4, **options) -> tuple[Figure, list]:
    """A page-wide figure without pyplot (so a notebook shows it once), and its axes in a list."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.flat)


def untested(what: str, table: pd.DataFrame) -> Drawn:
    """In place of a figure that has no runs: one line, and the empty table."""
    figure, (axes,) = canvas(height=0.8)
    axes.set_axis_off()
    axes.text(0.5, 0.5, f"untested: no records of {what}", ha="center", va="center", color=GREY)
    return figure, table


def remark(axes: Axes, words: str) -> None:
    """A word in the middle of empty axes."""
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", color=GREY)


def name(arm: str) -> str:
    """What people call an arm of the study; an unknown one keeps its own name."""
    return " + ".join(frames.ARM_WORDS.get(part, part) for part in arm.split("+"))


def look(arm: str) -> dict[str, str]:
    """Colour and marker of an arm, as keywords of `plot`."""
    colour, marker = METHODS.get(arm, PLAIN)
    return {"color": colour, "marker": marker}


def metric(table: pd.DataFrame) -> str:
    """The score's name on an axis."""
    word = table["metric"].iloc[0]
    return METRICS.get(word, word)


def sides(table: pd.DataFrame, column: str, low: str = "", high: str = "") -> np.ndarray:
    """Error bars of a column from its bounds, by default <column>_low and _high; never below 0."""
    low, high = low or f"{column}_low", high or f"{column}_high"
    found = np.stack([table[column] - table[low], table[high] - table[column]]).astype(float)
    return np.clip(found, 0, None)


# --- axes -----------------------------------------------------------------------------------------


def densities(axes: Axes, values: Iterable[float], label: str) -> None:
    """A density axis: the dense model at the left, each tested density marked."""
    values = sorted(set(values))
    _ticks(axes, values, values)
    margin = 0.07 * max(values[-1] - values[0], 0.2)
    axes.set_xlim(values[-1] + margin, values[0] - margin)
    axes.set_xlabel(label)


def lengths(axes: Axes, values: Iterable[int]) -> None:
    """A logarithmic axis of sequence lengths; of many only powers of 4 and the last are named."""
    values = sorted(set(values))
    named = values
    if len(values) > 6:
        named = [value for value in values if math.log(value, 4).is_integer()]
        named += [values[-1]] if not named or values[-1] >= 1.9 * named[-1] else []
    axes.set_xscale("log", base=2)
    _ticks(axes, values, named)
    axes.set_xlim(values[0] / 1.15, values[-1] * 1.15)
    axes.set_xlabel("sequence length (tokens)")


def _ticks(axes: Axes, values: list, named: list) -> None:
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_minor_locator(NullLocator())
    words = FuncFormatter(lambda value, _: f"{value:g}" if value in named else "")
    axes.xaxis.set_major_formatter(words)


def rows(axes: Axes, words: Iterable[str], top: float = 0.5) -> None:
    """Named rows from top to bottom, with faint lines to follow; `top` leaves room above them."""
    words = list(words)
    axes.set_yticks(range(len(words)), words)
    axes.set_ylim(len(words) - 0.5, -top)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", color=FAINT, lw=0.8)
    axes.set_axisbelow(True)


def places(axes: Axes, pairs: Sequence[tuple[str, str]]) -> None:
    """Encoders and tasks as the columns of a map, named above it; upright where they are many."""
    if len(pairs) > 4:
        words = [f"{encoder} {task}" for encoder, task in pairs]
        axes.set_xticks(range(len(pairs)), words, rotation=90)
    else:
        axes.set_xticks(range(len(pairs)), [f"{encoder}\n{task}" for encoder, task in pairs])
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)


# --- words beside lines ---------------------------------------------------------------------------


def beside(axes: Axes, labels: Iterable[tuple[float, str, str]], gap: float = 0.055) -> None:
    """Direct labels at the right edge: (height, text, colour), pushed apart where they collide.

    `gap` is the least distance between two labels, as a fraction of the axes' height.
    """
    labels = sorted(labels)
    if not labels:
        return
    change = axes.transData + axes.transAxes.inverted()
    places = [change.transform((axes.get_xlim()[1], height))[1] for height, _, _ in labels]
    for at in range(1, len(places)):
        places[at] = max(places[at], places[at - 1] + gap)
    places[-1] = min(places[-1], 1.0)
    for at in reversed(range(len(places) - 1)):
        places[at] = min(places[at], places[at + 1] - gap)
    for place, (_, text, colour) in zip(places, labels, strict=True):
        axes.annotate(
            text,
            (1, place),
            xytext=(5, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            color=colour,
            va="center",
            fontsize=9.5,
        )


def note(axes: Axes, words: str, at: tuple, by: tuple[int, int], **more) -> None:
    """A small remark at a point, moved `by` points."""
    axes.annotate(words, at, xytext=by, textcoords="offset points", **{"fontsize": 9} | more)


def put(axes: Axes, word: str, at: tuple, **more) -> None:
    """A word of fixed width that starts at a point; a character is 5.4 points wide."""
    axes.text(*at, word, **{"fontsize": 9, "family": "DejaVu Sans Mono", "va": "center"} | more)


# --- legends, where labels would collide ----------------------------------------------------------


def key(figure: Figure, colours: Mapping[str, str]) -> None:
    """Coloured patches under a figure."""
    handles = [Patch(color=colour, label=words) for words, colour in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4))


def markers(figure: Figure, looks: Mapping[str, tuple[str, str]], place: str = "lower") -> None:
    """(colour, marker) by word, under a figure or (`upper`) above it."""
    handles = [
        Line2D([], [], color=colour, marker=marker, ls="", label=words, ms=6)
        for words, (colour, marker) in looks.items()
    ]
    columns = 3 if len(handles) > 4 else len(handles)
    figure.legend(handles=handles, loc=f"outside {place} center", ncols=columns)


def lines(axes: Axes, dashes: Mapping[str, str], arms: Iterable[str] = ()) -> None:
    """Arms by colour, then kinds of line, inside the axes."""
    handles = [Line2D([], [], **look(arm), label=name(arm)) for arm in arms]
    handles += [Line2D([], [], color=INK, ls=line, label=words) for words, line in dashes.items()]
    axes.legend(handles=handles, loc="best", handlelength=2.2)
