"""Which methods does a study run, with what options and training? An arm becomes a Spec here.

One file a family of methods: the folder is the registry. A family has ARMS (a method with the
options that this study gives it), SEES (what an arm reads of the training data), SEES_QUICK (which
of those numbers the quick profile replaces) and perhaps SEES_TASK (which of them a task does).
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from lib.errors import unknown
from lib.runs import Spec
from lib.study.profiles import Pair, Profile

FAMILIES = {
    file.stem: import_module(f"lib.study.arms.{file.stem}")
    for file in sorted(Path(__file__).parent.glob("[a-z]*.py"))
}
ARMS: dict[str, tuple[str, dict[str, Any]]] = {"dense": ("dense", {})}
for _family in FAMILIES.values():
    if _twice := ARMS.keys() & _family.ARMS.keys():
        raise ValueError(f"two families have an arm of one name: {', '.join(sorted(_twice))}")
    ARMS |= _family.ARMS
# A method's version is raised when a mended fault makes its old records stale: name it here.
VERSIONS = (
    dict.fromkeys((method for method, _ in ARMS.values()), 1)
    | dict.fromkeys(("power-bert", "ltp", "transkimmer", "top"), 2)
    | {"cofi": 3}
)

# --- recipes ------------------------------------------------------------------------------------

RECIPE = {"batch": 32, "warmup": 0.06, "precision": "bfloat16"}
TEACHERS = {  # (encoder, task): epochs, learning rate
    ("mpnet-base", "sst2"): (1, 3e-5),
    ("minilm-l6", "sst2"): (2, 5e-5),
    ("minilm-l6", "cola"): (5, 5e-5),
    ("minilm-l6", "mrpc"): (5, 5e-5),
    ("minilm-l6", "stsb"): (5, 5e-5),
    ("minilm-l6", "mnli"): (1, 5e-5),
    ("minilm-l6", "mr"): (1, 5e-5),
    ("minilm-l6", "imdb"): (0.1, 5e-5),  # 2,000 of its long reviews
    ("mpnet-base", "mnli"): (1, 3e-5),
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


def distilled_recipe(arm: str, **changes: Any) -> dict:
    """CoFi's fine-tuning after pruning, distilled as `arm` was pruned; for its rivals too."""
    family = FAMILIES["cofi"]
    learnt = family.distil(arm)
    recipe = RECIPE | family.TUNED | ({"distil": learnt} if learnt else {})
    return recipe | changes


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
    sees: Mapping[str, Any] | None = None,
    base: Spec | None = None,
) -> Spec:
    """One cell of a study: an arm, with `options` and `sees` put over its own, on top of `base`."""
    if arm not in ARMS:
        raise unknown("arm", arm, ARMS)
    method, own = ARMS[arm]
    encoder, task = (pair.encoder, pair.task) if pair else (p.encoder, p.task)
    teacher = teacher_recipe(encoder, task)
    training = {"teacher": teacher, "sees": _sees(p, arm, task, sees), "after": after}
    version = VERSIONS[method]
    given = own | dict(options or {}) | ({"base": base.as_base()} if base else {})
    return Spec(encoder, task, method, version, budget, unit, seed, given, training)


def own_sees(arm: str, task: str) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """What an arm reads of a task's training data by default, and in a quick study."""
    family = next((family for family in FAMILIES.values() if arm in family.ARMS), None)
    found = family.SEES.get(arm) if family else None
    if not found:
        return None, None
    found = found | getattr(family, "SEES_TASK", {}).get(task, {})
    return found, {name: family.SEES_QUICK.get(name, value) for name, value in found.items()}


def _sees(
    p: Profile, arm: str, task: str, changes: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    found = own_sees(arm, task)[p.quick]
    return {**found, **changes} if found and changes else found
