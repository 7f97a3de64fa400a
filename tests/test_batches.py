"""Do texts become the batches that training and evaluation count on?"""

from collections import Counter

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from lib.errors import StudyError
from lib.training import batches

WORDS = [f"w{number}" for number in range(50)]


def build(**options) -> PreTrainedTokenizerFast:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    core = Tokenizer(models.WordLevel({name: n for n, name in enumerate(names)}, "[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        **options,
    )


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return build(model_input_names=["input_ids", "token_type_ids", "attention_mask"])


def texts(count: int, longest: int = 30) -> Dataset:
    """The label is the row's number, so that a batch shows which rows it holds."""
    lengths = torch.randint(1, longest, (count,), generator=torch.Generator().manual_seed(7))
    rows = [" ".join(WORDS[:length]) for length in lengths.tolist()]
    return Dataset.from_dict({"text": rows, "label": list(range(count))})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_tokenize_pairs_and_cuts(tokenizer):
    data = Dataset.from_dict({"text": ["w0 w1"], "text_pair": ["w2 " * 20], "label": [1]})
    (row,) = batches.tokenize(data, tokenizer, 8)
    assert row["input_ids"] == [2, 4, 5, 3, 6, 6, 6, 3]
    assert row["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert (row["length"], row["label"]) == (8, 1)


def test_a_tokenizer_without_token_types_gets_none():
    plain = build(model_input_names=["input_ids", "attention_mask"])
    data = batches.tokenize(texts(4), plain, 16)
    assert data.column_names == ["input_ids", "label", "length"]
    (batch,) = batches.training(data, plain, 4, seeded())
    assert set(batch) == {"input_ids", "attention_mask", "labels"}


def test_a_batch_is_padded_to_its_own_longest_text(tokenizer):
    data = batches.tokenize(texts(3), tokenizer, 128)
    (batch,) = batches.training(data, tokenizer, 3, seeded())
    assert batch["input_ids"].shape[1] == max(data["length"])
    rows = zip(*map(batch.get, ("input_ids", "attention_mask", "labels")), strict=True)
    for ids, mask, label in rows:
        row = data[int(label)]
        assert mask.sum() == row["length"]
        assert ids[mask.bool()].tolist() == row["input_ids"]
        assert (ids[~mask.bool()] == tokenizer.pad_token_id).all()
    assert batch["token_type_ids"].shape == batch["input_ids"].shape


def test_padding_goes_to_the_tokenizers_side():
    left = build(padding_side="left")
    data = batches.tokenize(texts(8), left, 128)
    (batch,) = batches.training(data, left, 8, seeded())
    assert batch["attention_mask"][:, -1].all()


def test_one_pass_holds_every_row_once_and_little_padding(tokenizer):
    data = batches.tokenize(texts(500), tokenizer, 128)
    stream = list(batches.training(data, tokenizer, 16, seeded()))
    assert sorted(torch.cat([batch["labels"] for batch in stream]).tolist()) == list(range(500))
    padded = sum(batch["input_ids"].numel() for batch in stream)
    assert padded < 1.1 * sum(data["length"])  # unsorted it would be about 1.8
    widths = [batch["input_ids"].shape[1] for batch in stream]
    assert widths != sorted(widths)  # the batches themselves are shuffled


def test_the_generator_alone_decides(tokenizer):
    data = batches.tokenize(texts(100), tokenizer, 128)

    def order(seed: int) -> list[int]:
        return [n for b in batches.training(data, tokenizer, 8, seeded(seed)) for n in b["labels"]]

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_rows_meet_others_in_the_next_pass(tokenizer):
    alike = Dataset.from_dict({"text": ["w1 w2"] * 40, "label": list(range(40))})
    data = batches.tokenize(alike, tokenizer, 128)
    stream = list(batches.training(data, tokenizer, 8, seeded(), steps=10))
    passes = [{frozenset(b["labels"].tolist()) for b in stream[n : n + 5]} for n in (0, 5)]
    assert frozenset.union(*passes[0]) == frozenset.union(*passes[1]) == set(range(40))
    assert not passes[0] & passes[1]


@pytest.mark.parametrize("steps", [0, 1, 3, 7])
def test_steps_are_exact(tokenizer, steps):
    data = batches.tokenize(texts(20), tokenizer, 128)
    assert len(list(batches.training(data, tokenizer, 8, seeded(), steps=steps))) == steps


def test_no_rows_are_refused(tokenizer):
    data = batches.tokenize(texts(4), tokenizer, 128).select([])
    with pytest.raises(StudyError, match="no rows"):
        next(batches.training(data, tokenizer, 8, seeded(), steps=3))


def test_evaluation_holds_every_row_once_within_the_tokens(tokenizer):
    data = batches.tokenize(texts(300), tokenizer, 128)
    seen, widths = [], []
    for batch, rows in batches.evaluation(data, tokenizer, tokens=200):
        assert batch["input_ids"].numel() <= 200
        assert batch["labels"].tolist() == rows.tolist()
        seen += rows.tolist()
        widths.append(batch["input_ids"].shape[1])
    assert sorted(seen) == list(range(300))
    assert widths == sorted(widths, reverse=True)
    assert len(widths) < 1.3 * sum(data["length"]) / 200


def test_a_text_longer_than_the_tokens_is_a_batch_of_its_own(tokenizer):
    data = batches.tokenize(texts(5), tokenizer, 128)
    sizes = [len(rows) for _, rows in batches.evaluation(data, tokenizer, tokens=2)]
    assert sizes == [1] * 5


def test_regression_labels_stay_floats(tokenizer):
    data = Dataset.from_dict({"text": ["w1", "w2 w3"], "label": [0.5, 5.0]})
    (batch,) = batches.training(batches.tokenize(data, tokenizer, 16), tokenizer, 2, seeded())
    assert batch["labels"].dtype == torch.float32
    assert sorted(batch["labels"].tolist()) == [0.5, 5.0]


def test_rows_are_drawn_as_long_as_given_texts(tokenizer):
    data = batches.tokenize(texts(200), tokenizer, 40).filter(
        lambda row: row["length"] not in (9, 10, 11)
    )
    wanted = [5] * 3 + [10] + [25] * 6 + [90]
    found = batches.like(data, wanted, 2000, seeded())
    counts = Counter(found["length"])
    longest = max(data["length"])
    assert set(counts) == {5, 12, 25, longest}  # 12: the longer of the two nearest to 10
    for length, share in {5: 3, 12: 1, 25: 6, longest: 1}.items():
        assert counts[length] / 2000 == pytest.approx(share / len(wanted), abs=0.03)
    here, drawn = (
        {row for row, n in zip(d["label"], d["length"], strict=True) if n == 25}
        for d in (data, found)
    )
    assert drawn == here  # every row of a length has its chance
    assert (
        batches.like(data, wanted, 50, seeded()).to_dict()
        == batches.like(data, wanted, 50, seeded()).to_dict()
    )


@pytest.mark.parametrize(("rows", "lengths", "n"), [(0, [4], 3), (5, [], 3), (5, [4], 0)])
def test_lengths_without_rows_are_refused(tokenizer, rows, lengths, n):
    data = batches.tokenize(texts(5), tokenizer, 40).select(range(rows))
    with pytest.raises(StudyError, match="wanted rows as long as given texts"):
        batches.like(data, lengths, n, seeded())


def test_sample_is_without_replacement():
    data = texts(30)
    drawn = batches.sample(data, 20, seeded())["label"]
    assert len(set(drawn)) == 20
    assert list(drawn) == list(batches.sample(data, 20, seeded())["label"])
    assert list(drawn) != list(batches.sample(data, 20, seeded(1))["label"])
    assert sorted(batches.sample(data, 30, seeded())["label"]) == list(range(30))


@pytest.mark.parametrize("n", [0, -1, 31])
def test_a_sample_larger_than_the_data_is_refused(n):
    with pytest.raises(StudyError, match="has 30 rows"):
        batches.sample(texts(30), n, seeded())
