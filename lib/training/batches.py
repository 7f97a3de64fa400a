"""How do texts become batches of tensors?

Texts are tokenised once; a batch is padded to its own longest text, never further.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from datasets import Dataset
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from lib.errors import StudyError

# input_ids, attention_mask and, for tokenizers that make them, token_type_ids: (B, T); labels: (B,)
Batch = dict[str, Tensor]
POOL = 50  # texts are sorted by length within pools of this many batches


def tokenize(data: Dataset, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> Dataset:
    """Columns input_ids, token_type_ids if the tokenizer makes them, label, length; in memory."""
    columns = data[:]
    texts = [columns[name] for name in ("text", "text_pair") if name in columns]
    encoded = tokenizer(
        *texts, truncation=True, max_length=max_tokens, padding=False, return_attention_mask=False
    )
    kept = {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}
    lengths = [len(ids) for ids in encoded["input_ids"]]
    return Dataset.from_dict({**kept, "label": columns["label"], "length": lengths})


def training(
    data: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    size: int,
    generator: torch.Generator,
    steps: int | None = None,
) -> Iterator[Batch]:
    """Shuffled batches of texts of like length: one pass, or `steps` batches over several.

    Shuffled texts are sorted by length within pools of 50 batches, and a pool's batches are
    shuffled again. The order depends on the generator alone.
    """
    columns = data[:]
    if not len(data):
        raise StudyError("wanted training batches but the data has no rows")
    done = 0
    while steps is None or done < steps:
        for rows in _shuffled(columns["length"], size, generator):
            if done == steps:
                return
            yield _batch(columns, rows, tokenizer)
            done += 1
        if steps is None:
            return


def evaluation(
    data: Dataset, tokenizer: PreTrainedTokenizerBase, tokens: int = 4096
) -> Iterator[tuple[Batch, Int[Tensor, "batch"]]]:
    """Every text once, longest first: batches of at most `tokens` padded tokens, and their rows.

    A text longer than `tokens` is a batch of its own.
    """
    columns = data[:]
    lengths = torch.tensor(columns["length"])
    order = torch.argsort(lengths, descending=True, stable=True)
    start = 0
    while start < len(order):
        size = max(1, tokens // int(lengths[order[start]]))
        rows = order[start : start + size]
        yield _batch(columns, rows.tolist(), tokenizer), rows
        start += size


def sample(data: Dataset, n: int, generator: torch.Generator) -> Dataset:
    """`n` rows drawn without replacement."""
    if not 0 < n <= len(data):
        raise StudyError(f"wanted a sample of {n} but the data has {len(data)} rows: ask for fewer")
    return data.select(torch.randperm(len(data), generator=generator)[:n].tolist())


def like(data: Dataset, lengths: Sequence[int], n: int, generator: torch.Generator) -> Dataset:
    """`n` rows as long as texts drawn from `lengths`: of that length, or of the nearest that `data`
    has, the longer of two. A row may come more than once."""
    if n < 1 or not len(data) or not len(lengths):
        raise StudyError(
            f"wanted rows as long as given texts; got {n} rows to draw, {len(data)} to draw from "
            f"and {len(lengths)} lengths"
        )
    by_length: dict[int, list[int]] = {}
    for row, length in enumerate(data["length"]):
        by_length.setdefault(length, []).append(row)
    nearest = {
        wanted: by_length[min(by_length, key=lambda own: (abs(own - wanted), -own))]
        for wanted in set(lengths)
    }
    drawn = torch.randint(len(lengths), (n,), generator=generator).tolist()
    places = torch.rand(n, generator=generator, dtype=torch.float64).tolist()
    rooms = (nearest[lengths[at]] for at in drawn)
    return data.select([rows[int(at * len(rows))] for rows, at in zip(rooms, places, strict=True)])


def _shuffled(lengths: Sequence[int], size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Rows of one pass, batch by batch."""
    order = torch.randperm(len(lengths), generator=generator).tolist()
    for start in range(0, len(order), size * POOL):
        pool = sorted(order[start : start + size * POOL], key=lengths.__getitem__)
        batches = [pool[first : first + size] for first in range(0, len(pool), size)]
        for number in torch.randperm(len(batches), generator=generator).tolist():
            yield batches[number]


def _batch(
    columns: dict[str, list[Any]], rows: list[int], tokenizer: PreTrainedTokenizerBase
) -> Batch:
    """The rows as tensors, padded to the longest of them."""

    def padded(lists: list[list[int]], value: int) -> Tensor:
        tensors = [torch.tensor(ids) for ids in lists]
        side = tokenizer.padding_side
        return pad_sequence(tensors, batch_first=True, padding_value=value, padding_side=side)

    ids = [columns["input_ids"][row] for row in rows]
    batch = {
        "input_ids": padded(ids, tokenizer.pad_token_id),
        "attention_mask": padded([[1] * len(text) for text in ids], 0),
    }
    if "token_type_ids" in columns:
        kinds = [columns["token_type_ids"][row] for row in rows]
        batch["token_type_ids"] = padded(kinds, tokenizer.pad_token_type_id)
    batch["labels"] = torch.tensor([columns["label"][row] for row in rows])
    return batch
