"""Do the samplers draw with the probabilities, and weigh with the factors, that they state?"""

import pytest
import torch
from torch import Generator

from lib.errors import StudyError
from lib.scoring import sampling

DRAWS = 20_000
SCORES = torch.tensor([4.0, 0.3, 1.0, 2.0, 0.2, 1.5, 0.7, 9.0], dtype=torch.float64)
KEPT = 3


def draws(sampler, rescale=True, scores=SCORES, kept=KEPT):
    """Many draws of one group at once, as groups are independent: (draws, units)."""
    groups = scores.expand(DRAWS, -1)
    return sampling.draw(sampler, groups, kept, Generator().manual_seed(0), rescale)


@pytest.mark.parametrize("sampler", [s for s in sampling.SAMPLERS if s != "with"])
def test_exactly_as_many_are_kept_as_asked(sampler):
    assert ((draws(sampler) != 0).sum(1) == KEPT).all()


def test_draws_with_replacement_keep_no_more():
    kept = (draws("with") != 0).sum(1)
    assert kept.max() == KEPT
    assert kept.double().mean() < KEPT - 0.5


@pytest.mark.parametrize("sampler", sampling.SAMPLERS)
def test_without_rescaling_the_same_units_weigh_1(sampler):
    assert torch.equal(draws(sampler, rescale=False), (draws(sampler) != 0).double())


@pytest.mark.parametrize("sampler", ["uniform", "pps", "with"])
def test_unbiased(sampler):
    weights = draws(sampler)
    error = weights.std(0) / DRAWS**0.5
    assert (weights.std(0)[1:7] > 0.1).all()
    assert ((weights.mean(0) - 1).abs() <= 4 * error + 1e-12).all()


@pytest.mark.parametrize("sampler", ["without", "until-unique", "top"])
def test_biased_and_said_so(sampler):
    assert ((draws(sampler).mean(0) - 1).abs() > 0.05).any()


def test_pps_includes_in_proportion_and_certainly_above():
    pi = sampling.inclusion_probabilities(SCORES[None], KEPT)[0]
    assert pi.sum() == pytest.approx(KEPT, abs=1e-12)
    assert pi.max() == 1
    free = pi < 1
    assert torch.allclose((pi / SCORES)[free], (pi / SCORES)[free][0])
    assert (SCORES[~free] * (pi / SCORES)[free][0] >= 1).all()  # none is certain without need
    found = (draws("pps") != 0).double().mean(0)
    assert ((found - pi).abs() <= 4 * (pi * (1 - pi) / DRAWS).sqrt()).all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kept", [1, 7, 58, 63])
def test_pps_probabilities_sum_to_the_number_kept(seed, kept):
    scores = torch.rand(6, 64, generator=Generator().manual_seed(seed), dtype=torch.float64) ** 4
    pi = sampling.inclusion_probabilities(scores, kept)
    assert torch.allclose(pi.sum(1), torch.full((6,), float(kept), dtype=torch.float64), atol=1e-9)
    assert bool((pi > 0).all() and (pi <= 1).all())
    weights = sampling.draw("pps", scores, kept, Generator().manual_seed(seed))
    assert ((weights != 0).sum(1) == kept).all()
    assert torch.allclose(weights[weights != 0], 1 / pi[weights != 0])


def test_pps_keeps_its_number_whatever_the_rounding_of_the_running_sum(monkeypatch):
    scores = 1 + torch.rand(2000, 64, generator=Generator().manual_seed(0), dtype=torch.float64)
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.zeros(*size, dtype=torch.float64))
    monkeypatch.setattr(sampling, "_random", lambda like, generator: torch.zeros_like(like))
    weights = sampling.draw("pps", scores, 32, Generator())
    assert ((weights != 0).sum(1) == 32).all()


def test_with_replacement_has_the_variance_of_a_multinomial():
    p = SCORES / SCORES.sum()
    counts = draws("with") * KEPT * p
    assert torch.allclose(counts, counts.round(), atol=1e-9)
    assert (counts.sum(1).round() == KEPT).all()
    variance = KEPT * p * (1 - p)
    assert torch.allclose(counts.var(0), variance, rtol=0.08)


def brute_force(p, until):
    """Draw one by one, as the samplers state: counts when `until` says so."""
    generator = Generator().manual_seed(1)
    rows = []
    for _ in range(4000):
        counts = torch.zeros_like(p)
        while not until(counts):
            counts[torch.multinomial(p, 1, generator=generator)] += 1
        rows.append(counts)
    return torch.stack(rows)


def test_until_unique_is_distributed_as_draws_one_by_one():
    p = SCORES / SCORES.sum()
    counts = brute_force(p, lambda counts: (counts > 0).sum() == KEPT)
    expected = counts / (counts.sum(1, keepdim=True) * p)
    found = draws("until-unique")
    error = expected.std(0) / 4000**0.5
    assert ((found.mean(0) - expected.mean(0)).abs() <= 4 * error).all()
    assert torch.allclose(found.std(0), expected.std(0), rtol=0.1)
    # weights of one draw are counts over a common total: sum_i w_i p_i = 1
    assert torch.allclose((found * p).sum(1), torch.ones(DRAWS, dtype=torch.float64))


def test_without_replacement_includes_as_draws_one_by_one():
    p = SCORES / SCORES.sum()
    rows = torch.multinomial(
        p.expand(DRAWS, -1), KEPT, replacement=False, generator=Generator().manual_seed(2)
    )
    expected = torch.zeros(DRAWS, len(p)).scatter(1, rows, 1).mean(0)
    found = draws("without")
    assert torch.allclose((found != 0).float().mean(0), expected, atol=0.02)
    assert torch.allclose(found[found != 0], (1 / (KEPT * p)).expand_as(found)[found != 0])


def test_uniform_does_not_look_at_scores():
    assert torch.equal(draws("uniform"), draws("uniform", scores=SCORES.flip(0)))
    included = (draws("uniform") != 0).double().mean(0)
    assert torch.allclose(included, torch.full_like(included, KEPT / len(SCORES)), atol=0.02)


@pytest.mark.parametrize("sampler", sampling.SAMPLERS)
def test_all_of_them_is_no_draw(sampler):
    assert (draws(sampler, kept=len(SCORES)) == 1).all()


@pytest.mark.parametrize("sampler", ["pps", "without", "until-unique"])
def test_units_of_no_importance_cannot_fill_a_draw(sampler):
    scores = SCORES.clone()
    scores[:6] = 0
    with pytest.raises(StudyError, match="draw 3 of 8 units by their importance, but only 2"):
        draws(sampler, scores=scores)
