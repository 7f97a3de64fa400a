"""What does every chapter ask of its figures? To be legible, and honest where runs are missing."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from lib import figures
from lib.figures import style

Draw = Callable[[object], tuple[Figure, pd.DataFrame]]


def laid_out(draws: Mapping[str, Draw], given: object) -> dict:
    """Every figure once, with its table, and all of its texts where they will stand."""
    found = {}
    for name, draw in draws.items():
        found[name] = draw(given)
        FigureCanvasAgg(found[name][0]).draw()
    return found


def is_legible(figure: Figure, table: pd.DataFrame) -> None:
    """Complete, 700 pixels wide, no text too small or beyond the edge."""
    assert len(table) > 1
    width, height = figure.get_size_inches() * figure.dpi
    assert width == 700
    for text in words(figure):
        assert not text.get_text().startswith("untested:")
        assert text.get_fontsize() >= 8.5, text
        box = text.get_window_extent()
        inside = box.x0 > -2 and box.y0 > -2 and box.x1 < width + 2 and box.y1 < height + 2
        assert inside, f"{text.get_text()!r} leaves the figure: {box}"


def bears(draw: Draw, part: object) -> None:
    """Where runs and timings are missing the figure is drawn of what is there."""
    figure, table = draw(part)
    FigureCanvasAgg(figure).draw()
    assert isinstance(table, pd.DataFrame)


def says_untested(draw: Draw, nothing: object, name: str, folder: Path, monkeypatch) -> None:
    """Of nothing it says so, and still leaves its data."""
    figure, table = draw(nothing)
    assert words(figure)[0].get_text().startswith("untested")
    monkeypatch.setenv("PRUNING_FIGURES", str(folder))
    figures.save(figure, table, name)
    assert (folder / f"{name}.csv").read_text().count("\n") >= 1


def words(figure) -> list[Text]:
    """All that can be read; labels of ticks outside an axis's limits are not drawn."""
    unseen = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not low <= tick.get_loc() <= high:
                unseen |= {tick.label1, tick.label2}
    found = [text for text in figure.findobj(Text) if text.get_visible() and text not in unseen]
    return [text for text in found if text.get_text().strip()]


def marks(figure) -> np.ndarray:
    """Where the talk's hollow diamonds stand, over all axes."""
    spots = [
        line.get_xydata()
        for axes in figure.axes
        for line in axes.lines
        if line.get_marker() == "D" and to_hex(line.get_markerfacecolor()) == style.PAPER
    ]
    return np.concatenate(spots) if spots else np.empty((0, 2))
