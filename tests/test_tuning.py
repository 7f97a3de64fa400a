"""Are survivors rescaled and refitted as least squares would have it, sublayer by sublayer?"""

import numpy as np
import pytest
import torch
from conftest import PAD, tiny

from lib.errors import StudyError
from lib.models import encoder
from lib.models.compact import compact, dense
from lib.scoring import calibration, search, tuning
from lib.scoring.tuning import Moments


def system(tokens=50, units=6, width=4, seed=0):
    """Activations, a projection, a target, and their moments, in float64."""
    draw = torch.Generator().manual_seed(seed)
    h, b = (torch.randn(tokens, n, generator=draw, dtype=torch.float64) for n in (units, width))
    linear = torch.nn.Linear(units, width, dtype=torch.float64)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(width, units, generator=draw, dtype=torch.float64))
        moments = Moments.of(linear)
        moments.add(h[:20], b[:20])
        moments.add(h[20:], b[20:])
    return h, linear.weight.detach(), b, moments


def columns(h, weight, group=1, intercept=False):
    """The system as it stands: one column vec(h_i w_i^T) a unit, (tokens * width, units)."""
    each = torch.einsum("ti,di->tdi", h, weight).flatten(0, 1)
    found = each.unflatten(1, (-1, group)).sum(2)
    return torch.cat([found, torch.ones_like(found[:, :1])], 1) if intercept else found


@pytest.mark.parametrize(("group", "intercept"), [(1, False), (3, True)])
def test_factors_are_the_damped_least_squares_of_the_normal_equations(group, intercept):
    h, weight, b, moments = system()
    found, iterations = tuning.factors(moments, weight, group, intercept, damp=1.0)
    a = columns(h, weight, group, intercept).numpy()
    start = np.ones(a.shape[1])
    if intercept:
        start[-1] = 0
    normal, right = a.T @ a, a.T @ b.flatten().numpy()
    both = np.vstack([normal, np.eye(len(start))])
    wanted = np.linalg.lstsq(both, np.concatenate([right - normal @ start, 0 * start]))[0] + start
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert 0 < iterations


def test_without_damp_the_factors_are_plain_least_squares():
    h, weight, b, moments = system()
    found, _ = tuning.factors(moments, weight, damp=0.0)
    wanted = np.linalg.lstsq(columns(h, weight).numpy(), b.flatten().numpy())[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_singular_system_has_one_answer_and_it_is_finite():
    """Two filters that are one: damp shares the change between them."""
    h, weight, b, _ = system()
    h[:, 1], weight[:, 1] = h[:, 0], weight[:, 0]
    moments = Moments.of(torch.nn.Linear(6, 4, dtype=torch.float64))
    moments.add(h, b)
    found, _ = tuning.factors(moments, weight)
    assert np.isfinite(found).all()
    assert found[0] == pytest.approx(found[1])
    nothing, _ = tuning.factors(Moments.of(torch.nn.Linear(6, 4, dtype=torch.float64)), weight)
    assert (nothing == 1).all()


def test_refitting_is_ridge_regression_around_the_old_weight():
    h, weight, b, moments = system()
    found = tuning.refitted(moments, weight, ridge=0.1)
    size = float((0.1 * h.square().sum(0).mean()).sqrt())
    both = np.vstack([h.numpy(), size * np.eye(6)])
    wanted = np.linalg.lstsq(both, np.vstack([b.numpy(), (size * weight.T).numpy()]))[0].T
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-9)


def test_refitting_refuses_a_singular_system_that_has_no_ridge():
    h, weight, b, _ = system()
    h[:, 1] = h[:, 0]
    moments = Moments.of(torch.nn.Linear(6, 4, dtype=torch.float64))
    moments.add(h, b)
    with pytest.raises(StudyError, match="system of 6 units is singular on 50 calibration tokens"):
        tuning.refitted(moments, weight, ridge=0.0)
    assert tuning.refitted(moments, weight).isfinite().all()
    silent = Moments.of(torch.nn.Linear(6, 4, dtype=torch.float64))
    torch.testing.assert_close(tuning.refitted(silent, weight, ridge=0.0), weight)


def test_moments_of_some_columns():
    h, _, b, moments = system()
    some = torch.tensor([4, 1])
    part = moments.only(some)
    torch.testing.assert_close(part.gram, h[:, some].T @ h[:, some])
    torch.testing.assert_close(part.cross, h[:, some].T @ b)


# the climb


@pytest.fixture
def cut(batch):
    return calibration.sentences([batch])


def halves(model, draw=0):
    """A student with half the neurons and a teacher with three quarters, of one model."""
    scores = torch.rand(
        *search.masks(model).neurons.shape, generator=torch.Generator().manual_seed(draw)
    )
    return [
        compact(model, search.masks(model, neurons=search.even(scores, share))).eval()
        for share in (0.5, 0.75)
    ]


def pieces(model, batch, part="ffn"):
    """Of each layer in turn, its own modules and (residual, what enters W, sum) of a sublayer."""
    linear, norm = ("down", "ffn_norm") if part == "ffn" else ("output", "attention_norm")
    kept = batch["attention_mask"].bool()
    states = model.encoder(**batch, output_hidden_states=True).hidden_states
    for layer, x in zip(model.encoder.layers, states, strict=False):
        seen = {}
        hooks = [
            getattr(layer, linear).register_forward_pre_hook(
                lambda _, a, seen=seen: seen.update(h=a[0])
            ),
            getattr(layer, norm).register_forward_pre_hook(
                lambda _, a, seen=seen: seen.update(sum=a[0])
            ),
        ]
        mask = None if kept.all() else kept[:, None, None]
        buckets = None
        if model.config.relative_positions:
            from lib.models.compact_model import relative_buckets

            buckets = relative_buckets(x.shape[1], x.device)
        layer(x, mask, buckets)
        for hook in hooks:
            hook.remove()
        added = getattr(layer, linear)(seen["h"])
        yield layer, (seen["sum"] - added)[kept], seen["h"][kept], seen["sum"][kept]


@torch.no_grad()
def test_every_layer_is_tuned_on_what_the_tuned_layers_below_give(model, cut, monkeypatch):
    monkeypatch.setattr(tuning, "TOLERANCE", 1e-13)  # to compare with an exact solution
    model = model.double()
    student, teacher = halves(model)
    tuned = tuning.tune(student, teacher, cut).model
    assert [step["part"] for step in tuning.tune(student, teacher, cut).steps] == ["ffn"] * len(
        tuned.encoder.layers
    )
    goals = pieces(teacher, cut[0])
    before = student.encoder.layers
    for old, (layer, x, h, _), (_, _, _, goal) in zip(
        before, pieces(tuned, cut[0]), goals, strict=True
    ):
        target = goal - old.down.bias - x
        a = columns(h, old.down.weight).numpy()
        normal, right = a.T @ a, a.T @ target.flatten().numpy()
        both = np.vstack([normal, np.eye(len(normal))])
        y = np.linalg.lstsq(both, np.concatenate([right - normal.sum(1), 0 * right]))[0]
        wanted = old.down.weight * torch.from_numpy(1 + y)
        torch.testing.assert_close(layer.down.weight, wanted, rtol=1e-3, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("how", ["scale", "refit"])
def test_tuning_brings_the_first_layer_nearer_and_leaves_its_inputs_alone(model, cut, how):
    student, teacher = halves(model)
    weights = [{n: p.clone() for n, p in m.state_dict().items()} for m in (student, teacher)]
    tuned = tuning.tune(student, teacher, cut, how, heads=True)
    for m, kept in zip((student, teacher), weights, strict=True):
        torch.testing.assert_close(m.state_dict(), kept, rtol=0, atol=0)
    goal = next(iter(pieces(teacher, cut[0])))[3]
    off = [(next(iter(pieces(m, cut[0])))[3] - goal).norm() for m in (student, tuned.model)]
    assert off[1] < off[0]
    parts = [(step["layer"], step["part"]) for step in tuned.steps]
    assert parts[:3] == [(0, "ffn"), (1, "attention"), (1, "ffn")]  # layer 0's attention never


@torch.no_grad()
@pytest.mark.parametrize("how", ["scale", "refit"])
def test_heads_follow_least_squares_too_but_those_of_the_first_layer(model, cut, how, monkeypatch):
    monkeypatch.setattr(tuning, "TOLERANCE", 1e-13)  # to compare with an exact solution
    student, teacher = halves(model.double())
    tuned = tuning.tune(student, teacher, cut, how, heads=True).model
    first, *rest = zip(
        student.encoder.layers,
        pieces(tuned, cut[0], "attention"),
        pieces(teacher, cut[0], "attention"),
        strict=True,
    )
    torch.testing.assert_close(first[1][0].output.weight, first[0].output.weight)
    for old, (layer, x, h, _), (_, _, _, goal) in rest:
        target, weight = goal - old.output.bias - x, old.output.weight
        if how == "scale":  # one factor a head, and an intercept that is not kept
            a = columns(h, weight, old.shape.vo, intercept=True).numpy()
            start = np.append(np.ones(a.shape[1] - 1), 0)
            normal, right = a.T @ a, a.T @ target.flatten().numpy()
            both = np.vstack([normal, np.eye(len(normal))])
            y = np.linalg.lstsq(both, np.concatenate([right - normal @ start, 0 * right]))[0]
            wanted = weight * torch.from_numpy(1 + y[:-1]).repeat_interleave(old.shape.vo)
        else:
            size = float((tuning.RIDGE * h.square().sum(0).mean()).sqrt())
            both = np.vstack([h.numpy(), size * np.eye(h.shape[1])])
            right = np.vstack([target.numpy(), size * weight.T.numpy()])
            wanted = torch.from_numpy(np.linalg.lstsq(both, right)[0].T)
        torch.testing.assert_close(layer.output.weight, wanted, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(layer.output.weight, weight, rtol=1e-2)


def test_an_incredible_factor_stops_all_later_tuning(bert, cut, monkeypatch):
    student, teacher = halves(bert)
    real, calls = tuning.factors, []

    def wild(*args):
        found, iterations = real(*args)
        calls.append(1)
        return (found * 0 - 10.5 if len(calls) == 2 else found), iterations

    monkeypatch.setattr(tuning, "factors", wild)
    tuned = tuning.tune(student, teacher, cut)
    assert [step["accepted"] for step in tuned.steps] == [True, False]
    for index, same in enumerate((False, True, True)):
        old, new = (m.encoder.layers[index].down.weight for m in (student, tuned.model))
        assert torch.equal(old, new) == same


def test_a_layer_without_neurons_keeps_bias_residual_and_norm(bert, cut):
    neurons = torch.ones(3, 40)
    neurons[1] = 0
    student = compact(bert, search.masks(bert, neurons=neurons)).eval()
    tuned = tuning.tune(student, dense(bert).eval(), cut)
    assert [step["layer"] for step in tuned.steps] == [0, 2]
    layer = tuned.model.encoder.layers[1]
    assert layer.down.weight.shape == (24, 0)
    with torch.no_grad():
        x = torch.randn(1, 3, 24)
        attended = layer.attention_norm(x + layer.output(layer._context(x, None, None)))
        torch.testing.assert_close(
            layer(x, None, None), layer.ffn_norm(attended + encoder.layers(bert)[1].down.bias)
        )


def test_too_few_sentences_and_activations_that_are_not_finite_are_refused(bert):
    student, teacher = halves(bert)
    one = {"input_ids": torch.tensor([[5]]), "attention_mask": torch.tensor([[1]])}
    with pytest.raises(StudyError, match="1 calibration tokens give 1 equations for 20 unknowns"):
        tuning.tune(student, teacher, [one], "refit")
    wide = compact(bert, search.masks(bert, neurons=(torch.arange(40) > 0).expand(3, 40))).eval()
    with pytest.raises(StudyError, match="1 calibration tokens give 24 equations for 39 unknowns"):
        tuning.tune(wide, teacher, [one], "scale")
    with torch.no_grad():
        student.encoder.layers[1].up.bias[0] = torch.nan
    with pytest.raises(StudyError, match="activations in the ffn of layer 2 are not finite"):
        tuning.tune(student, teacher, [one] * 9)


# what is read of the sentences


def test_regrouped_sentences_are_the_same_without_their_padding(model, batch):
    found = calibration.regroup(model, calibration.sentences([batch, batch]), most=20)
    assert all(b["input_ids"].numel() <= 20 for b in found)

    def texts(batches):
        return sorted(
            ids[mask.bool()].tolist()
            for b in batches
            for ids, mask in zip(b["input_ids"], b["attention_mask"], strict=True)
        )

    assert texts(found) == texts([batch, batch])
    assert all((b["input_ids"][b["attention_mask"] == 0] == PAD).all() for b in found)
    flipped = {name: batch[name].flip(1) for name in ("input_ids", "attention_mask")}
    left = calibration.regroup(model, [flipped])  # padding on the left goes, too
    assert all(b["attention_mask"][:, 0].all() for b in left)


def test_activations_are_means_over_real_tokens(model, batch):
    model = model.double()
    cut = calibration.sentences([batch])
    mean, square = calibration.activations(model, cut, lambda h: h, torch.square)
    seen = []
    hook = encoder.layers(model)[-1].down.register_forward_pre_hook(lambda _, a: seen.append(a[0]))
    for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
        model(input_ids=row[mask.bool()][None], attention_mask=mask[mask.bool()][None])
    hook.remove()
    every = torch.cat([h[0] for h in seen])
    torch.testing.assert_close(mean[-1], every.mean(0).detach())
    torch.testing.assert_close(square[-1], every.square().mean(0).detach())


def test_sentences_must_come_and_lose_their_labels(batch):
    with pytest.raises(StudyError, match="got 0 batches"):
        calibration.sentences([])
    assert "labels" not in calibration.sentences([batch])[0]
    assert sum(len(b["input_ids"]) for b in calibration.first([batch, batch], 7)) == 7


def test_a_run_that_passes_a_module_by_is_refused():
    with pytest.raises(StudyError, match="wanted a run through Linear"):
        calibration.arguments(torch.nn.Linear(1, 1), lambda: None)


def test_the_error_of_layers_is_relative_to_the_dense_model(bert, batch):
    model, other = dense(bert).eval(), dense(tiny("bert")).eval()
    cut = calibration.sentences([batch])
    assert calibration.layer_errors(model, model, cut) == [0, 0, 0]
    with torch.no_grad():
        other.encoder.layers[2].ffn_norm.weight.mul_(2)
        other.encoder.layers[2].ffn_norm.bias.mul_(2)
    assert calibration.layer_errors(model, other, cut) == [0, 0, 1]
