"""What does a token-pruned model compute? The compact encoder, on fewer tokens layer by layer."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForSequenceClassification
from transformers.modeling_outputs import BaseModelOutput

from lib.errors import StudyError
from lib.models import compact, encoder
from lib.models.compact_model import (
    CompactForSequenceClassification,
    CompactModel,
    relative_buckets,
)
from lib.tokens import rules
from lib.tokens.config import TokenConfig, check
from lib.tokens.dropping import Walk


@dataclass
class TokenOutput(BaseModelOutput):
    """`last_hidden_state` (B, left, D) of the survivors, CLS first; `survivors`, where asked for:
    (B, 2L, T), who takes part in the attention and in the feed-forward part of every layer."""

    survivors: Bool[Tensor, "batch parts tokens"] | None = None


class Predictor(nn.Sequential):
    """Transkimmer's: states (B, T, D) to two logits a token, to go and to stay.

    Born with the conviction that all stay.
    """

    def __init__(self, hidden: int):
        super().__init__(
            nn.LayerNorm(hidden),
            nn.Linear(hidden, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Linear(hidden, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        *inner, last = self
        for module in inner:
            x = module(x)
        # bfloat16 has few numbers near 5, where all logits begin: decisions would tie
        with torch.autocast(x.device.type, enabled=False):
            return last(x.to(last.weight.dtype))

    @torch.no_grad()
    def believe(self) -> None:
        """Begin with logits of -5 and 5: every token stays."""
        self[-1].bias.copy_(torch.tensor([-5.0, 5.0]))


class TokenModel(CompactModel):
    """Token ids (B, T) to the hidden states of the tokens that are left in the end."""

    config_class = TokenConfig

    def __init__(self, config: TokenConfig):
        super().__init__(config)
        check(config.tokens, len(config.layers))
        _check_scores(config)
        skims = config.tokens["rule"] == "skim"
        made = [Predictor(config.hidden_size) for _ in config.layers] if skims else None
        self.predictors = None if made is None else nn.ModuleList(made)
        self.masks = False  # hide tokens instead of dropping them
        self.gate: rules.Gate | None = None  # in place of the config's rule, see `gated`
        self.post_init()

    def forward(
        self,
        input_ids: Int[Tensor, "batch tokens"],
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_survivors: bool = False,
    ) -> TokenOutput:
        """Encode. Hidden states grow shorter from layer to layer where they are asked for.

        Raises a StudyError for texts beyond the maximum length and for padding on the left.
        """
        size, tokens = input_ids.shape
        _check_length(self.config, tokens)
        alive = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        alive = alive.bool()
        if not alive[:, 0].all():
            raise StudyError("wanted CLS in front of every text, got padding; pad on the right")
        gate = self.gate or rules.gate(self.config.tokens, self.predictors)
        places = torch.arange(tokens, device=input_ids.device).expand(size, tokens)
        walk = Walk(alive, places, input_ids, self.masks)
        x = self._embed(input_ids, token_type_ids, position_ids)
        table = relative_buckets(tokens, x.device) if self.config.relative_positions else None
        states = [x]
        for index, layer in enumerate(self.layers):
            states.append(_pass(index, layer, states[-1], walk, gate, table))
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        return TokenOutput(
            last_hidden_state=states[-1],
            hidden_states=tuple(states) if output_hidden_states else None,
            survivors=_survivors(walk, size, tokens) if output_survivors else None,
        )


def _pass(
    index: int, layer: nn.Module, x: Tensor, walk: Walk, gate: rules.Gate, table: Tensor | None
) -> Tensor:
    """One layer, with the gate's say before, within and after it."""

    def between(x: Tensor) -> Tensor:
        x = gate.between(index, x, walk)
        walk.note()
        return x

    x = gate.before(index, x, walk)
    walk.note()
    x = layer(x, walk.mask(), walk.buckets(table), gate.weigh(index, walk), between)
    return gate.after(index, x, walk)


def _survivors(walk: Walk, size: int, tokens: int) -> Bool[Tensor, "batch parts tokens"]:
    """Who took part in each piece of work, at its place in the text."""
    found = torch.zeros(size, len(walk.trail), tokens, dtype=torch.bool, device=walk.alive.device)
    for part, (places, alive) in enumerate(walk.trail):
        found[:, part].scatter_(1, places, alive)
    return found


def _check_length(config: TokenConfig, tokens: int) -> None:
    skipped = config.pad_token_id + 1 if config.positions_skip_padding else 0
    longest = config.max_position_embeddings - skipped
    if tokens > longest:
        raise StudyError(f"wanted texts of at most {longest} tokens, got {tokens}; truncate them")


def _check_scores(config: TokenConfig) -> None:
    """StudyError for a rule that goes by attention where a layer has none."""
    rule = config.tokens
    attention = rule["rule"] in ("threshold", "bins") or rule.get("by") == "attention"
    empty = [n for n, layer in enumerate(config.layers) if layer["heads"] * layer["vo"] == 0]
    if attention and empty:
        raise StudyError(
            f"the rule {rule['rule']} scores tokens by attention, but layer {empty[0]} has no "
            "heads left; prune tokens by a predictor, or keep a head in every layer"
        )


class TokenForSequenceClassification(CompactForSequenceClassification):
    """The compact classifier on a TokenModel: token ids (B, T) to logits (B, labels)."""

    config_class = TokenConfig
    encoder_class = TokenModel


def wrap(model: nn.Module, tokens: Mapping[str, Any]) -> TokenForSequenceClassification:
    """A copy of the classifier `model`, dense or compact, that drops tokens by the rule `tokens`.

    A model that drops tokens already changes its rule. A rule of predictors finds those of `model`,
    or new ones that keep every token. Raises a StudyError for a rule that does not fit.
    """
    encoder.architecture(model)  # of another one attention weights cannot be had
    small = model if isinstance(model, TokenForSequenceClassification) else compact.dense(model)
    settings = small.config.to_dict()
    for name in ("tokens", "model_type", "architectures", "transformers_version"):
        settings.pop(name, None)
    config = TokenConfig(tokens=dict(tokens), **settings)
    state = {name: tensor.detach().clone() for name, tensor in small.state_dict().items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = TokenForSequenceClassification(config)
    skims = made.encoder.predictors
    if skims is None:
        state = {n: t for n, t in state.items() if not n.startswith("encoder.predictors.")}
    elif not any(name.startswith("encoder.predictors.") for name in state):
        for predictor in skims:
            predictor.believe()
        like = next(small.parameters())
        own = skims.to(like).state_dict()
        state |= {f"encoder.predictors.{name}": tensor for name, tensor in own.items()}
    made.load_state_dict(state, assign=True)
    return made.train(model.training)


def ruled(model: TokenForSequenceClassification, **changes: Any) -> None:
    """Change what the rule of `model` says, in place; StudyError where it is no rule then."""
    rule = deepcopy(model.config.tokens) | changes
    check(rule, len(model.config.layers))
    model.config.tokens = model.encoder.config.tokens = rule


@contextmanager
def gated(model: TokenForSequenceClassification, gate: rules.Gate) -> Iterator[nn.Module]:
    """Let `gate` decide in place of the model's rule while the block runs."""
    before, model.encoder.gate = model.encoder.gate, gate
    try:
        yield model
    finally:
        model.encoder.gate = before


@contextmanager
def masked(model: TokenForSequenceClassification) -> Iterator[nn.Module]:
    """Hide what the rule drops, instead of dropping it, while the block runs."""
    before, model.encoder.masks = model.encoder.masks, True
    try:
        yield model
    finally:
        model.encoder.masks = before


AutoModel.register(TokenConfig, TokenModel, exist_ok=True)
AutoModelForSequenceClassification.register(
    TokenConfig, TokenForSequenceClassification, exist_ok=True
)
