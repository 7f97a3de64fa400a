"""Which methods does a study run, with what options and training? An arm becomes a Spec here."""

from collections.abc import Mapping
from typing import Any

from lib.errors import unknown
from lib.runs import Spec
from lib.study.profiles import Pair, Profile

# --- arms: a method with the options that this study gives it -----------------------------------


# The headline reading of the slides: sample a subset of each head's dims by their norms. What is
# kept keeps its weight; `magnitude` is the same scores with the largest taken instead of sampled.
CORESET = {"axis": "head-dims", "importance": "product", "sampler": "without", "rescale": False}
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "dense": ("dense", {}),
    "coreset": ("coreset", CORESET),
    "uniform": ("coreset", CORESET | {"sampler": "uniform"}),
    "magnitude": ("magnitude", {}),
    "svd": ("svd", {}),
    "random": ("random", {}),
    "unstructured": ("unstructured", {}),
    "gradient-talk": ("gradient", {"reading": "talk"}),
    "gradient-michel": ("gradient", {"reading": "michel"}),
    "taylor-once": ("taylor", {"steps": 1, "uneven": True}),
    "taylor-steps": ("taylor", {"steps": 8, "uneven": True}),
    "movement": ("movement", {}),
}
SAMPLED = ("coreset", "uniform")  # a seed draws what is kept; `random` draws just what uniform does
CALIBRATED = ("gradient-talk", "gradient-michel", "taylor-once", "taylor-steps", "movement")
FIXED = ("magnitude", "svd", "unstructured")  # nothing is drawn unless fine-tuning follows
PRUNED = SAMPLED + FIXED + CALIBRATED
SEES = {  # training data that an arm itself reads: a sample, or a stream of batches
    "gradient-talk": {"steps": 100, "batch": 32},
    "gradient-michel": {"examples": 512, "batch": 32},
    "taylor-once": {"examples": 512, "batch": 32},
    "taylor-steps": {"examples": 512, "batch": 32},
    "movement": {"steps": 200, "batch": 32},
}
SEES_QUICK = {"steps": 30, "examples": 128}
VERSIONS = dict.fromkeys((method for method, _ in ARMS.values()), 1)  # a test holds pruners to it

# --- recipes ------------------------------------------------------------------------------------

RECIPE = {"batch": 32, "warmup": 0.06, "precision": "bfloat16"}
TEACHERS = {  # (encoder, task): epochs, learning rate
    ("mpnet-base", "sst2"): (1, 3e-5),
    ("minilm-l6", "sst2"): (2, 5e-5),
    ("minilm-l6", "cola"): (5, 5e-5),
    ("minilm-l6", "mrpc"): (5, 5e-5),
    ("minilm-l6", "mr"): (2, 5e-5),
}
TEACHER_LR = {"bert-base-uncased": 2e-5}
AFTER_LR = {"minilm-l6": 5e-5}


def teacher_recipe(encoder: str, task: str) -> dict[str, Any]:
    """How the dense classifier is trained; its best state on a piece of train is kept."""
    epochs, lr = TEACHERS.get((encoder, task), (3, TEACHER_LR.get(encoder, 3e-5)))
    return RECIPE | {"epochs": epochs, "lr": lr, "selections": 4}


def after_recipe(
    encoder: str, *, steps: int | None = None, epochs: int | float | None = None
) -> dict:
    """How a pruned model is fine-tuned; give either steps or epochs."""
    length = {"steps": steps} if epochs is None else {"epochs": epochs}
    return RECIPE | length | {"lr": AFTER_LR.get(encoder, 2e-5)}


# --- specs ---------------------------------------------------------------------------------------


def spec(
    p: Profile,
    arm: str,
    budget: float,
    *,
    unit: str = "attention",
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    pair: Pair | None = None,
    after: Mapping[str, Any] | None = None,
) -> Spec:
    """One cell of a study: an arm, with `options` put over its own."""
    if arm not in ARMS:
        raise unknown("arm", arm, ARMS)
    method, own = ARMS[arm]
    encoder, task = (pair.encoder, pair.task) if pair else (p.encoder, p.task)
    teacher = teacher_recipe(encoder, task)
    training = {"teacher": teacher, "sees": _sees(p, arm), "after": after}
    version = VERSIONS[method]
    given = own | dict(options or {})
    return Spec(encoder, task, method, version, budget, unit, seed, given, training)


def _sees(p: Profile, arm: str) -> dict[str, int] | None:
    sees = SEES.get(arm)
    if sees and p.quick:
        return {name: SEES_QUICK.get(name, value) for name, value in sees.items()}
    return sees
