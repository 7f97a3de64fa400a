"""Are Sixteen Heads Really Better than One? (Michel et al. 2019), https://arxiv.org/abs/1905.10650

And the reading of "gradient based" in A. Qamar's talk "Data Independent Pruning of Language
Models": the more a unit's gradients change during fine-tuning, the more it matters.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lib.models import encoder
from lib.models.compact import compact
from lib.models.masks import Masks
from lib.pruners import Needs, validate
from lib.scoring import importance, search
from lib.scoring.importance import Batch, Units


@dataclass(frozen=True)
class Pruner:
    """Keep the units that gradients single out.

    reading "talk": sum_t |g_t - g_0| over a unit's weights, g_t the gradient on the t-th batch
    while a copy, thrown away after, is fine-tuned at `lr`; dims of every head, an equal share of
    each. The talk's fine-tuning starts at the pre-trained encoder, ours at the model given.
    reading "michel": sum over examples of |dL/dxi| for a factor xi on each head (Sec. 4.1), L2-
    normalised in each layer, ranked over all layers; whole heads. With unit "encoder" neurons go
    by the same measure: an equal share of each layer in the talk's, over all layers in Michel's.
    """

    version: ClassVar[int] = 1
    units: ClassVar[tuple[str, ...]] = ("attention", "encoder")
    compact: ClassVar[bool] = True

    unit: str = "attention"
    seed: int = 0
    reading: Literal["talk", "michel"] = "talk"
    lr: float = 2e-5

    def __post_init__(self) -> None:
        validate(self)

    @property
    def needs(self) -> Needs:
        return "training" if self.reading == "talk" else "labels"

    @property
    def stochastic(self) -> bool:
        return self.reading == "talk"  # its dropout

    def __call__(self, model: nn.Module, data: Iterable[Batch], budget: float) -> nn.Module:
        self._select(model, vars(Masks.dense(model)), budget)  # infeasible? Then before the work
        return self.cut(model, self.scores(model, data), budget)

    def scores(self, model: nn.Module, data: Iterable[Batch]) -> dict[str, Tensor]:
        """What the gradients say of each unit, by part of `Masks`; no budget has a part in it."""
        if self.reading == "talk":
            change = changes(model, data, self.lr, self.seed)
            return {
                "qk": change.query + change.key,
                "vo": change.value + change.output,
                "neurons": change.up + change.down,
            }
        heads, neurons = map(nn.functional.normalize, sensitivities(model, data))
        return {"heads": heads, "neurons": neurons}

    def cut(self, model: nn.Module, scores: dict[str, Tensor], budget: float) -> nn.Module:
        """Keep the best of these scores."""
        return compact(model, self._select(model, scores, budget))

    def _select(self, model: nn.Module, scores: dict[str, Tensor], budget: float) -> Masks:
        rank, parts = search.even, ["qk", "vo"]
        if self.reading == "michel":
            rank, parts = search.overall, ["heads"]
        parts += ["neurons"] if self.unit == "encoder" else []
        return search.masks(model, **{part: rank(scores[part], budget, part) for part in parts})


def changes(model: nn.Module, data: Iterable[Batch], lr: float, seed: int) -> Units:
    """sum_t |g_t - g_0| of each unit's weights, t over the batches of a fine-tuning."""
    batches = importance.collect(data, "labelled training batches", least=2)
    with importance.throwaway(model, seed) as student:
        weights = importance.weights(student)
        total = {weight: torch.zeros_like(weight) for weight in weights}
        for t, batch in enumerate(importance.steps(student, batches, lr)):
            importance.loss(student, batch).backward()
            if t == 0:
                first = {weight: weight.grad.clone() for weight in weights}
            for weight in weights:
                total[weight] += (weight.grad - first[weight]).abs()
        return importance.units(student, total.__getitem__)


def sensitivities(
    model: nn.Module, data: Iterable[Batch]
) -> tuple[Float[Tensor, "L H"], Float[Tensor, "L F"]]:
    """sum over examples of |dL/dxi| of each head and each neuron, L an example's own loss."""
    model = importance.scored(model)
    heads = neurons = torch.zeros(())
    for batch in importance.collect(data, "labelled batches"):
        examples = len(batch["input_ids"])
        with _own_factors(model, examples) as factors:
            loss = importance.loss(model, batch) * examples  # a sum: each factor meets one example
            slopes = torch.autograd.grad(loss, factors)
        heads, neurons = (
            total + slope.abs().sum(1).double().to(slope.device)
            for total, slope in zip((heads, neurons), slopes, strict=True)
        )
    return heads, neurons


@contextmanager
def _own_factors(
    model: nn.Module, examples: int
) -> Iterator[tuple[Float[Tensor, "L B H"], Float[Tensor, "L B F"]]]:
    """Factors of 1 on every head and neuron, separate for each example of a batch."""
    shapes = encoder.shape(model).layers
    new = next(model.parameters()).new_ones
    heads = new(len(shapes), examples, shapes[0].heads).requires_grad_()
    neurons = new(len(shapes), examples, shapes[0].neurons).requires_grad_()
    with ExitStack() as hooks:

        def scale_input(module: nn.Linear, factors: Tensor) -> None:
            hook = module.register_forward_pre_hook(lambda _, args: (args[0] * factors[:, None],))
            hooks.callback(hook.remove)

        for index, (layer, shape) in enumerate(zip(encoder.layers(model), shapes, strict=True)):
            scale_input(layer.output, heads[index].repeat_interleave(shape.vo, dim=1))
            scale_input(layer.down, neurons[index])
        yield heads, neurons
