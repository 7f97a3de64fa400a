"""Do the formulas count what is there and what is executed?"""

from dataclasses import replace

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from lib.errors import StudyError
from lib.measures import costs
from lib.models import encoder
from lib.models.compact import compact, dense
from lib.models.encoder import LayerShape, Shape
from lib.models.masks import Masks


def ragged(model):
    """A layer of narrow queries, one of narrow values and, of three, one without heads."""
    masks = Masks.dense(model)
    masks.qk[0, :, 2:] = masks.vo[1, :, 3:] = masks.heads[2:] = masks.neurons[1, 5:] = 0
    masks.heads[0, 0] = 0
    return compact(model, masks)


def coarse(model):
    """Sublayers and hidden dims gone."""
    new = next(model.parameters()).new_ones
    layers, hidden = len(encoder.layers(model)), encoder.shape(model).hidden
    masks = replace(Masks.dense(model), mha=new(layers), ffn=new(layers), hidden=new(hidden))
    masks.mha[0] = masks.ffn[1] = masks.hidden[:5] = masks.heads[1, 0] = 0
    return compact(model, masks)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_formula_counts_what_hugging_face_executes(model, batch, attention):
    if attention == "sdpa" and model.config.model_type == "mpnet":
        pytest.skip("transformers has no sdpa for MPNet")
    model.set_attn_implementation(attention)
    sequences, tokens = batch["input_ids"].shape
    expected = sequences * costs.encoder_macs(encoder.shape(model), tokens)
    assert costs.count_macs(model, batch) == expected


@pytest.mark.parametrize("smaller", [dense, ragged, coarse])
@pytest.mark.parametrize("tokens", [1, 9])
def test_the_formula_counts_what_the_compact_model_executes(model, batch, smaller, tokens):
    small = smaller(model)
    batch = {
        name: values[:, :tokens].contiguous() for name, values in batch.items() if values.dim() > 1
    }
    expected = len(batch["input_ids"]) * costs.encoder_macs(encoder.shape(small), tokens)
    assert costs.count_macs(small, batch) == expected
    unpadded = {"input_ids": batch["input_ids"]}
    assert costs.count_macs(small, unpadded) == expected


def test_the_formula_by_hand():
    shape = Shape(10, (LayerShape(heads=2, qk=3, vo=4, neurons=7), LayerShape(2, 3, 0, 0)))
    projections, scores, context, ffn = 5 * 10 * 2 * 14, 25 * 2 * 4, 25 * 2 * 4, 2 * 5 * 10 * 7
    assert costs.encoder_macs(shape, tokens=5) == projections + scores + context + ffn


def test_bert_base():
    with torch.device("meta"):
        model = BertForSequenceClassification(BertConfig())
    counted = costs.params(model)
    assert counted.encoder == 85_054_464
    assert counted.attention == 12 * 4 * (768 * 768 + 768)
    assert counted.model == 109_482_240 + 2 * 769
    assert counted.attention / counted.encoder == pytest.approx(0.333, abs=5e-4)
    by_tokens = {32: 2.74, 128: 11.17, 384: 35.33, 512: 48.32, 1536: 173.9}
    shape = encoder.shape(model)
    for tokens, giga in by_tokens.items():
        assert costs.encoder_macs(shape, tokens) / 1e9 == pytest.approx(giga, rel=2e-3)


def test_params_are_the_tensors_of_the_dense_model(model):
    ours, theirs = costs.params(dense(model)), costs.params(model)
    assert (ours.attention, ours.encoder) == (theirs.attention, theirs.encoder)
    assert theirs.model == sum(p.numel() for p in model.parameters())
    tables = [bias.weight.numel() for bias in encoder.biases(model) if bias is not None]
    assert ours.model - theirs.model == sum(tables[1:])


def test_params_of_a_pruned_model_are_its_shape(model):
    small = ragged(model)
    expected = encoded = 0
    for layer in encoder.shape(small).layers:
        channels = layer.heads * (layer.qk + layer.vo)
        attention = 2 * 24 * channels + layer.heads * (2 * layer.qk + layer.vo) + 24
        expected += attention
        encoded += attention + (2 * 24 + 1) * layer.neurons + 24 + 4 * 24
    counted = costs.params(small)
    assert (counted.attention, counted.encoder) == (expected, encoded)


def test_a_formula_counts_the_encoder_s_parameters(model):
    for each in (model, dense(model), ragged(model), coarse(model)):
        assert costs.encoder_params(encoder.shape(each)) == costs.params(each).encoder


def test_nonzero_counts_what_zeroing_leaves(model):
    before = costs.nonzero(model)
    layer = encoder.layers(model)[1]
    with torch.no_grad():
        layer.key.weight[:2] = 0
        layer.up.bias[0] = 0
        encoder.stem(model).words.weight[3] = 0
    after = costs.nonzero(model)
    assert before.attention - after.attention == 2 * 24
    assert before.encoder - after.encoder == 2 * 24 + 1
    assert before.model - after.model == 2 * 24 + 1 + 24
    assert costs.params(model).model >= before.model


class Recorder(torch.nn.Module):
    """Notes who was called, in which dtype, with what, and whether gradients were off."""

    def __init__(self, name, calls):
        super().__init__()
        self.name, self.calls = name, calls
        self.weight = torch.nn.Parameter(torch.ones(1))

    def __deepcopy__(self, memo):
        return Recorder(self.name, self.calls)

    def forward(self, **batch):
        facts = self.weight.dtype, torch.is_inference_mode_enabled(), self.training
        self.calls.append((self.name, sorted(batch), *facts))


def test_latency_takes_turns(batch):
    calls = []
    models = {name: Recorder(name, calls) for name in "ab"}
    seconds = costs.latency(models, [batch, batch], rounds=3, precision="bfloat16", warmup=1)
    assert [name for name, *_ in calls] == list("aabb") * 4
    assert {facts[1:] for facts in map(tuple, ((n, *rest[1:]) for n, *rest in calls))} == {
        (torch.bfloat16, True, False)
    }
    assert calls[0][1] == ["attention_mask", "input_ids"]
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}
    assert all(value > 0 for values in seconds.values() for value in values)
    assert models["a"].weight.dtype == torch.float32


def test_latency_of_real_models_each_with_its_own_batches(model, batch):
    short = {name: values[:2] for name, values in batch.items()}
    models = {"dense": dense(model), "pruned": ragged(model), "hf": model}
    own = {"dense": [batch], "pruned": [short, short], "hf": [batch]}
    seconds = costs.latency(models, own, rounds=1, precision="bfloat16", warmup=0)
    assert set(seconds) == set(models)


@pytest.mark.parametrize(
    "change", [{"rounds": 0}, {"batches": []}, {"batches": {"b": []}}, {"precision": "float16"}]
)
def test_latency_refuses_in_one_line(bert, batch, change):
    with pytest.raises(StudyError) as caught:
        costs.latency({"a": bert}, **{"batches": [batch], "rounds": 1} | change)
    assert "\n" not in str(caught.value)


def test_latency_takes_models_as_they_were_cast(batch):
    calls = []
    half = Recorder("a", calls)
    half.weight.data = half.weight.data.half()
    costs.latency({"a": half}, [batch], rounds=1, precision=None, warmup=0)
    assert calls[0][2] == torch.float16


@pytest.mark.parametrize("smaller", [dense, ragged, coarse])
def test_int8_says_what_float32_says(model, batch, smaller):
    small = smaller(model)
    before = {name: value.clone() for name, value in small.state_dict().items()}
    eight = costs.cast(small, "int8")
    with torch.no_grad():
        full, found = small.eval()(**batch).logits, eight(**batch).logits
    assert 0 < (found - full).abs().max() < 0.05 * full.abs().max()
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())
    linear = [m for m in eight.modules() if type(m) is torch.nn.Linear and m.weight.numel()]
    assert not linear  # every one multiplies in int8


def test_int8_is_refused_where_it_does_not_run(bert):
    assert costs.formats(torch.device("cpu")) == ["float32", "bfloat16", "int8"]
    assert costs.formats(torch.device("cuda")) == ["float32", "bfloat16"]
    with pytest.raises(StudyError, match="int8 runs on a CPU only, the model is on meta"):
        costs.cast(bert.to("meta"), "int8")


@pytest.mark.parametrize("smaller", [ragged, coarse])
def test_a_random_twin_has_the_shape_and_the_macs(model, batch, smaller):
    small = smaller(model)
    state = torch.random.get_rng_state()
    shape = Shape.from_json(encoder.shape(small).json())
    for source in (model.config, small.config):
        twin = costs.random_model(shape, source)
        assert encoder.shape(twin) == shape
        assert costs.params(twin) == costs.params(small)
        assert costs.count_macs(twin, batch) == costs.count_macs(small, batch)
    assert torch.equal(torch.random.get_rng_state(), state)
    first = twin(**batch).logits
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        again = costs.random_model(shape, model.config)
    assert torch.equal(again(**batch).logits, first)
    wider = replace(shape, layers=shape.layers[:1])
    assert encoder.shape(costs.random_model(wider, small.config)) == wider
    assert encoder.shape(small) == shape
