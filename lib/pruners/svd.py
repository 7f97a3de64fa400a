"""The approximation of one matrix by another of lower rank (Eckart, Young 1936), https://doi.org/10.1007/BF02288367

A head's products M = Q^T K and N = O V stay the same when its basis is rotated; the norms of its
dims do not. In the basis of the singular vectors the first m dims are the best rank m there is.
"""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lib.models import encoder
from lib.models.compact import compact
from lib.models.masks import Masks
from lib.pruners import Needs, validate
from lib.scoring import importance, search
from lib.scoring.importance import Batch


@dataclass(frozen=True)
class Pruner:
    """Rotate QK and VO of every head into their singular vectors, then keep the first m dims.

    Biases are exact: b_Q rotates with W_Q, b_K is dropped (softmax never sees it), b_V is folded
    into b_O. gamma: measure the error on the inputs as the LayerNorm before has them, normalised
    but not yet scaled and shifted. With unit "encoder" neurons go by norm product, as in magnitude:
    a rotation does not commute with GELU.
    """

    version: ClassVar[int] = 1
    units: ClassVar[tuple[str, ...]] = ("attention", "encoder")
    needs: ClassVar[Needs] = "nothing"
    compact: ClassVar[bool] = True
    stochastic: ClassVar[bool] = False

    unit: str = "attention"
    seed: int = 0
    gamma: bool = False

    def __post_init__(self) -> None:
        validate(self)

    def __call__(self, model: nn.Module, data: Iterable[Batch], budget: float) -> nn.Module:
        search.check(budget)
        model = rotate(model, self.gamma)
        dense = Masks.dense(model)
        kept = {part: _first(getattr(dense, part), budget) for part in ("qk", "vo")}
        if self.unit == "encoder":
            norms = importance.norms(model)
            kept["neurons"] = search.even(norms.up * norms.down, budget)
        return compact(model, search.masks(model, **kept))


def _first(ones: Float[Tensor, "L H d"], budget: float) -> Tensor:
    width = ones.shape[-1]
    return (torch.arange(width) < search.count(width, budget, "head dims")).expand_as(ones)


@torch.no_grad()
def rotate(model: nn.Module, gamma: bool = False) -> nn.Module:
    """A copy that computes the same, each head's dims in falling order of singular value.

    With `gamma` the singular values are those of the products in the normalised input, x^ in
    x = gamma * x^ + beta: W becomes W diag(gamma), its bias b + W beta.
    """
    model = deepcopy(model)
    norm = encoder.stem(model).norm
    for layer, shape in zip(encoder.layers(model), encoder.shape(model).layers, strict=True):
        scale, shift = (norm.weight, norm.bias) if gamma else (norm.weight * 0 + 1, norm.bias * 0)
        scale, shift = scale.double(), shift.double()

        def heads(linear: nn.Linear, scale=scale, shift=shift, count=shape.heads) -> tuple:
            weight, bias = linear.weight.double(), linear.bias.double()
            return tuple(
                part.unflatten(0, (count, -1)) for part in (weight * scale, bias + weight @ shift)
            )

        (q, q_bias), (k, _), (v, v_bias) = map(heads, (layer.query, layer.key, layer.value))
        o = layer.output.weight.double().unflatten(1, (shape.heads, -1)).permute(1, 0, 2)
        q, k = balanced(torch.cat([q, q_bias[..., None]], -1).mT, k)  # (H, D + 1, qk), (H, qk, D)
        constant = layer.output.bias.double() + torch.einsum("hdi,hi->d", o, v_bias)
        o, v = balanced(o, v)  # (H, D, vo), (H, vo, D)

        back = torch.where(scale == 0, 0.0, 1 / scale)  # x^ = (x - shift) / scale; 0 had no say
        q, q_bias = q[:, :-1].mT * back, q[:, -1]
        k, v = k * back, v * back
        layer.query.weight.copy_(q.flatten(0, 1))
        layer.query.bias.copy_((q_bias - q @ shift).flatten())
        layer.key.weight.copy_(k.flatten(0, 1))
        layer.key.bias.zero_()
        layer.value.weight.copy_(v.flatten(0, 1))
        layer.value.bias.copy_(-(v @ shift).flatten())
        layer.output.weight.copy_(o.permute(1, 0, 2).flatten(1))
        layer.output.bias.copy_(constant)
        norm = layer.ffn_norm
    return model


def balanced(
    left: Float[Tensor, "H n d"], right: Float[Tensor, "H d k"]
) -> tuple[Float[Tensor, "H n d"], Float[Tensor, "H d k"]]:
    """The factors U sqrt(S) and sqrt(S) V^T of left @ right, from the SVD of a d x d core."""
    left_basis, left_core = torch.linalg.qr(left)
    right_basis, right_core = torch.linalg.qr(right.mT)
    u, s, vt = torch.linalg.svd(left_core @ right_core.mT)
    root = s.sqrt()
    return left_basis @ (u * root[:, None]), (vt * root[..., None]) @ right_basis.mT
