"""Are the parts found under one set of names, and is a checkpoint loaded or refused?"""

import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import GPT2Config, GPT2ForSequenceClassification

from lib.errors import StudyError
from lib.models import encoder
from lib.models.compact import dense
from lib.models.encoder import LayerShape, Shape

LABELS = ("no", "maybe", "yes")


def test_shape(make_classifier):
    expected = Shape(24, (LayerShape(heads=4, qk=6, vo=6, neurons=40),) * 3)
    for kind in ("bert", "mpnet"):
        assert encoder.shape(make_classifier(kind)) == expected
        assert encoder.shape(dense(make_classifier(kind))) == expected
    assert encoder.shape(make_classifier("distilbert")) == Shape(24, expected.layers[:2])
    assert encoder.shape(make_classifier("roberta")) == Shape(24, (LayerShape(3, 8, 8, 30),) * 2)


def test_a_shape_survives_its_json():
    shape = Shape(24, (LayerShape(4, 6, 5, 40), LayerShape(0, 0, 0, 0)))
    assert Shape.from_json(json.loads(json.dumps(shape.json()))) == shape
    for foreign in ({}, {"hidden": 3, "layers": [{"heads": 1}]}, {"hidden": 3, "layers": None}):
        with pytest.raises(StudyError, match="shape"):
            Shape.from_json(foreign)


@pytest.mark.parametrize("smaller", [lambda model: model, dense])
def test_every_parameter_has_one_name(model, smaller):
    """Layers, stem and position tables are the whole classifier, and nothing twice."""
    model = smaller(model)
    stem = vars(encoder.stem(model)).values()
    parts = [part for part in (*stem, *encoder.biases(model)) if part is not None]
    for layer in encoder.layers(model):
        parts += vars(layer).values()
    named = [id(parameter) for part in dict.fromkeys(parts) for parameter in part.parameters()]
    assert len(named) == len(set(named))
    assert set(named) == {id(parameter) for parameter in model.parameters()}


@pytest.mark.parametrize("smaller", [lambda model: model, dense])
def test_parts_do_what_their_names_say(model, batch, smaller):
    """One layer, computed from its named parts, from the hidden states before it."""
    model = smaller(model)
    states = []
    for block in encoder.blocks(model):
        block.register_forward_hook(
            lambda module, args, out: states.append(
                (args[0], out[0] if isinstance(out, tuple) else out)
            )
        )
    ids = batch["input_ids"][:1]
    model(ids)
    assert len(states) == len(encoder.layers(model))
    shape, tokens = encoder.shape(model).layers[0], torch.arange(ids.shape[1])
    for (x, after), layer, bias in zip(
        states, encoder.layers(model), encoder.biases(model), strict=True
    ):
        query, key, value = (
            part(x[0]).view(len(tokens), shape.heads, -1).transpose(0, 1)
            for part in (layer.query, layer.key, layer.value)
        )
        logits = query @ key.transpose(1, 2) / shape.qk**0.5
        if bias is not None:  # within 8 tokens: 0 to 7 to the left, 16 + 1 to 16 + 7 to the right
            offset = tokens[None, :] - tokens[:, None]
            near = torch.where(offset > 0, 16 + offset, -offset)
            far = offset.abs() == 8  # the first of the log-spaced buckets
            near = torch.where(far, 8 + 16 * (offset > 0), near)
            logits = logits + bias.weight[near].permute(2, 0, 1)
        context = (logits.softmax(-1) @ value).transpose(0, 1).flatten(1)
        x = layer.attention_norm(x[0] + layer.output(context))
        x = layer.ffn_norm(x + layer.down(nn.functional.gelu(layer.up(x))))
        torch.testing.assert_close(x, after.view_as(x))


def test_an_unknown_architecture_is_refused(make_classifier):
    config = GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=9)
    with pytest.raises(StudyError, match="unknown architecture 'gpt2'"):
        encoder.layers(GPT2ForSequenceClassification(config))
    bare = make_classifier("bert").bert
    with pytest.raises(StudyError, match="wanted a model for sequence classification, got BertM"):
        encoder.stem(bare)
    with pytest.raises(StudyError, match="unknown architecture 'Linear'") as refused:
        encoder.shape(torch.nn.Linear(2, 2))
    assert "compact" not in str(refused.value)
    with pytest.raises(StudyError, match="unknown architecture 'Linear'"):
        encoder.layers(nn.Linear(1, 1))


def test_load_gives_an_encoder_its_classifier(model, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    model.base_model.to(torch.float16).save_pretrained(tmp_path)
    saved = model.base_model.float().state_dict()
    caplog.clear()
    state = torch.random.get_rng_state()
    loaded = encoder.load(tmp_path, LABELS[:2])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not caplog.records
    assert not loaded.training
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    torch.testing.assert_close(loaded.base_model.state_dict(), saved, rtol=0, atol=0)
    assert loaded.config.id2label == {0: "no", 1: "maybe"}
    assert loaded.config.label2id == {"no": 0, "maybe": 1}
    assert loaded.config.problem_type == "single_label_classification"
    head = encoder.stem(loaded).classifier.weight
    assert head.shape == (2, 24)
    assert torch.equal(encoder.stem(encoder.load(tmp_path, LABELS[:2])).classifier.weight, head)
    other = encoder.load(tmp_path, LABELS[:2], seed=1)
    assert not torch.equal(encoder.stem(other).classifier.weight, head)
    expected = "eager" if model.config.model_type == "mpnet" else "sdpa"
    assert loaded.config._attn_implementation == expected


def test_load_for_regression(bert, tmp_path):
    bert.base_model.save_pretrained(tmp_path)
    loaded = encoder.load(tmp_path, None)
    assert loaded.config.problem_type == "regression"
    assert loaded.config.num_labels == 1


@pytest.mark.parametrize("smaller", [lambda model: model, dense])
def test_load_keeps_a_trained_classifier(model, batch, tmp_path, smaller):
    model.config.id2label = dict(enumerate(LABELS))
    model = smaller(model)
    model.save_pretrained(tmp_path)
    loaded = encoder.load(tmp_path, ("No", "Maybe", "Yes"))
    torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits)
    for labels in (LABELS[::-1], LABELS[:2], ("a", "b", "c"), None):
        with pytest.raises(StudyError, match="trained for no, maybe, yes") as caught:
            encoder.load(tmp_path, labels)
        assert "\n" not in str(caught.value)


def test_half_a_trained_classifier_is_refused(bert, tmp_path):
    bert.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["bert.pooler.dense.bias"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(StudyError, match="lacks 1 of"):
        encoder.load(tmp_path, ("LABEL_0", "LABEL_1", "LABEL_2"))


def test_a_trained_regression_is_no_classifier(make_classifier, tmp_path):
    make_classifier("bert", labels=1).save_pretrained(tmp_path)
    assert encoder.load(tmp_path, None).config.num_labels == 1
    with pytest.raises(StudyError, match="trained for LABEL_0"):
        encoder.load(tmp_path, LABELS)


def cut_off(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def lacking(folder):
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("intermediate.dense.weight"))
    save_file({k: v for k, v in tensors.items() if k != name}, folder / "model.safetensors")


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def no_config(folder):
    (folder / "config.json").unlink()


def half_a_config(folder):
    (folder / "config.json").write_text('{"model_type": "be')


def a_list(folder):
    (folder / "config.json").write_text("[1]")


def foreign(folder):
    (folder / "config.json").write_text('{"model_type": "gpt2"}')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_off, "cannot read .*model.safetensors"),
        (lacking, "lacks 1 of"),
        (pickled, "cannot read .*model.safetensors"),
        (no_config, "cannot read .*config.json"),
        (half_a_config, "cannot read .*config.json"),
        (a_list, "cannot read .*config.json"),
        (foreign, "unknown architecture 'gpt2'"),
    ],
)
def test_load_refuses_a_damaged_folder_in_one_line(bert, tmp_path, damage, message):
    bert.base_model.save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(StudyError, match=message) as caught:
        encoder.load(tmp_path, LABELS)
    assert "\n" not in str(caught.value)
