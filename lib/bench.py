"""How is one run done? Teacher, pruner, measurement: from a Spec to a Run."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path

import torch
from datasets import Dataset
from torch import nn

from lib import assets, claims, devices, origin, pruners, runs, tasks
from lib.errors import StudyError, unknown
from lib.measures import costs, products
from lib.measures.evaluate import Evaluation, autocast, score
from lib.models import encoder
from lib.models.compact import dense
from lib.scoring import filters
from lib.tokens.costs import measure
from lib.tokens.model import TokenForSequenceClassification
from lib.training import batches
from lib.training.teachers import Teacher, teacher
from lib.training.train import Recipe, Trained, finetune

# Sequence length at which MACs are stated, unless they are the budget: then it is the task's own.
MACS_TOKENS = 128
SELECT = 500  # texts that a method may score itself on as it trains
PRECISION = "bfloat16"  # of the matrix products behind every score, where that pays


@dataclass(frozen=True)
class Bench:
    """Everything that runs on one encoder and task share, made once a process."""

    task: tasks.Task
    teacher: Teacher
    dev: Dataset  # the reported split, as text
    dense: Evaluation  # of the teacher, on dev
    measured: dict  # its scores and sizes, as records hold them
    scores: dict = field(default_factory=dict)  # of methods whose scores know no budget
    weighed: dict = field(default_factory=dict)  # what a method makes of the teacher's weights

    def select(self, most: int | None = None) -> Callable[[nn.Module], float]:
        """The score of a model on (the first `most` texts of) what is kept aside of training."""
        data = tasks.load(self.task.name, "select")
        data = data.select(range(min(most or len(data), len(data))))
        return lambda it: score(it, self.teacher.tokenizer, data, self.task, PRECISION).score

    @cached_property
    def train(self) -> Dataset:
        """The training split, tokenised; many methods never ask for it."""
        texts = tasks.load(self.task.name, "train")
        return batches.tokenize(texts, self.teacher.tokenizer, self.task.max_tokens)

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each text of the reported split, special ones included."""
        return batches.tokenize(self.dev, self.teacher.tokenizer, self.task.max_tokens)["length"][:]

    @cached_property
    def tokens(self) -> float:
        """Their mean, to two places."""
        return round(sum(self.lengths) / len(self.lengths), 2)


def prepare(spec: runs.Spec) -> Bench:
    """Load or train the teacher of a spec and score it on the reported split."""
    devices.keep_memory()
    task = tasks.get(spec.task)
    it = teacher(spec.encoder, spec.task, spec.training["teacher"])
    it.model.to(devices.device())
    dev = tasks.load(spec.task, "dev")
    found = score(it.model, it.tokenizer, dev, task, PRECISION)
    return Bench(task, it, dev, found, _measured(found, it.model, MACS_TOKENS))


def perform(spec: runs.Spec, bench: Bench) -> runs.Run:
    """Prune, fine-tune where the spec says so, evaluate, count."""
    seconds = {"teacher": bench.teacher.seconds}
    tokenizer, tokens = bench.teacher.tokenizer, macs_tokens(spec, bench)
    pruned, zeroed = prune(spec, bench, seconds)
    error, trace = products.error(bench.teacher.model, pruned), getattr(pruned, "trace", {})
    if spec.training["after"]:
        trained = _finetune(spec, bench, pruned, zeroed, seconds)
        pruned, trace = trained.model, _tuned(trace, trained)
    with costs.clock(seconds, "evaluate"):
        found = score(pruned, tokenizer, bench.dev, bench.task, PRECISION)
    kept = _fractions(pruned, bench.teacher.model, costs.params, tokens)
    if isinstance(pruned, TokenForSequenceClassification):
        with autocast(next(pruned.parameters()).device, PRECISION, frozen=True):
            whole = encoder.shape(bench.teacher.model)
            ran = measure(pruned, tokenizer, bench.dev, bench.task.max_tokens, whole)
        trace = trace | {"tokens": ran}
        # of what really ran on the reported texts, each of its own length: no shape tells
        kept["macs"] = round(ran["macs"]["pruned"] / ran["macs"]["dense"], 6)
    return runs.Run(
        spec=spec,
        dense=bench.measured | {"macs": _macs(bench.teacher.model, tokens)},
        # the products' error is that before any fine-tuning
        pruned=_measured(found, pruned, tokens) | {"product_error": error},
        kept=kept,
        nonzero=_fractions(pruned, bench.teacher.model, costs.nonzero, tokens),
        shape=encoder.shape(pruned).json(),
        seconds={name: round(value, 3) for name, value in seconds.items()},
        per_example=runs.pack_examples(
            next(iter(found.scores)),
            found.labels,
            bench.dense.predictions,
            found.predictions,
            len(bench.task.labels) if bench.task.labels else None,
        ),
        provenance=provenance(bench, spec, tokens),
        trace=trace,
    )


def prune(spec: runs.Spec, bench: Bench, seconds: dict[str, float]) -> tuple[nn.Module, bool]:
    """The pruned model, and whether its method merely zeroes weights."""
    model, budget = _base(spec, bench, seconds)
    if spec.method == "dense":
        return dense(model), False
    options = {"tokens": macs_tokens(spec, bench)} if spec.unit == "macs" else {}
    options |= {"unit": spec.unit, "seed": spec.seed} | spec.own
    pruner = pruners.get(spec.method, **options)
    if pruner.version != spec.version:
        raise StudyError(
            f"{spec.method} is at version {pruner.version}, the spec asks for {spec.version}; "
            "check out the code of that version or ask for this one"
        )
    # Methods that look at weights alone do so in full precision.
    precision = "float32" if pruner.needs == "nothing" else PRECISION
    with autocast(next(model.parameters()).device, precision):
        if getattr(pruner, "aided", False):
            made = _aided(pruner, spec, bench, model, budget, seconds)
            return made, not pruner.compact
        if not hasattr(pruner, "scores"):
            with costs.clock(seconds, "prune"):
                return pruner(model, _data(pruner, spec, bench), budget), not pruner.compact
        key = runs.digest([spec.method, spec.unit, spec.seed, spec.options, spec.training["sees"]])
        if key not in bench.scores:
            given = _weighed(pruner, spec, bench, model)
            with costs.clock(seconds, "score"):
                found = pruner.scores(model, _data(pruner, spec, bench), *given)
            before = sum(sum(part.seconds.values()) for part in given)
            bench.scores[key] = found, round(seconds["score"] + before, 3)
        found, seconds["score"] = bench.scores[key]  # spent once, but part of each run's price
        with costs.clock(seconds, "prune"):
            return pruner.cut(model, found, budget), not pruner.compact


def _weighed(
    pruner: pruners.Pruner, spec: runs.Spec, bench: Bench, model: nn.Module
) -> tuple[filters.Sight, ...]:
    """What a method makes of the weights alone: of the teacher's once a process, for every seed.

    Its seconds are part of each run's price all the same. Empty where a method has no such part.
    """
    if not hasattr(pruner, "weighed"):
        return ()
    if spec.base is not None:
        return (pruner.weighed(model),)
    key = runs.digest([spec.method, pruner.weighing])
    if key not in bench.weighed:
        bench.weighed[key] = pruner.weighed(model)
    return (bench.weighed[key],)


def _base(
    spec: runs.Spec, bench: Bench, seconds: dict[str, float]
) -> tuple[nn.Module, int | float]:
    """The model that a spec prunes, and how much of that very model it may keep."""
    teacher = bench.teacher.model
    if spec.base is None:
        return teacher, spec.budget
    with costs.clock(seconds, "base"):
        model, zeroed = prune(spec.base, bench, {})
        if zeroed:
            raise StudyError(
                f"wanted a base that is smaller, but {spec.base.method} merely zeroes weights; "
                "prune first by a method that removes them"
            )
        if spec.base.training["after"]:
            model = _finetune(spec.base, bench, model, zeroed, {}).model
    part = {"attention": "attention", "macs": "macs", "executed": "macs"}.get(spec.unit, "encoder")
    left = _fractions(model, teacher, costs.params, bench.tokens)[part]
    if spec.method != "dense" and spec.budget > left:
        raise StudyError(
            f"wanted {spec.budget:g} of {spec.unit}, but {spec.base.label} leaves {left:.3f} "
            "before anything else is pruned; ask for less"
        )
    return model, spec.budget / left


def _finetune(
    spec: runs.Spec, bench: Bench, pruned: nn.Module, zeroed: bool, seconds: dict[str, float]
) -> Trained:
    """A pruned model trained as its spec says."""
    recipe = Recipe.of(spec.training["after"])
    with costs.clock(seconds, "finetune"):
        trained = finetune(
            pruned,
            bench.teacher.tokenizer,
            bench.train,
            recipe,
            spec.seed,
            select=bench.select() if recipe.selections else None,
            keep_zeros=zeroed,
            label=spec.label,
            teacher=bench.teacher.model if recipe.distil else None,
            checkpoint=_checkpoints(spec, bench) / "finetune.safetensors",
        )
    seconds["finetune"] += trained.before
    return trained


def _aided(
    pruner: pruners.Pruner,
    spec: runs.Spec,
    bench: Bench,
    model: nn.Module,
    budget: int | float,
    seconds: dict[str, float],
) -> nn.Module:
    """The model of a method that trains for long: it may look at scores, and be killed."""
    before = []
    aids = pruners.Aids(
        select=bench.select(SELECT),
        checkpoint=_checkpoints(spec, bench) / "prune.safetensors",
        start=partial(_pretrained, spec),
        label=spec.label,
        spent=before.append,
    )
    with costs.clock(seconds, "prune"):
        pruned = pruner(model, _data(pruner, spec, bench), budget, aids=aids)
    seconds["prune"] += sum(before)
    return pruned


def _pretrained(spec: runs.Spec) -> nn.Module:
    """What the teacher began from: the encoder, and a fresh classifier by the spec's seed."""
    folder = assets.encoder_folder(spec.encoder)
    return encoder.load(folder, tasks.get(spec.task).labels, spec.seed)


def _tuned(trace: dict, trained: Trained) -> dict:
    """The trace of a method that left one, with the fine-tuning after it."""
    history = {"losses": trained.losses, "selection": [list(row) for row in trained.selection]}
    return trace | {"finetune": history} if trace or trained.selection else trace


def _checkpoints(spec: runs.Spec, bench: Bench) -> Path:
    """Where the trainings of a run keep their state, by all that decides it."""
    return assets.CACHE / "checkpoints" / runs.digest([spec.key, bench.teacher.sha256])


def forget(spec: runs.Spec, bench: Bench) -> None:
    """Remove the checkpoints of a run that is on record."""
    shutil.rmtree(_checkpoints(spec, bench), ignore_errors=True)
    if spec.base:
        forget(spec.base, bench)


def _data(pruner: pruners.Pruner, spec: runs.Spec, bench: Bench) -> Iterator[dict]:
    """What the method is allowed to see: nothing, sentences, labelled sentences, or a stream.

    The sample is the spec's own, drawn with its seed from the training split; `sees` in
    `training` gives its size, and perhaps another task whose training split it is drawn from, or
    that its texts are to be as long as the reported ones, of which nothing but the length is read.
    """
    if pruner.needs == "nothing":
        return
    sees = spec.training["sees"]
    if not sees:
        raise StudyError(f"{spec.method} needs {pruner.needs}; the spec's training['sees'] is null")
    device = next(bench.teacher.model.parameters()).device
    order = torch.Generator().manual_seed(spec.seed)
    tokenizer, size = bench.teacher.tokenizer, sees["batch"]
    data = _foreign(sees["task"], pruner, bench) if "task" in sees else bench.train
    if sees.get("lengths", "reported") != "reported":
        raise unknown("lengths of training['sees']", sees["lengths"], ["reported"])
    if pruner.needs == "training":
        if "lengths" in sees:
            data = batches.like(data, bench.lengths, sees["steps"] * size, order)
        stream = batches.training(data, tokenizer, size, order, steps=sees["steps"])
    else:
        sample = batches.sample(data, examples_read(spec, bench), order)
        stream = batches.training(sample, tokenizer, size, order)
    for batch in stream:
        if pruner.needs == "examples":
            batch.pop("labels", None)
        yield {name: tensor.to(device) for name, tensor in batch.items()}


def examples_read(spec: runs.Spec, bench: Bench) -> int | None:
    """Sentences of the sample that a spec's method reads: as many as asked for, or all there are.

    None where it reads none, or a stream.
    """
    sees = spec.training["sees"] or {}
    if "examples" not in sees:
        return None
    there = tasks.load(sees["task"], "train") if "task" in sees else bench.train
    return min(sees["examples"], len(there))


def _foreign(name: str, pruner: pruners.Pruner, bench: Bench) -> Dataset:
    """Another task's training split, for a method that reads its sentences alone."""
    if pruner.needs != "examples":
        raise StudyError(
            f"training['sees'] names the task {name}, but its labels mean nothing to "
            f"{bench.task.name}, and the method needs {pruner.needs}; leave the task out"
        )
    other = tasks.get(name)
    return batches.tokenize(tasks.load(name, "train"), bench.teacher.tokenizer, other.max_tokens)


def macs_tokens(spec: runs.Spec, bench: Bench) -> int | float:
    """The sequence length at which a run's MACs are counted.

    Where they are the budget, that of the options or the mean of the reported split.
    """
    if spec.unit != "macs":
        return MACS_TOKENS
    return spec.options.get("tokens") or bench.tokens


def _macs(model: nn.Module, tokens: int | float) -> int:
    return round(costs.encoder_macs(encoder.shape(model), tokens))


def _measured(found: Evaluation, model: nn.Module, tokens: int | float) -> dict:
    counted = costs.params(model)
    return {
        "score": found.score,
        "scores": dict(found.scores),
        "params": counted.model,
        "encoder_params": counted.encoder,
        "attention_params": counted.attention,
        "macs": _macs(model, tokens),
    }


def _fractions(pruned: nn.Module, whole: nn.Module, count, tokens: int | float) -> dict[str, float]:
    """Parts of the dense model that are left, each 0..1; MACs by shape, at `tokens` a sequence."""
    left, full = asdict(count(pruned)), asdict(count(whole))
    macs = [costs.encoder_macs(encoder.shape(m), tokens) for m in (pruned, whole)]
    fractions = {name: left[name] / full[name] for name in ("attention", "encoder", "model")}
    return {n: round(f, 6) for n, f in (fractions | {"macs": macs[0] / macs[1]}).items()}


def provenance(bench: Bench, spec: runs.Spec, tokens: int | float) -> dict:
    """Where a run comes from: code, machine, data, weights and the claims it may be held to.

    `precision` is that of the matrix products behind its scores, and what a recipe's "bfloat16"
    came to on this machine.
    """
    device = next(bench.teacher.model.parameters()).device
    foreign, read = (spec.training["sees"] or {}).get("task"), examples_read(spec, bench)
    return origin.machine() | {
        "precision": devices.precision(PRECISION, device),
        "macs_tokens": tokens,
        **({} if read is None else {"examples_read": read}),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "sha256": {
            "data": tasks.digests(bench.task.name),
            **({"sees": tasks.digests(foreign)} if foreign else {}),
            "encoder": bench.teacher.encoder_sha256,
            "teacher": bench.teacher.sha256,
        },
        "teacher": {"steps": bench.teacher.steps, "selection": bench.teacher.selection},
        "claims": claims.digest(),
    }
