"""Every pruner, one contract."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
import torch

from lib import pruners
from lib.errors import StudyError
from lib.measures import costs
from lib.models import encoder
from lib.tokens.costs import fraction

OWN = ("cofi",)  # its budget is of all parameters and its steps are many: test_cofi.py
MACS = {name for name in pruners.names() if pruners.get(name).units == ("macs",)}
VARIANTS = [
    *((name, {"tokens": 9} if name in MACS else {}) for name in pruners.names() if name not in OWN),
    ("kcm", {"tokens": 9, "labels": 8}),
    ("kcm", {"tokens": 9, "merge": "voting", "recover": "refit"}),
    ("kcm", {"tokens": 9, "ranks": "r2", "recover": "none"}),
    ("ffn", {"tokens": 9, "score": "w1", "recover": "none"}),
    ("ffn", {"tokens": 9, "score": "rms"}),
    ("ffn", {"tokens": 9, "score": "random"}),
    ("mask-tuning", {"tokens": 9, "tune": False}),
    ("coreset", {"sampler": "top"}),
    ("coreset", {"axis": "heads", "sampler": "without"}),
    ("coreset", {"axis": "inputs"}),
    ("gradient", {"reading": "michel"}),
    ("svd", {"gamma": True}),
    ("taylor", {"granularity": "dims"}),
    ("taylor", {"granularity": "dims", "uneven": False, "steps": 1}),
    ("taylor", {"unit": "macs", "tokens": 9}),
    ("taylor", {"unit": "macs", "tokens": 9, "apart": True}),
    ("top", {"released": True}),
    ("ltp", {"rising": True}),
    ("power-bert", {"order": "random"}),
]


def label(variant):
    name, options = variant
    return "-".join([name, *map(str, options.values())])


@pytest.fixture(params=VARIANTS, ids=label)
def variant(request):
    return request.param


@pytest.fixture
def data(batch):
    """A function from what a pruner needs to that: two batches, their halves swapped."""
    other = {name: tensor.flip(0) for name, tensor in batch.items()}
    other["labels"] = (other["labels"] + 1) % 3

    def of(needs):
        if needs == "nothing":
            return untouched()
        keep = [name for name in batch if needs != "examples" or name != "labels"]
        return iter([{name: b[name] for name in keep} for b in (batch, other)])

    return of


def untouched():
    raise AssertionError("a pruner read data that it has no need of")
    yield


def least(variant):
    """The lowest of the usual budgets that a method can reach: filters alone cannot go far."""
    return 0.75 if variant[0] in ("kcm", "ffn", "flap") else 0.3


def run(variant, model, data, budget=0.5, **options):
    name, own = variant
    pruner = pruners.get(name, **(own | options))
    budget = max(budget, least(variant)) if 0.1 < budget < 1 else budget
    return pruner(model, data(pruner.needs), budget)


def fractions(pruned, model, compact):
    count = costs.params if compact else costs.nonzero
    kept, whole = count(pruned), count(model)
    ffn = (kept.encoder - kept.attention) / (whole.encoder - whole.attention)
    return kept.attention / whole.attention, ffn


def units(pruner, model):
    """Among how many equal units of attention the budget is rounded, at least."""
    layers = encoder.shape(model).layers
    if getattr(pruner, "axis", "") == "heads":
        return layers[0].heads
    over_all = getattr(pruner, "granularity", "") == "heads"
    if over_all or getattr(pruner, "reading", "") == "michel":
        return layers[0].heads * len(layers)
    return layers[0].qk


@pytest.mark.parametrize("budget", [0.5, 0.3])
def test_keeps_the_fraction_that_it_was_given(variant, model, batch, data, budget):
    pruner = pruners.get(variant[0], **variant[1])
    if pruner.unit == "executed":
        budget = {0.5: 0.8, 0.3: 0.65}[budget]  # tiny encoders have a layer or two to save on
    pruned = run(variant, model, data, budget)
    assert pruned(**batch).logits.isfinite().all()
    if pruner.unit == "macs":
        budget = max(budget, least(variant))
        macs = [costs.encoder_macs(encoder.shape(m), 9) for m in (pruned, model)]
        assert budget - 0.01 < macs[0] / macs[1] <= budget
        return
    if pruner.unit == "executed":
        kept, _ = fraction(pruned, list(data("training")))
        assert budget - 0.15 < kept <= budget  # a token of nine is a large step
        return
    attention, ffn = fractions(pruned, model, pruner.compact)
    # at most half a unit too many or too few, and the biases that stay
    assert attention == pytest.approx(budget, abs=1 / units(pruner, model) / 2 + 0.025)
    assert ffn == 1
    assert pruner.compact == (pruned.config.model_type in encoder.COMPACT)


@pytest.mark.parametrize("unit", ["attention", "encoder"])
@pytest.mark.parametrize("variant", [v for v in VARIANTS if v[0] not in MACS], ids=label)
def test_its_unit_says_what_shrinks(variant, bert, data, unit):
    name, options = variant
    if unit not in pruners.get(name).units:
        pytest.skip(f"{name} has no budget of {unit}")
    pruned = run((name, options | {"unit": unit}), bert, data)
    attention, ffn = fractions(pruned, bert, pruners.get(name, **options).compact)
    assert attention == pytest.approx(0.5, abs=0.025)
    assert ffn == pytest.approx({"attention": 1.0, "encoder": 0.5}[unit], abs=0.04)


def test_a_budget_of_1_loses_nothing(variant, model, batch, data):
    pruned = run(variant, model, data, 1.0)
    torch.testing.assert_close(pruned(**batch).logits, model(**batch).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("budget", [0.0, -0.5, 1.5, float("nan")])
def test_budgets_outside_0_to_1_are_refused(variant, bert, data, budget):
    with pytest.raises(StudyError, match=r"wanted a budget in \(0, 1\], got"):
        run(variant, bert, data, budget)


def test_budgets_that_keep_nothing_are_refused_before_any_work(variant, bert):
    with pytest.raises(StudyError, match=r"ask for more") as refusal:
        run(variant, bert, lambda needs: untouched(), 0.001)
    assert "\n" not in str(refusal.value)


def test_leaves_its_input_alone(variant, bert, data):
    bert.train()
    encoder.layers(bert)[0].query.weight.requires_grad_(False)
    weights = {name: value.clone() for name, value in bert.state_dict().items()}
    flags = [p.requires_grad for p in bert.parameters()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in bert.modules()]
    noise = torch.get_rng_state()
    pruned = run(variant, bert, data)
    torch.testing.assert_close(bert.state_dict(), weights, rtol=0, atol=0)
    assert [p.requires_grad for p in bert.parameters()] == flags
    assert all(p.grad is None for p in bert.parameters())
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in bert.modules()]
    assert all(module.training for module in bert.modules())
    assert torch.equal(torch.get_rng_state(), noise)
    shared = {p.data_ptr() for p in bert.parameters()} & {p.data_ptr() for p in pruned.parameters()}
    assert not shared


def test_the_same_seed_gives_the_same_model(variant, bert, data):
    once, twice = (run(variant, bert, data).state_dict() for _ in range(2))
    torch.testing.assert_close(once, twice, rtol=0, atol=0)


def test_another_seed_matters_where_it_says_so(variant, bert, batch, data):
    models = [run(variant, bert, data, seed=seed) for seed in range(4)]
    logits = {tuple(m(**batch).logits.flatten().tolist()) for m in models}
    assert (len(logits) > 1) == pruners.get(variant[0], **variant[1]).stochastic


@pytest.mark.parametrize(
    "variant", [v for v in VARIANTS if pruners.get(v[0], **v[1]).needs != "nothing"], ids=label
)
def test_data_that_it_needs_must_come(variant, bert, batch):
    pruner = pruners.get(variant[0], **variant[1])
    with pytest.raises(StudyError, match="got 0 batches"):
        pruner(bert, [], 0.75)
    if pruner.needs == "examples":
        return
    unlabelled = {name: tensor for name, tensor in batch.items() if name != "labels"}
    with pytest.raises(StudyError, match="wanted labelled batches, got one with only attention_m"):
        pruner(bert, [unlabelled] * 2, 0.75)


def test_a_pruned_model_of_uneven_layers_is_refused(bert, data):
    uneven = run(("gradient", {"reading": "michel"}), bert, data, 0.3)
    assert len(set(encoder.shape(uneven).layers)) > 1
    with pytest.raises(StudyError, match="every layer of one shape"):
        run(("magnitude", {}), uneven, data)


@pytest.mark.parametrize("name", pruners.names())
def test_every_file_says_what_it_is(name):
    pruner = pruners.get(name)
    assert isinstance(pruner, pruners.Pruner)
    assert isinstance(pruner.version, int)
    assert pruner.unit == pruner.units[0]
    assert pruner.seed == 0
    with pytest.raises(FrozenInstanceError):
        pruner.seed = 1
    file = Path(pruners.__file__).parent / f"{name.replace('-', '_')}.py"
    first = file.read_text().splitlines()[0]
    assert first.startswith('"""')
    assert "https://" in first


def test_the_folder_is_the_registry():
    assert {"coreset", "gradient", "magnitude", "movement"} <= set(pruners.names())
    assert {"random", "svd", "taylor", "unstructured"} <= set(pruners.names())


def test_unknown_names_and_options_are_refused_in_one_line():
    with pytest.raises(StudyError, match="unknown method 'corset'; did you mean coreset"):
        pruners.get("corset")
    with pytest.raises(StudyError, match="unknown option of svd 'gama'; did you mean gamma"):
        pruners.get("svd", gama=True)
    with pytest.raises(StudyError, match="unknown unit 'macs'; known: attention, encoder"):
        pruners.get("magnitude", unit="macs")
    with pytest.raises(StudyError, match=r"wanted steps as int, got 2\.5"):
        pruners.get("taylor", steps=2.5)
    with pytest.raises(StudyError, match="wanted seed as int, got True"):
        pruners.get("random", seed=True)
    with pytest.raises(StudyError, match="wanted tokens above 0"):
        pruners.get("taylor", tokens=0)
    with pytest.raises(StudyError, match=r"wanted tokens as float, got 'nine'"):
        pruners.get("kcm", tokens="nine")
    with pytest.raises(StudyError, match="wanted steps above 0"):
        pruners.get("taylor", steps=0)
    with pytest.raises(StudyError, match="unit macs searches over all"):
        pruners.get("taylor", unit="macs", granularity="dims")
    with pytest.raises(StudyError, match="wanted warmup and cooldown"):
        pruners.get("movement", warmup=0.5, cooldown=0.5)
