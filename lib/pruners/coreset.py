"""Data-Independent Neural Pruning via Coresets (Mussay et al. 2020), https://arxiv.org/abs/1907.04018

Carried to attention as in A. Qamar's talk "Data Independent Pruning of Language Models": a head's
two matrix products, M = sum_i q_i k_i^T and N = sum_i o_i v_i^T, are sums over its dims, and a
small weighted sample of the terms stands for all (Drineas, Kannan, Mahoney 2006). The talk leaves
unit, importance and sampler open; the options below span its readings.
"""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn

from lib.errors import StudyError
from lib.models import encoder, lossless
from lib.models.compact import compact
from lib.pruners import Needs, validate
from lib.scoring import importance, sampling, search
from lib.scoring.importance import Batch


@dataclass(frozen=True)
class Pruner:
    """Keep a sample of units, drawn by the norms of their weights.

    axis: whose units. "head-dims": m = round(d * budget) dims of every head, one set for query and
    key, another for value and output; "layer-dims": as many, but drawn over all heads of a layer;
    "heads"; "inputs": input columns of each matrix, drawn alone by its own norm and only zeroed.
    importance: "product" of the norms of a unit's two slices; of the "first" alone (query, value,
    up) or the "second" (key, output, down); "mussay": norm of the first, through the activation
    in the FFN, times the largest absolute value of the second. Biases belong to the norms.
    sampler: see lib/scoring/sampling.py. rescale: weight the sample so as to estimate the sum: in M
    the product of q_i and k_i, elsewhere the outgoing column, never what the activation reads.
    rounding: of m, to the "nearest" or "down". beta: Mussay's bound on the input norm.
    fold: first move b_V into b_O and drop b_K, both lossless, so that only weights are sampled.

    With unit "encoder" FFN neurons are drawn at the same density. GELU has a negative lobe and so
    breaks the theorem's condition phi >= 0: its bound is not claimed. phi is GELU whatever the
    encoder's activation. "mussay" has no phi in attention, which is linear there.
    """

    version: ClassVar[int] = 1
    units: ClassVar[tuple[str, ...]] = ("attention", "encoder")
    needs: ClassVar[Needs] = "nothing"

    unit: str = "attention"
    seed: int = 0
    axis: Literal["head-dims", "layer-dims", "heads", "inputs"] = "head-dims"
    importance: Literal["product", "first", "second", "mussay"] = "product"
    sampler: Literal["top", "uniform", "pps", "without", "until-unique", "with"] = "pps"
    rescale: bool = True
    rounding: search.Rounding = "nearest"
    beta: float = 1.0
    fold: bool = False

    def __post_init__(self) -> None:
        validate(self)
        if self.axis == "inputs" and self.importance != "product":
            raise StudyError(
                f"axis inputs draws each matrix alone, importance {self.importance!r} wants two; "
                "leave it at 'product', here of one"
            )

    @property
    def compact(self) -> bool:
        return self.axis != "inputs"

    @property
    def stochastic(self) -> bool:
        return self.sampler != "top"

    def __call__(self, model: nn.Module, data: Iterable[Batch], budget: float) -> nn.Module:
        """A compact model with the sampled units; with axis "inputs" a copy with zeroed columns."""
        search.check(budget)
        generator = Generator().manual_seed(self.seed)
        model = lossless.fold_attention_biases(model) if self.fold else model
        if self.axis == "inputs":
            return self._zero_inputs(model, budget, generator)

        def drawn(scores: Tensor) -> Tensor:
            return self._draw(scores, budget, generator)

        qk, vo, neurons = scores(model, self.importance, self.beta, whole=self.axis == "heads")
        if self.axis == "heads":
            kept = {"heads": drawn(qk * vo)}
        elif self.axis == "layer-dims":
            kept = {"qk": drawn(qk.flatten(1)).view_as(qk), "vo": drawn(vo.flatten(1)).view_as(vo)}
        else:
            kept = {"qk": drawn(qk), "vo": drawn(vo)}
        if self.unit == "encoder":
            kept["neurons"] = drawn(neurons)
        return compact(model, search.masks(model, **kept))

    def _draw(self, scores: Tensor, budget: float, generator: Generator) -> Tensor:
        units = scores.shape[-1]
        kept = search.count(units, budget, f"units of axis {self.axis}", self.rounding)
        return sampling.draw(self.sampler, scores, kept, generator, self.rescale)

    @torch.no_grad()
    def _zero_inputs(self, model: nn.Module, budget: float, generator: Generator) -> nn.Module:
        model = deepcopy(model)
        for layer in encoder.layers(model):
            matrices = [layer.query, layer.key, layer.value, layer.output]
            matrices += [layer.up, layer.down] if self.unit == "encoder" else []
            for matrix in matrices:
                norms = matrix.weight.norm(dim=0)
                matrix.weight *= self._draw(norms[None], budget, generator).to(matrix.weight)
        return model


def scores(
    model: nn.Module, kind: str, beta: float = 1.0, whole: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Importance of each head dim in QK and in VO, (L, H, d), and of each neuron, (L, F).

    With `whole` the first two are of whole heads, (L, H): norms over all dims of a head.
    """
    norms = importance.norms(model)
    peaks = importance.peaks(model) if kind == "mussay" else norms

    def norm(part: str) -> Tensor:
        return getattr(norms, part).norm(dim=-1) if whole else getattr(norms, part)

    def peak(part: str) -> Tensor:
        return getattr(peaks, part).amax(dim=-1) if whole else getattr(peaks, part)

    def pair(first: Tensor, second: Tensor, peak: Tensor) -> Tensor:
        pairs = {"product": first * second, "first": first, "second": second}
        return (pairs | {"mussay": first * peak})[kind]

    into = nn.functional.gelu(beta * norms.up) if kind == "mussay" else norms.up
    return (
        pair(norm("query"), norm("key"), peak("key")),
        pair(norm("value"), norm("output"), peak("output")),
        pair(into, norms.down, peaks.down),
    )
