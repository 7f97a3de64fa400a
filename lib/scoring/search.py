"""Given scores, which units fit the budget?"""

from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lib.errors import StudyError
from lib.measures.costs import encoder_macs
from lib.models.encoder import Shape
from lib.models.masks import Masks

Rounding = Literal["nearest", "down"]


def check(budget: float) -> float:
    """The budget itself if it is a fraction in (0, 1]; a StudyError otherwise."""
    if not 0 < budget <= 1:  # NaN fails too
        raise StudyError(f"wanted a budget in (0, 1], got {budget}; 0.5 keeps half")
    return budget


def check_tokens(tokens: int | float | None) -> None:
    """A StudyError unless a pruner's `tokens` is a length above 0, or None: yet to be filled in."""
    if tokens is not None and not 0 < tokens < float("inf"):
        raise StudyError(f"wanted tokens above 0, got {tokens}; give a mean sequence length")


def length(tokens: int | float | None) -> int | float:
    """The sequence length at which MACs are counted; a StudyError where none was given."""
    if tokens is None:
        raise StudyError(
            "a budget of MACs needs a sequence length; give `tokens`, the task's mean on dev"
        )
    return tokens


def count(units: int, budget: float, what: str = "units", rounding: Rounding = "nearest") -> int:
    """How many of `units` a budget keeps: the nearest number (.5 upwards), or the one below.

    Raises a StudyError where that is none at all.
    """
    exact = round(check(budget) * units, 6)  # 0.7 * 10 is 7, not 6.999...
    kept = int(exact + 0.5) if rounding == "nearest" else int(exact)
    if kept == 0:
        raise StudyError(f"a budget of {budget} keeps none of {units} {what}; ask for more")
    return kept


def top(scores: Float[Tensor, "*groups units"], kept: int) -> Bool[Tensor, "*groups units"]:
    """The `kept` greatest scores of each group; of equal ones the first."""
    order = scores.argsort(dim=-1, descending=True, stable=True)
    return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, order[..., :kept], True)


def check_ranks(scores: Float[Tensor, "L n"], unit: str, why: str, first: int = 1) -> None:
    """A StudyError for scores of layers from `first` on that rank nothing: not finite, or alike."""
    if not scores.isfinite().all():
        layer = int((~scores.isfinite()).any(1).nonzero()[0]) + first
        raise StudyError(
            f"wanted finite scores of {unit}s, got NaN or infinity in layer {layer}; {why}"
        )
    if scores.numel() > 1 and (scores == scores.flatten()[0]).all():
        alike = float(scores.flatten()[0])
        raise StudyError(f"every {unit} scores {alike:g}, which ranks none; {why}")


def even(
    scores: Float[Tensor, "*groups units"], budget: float, what: str = "units"
) -> Bool[Tensor, "*groups units"]:
    """The same number of greatest scores in every group."""
    return top(scores, count(scores.shape[-1], budget, what))


def overall(
    scores: Float[Tensor, "*groups units"], budget: float, what: str = "units"
) -> Bool[Tensor, "*groups units"]:
    """The greatest scores of all groups together: a group may lose every unit, or none."""
    return top(scores.flatten(), count(scores.numel(), budget, what)).view_as(scores)


def uneven(scores: Float[Tensor, "L H d"], budget: float) -> Bool[Tensor, "L H d"]:
    """Head dims ranked over all layers, equally many in every head of one layer.

    The j-th best dims of a layer's heads stand or fall together, so that no head needs padding.
    """
    rank = scores.argsort(dim=-1, descending=True, stable=True)
    columns = scores.gather(-1, rank).sum(1)  # (L, d): falls along d
    kept = overall(columns, budget, "columns of head dims")
    return torch.zeros_like(scores, dtype=torch.bool).scatter(
        -1, rank, kept[:, None].expand_as(rank)
    )


def filters(shape: Shape, tokens: int | float, budget: float) -> int:
    """How many neurons of a dense encoder fit its MACs when every head stays.

    (budget * all MACs - attention's) // one neuron's, for a sequence of `tokens` tokens. Raises a
    StudyError where attention alone leaves room for none, with the least budget that would.
    """
    _check_dense(shape)
    bare = Shape(shape.hidden, tuple(replace(layer, neurons=0) for layer in shape.layers))
    full, attention = encoder_macs(shape, tokens), encoder_macs(bare, tokens)
    units = sum(layer.neurons for layer in shape.layers)
    if not units:
        raise StudyError("wanted an encoder with feed-forward neurons, got one that has none")
    neuron = (full - attention) / units
    kept = int((check(budget) * full - attention) / neuron + 1e-6)
    if kept < 1:
        raise StudyError(
            f"a budget of {budget} of the MACs at {tokens:g} tokens leaves no neuron, as attention "
            f"alone takes {attention / full:.3f}; ask for more than {attention / full:.3f}"
        )
    return kept


def prices(
    shape: Shape, tokens: int | float, budget: float
) -> tuple[int | float, int | float, float]:
    """MACs of one head, of one neuron, and those that the budget allows in all.

    Raises a StudyError where not even one unit fits.
    """
    _check_dense(shape)
    layer = shape.layers[0]
    head = encoder_macs(Shape(shape.hidden, (replace(layer, heads=1, neurons=0),)), tokens)
    neuron = encoder_macs(Shape(shape.hidden, (replace(layer, heads=0, neurons=1),)), tokens)
    limit = check(budget) * encoder_macs(shape, tokens) * (1 + 1e-12)  # 0.7 * 10 is 7
    if limit < min(head, neuron):
        raise StudyError(
            f"a budget of {budget} is {int(limit)} MACs, less than one unit's {min(head, neuron)}; "
            "ask for more"
        )
    return head, neuron, limit


def search(
    head_scores: Float[Tensor, "L H"],
    neuron_scores: Float[Tensor, "L F"],
    shape: Shape,
    tokens: int | float,
    budget: float,
) -> Masks:
    """The heads and neurons of greatest total score within a fraction of the encoder's MACs.

    For each number of heads kept, the rest of the budget buys neurons (Kwon et al. 2022, Alg. 1);
    all counts are tried, so none is better. Scores are at least 0. Of equally good choices the one
    with most heads is taken. Masks are 0 or 1. Raises a StudyError where nothing fits.
    """
    _check_scores(head_scores, neuron_scores, shape)
    head, neuron, limit = prices(shape, tokens, budget)
    head_gain = _running_best(head_scores)
    neuron_gain = _running_best(neuron_scores)
    heads = torch.arange(len(head_gain), device=head_gain.device)
    spare = limit - heads.double() * head
    neurons = (spare / neuron).floor().long().clamp(0, neuron_scores.numel())
    gain = torch.where(spare >= 0, head_gain + neuron_gain[neurons], -torch.inf)
    best = int((gain == gain.max()).nonzero()[-1])
    return _kept(head_scores, best, neuron_scores, int(neurons[best]), shape)


def apart(
    head_scores: Float[Tensor, "L H"],
    neuron_scores: Float[Tensor, "L F"],
    shape: Shape,
    tokens: int | float,
    budget: float,
) -> Masks:
    """The same fraction of heads and of neurons, each ranked by itself over all layers.

    Heads are rounded down, and neurons fill the fraction of the encoder's MACs. Raises a StudyError
    where no head would be left.
    """
    _check_scores(head_scores, neuron_scores, shape)
    head, neuron, limit = prices(shape, tokens, budget)
    heads = count(head_scores.numel(), budget, "heads", "down")
    neurons = min(int((limit - heads * head) / neuron), neuron_scores.numel())
    return _kept(head_scores, heads, neuron_scores, neurons, shape)


def _kept(
    head_scores: Tensor, heads: int, neuron_scores: Tensor, neurons: int, shape: Shape
) -> Masks:
    """Masks of the best so many heads and neurons, 0 or 1."""
    layer, layers = shape.layers[0], len(shape.layers)
    return Masks(
        heads=_best(head_scores, heads).to(head_scores),
        neurons=_best(neuron_scores, neurons).to(head_scores),
        qk=head_scores.new_ones(layers, layer.heads, layer.qk),
        vo=head_scores.new_ones(layers, layer.heads, layer.vo),
    )


def masks(model: nn.Module, **kept: Tensor) -> Masks:
    """Masks of `model` that keep everything but what the given parts drop or rescale."""
    dense = Masks.dense(model)
    return replace(dense, **{part: kept[part].to(getattr(dense, part)) for part in kept})


def _check_dense(shape: Shape) -> None:
    if len(set(shape.layers)) != 1:
        raise StudyError("wanted a dense encoder, every layer of one shape; prune the teacher")


def _check_scores(head_scores: Tensor, neuron_scores: Tensor, shape: Shape) -> None:
    _check_dense(shape)
    layers, layer = len(shape.layers), shape.layers[0]
    _expect("head", head_scores, (layers, layer.heads))
    _expect("neuron", neuron_scores, (layers, layer.neurons))


def _expect(kind: str, scores: Tensor, wanted: tuple[int, int]) -> None:
    if tuple(scores.shape) != wanted:
        raise StudyError(f"wanted {kind} scores {wanted}, got {tuple(scores.shape)}")
    if not (scores >= 0).all():
        raise StudyError(f"wanted {kind} scores of at least 0, got {float(scores.min())}")


def _running_best(scores: Tensor) -> Tensor:
    """The total of the 0, 1, 2, ... greatest scores."""
    ranked = scores.flatten().double().sort(descending=True).values
    return nn.functional.pad(ranked.cumsum(0), (1, 0))


def _best(scores: Tensor, kept: int) -> Tensor:
    return top(scores.flatten(), kept).view_as(scores)
