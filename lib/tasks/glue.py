"""Where do the files of a GLUE task lie, and what do their columns mean?

First in the folder named by the environment variable GLUE_DIR (the benchmark's own layout), then
on the Hugging Face hub at a pinned revision.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from lib.assets import fetch
from lib.errors import StudyError

GLUE = ("nyu-mll/glue", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c")
SNLI = ("stanfordnlp/snli", "cdb5c3d5eed6ead6e5a341c8e56e669bb666725b")
TSV = {"train": ("train.tsv",), "dev": ("dev.tsv",)}
PARQUET = {"train": "train", "dev": "validation"}
COLA = ("source", "label", "star", "sentence")  # CoLA's files have no header


@dataclass(frozen=True)
class Glue:
    """A task's files in both places; columns are those of the texts and, last, of the label."""

    folder: str  # in GLUE_DIR
    columns: tuple[str, ...]
    hub: str  # folder on the hub
    hub_columns: tuple[str, ...]
    repository: tuple[str, str] = GLUE  # and its revision
    files: dict[str, tuple[str, ...]] = field(default_factory=TSV.copy)  # split: names it may have
    hub_files: dict[str, str] = field(default_factory=PARQUET.copy)
    header: tuple[str, ...] | None = None  # for files that have none
    gaps: bool = False  # broken rows are skipped, as the benchmark's own loader does
    full_stop: bool = True  # False: stripped, because part of the published files has lost it
    substitute: "Glue | None" = None  # trained on as well where the train file is a mere sample


def read(source: Glue, split: str, labels: tuple[str, ...] | None) -> pd.DataFrame:
    """Columns text, text_pair for pairs, label: an id, or a number where `labels` is None."""
    found = files(source, split)
    return pd.concat([_table(*file, labels) for file in found], ignore_index=True)


def files(source: Glue, split: str) -> list[tuple[Glue, str, Path]]:
    """The files of a split: whose columns they have, the name for the record, the path.

    Raises StudyError, naming GLUE_DIR, when neither place has them.
    """
    where = os.environ.get("GLUE_DIR")
    wanted = "GLUE_DIR is not set"
    if where:
        folder, names = Path(where).expanduser() / source.folder, source.files[split]
        here = [name for name in names if (folder / name).is_file()]
        if here:
            own = [(source, f"{source.folder}/{here[0]}", folder / here[0])]
            sample = source.substitute if here[0] != names[0] else None
            return (files(sample, split) if sample else []) + own
        wanted = f"GLUE_DIR={where} has no {source.folder}/{' or '.join(names)}"
    file = f"{source.hub}/{source.hub_files[split]}-00000-of-00001.parquet"
    try:
        return [(source, file, fetch.hub_file(*source.repository, file))]
    except fetch.Unreachable as error:
        raise StudyError(
            f"{source.folder} could not be read ({wanted}; {error}): set GLUE_DIR to a folder in "
            "the benchmark's layout, or use the task mr, which needs neither"
        ) from error


def _table(source: Glue, name: str, path: Path, labels: tuple[str, ...] | None) -> pd.DataFrame:
    """One file as columns text, text_pair, label."""
    parquet = path.suffix == ".parquet"
    columns = source.hub_columns if parquet else source.columns
    raw = pd.read_parquet(path) if parquet else _tsv(path, source.header)
    missing = [column for column in columns if column not in raw]
    if missing:
        came = ", ".join(map(str, raw.columns))
        raise StudyError(f"{name} should have a column {missing[0]!r} but has: {came}")
    texts = ["text", "text_pair"][: len(columns) - 1]
    data = raw[list(columns)].set_axis([*texts, "label"], axis=1)
    broken = data.isna().any(axis=1) | (data["label"] == "")
    if broken.any() and not source.gaps:
        row = int(broken.to_numpy().argmax()) + 1
        raise StudyError(f"{name}, row {row}, lacks a text or a label: fetch the file again")
    unlabelled = data["label"].isin(["-", -1])  # the annotators disagreed
    data = data[~broken & ~unlabelled].reset_index(drop=True)
    for text in texts:
        data[text] = data[text].str.strip()
        if not source.full_stop:
            data[text] = data[text].str.rstrip(" .")
    return data.assign(label=_ids(data["label"], labels, name))


def _tsv(path: Path, header: Sequence[str] | None) -> pd.DataFrame:
    """Every field as it stands: quotes are ordinary characters in GLUE."""
    try:
        raw = pd.read_csv(
            path,
            sep="\t",
            quoting=3,
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
            names=header,
            header=0 if header is None else None,
        )
    except ValueError as error:
        raise StudyError(f"{path} is not the benchmark's file ({fetch.line(error)})") from error
    if not isinstance(raw.index, pd.RangeIndex):  # pandas took surplus fields for row names
        raise StudyError(f"{path} is not the benchmark's file (rows longer than the header)")
    return raw


def _ids(labels: pd.Series, names: tuple[str, ...] | None, file: str) -> pd.Series:
    """Names, or ids written as numbers, to ids."""
    if names is None:
        numbers = pd.to_numeric(labels, errors="coerce").astype(float)
    else:
        known = {name: number for number, name in enumerate(names)}
        known |= {str(number): number for number in known.values()}
        numbers = labels.astype(str).map(known)
    strange = labels[numbers.isna()]
    if len(strange):
        wanted = ", ".join(names) if names else "a number"
        raise StudyError(f"{file}: a label should be {wanted} but one is {str(strange.iloc[0])!r}")
    return numbers if names is None else numbers.astype(int)
