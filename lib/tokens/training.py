"""How are soft decisions trained, and how is a method's knob set to a budget?"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lib.errors import StudyError
from lib.models import encoder
from lib.scoring import calibration, importance, search
from lib.scoring.importance import Batch
from lib.tokens.costs import fraction
from lib.tokens.model import TokenForSequenceClassification, gated, ruled
from lib.tokens.rules import Gate
from lib.training import distil
from lib.training.train import tenths

TEXTS = 512  # of the stream, on which a knob is set
HALVINGS = 14
NEAR = 0.002  # below the budget by so little is met

Loss = Callable[[nn.Module, Batch], Tensor]
Rule = Callable[[float], Mapping[str, Any]]


def collect(
    model: nn.Module, data: Iterable[Batch], budget: float, point: str, layers: int = 1
) -> list[Batch] | None:
    """The stream as a list, refused before any work where the budget is out of reach; None for a
    budget of 1, which drops nothing and so trains nothing. `point` and `layers`: see `floor`."""
    if search.check(budget) == 1:
        return None
    least = floor(model, point, layers)
    if budget <= least:
        raise StudyError(
            f"wanted a budget above {least:.3f} of the executed MACs, which is spent before a "
            f"token can be dropped; got {budget}: ask for more"
        )
    return importance.collect(data, "labelled training batches", least=2)


def floor(model: nn.Module, point: str, layers: int = 1) -> float:
    """What no rule can save: the work up to the first cut, "before" the first layer (of the
    predictor), "between" its parts or "after" the first `layers`, as a fraction of all. Of the
    shortest texts, whose quadratic terms vanish; it is no less for longer ones."""
    shape = encoder.shape(model)
    work = [
        (2 * each.heads * (each.qk + each.vo) * shape.hidden, 2 * each.neurons * shape.hidden)
        for each in shape.layers
    ]
    spent = {"before": shape.hidden * (shape.hidden + 2), "between": work[0][0]}
    return spent.get(point, sum(map(sum, work[:layers]))) / sum(map(sum, work))


def train(
    model: nn.Module,
    batches: list[Batch],
    lr: float,
    loss: Loss = importance.loss,
    gate: Gate | None = None,
    others: Iterable[tuple[Tensor, float]] = (),
    after: Callable[[int], None] | None = None,
) -> list[float]:
    """Train `model` in place on `batches` once, under `gate` or under its own rule.

    `others` are tensors learned beside the weights, each with its lr; `after` is told the number of
    every step taken. Returns the mean loss of each tenth of the steps.
    """
    losses = []
    for batch in importance.steps(model, batches, lr, others):
        if losses and after:
            after(len(losses))
        if gate is None:
            found = loss(model, batch)
        else:
            with gated(model, gate):
                found = loss(model, batch)
        if not torch.isfinite(found):
            raise StudyError(f"the loss is {found.item()} at step {len(losses) + 1}; lower lr")
        found.backward()
        losses.append(found.item())
    if losses and after:
        after(len(losses))
    return tenths(losses)


def distilled(
    model: nn.Module, whole: nn.Module, batch: Batch, weight: float, gate: Gate | None = None
) -> Tensor:
    """The task's loss, and `weight` times the divergence from the answers of the dense model
    `whole`, at which `gate` may look on."""
    if "labels" not in batch:
        return importance.loss(model, batch)  # says what is wrong
    device = next(model.parameters()).device
    batch = {name: tensor.to(device) for name, tensor in batch.items()}
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    with torch.no_grad(), gated(whole, gate or Gate()):
        answers = whole(**inputs).logits
    found = model(**batch)
    regression = answers.shape[1] == 1
    return found.loss + weight * distil.prediction(found.logits, answers, regression)


def split(batches: list[Batch], share: float) -> tuple[list[Batch], list[Batch]]:
    """The first `share` of the steps, at least one, and the rest, at least one."""
    at = min(max(1, round(share * len(batches))), len(batches) - 1)
    return batches[:at], batches[at:]


def settle(
    model: TokenForSequenceClassification,
    rule: Rule,
    texts: list[Batch],
    batches: list[Batch],
    budget: float,
    lr: float,
    loss: Loss = importance.loss,
) -> dict[str, Any]:
    """Set the knob to the budget, train on `batches`, set the knob once more.

    The knob is set on `texts`, see `draw`, and again as decisions move when weights do; behind
    that nothing is trained. Returns a trace: the fractions of executed MACs `own`, where the search
    left the knob, `before` this training, `trained` behind it with the same knob, and `reached`.
    """
    own = fraction(model, texts)[0]
    before = calibrate(model, rule, texts, budget)
    losses = train(model, batches, lr, loss)
    trained = fraction(model, texts)[0]
    reached = calibrate(model, rule, texts, budget)
    found = {"own": own, "before": before, "trained": trained, "reached": reached}
    return {name: round(value, 4) for name, value in found.items()} | {"settling": losses}


def calibrate(
    model: TokenForSequenceClassification, rule: Rule, texts: list[Batch], budget: float
) -> float:
    """Set the rule of `model`, in place, so that executed MACs are the budget or just below.

    `rule(knob)` gives changes of the rule: of knobs from 0 to 1 a larger one drops more, 1 all but
    CLS. Measured on `texts`, against the dense model without padding. Returns the fraction reached;
    a StudyError where even knob 1 keeps too much.
    """

    def kept(knob: float) -> float:
        ruled(model, **rule(knob))
        return fraction(model, texts)[0]

    low, high, reached = 0.0, 1.0, kept(1.0)
    if reached > budget:
        raise StudyError(
            f"wanted {budget} of the executed MACs, but {reached:.3f} of them remain on these "
            "texts where the method drops all that it can: ask for more"
        )
    for _ in range(HALVINGS):
        if budget - reached < NEAR:
            break
        middle = (low + high) / 2
        now = kept(middle)
        if now <= budget:
            high, reached = middle, now
        else:
            low = middle
    ruled(model, **rule(high))
    return reached


def draw(model: nn.Module, batches: list[Batch], seed: int) -> list[Batch]:
    """512 texts of a whole stream without their labels, longest first, in batches of like length.

    Drawn one by one: the texts of a batch are of one length, so whole batches would say as little
    of the stream as so many texts.
    """
    rows = [(batch, row) for batch in batches for row in range(len(batch["input_ids"]))]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return calibration.regroup(
        model,
        [
            {name: tensor[row : row + 1] for name, tensor in batch.items() if name != "labels"}
            for batch, row in (rows[at] for at in order[:TEXTS].tolist())
        ],
    )
