"""Which methods are there, and what can be set? One file a method: the folder is the registry."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import (
    ClassVar,
    Literal,
    Protocol,
    get_args,
    get_type_hints,
    runtime_checkable,
)

from torch import Tensor, nn

from lib.errors import StudyError, unknown

Needs = Literal["nothing", "examples", "labels", "training"]


@dataclass(frozen=True)
class Aids:
    """What a method that trains for long is given besides data."""

    select: Callable[[nn.Module], float] | None = None  # the score on a piece of held-out training
    checkpoint: Path | None = None  # the file to keep its state in, and to go on from
    start: Callable[[], nn.Module] | None = None  # the pretrained encoder, its classifier fresh
    label: str = "prune"  # for its progress bar
    spent: Callable[[float], object] = float  # told the seconds before the checkpoint gone on from


@runtime_checkable
class Pruner(Protocol):
    """A frozen dataclass whose fields are the method's hyperparameters: model in, smaller one out.

    `units` says what a budget may be a fraction of: "attention" (its parameters), "encoder"
    (attention and FFN each at that fraction), "parameters" (the encoder's, wherever they lie),
    "macs" (of the encoder) or "executed" (MACs that run on texts of their own lengths, where tokens
    are dropped). `needs` says what `data`
    must hold, `compact` is False for methods that merely zero weights, `stochastic` says whether
    `seed` changes the outcome.

    A method whose scores know no budget may split its call into `scores(model, data)` and
    `cut(model, scores, budget)`; a study then scores once for all budgets. What such a method makes
    of the weights alone may be apart too: `weighed(model)`, which `weighing` names, is the third
    argument of `scores`, and a study computes it once for all seeds. What a method wants on record
    of its own way it leaves as `trace`, a plain dict, on the model that it returns. One with
    `aided = True` trains for long and is called with `aids=` too.
    """

    version: ClassVar[int]  # part of a run's spec: a mended fault makes old records stale
    units: ClassVar[tuple[str, ...]]
    needs: Needs
    compact: bool
    stochastic: bool
    unit: str
    seed: int

    def __call__(
        self, model: nn.Module, data: Iterable[Mapping[str, Tensor]], budget: float
    ) -> nn.Module: ...


def names() -> list[str]:
    """Every method's name, sorted."""
    files = Path(__file__).parent.glob("[a-z]*.py")
    return sorted(file.stem.replace("_", "-") for file in files)


def get(name: str, **options: object) -> Pruner:
    """The method of that name; StudyErrors for a name, an option or a value that it has not."""
    if name not in names():
        raise unknown("method", name, names())
    pruner = import_module(f"lib.pruners.{name.replace('-', '_')}").Pruner
    known = [field.name for field in fields(pruner)]
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, known)
    _check(pruner, options)
    hints = get_type_hints(pruner)  # a record spells 1.0 as 1
    return pruner(**{n: float(v) if hints[n] is float else v for n, v in options.items()})


def validate(pruner: Pruner) -> None:
    """Hold every field to its annotation; for a pruner's `__post_init__`."""
    _check(type(pruner), vars(pruner))


def _check(kind: type, values: Mapping[str, object]) -> None:
    hints = get_type_hints(kind)
    for name, value in values.items():
        hint = hints[name]
        if hint == int | float | None:
            if value is None:
                continue
            hint = float
        choices = kind.units if name == "unit" else get_args(hint)  # of a Literal
        if choices and value not in choices:
            raise unknown(name, value, choices)
        wanted = str if choices else (int, float) if hint is float else hint
        if not isinstance(value, wanted) or (isinstance(value, bool) and hint is not bool):
            raise StudyError(f"wanted {name} as {hint.__name__}, got {value!r}")
