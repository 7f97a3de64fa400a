"""Who stays, and how are the others left behind? CLS always stays, padding never does."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Keep = Bool[Tensor, "batch tokens"]
Scores = Float[Tensor, "batch tokens"]


@dataclass
class Walk:
    """What is left of a batch on its way through the layers; a forward pass has one of its own.

    Not frozen: every cut shortens its tensors. `masks` leaves dead tokens where they are and hides
    them from attention, as training does; the logits are the same.
    """

    alive: Keep
    places: Int[Tensor, "batch tokens"]  # where each token stood in the text
    ids: Int[Tensor, "batch tokens"]
    masks: bool = False
    column: Scores | None = None  # attention that each token received in the layer just passed
    weights: Scores | None = None  # soft: what attention to each token is multiplied by
    trail: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # (places, alive) of a part

    def mask(self) -> Bool[Tensor, "batch 1 1 tokens"] | None:
        """What attention may look at; None where that is everything, for its faster path."""
        return None if self.alive.all() else self.alive[:, None, None, :]

    def buckets(self, table: Int[Tensor, "all all"] | None) -> Tensor | None:
        """MPNet's relative positions of the tokens that are left."""
        if table is None or len(table) == self.places.shape[1]:
            return table
        return table[self.places[:, :, None], self.places[:, None, :]]

    def note(self) -> None:
        """Write down who takes part in the next piece of work."""
        alive = self.alive if self.weights is None else self.alive & (self.weights > 0)
        self.trail.append((self.places, alive))

    def cut(self, x: Float[Tensor, "batch tokens D"], keep: Keep) -> Tensor:
        """The states of those that stay, in their order; tensors as long as the longest needs."""
        keep = keep & self.alive
        keep[:, 0] = True  # the classifier reads it
        self.alive = keep
        left = int(keep.sum(1).max())
        if self.masks or left == keep.shape[1]:
            return x
        index = (~keep).long().argsort(dim=1, stable=True)[:, :left]
        self.alive = keep.gather(1, index)
        self.places = self.places.gather(1, index)
        self.ids = self.ids.gather(1, index)
        return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def column(
    probabilities: Float[Tensor, "batch heads tokens tokens"], alive: Keep, diagonal: bool = True
) -> Scores:
    """Attention that each token receives: mean over heads and over the queries that are alive.

    Without `diagonal` what a token pays to itself is left out. Padding's rows count for nothing, so
    a score depends neither on padding nor on batch mates.
    """
    rows = probabilities.mean(1) * alive[:, :, None]
    received = rows.sum(1)
    if not diagonal:
        received = received - rows.diagonal(dim1=1, dim2=2)
    return received / alive.sum(1, keepdim=True)


def weighed(
    probabilities: Float[Tensor, "batch heads tokens tokens"], weights: Scores, normalise: bool
) -> Float[Tensor, "batch heads tokens tokens"]:
    """Probabilities times the weight of the token looked at, perhaps normalised again.

    Normalised, exp(z) m / sum exp(z) m: with weights of 0 and 1 what dropping the zeros computes.
    """
    found = probabilities * weights[:, None, None, :]
    if not normalise:
        return found
    return found / found.sum(-1, keepdim=True).clamp(min=torch.finfo(found.dtype).tiny)


def ranks(scores: Scores, alive: Keep) -> Int[Tensor, "batch tokens"]:
    """0 for CLS, then by falling score, ties in the order of the text; padding comes last."""
    scores = scores.detach().masked_fill(~alive, -torch.inf)
    scores[:, 0] = torch.inf
    return scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1)


def chance(
    ids: Int[Tensor, "batch tokens"], places: Int[Tensor, "batch tokens"], seed: int
) -> Scores:
    """A random score a token, the same wherever its text is padded or batched to."""
    prime = 2**31 - 1
    mixed = (ids * 48271 + places * 69621 + seed * 39373 + 1) % prime
    for _ in range(3):
        mixed = (mixed * mixed + 16807 * mixed + 12345) % prime
    return mixed.double() / prime
