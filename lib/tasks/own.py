"""How does a reader's own CSV become a task?

Columns: text, label, and text_pair for pairs of texts. Labels are names or whole numbers.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lib.assets import fetch
from lib.errors import StudyError
from lib.tasks.splits import cut, letters

COLUMNS = "text, label and, for pairs, text_pair"
CLASSES = 256  # a record has a byte for every answer


@dataclass(frozen=True)
class Own:
    """The file, or two: the second is the dev split; one file is cut by us."""

    train: Path
    dev: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All of the reader's files."""
        return (self.train, self.dev) if self.dev else (self.train,)

    @property
    def labels(self) -> dict[str, Path]:
        """The files by what records call them: a name, the path where both have the same name."""
        short = {path.name: path for path in self.files}
        return short if len(short) == len(self.files) else {str(path): path for path in self.files}


@dataclass(frozen=True)
class Table:
    """What the files hold: label names in id order, and the splits as text, text_pair, label id."""

    labels: tuple[str, ...]
    texts: tuple[str, ...]
    splits: dict[str, pd.DataFrame]


def source(rest: str) -> Own:
    """What follows "csv:": PATH, or TRAIN,DEV."""
    paths = [rest] if Path(rest).exists() else rest.split(",")
    if len(paths) > 2 or not all(paths):
        raise StudyError(f"wanted csv:PATH or csv:TRAIN,DEV but got csv:{rest}")
    return Own(*(Path(path).expanduser() for path in paths))


def read(files: Own) -> Table:
    """Read, check and cut; raises StudyError in one line for whatever is wrong with the files."""
    train = _read(files.train)
    labels = _order(train["label"], files.train)
    if files.dev is None:
        train, dev = cut(train, min(1000, max(1, len(train) // 5)), letters)
        if train.empty or dev.empty:
            few = "has too few different texts to cut a dev split from"
            raise StudyError(f"{files.train} {few}: give csv:TRAIN,DEV")
        name = f"the dev split cut from {files.train}"
    else:
        dev, name = _read(files.dev), str(files.dev)
        if list(dev) != list(train):
            came = f"should have the columns {', '.join(train)} but has {', '.join(dev)}"
            raise StudyError(f"{files.dev} {came}: make the two alike")
        texts = [name for name in train if name != "label"]
        ours, theirs = (set(split[texts].map(letters).stack()) for split in (train, dev))
        if shared := ours & theirs:
            came = f"{len(shared)} of its texts in {files.train} too"
            raise StudyError(f"{files.dev} has {came}: a split tells nothing of texts trained on")
    unseen = sorted(set(dev["label"]) - set(train["label"]))
    if unseen:
        came = f"a label unseen in training, {unseen[0]!r}"
        raise StudyError(f"{name} has {came}: add training texts that have it")
    ids = {label: number for number, label in enumerate(labels)}
    splits = {"train": train, "dev": dev}
    return Table(
        labels,
        tuple(name for name in train if name != "label"),
        {key: data.assign(label=data["label"].map(ids)) for key, data in splits.items()},
    )


def _read(path: Path) -> pd.DataFrame:
    """The file as columns text, text_pair where there is one, label; all strings, none empty."""
    if not path.is_file():
        raise StudyError(f"no CSV at {path}: check the path")
    try:
        raw = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except ValueError as error:  # pandas' own errors, and bytes that are no UTF-8
        raise StudyError(f"{path} is not a well-formed UTF-8 CSV: {fetch.line(error)}") from error
    if twice := [name for name in raw if re.fullmatch(r"(text|text_pair|label)\.\d+", name)]:
        name = twice[0].partition(".")[0]  # pandas numbers the second
        raise StudyError(f"{path} has the column {name!r} twice: rename one")
    if not isinstance(raw.index, pd.RangeIndex):  # pandas took surplus fields for row names
        raise StudyError(f"{path} is not a well-formed CSV: its rows are longer than its header")
    missing = [name for name in ("text", "label") if name not in raw]
    if missing:
        came = ", ".join(raw.columns)
        raise StudyError(f"{path} has no column {missing[0]!r}: wanted {COLUMNS}; came {came}")
    data = raw[[name for name in ("text", "text_pair", "label") if name in raw]]
    data = data.fillna("").map(str.strip)
    for name in data:
        empty = (data[name] == "").to_numpy()
        if empty.any():
            row = int(empty.argmax()) + 1
            where = f"{path}, row {row} below the header"
            raise StudyError(f"{where}: {name} is empty; fill it or drop the row")
    return data


def _order(labels: pd.Series, path: Path) -> tuple[str, ...]:
    """Label names in id order: numbers by size, names by the alphabet."""
    names = sorted(labels.unique())
    if len(names) < 2:
        came = f"only {names[0]!r}" if names else "no rows"
        raise StudyError(f"{path} should have two classes or more but has {came}: add another")
    if len(names) > CLASSES:
        raise StudyError(
            f"{path} has {len(names)} different labels: wanted at most {CLASSES}, and a regression "
            "is a task of lib/tasks/rows.py"
        )
    numbers = pd.to_numeric(pd.Series(names), errors="coerce")
    if numbers.notna().all():
        if (numbers % 1 != 0).any():
            odd = next(name for name, bad in zip(names, numbers % 1 != 0, strict=True) if bad)
            raise StudyError(f"{path} has a label {odd!r}: wanted names or whole numbers")
        if numbers.duplicated().any():
            odd = [name for name, n in zip(names, numbers, strict=True) if (numbers == n).sum() > 1]
            raise StudyError(
                f"{path} writes one label as {' and '.join(odd[:2])}: write it one way"
            )
        names = sorted(names, key=float)
    return tuple(names)
