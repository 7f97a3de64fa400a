"""What does a compact model's config.json say? Its widths, and how its source computed."""

from transformers import AutoConfig, PreTrainedConfig


class CompactConfig(PreTrainedConfig):
    """The widths of every layer, and all that its architecture computes beyond its weights.

    `layers` is the `layers` of `encoder.Shape.json`: heads, qk, vo and neurons of every layer, and
    which sublayers are absent.
    """

    model_type = "compact-encoder"

    def __init__(
        self,
        hidden_size: int = 768,  # dims that are left of the residual stream
        layers: list[dict] | None = None,
        head_size: int | None = None,  # of the classification head; None: as many as hidden_size
        head_dim: int = 64,  # of the dense model: the softmax divides by its root, pruned or not
        vocab_size: int = 30522,
        max_position_embeddings: int = 512,
        pad_token_id: int = 0,
        token_types: int = 0,  # rows of the token type embeddings; DistilBERT and MPNet have none
        positions_skip_padding: bool = False,  # RoBERTa, MPNet: a position counts tokens
        relative_positions: bool = False,  # MPNet: a table (32, heads) of biases in every layer
        activation: str = "gelu",
        norm_eps: float = 1e-12,
        head_activation: str = "tanh",
        dropout: float = 0.1,  # of the embeddings and of each sublayer's result
        attention_dropout: float = 0.1,  # of the attention probabilities
        attention_output_dropout: float = 0.1,  # DistilBERT has none
        head_input_dropout: float = 0.0,  # RoBERTa, MPNet
        head_dropout: float = 0.1,  # before the classifier
        initializer_range: float = 0.02,
        **kwargs: object,
    ):
        settings = dict(locals())
        for name in ("self", "kwargs", "__class__"):
            del settings[name]
        super().__init__(**kwargs)
        for name, value in settings.items():
            setattr(self, name, value)
        self.layers = layers or []


AutoConfig.register(CompactConfig.model_type, CompactConfig, exist_ok=True)
