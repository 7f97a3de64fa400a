"""Do gates open as often as they should, and is sparsity counted as the paper's code counts it?"""

from itertools import product

import pytest
import torch

from lib.errors import StudyError
from lib.models import encoder
from lib.models.encoder import LayerShape, Shape
from lib.models.masks import Masks
from lib.training import hard_concrete
from lib.training.hard_concrete import (
    Gates,
    expected_sparsity,
    probability,
    sample,
    settled,
    settled_each,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def shape_of(hidden, layers, heads, neurons):
    width = hidden // heads
    return Shape(hidden, (LayerShape(heads, width, width, neurons),) * layers)


BASE, MINI = shape_of(768, 12, 12, 3072), shape_of(384, 6, 12, 1536)


@pytest.mark.parametrize("alpha", [-3.0, -1.6, 0.0, 2.0])
def test_a_gate_is_open_as_often_as_its_probability_says(alpha):
    drawn = sample(torch.full((200_000,), alpha), generator())
    assert float((drawn > 0).float().mean()) == pytest.approx(
        float(probability(torch.tensor(alpha))), abs=4e-3
    )
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    mirror = sample(torch.full((200_000,), -alpha), generator(1))
    open_, shut = (float(part.float().mean()) for part in (drawn == 1, mirror == 0))
    assert open_ == pytest.approx(shut, abs=6e-3)  # symmetric about a half


def test_a_draw_by_hand():
    alpha = torch.tensor([0.3, -2.0, 4.0], dtype=torch.float64)
    u = torch.rand(3, generator=generator(5), dtype=torch.float64) * (1 - 2e-6) + 1e-6
    s = 1 / (1 + torch.exp(-(torch.log(u / (1 - u)) + alpha) / (2 / 3)))
    torch.testing.assert_close(sample(alpha, generator(5)), (1.2 * s - 0.1).clamp(0, 1))


def test_a_draw_teaches_its_gate():
    alpha = torch.zeros(500, requires_grad=True)
    drawn = sample(alpha, generator())
    drawn.sum().backward()
    between = (drawn > 0) & (drawn < 1)
    assert (alpha.grad[between] > 0).all()
    assert (alpha.grad[~between] == 0).all()
    assert between.any()


def test_the_open_gates_of_a_row_are_as_many_as_expected():
    alpha = torch.tensor([[3.0, -4.0, 0.0, -1.0], [9.0, 9.0, 9.0, -9.0]])
    masks = settled(alpha)
    expected = 1 / (1 + torch.exp(-1.2 * alpha))  # 0.8 alpha / (2 / 3)
    # of the first row sigmoid(alpha + 1.5986) sums up to 2.54: 1 of 4 is shut
    torch.testing.assert_close(masks[0], expected[0] * torch.tensor([1.0, 0.0, 1.0, 1.0]))
    assert (masks[1] > 0).tolist() == [True, True, True, False]


def test_a_gate_alone_is_shut_where_it_is_open_less_than_half_the_time():
    masks = settled_each(torch.tensor([-1.7, -1.5, 5.0]))
    assert (masks > 0).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("size", "bound", "kept"), [(3072, -4.605, 145), (12, -4.605, 1), (768, 4.605, 766)]
)
def test_what_the_authors_clamp_leaves(size, bound, kept):
    """145 neurons and one head cannot go, two hidden dims cannot stay."""
    assert int(settled(torch.full((1, size), bound)).count_nonzero()) == kept


def test_the_expectation_by_enumeration():
    """Over all 2^9 states of the gates of one layer, each counted as the paper's code does."""
    shape = shape_of(2, 1, 2, 2)
    draw = generator(3)
    sizes = ((1, 2), (1, 2), (1,), (1,), (2,))
    gates = Gates(*(2 * torch.randn(s, generator=draw, dtype=torch.float64) for s in sizes))
    flat = torch.cat([alpha.flatten() for alpha in gates.tensors().values()])
    chance = probability(flat)
    expected = 0.0
    for state in product([0, 1], repeat=len(flat)):
        weight = torch.where(torch.tensor(state, dtype=torch.bool), chance, 1 - chance).prod()
        heads, neurons, hidden = sum(state[:2]), sum(state[2:4]), sum(state[6:])
        mha, ffn = state[4:6]
        per_head = (4 * 2 * 2 + 4 * 2) / 2  # weights and biases of one head
        expected += weight * (hidden / 2 * mha * heads * per_head + 2 * hidden * ffn * neurons)
    whole = 4 * 2 * 2 + 4 * 2 + 2 * 2 * 2 + 2 + 2
    torch.testing.assert_close(expected_sparsity(gates, shape), 1 - expected / whole)


@pytest.mark.parametrize(("shape", "whole"), [(BASE, 85_017_600), (MINI, 10_637_568)])
def test_the_sizes_of_whole_encoders(shape, whole):
    """All open, what is missing is the feed-forward part's biases; all shut, everything is."""
    layer, count = shape.layers[0], len(shape.layers)
    open_ = Gates(torch.full((count, layer.heads), 50.0), torch.full((count, layer.neurons), 50.0))
    biases = count * (layer.neurons + shape.hidden)
    assert float(expected_sparsity(open_, shape)) == pytest.approx(biases / whole, abs=1e-6)
    shut = open_.map(torch.neg)
    assert float(expected_sparsity(shut, shape)) == pytest.approx(1, abs=1e-6)


def test_fresh_gates_of_bert_base_are_where_the_authors_start():
    gates = hard_concrete.start(BASE, "all", generator())
    assert float(expected_sparsity(gates, BASE)) == pytest.approx(0.113, abs=1e-3)
    within = gates.map(lambda alpha: alpha.clamp(-4.605, 4.605))  # after their first step
    assert float(expected_sparsity(within, BASE)) == pytest.approx(0.116, abs=1e-3)
    assert {name: tuple(alpha.shape) for name, alpha in gates.tensors().items()} == {
        "heads": (12, 12),
        "neurons": (12, 3072),
        "mha": (12,),
        "ffn": (12,),
        "hidden": (768,),
    }


@pytest.mark.parametrize(
    ("units", "names"),
    [
        ("fine", {"heads", "neurons"}),
        ("layers", {"heads", "neurons", "mha", "ffn"}),
        ("hidden", {"heads", "neurons", "hidden"}),
    ],
)
def test_only_the_chosen_units_have_gates(bert, units, names):
    gates = hard_concrete.start(encoder.shape(bert), units, generator())
    assert set(gates.tensors()) == names
    drawn = hard_concrete.sampled_masks(gates, Masks.dense(bert), generator())
    kept = hard_concrete.settled_masks(gates, Masks.dense(bert))
    for masks in (drawn, kept):
        masks.check(bert)
        assert {n for n in ("mha", "ffn", "hidden") if getattr(masks, n) is not None} == names - {
            "heads",
            "neurons",
        }


def test_an_uneven_encoder_has_no_gates():
    uneven = Shape(4, (LayerShape(2, 2, 2, 3), LayerShape(1, 2, 2, 3)))
    with pytest.raises(StudyError, match="every layer of one shape"):
        hard_concrete.start(uneven, "all", generator())
