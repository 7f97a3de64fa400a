"""Does a mask silence, rescale and differentiate as its docstring says?"""

from dataclasses import fields, replace

import pytest
import torch

from lib import encoder
from lib.errors import StudyError
from lib.masks import Masks, applied

UNITS = [field.name for field in fields(Masks)]


def random_masks(model, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def values(ones):
        return torch.empty_like(ones).uniform_(0.3, 1.7, generator=generator) * ones

    dense = Masks.dense(model)
    return Masks(**{unit: values(getattr(dense, unit)) for unit in UNITS})


def logits(model, batch, masks):
    with applied(model, masks):
        return model(**batch).logits


def test_dense_masks_change_nothing(model, batch):
    expected = model(**batch).logits
    assert torch.equal(logits(model, batch, Masks.dense(model)), expected)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("unit", UNITS)
def test_masks_mean_what_they_say(model, batch, unit, attention):
    """The same factors, written into the weights."""
    if attention == "sdpa" and model.config.model_type == "mpnet":
        pytest.skip("transformers has no sdpa for MPNet")
    model.set_attn_implementation(attention)
    masks = replace(Masks.dense(model), **{unit: getattr(random_masks(model), unit)})
    masked = logits(model, batch, masks)
    with torch.no_grad():
        for index, layer in enumerate(encoder.layers(model)):
            heads, neurons, qk, vo = (getattr(masks, u)[index] for u in UNITS)
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
