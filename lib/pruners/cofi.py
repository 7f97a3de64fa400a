"""Structured Pruning Learns Compact and Accurate Models (Xia et al. 2022), https://arxiv.org/abs/2204.00408

CoFi: coarse and fine masks - sublayers, hidden dims, heads, neurons - learnt together with the
weights under distillation, until a model of the target size is left.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lib import runs
from lib.errors import StudyError
from lib.models import encoder
from lib.models.compact import dense
from lib.models.masks import Masks, applied
from lib.pruners import Aids, Needs, validate
from lib.scoring import importance, search
from lib.scoring.importance import Batch
from lib.training.checkpoints import Keeper, State, join, part, weights
from lib.training.distil import Distil, Matching
from lib.training.hard_concrete import Units
from lib.training.joint import Joint, Plan, reach
from lib.training.lagrangian import Warmup

CHECKS, SCORED = 100, 12  # times that the realised sparsity is looked at, and the score
CLOSE = 0.01  # of two sparsities that pass the target by no more, the later is as good
RULE = 100  # reg_lr times steps: with less, gates cannot go and come back


@dataclass(frozen=True)
class Pruner:
    """Learn masks and weights of a copy; return it compact, its soft masks folded in.

    A budget of 0.05 of "parameters" is a sparsity of 0.95: of everything in the encoder's layers,
    wherever it lies. As many steps as data has batches. The model is that of the last step whose
    realised sparsity, counted on tensors, passes the target; where none does, of the nearest, and
    `trace["missed"]` says so: such a run is no success.

    start: what the student begins as, a copy of the model to prune ("teacher") or `aids.start`, the
    pretrained encoder under a fresh classifier ("pretrained"). before: share of the steps that
    train weights alone, under the same losses; the pruning and its schedules begin after them.
    Refused for a copy under distillation, which has nothing to learn yet. prune: heads and neurons
    alone ("fine"), or with them sublayers ("layers"), hidden dims ("hidden") or both ("all").
    clamp: bound of |alpha|; the authors' 4.605 leaves a live layer 5% of its neurons all but shut,
    ours 0.5%. warmup: fraction of the steps of pruning over which the target rises. meet: end at
    the first step after it at which the realised sparsity passes the target, and give back to the
    neurons what went too far; with False, train for all the steps. strict: refuse a target that the
    clamp puts out of reach, rather than come as near as it lets. reg_lr: of gates and price; None
    is 0.1, or more in a pruning so short that their travel, reg_lr times steps, would be below 100.
    prediction, layers, matching: of distillation; with both weights 0 it is the task's own loss.
    Departures from the authors' code are the defaults of start
    and before (theirs: the pretrained encoder, and 1 epoch of 20 or 4 of 100), clamp, warmup,
    course, own_start, unwind, meet, lr, reg_lr and matching, and no dropout of attention.
    """

    # 1 let the gates swing about a target that they had met; 2 took a target for met by up to .01
    # more sparsity, and trained on sampled masks after it
    version: ClassVar[int] = 3
    units: ClassVar[tuple[str, ...]] = ("parameters",)
    needs: ClassVar[Needs] = "training"
    compact: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True
    aided: ClassVar[bool] = True

    unit: str = "parameters"
    seed: int = 0
    start: Literal["teacher", "pretrained"] = "teacher"
    before: float = 0.0
    prune: Units = "all"
    clamp: float = 6.9
    warmup: float = 2 / 3
    course: Warmup = "cubic"
    own_start: bool = True
    unwind: bool = True
    meet: bool = True
    strict: bool = True
    lr: float = 1e-4
    reg_lr: int | float | None = None
    prediction: float = 0.1
    layers: float = 0.9
    matching: Matching = "ordered"

    def __post_init__(self) -> None:
        validate(self)
        rates = self.clamp, self.lr, 1.0 if self.reg_lr is None else self.reg_lr
        if not 0 <= self.warmup < 1 or min(rates) <= 0:
            raise StudyError(
                "wanted a warmup in [0, 1) and clamp, lr and reg_lr above 0, got "
                f"{self.warmup}, {self.clamp}, {self.lr} and {self.reg_lr}"
            )
        if not 0 <= self.before < 1:
            raise StudyError(f"wanted before in [0, 1), a share of the steps, got {self.before}")
        if self._distil() and self.before and self.start == "teacher":
            raise StudyError(
                f"wanted before=0 for a copy of the teacher, got {self.before}: it answers as its "
                'teacher does and has nothing to learn; give start="pretrained"'
            )

    def __call__(
        self,
        model: nn.Module,
        data: Iterable[Batch],
        budget: float,
        aids: Aids = Aids(),  # noqa: B008 - frozen
    ) -> nn.Module:
        if search.check(budget) == 1:
            return dense(model)
        self._within_reach(model, 1 - budget)
        batches = importance.collect(data, "labelled training batches")
        before = round(self.before * len(batches))
        plan = self._plan(len(batches) - before, 1 - budget)
        devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
        with torch.random.fork_rng(devices=devices):
            source = self._source(aids)
            torch.manual_seed(self.seed)  # dropout has no generator of its own
            own = {"before": before, "teacher": weights(model)} if source or before else {}
            small = _Run(Joint(model, plan, source, before), aids, own).train(batches)
        return small.train(model.training)

    def _source(self, aids: Aids) -> nn.Module | None:
        if self.start == "teacher":
            return None
        if aids.start is None:
            raise StudyError('wanted aids.start, a pretrained model, for start="pretrained"')
        return aids.start()

    def _distil(self) -> Distil | None:
        if self.prediction == self.layers == 0:
            return None
        return Distil(self.prediction, self.layers, self.matching)

    def _within_reach(self, model: nn.Module, target: float) -> None:
        most = reach(encoder.shape(model), self.prune, self.clamp, Masks.dense(model))
        if self.strict and target > most:
            raise StudyError(
                f"a sparsity of {target:g} is out of reach: with prune={self.prune!r} gates within "
                f"a clamp of {self.clamp:g} stop at {most:.3f}; widen it, or prune more kinds"
            )

    def _plan(self, steps: int, target: float) -> Plan:
        rising = round(self.warmup * steps)
        if rising >= steps:
            raise StudyError(
                f"wanted more steps than the {rising} of the warm-up, got {steps}; train for "
                "longer or warm up for less"
            )
        reg_lr = max(0.1, RULE / steps) if self.reg_lr is None else float(self.reg_lr)
        if steps * reg_lr < self.clamp:
            raise StudyError(
                f"{steps} steps at a reg_lr of {reg_lr:g} cannot shut a gate that starts at "
                f"{self.clamp:g}; give more steps or a greater reg_lr"
            )
        return Plan(
            steps=steps,
            target=target,
            units=self.prune,
            clamp=self.clamp,
            warmup=self.warmup,
            course=self.course,
            own_start=self.own_start,
            unwind=self.unwind,
            meet=self.meet,
            lr=self.lr,
            reg_lr=reg_lr,
            distil=self._distil(),
            seed=self.seed,
        )


class _Run:
    """A joint training with all that surrounds it: checks, best step, record, checkpoints."""

    def __init__(self, joint: Joint, aids: Aids, own: dict) -> None:
        self.joint, self.aids, self.plan = joint, aids, joint.plan
        self.own = own  # what a checkpoint must share besides the plan and the student
        self.curve: list[list[float]] = []  # one row a check, by COLUMNS
        self.scores: list[list[float]] = []  # step, score on a piece of the selection split
        self.best: dict[str, Tensor] = {}  # the point to return to
        self.found: tuple[int, float] = (0, -1.0)  # its step and realised sparsity

    def train(self, batches: list[Batch]) -> nn.Module:
        joint, keeper = self.joint, None
        before, steps = joint.before, joint.before + self.plan.steps
        if self.aids.checkpoint:
            own = {"batch": list(batches[0]["input_ids"].shape), "model": weights(joint.student)}
            keeper = Keeper(self.aids.checkpoint, asdict(self.plan) | own | self.own)
            if state := keeper.load():
                self.restore(state)
        marks = {before + round(self.plan.steps * (n + 1) / CHECKS) for n in range(CHECKS)}
        scored = {round(steps * (n + 1) / SCORED) for n in range(SCORED)}
        todo = [] if joint.met else batches[joint.step :]
        progress = tqdm(
            todo, initial=joint.step, total=steps, desc=self.aids.label, unit="step", mininterval=2
        )
        for batch in progress:
            seen = joint.advance(batch)
            over = joint.met or joint.step == steps
            if joint.since > 0 and (joint.step in marks or over):
                self.check(seen)
            if self.aids.select and (joint.step in scored or over):
                self.scores.append([joint.step, round(self.score(), 4)])
            if keeper and (keeper.due() or over):
                keeper.save(*self.state())
            last = {"select": f"{self.scores[-1][1]:.3f}"} if self.scores else {}
            progress.set_postfix(
                sparsity=f"{seen['expected']:.3f}/{seen['target']:.3f}",
                **{name: f"{seen[name]:.3f}" for name in LOSSES if name in seen},
                **last,
                refresh=False,
            )
            if over:
                break
        if keeper:
            self.aids.spent(keeper.before)
        return self.finish()

    def check(self, seen: dict[str, float]) -> None:
        """Note where the training stands; remember it if it is the best to stop at."""
        step, realised = self.joint.step, self.joint.realised(self.joint.settled())
        row = {"step": step, "realised": realised} | seen
        self.curve.append([round(float(row.get(name, 0)), 5) for name in COLUMNS])
        target = self.plan.target
        first, (_, before) = not self.best, self.found
        # past the warm-up only: a target that is still rising is passed by chance
        settled = self.joint.since > self.joint.course.steps
        better = target <= realised <= max(before, target + CLOSE)
        if (
            self.joint.met
            or first
            or (before < target and realised > before)
            or (settled and better)
        ):
            self.best, self.found = self.joint.point(), (step, realised)

    def score(self) -> float:
        masks = self.joint.settled() if self.joint.since > 0 else self.joint.masks
        with applied(self.joint.student, masks):
            return self.aids.select(self.joint.student)

    def finish(self) -> nn.Module:
        step, realised = self.found
        self.joint.go_to(self.best)
        masks = self.joint.settled()
        small = self.joint.compact(masks)
        small.trace = {
            "columns": list(COLUMNS),
            "curve": self.curve,
            "scores": self.scores,
            "taken": step,
            "target": round(self.plan.target, 6),
            "realised": round(realised, 6),
            "masks": summary(masks, small),
        }
        if realised < self.plan.target:
            small.trace["missed"] = round(self.plan.target - realised, 6)
        return small

    def state(self) -> State:
        facts = {"curve": self.curve, "scores": self.scores, "found": list(self.found)}
        return join(joint=self.joint.state(), best=(self.best, facts))

    def restore(self, state: State) -> None:
        self.joint.restore(part(state, "joint"))
        self.best, facts = part(state, "best")
        self.curve, self.scores = facts["curve"], facts["scores"]
        self.found = tuple(facts["found"])


LOSSES = ("prediction", "layers", "task")
COLUMNS = ("step", "expected", "target", "realised", *LOSSES, "l1", "l2")


def summary(masks: Masks, small: nn.Module) -> dict:
    """What is left by layer: kept units, and the useful among them, whose factor is above 0.5.

    `bits` says which, one bit a unit, layer after layer: `runs.unpack_labels(text, units, 2)`.
    """
    layers = encoder.shape(small).layers
    alive = [torch.tensor([getattr(layer, name) for layer in layers]) for name in ("mha", "ffn")]
    found = {name: there.tolist() for name, there in zip(("mha", "ffn"), alive, strict=True)}
    for name, there in zip(("heads", "neurons"), alive, strict=True):
        factors = getattr(masks, name).cpu() * there[:, None]
        found[name] = (factors != 0).sum(1).tolist()
        found[f"useful_{name}"] = (factors > 0.5).sum(1).tolist()
    hidden = masks.hidden
    found["hidden"] = encoder.shape(small).hidden
    found["useful_hidden"] = found["hidden"] if hidden is None else int((hidden > 0.5).sum())
    kinds = {"heads": masks.heads, "neurons": masks.neurons, "hidden": hidden}
    kept = {n: (m != 0).long().flatten().cpu() for n, m in kinds.items() if m is not None}
    found["bits"] = {name: runs.pack_labels(own.numpy(), 2) for name, own in kept.items()}
    return found
