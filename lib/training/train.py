"""How is a model taught? One loop for teachers and for what is left after pruning."""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from datasets import Dataset
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations
from tqdm import tqdm
from transformers import get_linear_schedule_with_warmup

from lib import devices
from lib.errors import StudyError, unknown
from lib.measures.evaluate import autocast
from lib.training import batches, checkpoints
from lib.training.checkpoints import Keeper, State
from lib.training.distil import Distil, Teaching


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
    precision: str = "bfloat16"  # of the matrix products, where that pays; all else is float32
    selections: int = 0  # times that the selection split is scored; the best state is kept
    distil: Distil | None = None  # from a teacher, in place of the labels

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
        distil = options.get("distil")
        return cls(**options | ({"distil": Distil.of(distil)} if distil else {}))

    def record(self) -> dict:
        """All of it as plain values; what is not distilled does not say so."""
        return {n: v for n, v in asdict(self).items() if n != "distil" or v is not None}

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
    before: float = 0.0  # seconds of it that were spent before the checkpoint gone on from


def finetune(
    model: nn.Module,
    tokenizer,
    data: Dataset,
    recipe: Recipe,
    seed: int,
    select: Callable[[nn.Module], float] | None = None,
    keep_zeros: bool = False,
    label: str = "fine-tune",
    teacher: nn.Module | None = None,
    checkpoint: Path | None = None,
) -> Trained:
    """Fine-tune a copy of `model` on tokenised `data`; `model` comes back unchanged.

    `select` scores a model on a piece of the training data; with `recipe.selections` evenly spaced
    calls the best state is kept, otherwise the last. With `keep_zeros` weights that are exactly 0
    stay so, as a method that merely zeroes weights promises. `teacher` is whom `recipe.distil`
    learns from. Where `checkpoint` names a file, a training that was killed goes on from there.
    Raises StudyError when the loss is not finite.
    """
    set_seed(seed)  # dropout has no generator of its own
    accelerator = Accelerator(cpu=devices.device().type == "cpu")
    # Only here and in dropout does chance enter: order of the examples, from this generator.
    order = torch.Generator().manual_seed(seed)
    steps = recipe.total(len(data))
    model = deepcopy(model).float()
    frozen = _freeze_zeros(model) if keep_zeros else []
    groups, teaching, bridge = _groups(model, recipe), None, []
    if recipe.distil:
        teaching = _teaching(teacher, model, recipe, accelerator.device)
        bridge = [teaching.bridge]
        groups.append({"params": bridge, "weight_decay": 0.0})
    optimiser = torch.optim.AdamW(groups, lr=recipe.lr, fused=True)
    schedule = get_linear_schedule_with_warmup(optimiser, round(recipe.warmup * steps), steps)
    model, optimiser = accelerator.prepare(model, optimiser)
    plain = accelerator.unwrap_model(model)
    marks = {round(steps * (i + 1) / recipe.selections) for i in range(recipe.selections)}
    losses, selection, best = [], [], None
    done, keeper = 0, None
    if checkpoint:
        those = {"model": plain} | ({"teacher": teacher} if teaching else {})
        own = {name: checkpoints.weights(it) for name, it in those.items()}
        keeper = Keeper(checkpoint, recipe.record() | own | {"seed": seed, "examples": len(data)})
        if state := keeper.load():
            done, losses, selection, best = _go_on(state, plain, teaching, optimiser, schedule)

    model.train()
    stream = batches.training(data, tokenizer, recipe.batch, order, steps=steps)
    progress = tqdm(
        islice(stream, done, None),
        initial=done,
        total=steps,
        desc=label,
        unit="step",
        mininterval=2,
    )
    for step, batch in enumerate(progress, start=done + 1):
        batch = {name: tensor.to(accelerator.device) for name, tensor in batch.items()}
        with autocast(accelerator.device, recipe.precision):
            loss = _loss(model, batch, teaching)
        if not torch.isfinite(loss):
            raise StudyError(f"{label}: the loss is {loss.item()} at step {step}; lower lr?")
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(
            [p for g in optimiser.param_groups for p in g["params"]], recipe.clip
        )
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        losses.append(loss.item())
        if select is not None and step in marks:
            selection.append((step, select(plain)))
            model.train()
            if best is None or selection[-1][1] > best[0]:
                best = (selection[-1][1], deepcopy(plain.state_dict()))
        if keeper and (keeper.due() or step == steps):
            keeper.save(*_state(plain, teaching, optimiser, schedule, losses, selection, best))
        shown = {"select": f"{selection[-1][1]:.3f}"} if selection else {}
        mean = sum(losses[-50:]) / len(losses[-50:])
        progress.set_postfix(loss=f"{mean:.3f}", **shown, refresh=False)

    if best is not None:
        plain.load_state_dict(best[1])
    for module in frozen:
        remove_parametrizations(module, "weight", leave_parametrized=True)
    before = keeper.before if keeper else 0.0
    return Trained(plain.eval(), steps, tenths(losses), selection, before)


def tenths(losses: list[float]) -> list[float]:
    """The mean of each tenth of the steps."""
    size = max(1, math.ceil(len(losses) / 10))
    parts = [losses[start : start + size] for start in range(0, len(losses), size)]
    return [round(sum(part) / len(part), 4) for part in parts]


def _teaching(
    teacher: nn.Module | None, model: nn.Module, recipe: Recipe, device: torch.device
) -> Teaching:
    if teacher is None:
        raise StudyError("wanted a teacher, as the recipe says distil, got none; give one")
    teaching = Teaching(teacher, model, recipe.distil).to(device)
    low = devices.precision(recipe.precision, device) == "bfloat16"
    return teaching.cast(torch.bfloat16) if low else teaching


def _loss(model: nn.Module, batch: dict[str, Tensor], teaching: Teaching | None) -> Tensor:
    if teaching is None:
        return model(**batch).loss
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    said = model(**inputs, output_hidden_states=teaching.how.layers > 0)
    return teaching(batch, said.logits, said.hidden_states, teaching.left)[0]


def _state(model, teaching, optimiser, schedule, losses, selection, best) -> State:
    own = dict(model.state_dict())
    if teaching is not None:
        own["bridge"] = teaching.bridge
    return checkpoints.join(
        own=(own, {"losses": losses, "selection": selection, "schedule": schedule.state_dict()}),
        best=(best[1] if best else {}, {"score": best[0] if best else None}),
        optimiser=checkpoints.of_optimiser(optimiser),
        dropout=checkpoints.of_noise(),
    )


def _go_on(state: State, model, teaching, optimiser, schedule) -> tuple:
    """Put all back where it was; steps done, losses, selection, best."""
    own, facts = checkpoints.part(state, "own")
    if teaching is not None:
        with torch.no_grad():
            teaching.bridge.copy_(own.pop("bridge"))
    model.load_state_dict(own)
    schedule.load_state_dict(facts["schedule"])
    checkpoints.to_optimiser(optimiser, checkpoints.part(state, "optimiser"))
    checkpoints.to_noise(checkpoints.part(state, "dropout"))
    tensors, kept = checkpoints.part(state, "best")
    best = None if kept["score"] is None else (kept["score"], tensors)
    return len(facts["losses"]), facts["losses"], list(map(tuple, facts["selection"])), best


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
