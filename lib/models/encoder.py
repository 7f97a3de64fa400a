"""What is this part called in this architecture, and how large is it?

The only file that knows the parameter names of Hugging Face's BERT, DistilBERT, RoBERTa and MPNet.
Shape letters, here and everywhere: B batch, T tokens, L layers, H heads of a layer, F neurons of
a layer, D hidden size, d width of one head.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from operator import attrgetter
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from lib.errors import StudyError, unknown


@dataclass(frozen=True)
class LayerShape:
    """The widths of one layer, as its tensors have them.

    A sublayer of width 0 still adds its bias and passes its LayerNorm; an absent one (`mha` or
    `ffn` False) has no tensor at all and hands on what it is given.
    """

    heads: int
    qk: int  # of one head's query and key
    vo: int  # of one head's value, and of its slice of the output projection
    neurons: int
    mha: bool = True  # is there an attention sublayer?
    ffn: bool = True  # is there a feed-forward one?

    def __post_init__(self) -> None:
        if (not self.mha and self.heads) or (not self.ffn and self.neurons):
            raise StudyError(f"wanted an absent sublayer without heads or neurons, got {self}")

    def json(self) -> dict:
        """The widths; `mha` and `ffn` only where that sublayer is absent."""
        record = asdict(self)
        return {n: v for n, v in record.items() if n not in ("mha", "ffn") or not v}


@dataclass(frozen=True)
class Shape:
    """The widths of an encoder: enough to count its MACs and to build its random twin."""

    hidden: int
    layers: tuple[LayerShape, ...]

    def json(self) -> dict:
        """Plain lists and integers, for a record."""
        return {"hidden": self.hidden, "layers": [layer.json() for layer in self.layers]}

    @classmethod
    def from_json(cls, record: Mapping) -> "Shape":
        """Read what `json` wrote. Raises a StudyError where `record` is something else."""
        try:
            return cls(record["hidden"], tuple(LayerShape(**layer) for layer in record["layers"]))
        except (KeyError, TypeError) as error:
            raise StudyError(f"not the shape of an encoder ({error}): {record}") from None


@dataclass(frozen=True)
class Layer:
    """The live modules of one layer; None where their sublayer is absent."""

    query: nn.Linear | None  # (D, H * qk)
    key: nn.Linear | None  # (D, H * qk)
    value: nn.Linear | None  # (D, H * vo)
    output: nn.Linear | None  # (H * vo, D)
    attention_norm: nn.LayerNorm | None
    up: nn.Linear | None  # (D, F)
    down: nn.Linear | None  # (F, D)
    ffn_norm: nn.LayerNorm | None

    def modules(self) -> list[nn.Module]:
        """Those that are there."""
        parts = (getattr(self, field.name) for field in fields(self))
        return [module for module in parts if module is not None]


@dataclass(frozen=True)
class Stem:
    """The live modules before and behind the layers."""

    words: nn.Embedding
    positions: nn.Embedding
    types: nn.Embedding | None
    norm: nn.LayerNorm
    dense: nn.Linear  # BERT's pooler, or the first half of the classification head
    classifier: nn.Linear


@dataclass(frozen=True)
class Architecture:
    """Where one model type keeps its parts: paths by the field names of Layer and Stem."""

    layers: str  # in the base model
    layer: dict[str, str]  # in one layer
    stem: dict[str, str]  # in the classifier; a part that is missing here does not exist
    settings: Callable[[object], dict] | None = None  # its config's words in a CompactConfig's
    bias: str | None = None  # in the base model: MPNet's table of relative position biases


def _stem(base: str, dense: str, classifier: str, types: bool = True) -> dict[str, str]:
    parts = dict(words="word_embeddings", positions="position_embeddings", norm="LayerNorm")
    if types:
        parts["types"] = "token_type_embeddings"
    paths = {part: f"{base}.embeddings.{name}" for part, name in parts.items()}
    return paths | {"dense": dense, "classifier": classifier}


def _bert(config: object) -> dict:
    dropout, head = config.hidden_dropout_prob, getattr(config, "classifier_dropout", None)
    return dict(
        pad_token_id=config.pad_token_id,
        activation=config.hidden_act,
        norm_eps=config.layer_norm_eps,
        dropout=dropout,
        attention_dropout=config.attention_probs_dropout_prob,
        attention_output_dropout=dropout,
        head_dropout=dropout if head is None else head,
    )


def _roberta(config: object) -> dict:
    settings = _bert(config)
    return settings | dict(positions_skip_padding=True, head_input_dropout=settings["head_dropout"])


def _mpnet(config: object) -> dict:
    # its embeddings take 1 for padding, whatever the config says
    return _roberta(config) | dict(pad_token_id=1, relative_positions=True)


def _distilbert(config: object) -> dict:
    return dict(
        pad_token_id=config.pad_token_id,
        activation=config.activation,
        norm_eps=1e-12,
        head_activation="relu",
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
        attention_output_dropout=0.0,
        head_dropout=config.seq_classif_dropout,
    )


_BERT = dict(
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    ffn_norm="output.LayerNorm",
)
_MPNET = _BERT | dict(
    query="attention.attn.q",
    key="attention.attn.k",
    value="attention.attn.v",
    output="attention.attn.o",
    attention_norm="attention.LayerNorm",
)
_DISTILBERT = dict(
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    output="attention.out_lin",
    attention_norm="sa_layer_norm",
    up="ffn.lin1",
    down="ffn.lin2",
    ffn_norm="output_layer_norm",
)

ARCHITECTURES = {
    "bert": Architecture(
        "encoder.layer", _BERT, _stem("bert", "bert.pooler.dense", "classifier"), _bert
    ),
    "distilbert": Architecture(
        "transformer.layer",
        _DISTILBERT,
        _stem("distilbert", "pre_classifier", "classifier", types=False),
        _distilbert,
    ),
    "roberta": Architecture(
        "encoder.layer",
        _BERT,
        _stem("roberta", "classifier.dense", "classifier.out_proj"),
        _roberta,
    ),
    "mpnet": Architecture(
        "encoder.layer",
        _MPNET,
        _stem("mpnet", "classifier.dense", "classifier.out_proj", types=False),
        _mpnet,
        bias="encoder.relative_attention_bias",
    ),
    "compact-encoder": Architecture(
        "layers",
        {field.name: field.name for field in fields(Layer)},
        {part: f"encoder.{part}" for part in ("words", "positions", "types", "norm")}
        | {"dense": "dense", "classifier": "classifier"},
    ),
}
# the same modules; it only drops tokens on their way (lib.tokens)
ARCHITECTURES["token-encoder"] = ARCHITECTURES["compact-encoder"]
COMPACT = ("compact-encoder", "token-encoder")  # their configs hold the widths of every layer


def architecture(model: nn.Module) -> Architecture:
    """The row of the table that `model` belongs to, or a StudyError that names the rows."""
    return _row(getattr(getattr(model, "config", None), "model_type", type(model).__name__))


def _row(kind: str) -> Architecture:
    if kind not in ARCHITECTURES:
        raise unknown("architecture", kind, [it for it in ARCHITECTURES if it not in COMPACT])
    return ARCHITECTURES[kind]


def blocks(model: nn.Module) -> list[nn.Module]:
    """The whole layers, first to last: each takes and returns hidden states (B, T, D)."""
    return list(attrgetter(architecture(model).layers)(model.base_model))


def layers(model: nn.Module) -> list[Layer]:
    """The live modules of every layer, under the same names in every architecture."""
    paths = architecture(model).layer
    return [
        Layer(**{part: attrgetter(path)(block) for part, path in paths.items()})
        for block in blocks(model)
    ]


def stem(model: nn.Module) -> Stem:
    """The live modules of a classifier outside its layers."""
    paths = {"types": None} | architecture(model).stem
    try:
        return Stem(**{part: path and attrgetter(path)(model) for part, path in paths.items()})
    except AttributeError as error:
        came = type(model).__name__
        raise StudyError(f"wanted a model for sequence classification, got {came}") from error


def biases(model: nn.Module) -> list[nn.Embedding | None]:
    """Each layer's relative position table (32, H): all layers of MPNet share one."""
    if path := architecture(model).bias:
        return [attrgetter(path)(model.base_model)] * len(blocks(model))
    return [getattr(block, "bias", None) for block in blocks(model)]


def settings(config: object) -> dict:
    """What a Hugging Face model computes beyond its weights: the settings of a CompactConfig."""
    row = _row(config.model_type)
    return row.settings(config) | dict(
        head_dim=config.hidden_size // config.num_attention_heads,
        token_types=config.type_vocab_size if "types" in row.stem else 0,
        vocab_size=config.vocab_size,
        max_position_embeddings=config.max_position_embeddings,
        initializer_range=config.initializer_range,
        id2label=config.id2label,
        label2id=config.label2id,
        problem_type=config.problem_type,
    )


def shape(model: nn.Module) -> Shape:
    """The widths of every layer, of a Hugging Face classifier or of a compact one."""
    architecture(model)  # says so where it is none that we know
    config = model.config
    if config.model_type in COMPACT:
        return Shape.from_json({"hidden": config.hidden_size, "layers": config.layers})
    heads = config.num_attention_heads
    return Shape(
        config.hidden_size,
        tuple(
            LayerShape(
                heads,
                layer.query.out_features // heads,
                layer.value.out_features // heads,
                layer.up.out_features,
            )
            for layer in layers(model)
        ),
    )


def load(folder: Path | str, labels: tuple[str, ...] | None, seed: int = 0) -> nn.Module:
    """The classifier in `folder`, in float32 and in evaluation mode; `labels` None is regression.

    An encoder that has no classifier yet gets a random one, drawn from `seed`. One that was
    trained with a classifier must have been trained for these labels in this order. Raises a
    StudyError for that, for an unknown architecture and for weights that are missing or cut off.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification  # slow, so not above
    from transformers.utils import logging

    folder = Path(folder)
    config, weights = _read(folder)
    head = _row(config.get("model_type")).stem
    fresh = tuple(f"{head[part]}." for part in ("dense", "classifier"))
    if f"{head['classifier']}.weight" in weights:
        fresh = ()
        _check_labels(folder, AutoConfig.from_pretrained(folder), labels)

    names = labels or ("score",)
    told = dict(
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        problem_type="single_label_classification" if labels else "regression",
    )
    verbosity, progress = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model, report = AutoModelForSequenceClassification.from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True, local_files_only=True, **told
            )
    except RuntimeError as error:  # transformers' word for tensors of other widths
        raise StudyError(
            f"the weights in {folder} are not of the widths that its config.json says; "
            "copy the whole folder again"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        if progress:
            logging.enable_progress_bar()
    lost = sorted(name for name in report["missing_keys"] if not name.startswith(fresh))
    if lost:
        raise StudyError(f"{folder} lacks {len(lost)} of the model's weights, {lost[0]} first")
    return model.eval()


def _read(folder: Path) -> tuple[dict, set[str]]:
    """The config of a saved model and the names of its weights."""
    file = folder / "config.json"
    try:
        config = dict(json.loads(file.read_text()))
        file = folder / "model.safetensors.index.json"
        if file.exists():
            return config, set(json.loads(file.read_text())["weight_map"])
        file = folder / "model.safetensors"
        with safe_open(file, framework="pt") as tensors:
            return config, set(tensors.keys())
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise StudyError(f"cannot read {file}, which an encoder's folder needs: {error}") from None


def _check_labels(folder: Path, config: object, labels: tuple[str, ...] | None) -> None:
    has = tuple(config.id2label[index] for index in sorted(config.id2label))
    if labels is None and len(has) == 1:
        return
    if tuple(map(str.casefold, has)) != tuple(map(str.casefold, labels or ())):
        wanted = ", ".join(labels) if labels else "one number (regression)"
        raise StudyError(
            f"the classifier in {folder} was trained for {', '.join(has)}; wanted {wanted}, "
            "in this order: choose another checkpoint, or correct id2label in its config.json"
        )
