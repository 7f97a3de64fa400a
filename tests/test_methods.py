"""Do the methods compute what their papers state? Each against an oracle of its own."""

from itertools import pairwise

import pytest
import torch
from test_coreset import augmented, prune
from torch import nn

from lib import pruners
from lib.measures import costs
from lib.models import encoder
from lib.models.masks import Masks, applied
from lib.pruners import gradient, svd, taylor
from lib.scoring import importance


def slopes(model, batch, masks, parts):
    """dL/dmask, by autograd through the masks themselves."""
    leaves = [getattr(masks, part).requires_grad_() for part in parts]
    with applied(model, masks):
        return torch.autograd.grad(model(**batch).loss, leaves)


def quiet(model):
    """Without dropout, so that training is what the test computes by hand."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


@pytest.fixture
def batches(batch):
    half = [
        {name: tensor[rows] for name, tensor in batch.items()} for rows in (slice(3), slice(3, 5))
    ]
    return half


# svd


def factors(model):
    """Of every head, Q~ (H, D + 1, qk), W_K (H, qk, D), O (H, D, vo), W_V (H, vo, D), by layer."""
    for layer, shape in zip(encoder.layers(model), encoder.shape(model).layers, strict=True):
        q, k, v = (
            rows.detach().unflatten(0, (shape.heads, -1))
            for rows in (augmented(layer.query), layer.key.weight, layer.value.weight)
        )
        o = layer.output.weight.detach().unflatten(1, (shape.heads, -1)).transpose(0, 1)
        yield q.mT, k, o, v


def errors(pruned, model):
    """||M^ - M|| and ||N^ - N|| of every head: (2, L * H)."""
    pairs = zip(factors(pruned), factors(model), strict=True)
    both = [
        ((q @ k - qq @ kk).flatten(1).norm(dim=1), (o @ v - oo @ vv).flatten(1).norm(dim=1))
        for (q, k, o, v), (qq, kk, oo, vv) in pairs
    ]
    return torch.stack([torch.cat(part) for part in zip(*both, strict=True)])


@pytest.mark.parametrize("gamma", [False, True])
def test_a_rotation_changes_nothing(model, batch, gamma):
    model = model.double()
    rotated = svd.rotate(model, gamma)
    torch.testing.assert_close(rotated(**batch).logits, model(**batch).logits, rtol=0, atol=1e-10)
    assert not torch.equal(
        encoder.layers(rotated)[0].query.weight, encoder.layers(model)[0].query.weight
    )


@pytest.mark.parametrize("budget", [0.9, 0.5, 0.3])
def test_svd_reaches_the_least_error_of_its_rank(model, budget):
    """Eckart and Young: the norm of the singular values that are dropped."""
    model = model.double()
    found = errors(pruners.get("svd")(model, [], budget), model)
    for index, part in enumerate([(0, 1), (2, 3)]):
        products = [layer[part[0]] @ layer[part[1]] for layer in factors(model)]
        width = model.config.hidden_size // model.config.num_attention_heads
        values = torch.linalg.svdvals(torch.cat(products))[:, :width]
        least = values[:, round(width * budget) :].norm(dim=1)
        torch.testing.assert_close(found[index], least, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("sampler", ["top", "uniform", "pps", "without", "until-unique", "with"])
def test_no_sampler_beats_the_rotation(bert, sampler, rescale):
    bert = bert.double()
    best = errors(pruners.get("svd")(bert, [], 0.5), bert)
    for seed in range(3):
        other = errors(prune(bert, sampler=sampler, rescale=rescale, seed=seed), bert)
        assert (other > best).all()


def test_gamma_is_optimal_for_normalised_inputs(bert):
    """Folding the LayerNorm before each layer into its inputs gives the same, unweighted."""
    bert = bert.double()

    def normalised(model):
        """Products in x^, where x = gamma * x^ + beta; b_K and the constant of V drop out."""
        norm, found = encoder.stem(bert).norm, []
        for (q, k, o, v), layer in zip(factors(model), encoder.layers(bert), strict=True):
            scale, shift = norm.weight.detach(), norm.bias.detach()
            rows = torch.cat(
                [q[:, :-1] * scale[:, None], q[:, -1:] + (shift @ q[:, :-1])[:, None]], 1
            )
            found.append((rows @ (k * scale), o @ (v * scale)))
            norm = layer.ffn_norm
        return [torch.cat(part) for part in zip(*found, strict=True)]

    whole = normalised(bert)
    weighted, plain = (
        normalised(pruners.get("svd", gamma=gamma)(bert, [], 0.5)) for gamma in (True, False)
    )
    for dense, best, other in zip(whole, weighted, plain, strict=True):
        least = torch.linalg.svdvals(dense)[:, 3:6].norm(dim=1)
        torch.testing.assert_close(
            (best - dense).flatten(1).norm(dim=1), least, rtol=1e-9, atol=1e-9
        )
        assert ((other - dense).flatten(1).norm(dim=1) > least * 1.001).all()


def test_svd_keeps_neurons_by_magnitude(bert):
    by_svd = encoder.layers(pruners.get("svd", unit="encoder")(bert, [], 0.5))
    by_magnitude = encoder.layers(pruners.get("magnitude", unit="encoder")(bert, [], 0.5))
    for one, other in zip(by_svd, by_magnitude, strict=True):
        assert torch.equal(one.up.weight, other.up.weight)


# magnitude, random, unstructured


def test_magnitude_is_the_coreset_of_certainty(bert):
    one = pruners.get("magnitude", unit="encoder")(bert, [], 0.3)
    other = prune(bert, 0.3, unit="encoder", sampler="top")
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_random_keeps_rows_as_they_are_and_each_equally_often(bert):
    dense, counts = encoder.layers(bert)[0].key.weight, torch.zeros(24)
    for seed in range(40):
        kept = encoder.layers(pruners.get("random", seed=seed)(bert, [], 0.5))[0].key.weight
        rows = (kept[:, None] == dense[None]).all(-1).nonzero()[:, 1]
        assert (rows // 6).bincount().tolist() == [3] * 4
        counts[rows] += 1
    assert counts.min() > 8
    assert counts.max() < 32


@pytest.mark.parametrize("unit", ["attention", "encoder"])
def test_unstructured_drops_the_smallest_of_all_layers(bert, unit):
    zeroed = pruners.get("unstructured", unit=unit)(bert, [], 0.4)
    pools = [("query", "key", "value", "output"), ("up", "down")]
    for pool in pools if unit == "encoder" else pools[:1]:
        pairs = [
            (getattr(dense, part), getattr(kept, part))
            for dense, kept in zip(encoder.layers(bert), encoder.layers(zeroed), strict=True)
            for part in pool
        ]
        whole = torch.cat([dense.weight.flatten() for dense, _ in pairs])
        kept = torch.cat([own.weight.flatten() for _, own in pairs])
        biases = sum(dense.bias.numel() for dense, _ in pairs)
        dropped = kept == 0
        assert int(dropped.sum()) == len(whole) + biases - round(0.4 * (len(whole) + biases))
        assert whole[dropped].abs().max() <= whole[~dropped].abs().min()
        assert torch.equal(kept[~dropped], whole[~dropped])
    assert costs.params(zeroed) == costs.params(bert)
    assert zeroed.state_dict().keys() == bert.state_dict().keys()


# taylor


def test_taylor_scores_are_derivatives_by_the_masks(model, batches):
    model = model.double()
    masks = Masks.dense(model)
    masks.neurons[0, :7] = masks.heads[0, 1] = 0
    found = taylor.scores(model, masks, batches)
    parts = ("heads", "neurons", "qk", "vo")
    by_mask = [slopes(model, batch, masks, parts) for batch in batches]
    heads, neurons, qk, vo = (sum(s.abs() for s in part) for part in zip(*by_mask, strict=True))
    torch.testing.assert_close(found["qk"], qk)
    torch.testing.assert_close(found["vo"], vo * masks.heads[..., None])
    torch.testing.assert_close(found["heads"], heads * masks.heads)
    assert not bool(found["heads"][0, 1] or found["neurons"][0, :7].any())
    torch.testing.assert_close(found["neurons"], neurons * masks.neurons)
    assert bool((found["inputs"][0, 7:] > 0).all())


def test_taylor_counts_both_matrices_of_neurons_in_even_layers(bert, batch):
    bert = bert.double()
    for uneven in (False, True):
        pruner = pruners.get("taylor", unit="encoder", steps=1, uneven=uneven)
        pruned = encoder.layers(pruner(bert, [batch], 0.5))
        bert.zero_grad()
        bert(**batch).loss.backward()
        scores = []
        for layer in encoder.layers(bert):
            up, down = layer.up, layer.down
            inputs = (up.weight * up.weight.grad).sum(1) + up.bias * up.bias.grad
            outputs = (down.weight * down.weight.grad).sum(0)
            scores.append(outputs.abs() + (0 if uneven else inputs.abs()))
        scores = torch.stack(scores).detach()
        least = scores.flatten().topk(60).values[-1] if uneven else scores.topk(20).values[:, -1:]
        for dense, own, kept in zip(encoder.layers(bert), pruned, scores >= least, strict=True):
            assert torch.equal(own.up.weight, dense.up.weight[kept])


def test_steps_score_the_model_that_is_left(bert, batches, monkeypatch):
    seen, scores = [], taylor.scores

    def spy(model, masks, data):
        seen.append(int(masks.heads.sum()))
        return scores(model, masks, data)

    monkeypatch.setattr(taylor, "scores", spy)
    pruned = pruners.get("taylor", steps=3)(bert, batches, 0.25)
    assert seen == [12, 9, 6]
    assert sum(layer.heads for layer in encoder.shape(pruned).layers) == 3


def test_kinds_ranked_apart_keep_the_same_share_of_each(bert, batches):
    pruner = pruners.get("taylor", unit="macs", tokens=9, steps=2, apart=True)
    shape = encoder.shape(pruner(bert, batches, 0.6))
    heads, neurons = (sum(getattr(one, n) for one in shape.layers) for n in ("heads", "neurons"))
    assert heads == 7  # .6 of 12, rounded down
    assert neurons == pytest.approx(0.6 * 120, abs=3)
    spent = costs.encoder_macs(shape, 9) / costs.encoder_macs(encoder.shape(bert), 9)
    assert 0.59 < spent <= 0.6


def test_uneven_layers_only_where_asked(bert, batches):
    def widths(**options):
        shape = encoder.shape(pruners.get("taylor", unit="encoder", **options)(bert, batches, 0.5))
        return [(layer.heads, layer.qk, layer.neurons) for layer in shape.layers]

    assert set(widths(uneven=False)) == {(2, 6, 20)}
    assert set(widths(uneven=False, granularity="dims")) == {(4, 3, 20)}
    assert len(set(widths())) > 1
    assert sum(heads for heads, _, _ in widths()) == 6
    dims = widths(granularity="dims")
    assert sum(qk for _, qk, _ in dims) == 9
    assert len({qk for _, qk, _ in dims}) > 1


# gradient


def test_michel_takes_the_absolute_value_of_each_example(model, batch):
    model = model.double()
    found = gradient.sensitivities(model, [batch])
    expected = [0, 0]
    for row in range(len(batch["labels"])):
        one = {name: tensor[row : row + 1] for name, tensor in batch.items()}
        by_mask = slopes(model, one, Masks.dense(model), ("heads", "neurons"))
        expected = [total + slope.abs() for total, slope in zip(expected, by_mask, strict=True)]
    torch.testing.assert_close(found, tuple(expected))


def test_michel_normalises_layers_before_it_ranks_them(bert, batches):
    heads, _ = gradient.sensitivities(bert, batches)
    scores = heads / heads.square().sum(1, keepdim=True).sqrt()
    kept = torch.zeros(12).scatter(0, scores.flatten().topk(6).indices, 1).view(3, 4)
    pruned = pruners.get("gradient", reading="michel")(bert, batches, 0.5)
    assert [layer.heads for layer in encoder.shape(pruned).layers] == kept.sum(1).int().tolist()


def test_the_talks_reading_adds_up_changes_of_gradients(bert, batches):
    bert = quiet(bert)

    def clipped(batch):
        bert.zero_grad()
        bert.train()(**batch).loss.backward()
        nn.utils.clip_grad_norm_(bert.parameters(), 1e9)
        return {name: p.grad.clone() for name, p in bert.named_parameters()}

    first, second = map(clipped, batches)
    found = gradient.changes(bert, [*batches, batches[1]], lr=0.0, seed=0)
    prefix = "bert.encoder.layer.1"
    change = {name: 2 * (second[name] - first[name]).abs() for name in first}
    query = change[f"{prefix}.attention.self.query.weight"].sum(1)
    query = query + change[f"{prefix}.attention.self.query.bias"]
    output = change[f"{prefix}.attention.output.dense.weight"].sum(0)
    torch.testing.assert_close(found.query[1], query.view(4, 6).double(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.output[1], output.view(4, 6).double(), rtol=1e-4, atol=1e-6)
    down = change[f"{prefix}.output.dense.weight"].sum(0).double()
    torch.testing.assert_close(found.down[1], down, rtol=1e-4, atol=1e-6)
    trained = gradient.changes(bert, [batches[0]] * 2, lr=1e-2, seed=0)
    assert (trained.query > 0).all()  # the same batch twice: only training can change its gradient
    assert (gradient.changes(bert, [batches[0]] * 2, lr=0.0, seed=0).query == 0).all()


def test_the_talks_reading_keeps_what_changes_most(bert, batches):
    bert = quiet(bert)
    change = gradient.changes(bert, batches, lr=2e-5, seed=0)
    best = (change.query + change.key)[2, 1].topk(3).indices.sort().values
    pruned = pruners.get("gradient")(bert, batches, 0.5)
    kept = encoder.layers(pruned)[2].query.weight.view(4, 3, -1)[1]
    assert torch.equal(kept, encoder.layers(bert)[2].query.weight.view(4, 6, -1)[1, best])


# movement


def test_movement_keeps_what_grows(bert, batch):
    """At learning rate 0 the scores are -dL/dmask of the dense model; and the sign matters."""
    bert = quiet(bert).train()
    grown = slopes(bert, batch, Masks.dense(bert), ("qk", "vo", "neurons"))
    pruned = pruners.get("movement", unit="encoder", lr=0.0)(bert, [batch], 0.5)
    layer, whole = encoder.layers(pruned)[1], encoder.layers(bert)[1]
    for part, slope in (("query", grown[0]), ("value", grown[1])):
        best = (-slope[1, 3]).topk(3).indices.sort().values
        kept = getattr(layer, part).weight.view(4, 3, -1)[3]
        assert torch.equal(kept, getattr(whole, part).weight.view(4, 6, -1)[3, best])
    best = (-grown[2][1]).topk(20).indices.sort().values
    assert torch.equal(layer.up.weight, whole.up.weight[best])


def test_movement_scores_under_the_masks_of_the_moment(bert, batches):
    """Straight through: what the mask drops keeps on gathering a score, and may come back."""
    bert = quiet(bert).train()
    data = batches * 2
    pruner = pruners.get("movement", lr=0.0, warmup=0.0, cooldown=0.1)
    scores = {part: torch.zeros(3, 4, 6) for part in ("qk", "vo")}
    for step, batch in enumerate(data):
        width = round(6 * pruner.kept(step / 4, 0.3))
        masks = Masks.dense(bert)
        for part, score in scores.items():
            kept = torch.zeros_like(score).scatter(-1, score.topk(width).indices, 1)
            getattr(masks, part).copy_(kept)
        for part, slope in zip(scores, slopes(bert, batch, masks, scores), strict=True):
            scores[part] = scores[part] - slope
    pruned = encoder.layers(pruner(bert, data, 0.3))
    for index, layer in enumerate(encoder.layers(bert)):
        best = scores["vo"][index].topk(2).indices.sort().values
        rows = layer.value.weight.view(4, 6, -1).take_along_dim(best[..., None], 1)
        assert torch.equal(pruned[index].value.weight.view(4, 2, -1), rows)


def test_movement_follows_the_cubic_schedule():
    pruner = pruners.get("movement", warmup=0.1, cooldown=0.2)
    assert [pruner.kept(progress, 0.4) for progress in (0.0, 0.1, 0.8, 1.0)] == [1, 1, 0.4, 0.4]
    assert pruner.kept(0.45, 0.4) == pytest.approx(0.4 + 0.6 / 8)


def test_movement_returns_what_it_trained(bert, batches):
    pruned = pruners.get("movement", lr=1e-2)(bert, batches, 0.5)
    assert not torch.equal(pruned.classifier.weight, bert.classifier.weight)
    assert pruned.training == bert.training


# what they share


def test_steps_train_with_a_falling_rate(bert, batches):
    before = bert.classifier.bias.detach().clone()
    moves = []
    with importance.throwaway(bert, 0) as student:
        for batch in importance.steps(student, batches * 2, 1e-3):
            moves.append(student.classifier.bias.detach().clone())
            importance.loss(student, batch).backward()
        moves.append(student.classifier.bias.detach().clone())
    assert torch.equal(moves[0], before)
    assert torch.equal(bert.classifier.bias, before)
    sizes = [float((b - a).abs().max()) for a, b in pairwise(moves)]
    assert sizes[0] == pytest.approx(1e-3, rel=0.1)
    assert sizes[-1] < 5e-4


def test_steps_clip_gradients(bert, batches):
    with importance.throwaway(bert, 0) as student:
        for batch in importance.steps(student, batches, 1e-3):
            (1e4 * importance.loss(student, batch)).backward()
        norms = torch.stack([p.grad.norm() for p in student.parameters() if p.grad is not None])
    assert norms.norm().item() == pytest.approx(1.0, rel=1e-3)


def test_units_own_rows_with_biases_and_columns(bert):
    norms, peaks = importance.norms(bert), importance.peaks(bert)
    layer = encoder.layers(bert)[0]
    row, column = augmented(layer.value)[6 + 2], layer.output.weight[:, 6 + 2].detach()
    assert norms.value[0, 1, 2] == pytest.approx(row.norm().item())
    assert peaks.value[0, 1, 2] == pytest.approx(row.abs().max().item())
    assert norms.output[0, 1, 2] == pytest.approx(column.norm().item())
    assert peaks.output[0, 1, 2] == pytest.approx(column.abs().max().item())
