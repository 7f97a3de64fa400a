"""Which fine-tuned model is pruned? Teachers, trained once and kept by content."""

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from torch import nn
from transformers import AutoTokenizer

from lib import assets, tasks
from lib.assets import fetch
from lib.errors import StudyError
from lib.measures.evaluate import score
from lib.models import encoder
from lib.runs import digest
from lib.training import batches
from lib.training.train import Recipe, finetune

SEED = 0  # one teacher a task: the study's seeds vary the pruning, not what is pruned
VERSION = 1  # raised when training changes, so that old teachers are not mistaken for new ones


@dataclass(frozen=True)
class Teacher:
    """A dense classifier, its tokenizer, and where it lies."""

    model: nn.Module
    tokenizer: object
    folder: Path
    sha256: str  # of model.safetensors
    encoder_sha256: str  # of the pretrained weights it began from
    seconds: float  # of training, once
    steps: int
    selection: list  # (step, score on the selection split)


def teacher(name: str, task_name: str, recipe: dict) -> Teacher:
    """The encoder `name` fine-tuned on a task, from the cache or trained now.

    The folder's name is a digest of all that decides its content: pretrained weights, data,
    recipe and VERSION. A lock makes a second process wait rather than train the same teacher.
    """
    source = assets.encoder_folder(name)
    pretrained = assets.sha256(source / "model.safetensors")
    content = [pretrained, tasks.digests(task_name), Recipe.of(recipe).record(), SEED, VERSION]
    key = digest(content)
    home = assets.CACHE / "teachers"
    home.mkdir(parents=True, exist_ok=True)
    folder = home / f"{_plain(name)}-{_plain(task_name)}-{key}"
    with FileLock(home / f"{folder.name}.lock"):
        if not (folder / "teacher.json").exists():
            _train(source, task_name, recipe, folder)
    history = json.loads((folder / "teacher.json").read_text())
    labels = tasks.get(task_name).labels
    return Teacher(
        encoder.load(folder, labels),
        _tokenizer(folder),
        folder,
        assets.sha256(folder / "model.safetensors"),
        pretrained,
        **history,
    )


def _train(source: Path, task_name: str, recipe: dict, folder: Path) -> None:
    task = tasks.get(task_name)
    tokenizer = _tokenizer(source)
    data = batches.tokenize(tasks.load(task_name, "train"), tokenizer, task.max_tokens)
    held_out = tasks.load(task_name, "select")
    how = Recipe.of(recipe)
    start = time.perf_counter()
    trained = finetune(
        encoder.load(source, task.labels),
        tokenizer,
        data,
        how,
        SEED,
        select=lambda model: score(model, tokenizer, held_out, task, how.precision).score,
        label=f"teacher {source.name} {task_name}",
    )
    seconds = time.perf_counter() - start
    new = folder.with_name(f"{folder.name}.{os.getpid()}.new")
    for left in folder.parent.glob(f"{folder.name}.*.new"):  # by a kill: we hold the lock
        shutil.rmtree(left, ignore_errors=True)
    try:
        trained.model.save_pretrained(new)
        tokenizer.save_pretrained(new)
        history = {"seconds": seconds, "steps": trained.steps, "selection": trained.selection}
        (new / "teacher.json").write_text(json.dumps(history))
        os.replace(new, folder)  # whole or not at all
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _tokenizer(folder: Path):
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:  # JSON that is cut off is a ValueError
        why = fetch.line(error)
        raise StudyError(f"cannot read the tokenizer in {folder} ({why}); save it anew") from error


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)[-60:]
