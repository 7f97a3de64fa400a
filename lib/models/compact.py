"""How is a unit removed for good? By a smaller model that computes what the masked one does."""

from copy import deepcopy
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedConfig

from lib.errors import StudyError
from lib.models import encoder
from lib.models.compact_config import CompactConfig
from lib.models.compact_model import CompactForSequenceClassification, CompactModel
from lib.models.encoder import LayerShape, Shape
from lib.models.masks import Masks, left

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

    Every factor is folded into the weights exactly: a hidden dim's into the embeddings, into scale
    and shift of every LayerNorm and into rows and biases of what writes it, never into what reads
    it. A head without a value dimension goes as a whole, and so does a sublayer with a factor of
    0, LayerNorm included. Heads of one layer that keep unequal numbers of dimensions are filled up
    with zero rows to the widest. Raises a StudyError where the masks' widths are not the model's.
    """
    if model.config.model_type == "token-encoder":
        raise StudyError(
            "this model drops tokens, which would be lost: prune its units before that"
        )
    masks.check(model)
    source, state = encoder.shape(model), {}
    shape, stream = left(source, masks), _Stream.of(masks.hidden, encoder.stem(model).words)

    def put(prefix: str, tensors: dict[str, Tensor]) -> None:
        state.update({f"{prefix}.{name}": tensor.clone() for name, tensor in tensors.items()})

    stem = encoder.stem(model)
    for part in ("words", "positions", "types"):
        if (table := getattr(stem, part)) is not None:
            put(f"encoder.{part}", {"weight": stream.scaled(table.weight, 1)})
    put("encoder.norm", stream.norm(stem.norm))
    put("dense", {"weight": stream.read(stem.dense.weight), "bias": stem.dense.bias})
    put("classifier", dict(stem.classifier.named_parameters()))
    parts = zip(encoder.layers(model), encoder.biases(model), strict=True)
    for index, (layer, bias) in enumerate(parts):
        before, after = source.layers[index], shape.layers[index]
        heads, neurons, qk, vo = masks.layer(index, before)
        mha, ffn = (None if mask is None else mask[index] for mask in (masks.mha, masks.ffn))
        if after.mha:
            folded = _attention(layer, bias, before, stream, heads[:, None] * vo, qk, mha)
            put(f"encoder.layers.{index}", folded)
        if after.ffn:
            put(f"encoder.layers.{index}", _feed_forward(layer, stream, neurons, ffn))

    with torch.device("meta"):
        small = CompactForSequenceClassification(config(model.config, shape))
    small.load_state_dict(state, assign=True)
    return small.train(model.training)


def dense(model: nn.Module) -> CompactForSequenceClassification:
    """All of `model` in our own code: the dense baseline that a compact model is timed against."""
    return compact(model, Masks.dense(model))


def config(source: PreTrainedConfig, shape: Shape) -> CompactConfig:
    """The config of a compact model of this shape that descends from a model with `source`."""
    head = getattr(source, "head_size", None) or source.hidden_size
    widths = dict(
        hidden_size=shape.hidden,
        layers=shape.json()["layers"],
        head_size=None if head == shape.hidden else head,
    )
    if not isinstance(source, CompactConfig):
        return CompactConfig(**widths, **encoder.settings(source))
    small = deepcopy(source)
    for name, value in widths.items():
        setattr(small, name, value)
    return small


@dataclass(frozen=True)
class _Stream:
    """The dims of the residual stream that are left, and their factors: what is written to them is
    scaled, what reads them is not."""

    kept: Int[Tensor, " kept"]
    factors: Float[Tensor, " kept"]

    @classmethod
    def of(cls, hidden: Tensor | None, words: nn.Embedding) -> "_Stream":
        factors = words.weight.new_ones(words.embedding_dim) if hidden is None else hidden
        kept = factors.nonzero().flatten()
        return cls(kept, factors[kept].to(words.weight))

    def scaled(self, tensor: Tensor, dim: int = 0) -> Tensor:
        shape = [-1 if place == dim else 1 for place in range(tensor.dim())]
        return tensor.index_select(dim, self.kept) * self.factors.view(shape)

    def read(self, weight: Tensor) -> Tensor:
        return weight.index_select(1, self.kept)

    def norm(self, norm: nn.LayerNorm) -> dict[str, Tensor]:
        return {"weight": self.scaled(norm.weight), "bias": self.scaled(norm.bias)}

    def written(self, linear: nn.Linear, sublayer: Tensor | None) -> dict[str, Tensor]:
        """Weight and bias of the layer that writes a sublayer's result, times its factor."""
        scale = 1 if sublayer is None else sublayer.to(linear.weight)
        return {n: self.scaled(p) * scale for n, p in linear.named_parameters()}


def _attention(
    layer: encoder.Layer,
    bias: nn.Embedding | None,
    shape: LayerShape,
    stream: _Stream,
    vo: Float[Tensor, "heads vo"],
    qk: Float[Tensor, "heads qk"],
    factor: Float[Tensor, ""] | None,
) -> dict[str, Tensor]:
    """An attention sublayer's surviving weights with their factors folded in."""
    vo, qk = (x.to(layer.query.weight) for x in (vo, qk))
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
    for name, index, own in (
        ("query", qk_index, qk),
        ("key", qk_index, (qk != 0).to(qk)),
        ("value", vo_index, (vo != 0).to(vo)),
    ):
        linear = getattr(layer, name)
        weights[f"{name}.weight"] = stream.read(rows(linear.weight, index, own))
        weights[f"{name}.bias"] = rows(linear.bias[:, None], index, own).flatten()
    written = stream.written(layer.output, factor)
    weights["output.weight"] = rows(written["weight"].T, vo_index, vo).T.contiguous()
    weights["output.bias"] = written["bias"]
    if bias is not None:
        weights["bias.weight"] = bias.weight[:, alive]
    return weights | _named("attention_norm", stream.norm(layer.attention_norm))


def _feed_forward(
    layer: encoder.Layer,
    stream: _Stream,
    neurons: Float[Tensor, "neurons"],
    factor: Float[Tensor, ""] | None,
) -> dict[str, Tensor]:
    """A feed-forward sublayer's surviving weights with their factors folded in."""
    neurons = neurons.to(layer.up.weight)
    kept = neurons != 0
    written = stream.written(layer.down, factor)
    weights = {
        "up.weight": stream.read(layer.up.weight[kept]),
        "up.bias": layer.up.bias[kept],
        "down.weight": written["weight"][:, kept] * neurons[kept],
        "down.bias": written["bias"],
    }
    return weights | _named("ffn_norm", stream.norm(layer.ffn_norm))


def _named(module: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{module}.{name}": tensor for name, tensor in tensors.items()}


def _first_kept(factors: Float[Tensor, "heads width"]) -> tuple[Tensor, Tensor]:
    """Indices and factors (heads, kept): each head's survivors in order, then pruned ones."""
    kept = factors != 0
    widest = int(kept.sum(1).max()) if len(factors) else 0
    index = (~kept).long().argsort(dim=1, stable=True)[:, :widest]
    return index, factors.gather(1, index)
