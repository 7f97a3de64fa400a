"""Accurate Retraining-free Pruning for Encoders (Park et al. 2024), https://arxiv.org/abs/2308.03449

K-prune: gradients, but no labels. Sublayer by sublayer from the bottom it measures what each unit
still above knows, cuts this sublayer by one threshold over all of them, and refits its weights.
"""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lib.errors import StudyError
from lib.measures import costs
from lib.models import encoder
from lib.models.compact import CompactForSequenceClassification, compact, dense
from lib.models.masks import Masks, applied
from lib.pruners import Needs, validate
from lib.scoring import calibration, filters, search, tuning
from lib.scoring.importance import Batch

SILENT = "do the calibration sentences make any of them fire?"


@dataclass(frozen=True)
class Pruner:
    """Keep the heads and neurons of greatest knowledge per MAC, measured anew before each cut.

    Knowledge of a dimension with activation h and output weights w over N sentences: predictive
    sum over batches of g^2 / 2N, g the slope of the KL divergence to the dense model's answer
    softened by `temperature` (of a regression the squared error), plus `representation` * mean
    h^2 * mean w^2 over tokens and outputs; of a head the mean over its dimensions, times `heads`.
    Before the first cut student and teacher agree, so g is 0 there and representation decides.
    `tokens` is the sequence length at which MACs are counted; a study fills in the task's mean.
    """

    version: ClassVar[int] = 1
    units: ClassVar[tuple[str, ...]] = ("macs",)
    needs: ClassVar[Needs] = "examples"
    compact: ClassVar[bool] = True
    stochastic: ClassVar[bool] = False

    unit: str = "macs"
    seed: int = 0
    representation: float = 2.5e-4
    heads: float = 64.0
    temperature: float = 2.0
    tokens: int | float | None = None

    def __post_init__(self) -> None:
        validate(self)
        search.check_tokens(self.tokens)
        if not (self.representation >= 0 and self.heads > 0 and self.temperature > 0):
            raise StudyError("wanted heads and temperature above 0, representation of at least 0")

    def __call__(self, model: nn.Module, data: Iterable[Batch], budget: float) -> nn.Module:
        shape, tokens = encoder.shape(model), search.length(self.tokens)
        head, neuron, left = search.prices(shape, tokens, budget)
        batches, seconds = calibration.sentences(data), {}
        teacher, student = dense(model).eval(), dense(model).eval()
        student.requires_grad_(False)
        with torch.no_grad():
            answers = [teacher(**batch).logits for batch in batches]
        kept = {unit: getattr(search.masks(model), unit) != 0 for unit in ("heads", "neurons")}
        for step in tuning.climb(student, teacher, batches):
            unit, price = ("heads", head) if step.part == "attention" else ("neurons", neuron)
            with costs.clock(seconds, "measure"):
                found = self.knowledge(student, answers, batches)
                above = step.layer + (step.part == "ffn")  # attention below is cut already
                starts = {"heads": above, "neurons": step.layer}
                for kind, start in starts.items():
                    search.check_ranks(found[kind][start:], kind[:-1], SILENT, start + 1)
                scores = [found["heads"][above:] / head, found["neurons"][step.layer :] / neuron]
                stays = threshold(scores, (head, neuron), left)[step.part == "ffn"][0]
            kept[unit][step.layer] = stays
            left -= float(stays.sum()) * price
            with costs.clock(seconds, "refit"):
                _cut(step, stays)
            del step  # its activations go before the next sublayer's come
        pruned = compact(student, search.masks(student, **kept)).eval()
        pruned.requires_grad_(True)
        pruned.trace = filters.traced(model, pruned, batches) | {"seconds": seconds}
        return pruned.train(model.training)

    def knowledge(
        self,
        student: CompactForSequenceClassification,
        answers: Sequence[Float[Tensor, "B C"]],
        batches: Sequence[Batch],
    ) -> dict[str, Tensor]:
        """Of heads (L, H) and neurons (L, F), in float64, before it is divided by MACs."""
        masks = Masks.dense(student)
        leaves = {"heads": masks.vo.requires_grad_(), "neurons": masks.neurons.requires_grad_()}
        slopes = {unit: torch.zeros_like(leaf).double() for unit, leaf in leaves.items()}
        energy = {unit: torch.zeros_like(leaf).double() for unit, leaf in leaves.items()}
        sentences = sum(len(batch["input_ids"]) for batch in batches)
        tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
        for batch, answer in zip(batches, answers, strict=True):
            with torch.enable_grad(), _energy(student, batch, energy), applied(student, masks):
                loss = self._loss(student, student(**batch).logits.float(), answer.float())
                found = torch.autograd.grad(loss, list(leaves.values()))
            for unit, slope in zip(leaves, found, strict=True):
                slopes[unit] += slope.double().square()
        both = {
            unit: slopes[unit] / (2 * sentences) + self.representation * energy[unit] / tokens
            for unit in leaves
        }
        return {"heads": self.heads * both["heads"].mean(-1), "neurons": both["neurons"]}

    def _loss(self, student: nn.Module, logits: Tensor, answer: Tensor) -> Tensor:
        if student.config.problem_type == "regression":
            return F.mse_loss(logits, answer)
        heat = self.temperature
        soft = F.softmax(answer / heat, dim=1)
        return F.kl_div(F.log_softmax(logits / heat, dim=1), soft, reduction="batchmean") * heat**2


def threshold(
    scores: Sequence[Float[Tensor, "_ _"]], prices: Sequence[int | float], left: int | float
) -> list[Bool[Tensor, "_ _"]]:
    """Of two kinds of unit, the greatest scores in one order for as long as they can be paid."""
    flat = torch.cat([part.flatten() for part in scores])
    costs = torch.cat(
        [
            torch.full((part.numel(),), float(p), dtype=torch.float64)
            for part, p in zip(scores, prices, strict=True)
        ]
    ).to(flat.device)
    order = flat.argsort(descending=True, stable=True)
    stays = torch.zeros_like(flat, dtype=torch.bool)
    stays[order[costs[order].cumsum(0) <= left * (1 + 1e-12)]] = True
    sizes = [part.numel() for part in scores]
    return [s.view_as(part) for s, part in zip(stays.split(sizes), scores, strict=True)]


def _energy(student: nn.Module, batch: Batch, energy: dict[str, Tensor]) -> ExitStack:
    """While it lasts, add sum h^2 * mean w^2 of every dimension to `energy`."""
    hooks, real = ExitStack(), batch["attention_mask"].bool()

    def watch(linear: nn.Linear, total: Tensor) -> None:
        def add(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            size = args[0].detach()[real].float().square().sum(0).double()
            total.add_((size * linear.weight.double().square().mean(0)).view_as(total))

        hooks.callback(linear.register_forward_pre_hook(add).remove)

    for index, layer in enumerate(encoder.layers(student)):
        watch(layer.output, energy["heads"][index])
        watch(layer.down, energy["neurons"][index])
    return hooks


@torch.no_grad()
def _cut(step: tuning.Step, stays: Bool[Tensor, "n"]) -> None:
    """Zero what a sublayer loses and refit the rest to the teacher's output.

    Raises a StudyError for fewer calibration tokens than columns that stay.
    """
    kept = stays.repeat_interleave(step.group).nonzero().flatten()
    weight = torch.zeros_like(step.linear.weight)
    if len(kept):  # where all stay, what was lost below is still made good
        moments = step.moments().only(kept)
        tuning.check_tokens(moments.tokens, len(kept))
        weight[:, kept] = tuning.refitted(moments, step.linear.weight[:, kept])
    step.linear.weight.copy_(weight)
