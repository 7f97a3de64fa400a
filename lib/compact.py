"""How is a unit removed for good? By a smaller model that computes what the masked one does."""

from copy import deepcopy
from dataclasses import fields

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedConfig

from lib import encoder
from lib.compact_config import CompactConfig
from lib.compact_model import CompactForSequenceClassification, CompactModel
from lib.encoder import LayerShape, Shape
from lib.errors import StudyError
from lib.masks import Masks

__all__ = [
    "CompactConfig",
    "CompactForSequenceClassification",
    "CompactModel",
    "compact",
    "config",
    "dense",
]


@torch.no_grad()
def compact(model: nn.Module, masks: Masks) -> CompactForSequenceClassification:
    """A smaller copy of the classifier `model` that computes what it does under `masks`.

    Every factor is folded into the weights exactly; a head without a value dimension goes as a
    whole. Heads of one layer that keep unequal numbers of dimensions are filled up with zero
    rows to the widest. Raises a StudyError where the masks' widths are not the model's.
    """
    if model.config.model_type == "token-encoder":
        raise StudyError(
            "this model drops tokens, which would be lost: prune its units before that"
        )
    masks.check(model)
    state, shapes = {}, []

    def put(prefix: str, module: nn.Module | None) -> None:
        for name, tensor in () if module is None else module.named_parameters():
            state[f"{prefix}.{name}"] = tensor.clone()

    stem, source = encoder.stem(model), encoder.shape(model)
    for part in (field.name for field in fields(stem)):
        put(part if part in ("dense", "classifier") else f"encoder.{part}", getattr(stem, part))
    parts = zip(encoder.layers(model), encoder.biases(model), source.layers, strict=True)
    for index, (layer, bias, shape) in enumerate(parts):
        weights, kept = _fold(layer, bias, shape, *masks.layer(index, shape))
        put(f"encoder.layers.{index}.attention_norm", layer.attention_norm)
        put(f"encoder.layers.{index}.ffn_norm", layer.ffn_norm)
        state |= {f"encoder.layers.{index}.{name}": weight for name, weight in weights.items()}
        shapes.append(kept)

    with torch.device("meta"):
        small = CompactForSequenceClassification(
            config(model.config, Shape(source.hidden, tuple(shapes)))
        )
    small.load_state_dict(state, assign=True)
    return small.train(model.training)


def dense(model: nn.Module) -> CompactForSequenceClassification:
    """All of `model` in our own code: the dense baseline that a compact model is timed against."""
    return compact(model, Masks.dense(model))


def config(source: PreTrainedConfig, shape: Shape) -> CompactConfig:
    """The config of a compact model of this shape that descends from a model with `source`."""
    if isinstance(source, CompactConfig):
        small = deepcopy(source)
        small.hidden_size, small.layers = shape.hidden, shape.json()["layers"]
        return small
    return CompactConfig(
        hidden_size=shape.hidden, layers=shape.json()["layers"], **encoder.settings(source)
    )


def _fold(
    layer: encoder.Layer,
    bias: nn.Embedding | None,
    shape: LayerShape,
    heads: Float[Tensor, "heads"],
    neurons: Float[Tensor, "neurons"],
    qk: Float[Tensor, "heads qk"],
    vo: Float[Tensor, "heads vo"],
) -> tuple[dict[str, Tensor], LayerShape]:
    """One layer's surviving weights with their factors folded in, and its new widths."""
    vo, qk, neurons = (x.to(layer.up.weight) for x in (heads[:, None] * vo, qk, neurons))
    alive = (vo != 0).any(1)
    qk_index, qk = _first_kept(qk[alive])
    vo_index, vo = _first_kept(vo[alive])

    def rows(tensor: Tensor, index: Tensor, factor: Tensor) -> Tensor:
        """Of (heads * width, ...), the indexed rows of the living heads, each times its factor."""
        width = len(tensor) // max(shape.heads, 1)
        tensor = tensor.unflatten(0, (shape.heads, width))[alive]
        picked = tensor.take_along_dim(index[..., None], 1) * factor[..., None]
        return picked.flatten(0, 1)

    weights = {}
    for name, index, factor in (
        ("query", qk_index, qk),
        ("key", qk_index, (qk != 0).to(qk)),
        ("value", vo_index, (vo != 0).to(vo)),
    ):
        linear = getattr(layer, name)
        weights[f"{name}.weight"] = rows(linear.weight, index, factor)
        weights[f"{name}.bias"] = rows(linear.bias[:, None], index, factor).flatten()
    weights["output.weight"] = rows(layer.output.weight.T, vo_index, vo).T.contiguous()
    weights["output.bias"] = layer.output.bias.clone()

    kept = neurons != 0
    weights["up.weight"] = layer.up.weight[kept]
    weights["up.bias"] = layer.up.bias[kept]
    weights["down.weight"] = layer.down.weight[:, kept] * neurons[kept]
    weights["down.bias"] = layer.down.bias.clone()
    if bias is not None:
        weights["bias.weight"] = bias.weight[:, alive]
    shape = LayerShape(int(alive.sum()), qk.shape[1], vo.shape[1], int(kept.sum()))
    return weights, shape


def _first_kept(factors: Float[Tensor, "heads width"]) -> tuple[Tensor, Tensor]:
    """Indices and factors (heads, kept): each head's survivors in order, then pruned ones."""
    kept = factors != 0
    widest = int(kept.sum(1).max()) if len(factors) else 0
    index = (~kept).long().argsort(dim=1, stable=True)[:, :widest]
    return index, factors.gather(1, index)
