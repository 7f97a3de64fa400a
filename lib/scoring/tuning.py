"""How should what survives be rescaled or refitted, so that each layer answers as before?

Least squares without gradients or labels, sublayer by sublayer from the bottom: a sublayer of the
pruned model, on its own inputs, is to give what the teacher's gives on its own (Kwon et al. 2022,
Sec. 4.3, https://arxiv.org/abs/2204.09656).
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse.linalg import lsmr
from torch import Tensor, nn

from lib.errors import StudyError
from lib.models.compact import CompactForSequenceClassification
from lib.scoring import calibration
from lib.scoring.calibration import States
from lib.scoring.importance import Batch

How = Literal["scale", "refit"]
DAMP = 1.0  # on the change of the factors, in units of the normal matrix
TOLERANCE = 1e-6  # of LSMR, relative: its default, and the paper's
BOUND = 10.0  # a factor beyond it says that the system was not to be trusted
RIDGE = 1e-3  # on the change of refitted weights, in units of the mean squared activation


@dataclass
class Moments:
    """Sums over tokens of what enters a projection (h) and of what it should give (b)."""

    gram: Float[Tensor, "n n"]  # h h^T
    cross: Float[Tensor, "n D"]  # h b^T
    total: Float[Tensor, "n"]  # h
    target: Float[Tensor, "D"]  # b
    tokens: int = 0

    @classmethod
    def of(cls, linear: nn.Linear) -> "Moments":
        """Nothing yet; float64 where the model is, else float32."""
        weight, (width, count) = linear.weight, linear.weight.shape
        dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=weight.device)

        return cls(zeros(count, count), zeros(count, width), zeros(count), zeros(width))

    def only(self, units: Int[Tensor, "m"]) -> "Moments":
        """The same of some of the columns alone."""
        gram, cross, total = self.gram[units][:, units], self.cross[units], self.total[units]
        return Moments(gram, cross, total, self.target, self.tokens)

    def add(self, h: Float[Tensor, "N n"], b: Float[Tensor, "N D"]) -> None:
        """Count N more tokens: inputs h and wanted outputs b."""
        h, b = h.to(self.gram.dtype), b.to(self.gram.dtype)
        with torch.autocast(h.device.type, enabled=False):  # sums of bfloat16 would not do
            self.gram.addmm_(h.T, h)
            self.cross.addmm_(h.T, b)
        self.total += h.sum(0)
        self.target += b.sum(0)
        self.tokens += len(h)


def factors(
    moments: Moments,
    weight: Float[Tensor, "D n"],
    group: int = 1,
    intercept: bool = False,
    damp: float = DAMP,
) -> tuple[np.ndarray, int]:
    """One factor for every `group` columns of `weight`, and the iterations that it took.

    Column i of the system is vec(h_i w_i^T), so its normal matrix is G = (W^T W) * gram, summed
    over groups, and its right side r_i = <w_i, cross_i>. y = argmin ||G y - (r - G s)||^2 +
    damp^2 ||y||^2 by LSMR, and the factors are s + y with s = 1. With damp > 0 that is unique
    however singular G is. An intercept is a column of ones, begins at 0 and is the last factor;
    to add it would do nothing, as the LayerNorm that follows takes out the mean.
    """
    rows = weight.T.double()
    normal = (rows @ rows.T).mul_(moments.gram)
    right = (rows * moments.cross.double()).sum(1)
    ones = rows.sum(1) * moments.total.double()  # each column with that of ones
    if group > 1:
        normal = normal.unflatten(0, (-1, group)).unflatten(2, (-1, group)).sum((1, 3))
        right, ones = (v.unflatten(0, (-1, group)).sum(1) for v in (right, ones))
    start = torch.ones_like(right)
    if intercept:
        size = float(moments.tokens * weight.shape[0])
        normal = torch.cat([normal, ones[None]])
        normal = torch.cat([normal, torch.cat([ones, ones.new_tensor([size])])[:, None]], dim=1)
        right = torch.cat([right, moments.target.double().sum()[None]])
        start = torch.cat([start, start.new_zeros(1)])
    if not (normal.isfinite().all() and right.isfinite().all()):
        raise StudyError("wanted finite activations for least squares, got NaN or infinity")
    normal, right, start = (v.cpu().numpy() for v in (normal, right, start))
    # Nothing but convergence or the limit ends it: ill-conditioned systems are what damp is for.
    step, _, iterations, *_ = lsmr(
        normal,
        right - normal @ start,
        damp,
        atol=TOLERANCE,
        btol=TOLERANCE,
        conlim=0,
        maxiter=max(1000, 4 * len(start)),
    )
    return start + step, int(iterations)


def refitted(
    moments: Moments, weight: Float[Tensor, "D n"], ridge: float = RIDGE
) -> Float[Tensor, "D n"]:
    """The weight W of least ||H W^T - B||^2 + ridge * mean(diag gram) * ||W - weight||^2.

    Where nothing ever fires the weight stays as it is. Raises a StudyError where the system is
    singular, which takes a ridge of 0, or not finite.
    """
    gram, old = moments.gram.double(), weight.T.double()
    scale = gram.diagonal().mean() if len(gram) else gram.new_zeros(())
    if not len(gram) or scale == 0:
        return weight.clone()
    if not (gram.isfinite().all() and moments.cross.isfinite().all()):
        raise StudyError("wanted finite activations for least squares, got NaN or infinity")
    right = moments.cross.double() - gram @ old
    gram = gram + ridge * scale * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    root, failed = torch.linalg.cholesky_ex(gram)
    if failed:
        raise StudyError(
            f"the least-squares system of {len(gram)} units is singular on {moments.tokens} "
            "calibration tokens; give more sentences or a ridge above 0"
        )
    return (old + torch.cholesky_solve(right, root)).T.to(weight)


@dataclass(frozen=True)
class Step:
    """One sublayer of a student on the way up: its output projection, and what that is to give.

    Good until the next one: its lists then hold other states.
    """

    layer: int
    part: Literal["attention", "ffn"]
    linear: nn.Linear  # the student's own; written to, it counts for all that lies above
    group: int  # columns of one unit: a head's width, or 1
    own: list[States]
    inside: list[Float[Tensor, "B T n"]]  # what enters the projection
    goals: list[Float[Tensor, "B T D"]]  # the teacher's sublayer with its residual

    @torch.no_grad()
    def moments(self) -> Moments:
        """The sums of its least squares; a StudyError where an activation is not finite."""
        found = Moments.of(self.linear)
        for states, h, goal in zip(self.own, self.inside, self.goals, strict=True):
            found.add(states.tokens(h), states.tokens(goal - states.x) - self.linear.bias)
        if not (found.gram.isfinite().all() and found.cross.isfinite().all()):
            raise StudyError(
                f"activations in the {self.part} of layer {self.layer + 1} are not finite on the "
                "calibration sentences; the model has diverged"
            )
        return found


def climb(
    student: CompactForSequenceClassification,
    teacher: CompactForSequenceClassification,
    batches: Sequence[Batch],
) -> Iterator[Step]:
    """The sublayers of `student` from the bottom, each on the inputs that those below it give.

    The teacher's run on their own. Both must be in evaluation mode. Matrix products follow the
    caller's autocast, sums over tokens are float32 at least; no gradient is kept.
    """
    batches = calibration.regroup(student, batches)
    with torch.no_grad():
        own, theirs = (calibration.entrances(model, batches) for model in (student, teacher))
    for index in range(len(student.encoder.layers)):
        for part in ("attention", "ffn"):
            layer, guide = (model.encoder.layers[index] for model in (student, teacher))
            linear, norm, inputs = _sublayer(layer, part)
            model, after, read = _sublayer(guide, part)
            with torch.no_grad():  # not while the caller has its turn
                inside = [inputs(states) for states in own]
                goals = [states.x + model(read(states)) for states in theirs]
            group = layer.shape.vo if part == "attention" else 1
            yield Step(index, part, linear, group, own, inside, goals)
            torch.clear_autocast_cache()  # it may hold the weight as it was
            with torch.no_grad():
                for at, (mine, their) in enumerate(zip(own, theirs, strict=True)):
                    own[at] = mine.moved(norm(mine.x + linear(inside[at])))
                    theirs[at] = their.moved(after(goals[at]))
            del inside, goals  # memory: before the next are made


def _sublayer(
    layer: nn.Module, part: str
) -> tuple[nn.Linear, nn.LayerNorm, Callable[[States], Tensor]]:
    """A sublayer's output projection, its LayerNorm, and what enters the projection."""
    if part == "ffn":
        return layer.down, layer.ffn_norm, lambda states: layer.activation(layer.up(states.x))

    def context(states: States) -> Tensor:
        return calibration.arguments(layer.output, lambda: layer(states.x, *states.rest))[0]

    return layer.output, layer.attention_norm, context


@dataclass(frozen=True)
class Tuned:
    """A tuned copy, and by sublayer what was done: iterations, least and greatest factor."""

    model: CompactForSequenceClassification
    steps: list[dict[str, Any]]


@torch.no_grad()
def tune(
    student: CompactForSequenceClassification,
    teacher: CompactForSequenceClassification,
    batches: Sequence[Batch],
    how: How = "scale",
    heads: bool = False,
    damp: float = DAMP,
    ridge: float = RIDGE,
) -> Tuned:
    """A copy of `student` whose FFN, with `heads` its attention too, follows the teacher's.

    It has output projections of its own and shares every other parameter with `student`.

    "scale" gives each survivor one factor; one beyond BOUND is not accepted, and nothing above it
    is tuned. "refit" fits the whole output projection anew. The attention of layer 0 is skipped,
    as in the paper, and a sublayer with nothing left keeps its bias alone. Raises a StudyError for
    fewer equations than unknowns, or activations that are not finite.
    """
    student, done = _own_outputs(student).eval(), []
    teacher = deepcopy(teacher).eval() if teacher.training else teacher
    for step in climb(student, teacher, batches):
        wanted = step.part == "ffn" or (heads and step.layer > 0)
        if wanted and step.linear.in_features:
            intercept = step.part == "attention"
            report = _fit(step.linear, step.moments(), how, step.group, intercept, damp, ridge)
            done.append({"layer": step.layer, "part": step.part} | report)
            if not report["accepted"]:
                break
        del step  # its activations go before the next sublayer's come
    return Tuned(student, done)


def check_tokens(tokens: int, unknowns: int, each: int = 1) -> None:
    """A StudyError where calibration tokens of `each` equations are fewer than the unknowns."""
    if tokens * each < unknowns:
        raise StudyError(
            f"{tokens} calibration tokens give {tokens * each} equations for {unknowns} unknowns; "
            "give more sentences"
        )


def _own_outputs(student: CompactForSequenceClassification) -> CompactForSequenceClassification:
    outputs = {id(e.output.weight) for e in student.encoder.layers}
    outputs |= {id(e.down.weight) for e in student.encoder.layers}
    return deepcopy(student, {id(p): p for p in student.parameters() if id(p) not in outputs})


def _fit(
    linear: nn.Linear,
    moments: Moments,
    how: How,
    group: int,
    intercept: bool,
    damp: float,
    ridge: float,
) -> dict[str, Any]:
    """Solve, write into `linear` what is accepted, and say what came out."""
    if how == "scale":
        check_tokens(moments.tokens, linear.in_features // group, linear.out_features)
    else:
        check_tokens(moments.tokens, linear.in_features)
    if how == "refit":
        linear.weight.copy_(refitted(moments, linear.weight, ridge))
        done: dict[str, Any] = {"accepted": True}
    else:
        found, iterations = factors(moments, linear.weight, group, intercept, damp)
        accepted = bool((np.abs(found) <= BOUND).all())
        done = {"accepted": accepted, "iterations": iterations}
        done |= {"least": round(float(found.min()), 4), "greatest": round(float(found.max()), 4)}
        if accepted:
            each = torch.from_numpy(found[: len(found) - intercept]).to(linear.weight)
            linear.weight.mul_(each.repeat_interleave(group))
    return done
