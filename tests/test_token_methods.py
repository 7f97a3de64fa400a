"""Four ways to drop tokens: what each learns, how its knob meets a budget, what goes on record."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from datasets import Dataset

from lib import pruners, study
from lib.errors import StudyError
from lib.measures import costs
from lib.models import encoder
from lib.pruners import ltp, power_bert, top, transkimmer
from lib.scoring import importance
from lib.tokens import dropping
from lib.tokens.costs import dense_macs, executed_macs, fraction, measure, survivors
from lib.tokens.dropping import Walk
from lib.tokens.model import gated, ruled, wrap
from lib.tokens.training import calibrate, distilled, draw, floor, settle, split
from lib.training import batches

NONE = {"rule": "none"}


def stream(count, size=8, seed=0):
    """Batches of texts of like length, 4 to 30 tokens, as training sees them."""
    generator, found = torch.Generator().manual_seed(seed), []
    for longest in torch.randint(6, 31, (count,), generator=generator).tolist():
        lengths = torch.randint(longest - 2, longest + 1, (size,), generator=generator)
        mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
        ids = torch.randint(2, 50, mask.shape, generator=generator).masked_fill(mask == 0, 1)
        labels = (ids == 7).any(1).long()
        found.append({"input_ids": ids, "attention_mask": mask, "labels": labels})
    return found


@pytest.fixture
def data(batch):
    other = {name: tensor.flip(0) for name, tensor in batch.items()}
    return [batch, other] * 3


@pytest.fixture
def inputs(batch):
    return {name: tensor for name, tensor in batch.items() if name != "labels"}


# --- PoWER-BERT -----------------------------------------------------------------------------------


def test_retention_becomes_lengths_that_only_fall():
    r = torch.tensor([[1.0, 1.0, 0.5, 0.4], [1.0, 1.0, 1.0, 1.0], [0.3, 0.0, 0.0, 0.0]])
    assert power_bert.schedule(r) == [2, 2, 1]  # floor of 2.9; no more than before; CLS stays
    assert power_bert.schedule(torch.ones(2, 4)) == [4, 4]


def test_lengths_scale_alike_and_within_bounds():
    assert power_bert.scaled([8, 4, 2], 0.5, 9) == {"lengths": [8, 4, 2]}
    assert power_bert.scaled([8, 4, 2], 2 / 3, 9) == {"lengths": [4, 2, 1]}
    assert power_bert.scaled([8, 4, 2], 0.01, 9) == {"lengths": [9, 9, 9]}
    assert power_bert.scaled([8, 4, 2], 1.0, 9) == {"lengths": [1, 1, 1]}


ORDERS = ("attention", "random", "first")


@pytest.mark.parametrize("order", ORDERS)
def test_soft_retention_of_0_and_1_cuts_what_hard_extraction_cuts(bert, inputs, order):
    """Zeroed word vectors are not yet gone, so states are compared right behind the cut."""
    made = wrap(bert.double(), NONE)
    r = torch.zeros(3, 9, dtype=torch.double)
    r[:, :4] = 1
    seen = {}

    class Look(power_bert.Soft):
        def between(self, index, x, walk):
            found = super().between(index, x, walk)
            if index == 0:
                seen["soft"] = found, walk.alive
            return found

    with gated(made, Look(r, order, 0)):
        made(**inputs)
    soft, alive = seen["soft"]
    hard = wrap(made, {"rule": "rank", "by": order, "lengths": [4] * 3, "seed": 0})
    kept = hard.encoder(**inputs, output_survivors=True).survivors[:, 1]
    assert torch.equal((soft.abs().sum(-1) > 0) & alive, kept)


def test_the_penalty_shrinks_later_layers_more(bert, data):
    """A longest rank that no text has feels the penalty alone; it falls by l times as much."""
    pruner = pruners.get("power-bert", retention_lr=1e-9, penalty=10.0, lr=1e-9)
    student, pulls = wrap(bert, NONE).train().requires_grad_(True), []

    def loss(model, batch):
        r = model.encoder.gate.r
        if not pulls:
            r.register_hook(lambda grad: pulls.append(grad.sum(1)))
        return importance.loss(model, batch)

    r, _ = pruner._retention(student, data, 12, loss)
    assert r.shape == (3, 12)
    torch.testing.assert_close(pulls[0] / 120, torch.tensor([1.0, 2, 3]), rtol=0, atol=0.01)


def steps_of(method):
    """The search steps of every study that trains it."""
    specs = [s for p in study.PROFILES for s in study.specs("tokens", p) if s.method == method]
    return sorted({round(0.4 * s.training["sees"]["steps"]) for s in specs})


def test_retention_can_reach_0_in_every_study(bert, batch):
    assert steps_of("power-bert")[0] == 24  # of the quick profile
    one = {
        name: tensor[:1, :2] if tensor.dim() > 1 else tensor[:1] for name, tensor in batch.items()
    }
    for steps in steps_of("power-bert")[:2]:  # with more it gets there the sooner
        student = wrap(bert, NONE).train().requires_grad_(True)
        r, _ = pruners.get("power-bert", penalty=10.0)._retention(student, [one] * steps, 4)
        assert r.max() == 0


def test_controls_differ_in_who_stays_alone(bert, data):
    """Random ones are those of the highest chance, first ones the first, at equal work."""
    made = {o: pruners.get("power-bert", order=o, seed=3)(bert, data, 0.7) for o in ORDERS}
    assert all(fraction(model, data)[0] == pytest.approx(0.7, abs=0.05) for model in made.values())
    ids, mask = data[0]["input_ids"], data[0]["attention_mask"].bool()
    places = torch.arange(9).expand(5, 9)
    own = {"random": dropping.chance(ids, places, 3), "first": -places.float()}
    for order, scores in own.items():
        found = survivors(made[order], data[:1])[0]
        length = made[order].config.tokens["lengths"][0]
        assert torch.equal(found[:, 1], mask & (dropping.ranks(scores, mask) < length))
        assert (found[:, 1].sum(-1) < mask.sum(-1)).any()
    assert not torch.equal(survivors(made["random"], data[:1])[0][:, 1], found[:, 1])


def test_a_control_searches_by_its_own_order(bert, data):
    student, seen = wrap(bert, NONE).train().requires_grad_(True), []

    def loss(model, batch):
        seen.append((model.encoder.gate.by, model.encoder.gate.seed))
        return importance.loss(model, batch)

    for order in ORDERS:
        pruners.get("power-bert", order=order, seed=2)._retention(student, data[:1], 9, loss)
    assert seen == [(order, 2) for order in ORDERS]


# --- a teacher ------------------------------------------------------------------------------------


def test_what_a_dense_model_teaches_is_the_divergence_of_its_answers(bert, make_classifier, batch):
    torch.manual_seed(0)
    other = make_classifier("bert")
    for parameter in other.classifier.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    whole, student = wrap(other, NONE), wrap(bert, NONE)
    task = importance.loss(student, batch)
    assert distilled(student, student, batch, 7.0).item() == pytest.approx(task.item())
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    soft = [(model(**inputs).logits / 2).log_softmax(-1) for model in (student, whole)]
    kl = 4 * (soft[1].exp() * (soft[1] - soft[0])).sum(-1).mean()
    found = distilled(student, whole, batch, 0.5)
    assert found.item() == pytest.approx((task + 0.5 * kl).item(), rel=1e-5)
    assert kl > 0.01
    with pytest.raises(StudyError, match="wanted labelled batches"):
        distilled(student, whole, inputs, 0.5)


def test_a_control_may_be_taught_as_what_it_controls(bert, data):
    plain, taught = (
        pruners.get("power-bert", order="random", distil=weight)(bert, data, 0.7)
        for weight in (0.0, 1.0)
    )
    assert taught.trace["settling"] != plain.trace["settling"]
    assert taught.trace["searching"] != plain.trace["searching"]


# --- LTP ------------------------------------------------------------------------------------------


def test_a_cold_sigmoid_is_the_threshold(bert, inputs):
    """At temperature 0 the soft mask zeroes whom the threshold drops, in the layer that decides."""
    made = wrap(bert.double(), NONE)
    theta = torch.tensor([0.13] * 3, dtype=torch.double)
    gate, seen = ltp.Soft(theta, 1e-9 * theta, []), []
    after = gate.after
    gate.after = lambda index, x, walk: seen.append(after(index, x, walk)) or seen[-1]
    with gated(made, gate):
        made(**inputs)
    hard = wrap(made, {"rule": "threshold", "thresholds": [0.13] * 3})
    enters = hard.encoder(**inputs, output_survivors=True).survivors[:, 2]
    valid = inputs["attention_mask"].bool()
    assert torch.equal((seen[0].abs().sum(-1) > 1e-6) & valid, enters)
    assert len(gate.kept) == 2  # the last layer decides nothing


def test_thresholds_scale_by_one_factor_and_stay_above_the_least(bert, data):
    assert ltp.scaled([0.1, 0.2], 0.5)["thresholds"] == pytest.approx([0.1, 0.2])
    assert ltp.scaled([0.1, 0.2], 0.75)["thresholds"] == pytest.approx([0.3, 0.6])
    assert ltp.scaled([0.1, 0.2], 1.0)["thresholds"] == [2.0, 2.0]
    rule = {"rule": "threshold", "thresholds": [0.05, 0.1, 0.15]}
    student = wrap(bert, rule).train().requires_grad_(True)
    theta, _ = pruners.get("ltp", threshold_lr=1.0, penalty=-10.0)._thresholds(student, data)
    assert theta[0] == pytest.approx(ltp.LEAST)  # a negative penalty wants all masks open
    theta, _ = pruners.get("ltp", penalty=10.0)._thresholds(student, data)
    assert 1.3 < theta[0] / 0.05 < 1.6  # by about half, and in proportion to where it began
    assert 1.3 < theta[1] / 0.1 < 1.6
    assert theta[2] == pytest.approx(0.15)  # the last layer decides nothing


def test_thresholds_rise_from_nothing_in_the_first_half_of_the_search(bert, monkeypatch):
    seen, after = [], ltp.Soft.after

    def spy(gate, index, x, walk):
        if index == 1:
            seen.append(float(gate.thresholds[1].detach()))
        return after(gate, index, x, walk)

    monkeypatch.setattr(ltp.Soft, "after", spy)
    student = wrap(bert, {"rule": "threshold", "thresholds": [0.05, 0.1, 0.15]})
    student.train().requires_grad_(True)
    pruners.get("ltp", threshold_lr=1e-9, rising=True)._thresholds(student, stream(8))
    assert seen == pytest.approx([0.1 * min(step / 4, 1) for step in range(8)])


@pytest.mark.parametrize("budget", [0.75, 0.45])
def test_thresholds_begin_at_the_budget_and_end_near_where_training_left_them(bert, budget):
    pruned = pruners.get("ltp", lr=1e-3)(bert, stream(30), budget)
    assert 2 / 3 < pruned.trace["factor"] < 3 / 2
    own, final = pruned.trace["thresholds"], pruned.config.tokens["thresholds"]
    assert pruned.trace["factor"] == pytest.approx(final[1] / own[1], abs=1e-3)
    assert pruned.trace["own"] == pytest.approx(budget, abs=0.15)


def test_the_penalty_counts_the_masks_of_all_layers(bert, data):
    losses = []
    for penalty in (0.0, 1.0):
        student = wrap(bert, {"rule": "threshold", "thresholds": [1e-4] * 3}).requires_grad_(True)
        losses.append(pruners.get("ltp", penalty=penalty)._thresholds(student, data[:1])[1][0])
    assert losses[1] - losses[0] == pytest.approx(2, abs=0.01)  # two layers decide, all masks open


# --- Transkimmer ----------------------------------------------------------------------------------


def test_predictors_begin_by_keeping_all_and_never_let_a_token_return(bert, inputs):
    rule = {"rule": "skim", "shift": 0.0, "renormalise": True}
    made = wrap(bert.double(), rule)
    assert made.encoder(**inputs, output_survivors=True).survivors[:, -1].sum() == (
        inputs["attention_mask"].sum()
    )
    gate, seen = transkimmer.Soft(made.encoder.predictors, True, []), []
    for predictor in made.encoder.predictors:
        predictor[-1].bias.data.zero_()
    before = gate.before

    def look(index, x, walk):
        found = before(index, x, walk)
        seen.append(walk.weights.detach())
        return found

    gate.before = look
    with gated(made, gate):
        made(**inputs).logits.sum().backward()
    assert set(torch.cat(seen).round(decimals=6).unique().tolist()) == {0.0, 1.0}
    assert all((later <= sooner).all() for sooner, later in pairwise(seen))
    assert all((mask[:, 0] == 1).all() for mask in seen)
    assert made.encoder.predictors[0][1].weight.grad.abs().sum() > 0  # straight through


def test_logits_keep_their_precision_under_autocast(bert):
    predictor = wrap(bert, {"rule": "skim", "shift": 0.0, "renormalise": True}).encoder.predictors[
        0
    ]
    x = torch.randn(1, 200, 24, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = predictor(x)
    assert logits.dtype == torch.float32
    assert logits[0, :, 1].unique().numel() > 150


def test_normalised_masks_are_dropping_and_the_paper_s_form_is_not(bert, inputs):
    torch.manual_seed(0)
    p = torch.rand(2, 3, 5, 5, dtype=torch.double)
    w = torch.tensor([[1, 1, 0, 1, 0]] * 2).double()
    kept = w[0].bool()
    found = dropping.weighed(p.softmax(-1), w, normalise=True)
    torch.testing.assert_close(found[..., kept], p[..., kept].softmax(-1), rtol=0, atol=1e-12)
    faulty = dropping.weighed(p.softmax(-1), w, normalise=False)
    assert (faulty.sum(-1) < 0.9).all()


def test_the_paper_s_form_drops_nothing_and_says_what_it_claims(bert, data, digits):
    pruned = pruners.get("transkimmer", faulty=True, free=True)(bert, data, 0.5)
    ruled(pruned, shift=-9.9)  # a few tokens go
    claimed, real = (fraction(pruned, data, claimed=c)[0] for c in (True, False))
    assert real > 1  # the predictors come on top
    assert claimed < real
    one = {name: tensor[:1] for name, tensor in data[0].items()}
    macs = costs.count_macs(pruned, one)
    assert macs == round(fraction(pruned, [one])[0] * costs.encoder_macs(encoder.shape(bert), 9))


def test_a_free_transkimmer_ignores_the_budget(bert, data):
    free = [pruners.get("transkimmer", free=True)(bert, data, budget) for budget in (0.9, 0.3)]
    torch.testing.assert_close(free[0].state_dict(), free[1].state_dict(), rtol=0, atol=0)
    assert free[0].trace["own"] > 1  # nothing is skimmed in six steps


def test_the_price_of_work_brings_transkimmer_to_its_budget(bert):
    pruner = pruners.get("transkimmer", lr=3e-5, predictor_lr=0.02)
    pruned = pruner(bert, stream(120), 0.5)
    assert pruned.trace["executed"][0] > 1
    assert pruned.trace["own"] == pytest.approx(0.5, abs=0.05)
    assert abs(pruned.config.tokens["shift"]) < 0.5  # of logits that began 10 apart


def test_the_price_is_on_the_work_that_is_counted(bert):
    shape = encoder.shape(bert)
    lengths = np.array([[8, 8, 4, 4, 2, 2]])
    kept = [torch.tensor(n) for n in (0.5, 0.25, 0.125)]
    texts = np.array([16])
    counted = executed_macs(shape, lengths, texts) / dense_macs(shape, texts)
    found = transkimmer.executed(shape, kept, torch.tensor(16.0))
    assert found.item() == pytest.approx(counted.item())


# --- ToP ------------------------------------------------------------------------------------------


def test_bins_are_by_rank_and_leave_cls_out():
    received = torch.tensor([[9.0, 0.4, 0.1, 0.3, 0.2, 5.0]])
    alive = torch.tensor([[True] * 5 + [False]])
    found = top.bins(received, alive, 2)
    assert found[0, 1:5].tolist() == [0, 1, 0, 1]


def test_soft_worth_of_0_and_1_is_dropping_bins(bert, inputs):
    made = wrap(bert.double(), NONE)
    worth = torch.ones(3, 4, dtype=torch.double)
    worth[1, 2:], worth[2, 3:] = 0, 0
    with gated(made, top.Soft(worth)):
        soft = made(**inputs).logits
    rule = {"rule": "bins", "kept": worth.int().tolist()}
    hard = wrap(made, rule)(**inputs).logits
    torch.testing.assert_close(hard, soft, rtol=0, atol=1e-10)


def test_expected_macs_follow_the_formula(bert):
    shape = encoder.shape(bert)
    worth = torch.ones(3, 4)
    worth[1:, 2:] = 0  # half, then a quarter, of 16 tokens
    found = top.expected_macs(shape, worth, torch.tensor(16.0))
    each = [costs.encoder_macs(encoder.Shape(24, shape.layers[:1]), n) for n in (16, 8, 4)]
    assert found.item() == pytest.approx(sum(each) / costs.encoder_macs(shape, 16))


def test_lambda_rank_against_its_pairs_one_by_one():
    torch.manual_seed(1)
    received, ranked = torch.rand(1, 5), torch.rand(1, 5)
    valid = torch.tensor([[True, True, True, True, False]])
    found = top.lambda_rank(received, ranked, valid).item()
    order = sorted((1, 2, 3), key=lambda t: -ranked[0, t])
    score = [math.log(received[0, t]) for t in order]
    place = {n: rank for rank, n in enumerate(sorted(range(3), key=lambda n: -score[n]))}
    gain = [1 - n / 5 for n in range(5)]
    discount = [1 / math.log2(place[n] + 2) for n in range(3)]
    ideal = sum(gain[n] / math.log2(n + 2) for n in range(3))
    total = sum(
        math.log1p(math.exp(score[j] - score[i]))
        * (gain[i] - gain[j])
        * abs(discount[i] - discount[j])
        for i in range(3)
        for j in range(i + 1, 3)
    )
    assert found == pytest.approx(total / ideal, rel=1e-5)


def test_ranking_is_learned(bert, inputs):
    """Descending the ranking loss brings the student's order to the teacher's."""
    received = torch.tensor([[0.3, 0.1, 0.2, 0.3, 0.4]], requires_grad=True)
    ranked = torch.tensor([[0.9, 0.4, 0.3, 0.2, 0.1]])
    optimiser = torch.optim.SGD([received], lr=0.05)
    for _ in range(200):
        optimiser.zero_grad()
        top.lambda_rank(received, ranked, torch.ones(1, 5).bool()).backward()
        optimiser.step()
    assert received[0, 1:].argsort(descending=True).tolist() == [0, 1, 2, 3]


def test_which_layers_decide(bert, data):
    for released, last in ((True, {1, 2}), (False, {1})):
        pruned = pruners.get("top", bins=4, released=released)(bert, data, 0.6)
        cut = {layer for layer, kept in enumerate(pruned.config.tokens["kept"]) if not all(kept)}
        assert cut
        assert cut <= last
    code, paper = (pruners.get("top", released=it) for it in (True, False))
    assert [code.deciding(layers).start for layers in (2, 3, 6, 12, 24)] == [1, 1, 1, 2, 4]
    assert code.deciding(12) == range(2, 12)
    assert paper.deciding(12) == range(1, 11)
    assert {layer for layer, _ in top._order(torch.ones(12, 5), range(2, 12))} == set(range(2, 12))
    assert floor(bert, "after", 2) == pytest.approx(2 / 3)


def test_a_search_begins_with_all_tokens_and_gates_that_are_shut_or_open(bert, data):
    def begins(released: bool) -> float:
        prune = pruners.get("top", bins=4, released=released)
        return prune(bert, data, 0.6).trace["expected"][0]

    assert begins(True) > 0.999 > begins(False) > 0.9
    drawn = torch.tensor([0.2, 0.7], requires_grad=True)
    hard = top._hard(drawn)
    hard.sum().backward()
    assert hard.tolist() == [0, 1]
    assert drawn.grad.tolist() == [1, 1]


@pytest.mark.parametrize("released", [True, False])
def test_gates_are_hard_by_the_released_code_alone(bert, data, monkeypatch, released):
    passed, hard = [], top._hard
    monkeypatch.setattr(top, "_hard", lambda gates: passed.append(hard(gates)) or passed[-1])
    pruners.get("top", bins=4, released=released)(bert, data, 0.6)
    assert bool(passed) == released
    assert set(torch.cat(passed).unique().tolist() if passed else [0]) <= {0.0, 1.0}


def test_ranking_adds_to_the_loss_with_its_weight(bert, data, monkeypatch):
    monkeypatch.setattr(top, "lambda_rank", lambda received, ranked, valid: torch.tensor(1000.0))
    without, with_it = (
        pruners.get("top", bins=4, ranking=weight)(bert, data, 0.6).trace["searching"][0]
        for weight in (0.0, 0.5)
    )
    assert with_it - without == pytest.approx(500, rel=0.01)


def test_ranks_are_by_attention_to_what_is_left():
    """What the student's layers rank by is renormalised over the tokens that have worth."""
    probabilities = torch.rand(1, 2, 4, 4).softmax(-1)
    worth = torch.tensor([[1.0, 0.5, 0.0, 1.0]])
    alive, places = torch.ones(1, 4, dtype=torch.bool), torch.arange(4)[None]
    walk, gate = Walk(alive, places, places, weights=worth), top.Soft(columns=[])
    gate.weigh(1, walk)(probabilities)
    own = torch.zeros(4)
    for head in range(2):
        for query in (0, 1, 3):  # the third has left
            row = probabilities[0, head, query] * worth[0]
            own += row / row.sum() / 2 / 3
    torch.testing.assert_close(walk.column[0], own)


def test_a_regression_is_distilled_too(make_classifier, data):
    model = make_classifier("bert", labels=1)
    some = [batch | {"labels": batch["labels"].float()} for batch in data]
    assert pruners.get("top", bins=4)(model, some, 0.7).trace["searching"]


# --- knobs ----------------------------------------------------------------------------------------


def test_a_budget_is_met_on_texts_that_the_knob_has_not_seen(bert):
    """Batches hold texts of like length, so some of them would not stand for the stream."""
    batches = sorted(stream(200), key=lambda batch: batch["input_ids"].shape[1])
    made = wrap(bert, {"rule": "rank", "by": "first", "lengths": [20, 12, 4], "seed": 0})

    def knob(value):
        return power_bert.scaled([20, 12, 4], value, 30)

    for seed in range(2):
        reached = calibrate(made, knob, draw(made, batches, seed), 0.6)
        assert fraction(made, draw(made, stream(200), 9))[0] == pytest.approx(reached, abs=0.01)


def texts_of(batches):
    pairs = ((b["input_ids"], b["attention_mask"].bool()) for b in batches)
    return [ids[row][mask[row]].tolist() for ids, mask in pairs for row in range(len(ids))]


def test_the_sample_is_that_of_the_seed_and_its_texts_stay_whole(bert):
    batches = stream(100)
    first, again, other = (draw(bert, batches, seed) for seed in (0, 0, 1))
    assert texts_of(first) == texts_of(again) != texts_of(other)
    assert len(texts_of(first)) == 512
    assert all(text in texts_of(batches) for text in texts_of(first)[:20])
    assert "labels" not in first[0]
    assert sorted(texts_of(draw(bert, batches[:2], 0))) == sorted(texts_of(batches[:2]))


def test_the_knob_is_set_again_behind_the_training(bert):
    """Decisions move with the weights, here from half of all tokens to all of them."""
    made = wrap(bert, {"rule": "threshold", "thresholds": [0.05] * 3})
    texts = draw(made, stream(20), 0)

    def loss(model, batch):
        ruled(model, thresholds=[0.0] * 3)
        return importance.loss(model, batch)

    found = settle(
        made, lambda knob: ltp.scaled([0.05] * 3, knob), texts, stream(4), 0.75, 1e-5, loss
    )
    assert found["before"] <= 0.75
    assert found["trained"] == pytest.approx(1)
    assert found["reached"] <= 0.75
    assert fraction(made, texts)[0] == pytest.approx(found["reached"], abs=1e-4)


@pytest.mark.parametrize("search", [0.2, 0.7])
def test_budgets_are_met_on_the_same_texts_whatever_the_search_reads(bert, search):
    pruned = pruners.get("power-bert", search=search)(bert, stream(10), 0.6)
    texts = draw(bert, stream(10), 0)
    assert pruned.trace["reached"] == pytest.approx(fraction(pruned, texts)[0], abs=1e-4)


def test_a_knob_is_set_to_the_budget_or_just_below(bert, data):
    made = wrap(bert, {"rule": "threshold", "thresholds": [0.1] * 3})
    reached = calibrate(made, lambda knob: ltp.scaled([0.1] * 3, knob), data, 0.75)
    assert 0.6 < reached <= 0.75
    assert fraction(made, data)[0] == pytest.approx(reached)


@pytest.mark.parametrize("name", ["power-bert", "ltp", "transkimmer", "top"])
def test_budgets_out_of_reach_are_refused_in_one_line(name, bert, data):
    with pytest.raises(StudyError, match="ask for more") as refusal:
        pruners.get(name)(bert, data, 0.01)
    assert "\n" not in str(refusal.value)
    two = [{key: tensor[:, :2] if tensor.dim() > 1 else tensor for key, tensor in data[0].items()}]
    with pytest.raises(StudyError, match="remain on these texts"):
        pruners.get(name)(bert, two * 2, 0.4 if name in ("ltp", "top") else 0.2)


def test_the_floor_is_what_the_first_layer_spends(bert):
    assert floor(bert, "after") == pytest.approx(1 / 3)
    assert floor(bert, "between") == pytest.approx(4 * 24 / (4 * 24 + 2 * 40) / 3)
    assert floor(bert, "before") < floor(bert, "between")


def test_a_stream_is_split_into_two_parts_that_are_not_empty():
    assert [len(part) for part in split([{}] * 10, 0.4)] == [4, 6]
    assert [len(part) for part in split([{}] * 2, 0.9)] == [1, 1]
    assert [len(part) for part in split([{}] * 5, 0.01)] == [1, 4]


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("power-bert", {"search": 1.0}, "wanted search between 0 and 1"),
        ("power-bert", {"order": "last"}, "unknown order 'last'"),
        ("ltp", {"temperature": 0.0}, "a temperature above 0"),
        ("transkimmer", {"faulty": True}, "set free too"),
        ("top", {"bins": 1}, "at least 2 bins"),
        ("ltp", {"unit": "macs"}, "unknown unit 'macs'"),
    ],
)
def test_hyperparameters_that_mean_nothing_are_refused(name, options, line):
    with pytest.raises(StudyError, match=line):
        pruners.get(name, **options)


@pytest.mark.parametrize("name", ["power-bert", "ltp", "transkimmer", "top"])
def test_a_model_with_fewer_heads_and_neurons_is_pruned_too(name, bert, data):
    smaller = pruners.get("random", unit="encoder")(bert, iter(()), 0.5)
    pruned = pruners.get(name)(smaller, data, 0.75)
    assert encoder.shape(pruned) == encoder.shape(smaller)
    assert fraction(pruned, data)[0] <= 0.75  # of the smaller model's own
    assert pruned(**data[0]).logits.isfinite().all()


# --- on record ------------------------------------------------------------------------------------


@pytest.fixture
def texts():
    words = [" ".join(f"t{2 + (7 * n + k) % 40}" for k in range(1 + n % 11)) for n in range(70)]
    return Dataset.from_dict({"text": words, "label": [n % 3 for n in range(70)]})


def test_what_ran_is_measured_against_three_dense_models(bert, texts, digits):
    made = wrap(bert, {"rule": "rank", "by": "first", "lengths": [6, 4, 1], "seed": 0})
    found = measure(made, digits, texts, 30)
    macs, shape = found["macs"], encoder.shape(bert)
    lengths = [1 + n % 11 for n in range(70)]
    assert macs["padded"] == costs.encoder_macs(shape, 30)
    dense = sum(costs.encoder_macs(shape, n) for n in lengths) / 70
    assert macs["dense"] == pytest.approx(dense, abs=1)
    assert macs["batch"] == costs.encoder_macs(shape, 11)
    encoded = batches.tokenize(texts, digits, 30)
    one = [b for b, _ in batches.evaluation(encoded, digits, tokens=1)]
    assert macs["pruned"] == pytest.approx(sum(costs.count_macs(made, b) for b in one) / 70, abs=1)
    assert macs["claimed"] == macs["pruned"] <= macs["pruned_batch"] <= macs["dense"]
    assert found["mean"][0] == pytest.approx(sum(lengths) / 70, abs=1e-3)
    assert found["mean"][-1] == 1
    assert found["histogram"] == {"8": 52, "16": 18}
    assert len(found["sentences"]) == 6
    first = found["sentences"][0]
    assert first["tokens"] == ["t2"]
    assert first["layers"] == [3]
    longest = next(s for s in found["sentences"] if len(s["tokens"]) > 6)
    assert longest["layers"] == sorted(longest["layers"], reverse=True)
    assert found["batched"]["length"] >= found["length"]
