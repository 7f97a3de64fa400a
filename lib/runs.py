"""What happened? One JSON file a run, written once, with everything needed to judge it."""

import base64
import errno
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from lib.errors import StudyError

MEASURED = ("score", "scores", "params", "encoder_params", "attention_params", "macs")
FRACTIONS = ("attention", "encoder", "model", "macs")
EXAMPLES = ("metric", "n", "classes", "labels", "dense", "pruned")
TIMINGS, PROBES = "timings", "probes"  # folders of a store beside those of encoders
BASE = ("method", "version", "budget", "unit", "options", "sees", "after")  # what names a base
SEAL = "sha256"  # last field of every record: a digest of the fields before it


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
        object.__setattr__(self, "options", _canonical(self.options))
        object.__setattr__(self, "training", _canonical(self.training))
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
        folder = Path(_slug(self.encoder), _slug(self.task), _slug(self.method))
        return folder / f"{self.budget:g}-s{self.seed}-{self.key}.json"


@dataclass(frozen=True)
class Run:
    """What happened.

    `dense` and `pruned` hold MEASURED, `kept` and `nonzero` FRACTIONS of the dense model (MACs by
    shape, but kept["macs"] of a model that drops tokens: executed on the reported texts),
    `per_example` what `pack_examples` made, `shape` the pruned model's, `seconds` by phase.
    `provenance["claims"]` is `claims.digest(chapter)` at the time of the run. `trace` is what a
    method wrote down of its own way (a pruned model's attribute of that name): training curves,
    errors by layer; a record without any has no such field.
    """

    spec: Spec
    dense: dict[str, Any]
    pruned: dict[str, Any]
    kept: dict[str, float]
    nonzero: dict[str, float]
    shape: dict[str, Any]
    seconds: dict[str, float]
    per_example: dict[str, Any]
    provenance: dict[str, Any]
    trace: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Timing:
    """How fast one shape ran on one machine, every arm interleaved with the others.

    `protocol` is {batch, length, precision, threads, ...}; `seconds` holds the samples of each
    arm (dense_padded, dense, pruned, hf), `ratio` what follows from their medians.
    """

    encoder: str
    shape: dict[str, Any]
    protocol: dict[str, Any]
    machine: str
    seconds: dict[str, list[float]]
    ratio: dict[str, float]
    provenance: dict[str, Any]

    @property
    def key(self) -> str:
        """16 hex digits that name encoder, shape, protocol and machine."""
        return digest([self.encoder, self.shape, self.protocol, self.machine])

    @property
    def file(self) -> Path:
        return Path(TIMINGS, _slug(self.encoder), f"{shape_key(self.shape)}-{self.key}.json")


@dataclass(frozen=True)
class Question:
    """What is asked where no run answers it; `name` is a file of lib/probes, `key` its identity.

    `version` is that file's: a mended fault raises it, and the old records no longer count.
    """

    name: str
    version: int
    parameters: dict[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", _canonical(self.parameters))

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
        return Path(PROBES, _slug(self.name), f"{self.key}.json")


@dataclass(frozen=True)
class Probe:
    """The answer to a question: named values, numbers or lists and tables of them."""

    question: Question
    values: dict[str, Any]
    provenance: dict[str, Any]


@dataclass(frozen=True)
class Examples:
    """The answers behind two scores; class indices, or floats for a regression."""

    metric: str
    labels: np.ndarray
    dense: np.ndarray
    pruned: np.ndarray


@dataclass(frozen=True)
class Store:
    """A folder of records: <encoder>/<task>/<method>/<budget>-s<seed>-<key>.json."""

    folder: Path

    def path(self, spec: Spec) -> Path:
        return Path(self.folder) / spec.file

    def has(self, spec: Spec) -> bool:
        return self.path(spec).is_file()

    def get(self, spec: Spec) -> Run:
        """The record of `spec`; StudyError if it is missing or cannot be trusted."""
        path = self.path(spec)
        if not path.is_file():
            raise StudyError(f"no record {path} ({spec.label}); compute it with `make study`")
        return _read_run(path, Path(self.folder))

    def put(self, run: Run) -> Path:
        """Write the record whole or not at all; one that exists is never written over."""
        path = self.path(run.spec)
        _check_run(run, path)
        return _write(_record(run), path, replace=False)

    def all(self) -> list[Run]:
        """Every run of the store, in the order of their paths."""
        folder = Path(self.folder)
        paths = (
            path
            for path in _files(folder)
            if path.relative_to(folder).parts[0] not in (TIMINGS, PROBES)
        )
        return [_read_run(path, folder) for path in paths]

    def put_timing(self, timing: Timing, replace: bool = False) -> Path:
        path = Path(self.folder) / timing.file
        _check_timing(timing, path)
        return _write(_record(timing), path, replace)

    def timings(self) -> list[Timing]:
        folder = Path(self.folder)
        return [_read_timing(path, folder) for path in _files(folder / TIMINGS)]

    def answers(self, question: Question) -> bool:
        return (Path(self.folder) / question.file).is_file()

    def probe(self, question: Question) -> Probe:
        """The answer to `question`; StudyError if it is missing or cannot be trusted."""
        path = Path(self.folder) / question.file
        if not path.is_file():
            raise StudyError(f"no record {path} ({question.label}); compute it with `make study`")
        return _read_probe(path, Path(self.folder))

    def put_probe(self, probe: Probe) -> Path:
        """Write the answer whole or not at all; one that exists is never written over."""
        path = Path(self.folder) / probe.question.file
        _check_probe(probe, path)
        return _write(_record(probe), path, replace=False)


def digest(value: Any) -> str:
    """16 hex digits of the sha256 of a value's canonical JSON."""
    text = json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def shape_key(shape: Mapping[str, Any]) -> str:
    """What ties a run to the timings of its shape."""
    return digest(dict(shape))


def pack_labels(values: Int[np.ndarray, " n"], classes: int) -> str:
    """Class indices as base64: one bit each for two classes, else one byte each."""
    values = np.asarray(values)
    if not 2 <= classes <= 256 or (values.size and not 0 <= values.min() <= values.max() < classes):
        raise StudyError(f"wanted class indices below {classes}, 2 to 256 classes; check the task")
    values = values.astype(np.uint8)
    return _encode(np.packbits(values) if classes == 2 else values)


def unpack_labels(text: str, n: int, classes: int) -> Int[np.ndarray, " n"]:
    raw = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    values = np.unpackbits(raw)[:n] if classes == 2 else raw
    if len(values) != n or len(raw) != (math.ceil(n / 8) if classes == 2 else n):
        raise ValueError(f"wanted {n} answers, got {len(values)}")
    return values.astype(np.int64)


def pack_values(values: Float[np.ndarray, " n"]) -> str:
    """Floats as base64, rounded to float16."""
    return _encode(np.asarray(values).astype("<f2"))


def unpack_values(text: str, n: int) -> Float[np.ndarray, " n"]:
    values = np.frombuffer(base64.b64decode(text, validate=True), "<f2").astype(np.float64)
    if len(values) != n or not np.isfinite(values).all():
        raise ValueError(f"wanted {n} finite answers, got {len(values)}")
    return values


def pack_examples(
    metric: str, labels: np.ndarray, dense: np.ndarray, pruned: np.ndarray, classes: int | None
) -> dict[str, Any]:
    """`per_example` of a run: labels and both models' answers; `classes` None for a regression."""
    if not len(labels) == len(dense) == len(pruned):
        raise StudyError(
            f"wanted as many answers as labels ({len(labels)}), got {len(dense)} and {len(pruned)};"
            " evaluate both models on the same split"
        )
    arrays = {"labels": labels, "dense": dense, "pruned": pruned}
    packed = {
        name: pack_values(array) if classes is None else pack_labels(array, classes)
        for name, array in arrays.items()
    }
    return {"metric": metric, "n": len(labels), "classes": classes or 0} | packed


def unpack_examples(packed: Mapping[str, Any]) -> Examples:
    n, classes = packed["n"], packed["classes"]
    arrays = {
        name: unpack_labels(packed[name], n, classes) if classes else unpack_values(packed[name], n)
        for name in ("labels", "dense", "pruned")
    }
    return Examples(packed["metric"], **arrays)


def _canonical(value: Any) -> Any:
    """One spelling a value: 1.0 is 1, a tuple is a list; what JSON cannot hold is refused."""
    if isinstance(value, Mapping):
        return {str(name): _canonical(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise StudyError(f"wanted plain finite values in a record, got {value!r}; convert it first")


def _slug(name: str) -> str:
    """A folder's name for an encoder, task or method; the key keeps two of them apart."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "unnamed"


def _encode(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


def _record(value: Run | Timing | Probe) -> dict[str, Any]:
    optional = {f.name for f in fields(value) if f.default_factory is not MISSING}
    record = {n: v for n, v in asdict(value).items() if v or n not in optional}
    return record | {SEAL: digest(record)}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.json") if not path.name.startswith("."))


def _read(path: Path, kind: type) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _refused(path, f"it cannot be read ({error})") from error
    names = {f.name for f in fields(kind)} | {SEAL}
    needed = {f.name for f in fields(kind) if f.default_factory is MISSING} | {SEAL}
    if not isinstance(record, dict) or not needed <= set(record) <= names:
        wrong = type(record).__name__
        if isinstance(record, dict):
            wrong = sorted((needed - set(record)) | (set(record) - names))
        raise _refused(path, f"missing or foreign fields: {wrong}")
    seal = record.pop(SEAL)
    try:
        same = digest(record) == seal
    except StudyError as error:
        raise _refused(path, str(error)) from error
    if not same:
        raise _refused(path, "its contents do not match its own sha256: it was edited")
    return record


def _read_run(path: Path, folder: Path) -> Run:
    record = _read(path, Run)
    try:
        run = Run(**record | {"spec": Spec(**record["spec"])})
    except (TypeError, StudyError) as error:
        raise _refused(path, f"its spec is not one ({error})") from error
    if path.relative_to(folder) != run.spec.file:
        raise _refused(path, f"its spec belongs at {run.spec.file}")
    _check_run(run, path)
    return run


def _read_timing(path: Path, folder: Path) -> Timing:
    timing = Timing(**_read(path, Timing))
    if path.relative_to(folder) != timing.file:
        raise _refused(path, f"it belongs at {timing.file}")
    _check_timing(timing, path)
    return timing


def _read_probe(path: Path, folder: Path) -> Probe:
    record = _read(path, Probe)
    try:
        probe = Probe(**record | {"question": Question(**record["question"])})
    except (TypeError, StudyError) as error:
        raise _refused(path, f"its question is not one ({error})") from error
    if path.relative_to(folder) != probe.question.file:
        raise _refused(path, f"its question belongs at {probe.question.file}")
    _check_probe(probe, path)
    return probe


def _check_probe(probe: Probe, path: Path) -> None:
    if not isinstance(probe.values, dict) or not probe.values:
        raise _refused(path, "an answer needs at least one value")


def _check_run(run: Run, path: Path) -> None:
    wanted = {
        "dense": (run.dense, MEASURED),
        "pruned": (run.pruned, MEASURED),
        "kept": (run.kept, FRACTIONS),
        "nonzero": (run.nonzero, FRACTIONS),
        "per_example": (run.per_example, EXAMPLES),
    }
    for name, (part, keys) in wanted.items():
        if not isinstance(part, dict) or not set(keys) <= set(part):
            raise _refused(path, f"{name} lacks {sorted(set(keys) - set(part or ()))}")
    try:
        unpack_examples(run.per_example)
    except (TypeError, ValueError) as error:
        raise _refused(path, f"its per_example cannot be unpacked ({error})") from error


def _check_timing(timing: Timing, path: Path) -> None:
    samples = list(timing.seconds.values()) if isinstance(timing.seconds, dict) else []
    if not samples or not all(arm and all(second > 0 for second in arm) for arm in samples):
        raise _refused(path, "a timing needs at least one positive sample of every arm")


def _refused(path: Path, why: str) -> StudyError:
    return StudyError(f"record {path}: {why}; remove the file or restore it, then run again")


def _write(record: dict[str, Any], path: Path, replace: bool) -> Path:
    """Whole or not at all: a temporary file beside it, fsync, then the name."""
    try:
        text = json.dumps(record, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise _refused(path, f"it cannot be written as JSON ({error})") from error
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(temporary, path)
        else:
            _name_once(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise StudyError(
            f"could not write record {path}: {error.strerror or error}; mend that and run again, "
            "what is on record stays"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    return path


def _name_once(temporary: Path, path: Path) -> None:
    """Give the file its name unless the name is taken; a link does both at once."""
    taken = f"record {path} exists already; a record is never written over"
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        raise StudyError(taken) from error
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        if path.exists():  # a file system without hard links: two steps
            raise StudyError(taken) from error
        os.rename(temporary, path)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
