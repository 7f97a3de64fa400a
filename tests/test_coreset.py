"""Do the options of coreset mean what the talk's readings say?"""

import pytest
import torch

from lib import pruners, study
from lib.errors import StudyError
from lib.measures import costs
from lib.models import encoder, lossless
from lib.pruners import coreset
from lib.scoring import importance
from lib.scoring.search import count

AXES = ("head-dims", "layer-dims", "heads", "inputs")
SAMPLERS = ("top", "uniform", "pps", "without", "until-unique", "with")


def augmented(linear):
    return torch.cat([linear.weight, linear.bias[:, None]], 1).detach()


def products(model):
    """M and N of every head, (L, H, ., .), biases included: what the sample estimates."""
    found = []
    for layer, shape in zip(encoder.layers(model), encoder.shape(model).layers, strict=True):
        q, k, v = (
            augmented(linear).unflatten(0, (shape.heads, -1))
            for linear in (layer.query, layer.key, layer.value)
        )
        o = layer.output.weight.detach().unflatten(1, (shape.heads, -1)).transpose(0, 1)
        found.append((q.mT @ k, o @ v))
    return [torch.stack(part) for part in zip(*found, strict=True)]


def neuron_product(model):
    return torch.stack(
        [layer.down.weight.detach() @ augmented(layer.up) for layer in encoder.layers(model)]
    )


def prune(model, budget=0.5, **options):
    return pruners.get("coreset", **options)(model, [], budget)


@pytest.mark.parametrize("sampler", ["uniform", "pps", "with"])
def test_the_rescaled_sample_estimates_the_products(bert, sampler):
    """Unbiased: over seeds, the mean of M^, of N^ and of the FFN's product comes to the whole."""
    bert, seeds = bert.double(), 60
    found = {name: [] for name in ("qk", "vo", "ffn")}
    for seed in range(seeds):
        small = prune(bert, sampler=sampler, seed=seed, unit="encoder")
        m, n = products(small)
        for name, value in (("qk", m), ("vo", n), ("ffn", neuron_product(small))):
            found[name].append(value)
    m, n = products(bert)
    for name, whole in (("qk", m), ("vo", n), ("ffn", neuron_product(bert))):
        samples = torch.stack(found[name])
        error = (samples.mean(0) - whole).square().sum()
        expected = samples.var(0).sum() / seeds  # of a mean of that many
        assert expected > 0
        assert error < 2 * expected, name


def test_with_replacement_has_the_error_of_the_theorem(bert):
    """E ||M^ - M||^2 = (sum ||q||^2 ||k||^2 / p - ||M||^2) / m (Drineas et al. 2006)."""
    bert, seeds = bert.double(), 60
    m, n = products(bert)
    norms = importance.norms(bert)
    for index, (whole, first, second) in enumerate(
        ((m, norms.query, norms.key), (n, norms.value, norms.output))
    ):
        score = first * second
        p = score / score.sum(-1, keepdim=True)
        expected = ((score.square() / p).sum(-1) - whole.square().sum((-1, -2))) / 3
        errors = [
            (products(prune(bert, sampler="with", seed=seed))[index] - whole).square().sum((-1, -2))
            for seed in range(seeds)
        ]
        assert float(torch.stack(errors).mean()) == pytest.approx(float(expected.mean()), rel=0.08)


def test_top_keeps_the_largest_products_as_they_are(bert):
    small = prune(bert, sampler="top")
    for dense, kept in zip(encoder.layers(bert), encoder.layers(small), strict=True):
        q, k = (augmented(linear).unflatten(0, (4, 6)) for linear in (dense.query, dense.key))
        best = (q.norm(dim=-1) * k.norm(dim=-1)).topk(3).indices.sort().values
        for head in range(4):
            assert torch.equal(augmented(kept.query).view(4, 3, -1)[head], q[head, best[head]])
            assert torch.equal(augmented(kept.key).view(4, 3, -1)[head], k[head, best[head]])


def test_query_key_and_value_output_are_drawn_apart(bert):
    """QK scales the query alone, VO the output alone; their index sets differ."""
    masks, small = encoder.layers(bert), encoder.layers(prune(bert, sampler="pps", seed=1))
    same = []
    for dense, kept in zip(masks, small, strict=True):
        key, value = (
            [[int((row == whole).all(-1).nonzero()[0]) for row in own] for whole, own in heads]
            for heads in (
                zip(dense.key.weight.view(4, 6, -1), kept.key.weight.view(4, 3, -1), strict=True),
                zip(
                    dense.value.weight.view(4, 6, -1), kept.value.weight.view(4, 3, -1), strict=True
                ),
            )
        )
        same += [k == v for k, v in zip(key, value, strict=True)]
    assert not all(same)


@pytest.mark.parametrize("kind", ["product", "first", "second", "mussay"])
def test_scores_are_the_norms_that_they_name(bert, kind):
    bert = bert.double()
    qk, vo, neurons = coreset.scores(bert, kind, beta=0.7)
    whole_qk, whole_vo, _ = coreset.scores(bert, kind, whole=True)
    layer = encoder.layers(bert)[1]
    q, k, v = (augmented(linear) for linear in (layer.query, layer.key, layer.value))
    o, up, down = layer.output.weight.T, augmented(layer.up), layer.down.weight.T

    def score(first, second, phi=lambda x: x):
        norm, peak = torch.linalg.norm, second.abs().max()
        return {
            "product": norm(first) * norm(second),
            "first": norm(first),
            "second": norm(second),
            "mussay": phi(norm(first)) * peak,
        }[kind]

    def phi(norm):
        return torch.nn.functional.gelu(0.7 * norm)

    i = 2 * 6 + 4  # dim 4 of head 2
    assert qk[1, 2, 4] == pytest.approx(score(q[i], k[i]).item())
    assert vo[1, 2, 4] == pytest.approx(score(v[i], o[i]).item())
    assert neurons[1, 9] == pytest.approx(score(up[9], down[9], phi).item())
    head = slice(12, 18)
    assert whole_qk[1, 2] == pytest.approx(score(q[head], k[head]).item())
    assert whole_vo[1, 2] == pytest.approx(score(v[head], o[head]).item())


@pytest.mark.parametrize("sampler", [s for s in SAMPLERS if s != "with"])
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("unit", ["attention", "encoder"])
def test_every_reading_keeps_its_density(bert, axis, sampler, unit):
    small = prune(bert, axis=axis, sampler=sampler, unit=unit)
    kept, whole = costs.nonzero(small), costs.nonzero(bert)
    assert kept.attention / whole.attention == pytest.approx(0.5, abs=0.025)  # b_O, or all biases
    ffn = (kept.encoder - kept.attention) / (whole.encoder - whole.attention)
    assert ffn == pytest.approx({"attention": 1, "encoder": 0.5}[unit], abs=0.04)  # biases, norms


def test_draws_with_replacement_keep_less_than_their_number(bert):
    kept = costs.nonzero(prune(bert, sampler="with")).attention / costs.nonzero(bert).attention
    assert 0.3 < kept < 0.45


def test_axes_differ_in_what_falls_together(bert):
    norms = importance.norms(bert)
    scores = (norms.value * norms.output).flatten(1)
    top = torch.zeros_like(scores).scatter(1, scores.topk(count(24, 0.3)).indices, 1)
    widths = top.view(3, 4, 6).sum(-1)
    shape = encoder.shape(prune(bert, 0.3, axis="layer-dims", sampler="top"))
    assert [layer.vo for layer in shape.layers] == widths.amax(-1).int().tolist()
    assert [layer.heads for layer in shape.layers] == (widths > 0).sum(-1).tolist()
    heads = encoder.shape(prune(bert, axis="heads")).layers
    assert {(layer.heads, layer.qk, layer.vo) for layer in heads} == {(2, 6, 6)}


def test_inputs_are_zeroed_column_by_column(bert):
    pruner = pruners.get("coreset", axis="inputs", sampler="top")
    assert not pruner.compact
    zeroed = pruner(bert, [], 0.5)
    assert type(zeroed) is type(bert)
    for dense, kept in zip(encoder.layers(bert), encoder.layers(zeroed), strict=True):
        for part in ("query", "key", "value", "output"):
            whole, own = getattr(dense, part).weight, getattr(kept, part).weight
            columns = torch.zeros(24).scatter(0, whole.norm(dim=0).topk(12).indices, 1)
            assert torch.equal(own, whole * columns)
        assert torch.equal(dense.up.weight, kept.up.weight)


def test_gordons_conventions(bert):
    """m rounded down, and the count is the budget's; weights 1 / (m p) in the query."""
    bert = bert.double()
    small = prune(bert, 0.65, **study.readings()[-1])
    assert {layer.qk for layer in encoder.shape(small).layers} == {3}
    assert {layer.qk for layer in encoder.shape(prune(bert, 0.65)).layers} == {4}
    qk, _, _ = coreset.scores(bert, "mussay")
    weights = {round(w, 8) for w in (1 / (3 * qk / qk.sum(-1, keepdim=True))).flatten().tolist()}
    whole, kept = encoder.layers(bert)[0], encoder.layers(small)[0]
    for row, key in zip(kept.query.weight, kept.key.weight, strict=True):
        index = int((whole.key.weight == key).all(-1).nonzero()[0])
        ratio = row / whole.query.weight[index]
        assert round(ratio[0].item(), 8) in weights
        assert torch.allclose(ratio, ratio[0])


def test_folding_the_biases_changes_nothing_and_empties_them(model, batch):
    model = model.double()
    folded = lossless.fold_attention_biases(model)
    torch.testing.assert_close(folded(**batch).logits, model(**batch).logits, rtol=0, atol=1e-10)
    for layer in encoder.layers(folded):
        assert not bool(layer.key.bias.any() or layer.value.bias.any())
    assert any(layer.value.bias.any() for layer in encoder.layers(model))


def test_fold_prunes_the_folded_model(bert):
    plain = prune(lossless.fold_attention_biases(bert), sampler="top")
    folded = prune(bert, sampler="top", fold=True)
    torch.testing.assert_close(folded.state_dict(), plain.state_dict(), rtol=0, atol=0)
    assert any(layer.value.bias.any() for layer in encoder.layers(prune(bert, sampler="top")))


def test_rescaling_leaves_what_the_activation_reads(bert):
    small = encoder.layers(prune(bert, unit="encoder", sampler="without"))
    for dense, kept in zip(encoder.layers(bert), small, strict=True):
        rows = (augmented(kept.up)[:, None] == augmented(dense.up)[None]).all(-1).nonzero()[:, 1]
        assert len(rows) == 20
        scale = kept.down.weight / dense.down.weight[:, rows]
        assert torch.allclose(scale, scale[:1].expand_as(scale), rtol=1e-5)
        assert not torch.allclose(scale[0], torch.ones(20))


def test_without_rescaling_the_sample_is_the_same_and_its_weights_are_1(bert):
    for axis in AXES:
        plain, scaled = (prune(bert, axis=axis, rescale=rescale) for rescale in (False, True))
        different = 0
        for one, other in zip(encoder.layers(plain), encoder.layers(scaled), strict=True):
            for part in ("query", "output"):
                left, right = getattr(one, part).weight, getattr(other, part).weight
                assert torch.equal(left != 0, right != 0)
                different += int((left != right).sum())
        assert different > 0, axis
    kept = encoder.layers(prune(bert, rescale=False))
    for one, whole in zip(kept, encoder.layers(bert), strict=True):
        assert bool(torch.isin(one.query.weight, whole.query.weight).all())


def test_whole_heads_go_by_the_product_of_both_pairs(bert):
    """QK alone would keep heads 1 and 3, VO alone 2 and 3, their product keeps 0 and 3."""
    layer = encoder.layers(bert)[0]
    for head, (qk, vo) in enumerate([(1.5, 1.5), (9, 0.1), (0.1, 9), (2, 2)]):
        rows = slice(head * 6, head * 6 + 6)
        for tensor, factor in ((layer.query, qk), (layer.value, vo)):
            tensor.weight.data[rows] *= factor
            tensor.bias.data[rows] *= factor
    kept = encoder.layers(prune(bert, axis="heads", sampler="top"))[0].query.weight
    whole = layer.query.weight.view(4, 6, -1)
    assert torch.equal(kept.view(2, 6, -1), whole[[0, 3]])


def test_bad_options_are_refused_in_one_line():
    with pytest.raises(StudyError, match="unknown sampler 'tops'; did you mean top"):
        pruners.get("coreset", sampler="tops")
    with pytest.raises(StudyError, match="axis inputs draws each matrix alone"):
        pruners.get("coreset", axis="inputs", importance="mussay")
    with pytest.raises(StudyError, match="wanted beta as float, got 'big'"):
        pruners.get("coreset", beta="big")
    with pytest.raises(StudyError, match="wanted rescale as bool, got 1"):
        pruners.get("coreset", rescale=1)
