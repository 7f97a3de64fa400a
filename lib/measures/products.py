"""How far are a pruned head's two matrix products from the dense ones?

Attention depends on a head's weights only through M = sum_i q_i k_i^T (its logits) and
N = sum_i o_i v_i^T (what it writes), so the error of M and N judges a method before any data does.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lib.models import encoder

Factor = Float[Tensor, "heads _ _"]  # one row a head dim


@torch.no_grad()
def error(dense: nn.Module, pruned: nn.Module) -> dict[str, float] | None:
    """Mean over all heads of ||M^ - M|| / ||M||, Frobenius, for "qk" (M) and "vo" (N).

    q_i carries its bias. b_K is left out, as the softmax never sees it, and b_V, which reaches
    every token alike and so may move into b_O, as in `svd`, and change nothing. None where a layer
    has lost whole heads or the model hidden dims: what is left no longer pairs with what was.
    """
    errors: dict[str, list[Tensor]] = {"qk": [], "vo": []}
    if encoder.shape(dense).hidden != encoder.shape(pruned).hidden:
        return None
    shapes = zip(encoder.shape(dense).layers, encoder.shape(pruned).layers, strict=True)
    layers = zip(encoder.layers(dense), encoder.layers(pruned), shapes, strict=True)
    for whole, left, (before, after) in layers:
        if before.heads != after.heads:
            return None
        for name, pair in (("qk", _qk), ("vo", _vo)):
            errors[name].append(_relative(pair(whole, before.heads), pair(left, after.heads)))
    return {name: round(float(torch.cat(parts).mean()), 5) for name, parts in errors.items()}


def _qk(layer: encoder.Layer, heads: int) -> tuple[Factor, Factor]:
    return _rows(layer.query, heads, bias=True), _rows(layer.key, heads, bias=False)


def _vo(layer: encoder.Layer, heads: int) -> tuple[Factor, Factor]:
    output = layer.output.weight.double().T.unflatten(0, (heads, -1))
    return output, _rows(layer.value, heads, bias=False)


def _rows(linear: nn.Linear, heads: int, bias: bool) -> Factor:
    rows = linear.weight.double()
    if bias:
        rows = torch.cat([rows, linear.bias.double()[:, None]], dim=1)
    return rows.unflatten(0, (heads, -1))


def _relative(whole: tuple[Factor, Factor], left: tuple[Factor, Factor]) -> Float[Tensor, " heads"]:
    """||A'^T B' - A^T B|| / ||A^T B|| of each head, from d x d cores alone."""
    a, b = torch.cat([whole[0], -left[0]], dim=1), torch.cat([whole[1], left[1]], dim=1)
    return (_square(a, b).clamp(min=0) / _square(*whole)).sqrt()


def _square(a: Factor, b: Factor) -> Float[Tensor, " heads"]:
    """||A^T B||^2 = <A A^T, B B^T>."""
    return ((a @ a.mT) * (b @ b.mT)).sum((1, 2))
