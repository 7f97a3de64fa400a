"""Which units does a training keep? Gates that are open, closed or between, at random, and learn.

Learning Sparse Neural Networks through L0 Regularization (Louizos et al. 2018),
https://arxiv.org/abs/1712.01312, with the constants of CoFi's code. A gate has one number, alpha:
z = clip(1.2 s - 0.1, 0, 1), s = sigmoid((logit(u) + alpha) / beta), u uniform.
"""

import math
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lib.errors import StudyError
from lib.models.encoder import Shape
from lib.models.masks import Masks

BETA, LOW, HIGH, EPS = 2 / 3, -0.1, 1.1, 1e-6
SHIFT = BETA * math.log(-HIGH / LOW)  # P(z > 0) = sigmoid(alpha + SHIFT)
SOFT = 0.8  # a gate that stays has the factor sigmoid(SOFT alpha / beta)
OPEN, HALF = 10.0, 0.0  # where alpha starts: all but neurons, neurons
Units = Literal["fine", "layers", "hidden", "all"]


@dataclass(frozen=True)
class Gates:
    """alpha of every gate; None where that kind is not pruned."""

    heads: Float[Tensor, "layers heads"]
    neurons: Float[Tensor, "layers neurons"]
    mha: Float[Tensor, " layers"] | None = None
    ffn: Float[Tensor, " layers"] | None = None
    hidden: Float[Tensor, " hidden"] | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Those that are pruned, by name."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: alpha for name, alpha in found.items() if alpha is not None}

    def map(self, function) -> "Gates":
        """Gates with a function of every alpha in its place."""
        return Gates(**{name: function(alpha) for name, alpha in self.tensors().items()})


def start(shape: Shape, units: Units, generator: torch.Generator, spread: float = 0.01) -> Gates:
    """Fresh gates of a dense encoder: normal around OPEN, those of neurons around HALF.

    "fine" has heads and neurons alone; "layers" whole sublayers too, "hidden" hidden dims too.
    """
    if len(set(shape.layers)) != 1 or not (shape.layers[0].mha and shape.layers[0].ffn):
        raise StudyError("wanted a dense encoder, every layer of one shape; prune the teacher")
    count, layer = len(shape.layers), shape.layers[0]

    def normal(mean: float, *size: int) -> Tensor:
        return mean + spread * torch.randn(size, generator=generator)

    gates = Gates(normal(OPEN, count, layer.heads), normal(HALF, count, layer.neurons))
    if units in ("layers", "all"):
        gates = replace(gates, mha=normal(OPEN, count), ffn=normal(OPEN, count))
    if units in ("hidden", "all"):
        gates = replace(gates, hidden=normal(OPEN, shape.hidden))
    return gates


def sample(alpha: Float[Tensor, "*n"], generator: torch.Generator) -> Float[Tensor, "*n"]:
    """One draw of z, differentiable in alpha where it is neither 0 nor 1."""
    u = torch.rand(alpha.shape, generator=generator, dtype=alpha.dtype)
    u = (EPS + (1 - 2 * EPS) * u).to(alpha.device)
    s = torch.sigmoid((u.log() - (1 - u).log() + alpha) / BETA)
    return (LOW + (HIGH - LOW) * s).clamp(0, 1)


def probability(alpha: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """P(z > 0)."""
    return torch.sigmoid(alpha + SHIFT)


def settled(alpha: Float[Tensor, "*rows units"]) -> Float[Tensor, "*rows units"]:
    """The masks of a row of gates once nothing is random: of each row the n smallest are 0.

    n is the nearest whole number to how many are expected to be 0; the others stay soft.
    """
    factors, size = torch.sigmoid(SOFT * alpha / BETA), alpha.shape[-1]
    closed = (size - probability(alpha).sum(-1, keepdim=True)).round()
    place = alpha.argsort(dim=-1, stable=True).argsort(dim=-1)  # 0 is the smallest
    return torch.where(place < closed, 0.0, factors)


def settled_each(alpha: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The same of gates that stand alone: 0 where P(z > 0) is below a half."""
    return torch.where(probability(alpha) < 0.5, 0.0, torch.sigmoid(SOFT * alpha / BETA))


def sampled_masks(gates: Gates, dense: Masks, generator: torch.Generator) -> Masks:
    """One draw of all the masks."""
    drawn = {name: sample(alpha, generator) for name, alpha in gates.tensors().items()}
    return replace(dense, **drawn)


def settled_masks(gates: Gates, dense: Masks) -> Masks:
    """The masks that a training ends with."""
    found = {
        name: settled_each(alpha.detach()) if name in ("mha", "ffn") else settled(alpha.detach())
        for name, alpha in gates.tensors().items()
    }
    return replace(dense, **found)


def expected_sparsity(gates: Gates, shape: Shape) -> Float[Tensor, ""]:
    """1 - E[size] / size of the dense encoder, gates independent of each other.

    As CoFi counts: attention with its biases and the feed-forward part without in E[size], both
    with them in the dense size; LayerNorms in neither. So 0.0005 of BERT-base is gone from the
    outset.
    """
    layer, count, d = shape.layers[0], len(shape.layers), shape.hidden
    p = {name: probability(alpha) for name, alpha in gates.tensors().items()}
    hidden = p["hidden"].sum() if "hidden" in p else d
    heads, neurons = p["heads"].sum(-1), p["neurons"].sum(-1)
    if "mha" in p:
        heads, neurons = heads * p["mha"], neurons * p["ffn"]
    size = hidden * heads.sum() * 4 * (d + 1) / layer.heads + 2 * hidden * neurons.sum()
    whole = count * (4 * d * (d + 1) + 2 * d * layer.neurons + layer.neurons + d)
    return 1 - size / whole
