"""Is what the search keeps the best that fits, and is what cannot fit refused?"""

from itertools import product

import pytest
import torch

from lib.errors import StudyError
from lib.measures.costs import encoder_macs
from lib.models.encoder import LayerShape, Shape
from lib.scoring import search

SHAPE = Shape(hidden=4, layers=(LayerShape(heads=2, qk=2, vo=1, neurons=3),) * 2)
TOKENS = 2


def macs(mask):
    """Executed MACs of a mask of 4 heads and then 6 neurons, by the formula of the kept shape."""
    heads, neurons = (
        torch.tensor(mask[:4]).view(2, 2).sum(1),
        torch.tensor(mask[4:]).view(2, 3).sum(1),
    )
    kept = (LayerShape(int(h), 2, 1, int(n)) for h, n in zip(heads, neurons, strict=True))
    return encoder_macs(Shape(4, tuple(kept)), TOKENS)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("budget", [0.1, 0.37, 0.5, 0.8])
def test_finds_the_best_of_all_mask_pairs(seed, budget):
    generator = torch.Generator().manual_seed(seed)
    heads, neurons = (torch.rand(2, n, generator=generator) for n in (2, 3))
    scores = torch.cat([heads.flatten(), neurons.flatten()])
    limit = budget * macs((1,) * 10)

    def total(mask):
        return float((torch.tensor(mask) * scores).sum()) if macs(mask) <= limit else -1.0

    best = max(map(total, product((0, 1), repeat=10)))
    found = search.search(heads, neurons, SHAPE, TOKENS, budget)
    mask = (*found.heads.flatten().int().tolist(), *found.neurons.flatten().int().tolist())
    assert total(mask) == pytest.approx(best)
    assert bool((found.qk == 1).all() and (found.vo == 1).all())


def test_a_whole_budget_keeps_units_of_no_score():
    found = search.search(torch.zeros(2, 2), torch.zeros(2, 3), SHAPE, TOKENS, 1.0)
    assert bool(found.heads.all() and found.neurons.all())


def test_equal_scores_keep_most_heads():
    found = search.search(torch.zeros(2, 2), torch.zeros(2, 3), SHAPE, TOKENS, 0.6)
    assert int(found.heads.sum()) == int(0.6 * macs((1,) * 10)) // macs((1,) + (0,) * 9)


@pytest.mark.parametrize("budget", [0.0, -0.1, 1.01, float("nan")])
def test_budgets_outside_0_to_1_are_refused(budget):
    with pytest.raises(StudyError, match=r"wanted a budget in \(0, 1\], got"):
        search.search(torch.rand(2, 2), torch.rand(2, 3), SHAPE, TOKENS, budget)
    with pytest.raises(StudyError, match=r"wanted a budget in \(0, 1\], got"):
        search.even(torch.rand(2, 3), budget)


def test_budgets_below_one_unit_are_refused():
    with pytest.raises(StudyError, match="less than one unit's 16"):
        search.search(torch.rand(2, 2), torch.rand(2, 3), SHAPE, TOKENS, 0.01)
    with pytest.raises(StudyError, match="keeps none of 3 neurons"):
        search.even(torch.rand(2, 3), 0.1, "neurons")


@pytest.mark.parametrize("bad", [torch.tensor([[-1.0, 1], [1, 1]]), torch.full((2, 2), torch.nan)])
def test_scores_below_0_are_refused(bad):
    with pytest.raises(StudyError, match="scores of at least 0"):
        search.search(bad, torch.rand(2, 3), SHAPE, TOKENS, 0.5)


def test_scores_of_another_shape_are_refused():
    with pytest.raises(StudyError, match=r"wanted neuron scores \(2, 3\), got \(2, 4\)"):
        search.search(torch.rand(2, 2), torch.rand(2, 4), SHAPE, TOKENS, 0.5)
    pruned = Shape(4, (SHAPE.layers[0], LayerShape(1, 2, 1, 3)))
    with pytest.raises(StudyError, match="every layer of one shape"):
        search.search(torch.rand(2, 2), torch.rand(2, 3), pruned, TOKENS, 0.5)


@pytest.mark.parametrize(
    ("budget", "kept"), [(0.9, 58), (0.7, 45), (0.5, 32), (0.3, 19), (1.0, 64)]
)
def test_counts_of_the_talk(budget, kept):
    assert search.count(64, budget) == kept


def test_rounding():
    assert [search.count(10, 0.25), search.count(10, 0.25, rounding="down")] == [3, 2]
    assert search.count(10, 0.7, rounding="down") == 7  # though 0.7 * 10 need not be 7 in floats
    assert search.count(100, 0.29, rounding="down") == 29


def test_even_overall_and_uneven_rank_as_they_say():
    scores = torch.tensor([[[9.0, 1, 8], [7, 6, 5]], [[0.1, 0.3, 0.2], [10, 0.4, 0.5]]])
    assert search.even(scores, 1 / 3).int().tolist() == [
        [[1, 0, 0], [1, 0, 0]],
        [[0, 1, 0], [1, 0, 0]],
    ]
    assert search.overall(scores, 0.5).int().tolist() == [
        [[1, 0, 1], [1, 1, 1]],
        [[0, 0, 0], [1, 0, 0]],
    ]
    # columns of layer 0: 9+7, 8+6, 1+5; of layer 1: 0.3+10, 0.2+0.5, 0.1+0.4
    assert search.uneven(scores, 0.5).int().tolist() == [
        [[1, 0, 1], [1, 1, 0]],
        [[0, 1, 0], [1, 0, 0]],
    ]


def test_of_equal_scores_the_first_are_kept():
    assert search.top(torch.ones(40), 3).nonzero().flatten().tolist() == [0, 1, 2]


BERT = Shape(hidden=768, layers=(LayerShape(heads=12, qk=64, vo=64, neurons=3072),) * 12)
KEPT = {  # filters of BERT-base that KCM keeps at 60% and at 70% of the MACs, by mean length
    "qqp": (30.55, 14598, 20165),
    "mnli": (39.05, 14558, 20134),
    "qnli": (50.97, 14500, 20091),
    "mrpc": (53.24, 14490, 20083),
    "sst2": (25.16, 14624, 20184),
    "stsb": (31.47, 14594, 20161),
    "squad": (170, 13929, 19663),
}
FINGERPRINT = {  # filters pruned in each layer at 60%, as the paper draws them
    "qqp": (2385, 1647, 1138, 1158, 1374, 1238, 844, 1244, 2151, 3018, 2999, 3070),
    "mnli": (2503, 1767, 1082, 1107, 1325, 1161, 833, 1370, 2065, 3027, 2994, 3072),
    "qnli": (2285, 1723, 1009, 1101, 1360, 1247, 883, 1454, 2234, 3042, 2957, 3069),
    "mrpc": (2146, 1563, 1280, 1172, 1541, 1496, 1170, 1301, 1824, 2998, 2817, 3066),
    "sst2": (2416, 1658, 1002, 1229, 1404, 1251, 749, 1265, 2163, 3032, 2999, 3072),
    "stsb": (2299, 1479, 978, 1045, 1352, 1314, 955, 1451, 2321, 3044, 2960, 3072),
    "squad": (2325, 1664, 1033, 1269, 1473, 1289, 1049, 1465, 2266, 3027, 3003, 3072),
    "squad-2": (2359, 1663, 990, 1135, 1503, 1344, 1046, 1574, 2227, 3028, 2994, 3072),
}


@pytest.mark.parametrize("task", KEPT)
def test_filters_are_as_many_as_the_paper_keeps(task):
    tokens, at_60, at_70 = KEPT[task]
    assert (search.filters(BERT, tokens, 0.6), search.filters(BERT, tokens, 0.7)) == (at_60, at_70)


@pytest.mark.parametrize("task", FINGERPRINT)
def test_filters_agree_with_the_papers_picture(task):
    tokens = KEPT[task.partition("-")[0]][0]
    assert sum(FINGERPRINT[task]) == 12 * 3072 - search.filters(BERT, tokens, 0.6)


def test_filters_fill_the_macs_and_no_more():
    for budget, tokens in ((0.6, 7), (0.75, 25.16), (1.0, 33.3)):
        kept = search.filters(BERT, tokens, budget)
        limit = budget * encoder_macs(BERT, tokens)

        def at(neurons, tokens=tokens):
            first = LayerShape(12, 64, 64, neurons - 11 * (neurons // 12))
            rest = LayerShape(12, 64, 64, neurons // 12)
            return encoder_macs(Shape(768, (first, *(rest,) * 11)), tokens)

        assert at(kept) <= limit * (1 + 1e-9)
        assert at(kept + 1) > limit
    assert search.filters(BERT, 33.3, 1.0) == 12 * 3072


def test_filters_cannot_pay_for_attention():
    with pytest.raises(StudyError, match=r"0.3 of the MACs at 25.16 tokens leaves no neuron.*0.33"):
        search.filters(BERT, 25.16, 0.3)
    with pytest.raises(StudyError, match=r"wanted a budget in \(0, 1\]"):
        search.filters(BERT, 25.16, 1.2)
    with pytest.raises(StudyError, match="one that has none"):
        search.filters(Shape(4, (LayerShape(2, 2, 2, 0),) * 2), 8, 0.5)
    with pytest.raises(StudyError, match="every layer of one shape"):
        search.filters(Shape(4, (LayerShape(2, 2, 2, 3), LayerShape(2, 2, 2, 0))), 8, 0.5)


def test_a_length_need_not_be_whole():
    heads, neurons = torch.ones(2, 2), torch.ones(2, 3)
    whole = search.search(heads, neurons, SHAPE, 3.7, 1.0)
    assert bool(whole.heads.all() and whole.neurons.all())
    with pytest.raises(StudyError, match="needs a sequence length"):
        search.length(None)
    for bad in (0, -1.5, float("nan"), float("inf")):
        with pytest.raises(StudyError, match="wanted tokens above 0"):
            search.check_tokens(bad)
