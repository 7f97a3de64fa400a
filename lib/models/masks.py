"""How is a unit silenced? By a factor on what it computes: 0 prunes, anything else rescales."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from functools import partial

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lib.errors import StudyError
from lib.models import encoder
from lib.models.encoder import LayerShape, Shape


@dataclass(frozen=True)
class Masks:
    """One factor a unit; 0 prunes it, 1 keeps it as it is, anything else keeps and rescales it.

    Layers of unequal widths (a compact model's) share one tensor as wide as the widest: a factor
    beyond a layer's own width belongs to nothing, is 0 in `dense` and is ignored everywhere. The
    three coarse masks may be None: then all is kept.
    """

    heads: Float[Tensor, "layers heads"]  # times the head's context, before the output projection
    neurons: Float[Tensor, "layers neurons"]  # times the activation, before the down projection
    qk: Float[Tensor, "layers heads qk"]  # times the product q_i k_i, so a term of the logit
    vo: Float[Tensor, "layers heads vo"]  # times the context's dimension
    # A sublayer's result, bias included; at 0 its LayerNorm goes too: it hands on what it is given.
    mha: Float[Tensor, " layers"] | None = None
    ffn: Float[Tensor, " layers"] | None = None
    # A dim of the residual stream: the embeddings before and after their LayerNorm, a sublayer's
    # result and its LayerNorm's, whose mean and variance are of the dims that are left alone.
    hidden: Float[Tensor, " hidden"] | None = None

    @classmethod
    def dense(cls, model: nn.Module) -> "Masks":
        """All units kept, in the model's dtype and on its device; the coarse masks are None."""
        shapes = encoder.shape(model).layers
        heads, neurons, qk, vo = (
            max((getattr(layer, unit) for layer in shapes), default=0)
            for unit in ("heads", "neurons", "qk", "vo")
        )
        new = next(model.parameters()).new_zeros
        masks = cls(
            new(len(shapes), heads),
            new(len(shapes), neurons),
            new(len(shapes), heads, qk),
            new(len(shapes), heads, vo),
        )
        for index, layer in enumerate(shapes):
            for own in masks.layer(index, layer):
                own.fill_(1)
        return masks

    def layer(self, index: int, shape: LayerShape) -> tuple[Tensor, ...]:
        """Views of one layer's factors, cut to its widths: (H,), (F,), (H, qk), (H, vo)."""
        return (
            self.heads[index, : shape.heads],
            self.neurons[index, : shape.neurons],
            self.qk[index, : shape.heads, : shape.qk],
            self.vo[index, : shape.heads, : shape.vo],
        )

    def check(self, model: nn.Module) -> None:
        """Raise a StudyError unless these masks have the widths of `model`."""
        shape, dense = encoder.shape(model), Masks.dense(model)
        layers = (len(shape.layers),)
        coarse = {"mha": layers, "ffn": layers, "hidden": (shape.hidden,)}
        for name in (field.name for field in fields(self)):
            own = getattr(self, name)
            if own is None and name in coarse:
                continue
            came, wanted = tuple(own.shape), coarse.get(name) or tuple(getattr(dense, name).shape)
            if came != wanted:
                raise StudyError(
                    f"masks of another model: {name} is {came}, this model's is "
                    f"{wanted}; start from Masks.dense(model)"
                )
        if self.hidden is not None and not self.hidden.count_nonzero():
            raise StudyError("wanted at least one hidden dim to be kept, got masks that keep none")


def left(shape: Shape, masks: Masks) -> Shape:
    """The widths of what `masks` leave of an encoder of this shape; `compact` makes just that.

    A head without a value dim is gone; heads of a layer are as wide as the widest that is left.
    """
    count = len(shape.layers)
    mha, ffn = (
        [True] * count if mask is None else (mask != 0).tolist() for mask in (masks.mha, masks.ffn)
    )
    layers = []
    for index, layer in enumerate(shape.layers):
        heads, neurons, qk, vo = (part != 0 for part in masks.layer(index, layer))
        vo = vo & heads[:, None]
        alive = vo.any(1)
        own = {"heads": 0, "qk": 0, "vo": 0, "neurons": 0}
        own |= {"mha": layer.mha and mha[index], "ffn": layer.ffn and ffn[index]}
        if own["mha"]:
            own["heads"] = int(alive.sum())
            for name, part in (("qk", qk), ("vo", vo)):
                own[name] = int(part[alive].sum(1).max()) if own["heads"] else 0
        if own["ffn"]:
            own["neurons"] = int(neurons.sum())
        layers.append(LayerShape(**own))
    hidden = shape.hidden if masks.hidden is None else int(masks.hidden.count_nonzero())
    return Shape(hidden, tuple(layers))


@contextmanager
def applied(model: nn.Module, masks: Masks) -> Iterator[nn.Module]:
    """Multiply every unit by its factor while the block runs; differentiable in all the masks.

    Works on every architecture of `encoder`, the compact model included, whichever attention
    implementation it uses: the factors sit on the linear layers around the attention. A dead
    sublayer of a compact model is not computed at all. Raises a StudyError where the masks' widths
    are not the model's.
    """
    masks.check(model)
    with ExitStack() as stack:
        _fine(model, masks, stack)
        _coarse(model, masks, stack)
        yield model


def _fine(model: nn.Module, masks: Masks, stack: ExitStack) -> None:
    """Heads, their dims, neurons."""
    layers = zip(encoder.layers(model), encoder.shape(model).layers, strict=True)
    for index, (layer, shape) in enumerate(layers):
        heads, neurons, qk, vo = masks.layer(index, shape)
        if layer.query is not None:
            _scale_output(layer.query, qk.flatten(), stack)
            _scale_input(layer.output, (heads[:, None] * vo).flatten(), stack)
        if layer.down is not None:
            _scale_input(layer.down, neurons, stack)


def _coarse(model: nn.Module, masks: Masks, stack: ExitStack) -> None:
    """Whole sublayers, and the dims of the residual stream."""
    hidden, normed = masks.hidden, None
    if hidden is not None:
        normed = partial(_norm, hidden, int(hidden.count_nonzero()))
        norm = encoder.stem(model).norm
        _scale_input(norm, hidden, stack)
        _replace(norm, "forward", partial(normed, norm), stack)
    count = len(encoder.blocks(model))
    dead = [[False] * count if m is None else (m == 0).tolist() for m in (masks.mha, masks.ffn)]
    parts = zip(encoder.blocks(model), encoder.layers(model), strict=True)
    for index, (block, layer) in enumerate(parts):
        for place, mask, linear, norm, whole in (
            (0, masks.mha, layer.output, layer.attention_norm, "attend"),
            (1, masks.ffn, layer.down, layer.ffn_norm, "feed"),
        ):
            if linear is None:
                continue
            if dead[place][index] and hasattr(block, whole):  # our own layer: not even computed
                _replace(block, whole, lambda x, *_: x, stack)
                continue
            factors = [f for f in (mask if mask is None else mask[index], hidden) if f is not None]
            if factors:
                _scale_output(linear, math.prod(factors), stack)
            if dead[place][index]:  # the result is 0, so what reaches the norm is the residual
                _replace(norm, "forward", lambda x: x, stack)
            elif normed:
                _replace(norm, "forward", partial(normed, norm), stack)


def _norm(hidden: Tensor, kept: int, norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """LayerNorm over the `kept` dims that `hidden` leaves, times `hidden`; x is 0 elsewhere.

    With the other dims at the mean of these, the mean over all is the same and the variance
    kept / D of theirs, so that the fused kernel over all D does, rescaled.
    """
    width = len(hidden)
    weight, bias = norm.weight * hidden, norm.bias * hidden
    if kept < width:
        x = x + x.sum(-1, keepdim=True) / kept * (hidden == 0).to(x)
        weight = weight * math.sqrt(kept / width)
    return F.layer_norm(x, (width,), weight.to(x), bias.to(x), norm.eps * kept / width)


def _scale_output(module: nn.Module, factors: Tensor, stack: ExitStack) -> None:
    hook = module.register_forward_hook(lambda module, args, output: output * factors.to(output))
    stack.callback(hook.remove)


def _scale_input(module: nn.Module, factors: Tensor, stack: ExitStack) -> None:
    hook = module.register_forward_pre_hook(lambda module, args: (args[0] * factors.to(args[0]),))
    stack.callback(hook.remove)


def _replace(module: nn.Module, name: str, function: object, stack: ExitStack) -> None:
    """Another method for this one module; its class keeps its own."""
    object.__setattr__(module, name, function)
    stack.callback(object.__delattr__, module, name)
