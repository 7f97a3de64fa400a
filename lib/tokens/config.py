"""What does a token-pruned model's config.json say? All of a compact model's, and its rule."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from transformers import AutoConfig

from lib.errors import StudyError, unknown
from lib.models.compact_config import CompactConfig

FIELDS = {  # of a rule: what it must say besides its name
    "none": (),
    "rank": ("by", "lengths", "seed"),
    "threshold": ("thresholds",),
    "skim": ("shift", "renormalise"),
    "bins": ("kept",),
}
ORDERS = ("attention", "random", "first")


class TokenConfig(CompactConfig):
    """A compact model's config with `tokens`: {"rule": name, ...}, see `lib.tokens.rules`.

    `forced`, where given, is how many tokens the rule leaves over in each layer whatever it would
    decide: the shape of a trained model's work without its weights, for timings.
    """

    model_type = "token-encoder"

    def __init__(self, tokens: dict | None = None, **kwargs: object):
        super().__init__(**kwargs)
        self.tokens = dict(tokens or {"rule": "none"})


def check(tokens: Mapping[str, Any], layers: int) -> None:
    """StudyError unless `tokens` is a rule for that many layers."""
    rule = tokens.get("rule")
    if rule not in FIELDS:
        raise unknown("rule of token pruning", rule, FIELDS)
    wanted = {"rule", *FIELDS[rule]}
    if not wanted <= set(tokens) <= wanted | {"forced"}:
        raise StudyError(f"the rule {rule} wants {sorted(wanted)}, got {sorted(tokens)}")
    if rule == "rank":
        if tokens["by"] not in ORDERS:
            raise unknown("order of tokens", tokens["by"], ORDERS)
        schedule(tokens["lengths"], layers)
    if rule == "threshold":
        _numbers("thresholds", tokens["thresholds"], layers)
    if rule == "bins":
        kept = tokens["kept"]
        if len(kept) != layers or any(not set(row) <= {0, 1} for row in kept):
            raise StudyError(f"wanted {layers} rows of bins, each 0 or 1; got {kept}")
    if "forced" in tokens:
        schedule(tokens["forced"], layers)


def schedule(lengths: list[int], layers: int) -> None:
    """StudyError unless these are lengths that shrink from layer to layer and leave CLS alive."""
    _numbers("lengths", lengths, layers)
    if min(lengths) < 1 or any(after > before for before, after in pairwise(lengths)):
        raise StudyError(
            "a retention schedule may neither grow nor empty a layer (CLS stays): wanted "
            f"{layers} lengths that fall to 1 at least, got {list(lengths)}"
        )


def _numbers(what: str, values: object, layers: int) -> None:
    if not isinstance(values, list | tuple) or len(values) != layers:
        raise StudyError(f"wanted {what}, one for each of {layers} layers; got {values!r}")


AutoConfig.register(TokenConfig.model_type, TokenConfig, exist_ok=True)
