"""What does a student learn from its teacher? Its answers, and what its layers compute.

As in Structured Pruning Learns Compact and Accurate Models (Xia et al. 2022), Sec. 3.2,
https://arxiv.org/abs/2204.00408. One rule for any depth: four of the teacher's layers teach, those
at a quarter, half, three quarters and all of its depth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lib.errors import StudyError, unknown
from lib.models import encoder
from lib.models.compact import dense

Matching = Literal["ordered", "unordered", "fixed"]
TEMPERATURE = 2.0
TAUGHT = 4  # layers of the teacher


@dataclass(frozen=True)
class Distil:
    """The weights of the two losses, and which student layer a teacher's layer is matched to.

    "unordered": the nearest of all that are left. "ordered": top-down, the nearest below the last
    match. "fixed": that of the same number, whatever is left of it.
    """

    prediction: float | int = 0.1
    layers: float | int = 0.9
    matching: Matching = "ordered"

    def __post_init__(self) -> None:
        if min(self.prediction, self.layers) < 0 or self.prediction + self.layers == 0:
            raise StudyError(
                "wanted weights of distillation of at least 0 and not both 0, got "
                f"{self.prediction} and {self.layers}; leave distil out for none"
            )

    @classmethod
    def of(cls, options: Mapping) -> "Distil":
        """From a record's plain dict; an unknown key is an error."""
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise unknown("option of distil", name, known)
        matching = options.get("matching", cls.matching)
        if matching not in get_args(Matching):
            raise unknown("matching", matching, get_args(Matching))
        return cls(**options)


class Teaching(nn.Module):
    """A teacher at work on one student: its frozen weights, and the map W between their layers.

    W is the only part that trains: from the student's hidden size to the teacher's, at first the
    identity, or what `student.bridge` holds, where a pruning left one (kept hidden, teacher's).
    """

    def __init__(self, teacher: nn.Module, student: nn.Module, how: Distil):
        super().__init__()
        check(teacher, student)
        self.how = how
        self.regression = teacher.config.num_labels == 1
        shape, width = encoder.shape(teacher), encoder.shape(student).hidden
        self.taught = depths(len(shape.layers))
        layers = enumerate(encoder.shape(student).layers)
        self.left = [index for index, layer in layers if layer.mha or layer.ffn]
        # cast once: weights of matrix products alone, so norms and the residual stay exact
        self.teacher = dense(teacher).eval().requires_grad_(False)
        bridge = getattr(student, "bridge", None)
        if bridge is None:
            if how.layers and width != shape.hidden:
                raise StudyError(
                    f"wanted a student of the teacher's {shape.hidden} hidden dims, got {width}"
                )
            bridge = torch.eye(width, shape.hidden)
        if bridge.shape != (width, shape.hidden):
            raise StudyError(
                f"wanted a bridge from the student's {width} hidden dims to the teacher's "
                f"{shape.hidden}, got {tuple(bridge.shape)}; give the teacher it was pruned under"
            )
        device = next(student.parameters()).device
        self.bridge = nn.Parameter(bridge.detach().clone().float().to(device))
        self.bridge.requires_grad_(how.layers > 0)

    def cast(self, dtype: torch.dtype) -> "Teaching":
        """The teacher's linear layers in `dtype`, once, rather than again at every step."""
        for module in self.teacher.modules():
            if isinstance(module, nn.Linear):
                module.to(dtype)
        return self

    def forward(
        self,
        batch: Mapping[str, Tensor],
        logits: Float[Tensor, "batch labels"],
        states: Sequence[Float[Tensor, "batch tokens hidden"]] | None,
        there: Sequence[int],
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        """The loss, and its two parts unweighted.

        `states` are the student's: embeddings first, then every layer's; `there` are the layers
        that are left of it, counted from 0.
        """
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        with torch.no_grad():
            said = self.teacher(**inputs, output_hidden_states=self.how.layers > 0)
        losses = {}
        if self.how.prediction:
            losses["prediction"] = prediction(logits, said.logits, self.regression)
        if self.how.layers:
            real = inputs["attention_mask"].bool()
            losses["layers"] = self._layers(states, said.hidden_states, real, there)
        total = sum(getattr(self.how, name) * loss for name, loss in losses.items())
        return total, {name: float(loss.detach()) for name, loss in losses.items()}

    def _layers(
        self,
        own: Sequence[Tensor],
        theirs: Sequence[Tensor],
        real: Bool[Tensor, "batch tokens"],
        there: Sequence[int],
    ) -> Float[Tensor, ""]:
        """sum over matched pairs of the mean squared error, padding excluded."""
        targets = torch.stack([theirs[layer + 1][real] for layer in self.taught]).float()
        if self.how.matching == "fixed":
            pairs = list(enumerate(self.taught))
        elif there:
            with torch.no_grad():
                moved = torch.stack([own[layer + 1][real] @ self.bridge for layer in there])
            pairs = match(distances(targets, moved.float()), there, self.how.matching)
        else:
            return targets.new_zeros(())
        return sum(
            F.mse_loss((own[layer + 1][real] @ self.bridge).float(), targets[place])
            for place, layer in pairs
        )


def check(teacher: nn.Module, student: nn.Module) -> None:
    """Raise a StudyError unless the two have the same labels, in the same order, and depth."""
    said, wanted = (
        [model.config.id2label[index] for index in sorted(model.config.id2label)]
        for model in (teacher, student)
    )
    if said != wanted:
        raise StudyError(
            f"wanted a teacher of the labels {', '.join(map(str, wanted))} in this order, got one "
            f"of {', '.join(map(str, said))}; train one on this task"
        )
    came, depth = len(encoder.shape(teacher).layers), len(encoder.shape(student).layers)
    if came != depth:
        raise StudyError(f"wanted a teacher of {depth} layers, as the student has, got {came}")


def depths(layers: int) -> list[int]:
    """Which of the teacher's layers teach, counted from 0: 2, 5, 8, 11 of 12; 1, 2, 4, 5 of 6."""
    return sorted({-(-layers * part // TAUGHT) - 1 for part in range(1, TAUGHT + 1)})


def prediction(
    student: Float[Tensor, "batch labels"],
    teacher: Float[Tensor, "batch labels"],
    regression: bool = False,
) -> Float[Tensor, ""]:
    """KL divergence of the softened answers, times the temperature squared; MSE of a regression.

    Over one logit the divergence is 0, whatever a regression answers.
    """
    student, teacher = student.float(), teacher.float()
    if regression:
        return F.mse_loss(student, teacher)
    soft = [F.log_softmax(logits / TEMPERATURE, dim=-1) for logits in (student, teacher)]
    return F.kl_div(*soft, reduction="batchmean", log_target=True) * TEMPERATURE**2


def distances(
    teacher: Float[Tensor, "taught tokens hidden"], student: Float[Tensor, "left tokens hidden"]
) -> Float[Tensor, "taught left"]:
    """Mean squared error of each pair."""
    return torch.cdist(teacher.flatten(1), student.flatten(1)) ** 2 / teacher[0].numel()


def match(
    found: Float[Tensor, "taught left"], there: Sequence[int], how: Matching
) -> list[tuple[int, int]]:
    """Pairs of (place among the taught, student layer) with the least distance.

    "ordered" goes top-down and only ever further down: a teacher's layer for which no layer is
    left below is not taught.
    """
    if how == "unordered":
        return [(place, there[int(row.argmin())]) for place, row in enumerate(found)]
    pairs, end = [], len(there)
    for place in reversed(range(len(found))):
        if end == 0:
            break
        end = int(found[place, :end].argmin())
        pairs.append((place, there[end]))
    return pairs
