"""How do our figures look? One style, one colour and one marker a method, one mark for the talk."""

from collections.abc import Iterable

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

WIDTH = 7.0  # inches: 700 px at 100 dpi, the width of a page of the book
INK, GREY, PAPER = "#1a1a1a", "#6b6b6b", "#ffffff"
TALK = {"marker": "D", "mfc": PAPER, "mec": INK, "mew": 1.4, "ms": 7, "ls": "", "zorder": 5}

# Okabe and Ito's colours, darkened where they were faint on white, and two of Tol's.
METHODS: dict[str, tuple[str, str, str]] = {  # arm: (name for people, colour, marker)
    "dense": ("dense", INK, "_"),
    "coreset": ("coreset", "#0072b2", "o"),
    "uniform": ("uniform sampling", "#3d9fd6", "s"),
    "magnitude": ("magnitude", "#d55e00", "^"),
    "svd": ("SVD rotation", "#00805e", "v"),
    "random": ("random", "#7f7f7f", "X"),
    "unstructured": ("unstructured", "#4d4d4d", "P"),
    "gradient-talk": ("gradient change", "#b8558f", "<"),
    "gradient-michel": ("gradient of heads", "#882255", ">"),
    "taylor-once": ("Taylor, one shot", "#c98500", "h"),
    "taylor-steps": ("Taylor, iterative", "#8a5a00", "H"),
    "movement": ("movement", "#332288", "d"),
}
PARTS = {  # of an encoder, from its matrices to the rest
    "attention": "#0072b2",
    "attention projections": "#0072b2",
    "attention scores and context": "#cc79a7",
    "feed-forward": "#e69f00",
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
ENCODERS = ("#0072b2", "#d55e00", "#00805e", "#882255", "#8a5a00")
VERDICTS = {  # words first: the colour only repeats them
    "reproduced": "#00805e",
    "partly": "#b87700",
    "not reproduced": "#c0392b",
    "inconclusive": "#5b6f8f",
    "untested": "#8c8c8c",
}

sns.set_theme(
    style="ticks",
    font="DejaVu Sans",
    rc={
        "figure.dpi": 100,
        "savefig.dpi": 200,
        "figure.facecolor": PAPER,
        "figure.constrained_layout.use": True,
        "font.size": 10,
        "axes.titlesize": 10.5,
        "axes.titlelocation": "left",
        "axes.labelsize": 10,
        "xtick.labelsize": 9.5,
        "ytick.labelsize": 9.5,
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
        "svg.fonttype": "path",
        "svg.hashsalt": "pruning",
    },
)


def canvas(rows: int = 1, columns: int = 1, height: float = 3.4, **options) -> tuple[Figure, list]:
    """A page-wide figure without pyplot (so a notebook shows it once), and its axes in a list."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.flat)


def name(arm: str) -> str:
    """What people call an arm of the study; an unknown one keeps its own name."""
    return METHODS.get(arm, (arm,))[0]


def look(arm: str) -> dict[str, str]:
    """Colour and marker of an arm, as keywords of `plot`."""
    _, colour, marker = METHODS.get(arm, (arm, GREY, "o"))
    return {"color": colour, "marker": marker}


def densities(axes: Axes, values: Iterable[float], label: str) -> None:
    """A density axis: the dense model at the left, each tested density marked."""
    values = sorted(set(values))
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    margin = 0.06 * max(values[-1] - values[0], 0.2)
    axes.set_xlim(values[-1] + margin, values[0] - margin)
    axes.set_xlabel(label)


def lengths(axes: Axes, values: Iterable[int]) -> None:
    """A logarithmic axis of sequence lengths, each one marked."""
    values = sorted(set(values))
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlim(values[0] / 1.15, values[-1] * 1.15)
    axes.set_xlabel("sequence length (tokens)")


def beside(axes: Axes, labels: Iterable[tuple[float, str, str]], gap: float = 0.055) -> None:
    """Direct labels at the right edge: (height, text, colour), pushed apart where they collide.

    `gap` is the least distance between two labels, as a fraction of the axes' height.
    """
    low, high = axes.get_ylim()
    up = axes.get_yscale() == "linear"
    place = axes.transData.transform if not up else None
    spots = []
    for height, text, colour in labels:
        if up:
            fraction = (height - low) / (high - low)
        else:
            ends = [place((1, end))[1] for end in (low, high)]
            fraction = (place((1, height))[1] - ends[0]) / (ends[1] - ends[0])
        spots.append([fraction, text, colour])
    spots.sort(key=lambda spot: spot[0])
    for previous, spot in zip(spots, spots[1:], strict=False):
        spot[0] = max(spot[0], previous[0] + gap)
    over = spots[-1][0] - 1 if spots else 0
    if over > 0:  # the highest label stays inside: push down from above
        spots[-1][0] = 1
        for spot, above in zip(spots[-2::-1], spots[:0:-1], strict=True):
            spot[0] = min(spot[0], above[0] - gap)
    for fraction, text, colour in spots:
        axes.annotate(
            text,
            (1, fraction),
            xytext=(5, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            color=colour,
            va="center",
            fontsize=9.5,
        )
