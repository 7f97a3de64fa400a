"""How are weights and gates trained together, to a target sparsity, under a teacher?

The training that `pruners.cofi` is made of: one draw of all masks a batch, the losses of `distil`
(or, without a teacher, the task's), and the Lagrangian; before it, if asked for, the weights alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from lib.errors import StudyError
from lib.measures.costs import encoder_params
from lib.models import encoder
from lib.models.compact import compact, dense
from lib.models.masks import Masks, applied, left
from lib.scoring import importance
from lib.training import checkpoints
from lib.training.checkpoints import State
from lib.training.distil import Distil, Teaching, check
from lib.training.hard_concrete import (
    Gates,
    Units,
    expected_sparsity,
    sampled_masks,
    settled_masks,
    start,
)
from lib.training.lagrangian import Course, Price, Warmup

CLEAR = 0.002  # aim so far above a target that is to be met: expected is not realised
HALVINGS = 50  # of the interval in which the last shift of the neurons' gates lies


@dataclass(frozen=True)
class Plan:
    """What a joint training is told."""

    steps: int  # of pruning, without those before it
    target: float  # sparsity, 0..1
    units: Units
    clamp: float  # the largest |alpha|
    warmup: float  # fraction of the steps
    course: Warmup
    own_start: bool  # let the target begin at the sparsity that fresh gates expect, not at 0
    unwind: bool
    meet: bool  # end where the realised sparsity passes the target, filled up to it
    lr: float
    reg_lr: float
    distil: Distil | None
    seed: int


class Joint:
    """A training under way: a student in our own code, its gates, the price on its size.

    `model` teaches. The student is a copy of it, or of `source`, which must be of its labels and
    widths. In the first `before` steps all masks are dense and only weights are trained; their
    rate falls as if over all steps, and begins anew, as their optimiser does, with the pruning.
    """

    def __init__(
        self, model: nn.Module, plan: Plan, source: nn.Module | None = None, before: int = 0
    ) -> None:
        self.plan, self.step, self.before = plan, 0, before
        self.shape, self.device = encoder.shape(model), next(model.parameters()).device
        self.noise = torch.Generator().manual_seed(plan.seed)
        self.gates = start(self.shape, plan.units, self.noise).map(self._leaf)
        if source is not None:
            _fits(model, source)
        self.student = dense(model if source is None else source).to(self.device)
        self.student.float().train().requires_grad_(True)
        stem = encoder.stem(self.student)
        for table in (stem.words, stem.positions, stem.types):
            if table is not None:
                table.requires_grad_(False)
        for layer in self.student.encoder.layers:
            layer.attention_dropout = 0.0  # the fused kernel of a CPU has none
        self.masks = Masks.dense(self.student)
        self.teaching = self._teaching(model) if plan.distil else None
        self.trained = {n: p for n, p in self.student.named_parameters() if p.requires_grad}
        if self.teaching is not None and plan.distil.layers:
            self.trained["bridge"] = self.teaching.bridge
        self.weights = self._optimiser()
        self.alphas = torch.optim.AdamW(
            self.gates.tensors().values(), lr=plan.reg_lr, weight_decay=0.0
        )
        self.price = Price(plan.reg_lr, plan.unwind, self.device)
        begin = expected_sparsity(self.gates, self.shape).item() if plan.own_start else 0.0
        end = min(plan.target + CLEAR, 1.0) if plan.meet else plan.target
        rising = round(plan.warmup * plan.steps)
        self.course = Course(min(begin, end), end, rising, plan.course)
        self.met = False  # the target: there is nothing more to prune

    def _leaf(self, alpha: Tensor) -> Tensor:
        return alpha.clamp(-self.plan.clamp, self.plan.clamp).to(self.device).requires_grad_()

    def _optimiser(self) -> torch.optim.AdamW:
        return torch.optim.AdamW(
            self.trained.values(), lr=self.plan.lr, weight_decay=0.0, fused=True
        )

    @property
    def since(self) -> int:
        """Steps of pruning that are done; below 0 while there are steps before it to do."""
        return self.step - self.before

    def _teaching(self, model: nn.Module) -> Teaching:
        teaching = Teaching(model, self.student, self.plan.distil)
        if torch.is_autocast_enabled(self.device.type):
            teaching.cast(torch.get_autocast_dtype(self.device.type))
        return teaching

    def advance(self, batch: Mapping[str, Tensor]) -> dict[str, float]:
        """One step on one batch; what it was like, in numbers."""
        batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        pruning = self.since >= 0
        if self.since == 0:
            self.weights = self._optimiser()  # as the authors: no moments of what was before
        masks = sampled_masks(self.gates, self.masks, self.noise) if pruning else self.masks
        loss, parts = self._loss(batch, masks)
        if not torch.isfinite(loss):
            raise StudyError(f"the loss is {loss.item()} at step {self.step + 1}; lower lr?")
        sparsity = expected_sparsity(self.gates, self.shape)
        target = self.course.target(max(self.since, 0))
        (loss + self.price(sparsity, target) if pruning else loss).backward()
        nn.utils.clip_grad_norm_(self.trained.values(), 1.0)
        steps = self.plan.steps
        done = self.since / steps if pruning else self.step / (self.before + steps)
        for group in self.weights.param_groups:
            group["lr"] = self.plan.lr * (1 - done)
        self.weights.step()
        self.weights.zero_grad()
        if pruning:
            self.alphas.step()
            self.price.step(sparsity.item(), target)
            with torch.no_grad():
                for alpha in self.gates.tensors().values():
                    alpha.clamp_(-self.plan.clamp, self.plan.clamp)
        self.alphas.zero_grad()
        sparsity = float(sparsity.detach())
        self.step += 1
        if pruning:
            self._meet()
        prices = {name: float(getattr(self.price, name).detach()) for name in ("l1", "l2")}
        return {"expected": sparsity, "target": target} | parts | prices

    def _meet(self) -> None:
        """Past the warm-up the target is met where the realised sparsity first passes it.

        Gates near the clamp answer a price late and then many at once: what went too far comes
        back. To train on would let the sparsity swing about the target instead. Where the steps
        run out below the target, what is lacking goes in the same way.
        """
        if not self.plan.meet or self.met or self.since < self.course.steps:
            return
        if self.since == self.plan.steps or self._over(self.gates) >= 0:
            self._fill()
            self.met = self._over(self.gates) >= 0

    @torch.no_grad()
    def _fill(self) -> None:
        """Shift the gates of all neurons, the smallest units, by the most that meets the target.

        They stay as they are where no shift does.
        """
        clamp, alpha = self.plan.clamp, self.gates.neurons

        def shifted(by: float) -> Gates:
            return replace(self.gates, neurons=(alpha + by).clamp(-clamp, clamp))

        low, high = -2 * clamp, 2 * clamp
        if self._over(shifted(low)) < 0:
            return
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._over(shifted(middle)) >= 0 else (low, middle)
        alpha.copy_(shifted(low).neurons)

    def _over(self, gates: Gates) -> float:
        """By how much the realised sparsity of these gates passes the target."""
        return self.realised(settled_masks(gates, self.masks)) - self.plan.target

    def _loss(self, batch: Mapping[str, Tensor], masks: Masks) -> tuple[Tensor, dict[str, float]]:
        with applied(self.student, masks):
            if self.teaching is None:
                loss = importance.loss(self.student, batch)
                return loss, {"task": float(loss.detach())}
            inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
            said = self.student(**inputs, output_hidden_states=self.plan.distil.layers > 0)
        return self.teaching(batch, said.logits, said.hidden_states, alive(masks))

    def settled(self) -> Masks:
        """The masks if the training ended here."""
        return settled_masks(self.gates, self.masks)

    def realised(self, masks: Masks) -> float:
        """The sparsity of the model that masks leave, counted on its tensors."""
        return realised(self.shape, masks)

    def compact(self, masks: Masks) -> nn.Module:
        """The smaller model; its `bridge` leads from its hidden dims to the teacher's."""
        small = compact(self.student, masks)
        if self.teaching is not None and self.plan.distil.layers:
            bridge = self.teaching.bridge.detach()
            kept = ... if masks.hidden is None else masks.hidden != 0
            small.bridge = bridge[kept].clone()
        return small

    def point(self) -> dict[str, Tensor]:
        """A copy of all that the compact model follows from."""
        gates = {f"gate.{name}": alpha for name, alpha in self.gates.tensors().items()}
        return {name: t.detach().clone() for name, t in (gates | self.trained).items()}

    @torch.no_grad()
    def go_to(self, point: Mapping[str, Tensor]) -> None:
        """Take back a copy that `point` made."""
        for name, alpha in self.gates.tensors().items():
            alpha.copy_(point[f"gate.{name}"])
        for name, weight in self.trained.items():
            weight.copy_(point[name])

    def state(self) -> State:
        """All that it takes to go on as if nothing had happened."""
        price = {name: p.detach() for name, p in self.price.named_parameters()}
        return checkpoints.join(
            point=(self.point(), {"step": self.step, "met": self.met}),
            price=(price | {"noise": self.noise.get_state()}, {}),
            weights=checkpoints.of_optimiser(self.weights),
            alphas=checkpoints.of_optimiser(self.alphas),
            prices=checkpoints.of_optimiser(self.price.optimiser),
            dropout=checkpoints.of_noise(),
        )

    @torch.no_grad()
    def restore(self, state: State) -> None:
        """Go on from what `state` gave."""
        point, facts = checkpoints.part(state, "point")
        self.go_to(point)
        self.step, self.met = facts["step"], facts["met"]
        price, _ = checkpoints.part(state, "price")
        for name, parameter in self.price.named_parameters():
            parameter.copy_(price[name])
        self.noise.set_state(price["noise"])
        checkpoints.to_optimiser(self.weights, checkpoints.part(state, "weights"))
        checkpoints.to_optimiser(self.alphas, checkpoints.part(state, "alphas"))
        checkpoints.to_optimiser(self.price.optimiser, checkpoints.part(state, "prices"))
        checkpoints.to_noise(checkpoints.part(state, "dropout"))


def _fits(model: nn.Module, source: nn.Module) -> None:
    """Raise a StudyError unless a student that begins as `source` can end as a smaller `model`."""
    check(model, source)
    if (wanted := encoder.shape(model)) != (came := encoder.shape(source)):
        raise StudyError(
            f"wanted a start of the teacher's {_widths(wanted)}, got {_widths(came)}; "
            "begin as the teacher"
        )


def _widths(shape: encoder.Shape) -> str:
    heads, neurons = (sum(getattr(one, n) for one in shape.layers) for n in ("heads", "neurons"))
    return f"{shape.hidden} hidden dims, {heads} heads and {neurons} neurons"


def alive(masks: Masks) -> list[int]:
    """The layers of which a sublayer is left."""
    count = len(masks.heads)
    if masks.mha is None or masks.ffn is None:
        return list(range(count))
    return ((masks.mha != 0) | (masks.ffn != 0)).nonzero().flatten().tolist()


def realised(shape: encoder.Shape, masks: Masks) -> float:
    """1 - parameters of the encoder that masks leave / of the dense one, biases and norms too."""
    return 1 - encoder_params(left(shape, masks)) / encoder_params(shape)


def reach(shape: encoder.Shape, units: Units, clamp: float, dense: Masks) -> float:
    """The greatest sparsity that gates held within +-clamp can realise; `dense` keeps all."""
    gates = start(shape, units, torch.Generator().manual_seed(0))
    shut = partial(torch.full_like, fill_value=-clamp, device=dense.heads.device)
    masks = settled_masks(gates.map(shut), dense)
    if masks.hidden is not None and not masks.hidden.any():
        return 1.0
    return realised(shape, masks)
