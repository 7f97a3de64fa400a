"""What was asked, of a method or of a probe?"""

from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lib.errors import StudyError
from lib.runs.naming import canonical, digest, slug

PROBES = "probes"  # folder of a store beside those of encoders
BASE = ("method", "version", "budget", "unit", "options", "sees", "after")  # what names a base


@dataclass(frozen=True)
class Spec:
    """What was asked; `key` names it for good.

    `version` is the method's: a mended fault raises it, and the old records no longer count.
    `training` is {"teacher": recipe, "sees": data or None, "after": recipe or None}, plain dicts:
    how the dense model was made, what training data the method itself reads ({"examples", "batch"}
    or {"steps", "batch"}, perhaps with "lengths": "reported" or a "task"), and the fine-tuning of
    what it leaves.

    `options["base"]`, where given, names another spec of the same encoder, task, teacher and seed
    by the fields of BASE: the model pruned is then what that one leaves, and not the teacher. The
    budget stays a share of the teacher.
    """

    encoder: str
    task: str
    method: str
    version: int
    budget: int | float
    unit: str
    seed: int
    options: dict[str, Any]
    training: dict[str, Any]

    @property
    def teacher(self) -> str:
        """What names its dense model: encoder, task and recipe."""
        return digest([self.encoder, self.task, self.training["teacher"]])

    def __post_init__(self) -> None:
        budget = self.budget
        if not isinstance(budget, int | float) or isinstance(budget, bool) or not 0 < budget <= 1:
            raise StudyError(f"wanted a budget in (0, 1], got {budget!r}; give a fraction to keep")
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or self.seed < 0:
            raise StudyError(f"wanted a seed of 0 or more, got {self.seed!r}; give a whole number")
        if set(self.training) != {"teacher", "sees", "after"}:
            raise StudyError(
                f"wanted training with 'teacher', 'sees' and 'after', got {sorted(self.training)}; "
                "give a recipe for each, None for no data to the method or no fine-tuning after"
            )
        object.__setattr__(self, "budget", float(budget))
        object.__setattr__(self, "options", canonical(self.options))
        object.__setattr__(self, "training", canonical(self.training))
        base = self.options.get("base")
        if base is not None and set(base) != set(BASE):
            raise StudyError(
                f"wanted a base with {', '.join(BASE)}; got {', '.join(sorted(base))}: "
                "take `as_base()` of its spec"
            )

    def __hash__(self) -> int:
        return hash(self.key)

    @cached_property
    def key(self) -> str:
        """16 hex digits of the sha256 of the canonical JSON of all fields."""
        return digest({f.name: getattr(self, f.name) for f in fields(self)})

    @cached_property
    def base(self) -> "Spec | None":
        """The spec whose model this one prunes further; None where that is the teacher."""
        found = self.options.get("base")
        if found is None:
            return None
        given = {name: found[name] for name in BASE if name not in self.training}
        training = self.training | {name: found[name] for name in BASE if name in self.training}
        return replace(self, **given, training=training)

    @cached_property
    def own(self) -> dict[str, Any]:
        """The options of the method itself: all but the base."""
        return {name: value for name, value in self.options.items() if name != "base"}

    def as_base(self) -> dict[str, Any]:
        """What another spec's `options["base"]` says where that spec prunes this one's model."""
        given = {name: getattr(self, name) for name in BASE if name not in self.training}
        return given | {name: self.training[name] for name in BASE if name in self.training}

    @property
    def label(self) -> str:
        """A short text for people: progress bars, errors, lists."""
        options = " ".join(f"{name}={value}" for name, value in sorted(self.own.items()))
        first = f"{self.base.method} {self.base.budget:g} + " if self.base else ""
        after = self.training["after"]
        tuned = ""
        if after:
            name = "epochs" if after.get("epochs") else "steps"
            tuned = f" +{after[name]} {name}"
        return (
            f"{self.encoder} {self.task} {first}{self.method}{f' [{options}]' if options else ''} "
            f"{self.budget:g} of {self.unit}, seed {self.seed}{tuned}"
        )

    @property
    def file(self) -> Path:
        """Where the record lies, inside a store."""
        folder = Path(slug(self.encoder), slug(self.task), slug(self.method))
        return folder / f"{self.budget:g}-s{self.seed}-{self.key}.json"


@dataclass(frozen=True)
class Question:
    """What is asked where no run answers it; `name` is a file of lib/probes, `key` its identity.

    `version` is that file's: a mended fault raises it, and the old records no longer count.
    """

    name: str
    version: int
    parameters: dict[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", canonical(self.parameters))

    def __hash__(self) -> int:
        return hash(self.key)

    @cached_property
    def key(self) -> str:
        """16 hex digits of the sha256 of the canonical JSON of all fields."""
        return digest({f.name: getattr(self, f.name) for f in fields(self)})

    @property
    def label(self) -> str:
        """A short text for people: what is asked, and of which encoder and task."""
        about = [self.parameters[name] for name in ("encoder", "task") if name in self.parameters]
        return " ".join([self.name, *about])

    @property
    def file(self) -> Path:
        """Where the record lies, inside a store."""
        return Path(PROBES, slug(self.name), f"{self.key}.json")
