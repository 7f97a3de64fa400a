"""Which texts are kept aside, so that no sentence is ever on both sides?

A cut depends on nothing but the texts: no random generator, no order of rows, no library's version.
"""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SEED = "select"  # hashed with every text; another word gives another cut


def spacing(text: str) -> str:
    """Two texts are one sentence if case and spacing alone tell them apart."""
    return " ".join(text.lower().split())


def letters(text: str) -> str:
    """Two texts are one sentence if they have the same letters and digits."""
    return "".join(filter(str.isalnum, text.lower())) or text


def share(rows: int) -> int:
    """How many of a task's training texts are kept aside to select on."""
    return min(2000, max(1, rows // 10))


def cut(
    data: pd.DataFrame, size: int, same: Callable[[str], str] = spacing
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two pieces of the rows (columns text, and text_pair for pairs), the second of at most `size`.

    Rows that share a sentence, directly or through others, stay together. Groups go to the second
    piece in the order of the smallest hash of their first texts while there is room.
    """
    groups = _groups([data[name] for name in ("text", "text_pair") if name in data], same)
    hashes = [hashlib.sha256(f"{SEED}\n{spacing(text)}".encode()).digest() for text in data["text"]]
    rows = pd.DataFrame({"group": groups, "hash": hashes}).groupby("group")["hash"]
    table = pd.DataFrame({"first": rows.min(), "rows": rows.size()}).sort_values("first")
    chosen = []
    for group, count in zip(table.index, table["rows"], strict=True):
        if count <= size:
            chosen.append(group)
            size -= count
    aside = np.isin(groups, chosen)
    return data[~aside].reset_index(drop=True), data[aside].reset_index(drop=True)


def _groups(columns: Sequence[pd.Series], same: Callable[[str], str]) -> np.ndarray:
    """A number for each row, the same for rows connected by common sentences."""
    rows = len(columns[0])
    sentences = pd.concat([column.map(same) for column in columns], ignore_index=True)
    codes, names = pd.factorize(sentences)
    size = rows + len(names)  # nodes of the graph: the rows, then the sentences
    edges = (np.tile(np.arange(rows), len(columns)), codes + rows)
    graph = coo_array((np.ones(len(codes), dtype=np.int8), edges), shape=(size, size))
    return connected_components(graph, directed=False)[1][:rows]
