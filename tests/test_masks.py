"""Does a mask silence, rescale and differentiate as its docstring says?"""

from dataclasses import fields, replace

import pytest
import torch

from lib.errors import StudyError
from lib.models import encoder
from lib.models.compact import dense
from lib.models.compact_model import relative_buckets
from lib.models.encoder import LayerShape, Shape
from lib.models.masks import Masks, applied, left

UNITS = [field.name for field in fields(Masks)]
FINE, COARSE = UNITS[:4], UNITS[4:]


def ones(model):
    """All kept, said of every unit."""
    new, shape = next(model.parameters()).new_ones, encoder.shape(model)
    layers = len(shape.layers)
    coarse = {"mha": new(layers), "ffn": new(layers), "hidden": new(shape.hidden)}
    return replace(Masks.dense(model), **coarse)


def random_masks(model, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def values(like):
        return torch.empty_like(like).uniform_(0.3, 1.7, generator=generator) * like

    dense = ones(model)
    return Masks(**{unit: values(getattr(dense, unit)) for unit in UNITS})


def logits(model, batch, masks):
    with applied(model, masks):
        return model(**batch).logits


def test_dense_masks_change_nothing(model, batch):
    expected = model(**batch).logits
    assert torch.equal(logits(model, batch, Masks.dense(model)), expected)
    assert torch.equal(logits(model, batch, ones(model)), expected)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("unit", FINE)
def test_masks_mean_what_they_say(model, batch, unit, attention):
    """The same factors, written into the weights."""
    if attention == "sdpa" and model.config.model_type == "mpnet":
        pytest.skip("transformers has no sdpa for MPNet")
    model.set_attn_implementation(attention)
    masks = replace(Masks.dense(model), **{unit: getattr(random_masks(model), unit)})
    masked = logits(model, batch, masks)
    with torch.no_grad():
        for index, layer in enumerate(encoder.layers(model)):
            heads, neurons, qk, vo = (getattr(masks, u)[index] for u in FINE)
            width = qk.shape[1]
            layer.key.weight.mul_(qk.flatten()[:, None])
            layer.key.bias.mul_(qk.flatten())
            layer.output.weight.mul_(vo.flatten() * heads.repeat_interleave(width))
            layer.down.weight.mul_(neurons)
    torch.testing.assert_close(model(**batch).logits, masked, rtol=1e-5, atol=1e-5)
    assert (
        masked - logits(model, batch, replace(masks, neurons=masks.neurons * 0))
    ).abs().max() > 0


def test_gradients_agree_with_finite_differences(model, batch):
    model, masks = model.double(), random_masks(model.double())
    leaves = [getattr(masks, unit).requires_grad_() for unit in UNITS]

    def loss(*values):
        with applied(model, Masks(*values)):
            return model(**batch).loss

    analytic = torch.autograd.grad(loss(*leaves), leaves)
    generator = torch.Generator().manual_seed(0)
    for unit, gradient, value in zip(UNITS, analytic, leaves, strict=True):
        direction = torch.randn(value.shape, generator=generator, dtype=value.dtype)
        step = 1e-5 * direction
        near = {u: leaf.detach() for u, leaf in zip(UNITS, leaves, strict=True)}
        ahead, behind = (loss(*(near | {unit: value.detach() + s}).values()) for s in (step, -step))
        numeric = (ahead - behind) / 2e-5
        assert numeric.abs() > 1e-9
        torch.testing.assert_close((gradient * direction).sum(), numeric, rtol=1e-5, atol=1e-10)


def test_masks_leave_the_model_as_it_was(model, batch):
    before, weights = model(**batch).logits, {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(TypeError), applied(model, random_masks(model)):
        model(**batch).logits()  # a tensor is no function
    assert torch.equal(model(**batch).logits, before)
    torch.testing.assert_close(model.state_dict(), weights, rtol=0, atol=0)


def test_masks_of_another_model_are_refused(model):
    layers = len(encoder.layers(model))
    masks = replace(Masks.dense(model), neurons=torch.ones(layers, 7))
    with pytest.raises(StudyError, match=rf"neurons is \({layers}, 7\)"), applied(model, masks):
        pass


def twin(model):
    """In our own code, its norms as soft as the source's."""
    small, eps = dense(model), encoder.stem(model).norm.eps
    for norm in (module for module in small.modules() if isinstance(module, torch.nn.LayerNorm)):
        norm.eps = eps
    return small


def by_hand(model, batch, masks):
    """Logits of the definition, layer by layer, in plain tensor code; no dropout, no kernel."""
    small = twin(model)  # one architecture for all; that it computes the same is its own test
    keep = masks.hidden != 0

    def norm(module, x):
        kept = x[..., keep]
        spread = kept.var(-1, unbiased=False, keepdim=True)
        x = (x - kept.mean(-1, keepdim=True)) / (spread + module.eps).sqrt()
        return (x * module.weight + module.bias) * masks.hidden

    net, z = small.encoder, masks.hidden
    ids, attention = batch["input_ids"], batch["attention_mask"].bool()
    positions = torch.arange(ids.shape[1])[None]
    if small.config.positions_skip_padding:
        there = (ids != small.config.pad_token_id).long()
        positions = there.cumsum(1) * there + small.config.pad_token_id
    x = net.words(ids) + net.positions(positions)
    x = norm(net.norm, (x if net.types is None else x + net.types.weight[0]) * z)
    buckets = (
        relative_buckets(ids.shape[1], ids.device) if small.config.relative_positions else None
    )
    for index, (layer, shape) in enumerate(
        zip(net.layers, encoder.shape(small).layers, strict=True)
    ):
        mha, ffn = masks.mha[index], masks.ffn[index]
        if mha != 0:
            q, k, v = (
                part(x).unflatten(-1, (shape.heads, -1)).transpose(1, 2)
                for part in (layer.query, layer.key, layer.value)
            )
            scores = torch.einsum("bhtd,bhsd,hd->bhts", q, k, masks.qk[index]) * layer.scale
            if buckets is not None:
                scores = scores + layer.bias(buckets).permute(2, 0, 1)
            scores = scores.masked_fill(~attention[:, None, None], -torch.inf)
            context = (
                scores.softmax(-1)
                @ v
                * masks.vo[index][:, None]
                * masks.heads[index, :, None, None]
            )
            x = norm(
                layer.attention_norm, x + layer.output(context.transpose(1, 2).flatten(2)) * mha * z
            )
        if ffn != 0:
            neurons = layer.activation(layer.up(x)) * masks.neurons[index]
            x = norm(layer.ffn_norm, x + layer.down(neurons) * ffn * z)
    return small.classifier(small.activation(small.dense(x[:, 0])))


@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.parametrize("holes", [False, True])
def test_coarse_masks_mean_what_they_say(model, batch, holes, dead):
    model = model.double()
    for norm in (module for module in model.modules() if isinstance(module, torch.nn.LayerNorm)):
        norm.eps = 0.3  # its own would not show
    masks = random_masks(model)
    if holes:
        masks.hidden[2::3] = 0
    if dead:
        masks.mha[0] = masks.ffn[1] = 0
    with torch.no_grad():
        expected = by_hand(model, batch, masks)
        for each in (model, twin(model)):
            assert (logits(each, batch, masks) - expected).abs().max() < 1e-10
    assert (expected - logits(model, batch, ones(model))).abs().max() > 1e-3


def test_a_dead_sublayer_hands_on_what_it_is_given(model, batch):
    """Its LayerNorm is skipped; and it is the mask that says so, never what it computes."""
    masks = replace(ones(model), mha=ones(model).mha * 0, ffn=ones(model).ffn * 0)
    for each in (model, dense(model)):
        with applied(each, masks):
            states = each(**batch, output_hidden_states=True).hidden_states
        assert all(torch.equal(state, states[0]) for state in states)
    for layer in encoder.layers(model):
        for linear in (layer.output, layer.down):
            torch.nn.init.zeros_(linear.weight), torch.nn.init.zeros_(linear.bias)
    with applied(model, ones(model)):
        states = model(**batch, output_hidden_states=True).hidden_states
    assert not torch.equal(states[1], states[0])


def test_masks_without_a_hidden_dim_are_refused(bert):
    with pytest.raises(StudyError, match="at least one hidden dim"):
        with applied(bert, replace(ones(bert), hidden=torch.zeros(24))):
            pass
    with pytest.raises(StudyError, match=r"hidden is \(7,\), this model's is \(24,\)"):
        with applied(bert, replace(ones(bert), hidden=torch.ones(7))):
            pass


def test_what_is_left_by_hand(bert):
    masks = ones(bert)
    masks.hidden[:4] = masks.mha[0] = masks.ffn[2] = masks.heads[1] = 0
    masks.vo[2, 1] = masks.qk[2, 0, 3:] = masks.neurons[0, 5:] = 0
    layers = (
        LayerShape(0, 0, 0, 5, mha=False),
        LayerShape(0, 0, 0, 40),
        LayerShape(3, 6, 6, 0, ffn=False),
    )
    assert left(encoder.shape(bert), masks) == Shape(20, layers)
