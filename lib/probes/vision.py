"""Does KCM prune a transformer of images as well? Trained from scratch on 8 x 8 digits.

A small vision transformer (Dosovitskiy et al. 2021): an image is 16 patches of 2 x 2 pixels behind
a class token, and a patch's embedding is a linear map of its four grey values. The layers are
BERT's, so that the pruners are those of every other chapter, untouched: each distinct patch is a
word, and while training runs the table of words is that linear map of the words' pixels.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, parametrize
from transformers import BertConfig, BertForSequenceClassification

from lib import pruners

VERSION = 1
HELD_OUT, BATCH, LR = 500, 64, 2e-3
WIDTHS = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
ARMS = {
    "kcm": ("kcm", {}),
    "kcm-r2": ("kcm", {"ranks": "r2"}),
    "ffn-w2": ("ffn", {"score": "w2"}),
    "ffn-random": ("ffn", {"score": "random"}),
}


def answer(
    epochs: int,
    seeds: Sequence[int],
    budgets: Sequence[float],
    calibration: int,
    versions: dict[str, int],
) -> dict:
    """Accuracy on held-out digits, dense and pruned, by arm and budget; a list over seeds.

    `drop` and `over_random` are KCM's accuracy lost and its lead over random filters, with 95%
    intervals over images and over seeds of training together. `calibration` is how many images, of
    those trained on, a pruner reads. `versions` are those of the pruners'
    methods: they are part of the question.
    """
    del versions
    words, (train, labels), (test, truth) = _digits()
    right: dict[tuple[str, float], list[np.ndarray]] = {}
    for seed in seeds:
        model = _trained(words, train, labels, epochs, seed)
        right.setdefault(("dense", 1.0), []).append(_right(model, test, truth))
        for arm, (method, options) in ARMS.items():
            for budget in budgets:
                tokens = float(train.shape[1])
                pruner = pruners.get(method, unit="macs", seed=seed, tokens=tokens, **options)
                smaller = pruner(model, _batches(train[:calibration]), budget)
                right.setdefault((arm, budget), []).append(_right(smaller, test, truth))
    dense = right["dense", 1.0]
    scores = {
        arm: {f"{b:g}": [float(r.mean()) for r in right[arm, b]] for b in budgets} for arm in ARMS
    }
    return {
        "dense": [float(r.mean()) for r in dense],
        "scores": scores,
        "drop": {f"{b:g}": _lead(dense, right["kcm", b]) for b in budgets},
        "over_random": {f"{b:g}": _lead(right["kcm", b], right["ffn-random", b]) for b in budgets},
        "images": {"train": len(labels), "test": len(truth)},
        "tokens": train.shape[1],
        "layers": WIDTHS["num_hidden_layers"],
    }


def _digits() -> tuple:
    """Pixels (words, 5) of every distinct patch, then ids (images, 17) and labels of two splits."""
    data = load_digits()
    patches = data.images.reshape(-1, 4, 2, 4, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 4)
    pixels, ids = np.unique(patches, axis=0, return_inverse=True)
    # word 0 is the class token: it alone has a 1 in front of its four pixels
    words = np.pad(pixels / 16, ((1, 0), (1, 0)))
    words[0, 0] = 1
    ids = np.pad(ids.reshape(len(data.images), -1) + 1, ((0, 0), (1, 0)))
    train, test, seen, held = train_test_split(
        ids, data.target, test_size=HELD_OUT, random_state=0, stratify=data.target
    )
    table = torch.tensor(words, dtype=torch.float32)
    return table, (torch.tensor(train), torch.tensor(seen)), (torch.tensor(test), held)


class _Patches(nn.Module):
    """Embeddings of all words as a linear map of their pixels."""

    def __init__(self, words: Float[Tensor, "words 5"], hidden: int) -> None:
        super().__init__()
        self.register_buffer("words", words)
        self.map = nn.Linear(words.shape[1], hidden)

    def forward(self, table: Float[Tensor, "words D"]) -> Float[Tensor, "words D"]:
        return self.map(self.words)


def _trained(
    words: Float[Tensor, "words 5"],
    images: Int[Tensor, "images tokens"],
    labels: Int[Tensor, " images"],
    epochs: int,
    seed: int,
) -> nn.Module:
    config = BertConfig(
        vocab_size=len(words),
        intermediate_size=4 * WIDTHS["hidden_size"],
        max_position_embeddings=images.shape[1],
        num_labels=10,
        type_vocab_size=1,
        pad_token_id=None,
        attention_probs_dropout_prob=0.0,
        **WIDTHS,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertForSequenceClassification(config)
        table = model.bert.embeddings.word_embeddings
        parametrize.register_parametrization(
            table, "weight", _Patches(words, config.hidden_size), unsafe=True
        )
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=LR)
        steps = epochs * math.ceil(len(images) / BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps)
        for _ in range(epochs):
            for rows in torch.randperm(len(images)).split(BATCH):
                optimizer.zero_grad()
                model(input_ids=images[rows], labels=labels[rows]).loss.backward()
                clip_grad_norm_(weights, 1.0)
                optimizer.step()
                schedule.step()
        parametrize.remove_parametrizations(table, "weight")
    model.config.pad_token_id = 0  # no image is padded; a compact model's config wants a number
    return model.eval()


def _batches(images: Int[Tensor, "images tokens"]) -> Iterator[dict[str, Tensor]]:
    for rows in images.split(BATCH):
        yield {"input_ids": rows, "attention_mask": torch.ones_like(rows)}


@torch.no_grad()
def _right(model: nn.Module, images: Int[Tensor, "images tokens"], truth: np.ndarray) -> np.ndarray:
    """Which images are named as they should be."""
    said = torch.cat([model(**batch).logits.argmax(-1) for batch in _batches(images)])
    return said.numpy() == truth


def _lead(above: Sequence[np.ndarray], below: Sequence[np.ndarray]) -> list[float]:
    """Mean accuracy of one less the other's, with its 95% interval; paired by seed and image."""
    differences = np.stack(above).astype(float) - np.stack(below)
    seeds, images = differences.shape
    value = float(differences.mean())
    half = stats.norm.ppf(0.975) * math.sqrt(differences.mean(0).var(ddof=1) / images)
    if seeds > 1:
        by_seed = stats.sem(differences.mean(1)) * stats.t.ppf(0.975, seeds - 1)
        half = math.hypot(half, by_seed)
    return [value, float(value - half), float(value + half)]
