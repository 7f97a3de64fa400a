"""Does the compact model compute what the masked one does, and does it survive saving?"""

import json
import logging
import subprocess
import sys
import warnings
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertTokenizerFast,
    pipeline,
)

from lib.errors import StudyError
from lib.measures import costs
from lib.models import compact_model, encoder
from lib.models.compact import CompactForSequenceClassification, compact, dense
from lib.models.encoder import Shape
from lib.models.masks import Masks, applied, left


def kept(ones, density, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return ones * (torch.rand(ones.shape, generator=generator) < density).to(ones)


def random(model):
    ones = Masks.dense(model)
    return Masks(
        *(kept(x, 0.6, i) for i, x in enumerate((ones.heads, ones.neurons, ones.qk, ones.vo)))
    )


def soft(model):
    masks = random(model)
    generator = torch.Generator().manual_seed(9)

    def scale(mask):
        values = torch.rand(mask.shape, generator=generator) * 2 - 0.5
        return mask * values.to(mask)

    return Masks(scale(masks.heads), scale(masks.neurons), scale(masks.qk), scale(masks.vo))


def empty_layer(model):
    masks = random(model)
    masks.heads[1] = masks.neurons[0] = 0
    return masks


def nothing_left(model):
    ones = Masks.dense(model)
    return Masks(ones.heads * 0, ones.neurons * 0, ones.qk * 0, ones.vo * 0)


def uneven(model):
    """Every head keeps its own number of dimensions, from none to all."""
    ones = Masks.dense(model)
    dims = torch.arange(ones.qk.shape[2])
    heads = torch.arange(ones.qk.shape[1])[:, None]
    return replace(ones, qk=ones.qk * (dims >= 2 * heads), vo=ones.vo * (dims < 2 * heads))


def queries_only(model):
    ones = Masks.dense(model)
    return replace(ones, qk=kept(ones.qk, 0.4))


def values_only(model):
    ones = Masks.dense(model)
    return replace(ones, vo=kept(ones.vo, 0.4))


def no_queries(model):
    ones = Masks.dense(model)
    return replace(ones, qk=ones.qk * 0)


def narrow(model):
    """Nothing is as wide as it was, so no default scale of the softmax is the dense one."""
    ones = Masks.dense(model)
    dims = torch.arange(ones.qk.shape[2])
    return replace(ones, qk=ones.qk * (dims < 2), vo=ones.vo * (dims > 3))


def coarse(model, dead=True):
    """Soft masks of every kind: sublayers dead or of width 0, hidden dims pruned."""
    masks, shape = soft(model), encoder.shape(model)
    new = next(model.parameters()).new_ones
    generator = torch.Generator().manual_seed(3)

    def values(count):
        return new(count) * (0.3 + torch.rand(count, generator=generator)).to(new(1))

    count = len(shape.layers)
    masks = replace(masks, mha=values(count), ffn=values(count), hidden=values(shape.hidden))
    masks.hidden[1::4] = 0
    if dead:
        masks.mha[1] = masks.ffn[0] = 0
    masks.heads[0] = 0  # width 0, not absent
    return masks


def all_dead(model):
    masks = coarse(model)
    return replace(masks, mha=masks.mha * 0, ffn=masks.ffn * 0)


ALL_MASKS = [
    coarse,
    all_dead,
    Masks.dense,
    random,
    soft,
    empty_layer,
    nothing_left,
    uneven,
    queries_only,
    values_only,
    no_queries,
    narrow,
]


def typed(model, batch):
    """The batch, with token types where the model has them."""
    if encoder.stem(model).types is None or encoder.stem(model).types.num_embeddings < 2:
        return batch
    types = (torch.arange(9) > 3).long().expand(5, 9).contiguous()
    return batch | {"token_type_ids": types}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("masks", ALL_MASKS)
def test_compact_computes_what_the_masked_model_does(model, batch, masks, dtype):
    model, batch = model.to(dtype), typed(model, batch)
    masks = masks(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with applied(model, masks), torch.no_grad():
        expected = model(**batch)
    small = compact(model, masks)
    with torch.no_grad():
        came = small(**batch)
    tolerance = {torch.float32: 1e-4, torch.float64: 1e-10}[dtype] * expected.logits.abs().max()
    assert (came.logits - expected.logits).abs().max() < tolerance
    torch.testing.assert_close(came.loss, expected.loss)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    addresses = {value.data_ptr() for value in model.state_dict().values()}
    assert not addresses & {
        value.data_ptr() for value in small.state_dict().values() if value.numel()
    }


@pytest.mark.parametrize("masks", ALL_MASKS)
def test_the_widths_are_those_that_masks_leave(model, masks):
    masks = masks(model)
    small = compact(model, masks)
    assert encoder.shape(small) == left(encoder.shape(model), masks)
    assert costs.params(small).encoder == costs.encoder_params(encoder.shape(small))


@pytest.mark.parametrize("depth", [1, 4])
def test_any_depth(make_classifier, batch, depth):
    bert = make_classifier("bert").double()
    layers = torch.nn.ModuleList(deepcopy(bert.bert.encoder.layer[i % 3]) for i in range(depth))
    bert.bert.encoder.layer, bert.config.num_hidden_layers = layers, depth
    masks = coarse(bert, dead=depth > 1)
    with applied(bert, masks), torch.no_grad():
        expected = bert(**batch).logits
    assert (compact(bert, masks)(**batch).logits - expected).abs().max() < 1e-10


def test_absent_sublayers_and_hidden_dims_are_really_gone(model):
    small = compact(model, coarse(model))
    first, second = encoder.layers(small)[:2]
    assert not any((second.query, second.output, second.attention_norm, first.up, first.ffn_norm))
    assert first.output.weight.shape == (18, 0)  # of width 0: its bias and its norm stay
    assert first.attention_norm.weight.shape == second.down.bias.shape == (18,)
    assert small.dense.weight.shape == (24, 18)
    assert {t.shape[-1] for name, t in small.named_parameters() if "words" in name} == {18}
    assert not any(name.startswith("encoder.layers.1.query") for name in small.state_dict())
    assert encoder.shape(small).json()["layers"][1]["mha"] is False
    assert "ffn" not in encoder.shape(small).json()["layers"][1]


@pytest.mark.parametrize("masks", [random, uneven, empty_layer])
def test_tensors_really_shrink(model, masks):
    masks = masks(model)
    small = compact(model, masks)
    vo = masks.vo * masks.heads[..., None]
    alive = (vo != 0).any(-1)
    for index, layer in enumerate(encoder.layers(small)):
        heads = int(alive[index].sum())
        qk, vo_width = (
            int((x[index][alive[index]] != 0).sum(-1).max()) if heads else 0 for x in (masks.qk, vo)
        )
        neurons = int((masks.neurons[index] != 0).sum())
        assert encoder.shape(small).layers[index] == encoder.LayerShape(
            heads, qk, vo_width, neurons
        )
        assert layer.query.weight.shape == layer.key.weight.shape == (heads * qk, 24)
        assert layer.value.weight.shape == layer.output.weight.T.shape == (heads * vo_width, 24)
        assert layer.up.weight.shape == layer.down.weight.T.shape == (neurons, 24)
        for linear in (layer.query, layer.key, layer.value, layer.up):
            assert linear.bias.shape == linear.weight.shape[:1]


def test_masks_of_another_model_are_refused(make_classifier):
    with pytest.raises(StudyError, match="masks of another model"):
        compact(make_classifier("bert"), Masks.dense(make_classifier("roberta")))


def test_masks_of_another_precision(model, batch):
    masks = soft(model)
    model = model.bfloat16()
    small = compact(model, masks)
    assert {parameter.dtype for parameter in small.parameters()} == {torch.bfloat16}
    with applied(model, masks), torch.no_grad():
        expected = model(**batch).logits
    assert (small(**batch).logits - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize("size", [0, 3])
def test_a_batch_too_large_for_the_caches_goes_through_in_parts(model, batch, size, monkeypatch):
    small = compact(model, random(model)).eval()
    with torch.no_grad():
        whole = small(**batch).logits
    text = batch["input_ids"].shape[1] * small.config.hidden_size * 4
    monkeypatch.setattr(compact_model, "WORKING_SET", size * text)
    seen, layer, run = [], small.encoder.layers[0], small.encoder.layers[0].forward
    monkeypatch.setattr(layer, "forward", lambda x, *rest: seen.append(len(x)) or run(x, *rest))
    with torch.no_grad():
        parts = small(**batch).logits
    rows = len(batch["input_ids"])
    assert max(seen) == max(1, size)
    assert sum(seen) == rows
    torch.testing.assert_close(parts, whole)
    places = torch.arange(batch["input_ids"].shape[1])[None] + 2
    with torch.no_grad():
        given = small(**batch, position_ids=places).logits
    with torch.enable_grad():
        seen.clear()
        states = small(**batch, position_ids=places)
        assert seen == [rows]  # a gradient wants the whole batch
    torch.testing.assert_close(given, states.logits.detach())
    with torch.no_grad():
        assert len(small(**batch, output_hidden_states=True).hidden_states) > 1
        seen.clear()
        hook = layer.register_forward_pre_hook(lambda *_: None)
        small(**batch)
        hook.remove()
        assert seen == [rows]  # whoever looks inside sees it whole


def test_a_residual_never_writes_into_what_entered(model, batch):
    """States of a layer are kept by whoever asked for them."""
    small = compact(model, random(model)).eval()
    with torch.no_grad():
        quiet = small(**batch, output_hidden_states=True).hidden_states
    with torch.enable_grad():
        loud = small(**batch, output_hidden_states=True).hidden_states
    for one, other in zip(quiet, loud, strict=True):
        torch.testing.assert_close(one, other.detach())


def test_without_a_mask_or_with_positions_given(model, batch):
    ids, positions = batch["input_ids"], torch.arange(9).expand(5, 9).contiguous() + 2
    twin = dense(model)
    for extra in ({}, {"position_ids": positions}, {"attention_mask": torch.ones_like(ids)}):
        torch.testing.assert_close(twin(ids, **extra).logits, model(ids, **extra).logits)


def test_relative_positions_far_apart(make_classifier):
    model = make_classifier("mpnet")
    model.mpnet.embeddings.position_embeddings = torch.nn.Embedding(400, 24)
    model.config.max_position_embeddings = 400
    ids = torch.randint(2, 50, (1, 390), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(dense(model)(ids).logits, model(ids).logits)


def test_regression(make_classifier, batch):
    model = make_classifier("bert", labels=1)
    batch = batch | {"labels": torch.tensor([0.5, 1.0, 2.0, 3.0, 5.0])}
    torch.testing.assert_close(dense(model)(**batch).loss, model(**batch).loss)


@pytest.fixture
def chatter(caplog, monkeypatch):
    """The log records of transformers, which it keeps from the root logger."""
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    return caplog


@pytest.mark.parametrize("masks", [soft, uneven, nothing_left, coarse, all_dead])
def test_saving_and_loading_changes_nothing(model, batch, masks, tmp_path, chatter):
    small = compact(model, masks(model))
    small.config.id2label = {0: "a", 1: "b", 2: "c"}
    small.save_pretrained(tmp_path)
    assert {file.suffix for file in tmp_path.iterdir()} == {".safetensors", ".json"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again, report = AutoModelForSequenceClassification.from_pretrained(
            tmp_path, output_loading_info=True
        )
        states = AutoModel.from_pretrained(tmp_path)(batch["input_ids"], batch["attention_mask"])
    assert not any(report.values())
    assert not chatter.records
    assert isinstance(again, CompactForSequenceClassification)
    torch.testing.assert_close(again.state_dict(), small.state_dict(), rtol=0, atol=0)
    assert torch.equal(again(**batch).logits, small(**batch).logits)
    assert again.config.id2label == {0: "a", 1: "b", 2: "c"}
    last = small(**batch, output_hidden_states=True).hidden_states[-1]
    assert torch.equal(states.last_hidden_state, last)
    assert torch.equal(
        encoder.load(tmp_path, ("a", "b", "c"))(**batch).logits, small(**batch).logits
    )


def test_a_pipeline_classifies(bert, tmp_path, chatter):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "film", "dull"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    bert.config.id2label = {0: "bad", 1: "fair", 2: "good"}
    compact(bert, soft(bert)).save_pretrained(tmp_path)
    classify = pipeline("text-classification", model=str(tmp_path), device="cpu")
    [answer, other] = classify(["a good film", "dull"])
    assert answer["label"] in {"bad", "fair", "good"}
    assert other["label"] in {"bad", "fair", "good"}
    assert not chatter.records


def test_import_lib_is_enough_and_leaves_torch_alone(bert, tmp_path):
    dense(bert).save_pretrained(tmp_path)
    program = (
        "import sys, lib\n"
        "assert 'torch' not in sys.modules\n"
        "from transformers import AutoConfig, AutoModel\n"
        f"assert AutoConfig.from_pretrained({str(tmp_path)!r}).head_dim == 6\n"
        f"print(type(AutoModel.from_pretrained({str(tmp_path)!r})).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "CompactModel", done.stderr


@pytest.mark.parametrize("masks", [random, uneven, empty_layer, coarse])
def test_a_compact_model_can_be_compacted_again(model, batch, masks):
    model = model.double()
    small = compact(model, masks(model))
    masks = soft(small)
    with applied(small, masks), torch.no_grad():
        expected = small(**batch).logits
    assert (compact(small, masks)(**batch).logits - expected).abs().max() < 1e-10


def test_training_follows_the_source(model, batch):
    """Without dropout, a step of the compact dense model is a step of its source.

    No attention mask: padding then reaches the loss, and its embedding must not learn all the same.
    """
    twin, batch = dense(model), {name: batch[name] for name in ("input_ids", "labels")}
    for each in (model, twin):
        each(**batch).loss.backward()
    for ours, theirs in zip(encoder.layers(twin), encoder.layers(model), strict=True):
        for name in ("query", "output", "down", "ffn_norm"):
            torch.testing.assert_close(
                getattr(ours, name).weight.grad, getattr(theirs, name).weight.grad
            )
    ours, theirs = encoder.stem(twin), encoder.stem(model)
    for name in ("words", "positions", "dense", "classifier"):
        torch.testing.assert_close(
            getattr(ours, name).weight.grad, getattr(theirs, name).weight.grad
        )
    if table := encoder.biases(model)[0]:  # MPNet's layers share theirs
        own = [bias.weight.grad for bias in encoder.biases(twin)]
        torch.testing.assert_close(sum(own), table.weight.grad)


@pytest.mark.parametrize("masks", [random, empty_layer, coarse])
def test_a_compact_model_learns(model, batch, masks):
    small = compact(model, masks(model)).train()
    optimizer = torch.optim.AdamW(small.parameters(), lr=1e-2)
    losses = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # dropout
        for _ in range(30):
            optimizer.zero_grad()
            loss = small(**batch).loss
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


def test_dropout_is_the_source_s(model, batch):
    """Each probability reaches the compact model: the logits spread as widely in training."""
    twin = dense(model).train()
    many = {name: batch[name].repeat(2000, 1) for name in ("input_ids", "attention_mask")}

    def spread(which):
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            return which(**many).logits.view(2000, 5, 3).std(0)

    torch.testing.assert_close(spread(twin), spread(model.train()), rtol=0.06, atol=0)


@pytest.mark.parametrize(
    "layers",
    [None, [], [{"heads": 1}], [{"heads": 1, "qk": 1, "vo": 1, "neurons": 0, "mha": False}]],
)
def test_a_foreign_config_is_refused_in_one_line(bert, tmp_path, layers):
    dense(bert).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["layers"] = layers
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(StudyError) as caught:
        AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_compacting_draws_nothing_at_random(bert):
    state = torch.random.get_rng_state()
    compact(bert, random(bert))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_folder_that_was_cut_off_is_refused_in_one_line(bert, tmp_path):
    compact(bert, coarse(bert)).save_pretrained(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StudyError, match="cannot read") as caught:
        encoder.load(tmp_path, None)
    assert "\n" not in str(caught.value)


def test_weights_of_other_widths_are_refused_in_one_line(bert, tmp_path):
    """A config that says more than the weights hold, as after a copy of half a folder."""
    compact(bert, coarse(bert)).save_pretrained(tmp_path / "small")
    dense(bert).save_pretrained(tmp_path / "whole")
    (tmp_path / "small" / "config.json").write_text(
        (tmp_path / "whole" / "config.json").read_text()
    )
    with pytest.raises(StudyError) as caught:
        encoder.load(tmp_path / "small", ("LABEL_0", "LABEL_1", "LABEL_2"))
    assert "\n" not in str(caught.value)


def test_shapes_on_record_keep_their_json():
    record = {"hidden": 4, "layers": [{"heads": 2, "qk": 2, "vo": 1, "neurons": 3}]}
    assert Shape.from_json(record).json() == record
    absent = {"hidden": 4, "layers": [{"heads": 0, "qk": 0, "vo": 0, "neurons": 3, "mha": False}]}
    assert Shape.from_json(absent).json() == absent
    assert Shape.from_json(absent) != Shape(4, (encoder.LayerShape(0, 0, 0, 3),))
