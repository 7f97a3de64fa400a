"""Which units does a draw keep, and with which weights?

Every sampler takes the scores of several groups of units and draws `kept` of each group, one group
independent of the next. It returns weights: 0 for a unit that is dropped; for one that is kept the
factor by which its term of the sum must grow for the sum to be estimated.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from lib.errors import StudyError
from lib.scoring import search

Scores = Float[Tensor, "groups units"]  # at least 0, on the CPU, float64
Sampler = Callable[[Scores, int, Generator], Scores]


def draw(
    sampler: str,
    scores: Float[Tensor, "*groups units"],
    kept: int,
    generator: Generator,
    rescale: bool = True,
) -> Float[Tensor, "*groups units"]:
    """Weights of a draw of `kept` units from each group: 0 or, without `rescale`, 1.

    To keep all of them is to draw nothing: every weight is 1, whatever the sampler.
    """
    flat = scores.detach().cpu().double().flatten(0, -2)
    if kept >= flat.shape[1]:
        weights = torch.ones_like(flat)
    else:
        weights = SAMPLERS[sampler](flat, kept, generator)
        weights = weights if rescale else (weights != 0).double()
    return weights.view(scores.shape).to(scores.device)


def top(scores: Scores, kept: int, generator: Generator) -> Scores:
    """The greatest scores. They are kept with certainty, so each stands for itself."""
    return search.top(scores, kept).double()


def uniform(scores: Scores, kept: int, generator: Generator) -> Scores:
    """Any `kept` units alike, without replacement: each stands for units / kept."""
    chosen = search.top(_random(scores, generator), kept)
    return chosen * (scores.shape[1] / kept)


def pps(scores: Scores, kept: int, generator: Generator) -> Scores:
    """Inclusion probability proportional to the score: systematic sampling in random order.

    A unit kept stands for 1 / its inclusion probability (Horvitz and Thompson 1952).
    """
    inclusion = inclusion_probabilities(scores, kept)
    order = _random(scores, generator).argsort(dim=1)
    reached = inclusion.gather(1, order).cumsum(1)
    reached[:, -1] = kept  # the sum, without its rounding error
    start = torch.rand(len(scores), 1, generator=generator, dtype=torch.float64)
    passed = (reached + start).floor()  # a unit is hit where the running sum passes a whole number
    hits = passed.diff(dim=1, prepend=start.floor()) > 0
    return torch.where(torch.zeros_like(hits).scatter(1, order, hits), 1 / inclusion, 0.0)


def inclusion_probabilities(scores: Scores, kept: int) -> Scores:
    """min(1, c * score), with the c of each group for which they sum to `kept`."""
    _need(scores, kept)
    ranked = scores.sort(dim=1, descending=True).values
    rest = ranked.flip(1).cumsum(1).flip(1)  # of the scores from here on
    certain = torch.arange(scores.shape[1]).clamp(max=kept)
    tiny = torch.finfo(rest.dtype).tiny
    factor = (kept - certain) / rest.clamp(min=tiny)  # c if so many are certain
    enough = factor * ranked <= 1  # the next one is not
    first = enough.int().argmax(dim=1, keepdim=True)
    return (factor.gather(1, first) * scores).clamp(max=1)


def without(scores: Scores, kept: int, generator: Generator) -> Scores:
    """One after the other without replacement, weighted 1 / (kept * p): biased, but in use."""
    arrived = _arrivals(scores, kept, generator)
    chosen = search.top(-arrived, kept)
    return torch.where(chosen, 1 / (kept * _probabilities(scores)), 0.0)


def until_unique(scores: Scores, kept: int, generator: Generator) -> Scores:
    """With replacement until `kept` units are unique, weighted count / (draws * p).

    The stopping rule of the coreset authors' code. Each unit is a Poisson process of rate p: who
    arrives, and how often until the last newcomer, is then distributed as in draws one by one.
    """
    p, arrived = _probabilities(scores), _arrivals(scores, kept, generator)
    chosen = search.top(-arrived, kept)
    end = arrived.where(chosen, 0.0).amax(1, keepdim=True)
    again = torch.poisson((p * (end - arrived)).where(chosen, 0.0), generator=generator)
    counts = chosen + again
    return counts / (counts.sum(1, keepdim=True) * p.where(chosen, 1.0))


def with_replacement(scores: Scores, kept: int, generator: Generator) -> Scores:
    """`kept` draws with replacement, weighted count / (kept * p): fewer units than draws."""
    _need(scores, 1)
    p = _probabilities(scores)
    drawn = torch.multinomial(p, kept, replacement=True, generator=generator)
    counts = torch.zeros_like(p).scatter_add(1, drawn, torch.ones_like(p[:, :kept]))
    return counts / (kept * p.where(counts > 0, 1.0))


SAMPLERS: dict[str, Sampler] = {
    "top": top,
    "uniform": uniform,
    "pps": pps,
    "without": without,
    "until-unique": until_unique,
    "with": with_replacement,
}


def _random(like: Tensor, generator: Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator, dtype=torch.float64)


def _probabilities(scores: Scores) -> Scores:
    return scores / scores.sum(1, keepdim=True)


def _arrivals(scores: Scores, kept: int, generator: Generator) -> Scores:
    """When each unit is first drawn: exponential of rate p; a score of 0 never is."""
    _need(scores, kept)
    return torch.empty_like(scores).exponential_(generator=generator) / _probabilities(scores)


def _need(scores: Scores, kept: int) -> None:
    positive = int((scores > 0).sum(1).min())
    if positive < kept:
        raise StudyError(
            f"wanted to draw {kept} of {scores.shape[1]} units by their importance, but only "
            f"{positive} have any; use the sampler top or uniform"
        )
