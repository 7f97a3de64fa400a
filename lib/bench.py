"""How is one run done? Teacher, pruner, measurement: from a Spec to a Run."""

import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path

import torch
from datasets import Dataset
from torch import nn

from lib import batches, claims, costs, encoder, products, pruners, runs, tasks
from lib.compact import dense
from lib.errors import StudyError
from lib.evaluate import Evaluation, autocast, score
from lib.teachers import Teacher, teacher
from lib.tokens.costs import measure
from lib.tokens.model import TokenForSequenceClassification
from lib.train import Recipe, finetune

ROOT = Path(__file__).resolve().parent.parent
MACS_TOKENS = 128  # sequence length at which MACs are stated; kept["macs"] is a ratio at it
PRECISION = "bfloat16"  # of the matrix products behind every score; provenance repeats it


@dataclass(frozen=True)
class Bench:
    """Everything that runs on one encoder and task share, made once a process."""

    task: tasks.Task
    teacher: Teacher
    dev: Dataset  # the reported split, as text
    dense: Evaluation  # of the teacher, on dev
    measured: dict  # its scores and sizes, as records hold them
    scores: dict = field(default_factory=dict)  # of methods whose scores know no budget

    @cached_property
    def train(self) -> Dataset:
        """The training split, tokenised; many methods never ask for it."""
        texts = tasks.load(self.task.name, "train")
        return batches.tokenize(texts, self.teacher.tokenizer, self.task.max_tokens)


def prepare(spec: runs.Spec) -> Bench:
    """Load or train the teacher of a spec and score it on the reported split."""
    task = tasks.get(spec.task)
    it = teacher(spec.encoder, spec.task, spec.training["teacher"])
    it.model.to("cuda" if torch.cuda.is_available() else "cpu")
    dev = tasks.load(spec.task, "dev")
    found = score(it.model, it.tokenizer, dev, task, PRECISION)
    return Bench(task, it, dev, found, _measured(found, it.model))


def perform(spec: runs.Spec, bench: Bench) -> runs.Run:
    """Prune, fine-tune where the spec says so, evaluate, count."""
    seconds = {"teacher": bench.teacher.seconds}
    tokenizer, label = bench.teacher.tokenizer, spec.label
    pruned, zeroed = _prune(spec, bench, seconds)
    error, trace = products.error(bench.teacher.model, pruned), getattr(pruned, "trace", {})
    after = spec.training["after"]
    if after:
        with _clock(seconds, "finetune"):
            recipe = Recipe.of(after)
            pruned = finetune(
                pruned, tokenizer, bench.train, recipe, spec.seed, keep_zeros=zeroed, label=label
            ).model
    with _clock(seconds, "evaluate"):
        found = score(pruned, tokenizer, bench.dev, bench.task, PRECISION)
    kept = _fractions(pruned, bench.teacher.model, costs.params)
    if isinstance(pruned, TokenForSequenceClassification):
        with autocast(next(pruned.parameters()).device, PRECISION, frozen=True):
            ran = measure(pruned, tokenizer, bench.dev, bench.task.max_tokens)
        trace = trace | {"tokens": ran}
        # of what really ran on the reported texts, each of its own length: no shape tells
        kept["macs"] = round(ran["macs"]["pruned"] / ran["macs"]["dense"], 6)
    return runs.Run(
        spec=spec,
        dense=bench.measured,
        pruned=_measured(found, pruned) | {"product_error": error},  # before any fine-tuning
        kept=kept,
        nonzero=_fractions(pruned, bench.teacher.model, costs.nonzero),
        shape=encoder.shape(pruned).json(),
        seconds={name: round(value, 3) for name, value in seconds.items()},
        per_example=runs.pack_examples(
            next(iter(found.scores)),
            found.labels,
            bench.dense.predictions,
            found.predictions,
            len(bench.task.labels) if bench.task.labels else None,
        ),
        provenance=provenance(bench),
        trace=trace,
    )


def _prune(spec: runs.Spec, bench: Bench, seconds: dict[str, float]) -> tuple[nn.Module, bool]:
    """The pruned model, and whether its method merely zeroes weights."""
    model = bench.teacher.model
    if spec.method == "dense":
        return dense(model), False
    pruner = pruners.get(spec.method, unit=spec.unit, seed=spec.seed, **spec.options)
    if pruner.version != spec.version:
        raise StudyError(
            f"{spec.method} is at version {pruner.version}, the spec asks for {spec.version}; "
            "check out the code of that version or ask for this one"
        )
    # Methods that look at weights alone do so in full precision.
    precision = "float32" if pruner.needs == "nothing" else PRECISION
    with autocast(next(model.parameters()).device, precision):
        if not hasattr(pruner, "scores"):
            with _clock(seconds, "prune"):
                return pruner(model, _data(pruner, spec, bench), spec.budget), not pruner.compact
        key = runs.digest([spec.method, spec.unit, spec.seed, spec.options, spec.training["sees"]])
        if key not in bench.scores:
            with _clock(seconds, "score"):
                found = pruner.scores(model, _data(pruner, spec, bench))
            bench.scores[key] = found, seconds["score"]
        found, seconds["score"] = bench.scores[key]  # spent once, but part of each run's price
        with _clock(seconds, "prune"):
            return pruner.cut(model, found, spec.budget), not pruner.compact


def _data(pruner: pruners.Pruner, spec: runs.Spec, bench: Bench) -> Iterator[dict]:
    """What the method is allowed to see: nothing, sentences, labelled sentences, or a stream.

    The sample is the spec's own, drawn with its seed from the training split; `sees` in
    `training` gives its size.
    """
    if pruner.needs == "nothing":
        return
    sees = spec.training["sees"]
    if not sees:
        raise StudyError(f"{spec.method} needs {pruner.needs}; the spec's training['sees'] is null")
    device = next(bench.teacher.model.parameters()).device
    order = torch.Generator().manual_seed(spec.seed)
    data, tokenizer, size = bench.train, bench.teacher.tokenizer, sees["batch"]
    if pruner.needs == "training":
        stream = batches.training(data, tokenizer, size, order, steps=sees["steps"])
    else:
        sample = batches.sample(data, min(sees["examples"], len(data)), order)
        stream = batches.training(sample, tokenizer, size, order)
    for batch in stream:
        if pruner.needs == "examples":
            batch.pop("labels", None)
        yield {name: tensor.to(device) for name, tensor in batch.items()}


def _measured(found: Evaluation, model: nn.Module) -> dict:
    counted = costs.params(model)
    return {
        "score": found.score,
        "scores": dict(found.scores),
        "params": counted.model,
        "encoder_params": counted.encoder,
        "attention_params": counted.attention,
        "macs": costs.encoder_macs(encoder.shape(model), MACS_TOKENS),
    }


def _fractions(pruned: nn.Module, whole: nn.Module, count) -> dict[str, float]:
    """Parts of the dense model that are left, each 0..1; MACs by shape, at MACS_TOKENS."""
    left, full = asdict(count(pruned)), asdict(count(whole))
    macs = [costs.encoder_macs(encoder.shape(m), MACS_TOKENS) for m in (pruned, whole)]
    fractions = {name: left[name] / full[name] for name in ("attention", "encoder", "model")}
    return {n: round(f, 6) for n, f in (fractions | {"macs": macs[0] / macs[1]}).items()}


@contextmanager
def _clock(seconds: dict[str, float], phase: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[phase] = time.perf_counter() - start


def provenance(bench: Bench) -> dict:
    """Where a run comes from: code, machine, data, weights and the claims it may be held to."""
    return machine() | {
        "precision": PRECISION,
        "macs_tokens": MACS_TOKENS,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "sha256": {
            "data": tasks.digests(bench.task.name),
            "encoder": bench.teacher.encoder_sha256,
            "teacher": bench.teacher.sha256,
        },
        "teacher": {"steps": bench.teacher.steps, "selection": bench.teacher.selection},
        "claims": claims.digest(),
    }


@lru_cache
def machine() -> dict:
    """Code and machine of this process: commit, versions, device, threads. Read once."""
    packages = ("torch", "transformers", "datasets", "accelerate", "numpy")
    commit, dirty = (
        _git("rev-parse", "HEAD"),
        _git("status", "--porcelain", "--", "lib", "data/claims"),
    )
    return {
        "commit": commit or "unknown",
        "dirty": bool(dirty) if commit else None,
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else _processor(),
        "threads": torch.get_num_threads(),
    }


def _git(*command: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", ROOT, *command], capture_output=True, text=True)
    except FileNotFoundError:
        return None  # no git: a downloaded archive has no commit to name
    return done.stdout.strip() if done.returncode == 0 else None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
