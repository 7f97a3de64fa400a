"""Constraint-aware and Ranking-distilled Token Pruning (Li et al. 2023), https://arxiv.org/abs/2306.14393"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.errors import StudyError
from lib.models import encoder
from lib.models.compact import dense
from lib.pruners import Needs, validate
from lib.scoring import importance
from lib.scoring.importance import Batch
from lib.tokens.dropping import Walk, column, weighed
from lib.tokens.model import wrap
from lib.tokens.rules import Gate, Weigh, bins, watching
from lib.tokens.training import collect, distilled, draw, settle, split, train
from lib.training.hard_concrete import probability, sample
from lib.training.lagrangian import Course, Price

START = 2.0  # where the logits of all masks and gates begin: P(z > 0) is .97
SHUT = 4.605  # where the released code clamps them: its masks begin open, its gates shut
RANKED = 20  # tokens of the teacher's ranking that are distilled


@dataclass
class Soft(Gate):
    """Tokens of bin b are worth k[l, b] = 1 - (1 - z[l, b]) g[l] to layer l."""

    worth: Tensor | None = None  # (layers, bins), of the batch under way
    columns: list[Tensor] | None = None  # attention received in every layer of the last pass

    def before(self, index: int, x: Tensor, walk: Walk) -> Tensor:
        if index == 0:
            self.columns = []
            walk.weights = torch.ones_like(x[..., 0])
            return x
        alive = walk.alive & (walk.weights > 0)
        worth = self.worth[index][bins(walk.column, alive, self.worth.shape[1])]
        worth = torch.cat([torch.ones_like(worth[:, :1]), worth[:, 1:]], dim=1)
        walk.weights = walk.weights * worth
        return x

    def weigh(self, index: int, walk: Walk) -> Weigh:
        def weigh(probabilities: Tensor) -> Tensor:
            found = weighed(probabilities, walk.weights, normalise=True)
            walk.column = column(found, walk.alive & (walk.weights > 0))
            self.columns.append(walk.column)
            return found

        return weigh


@dataclass
class Last(Gate):
    """Keeps everything and notes the attention that is received in the last layer."""

    layers: int
    column: Tensor | None = None

    def weigh(self, index: int, walk: Walk) -> Weigh | None:
        return watching(walk) if index + 1 == self.layers else None

    def after(self, index: int, x: Tensor, walk: Walk) -> Tensor:
        self.column = walk.column
        return x


@dataclass(frozen=True)
class Pruner:
    """Which ranks by attention does each layer need? Learned under a constraint on MACs.

    Tokens but CLS are ranked by the attention received in the layer before and fall into `bins`;
    masks z of (layer, bin) and gates g of layers follow hard concrete distributions. The first
    `search` of the steps train all with a Lagrangian whose target of expected MACs falls to the
    budget in the first half of them, from where the masks begin; expected are P(z > 0) and
    P(g > 0), which, unlike the clipped means, never cease to move. Then bins of the smallest
    k = 1 - (1 - z) g go until the budget is met, and the rest of the steps train the model that
    really drops. First and last layer decide nothing, as in the paper.

    To the task's loss comes the KL from the dense model's answers at temperature 2 and, weighed by
    `ranking`, LambdaRank: the student's attention in the first quarter of the layers shall rank
    tokens as the dense model's last layer does. A departure: it takes logarithms of the attention,
    so that it does not depend on the length of the text.

    `released` goes by the authors' code where paper and code part: layers decide from the third of
    twelve on (in proportion for other depths), masks begin open and gates shut, and a gate passes 0
    or 1 on, with its gradient straight through. Its weights of `ranking` are 1e-2 to 1e-5.
    """

    version: ClassVar[int] = 2  # 1 counted expected MACs by clipped means, and chose by chance
    units: ClassVar[tuple[str, ...]] = ("executed",)
    needs: ClassVar[Needs] = "training"
    compact: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True  # dropout, the draws of z and g

    unit: str = "executed"
    seed: int = 0
    lr: float = 3e-5
    mask_lr: float = 0.1
    bins: int = 20
    distil: float = 1.0
    ranking: float = 0.1
    search: float = 0.6
    released: bool = False

    def __post_init__(self) -> None:
        validate(self)
        if not 0 < self.search < 1 or self.bins < 2:
            raise StudyError(
                "wanted search between 0 and 1 and at least 2 bins, got "
                f"{self.search} and {self.bins}"
            )

    def __call__(self, model: nn.Module, data: Iterable[Batch], budget: float) -> nn.Module:
        deciding = self.deciding(len(encoder.blocks(model)))
        batches = collect(model, data, budget, "after", deciding.start)
        if batches is None:
            return dense(model)
        whole = wrap(model, {"rule": "none"}).eval().requires_grad_(False)
        with importance.throwaway(whole, self.seed) as student:
            early, late = split(batches, self.search)
            worth, trace = self._worth(student, whole, early, budget)
            order = _order(worth, deciding)
            rule = {"rule": "bins", "kept": _dropped(worth, order, int((worth < 0.5).sum()))}
            student = wrap(student, rule).requires_grad_(True)

            def knob(value: float) -> dict:
                return {"kept": _dropped(worth, order, math.ceil(value * len(order)))}

            def loss(model: nn.Module, batch: Batch) -> Tensor:
                return self._distilled(model, whole, batch)[0]

            texts = draw(model, batches, self.seed)
            trace |= settle(student, knob, texts, late, budget, self.lr, loss)
        student.trace = trace | {"bins": [round(1 - w, 4) for w in (1 - worth).mean(1).tolist()]}
        return student.train(model.training)

    def deciding(self, layers: int) -> range:
        """The layers that decide, counted from 0."""
        if self.released:
            return range(max(1, round(layers / 6)), layers)
        return range(1, max(2, layers - 1))

    def _worth(
        self, student: nn.Module, whole: nn.Module, batches: list[Batch], budget: float
    ) -> tuple[Tensor, dict]:
        """k (layers, bins) as training leaves it, 1 where nothing is decided; and a trace."""
        layers, device = len(student.config.layers), next(student.parameters()).device
        new = dict(device=device, requires_grad=True)
        masks, gates = (SHUT, -SHUT) if self.released else (START, START)
        z = torch.full((layers, self.bins), masks, **new)
        g = torch.full((layers, 1), gates, **new)
        decides = torch.zeros(layers, 1, device=device)
        deciding = self.deciding(layers)
        decides[deciding.start : deciding.stop] = 1
        gate, noise = Soft(), torch.Generator().manual_seed(self.seed)
        price = Price(self.mask_lr, device=device)
        shape, curve = encoder.shape(student), []
        quarter = -(-layers // 4)

        def worth(z: Tensor, g: Tensor) -> Tensor:
            return 1 - (1 - z) * g * decides

        def sparsity(batch: Batch) -> Tensor:
            tokens = batch["attention_mask"].sum(1).float().mean()
            return 1 - expected_macs(
                shape, worth(probability(z), probability(g)), tokens.to(device)
            )

        course = Course(sparsity(batches[0]).item(), 1 - budget, len(batches) // 2, "linear")

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            masks, gates = sample(z, noise), sample(g, noise)
            gate.worth = worth(masks, _hard(gates) if self.released else gates)
            found, ranked = self._distilled(model, whole, batch)
            for received in gate.columns[:quarter]:
                valid = batch["attention_mask"].to(device).bool()
                found = found + self.ranking / quarter * lambda_rank(received, ranked, valid)
            now, target = sparsity(batch), course.target(len(curve))
            curve.append((now.item(), target))
            return found + price(now, target)

        others = [(z, self.mask_lr), (g, self.mask_lr)]
        losses = train(
            student, batches, self.lr, loss, gate, others, after=lambda _: price.step(*curve[-1])
        )
        trace = {
            "searching": losses,
            "expected": [round(1 - now, 4) for now, _ in curve[:: -(-len(curve) // 50)]],
        }
        with torch.no_grad():
            return worth(probability(z), probability(g)).cpu(), trace

    def _distilled(self, model: nn.Module, whole: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The task's loss and the KL from the dense model's answers; and the latter's ranking."""
        last = Last(len(whole.config.layers))
        return distilled(model, whole, batch, self.distil, last), last.column


def expected_macs(shape: encoder.Shape, worth: Tensor, tokens: Tensor) -> Tensor:
    """Expected MACs of a text of `tokens` tokens over the dense model's, where layer l keeps the
    mean of `worth[l]` (layers, bins) of those that entered the layer before."""
    spent, whole, left = 0, 0, torch.ones_like(tokens)
    for layer, own in zip(shape.layers, worth, strict=True):
        left = left * own.mean()
        linear = 2 * shape.hidden * (layer.heads * (layer.qk + layer.vo) + layer.neurons)
        square = 2 * layer.heads * max(layer.qk, layer.vo)
        spent = spent + linear * tokens * left + square * (tokens * left) ** 2
        whole = whole + linear * tokens + square * tokens**2
    return spent / whole


def lambda_rank(received: Tensor, ranked: Tensor, valid: Tensor) -> Tensor:
    """LambdaRank (Burges 2010): pairs in the order of `ranked` (B, T), each weighed by what its
    swap would change in NDCG; only the teacher's first 20 tokens count, CLS not among them."""
    valid = torch.cat([torch.zeros_like(valid[:, :1]), valid[:, 1:]], dim=1)
    count = min(RANKED, valid.shape[1])
    order = ranked.masked_fill(~valid, -1).argsort(dim=1, descending=True, stable=True)[:, :count]
    scores = received.float().clamp(min=1e-9).log().gather(1, order)
    valid = valid.gather(1, order)
    gain = (
        torch.arange(count, 0, -1, device=scores.device) / count
    )  # the teacher's first is worth most
    own = scores.detach().masked_fill(~valid, -torch.inf)
    place = own.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    discount = 1 / (place + 2.0).log2()
    ideal = (gain / torch.arange(2.0, count + 2, device=scores.device).log2() * valid).sum(1)
    change = (gain[:, None] - gain) * (discount[:, :, None] - discount[:, None, :]).abs()
    better = (
        torch.ones(count, count, device=scores.device).triu(1) * valid[:, :, None] * valid[:, None]
    )
    pairs = F.softplus(scores[:, None, :] - scores[:, :, None]) * change * better
    return (pairs.sum((1, 2)) / ideal.clamp(min=1e-6)).mean()


def _hard(gates: Tensor) -> Tensor:
    """0 or 1, with the gradient of the draw."""
    return (gates > 0.5).to(gates) + gates - gates.detach()


def _order(worth: Tensor, deciding: range) -> list[tuple[int, int]]:
    """Cells (layer, bin) in the order in which they go: least worth first, then lowest ranks."""
    cells = [(n, b) for n in deciding for b in range(worth.shape[1])]
    return sorted(cells, key=lambda cell: (float(worth[cell]), -cell[1], cell[0]))


def _dropped(worth: Tensor, order: list[tuple[int, int]], count: int) -> list[list[int]]:
    kept = [[1] * worth.shape[1] for _ in worth]
    for layer, number in order[:count]:
        kept[layer][number] = 0
    return kept
