"""How does a trained model decide who stays? One class a rule, each a Gate over the layers.

    rank        PoWER-BERT: so many tokens a layer, those with most attention; or random, or first
    threshold   LTP: whoever receives at least so much attention
    skim        Transkimmer: a predictor before each layer
    bins        ToP: ranks by attention fall into bins, some of which go

A gate may act before a layer, between its attention and its feed-forward part, or after it. The
soft gates of training (`lib/pruners`) have the same four hooks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.tokens.dropping import Keep, Walk, chance, column, ranks, weighed

Weigh = Callable[[Tensor], Tensor]


class Gate:
    """Keeps everything; `index` counts layers from 0, states x are (B, T, D)."""

    def before(self, index: int, x: Tensor, walk: Walk) -> Tensor:
        """The states that enter a layer."""
        return x

    def weigh(self, index: int, walk: Walk) -> Weigh | None:
        """What to do with a layer's attention probabilities; None leaves attention fused."""
        return None

    def between(self, index: int, x: Tensor, walk: Walk) -> Tensor:
        """The states between a layer's attention and its feed-forward part."""
        return x

    def after(self, index: int, x: Tensor, walk: Walk) -> Tensor:
        """The states that leave a layer."""
        return x


def watching(walk: Walk, diagonal: bool = True) -> Weigh:
    """Notes the attention that each token receives, and changes nothing."""

    def weigh(probabilities: Tensor) -> Tensor:
        walk.column = column(probabilities, walk.alive, diagonal)
        return probabilities

    return weigh


def first(scores: Tensor, walk: Walk, length: int) -> Keep:
    """Keep (B, T) of the `length` tokens with the highest scores (B, T), CLS always among them."""
    return ranks(scores, walk.alive) < length


def order(by: str, walk: Walk, seed: int) -> Tensor:
    """Scores (B, T): by "attention" just received, "random" or the "first" of the text highest."""
    if by == "attention":
        return walk.column
    return chance(walk.ids, walk.places, seed) if by == "random" else -walk.places.float()


@dataclass
class Rank(Gate):
    """Layer `index` leaves `lengths[index]` tokens over, before its feed-forward part."""

    by: str
    lengths: list[int]
    seed: int

    def _acts(self, index: int, walk: Walk) -> bool:
        return self.lengths[index] < int(walk.alive.sum(1).max())

    def weigh(self, index: int, walk: Walk) -> Weigh | None:
        if self.by == "attention" and self._acts(index, walk):
            return watching(walk, diagonal=False)
        return None

    def between(self, index: int, x: Tensor, walk: Walk) -> Tensor:
        if not self._acts(index, walk):
            return x
        return walk.cut(x, first(order(self.by, walk, self.seed), walk, self.lengths[index]))


@dataclass
class Threshold(Gate):
    """Whoever received less than its layer's threshold does not enter the next layer."""

    thresholds: list[float]
    forced: list[int] | None = None

    def weigh(self, index: int, walk: Walk) -> Weigh | None:
        return watching(walk) if index + 1 < len(self.thresholds) else None

    def after(self, index: int, x: Tensor, walk: Walk) -> Tensor:
        if index + 1 == len(self.thresholds):
            return x
        if self.forced:
            return walk.cut(x, first(walk.column, walk, self.forced[index + 1]))
        return walk.cut(x, walk.column >= self.thresholds[index])


@dataclass
class Skim(Gate):
    """Each layer's predictor says of every token whether it enters; `shift` tips the balance."""

    predictors: nn.ModuleList
    shift: float
    forced: list[int] | None = None

    def before(self, index: int, x: Tensor, walk: Walk) -> Tensor:
        skip, keep = self.predictors[index](x).unbind(-1)
        if self.forced:
            return walk.cut(x, first(keep - skip, walk, self.forced[index]))
        return walk.cut(x, keep - skip + self.shift > 0)


@dataclass
class Overlook(Skim):
    """Transkimmer as released: attention to a skimmed token is zeroed behind the softmax, which is
    not normalised again. What it computes no dropping can, so such a model drops nothing."""

    def before(self, index: int, x: Tensor, walk: Walk) -> Tensor:
        skip, keep = self.predictors[index](x).unbind(-1)
        stays = (keep - skip + self.shift > 0).to(x)
        stays[:, 0] = 1
        walk.weights = stays if walk.weights is None else walk.weights * stays
        return x

    def weigh(self, index: int, walk: Walk) -> Weigh | None:
        return lambda probabilities: weighed(probabilities, walk.weights, normalise=False)


@dataclass
class Bins(Gate):
    """Of n tokens besides CLS the one of rank r is in bin floor(r / n * bins) of its layer.

    The row of layer i decides who enters it, by the attention received in layer i - 1.
    """

    kept: list[list[int]]
    forced: list[int] | None = None

    def _acts(self, index: int) -> bool:
        return index < len(self.kept) and not all(self.kept[index])

    def weigh(self, index: int, walk: Walk) -> Weigh | None:
        return watching(walk) if self._acts(index + 1) else None

    def after(self, index: int, x: Tensor, walk: Walk) -> Tensor:
        if not self._acts(index + 1):
            return x
        if self.forced:
            return walk.cut(x, first(walk.column, walk, self.forced[index + 1]))
        row = torch.tensor(self.kept[index + 1], dtype=torch.bool, device=x.device)
        return walk.cut(x, row[bins(walk.column, walk.alive, len(row))])


def bins(received: Tensor, alive: Keep, count: int) -> Tensor:
    """The bin (B, T) of every token by the attention it received; CLS takes no rank."""
    others = (alive.sum(1, keepdim=True) - 1).clamp(min=1)
    rank = (ranks(received, alive) - 1).clamp(min=0)
    return (rank * count // others).clamp(max=count - 1)


def gate(tokens: dict, predictors: nn.ModuleList | None) -> Gate:
    """The rule of a config, ready to decide."""
    rule, forced = tokens["rule"], tokens.get("forced")
    if rule == "rank":
        return Rank(tokens["by"], forced or tokens["lengths"], tokens["seed"])
    if rule == "threshold":
        return Threshold(tokens["thresholds"], forced)
    if rule == "skim":
        kind = Skim if tokens["renormalise"] else Overlook
        return kind(predictors, tokens["shift"], forced)
    if rule == "bins":
        return Bins(tokens["kept"], forced)
    return Gate()
