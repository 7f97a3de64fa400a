"""What did really run? MACs from recorded lengths, against the dense model padded and not.

Three dense models stand beside a token-pruned one, or the padding's share would pass for its own:
padded to the task's maximum length, padded to the longest text of a batch, and not padded at all.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lib.models import encoder
from lib.models.encoder import Shape
from lib.training import batches

BATCH = 32  # texts of a batch, where padding to a batch is meant
EXCERPTS, LONGEST = 6, 60  # sentences shown, and how many of their tokens
BUCKETS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)  # lengths up to, for timings


def executed_macs(
    shape: Shape,
    lengths: Int[np.ndarray, "texts parts"],
    predicted: Int[np.ndarray, " texts"] | None = None,
) -> Float[np.ndarray, " texts"]:
    """MACs of the layers for texts that are `lengths` long: (2L) in the attention and in the
    feed-forward part of every layer. With predictors, `predicted` is what the first one reads; each
    other reads what the layer before left.
    """
    total = np.zeros(len(lengths))
    for index, layer in enumerate(shape.layers):
        attention, feed = (lengths[:, 2 * index + part].astype(float) for part in (0, 1))
        if layer.heads * layer.vo:
            total += 2 * attention * shape.hidden * layer.heads * (layer.qk + layer.vo)
            total += 2 * attention**2 * layer.heads * max(layer.qk, layer.vo)
        total += 2 * feed * shape.hidden * layer.neurons
        if predicted is not None:
            total += predicted * float(shape.hidden * (shape.hidden + 2))
            predicted = feed
    return total


def dense_macs(shape: Shape, lengths: Int[np.ndarray, " texts"]) -> Float[np.ndarray, " texts"]:
    """MACs of the layers for texts of these lengths of which nothing is dropped."""
    return executed_macs(shape, np.repeat(lengths[:, None], 2 * len(shape.layers), axis=1))


@torch.no_grad()
def survivors(
    model: nn.Module, data: Iterable[Mapping[str, Tensor]]
) -> list[Bool[Tensor, "batch parts tokens"]]:
    """Who takes part in each piece of work, batch by batch."""
    device, training = next(model.parameters()).device, model.training
    model.eval()
    found = []
    for batch in data:
        inputs = {name: tensor.to(device) for name, tensor in batch.items() if name != "labels"}
        found.append(model.encoder(**inputs, output_survivors=True).survivors.cpu())
    model.train(training)
    return found


def fraction(
    model: nn.Module, data: list[Mapping[str, Tensor]], claimed: bool = False
) -> tuple[float, Float[np.ndarray, " parts"]]:
    """Executed MACs on `data` over those of the dense model on its unpadded texts, and the mean
    number of tokens in every part. `claimed`: of a model that merely masks, as if it dropped."""
    shape, skims = encoder.shape(model), model.config.tokens["rule"] == "skim"
    texts = np.concatenate([batch["attention_mask"].sum(1).cpu().numpy() for batch in data])
    rule = model.config.tokens
    if rule["rule"] == "rank":
        lengths = ranked(texts, rule.get("forced") or rule["lengths"])
    else:
        lengths = np.concatenate([s.sum(-1).numpy() for s in survivors(model, data)])
    own = _executed(shape, lengths, texts, skims, _drops(model) or claimed)
    return float(own.sum() / dense_macs(shape, texts).sum()), lengths.mean(0)


def ranked(
    texts: Int[np.ndarray, " texts"], lengths: Sequence[int]
) -> Int[np.ndarray, "texts parts"]:
    """What a fixed schedule leaves of texts of these lengths in every part of every layer: no text
    has to be read for that. `lengths` are those behind each layer's cut, between its parts."""
    left = np.minimum(texts[:, None], np.asarray(lengths)[None])
    enter = np.concatenate([texts[:, None], left[:, :-1]], axis=1)
    return np.stack([enter, left], axis=2).reshape(len(texts), -1)


def _drops(model: nn.Module) -> bool:
    return model.config.tokens.get("renormalise", True)


def _executed(
    shape: Shape, lengths: np.ndarray, texts: np.ndarray, skims: bool, drops: bool
) -> np.ndarray:
    """MACs of texts of `texts` tokens, `lengths` of them left; all of them where nothing drops."""
    ran = lengths if drops else np.repeat(texts[:, None], lengths.shape[1], axis=1)
    return executed_macs(shape, ran, texts if skims else None)


def measure(
    model: nn.Module, tokenizer, data: Dataset, max_tokens: int, whole: Shape | None = None
) -> dict[str, Any]:
    """What of `data` really ran, for a record: mean MACs a text, tokens by layer, some sentences.

    `macs`: padded to `max_tokens`, batch (padded to the longest of 32 texts as they come), dense
    (not padded), pruned (texts one at a time), pruned_batch (32 of like length, padded to whoever
    has most left in each layer), claimed (what is left, even if the model only masks it). The first
    three are those of the shape `whole`, where another than the model's own was pruned. `mean`
    and `by_length`: tokens in the attention and the feed-forward part of every layer; `batched`: of
    batches of 32 of like length, padded. `histogram`: texts by length, up to each of BUCKETS.
    `sentences`: tokens, and in how many layers each lives.
    """
    tokens = batches.tokenize(data, tokenizer, max_tokens)
    texts = np.asarray(tokens["length"])
    shape, rule = encoder.shape(model), model.config.tokens
    whole = whole or shape
    lengths = np.zeros((len(texts), 2 * len(shape.layers)), dtype=np.int64)
    shown = {int(row): {} for row in np.linspace(0, len(texts) - 1, EXCERPTS).astype(int)}
    for batch, rows in batches.evaluation(tokens, tokenizer):
        (alive,) = survivors(model, [batch])
        lengths[np.asarray(rows)] = alive.sum(-1).numpy()
        for place, row in enumerate(rows.tolist()):
            if row in shown:
                ids = batch["input_ids"][place, : texts[row]][:LONGEST].tolist()
                depth = alive[place, 1::2, : len(ids)].sum(0).tolist()
                shown[row] = {"tokens": tokenizer.convert_ids_to_tokens(ids), "layers": depth}
    skims, order = rule["rule"] == "skim", np.argsort(-texts, kind="stable")
    macs = {
        "padded": dense_macs(whole, np.full(1, max_tokens)),
        "batch": dense_macs(whole, _longest(texts)),
        "dense": dense_macs(whole, texts),
        "pruned": _executed(shape, lengths, texts, skims, _drops(model)),
        "pruned_batch": _executed(
            shape, _longest(lengths[order]), _longest(texts[order]), skims, _drops(model)
        ),
        "claimed": _executed(shape, lengths, texts, skims, True),
    }
    bucket = np.searchsorted(BUCKETS, texts).clip(max=len(BUCKETS) - 1)
    return {
        "rule": {name: value for name, value in rule.items() if name != "forced"},
        "macs": {name: round(float(value.mean())) for name, value in macs.items()},
        "mean": lengths.mean(0).round(3).tolist(),
        "length": round(float(texts.mean()), 3),
        "batched": {
            "length": round(float(_longest(texts[order]).mean()), 3),
            "mean": _longest(lengths[order]).mean(0).round(3).tolist(),
        },
        "histogram": {str(BUCKETS[b]): int((bucket == b).sum()) for b in np.unique(bucket)},
        "by_length": {
            str(BUCKETS[b]): {
                "length": round(float(texts[bucket == b].mean()), 3),
                "mean": lengths[bucket == b].mean(0).round(3).tolist(),
                "macs": {n: round(float(macs[n][bucket == b].mean())) for n in ("dense", "pruned")},
            }
            for b in np.unique(bucket)
        },
        "sentences": list(shown.values()),
    }


def _longest(lengths: np.ndarray) -> np.ndarray:
    """Every text as long as the longest of its batch, the texts in the order given."""
    starts = np.arange(0, len(lengths), BATCH)
    sizes = np.diff(np.append(starts, len(lengths)))
    return np.repeat(np.maximum.reduceat(lengths, starts, axis=0), sizes, axis=0)
