"""What do the tests share? Tiny random classifiers of every architecture, and a padded batch.

lib is imported under jaxtyping and beartype here, so a tensor of a wrong shape fails a test.
"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread a worker: tiny models gain by no more

import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook("lib", "beartype.beartype")

from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    MPNetConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

VOCABULARY, PAD = 50, 1
CONFIGS = {
    "bert": lambda: BertConfig(
        hidden_size=24, num_hidden_layers=3, num_attention_heads=4, intermediate_size=40
    ),
    "distilbert": lambda: DistilBertConfig(dim=24, n_layers=2, n_heads=4, hidden_dim=40),
    "roberta": lambda: RobertaConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=30
    ),
    "mpnet": lambda: MPNetConfig(
        hidden_size=24, num_hidden_layers=3, num_attention_heads=4, intermediate_size=40
    ),
}


def tiny(kind: str, labels: int = 3) -> torch.nn.Module:
    """A random classifier in evaluation mode; no bias is 0 and no LayerNorm the identity."""
    config = CONFIGS[kind]()
    config.vocab_size, config.pad_token_id, config.max_position_embeddings = VOCABULARY, PAD, 40
    config.num_labels = labels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config)
        for name, parameter in model.named_parameters():
            scale = 0.3 if parameter.dim() == 1 else 0.2
            centre = 1.0 if name.endswith("norm.weight") or "LayerNorm.weight" in name else 0.0
            torch.nn.init.normal_(parameter, centre, scale)
    return model.eval()


@pytest.fixture(params=CONFIGS)
def model(request) -> torch.nn.Module:
    """One tiny classifier of each architecture in turn."""
    return tiny(request.param)


@pytest.fixture
def bert() -> torch.nn.Module:
    return tiny("bert")


@pytest.fixture
def make_classifier():
    """The function `tiny`, for a test that wants its own number of labels (1: regression)."""
    return tiny


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Five sequences of at most nine tokens, padded on the right, with labels of three classes."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([9, 4, 7, 9, 2])
    attention_mask = (torch.arange(9) < lengths[:, None]).long()
    input_ids = torch.randint(PAD + 1, VOCABULARY, (5, 9), generator=generator)
    return dict(
        input_ids=input_ids.masked_fill(attention_mask == 0, PAD),
        attention_mask=attention_mask,
        labels=torch.randint(3, (5,), generator=generator),
    )


@pytest.fixture
def digits() -> PreTrainedTokenizerFast:
    """A tokenizer of the words t0, t1, ...: their numbers are the token ids of tiny classifiers."""
    words = {"<pad>" if number == PAD else f"t{number}": number for number in range(VOCABULARY)}
    core = Tokenizer(models.WordLevel(words, unk_token="t0"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", unk_token="t0")
