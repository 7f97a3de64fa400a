"""Which readings of CoFi does its chapter compare, and how is each fine-tuned after?"""

from typing import Any

# Of pruning. Twice as many were no better on the selection split (minilm-l6, SST-2, one seed).
STEPS = {"steps": 1200, "batch": 32}
AUTHORS = {  # of the pruning; PAPER, their rate over some 40,000 steps, takes too long here
    "clamp": 4.605,
    "warmup": 0.1,
    "course": "linear",
    "matching": "unordered",
    "own_start": False,
    "unwind": False,
    "meet": False,
    "lr": 2e-5,
}
# Of its 20 epochs the first leaves the masks alone; in 2 of the other 19 the target rises.
PAPER = {"reg_lr": 0.01, "start": "pretrained", "before": 1 / 20, "warmup": 2 / 19}
PLAIN = {"prediction": 0.0, "layers": 0.0}
ANSWERS = {"prediction": 1.0, "layers": 0.0}
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "cofi": ("cofi", {}),
    "cofi-authors": ("cofi", AUTHORS),
    "cofi-paper": ("cofi", AUTHORS | PAPER),
    "cofi-pretrained": ("cofi", {"start": "pretrained", "before": 0.25}),
    "cofi-fine": ("cofi", {"prune": "fine", "clamp": 4.605, "strict": False}),
    "cofi-fine-wide": ("cofi", {"prune": "fine"}),
    "cofi-layers": ("cofi", {"prune": "layers"}),
    "cofi-hidden": ("cofi", {"prune": "hidden"}),
    "cofi-undistilled": ("cofi", PLAIN),
    "cofi-prediction": ("cofi", ANSWERS),
    "cofi-fixed": ("cofi", {"matching": "fixed"}),
    "cofi-unordered": ("cofi", {"matching": "unordered"}),
}
SEES: dict[str, dict[str, Any]] = dict.fromkeys(ARMS, STEPS)
SEES["cofi-paper"] = STEPS | {"steps": 42_100}  # the authors' schedule on SST-2
SEES_QUICK = {"steps": 600, "batch": 16}

TUNED = {"steps": 3500, "lr": 2e-4, "selections": 7}  # the fine-tuning after, of rivals too
_LOSSES = {"prediction": 0.1, "layers": 0.9, "matching": "ordered"}  # the method's own defaults


def distil(arm: str) -> dict[str, Any] | None:
    """What the fine-tuning after an arm learns from the teacher, as `distil` of its recipe: the
    losses that it was pruned under; a rival's are the method's own."""
    own = ARMS[arm][1] if arm in ARMS else {}
    losses = {name: own.get(name, value) for name, value in _LOSSES.items()}
    return losses if losses["prediction"] or losses["layers"] else None
