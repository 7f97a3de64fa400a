"""What does a compact model compute? What its source does, with widths of its own in every layer.

One encoder of our own stands for BERT, DistilBERT, RoBERTa and MPNet. Queries and keys may be
narrower than values, or the reverse; the softmax divides by the root of the dense head's width,
whatever is left of it. A sublayer of width 0 adds its bias to the residual and passes its
LayerNorm, as the masked model's does; an absent one costs nothing and changes nothing.
"""

import math
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput

from lib.errors import StudyError
from lib.models.compact_config import CompactConfig
from lib.models.encoder import LayerShape, Shape

WORKING_SET = 4 * 2**20  # bytes of hidden states that the caches of a processor may hold
BUCKETS, FARTHEST = 32, 128  # of MPNet's relative positions, whatever its config says


def _linear(inputs: int, outputs: int) -> nn.Linear:
    with warnings.catch_warnings():  # torch warns of a width of 0, which is what we mean
        warnings.filterwarnings("ignore", "Initializing zero-element")
        return nn.Linear(inputs, outputs)


def _residual(x: Tensor, change: Tensor) -> Tensor:
    """x + change, in the memory of `change` where no gradient asks for x: memory is what a small
    layer's time is spent on."""
    if torch.is_grad_enabled() or change.dtype != x.dtype:
        return x + change
    return change.add_(x)


class CompactLayer(nn.Module):
    """One post-norm transformer layer; its modules are named as `encoder.Layer` names them."""

    def __init__(self, config: CompactConfig, shape: LayerShape):
        super().__init__()
        hidden, self.shape = config.hidden_size, shape
        self.query = self.key = self.value = self.output = self.attention_norm = self.bias = None
        self.up = self.down = self.ffn_norm = None
        if shape.mha:
            self.query = _linear(hidden, shape.heads * shape.qk)
            self.key = _linear(hidden, shape.heads * shape.qk)
            self.value = _linear(hidden, shape.heads * shape.vo)
            self.output = _linear(shape.heads * shape.vo, hidden)
            self.attention_norm = nn.LayerNorm(hidden, eps=config.norm_eps)
            self.bias = nn.Embedding(BUCKETS, shape.heads) if config.relative_positions else None
        if shape.ffn:
            self.up = _linear(hidden, shape.neurons)
            self.down = _linear(shape.neurons, hidden)
            self.ffn_norm = nn.LayerNorm(hidden, eps=config.norm_eps)
        self.activation = ACT2FN[config.activation]
        self.scale = 1 / math.sqrt(config.head_dim)
        self.dropout = config.dropout
        self.attention_dropout = config.attention_dropout
        self.output_dropout = config.attention_output_dropout

    def forward(
        self,
        x: Float[Tensor, "batch tokens hidden"],
        mask: Bool[Tensor, "batch 1 1 tokens"] | None,
        buckets: Int[Tensor, "*batch tokens tokens"] | None,
        weigh: Callable[[Tensor], Tensor] | None = None,
        between: Callable[[Tensor], Tensor] | None = None,
    ) -> Float[Tensor, "batch left hidden"]:
        """Token pruning looks in here: `weigh` is handed the attention probabilities (B, H, T, T)
        and returns those to use, at the price of unfused attention; `between` is handed the states
        behind the attention's LayerNorm and returns those that go on, perhaps fewer.
        """
        if self.shape.mha:
            x = self.attend(x, mask, buckets, weigh)
        x = x if between is None else between(x)
        return self.feed(x) if self.shape.ffn else x

    def attend(
        self,
        x: Tensor,
        mask: Tensor | None,
        buckets: Tensor | None,
        weigh: Callable[[Tensor], Tensor] | None = None,
    ) -> Float[Tensor, "batch tokens hidden"]:
        """The attention sublayer, residual and LayerNorm included."""
        attended = self.output(self._context(x, mask, buckets, weigh))
        attended = F.dropout(attended, self.output_dropout, self.training)
        return self.attention_norm(_residual(x, attended))

    def feed(self, x: Tensor) -> Float[Tensor, "batch tokens hidden"]:
        """The feed-forward sublayer, residual and LayerNorm included."""
        neurons = self.down(self.activation(self.up(x)))
        return self.ffn_norm(_residual(x, F.dropout(neurons, self.dropout, self.training)))

    def _context(
        self,
        x: Tensor,
        mask: Tensor | None,
        buckets: Tensor | None,
        weigh: Callable[[Tensor], Tensor] | None = None,
    ) -> Float[Tensor, "batch tokens channels"]:
        heads, qk, vo = self.shape.heads, self.shape.qk, self.shape.vo
        if heads * vo == 0:
            return x[..., :0]
        # The fused kernels want one width for query, key and value: zeros fill up the narrower.
        # On a CPU unequal widths fall back to the unfused path, which in bfloat16 computes in
        # float32; costs counts what is executed, zeros included.
        width = max(qk, vo)

        def split(linear: nn.Linear, own: int) -> Tensor:
            states = linear(x).unflatten(-1, (heads, own)).transpose(1, 2)
            return states if own == width else F.pad(states, (0, width - own))

        if self.bias is not None:
            bias = self.bias(buckets).movedim(-1, -3)  # (heads, tokens, tokens), perhaps by text
            bias = bias if bias.dim() == 4 else bias[None]
            mask = bias if mask is None else torch.where(mask, bias, -math.inf)
        dropout = self.attention_dropout if self.training else 0.0
        if weigh is not None:
            scores = split(self.query, qk) @ split(self.key, qk).mT * self.scale
            if mask is not None:
                hard = mask.dtype == torch.bool
                scores = scores.masked_fill(~mask, -math.inf) if hard else scores + mask
            # in bfloat16 the attention that tokens receive would tie, and with it their ranks
            full = torch.promote_types(scores.dtype, torch.float32)
            probabilities = F.dropout(weigh(scores.softmax(-1, dtype=full)), dropout)
            context = probabilities.to(scores) @ split(self.value, vo)
            return context[..., :vo].transpose(1, 2).flatten(2)
        context = F.scaled_dot_product_attention(
            split(self.query, qk),
            split(self.key, qk),
            split(self.value, vo),
            attn_mask=mask,
            dropout_p=dropout,
            scale=self.scale,
        )
        return context[..., :vo].transpose(1, 2).flatten(2)


class CompactPreTrainedModel(PreTrainedModel):
    config_class = CompactConfig
    base_model_prefix = "encoder"
    _supports_sdpa = True


class CompactModel(CompactPreTrainedModel):
    """Embeddings and layers: token ids (B, T) to hidden states (B, T, D)."""

    _keys_to_ignore_on_load_unexpected = (r"^dense\.", r"^classifier\.")

    def __init__(self, config: CompactConfig):
        super().__init__(config)
        shape = Shape.from_json({"hidden": config.hidden_size, "layers": config.layers})
        if not shape.layers:
            raise StudyError("the config of a compact model lacks its layers; save the model anew")
        hidden, pad = config.hidden_size, config.pad_token_id
        self.words = nn.Embedding(config.vocab_size, hidden, padding_idx=pad)
        self.positions = nn.Embedding(
            config.max_position_embeddings,
            hidden,
            padding_idx=pad if config.positions_skip_padding else None,
        )
        self.types = nn.Embedding(config.token_types, hidden) if config.token_types else None
        self.norm = nn.LayerNorm(hidden, eps=config.norm_eps)
        self.layers = nn.ModuleList(CompactLayer(config, layer) for layer in shape.layers)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.words

    def forward(
        self,
        input_ids: Int[Tensor, "batch tokens"],
        attention_mask: Int[Tensor, "batch tokens"] | Bool[Tensor, "batch tokens"] | None = None,
        token_type_ids: Int[Tensor, "batch tokens"] | None = None,
        position_ids: Int[Tensor, "#batch tokens"] | None = None,
        output_hidden_states: bool | None = None,
    ) -> BaseModelOutput:
        """Encode token ids; `token_type_ids` are ignored where the source has no types.

        `hidden_states` of the output, where asked for, are the embeddings' and every layer's.
        """
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        size = len(input_ids) if output_hidden_states else self._at_once(input_ids)
        if size < len(input_ids):
            given = (input_ids, attention_mask, token_type_ids, position_ids)
            return BaseModelOutput(last_hidden_state=self._in_turn(size, *given))
        mask = None
        # without padding the attention takes its faster path, as transformers' own models do
        if attention_mask is not None and not attention_mask.all():
            mask = attention_mask[:, None, None, :].bool()
        x = self._embed(input_ids, token_type_ids, position_ids)
        buckets = relative_buckets(x.shape[1], x.device) if self.config.relative_positions else None
        states = [x]
        for layer in self.layers:
            states.append(layer(states[-1], mask, buckets))
        return BaseModelOutput(
            last_hidden_state=states[-1],
            hidden_states=tuple(states) if output_hidden_states else None,
        )

    def _at_once(self, input_ids: Tensor) -> int:
        """Texts of a batch that go through the layers together: on a processor, in evaluation and
        without gradients, as many as its caches hold. Hooks are always shown the whole batch."""
        if self.training or torch.is_grad_enabled() or input_ids.device.type != "cpu":
            return len(input_ids)
        text = input_ids.shape[1] * self.config.hidden_size * 4
        size = max(1, WORKING_SET // max(1, text))
        watched = size < len(input_ids) and any(
            module._forward_hooks or module._forward_pre_hooks for module in self.modules()
        )
        return len(input_ids) if watched else size

    def _in_turn(
        self, size: int, ids: Tensor, mask: Tensor | None, types: Tensor | None, at: Tensor | None
    ) -> Float[Tensor, "batch tokens hidden"]:
        """The last states of a batch, `size` texts after one another."""
        if at is not None:
            at = at.expand_as(ids)
        found = None
        for start in range(0, len(ids), size):
            rows = slice(start, start + size)
            given = (
                tensor if tensor is None else tensor[rows] for tensor in (ids, mask, types, at)
            )
            states = self(*given, output_hidden_states=False).last_hidden_state
            found = states.new_empty(len(ids), *states.shape[1:]) if found is None else found
            found[rows] = states
        return found

    def _embed(
        self, input_ids: Tensor, types: Tensor | None, positions: Tensor | None
    ) -> Float[Tensor, "batch tokens hidden"]:
        if positions is None and self.config.positions_skip_padding:
            pad = self.config.pad_token_id
            tokens = (input_ids != pad).long()
            positions = tokens.cumsum(1) * tokens + pad
        elif positions is None:
            positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        x = self.words(input_ids)
        if self.types is not None:
            x = x + self.types(torch.zeros_like(input_ids) if types is None else types)
        x = self.norm(x + self.positions(positions))
        return F.dropout(x, self.config.dropout, self.training)


def relative_buckets(tokens: int, device: torch.device) -> Int[Tensor, "tokens tokens"]:
    """MPNet's relative positions: each sign has 8 exact distances and 8 log-spaced up to 128."""
    position = torch.arange(tokens, device=device)
    offset = position[None, :] - position[:, None]  # key minus query
    half, exact = BUCKETS // 2, BUCKETS // 4
    far = torch.log(offset.abs().float() / exact) / math.log(FARTHEST / exact) * (half - exact)
    far = (exact + far.nan_to_num(neginf=0).long()).clamp(max=half - 1)
    return torch.where(offset.abs() < exact, offset.abs(), far) + half * (offset > 0)


class CompactForSequenceClassification(CompactPreTrainedModel):
    """The encoder and its source's classification head: token ids (B, T) to logits (B, labels)."""

    encoder_class = CompactModel

    def __init__(self, config: CompactConfig):
        super().__init__(config)
        self.encoder = self.encoder_class(config)
        width = config.head_size or config.hidden_size
        self.dense = nn.Linear(config.hidden_size, width)
        self.classifier = nn.Linear(width, config.num_labels)
        self.activation = ACT2FN[config.head_activation]
        self.post_init()

    def forward(
        self,
        input_ids: Int[Tensor, "batch tokens"],
        attention_mask: Int[Tensor, "batch tokens"] | Bool[Tensor, "batch tokens"] | None = None,
        token_type_ids: Int[Tensor, "batch tokens"] | None = None,
        labels: Tensor | None = None,
        position_ids: Int[Tensor, "#batch tokens"] | None = None,
        output_hidden_states: bool | None = None,
    ) -> SequenceClassifierOutput:
        """Classify; with `labels` (B,) also the loss: cross entropy, or for regression MSE."""
        states = self.encoder(
            input_ids, attention_mask, token_type_ids, position_ids, output_hidden_states
        )
        x = states.last_hidden_state[:, 0]
        x = F.dropout(x, self.config.head_input_dropout, self.training)
        x = F.dropout(self.activation(self.dense(x)), self.config.head_dropout, self.training)
        logits = self.classifier(x)
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=states.hidden_states
        )


AutoModel.register(CompactConfig, CompactModel, exist_ok=True)
AutoModelForSequenceClassification.register(
    CompactConfig, CompactForSequenceClassification, exist_ok=True
)
