"""What is the encoder asked to do, on which texts, and how is the answer scored? One row a task."""

from dataclasses import dataclass

from lib.tasks.glue import COLA, SNLI, Glue
from lib.tasks.own import Own


@dataclass(frozen=True)
class Movies:
    """Rows of one source in the movie reviews' table, and how many of them are reported on."""

    rows: str
    dev: int


@dataclass(frozen=True)
class Task:
    """A row of TASKS: what is asked, how it is scored, and where its texts lie."""

    name: str
    title: str
    texts: tuple[str, ...]  # the columns of our data sets: "text", and "text_pair" for pairs
    labels: tuple[str, ...] | None  # names in id order; None: regression
    metric: str  # accuracy, matthews, f1 (with accuracy), pearson_spearman
    source: Glue | Movies | Own
    max_tokens: int = 128
    dev: tuple[str, ...] = ("dev",)  # the reported splits, the main one first


ONE, TWO = ("text",), ("text", "text_pair")
SENTIMENT = ("negative", "positive")
INFERENCE = ("entailment", "neutral", "contradiction")
ENTAILMENT = ("entailment", "not_entailment")
_TEXT = ("sentence", "label")
_PAIR = ("sentence1", "sentence2")
_PREMISE = ("premise", "hypothesis", "label")

_SNLI = Glue(
    "SNLI",
    (*_PAIR, "gold_label"),
    "plain_text",
    _PREMISE,
    repository=SNLI,
    files={"train": ("train.tsv", "train_100k.tsv"), "dev": ("dev.tsv",)},
    full_stop=False,
)
_MNLI = Glue(
    "MNLI",
    (*_PAIR, "gold_label"),
    "mnli",
    _PREMISE,
    files={
        "train": ("train.tsv", "train_sample.tsv"),
        "dev": ("dev_matched.tsv",),
        "dev_mismatched": ("dev_mismatched.tsv",),
    },
    hub_files={
        "train": "train",
        "dev": "validation_matched",
        "dev_mismatched": "validation_mismatched",
    },
    full_stop=False,
    substitute=_SNLI,
)
_COLA = Glue("CoLA", _TEXT, "cola", _TEXT, header=COLA)
_MRPC = Glue("MRPC", ("#1 String", "#2 String", "Quality"), "mrpc", (*_PAIR, "label"))
_STSB = Glue("STS-B", (*_PAIR, "score"), "stsb", (*_PAIR, "label"))
_QNLI = Glue("QNLI", ("question", "sentence", "label"), "qnli", ("question", "sentence", "label"))
_ASKED = ("question1", "question2")
_QQP = Glue("QQP", (*_ASKED, "is_duplicate"), "qqp", (*_ASKED, "label"), gaps=True)
_RTE = Glue("RTE", (*_PAIR, "label"), "rte", (*_PAIR, "label"))
_BOTH = ("dev", "dev_mismatched")

_ROWS = (
    Task("mr", "MR", ONE, SENTIMENT, "accuracy", Movies("rotten_tomatoes", 1000)),
    Task("imdb", "IMDb", ONE, SENTIMENT, "accuracy", Movies("imdb", 2500), max_tokens=512),
    Task("sst2", "SST-2", ONE, SENTIMENT, "accuracy", Glue("SST-2", _TEXT, "sst2", _TEXT)),
    Task("cola", "CoLA", ONE, ("unacceptable", "acceptable"), "matthews", _COLA),
    Task("mrpc", "MRPC", TWO, ("not_equivalent", "equivalent"), "f1", _MRPC),
    Task("stsb", "STS-B", TWO, None, "pearson_spearman", _STSB),
    Task("mnli", "MNLI", TWO, INFERENCE, "accuracy", _MNLI, dev=_BOTH),
    Task("snli", "SNLI", TWO, INFERENCE, "accuracy", _SNLI),
    Task("rte", "RTE", TWO, ENTAILMENT, "accuracy", _RTE),
    Task("qnli", "QNLI", TWO, ENTAILMENT, "accuracy", _QNLI),
    Task("qqp", "QQP", TWO, ("not_duplicate", "duplicate"), "f1", _QQP),
)
TASKS: dict[str, Task] = {row.name: row for row in _ROWS}
