"""How is a notebook executed: for the book, or for a reader's own task, encoder and budgets?"""

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat

from lib import assets, study
from lib.errors import StudyError, unknown

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
TEXTS = ("profile", "encoder", "task")  # parameters that are names or paths, even one like 2024
NUMBERS = {"seeds": "3", "budgets": ".9,.5"}  # parameters that are numbers, each as an example
FIGURES = "PRUNING_FIGURES"  # environment variable: where figures leave their data as CSV


def names() -> list[str]:
    """The notebooks that there are, in the order of the alphabet."""
    return sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


def fork(name: str, parameters: Mapping[str, Any]) -> Path:
    """Execute one notebook with other parameters, into the local cache; the book stays as it is.

    What is wrong with a task, an encoder, seeds or budgets is said before the notebook starts.
    What the chapter lacks in the local store is computed first, and its shapes are timed.
    """
    values = "-".join(str(value) for value in parameters.values())
    label = re.sub(r"[^A-Za-z0-9.]+", "-", f"{name}-{values}").strip("-")
    _check(name, parameters)
    found = _found(parameters)
    if name in study.CHAPTERS:
        wishes = {wish: value for wish, value in found.items() if wish != "profile"}
        p = study.profile(found.get("profile", "quick"), **wishes)
        study.specs(name, p)
        if p.folder == study.LOCAL:
            compute(name, p)
    return execute(name, found, assets.CACHE / "forks" / label) / f"{name}.ipynb"


def compute(name: str, p: study.Profile) -> None:
    """Put whatever a chapter lacks into its profile's store: runs, answers and timings."""
    from lib.execute import answer, obtain

    obtain(study.expected(name, p), p.store)
    answer(study.answerable(name, p), p.store)
    if study.untimed(p, (name,)):
        from lib.measures.timings import measure

        measure(p, chapters=(name,))


def _found(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with files by their whole paths: a notebook runs in a folder of its own."""
    found = dict(parameters)
    if task := found.get("task"):
        from lib import tasks

        source = tasks.get(task).source
        if isinstance(source, tasks.Own):
            found["task"] = "csv:" + ",".join(os.path.abspath(path) for path in source.files)
    if (encoder := found.get("encoder")) and encoder not in assets.ENCODERS:
        found["encoder"] = os.path.abspath(assets.encoder_folder(encoder))
    return found


def settings(texts: Iterable[str]) -> dict[str, Any]:
    """Parameters of a notebook from texts such as `seeds=3`, `budgets=.9,.5` or `task=cola`."""
    found = {}
    for text in texts:
        name, equals, given = text.partition("=")
        if not (name and equals):
            raise StudyError(f"wanted NAME=VALUE, got {text!r}; for instance seeds=3")
        found[name] = given.strip() if name in TEXTS else _value(given)
        if name in NUMBERS and isinstance(found[name], str):
            raise StudyError(
                f"wanted numbers for {name}, got {given!r}; say {name}={NUMBERS[name]}"
            )
    if "budgets" in found and not isinstance(found["budgets"], list):
        found["budgets"] = [found["budgets"]]
    return found


def _value(text: str) -> Any:
    """A number, a list of numbers (by commas), or the text itself."""
    try:
        numbers = [_number(part) for part in text.split(",") if part.strip()]
    except ValueError:
        return text.strip()
    return numbers[0] if len(numbers) == 1 and "," not in text else numbers


def _number(text: str) -> int | float:
    number = float(text)
    return int(number) if number.is_integer() and "." not in text else number


def execute(name: str, parameters: Mapping[str, Any], folder: Path) -> Path:
    """Run a notebook into `folder`, which holds name.ipynb and data/*.csv when it succeeded.

    A notebook that fails is kept aside for reading, and its folder stays as it was.
    """
    import papermill  # a second of imports that an unchanged book does without
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillException
    from traitlets.config import Config

    source = _check(name, parameters)
    variables = {"PRUNING_CACHE": str(assets.CACHE.absolute())}
    if where := os.environ.get("GLUE_DIR"):
        variables["GLUE_DIR"] = os.path.abspath(Path(where).expanduser())
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    (fresh / "data").mkdir(parents=True)
    output = fresh / source.name
    try:
        with _environment(**variables, **{FIGURES: str(fresh.absolute() / "data")}):
            papermill.execute_notebook(
                str(source),
                str(output),
                dict(parameters),
                kernel_name="python3",
                cwd=NOTEBOOKS,
                config=Config(KernelManager={"transport": "ipc"}),  # not through open TCP ports
            )
    except (PapermillException, DeadKernelError) as error:
        failed = assets.CACHE / "failed" / source.name
        failed.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(output, failed)
        shutil.rmtree(fresh)
        why = getattr(error, "evalue", "") or str(error)
        raise StudyError(f"{name}: {' '.join(why.split())}; read {failed}") from error
    _finish(output)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    return folder


def _check(name: str, parameters: Mapping[str, Any]) -> Path:
    """The notebook's path, once its name and those of its parameters are known to exist."""
    import papermill

    source = NOTEBOOKS / f"{name}.ipynb"
    if not source.is_file():
        raise unknown("chapter", name, names())
    known = papermill.inspect_notebook(str(source))
    for parameter in parameters:
        if parameter not in known:
            raise unknown(f"parameter of the notebook {name}", parameter, known)
    return source


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _finish(path: Path) -> None:
    """Make an executed notebook fit for the book: no local paths, no injected code, and links."""
    notebook = nbformat.read(path, as_version=4)
    for where in ("input_path", "output_path"):
        notebook.metadata["papermill"].pop(where, None)
    for cell in notebook.cells:
        tags = cell.metadata.setdefault("tags", [])
        if "injected-parameters" in tags:
            tags.append("remove-input")
    nbformat.write(notebook, path)
