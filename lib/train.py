"""How is a model taught? One loop for teachers and for what is left after pruning."""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, fields

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from datasets import Dataset
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations
from tqdm import tqdm
from transformers import get_linear_schedule_with_warmup

from lib import batches
from lib.errors import StudyError, unknown
from lib.evaluate import autocast


@dataclass(frozen=True)
class Recipe:
    """How long and how hard to train. Exactly one of `epochs` and `steps` is given."""

    epochs: float | int | None = None  # passes over the training split
    steps: int | None = None  # optimiser steps
    batch: int = 32  # examples a step
    lr: float | int = 3e-5  # peak learning rate of AdamW
    warmup: float | int = (
        0.06  # fraction of the steps with rising learning rate; then linear decay to 0
    )
    weight_decay: float | int = 0.01  # on matrices only
    clip: float | int = 1.0  # largest gradient norm
    precision: str = "bfloat16"  # of the matrix products; weights and optimiser stay float32
    selections: int = 0  # times that the selection split is scored; the best state is kept

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise StudyError(f"a recipe wants either epochs or steps; got {self}")
        if min(self.epochs or 1, self.steps or 1, self.batch, self.lr) <= 0:
            raise StudyError(f"a recipe's epochs, steps, batch and lr must be above 0; got {self}")

    @classmethod
    def of(cls, options: dict) -> "Recipe":
        """From a record's plain dict; an unknown key is an error."""
        known = [f.name for f in fields(cls)]
        for name in options:
            if name not in known:
                raise unknown("training option", name, known)
        return cls(**options)

    def total(self, examples: int) -> int:
        """Optimiser steps on a training split of this size."""
        return self.steps or max(1, round(self.epochs * math.ceil(examples / self.batch)))


@dataclass(frozen=True)
class Trained:
    """A trained copy and the record of its training."""

    model: nn.Module
    steps: int  # optimiser steps taken
    losses: list[float]  # mean training loss of each tenth of the steps
    selection: list[tuple[int, float]]  # (step, score on the selection split)


def finetune(
    model: nn.Module,
    tokenizer,
    data: Dataset,
    recipe: Recipe,
    seed: int,
    select: Callable[[nn.Module], float] | None = None,
    keep_zeros: bool = False,
    label: str = "fine-tune",
) -> Trained:
    """Fine-tune a copy of `model` on tokenised `data`; `model` comes back unchanged.

    `select` scores a model on a piece of the training data; with `recipe.selections` evenly spaced
    calls the best state is kept, otherwise the last. With `keep_zeros` weights that are exactly 0
    stay so, as a method that merely zeroes weights promises. Raises StudyError when the loss is
    not finite.
    """
    set_seed(seed)  # dropout has no generator of its own
    accelerator = Accelerator()
    # Only here and in dropout does chance enter: order of the examples, from this generator.
    order = torch.Generator().manual_seed(seed)
    steps = recipe.total(len(data))
    model = deepcopy(model).float()
    frozen = _freeze_zeros(model) if keep_zeros else []
    optimiser = torch.optim.AdamW(_groups(model, recipe), lr=recipe.lr, fused=True)
    schedule = get_linear_schedule_with_warmup(optimiser, round(recipe.warmup * steps), steps)
    model, optimiser = accelerator.prepare(model, optimiser)
    marks = {round(steps * (i + 1) / recipe.selections) for i in range(recipe.selections)}
    losses, selection, best = [], [], None

    model.train()
    stream = batches.training(data, tokenizer, recipe.batch, order, steps=steps)
    progress = tqdm(stream, total=steps, desc=label, unit="step", mininterval=2)
    for step, batch in enumerate(progress, start=1):
        batch = {name: tensor.to(accelerator.device) for name, tensor in batch.items()}
        with autocast(accelerator.device, recipe.precision):
            loss = model(**batch).loss
        if not torch.isfinite(loss):
            raise StudyError(f"{label}: the loss is {loss.item()} at step {step}; lower lr?")
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), recipe.clip)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        losses.append(loss.item())
        if select is not None and step in marks:
            plain = accelerator.unwrap_model(model)
            selection.append((step, select(plain)))
            model.train()
            if best is None or selection[-1][1] > best[0]:
                best = (selection[-1][1], deepcopy(plain.state_dict()))
        progress.set_postfix(loss=f"{sum(losses[-50:]) / len(losses[-50:]):.3f}", refresh=False)

    trained = accelerator.unwrap_model(model)
    if best is not None:
        trained.load_state_dict(best[1])
    for module in frozen:
        remove_parametrizations(module, "weight", leave_parametrized=True)
    tenth = max(1, math.ceil(len(losses) / 10))
    means = [losses[i : i + tenth] for i in range(0, len(losses), tenth)]
    return Trained(trained.eval(), steps, [round(sum(m) / len(m), 4) for m in means], selection)


class _Mask(nn.Module):
    """A parametrisation that holds the zeros of a weight at zero."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", (weight != 0).to(weight.dtype))

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.kept


def _freeze_zeros(model: nn.Module) -> list[nn.Module]:
    sparse = [m for m in model.modules() if isinstance(m, nn.Linear) and (m.weight == 0).any()]
    for module in sparse:
        register_parametrization(module, "weight", _Mask(module.weight))
    return sparse


def _groups(model: nn.Module, recipe: Recipe) -> list[dict]:
    """Biases and LayerNorms are not decayed."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
