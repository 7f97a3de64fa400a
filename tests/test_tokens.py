"""Tokens dropped for real: masked equals dropped, padding and batch mates do not matter."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from lib.errors import StudyError
from lib.measures import costs
from lib.models import encoder
from lib.models.compact import compact
from lib.models.masks import Masks
from lib.tokens import dropping
from lib.tokens.costs import dense_macs, executed_macs, fraction, ranked, survivors
from lib.tokens.model import gated, masked, ruled, wrap
from lib.tokens.rules import Gate, watching


def rule(kind: str, layers: int) -> dict:
    """A rule that drops something of nearly every text of at most nine tokens."""
    lengths = [max(1, 6 - 2 * n) for n in range(layers)]
    kept = [[1] * 5 if n == 0 else [1, 0, 1, 1, 0] for n in range(layers)]
    return {
        "rank": {"rule": "rank", "by": "attention", "lengths": lengths, "seed": 0},
        "random": {"rule": "rank", "by": "random", "lengths": lengths, "seed": 0},
        "first": {"rule": "rank", "by": "first", "lengths": lengths, "seed": 0},
        "threshold": {"rule": "threshold", "thresholds": [0.13] * layers},
        "skim": {"rule": "skim", "shift": 0.0, "renormalise": True},
        "bins": {"rule": "bins", "kept": kept},
    }[kind]


KINDS = ("rank", "random", "first", "threshold", "skim", "bins")


def cutting(model, kind):
    """A model of that rule whose predictors, where it has some, are undecided."""
    made = wrap(model, rule(kind, len(encoder.blocks(model))))
    if kind == "skim":
        generator = torch.Generator().manual_seed(3)
        for parameter in made.encoder.predictors.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data = 0.5 * noise.to(parameter)
    return made


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def inputs(batch):
    return {name: tensor for name, tensor in batch.items() if name != "labels"}


def alive(model, inputs):
    return model.encoder(**inputs, output_survivors=True).survivors


def test_masked_and_dropped_logits_are_equal(model, inputs, kind):
    made = cutting(model.double(), kind)
    with masked(made):
        hidden, hides = made(**inputs).logits, alive(made, inputs)
    dropped = made(**inputs).logits
    torch.testing.assert_close(dropped, hidden, rtol=0, atol=1e-10)
    survivors = alive(made, inputs)
    assert torch.equal(survivors, hides)
    assert survivors[:, -1].sum() < inputs["attention_mask"].sum()
    assert not torch.allclose(dropped, model(**inputs).logits)


def test_tensors_are_shorter_from_the_layer_on_that_cuts(bert, inputs):
    made = cutting(bert, "rank")
    states = made.encoder(**inputs, output_hidden_states=True).hidden_states
    assert [state.shape[1] for state in states] == [9, 6, 4, 2]
    assert alive(made, inputs).sum(-1)[0].tolist() == [9, 6, 6, 4, 4, 2]


def test_all_kept_is_the_dense_model(model, inputs):
    layers = len(encoder.blocks(model))
    model = model.double()
    wanted = model(**inputs).logits
    keep = [
        {"rule": "none"},
        {"rule": "rank", "by": "attention", "lengths": [9] * layers, "seed": 0},
        {"rule": "threshold", "thresholds": [0.0] * layers},
        {"rule": "skim", "shift": 0.0, "renormalise": True},
        {"rule": "bins", "kept": [[1, 1]] * layers},
    ]
    for how in keep:
        made = wrap(model, how)
        torch.testing.assert_close(made(**inputs).logits, wanted, rtol=0, atol=1e-10)
        watched = gated(made, Watching())
        with watched:
            torch.testing.assert_close(made(**inputs).logits, wanted, rtol=0, atol=1e-10)


class Watching(Gate):
    """Looks at attention in every layer, so that none is fused."""

    def weigh(self, index, walk):
        return watching(walk)


def test_neither_padding_nor_batch_mates_matter(model, inputs, kind):
    made = cutting(model.double(), kind)
    together, survivors = made(**inputs).logits, alive(made, inputs)
    for row, length in enumerate(inputs["attention_mask"].sum(1).tolist()):
        alone = {name: tensor[row : row + 1, :length] for name, tensor in inputs.items()}
        torch.testing.assert_close(made(**alone).logits[0], together[row], rtol=0, atol=1e-10)
        assert torch.equal(alive(made, alone)[0], survivors[row, :, :length])
    pad = made.config.pad_token_id
    filled = [(name, pad if name == "input_ids" else 0) for name in inputs]
    longer = {n: torch.nn.functional.pad(inputs[n], (0, 5), value=v) for n, v in filled}
    torch.testing.assert_close(made(**longer).logits, together, rtol=0, atol=1e-10)
    assert not alive(made, longer)[:, :, 9:].any()


def test_padding_is_never_kept_and_cls_always_is(bert, inputs, kind):
    made = cutting(bert, kind)
    survivors = alive(made, inputs)
    assert survivors[:, :, 0].all()
    assert not (survivors & ~inputs["attention_mask"].bool()[:, None]).any()
    parts = survivors.int()
    assert (parts[:, 1:] <= parts[:, :-1]).all()  # who went never returns


@pytest.mark.parametrize(
    "harsh",
    [
        {"rule": "rank", "by": "attention", "lengths": [1, 1, 1], "seed": 0},
        {"rule": "threshold", "thresholds": [2.0] * 3},
        {"rule": "skim", "shift": -1e4, "renormalise": True},
        {"rule": "bins", "kept": [[0, 0]] * 3},
    ],
)
def test_the_harshest_rule_leaves_cls(bert, inputs, harsh):
    made = wrap(bert, harsh)
    assert made(**inputs).logits.isfinite().all()
    assert (alive(made, inputs)[:, -1].sum(-1) == 1).all()


def test_a_text_of_one_token_and_a_batch_of_one_pass(model, inputs, kind):
    made, whole = cutting(model.double(), kind), model.double()
    one = {name: tensor[:1, :1] for name, tensor in inputs.items()}
    torch.testing.assert_close(made(**one).logits, whole(**one).logits, rtol=0, atol=1e-10)
    first = {name: tensor[:1] for name, tensor in inputs.items()}
    torch.testing.assert_close(made(**first).logits, made(**inputs).logits[:1], rtol=0, atol=1e-10)


def test_texts_beyond_the_maximum_length_are_refused_in_one_line(model):
    made = cutting(model, "rank")
    longest = 40 if not made.config.positions_skip_padding else 38
    made(torch.full((1, longest), 5))
    with pytest.raises(StudyError, match=f"at most {longest} tokens, got {longest + 1}; truncate"):
        made(torch.full((1, longest + 1), 5))


def test_padding_in_front_is_refused(bert, inputs):
    flipped = {name: tensor.flip(1) for name, tensor in inputs.items()}
    with pytest.raises(StudyError, match="pad on the right"):
        cutting(bert, "rank")(**flipped)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"lengths": [4, 5, 3]}, "may neither grow nor empty a layer"),
        ({"lengths": [4, 2, 0]}, "may neither grow nor empty a layer"),
        ({"lengths": [4, 2]}, "one for each of 3 layers"),
        ({"by": "last"}, "unknown order of tokens 'last'"),
        ({"rule": "rang"}, "unknown rule of token pruning 'rang'; did you mean rank"),
        ({"more": 1}, "the rule rank wants"),
    ],
)
def test_schedules_and_rules_that_are_none_are_refused(bert, change, line):
    with pytest.raises(StudyError, match=line) as refusal:
        wrap(bert, rule("rank", 3) | change)
    assert "\n" not in str(refusal.value)


def test_an_encoder_without_attention_weights_is_refused(bert):
    masks = Masks.dense(bert)
    masks.heads[1] = 0
    small = compact(bert, masks)
    with pytest.raises(StudyError, match="scores tokens by attention, but layer 1 has no heads"):
        wrap(small, rule("threshold", 3))
    assert wrap(small, rule("skim", 3)) is not None  # a predictor needs none
    with pytest.raises(StudyError, match="unknown architecture"):
        wrap(torch.nn.Linear(2, 2), rule("rank", 3))


def test_it_is_saved_and_loaded_whole(bert, inputs, kind, tmp_path):
    made = cutting(bert, kind)
    made.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert type(again) is type(made)
    assert again.config.tokens == made.config.tokens
    assert AutoConfig.from_pretrained(tmp_path).model_type == "token-encoder"
    torch.testing.assert_close(again(**inputs).logits, made(**inputs).logits, rtol=0, atol=0)


def test_auto_classes_know_it_after_import_lib(bert, tmp_path):
    cutting(bert, "rank").save_pretrained(tmp_path)
    program = (
        "import lib\nfrom transformers import AutoModel, AutoModelForSequenceClassification as C\n"
        f"print(type(C.from_pretrained({str(tmp_path)!r})).__name__)\n"
        f"print(type(AutoModel.from_pretrained({str(tmp_path)!r})).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["TokenForSequenceClassification", "TokenModel"], done.stderr


def test_it_works_on_top_of_a_compact_model(bert, inputs):
    masks = Masks.dense(bert)
    masks.heads[0, :2] = 0
    masks.neurons[:, ::2] = 0
    made = wrap(compact(bert.double(), masks), rule("rank", 3))
    with masked(made):
        hidden = made(**inputs).logits
    torch.testing.assert_close(made(**inputs).logits, hidden, rtol=0, atol=1e-10)
    assert encoder.shape(made).layers[0].heads == 2
    with pytest.raises(StudyError, match="prune its units before"):
        compact(made, Masks.dense(made))


def test_significance_is_attention_received_without_a_tokens_own():
    p = torch.rand(2, 3, 4, 4).softmax(-1)
    valid = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    found = dropping.column(p, valid, diagonal=False)
    for b, k in ((0, 2), (1, 1)):
        rows = [q for q in range(4) if valid[b, q] and q != k]
        by_hand = sum(p[b, h, q, k] for h in range(3) for q in rows) / 3 / valid[b].sum()
        torch.testing.assert_close(found[b, k], by_hand)


def test_attention_that_is_watched_is_not_rounded_under_autocast(bert):
    """Bfloat16 has 256 numbers between 1/2 and 1: so 38 tokens would tie"""
    torch.manual_seed(0)
    ids, seen = torch.randint(2, 50, (4, 38)), []

    class Look(Watching):
        def after(self, index, x, walk):
            seen.append(walk.column)
            return x

    with gated(wrap(bert, {"rule": "none"}), Look()) as made:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            made(input_ids=ids)
    for column in seen:
        assert column.dtype == torch.float32
        assert all(row.unique().numel() > 36 for row in column)


def test_ranks_put_cls_first_and_padding_last():
    scores = torch.tensor([[0.0, 3.0, 1.0, 3.0, 9.0]])
    valid = torch.tensor([[True, True, True, True, False]])
    assert dropping.ranks(scores, valid).tolist() == [[0, 1, 3, 2, 4]]


def test_chance_is_even_and_follows_the_seed():
    ids = torch.randint(50, (200, 40), generator=torch.Generator().manual_seed(0))
    places = torch.arange(40).expand(200, 40)
    drawn, other = (dropping.chance(ids, places, seed) for seed in (0, 1))
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert torch.histc(drawn.float(), 4, 0, 1).max() / drawn.numel() < 0.27
    both = torch.stack([drawn.flatten(), other.flatten()])
    assert abs(torch.corrcoef(both)[0, 1]) < 0.03


def test_formula_and_executed_macs_are_equal(model, inputs, kind):
    made = cutting(model, kind)
    shape = encoder.shape(made)
    for row in range(5):
        length = int(inputs["attention_mask"][row].sum())
        one = {name: tensor[row : row + 1, :length] for name, tensor in inputs.items()}
        lengths = alive(made, one).sum(-1).numpy()
        texts = one["attention_mask"].sum(1).numpy()
        macs = executed_macs(shape, lengths, texts if kind == "skim" else None)
        assert macs.tolist() == [costs.count_macs(made, one)]


@pytest.mark.parametrize("ranking", ["rank", "random", "first"])
def test_what_a_schedule_leaves_is_known_without_reading(model, inputs, ranking):
    made = cutting(model, ranking)
    [read] = survivors(made, [inputs])
    texts = inputs["attention_mask"].sum(1).numpy()
    told = ranked(texts, made.config.tokens["lengths"])
    assert told.tolist() == read.sum(-1).tolist()
    found, mean = fraction(made, [inputs])
    macs = executed_macs(encoder.shape(made), read.sum(-1).numpy())
    assert found == macs.sum() / dense_macs(encoder.shape(made), texts).sum()
    assert mean.tolist() == read.sum(-1).double().mean(0).tolist()
    forced = wrap(model, made.config.tokens | {"forced": [2] * len(made.config.layers)})
    assert fraction(forced, [inputs])[1][1:].max() <= 2


def test_a_model_that_keeps_all_costs_what_the_dense_one_does(bert):
    shape = encoder.shape(bert)
    lengths = np.array([3, 9])
    found = dense_macs(shape, lengths)
    assert found.tolist() == [costs.encoder_macs(shape, n) for n in (3, 9)]


def test_forced_lengths_decide_whatever_the_weights(bert, inputs, kind):
    made = cutting(bert, kind)
    whole = {name: tensor[:1] for name, tensor in inputs.items()}
    ruled(made, forced=[7, 5, 2])
    found = alive(made, whole).sum(-1)[0].tolist()
    if kind in ("rank", "random", "first"):
        assert found == [9, 7, 7, 5, 5, 2]
    elif kind == "skim":
        assert found == [7, 7, 5, 5, 2, 2]
    else:
        assert found == [9, 9, 5, 5, 2, 2]


def test_layers_after_a_cut_do_not_see_what_is_gone(bert, inputs):
    """Brute force: a short text run by hand through layers of our own code."""
    made = cutting(bert.double(), "first")
    one = {name: tensor[:1] for name, tensor in inputs.items()}
    inner = made.encoder
    x = inner._embed(one["input_ids"], None, None)
    for layer, length in zip(inner.layers, (6, 4, 2), strict=True):
        x = layer(x, None, None, between=lambda x, length=length: x[:, :length])
    torch.testing.assert_close(inner(**one).last_hidden_state, x, rtol=0, atol=1e-10)
