"""Do KCM, its controls and its rivals compute what they state? Each against its own oracle."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lib import pruners
from lib.errors import StudyError
from lib.measures import costs
from lib.measures.evaluate import autocast
from lib.models import encoder
from lib.models.compact import compact, dense
from lib.models.masks import Masks, applied
from lib.pruners import k_prune, kcm, mask_tuning
from lib.scoring import calibration, filters, hull, search, tuning

FAMILY = ("kcm", "ffn", "flap")


@pytest.fixture
def sentences(batch):
    return calibration.sentences([batch])


def hidden(model, batch):
    """Activations of every layer's real tokens, sentence by sentence so that nothing is padded."""
    seen = [[] for _ in encoder.layers(model)]
    hooks = [
        layer.down.register_forward_pre_hook(lambda _, a, kept=kept: kept.append(a[0][0]))
        for layer, kept in zip(encoder.layers(model), seen, strict=True)
    ]
    with torch.no_grad():
        for row, mask in zip(batch["input_ids"], batch["attention_mask"].bool(), strict=True):
            model(input_ids=row[mask][None], attention_mask=mask[mask].long()[None])
    for hook in hooks:
        hook.remove()
    return torch.stack([torch.cat(kept) for kept in seen])  # (L, N, F)


def columns(model):
    return torch.stack([layer.down.weight.T for layer in encoder.layers(model)]).detach().double()


# R2


def by_hand(rows, kernel, stop, limit=0.01):
    """The printed updates, one entry at a time, in numpy."""
    rows = rows.double().numpy()
    size, scale = len(rows), {"2s2": 2.0, "s2": 1.0}[kernel]
    k = np.array([[np.exp(-((a - b) ** 2).sum() / scale) for b in rows] for a in rows])
    c = np.full((size, size), 1 / size)
    for update in range(1, 500):
        new = c * np.sqrt(k / (k @ c))
        moved = {"signed": (new - c).sum(), "abs": abs((new - c).sum()), "l1": abs(new - c).sum()}
        change, c = moved[stop] / c.sum(), new
        if change <= limit:
            return np.diag(c), update
    raise AssertionError


@pytest.mark.parametrize("kernel", ["2s2", "s2"])
@pytest.mark.parametrize("stop", ["signed", "abs", "l1"])
def test_representatives_follow_the_printed_updates(kernel, stop):
    rows = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    found, updates = hull.representatives(rows, kernel=kernel, stop=stop)
    wanted, count = by_hand(rows, kernel, stop)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-9)
    assert updates == count
    assert (updates == 1) == (stop == "signed")


def test_the_kernel_is_exact_and_a_row_is_at_no_distance_of_itself():
    rows = torch.randn(5, 3, generator=torch.Generator().manual_seed(1)) * 3
    for kernel, scale in (("2s2", 2 * 0.7**2), ("s2", 0.7**2)):
        wanted = torch.exp(-(torch.cdist(rows.double(), rows.double()) ** 2) / scale)
        found = hull.gaussian(rows, 0.7, kernel)
        torch.testing.assert_close(found, wanted)
        assert (found.diagonal() == 1).all()


def test_far_rows_represent_themselves_without_dividing_by_zero():
    rows = 1e3 * torch.eye(6)
    for stop in ("signed", "abs", "l1"):
        found, _ = hull.representatives(rows, kernel="s2", stop=stop)
        assert found.isfinite().all()
        assert (found > 1 / 6).all()
    assert hull.representatives(torch.zeros(0, 4))[0].shape == (0,)
    with pytest.raises(StudyError, match="wanted finite weights"):
        hull.representatives(torch.full((2, 2), torch.nan))


# scores


@pytest.mark.parametrize("activation", ["mean", "abs", "rms"])
@pytest.mark.parametrize("normaliser", ["min-max", "l2", "sum", "max"])
def test_kcm_ranks_by_r2_times_normalised_d2(model, sentences, activation, normaliser):
    model = model.double()
    pruner = pruners.get("kcm", tokens=9, activation=activation, normaliser=normaliser)
    found = pruner.scores(model, sentences)
    h = hidden(model, sentences[0]).numpy()
    d2 = {"mean": h.mean(1), "abs": abs(h).mean(1), "rms": np.sqrt((h**2).mean(1))}[activation]
    np.testing.assert_allclose(found.scores["d2"].numpy(), d2, rtol=1e-9, atol=1e-12)
    low, high = d2.min(1, keepdims=True), d2.max(1, keepdims=True)
    scaled = {
        "min-max": (d2 - low) / (high - low),
        "l2": d2 / np.sqrt((d2**2).sum(1, keepdims=True)),
        "sum": d2 / abs(d2).sum(1, keepdims=True),
        "max": d2 / abs(d2).max(1, keepdims=True),
    }[normaliser]
    r2 = np.stack([by_hand(rows, "2s2", "signed")[0] for rows in columns(model)])
    merged = pruner.merged(found.scores).numpy()
    np.testing.assert_allclose(merged, r2 * scaled, rtol=1e-8, atol=1e-14)
    kept = np.zeros(merged.size)
    kept[np.argsort(-merged.ravel(), kind="stable")[:17]] = 1
    assert (pruner.select(found.scores, 17).flatten().numpy() == kept).all()
    assert found.trace["iterations"] == [1] * len(encoder.layers(model))


def test_scores_alone_and_by_layer(bert, sentences):
    scores = pruners.get("kcm", tokens=9).scores(bert, sentences).scores

    def merged(**options):
        options = {"normaliser": "min-max"} | options
        return pruners.get("kcm", tokens=9, **options).merged(scores)

    assert torch.equal(merged(ranks="r2"), scores["r2"])
    assert torch.equal(merged(ranks="d2"), scores["d2"])
    scaled = {name: kcm.normalised(scores[name], "min-max") for name in ("r2", "d2")}
    assert torch.equal(merged(layerwise=True), scaled["r2"] * scaled["d2"])
    assert torch.equal(merged(layerwise=True, ranks="r2"), scaled["r2"])
    assert set(pruners.get("kcm", ranks="r2", tokens=9).scores(bert, sentences).scores) == {"r2"}
    with pytest.raises(StudyError, match="ranks none"):
        pruners.get("kcm", tokens=9, even=True).merged({name: 0 * s for name, s in scores.items()})
    for kept in (7, 60):
        own = pruners.get("kcm", tokens=9, even=True).select(scores, kept)
        assert own.sum() == kept
        assert own.sum(1).max() - own.sum(1).min() <= 1
        best = merged(normaliser="l2").topk(int(own[0].sum())).indices[0]
        assert own[0][best].all()  # in each layer the best of that layer
    constant = torch.ones(2, 3, dtype=torch.float64)
    assert (kcm.normalised(constant, "min-max") == 0).all()
    assert (kcm.normalised(0 * constant, "sum") == 0).all()


def test_voting_keeps_the_unanimous_first_and_asks_the_product_about_the_rest():
    scores = {
        "r2": torch.tensor([[9.0, 8, 7, 1], [6, 5, 4, 3]]).double(),
        "d2": torch.tensor([[0.0, 1, 2, 3], [4, 9, 5, 0]]).double(),
    }
    voter = pruners.get("kcm", merge="voting", tokens=9)
    own = [filters.greatest(scores[name], 4) for name in ("r2", "d2")]
    both, either = own[0] & own[1], own[0] | own[1]
    assert both.sum() < 4 < either.sum()
    kept = voter.select(scores, 4)
    assert kept.sum() == 4
    assert (kept >= both).all()
    assert (kept <= either).all()
    product = voter.merged(scores)
    split = either & ~both
    assert product[kept & split].min() >= product[~kept & split].max()


CONTROLS = {
    "w1": lambda up, down, h: up,
    "w2": lambda up, down, h: down,
    "both": lambda up, down, h: up * down,
    "output": lambda up, down, h: np.abs(h).mean(1) * down,
    "rms": lambda up, down, h: np.sqrt((h**2).mean(1)) * down,
}


@pytest.mark.parametrize("score", CONTROLS)
def test_controls_are_what_they_are_called(model, sentences, score):
    model = model.double()
    found = pruners.get("ffn", score=score, tokens=9).scores(model, sentences).scores["score"]
    up = [
        torch.cat([e.up.weight, e.up.bias[:, None]], 1).norm(dim=1) for e in encoder.layers(model)
    ]
    up, down = torch.stack(up).detach().numpy(), columns(model).norm(dim=2).numpy()
    wanted = CONTROLS[score](up, down, hidden(model, sentences[0]).numpy())
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-9)


def test_energy_is_the_ranking_of_rms_unless_it_is_shared_out_by_layer(bert, sentences):
    rms, energy = (
        pruners.get("ffn", score=score, tokens=9).scores(bert, sentences).scores["score"]
        for score in ("rms", "energy")
    )
    square = rms.square()
    torch.testing.assert_close(energy, square / square.sum(1, keepdim=True))
    assert torch.equal(square.flatten().argsort(), rms.flatten().argsort())
    assert not torch.equal(energy.flatten().argsort(), rms.flatten().argsort())


def test_flap_standardises_fluctuation_and_moves_means_into_biases(model, sentences):
    model = model.double()
    pruner = pruners.get("flap", tokens=9)
    h = hidden(model, sentences[0]).numpy()
    wide = h.var(1) * columns(model).norm(dim=2).numpy() ** 2
    standard = (wide - wide.mean(1, keepdims=True)) / wide.std(1, ddof=1, keepdims=True)
    scores = pruner.scores(model, sentences)
    np.testing.assert_allclose(scores.scores["score"].numpy(), standard, rtol=1e-6, atol=1e-9)
    pruned = pruner.cut(model, scores, 0.8)
    kept = filters.greatest(scores.scores["score"], filters.room(model, 9, 0.8))
    for layer, small, own, mean in zip(
        encoder.layers(model), encoder.layers(pruned), kept, h.mean(1), strict=True
    ):
        lost = layer.down.weight[:, ~own] @ torch.from_numpy(mean)[~own]
        torch.testing.assert_close(small.down.bias, layer.down.bias + lost)
        torch.testing.assert_close(small.down.weight, layer.down.weight[:, own])


# what is kept is what the masked model computes


@pytest.mark.parametrize("name", FAMILY)
def test_compact_equals_masked(model, batch, sentences, name):
    model = model.double()
    pruner = pruners.get(name, tokens=9, recover="none")
    scores = pruner.scores(model, sentences)
    ranking = pruner.merged(scores.scores) if name == "kcm" else scores.scores["score"]
    kept = filters.greatest(ranking, filters.room(model, 9, 0.75))
    pruned = pruner.cut(model, scores, 0.75)
    with applied(model, search.masks(model, neurons=kept)), torch.no_grad():
        torch.testing.assert_close(
            pruned(**batch).logits, model(**batch).logits, rtol=0, atol=1e-10
        )


def test_a_layer_may_lose_its_whole_ffn(bert, batch, sentences):
    """What stays there: the output bias, the residual and the LayerNorm."""
    scores = torch.rand(3, 40, generator=torch.Generator().manual_seed(0)).double()
    scores[1] -= 1
    sight = filters.Sight({"score": scores}, sentences)

    def select(kept):
        return filters.greatest(scores, kept)

    for recover in ("none", "scale", "refit"):
        pruned = filters.prune(bert, select, sight, 0.75, 9, recover)
        assert encoder.shape(pruned).layers[1].neurons == 0
        assert pruned(**batch).logits.isfinite().all()
    bare = filters.prune(bert, select, sight, 0.75, 9, "none")
    with applied(bert, search.masks(bert, neurons=select(filters.room(bert, 9, 0.75)))):
        torch.testing.assert_close(bare(**batch).logits, bert(**batch).logits, rtol=1e-4, atol=1e-4)


def test_the_teacher_of_tuning_keeps_the_root_of_the_budget(bert, sentences, monkeypatch):
    seen = []
    real = filters.tuning.tune
    monkeypatch.setattr(filters.tuning, "tune", lambda *a, **k: seen.append(a[1]) or real(*a, **k))
    for guide in ("sqrt", "dense"):
        pruners.get("kcm", tokens=9, guide=guide)(bert, sentences, 0.64)
    sizes = [sum(layer.neurons for layer in encoder.shape(m).layers) for m in seen]
    assert sizes == [search.filters(encoder.shape(bert), 9, 0.8), 120]


def test_heads_may_be_scaled_too(bert, sentences):
    plain, both = (
        pruners.get("kcm", tokens=9, heads=heads)(bert, sentences, 0.75) for heads in (False, True)
    )
    parts = [{step["part"] for step in pruned.trace["tuned"]} for pruned in (plain, both)]
    assert parts == [{"ffn"}, {"attention", "ffn"}]
    for index, own in enumerate(encoder.layers(bert)):
        weights = [encoder.layers(pruned)[index].output.weight for pruned in (plain, both)]
        torch.testing.assert_close(weights[0], own.output.weight)
        assert torch.equal(*weights) == (index == 0)  # as in the paper, not the first layer's


# no gradients, no labels


@pytest.mark.parametrize("name", FAMILY)
def test_no_backward_pass_and_no_label(bert, batch, sentences, monkeypatch, name):
    class Unlabelled(dict):
        def __getitem__(self, key):
            assert key != "labels", "a label was read"
            return super().__getitem__(key)

        def items(self):  # to drop labels a batch must be walked, which is not to read them
            return super().items()

    def backward(*_, **__):
        raise AssertionError("a backward pass")

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    monkeypatch.setattr(torch.autograd, "backward", backward)
    monkeypatch.setattr(torch.autograd, "grad", backward)
    wrong = batch | {"labels": torch.full_like(batch["labels"], 10**6)}  # any use of it would fail
    pruner = pruners.get(name, tokens=9)
    assert pruner.needs == "examples"
    with_labels = pruner(bert, [Unlabelled(wrong)], 0.75)
    with torch.no_grad():
        without = pruner(bert, sentences, 0.75)
    torch.testing.assert_close(with_labels.state_dict(), without.state_dict(), rtol=0, atol=0)
    assert all(p.grad is None for p in bert.parameters())


def test_only_kcm_of_labels_asks_for_labels():
    needs = {labels: pruners.get("kcm", labels=labels).needs for labels in (0, 512)}
    assert needs == {0: "examples", 512: "labels"}
    assert pruners.get("ffn", score="w1", recover="none").needs == "nothing"
    assert pruners.get("ffn", score="rms", recover="none").needs == "examples"


def test_r2_alone_chooses_without_a_sentence_and_leaves_its_errors(bert, batch):
    pruner = pruners.get("kcm", tokens=9, ranks="r2", recover="none")
    other = batch | {"input_ids": batch["input_ids"].flip(0)}
    one, two = (pruner(bert, [given], 0.75) for given in (batch, other))
    torch.testing.assert_close(one.state_dict(), two.state_dict(), rtol=0, atol=0)
    assert len(one.trace["layer_errors"]) == 3
    assert "tuned" not in one.trace


# the labelled extension


def test_the_gradient_is_one_pass_over_the_masks(model, batch):
    model = model.double()
    masks = Masks.dense(model)
    masks.neurons.requires_grad_()
    total = 0
    for row in range(5):
        one = {name: tensor[row : row + 1] for name, tensor in batch.items()}
        with applied(model, masks):
            total = total + model(**one).loss
    [wanted] = torch.autograd.grad(total, masks.neurons)
    parts = kcm.labelled([batch], 5)
    torch.testing.assert_close(kcm.gradient(model, parts), wanted.abs())
    halves = [{n: t[rows] for n, t in batch.items()} for rows in (slice(3), slice(3, 5))]
    torch.testing.assert_close(kcm.gradient(model, halves), wanted.abs())


@pytest.mark.parametrize("seed", range(10))
def test_swaps_stop_at_the_first_that_does_not_help(seed):
    draw = torch.Generator().manual_seed(seed)
    scores, gradient = (torch.rand(3, 7, generator=draw).double() for _ in range(2))
    kept = filters.greatest(scores, 9)
    wanted = kept.flatten().tolist()
    s, g = scores.flatten().tolist(), gradient.flatten().tolist()
    lowest = sorted((i for i in range(21) if wanted[i]), key=lambda i: s[i])
    for j in sorted((j for j in range(21) if not wanted[j]), key=lambda j: -g[j]):
        if not lowest or g[j] <= g[lowest[0]]:
            break
        wanted[lowest.pop(0)], wanted[j] = False, True
    found = kcm.swapped(kept, scores, gradient)
    assert found.flatten().tolist() == wanted
    assert found.sum() == 9
    assert gradient[found].sum() >= gradient[kept].sum()


def test_labels_are_those_of_the_first_sentences_and_must_suffice(bert, batch):
    assert sum(len(b["labels"]) for b in kcm.labelled([batch, batch], 7)) == 7
    with pytest.raises(StudyError, match="wanted 7 labelled sentences, got 5"):
        pruners.get("kcm", tokens=9, labels=7)(bert, [batch], 0.75)
    other = batch | {"labels": (batch["labels"] + 1) % 3}
    one, two = (
        pruners.get("kcm", tokens=9, labels=5)(bert, [batch, rest], 0.75) for rest in (batch, other)
    )
    torch.testing.assert_close(one.state_dict(), two.state_dict(), rtol=0, atol=0)


# Mask-Tuning


def test_fisher_squares_the_gradient_of_each_batch(model, batch):
    model = model.double()
    halves = [{n: t[rows] for n, t in batch.items()} for rows in (slice(3), slice(3, 5))]
    found = mask_tuning.gradients(model, halves)
    for index, half in enumerate(halves):
        masks = Masks.dense(model)
        leaves = [masks.heads.requires_grad_(), masks.neurons.requires_grad_()]
        with applied(model, masks):
            wanted = torch.autograd.grad(model(**half).loss, leaves)
        torch.testing.assert_close(found["heads"][index], wanted[0])
        torch.testing.assert_close(found["neurons"][index], wanted[1])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("count", [0, 1, 4, 8])
def test_rearrangement_follows_the_greedy_exchange(seed, count):
    slopes = torch.randn(3, 1, 8, generator=torch.Generator().manual_seed(seed)).double()
    rows = slopes[:, 0].T.numpy()
    order = sorted(range(8), key=lambda i: (rows[i] ** 2).sum())
    pruned = order[:count]
    for unit in order[count:] if count else []:
        tried = [*pruned, unit]
        costs = [
            (sum(rows[i] for i in tried if i != out) ** 2).sum() if len(tried) > 1 else 0
            for out in tried
        ]
        pruned = [i for i in tried if i != tried[int(np.argmin(costs))]]
    kept = search.top((slopes**2).sum(0), 8 - count)
    found = mask_tuning.rearranged(slopes, kept)
    assert sorted((~found[0]).nonzero().flatten().tolist()) == sorted(pruned)

    def loss(stays):
        return float(slopes[:, 0, ~stays[0]].sum(1).square().sum())

    assert loss(found) <= loss(kept) + 1e-12


def test_mask_tuning_follows_what_the_search_keeps_at_the_root_of_the_budget(
    bert, batch, monkeypatch
):
    seen, tune = [], tuning.tune

    def spy(pruned, teacher, *rest, **more):
        seen.extend([pruned, teacher])
        return tune(pruned, teacher, *rest, **more)

    monkeypatch.setattr(tuning, "tune", spy)
    pruners.get("mask-tuning", tokens=9)(bert, [batch], 0.49)
    whole = costs.encoder_macs(encoder.shape(bert), 9)
    pruned, teacher = (costs.encoder_macs(encoder.shape(one), 9) / whole for one in seen)
    assert 0.45 < pruned <= 0.49
    assert 0.66 < teacher <= 0.7


def test_mask_tuning_shrinks_what_the_search_found(bert, batch):
    untuned = pruners.get("mask-tuning", tokens=9, tune=False)
    scores = untuned.scores(bert, [batch, {n: t.flip(0) for n, t in batch.items()}])
    pruned = untuned.cut(bert, scores, 0.5)
    heads, neurons = (scores.scores[unit].square().sum(0) for unit in ("heads", "neurons"))
    found = search.search(heads, neurons, encoder.shape(bert), 9, 0.5)
    for layer, h, n in zip(encoder.shape(pruned).layers, found.heads, found.neurons, strict=True):
        assert (layer.heads, layer.neurons) == (int(h.sum()), int(n.sum()))
    kept = {
        unit: mask_tuning.rearranged(scores.scores[unit], getattr(found, unit) != 0)
        for unit in ("heads", "neurons")
    }
    torch.testing.assert_close(
        pruned.state_dict(), compact(bert, search.masks(bert, **kept)).state_dict()
    )
    tuned = replace(untuned, tune=True).cut(bert, scores, 0.5)
    assert encoder.shape(tuned) == encoder.shape(pruned)
    assert tuned.trace["seconds"].keys() == {"fisher", "search", "rearrange", "scale"}
    assert "labels" not in scores.batches[0]


# K-prune


def test_knowledge_is_slope_and_energy(bert, sentences):
    bert = bert.double()
    pruner = pruners.get("k-prune", tokens=9, representation=0.5, temperature=3.0, heads=7.0)
    student = dense(bert).requires_grad_(False)
    with torch.no_grad():
        student.encoder.layers[0].down.weight.mul_(0.5)  # so that the two disagree
        answers = [bert(**b).logits for b in sentences]
    found = pruner.knowledge(student, answers, sentences)

    masks = Masks.dense(student)
    leaves = [masks.vo.requires_grad_(), masks.neurons.requires_grad_()]
    with applied(student, masks):
        logits = student(**sentences[0]).logits
    p, q = (torch.softmax(x / 3, 1) for x in (answers[0], logits))
    kl = 9 * (p * (p / q).log()).sum(1).mean()
    vo, neurons = torch.autograd.grad(kl, leaves)
    h = hidden(student, sentences[0])
    energy = h.square().mean(1) * columns(student).square().mean(2)
    wanted = neurons.square() / (2 * 5) + 0.5 * energy
    torch.testing.assert_close(found["neurons"], wanted, rtol=1e-6, atol=1e-12)
    seen = []
    hook = encoder.layers(student)[1].output.register_forward_pre_hook(
        lambda _, a: seen.append(a[0][sentences[0]["attention_mask"].bool()])
    )
    student(**sentences[0])
    hook.remove()
    weight = encoder.layers(student)[1].output.weight
    energy = seen[0].square().mean(0) * weight.square().mean(0)
    each = vo[1].flatten().square() / (2 * 5) + 0.5 * energy
    torch.testing.assert_close(
        found["heads"][1], 7 * each.view(4, 6).mean(1), rtol=1e-6, atol=1e-12
    )


def test_k_prune_wants_a_token_for_every_weight_that_it_refits(bert):
    one = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.ones(1, 3).long()}
    with pytest.raises(StudyError, match=r"3 calibration tokens give 3 equations for \d+ unknowns"):
        pruners.get("k-prune", tokens=9)(bert, [one], 0.8)


def test_the_threshold_is_one_for_both_kinds():
    heads, neurons = (
        torch.tensor([[5.0, 1]]).double(),
        torch.tensor([[4.0, 2, 3], [0, 6, 7]]).double(),
    )
    stays = k_prune.threshold([heads, neurons], (10, 1), 13.0)
    assert stays[0].int().tolist() == [[1, 0]]
    assert stays[1].int().tolist() == [[1, 0, 0], [0, 1, 1]]


def test_k_prune_refits_what_it_cuts(bert, batch, sentences):
    """Nearer to the dense model than the same cut without refitting; and really smaller."""
    pruned = pruners.get("k-prune", tokens=9)(bert, sentences, 0.6)
    kept = {"neurons": [], "heads": []}
    for layer, small in zip(encoder.layers(bert), encoder.layers(pruned), strict=True):
        match = (small.up.weight[:, None] == layer.up.weight).all(-1)
        kept["neurons"].append(match.any(0))
        assert match.any(1).all()
        match = (small.query.weight[:, None] == layer.query.weight).all(-1)
        kept["heads"].append(match.any(0).unflatten(0, (4, -1)).all(-1))
        assert match.any(1).all()
    kept = {unit: torch.stack(each) for unit, each in kept.items()}
    shapes = encoder.shape(pruned).layers
    assert kept["neurons"].sum(1).tolist() == [layer.neurons for layer in shapes]
    assert kept["heads"].sum(1).tolist() == [layer.heads for layer in shapes]
    bare = filters.traced(bert, compact(bert, search.masks(bert, **kept)).eval(), sentences)
    assert pruned.trace["layer_errors"][-1] < 0.8 * bare["layer_errors"][-1]
    assert set(pruned.trace["seconds"]) == {"measure", "refit"}


def sums(model, batch, index, part):
    """Residual, what enters the projection, and their sum before the norm, of real tokens."""
    layer, seen = model.encoder.layers[index], {}
    names = ("output", "attention_norm") if part == "heads" else ("down", "ffn_norm")
    linear, norm = (getattr(layer, name) for name in names)
    hooks = [
        linear.register_forward_pre_hook(lambda _, a: seen.update(h=a[0])),
        norm.register_forward_pre_hook(lambda _, a: seen.update(sum=a[0])),
    ]
    with torch.no_grad():
        model(**batch)
        residual = seen["sum"] - linear(seen["h"])
    for hook in hooks:
        hook.remove()
    real = batch["attention_mask"].bool()
    return linear, residual[real], seen["h"][real], seen["sum"][real]


@pytest.mark.parametrize("budget", [0.5, 0.7])
def test_k_prune_climbs_as_its_steps_say(bert, sentences, budget):
    """Measure, cut by one threshold over all that is above, refit, from the bottom; by hand."""
    bert = bert.double()
    pruner = pruners.get("k-prune", tokens=9, representation=0.05, heads=3.0)
    pruned = pruner(bert, sentences, budget)
    teacher, student = dense(bert), dense(bert).requires_grad_(False)
    batch, width, hidden = sentences[0], 6, 24
    answers = [bert(**batch).logits.detach()]
    price = {"heads": 4 * 9 * hidden * width + 2 * 9**2 * width, "neurons": 2 * 9 * hidden}
    left = budget * 3 * (4 * price["heads"] + 40 * price["neurons"])
    for index, small in enumerate(pruned.encoder.layers):
        for part in ("heads", "neurons"):
            found = pruner.knowledge(student, answers, sentences)
            start = {"heads": index + (part == "neurons"), "neurons": index}
            ranked = sorted(
                (-float(found[kind][layer, unit]) / price[kind], kind, layer, unit)
                for kind in price
                for layer in range(start[kind], 3)
                for unit in range(found[kind].shape[1])
            )
            stays, spent = [], 0
            for _, kind, layer, unit in ranked:
                spent += price[kind]
                if spent > left:
                    break
                stays += [unit] if (kind, layer) == (part, index) else []
            stays.sort()
            left -= len(stays) * price[part]
            linear, residual, h, _ = sums(student, batch, index, part)
            goal = sums(teacher, batch, index, part)[3]
            kept = [n for n in range(h.shape[1]) if n // (width if part == "heads" else 1) in stays]
            h, target, old = h[:, kept].numpy(), (goal - residual - linear.bias).numpy(), linear
            size = np.sqrt(tuning.RIDGE * (h**2).sum(0).mean())
            new = np.linalg.lstsq(
                np.vstack([h, size * np.eye(len(kept))]),
                np.vstack([target, size * old.weight[:, kept].T.numpy()]),
            )[0].T
            old.weight.zero_()
            old.weight[:, kept] = torch.from_numpy(new)
            own = small.output if part == "heads" else small.down
            assert own.weight.shape[1] == len(kept)
            torch.testing.assert_close(own.weight, old.weight[:, kept], rtol=1e-6, atol=1e-8)
    for part, share in (("heads", 4), ("neurons", 40)):
        each = [getattr(layer, part) for layer in encoder.shape(pruned).layers]
        assert 0 < sum(each) < 3 * share


def test_k_prune_on_a_regression(make_classifier, batch, sentences):
    model = make_classifier("bert", 1)
    model.config.problem_type = "regression"
    assert pruners.get("k-prune", tokens=9)(model, sentences, 0.7)(**sentences[0]).logits.shape == (
        5,
        1,
    )


# bad input


def test_scores_that_rank_nothing_are_refused():
    with pytest.raises(StudyError, match="NaN or infinity in layer 2"):
        filters.greatest(torch.tensor([[1.0, 2], [torch.nan, 3]]), 2)
    with pytest.raises(StudyError, match="every filter scores 0, which ranks none"):
        filters.greatest(torch.zeros(2, 3), 2)


@pytest.mark.parametrize("name", FAMILY)
def test_activations_that_are_not_finite_are_refused(bert, sentences, name):
    with torch.no_grad():
        encoder.layers(bert)[1].up.bias[3] = torch.inf
    with pytest.raises(
        StudyError, match=r"layer 2 are not finite|layer 1 are not finite|NaN or inf"
    ):
        pruners.get(name, tokens=9, **({"score": "rms"} if name == "ffn" else {}))(
            bert, sentences, 0.75
        )


@pytest.mark.parametrize("ranks", ["r2d2", "d2"])
def test_filters_that_never_fire_go_first_and_if_none_fires_nothing_ranks(bert, sentences, ranks):
    silent = torch.zeros(3, 40, dtype=torch.bool)
    silent[0, 30:], silent[1, ::8], silent[2, 3] = True, True, True
    with torch.no_grad():
        for layer, own in zip(encoder.layers(bert), silent, strict=True):
            layer.up.weight[own], layer.up.bias[own] = 0, 0
    pruner = pruners.get("kcm", tokens=9, ranks=ranks)
    found, count = pruner.scores(bert, sentences).scores, int(silent.sum())
    assert (pruner.select(found, 120 - count) == ~silent).all()
    assert (pruner.select(found, 120 - count // 2) | silent).all()
    with torch.no_grad():
        for layer in encoder.layers(bert):
            layer.up.weight.zero_()
            layer.up.bias.zero_()
    with pytest.raises(StudyError, match="do the calibration sentences make any of them fire"):
        pruners.get("kcm", tokens=9)(bert, sentences, 0.75)


LABELLED = {"kcm": {"labels": 5}, "mask-tuning": {}}


@pytest.mark.parametrize("name", LABELLED)
def test_gradients_that_teach_nothing_are_refused(bert, make_classifier, batch, name):
    """Every label is the one that losses leave out, NaN, or of no consequence."""
    pruner = pruners.get(name, tokens=9, **LABELLED[name])
    ignored = batch | {"labels": torch.full_like(batch["labels"], -100)}
    with pytest.raises(StudyError, match="scores 0, which ranks none; are the sentences labelled"):
        pruner(bert, [ignored], 0.75)
    regression = make_classifier("bert", 1)
    regression.config.problem_type = "regression"
    unknown = batch | {"labels": torch.full((5,), torch.nan)}
    with pytest.raises(StudyError, match="NaN or infinity in layer 1; are the sentences labelled"):
        pruner(regression, [unknown], 0.75)
    with torch.no_grad():
        bert.classifier.weight.zero_()
    with pytest.raises(StudyError, match=r"every (filter|head) scores 0, which ranks none"):
        pruner(bert, [batch], 0.75)


@pytest.mark.parametrize("name", [*LABELLED, "k-prune"])
def test_neurons_that_never_fire_rank_none(bert, batch, name):
    with torch.no_grad():
        for layer in encoder.layers(bert):
            layer.up.weight.zero_()
            layer.up.bias.zero_()
    with pytest.raises(StudyError, match=r"every (filter|neuron) scores 0, which ranks none"):
        pruners.get(name, tokens=9, **LABELLED.get(name, {}))(bert, [batch], 0.75)


def test_k_prune_refuses_what_is_not_finite(bert, sentences):
    with torch.no_grad():
        encoder.layers(bert)[1].up.bias[3] = torch.inf
    with pytest.raises(StudyError, match=r"finite scores of heads.* in layer [123]; do the calib"):
        pruners.get("k-prune", tokens=9)(bert, sentences, 0.75)


@pytest.mark.parametrize("name", [*FAMILY, "mask-tuning", "k-prune"])
def test_bad_input_is_refused_before_any_work(bert, batch, name):
    def untouched():
        raise AssertionError("read")
        yield

    with pytest.raises(StudyError, match="needs a sequence length"):
        pruners.get(name)(bert, untouched(), 0.5)
    floor = 0.3 if name in FAMILY else 1e-3
    with pytest.raises(StudyError, match="ask for more"):
        pruners.get(name, tokens=9)(bert, untouched(), floor)
    with pytest.raises(StudyError, match="got 0 batches"):
        pruners.get(name, tokens=9)(bert, [], 0.8)
    uneven = compact(bert, search.masks(bert, neurons=torch.ones(3, 40).tril()))
    with pytest.raises(StudyError, match="every layer of one shape"):
        pruners.get(name, tokens=9)(uneven, untouched(), 0.8)
    bert.config.model_type = "gpt2"
    with pytest.raises(StudyError, match="unknown architecture 'gpt2'"):
        pruners.get(name, tokens=9)(bert, untouched(), 0.8)


def test_options_that_mean_nothing_are_refused():
    for name, options, said in (
        ("kcm", {"recover": "bias"}, "recover 'bias' is flap's"),
        ("ffn", {"recover": "bias"}, "recover 'bias' is flap's"),
        ("kcm", {"merge": "voting", "ranks": "r2"}, "voting wants two scores"),
        ("kcm", {"heads": True, "recover": "none"}, "recover 'none' mends no heads"),
        ("kcm", {"sigma": 0.0}, "sigma and limit above 0"),
        ("kcm", {"tokens": 0.0}, "wanted tokens above 0"),
        ("k-prune", {"temperature": 0.0}, "heads and temperature above 0"),
        ("kcm", {"unit": "attention"}, "unknown unit"),
    ):
        with pytest.raises(StudyError, match=said):
            pruners.get(name, **options)


def test_under_autocast_sums_stay_exact_and_every_step_is_on_record(bert, sentences):
    with autocast(torch.device("cpu"), "bfloat16"):
        pruned = pruners.get("kcm", tokens=9)(bert, sentences, 0.75)
    trace = pruned.trace
    assert set(trace) == {"layer_errors", "iterations", "tuned", "seconds", "process_peak_bytes"}
    assert 2**26 < trace["process_peak_bytes"] < 2**40  # with torch alone it is more than 64 MiB
    assert set(trace["seconds"]) == {"r2", "d2", "scale"}
    assert len(trace["layer_errors"]) == len(trace["iterations"]) == 3
    assert [step["layer"] for step in trace["tuned"]] == [0, 1, 2]


def test_under_autocast_the_same_filters_are_scaled_nearly_as_in_float32(bert, sentences):
    """By a tenth of what scaling changes at all: its sums must not be those of bfloat16."""
    kept = filters.greatest(torch.rand(3, 40, generator=torch.Generator().manual_seed(0)), 70)
    student, teacher = filters._compact(bert, kept), dense(bert).eval()
    exact = tuning.tune(student, teacher, sentences).model
    with autocast(torch.device("cpu"), "bfloat16"):
        near = tuning.tune(student, teacher, sentences).model
    for old, wanted, came in zip(*(m.encoder.layers for m in (student, exact, near)), strict=True):
        before, after, there = (layer.down.weight for layer in (old, wanted, came))
        assert (there - after).norm() < 0.1 * (after - before).norm()
