"""Do pyproject.toml, the lock and environment.yml describe one environment, and is it this one?"""

import re
import shutil
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from lib import pruners, study

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
LOCK = [
    Requirement(line.partition("#")[0])
    for line in (ROOT / "requirements.lock").read_text().splitlines()
    if line.partition("#")[0].strip()
]
DIRECT = [
    Requirement(line) for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]
]
PYTHONS = ("3.11", "3.12", "3.13")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("wanted", DIRECT, ids=str)
def test_the_lock_pins_every_direct_dependency(wanted):
    pins = [pin for pin in LOCK if canonical(pin.name) == canonical(wanted.name)]
    assert pins, f"{wanted.name} is not in requirements.lock; run `make lock`"
    for pin in pins:
        (pinned,) = pin.specifier
        assert pinned.operator == "=="
        assert wanted.specifier.contains(pinned.version)


def test_the_lock_holds_for_every_python_and_platform():
    assert all(len(pin.specifier) == 1 and not pin.url for pin in LOCK)
    supported = SpecifierSet(PROJECT["requires-python"])
    assert [f"3.{minor}" for minor in range(30) if supported.contains(f"3.{minor}.1")] == [*PYTHONS]
    for python in PYTHONS:
        here = default_environment() | {
            "python_version": python,
            "python_full_version": python + ".1",
        }
        names = [canonical(pin.name) for pin in LOCK if not pin.marker or pin.marker.evaluate(here)]
        assert len(names) == len(set(names)), f"two pins of one package under Python {python}"


def test_the_lock_leaves_accelerators_to_torch():
    names = {canonical(pin.name) for pin in LOCK}
    assert "torch" in names
    assert not [name for name in names if re.match(r"nvidia-|cuda-|triton$", name)]


def test_jupyter_book_is_the_line_that_builds_offline():
    pins = {canonical(pin.name): str(pin.specifier) for pin in LOCK}
    assert pins["jupyter-book"] == "==1.0.4.post1"


def test_conda_installs_the_lock():
    python, pip, packages = CONDA["dependencies"]
    assert python == f"python {PROJECT['requires-python']}"
    assert pip == "pip"
    assert packages == {"pip": ["-r requirements.lock", "-e ."]}


def test_no_committed_file_names_an_index_or_a_local_path():
    for name in ("requirements.lock", "pyproject.toml", "environment.yml", "Makefile", ".ci/run"):
        text = (ROOT / name).read_text()
        assert not re.search(r"index-url|find-links|file://|pythonhosted|pypi\.org", text), name


def test_this_environment_is_the_locked_one():
    different = []
    for pin in LOCK:
        if not pin.marker or pin.marker.evaluate():
            (pinned,) = pin.specifier
            try:
                if version(pin.name).partition("+")[0] != pinned.version:
                    different.append(f"{pin.name} {version(pin.name)}, not {pinned.version}")
            except PackageNotFoundError:
                different.append(f"{pin.name} is not installed")
    assert different == []


COMMANDS = ("quick", "book", "study", "timings", "chapter", "lab", "verdicts")


def test_help_lists_every_command_and_each_asks_the_module():
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True).stdout
    for command in (*COMMANDS, "test"):
        assert re.search(rf"^  {command} +\S", shown, re.MULTILINE), command
    for command in COMMANDS:
        dry = ["make", "-n", "-o", ".venv/ready", command, "NAME=kcm"]
        said = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True).stdout
        assert f"-m lib {command}" in said


def test_a_python_that_is_too_old_is_refused_in_one_line(tmp_path):
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    old = tmp_path / "old"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.9.1 || exit 1\n')
    old.chmod(0o755)
    done = subprocess.run(["make", "-C", tmp_path, f"PYTHON={old}"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "error: wanted Python 3.11 to 3.13, got Python 3.9.1" in done.stderr
    assert not (tmp_path / ".venv").exists()


def example(page: str, opening: str) -> str:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    [found] = [block for block in blocks if block.startswith(opening)]
    return found


@pytest.fixture
def classifier(tmp_path, monkeypatch, make_classifier, digits):
    """Where the pages' examples look for one, with its tokenizer."""
    monkeypatch.chdir(tmp_path)
    for folder in ("path/to/a/classifier", "path/to/classifier"):
        make_classifier("bert", 2).save_pretrained(folder)
        digits.save_pretrained(folder)


def test_the_readmes_example_runs_and_its_pipeline_classifies(classifier):
    names = {}
    exec(example("README.md", "from transformers import Auto"), names)
    assert Path("smaller/model.safetensors").is_file()
    [answer] = names["classify"]("t5 t6 t7")
    assert answer["label"] in names["smaller"].config.id2label.values()
    assert headline(names["prune"])


def test_the_example_on_forking_saves_what_can_be_loaded(classifier):
    names = {}
    exec(example("book/fork.md", "from transformers import Auto"), names)
    again = names["AutoModelForSequenceClassification"].from_pretrained("smaller")
    assert again.num_parameters() == names["smaller"].num_parameters()
    assert names["AutoTokenizer"].from_pretrained("smaller").tokenize("t5 t6") == ["t5", "t6"]
    assert headline(names["prune"])


def headline(prune: pruners.Pruner) -> bool:
    """Is it the reading of the slides that the study's first verdicts are about?"""
    name, options = study.ARMS["coreset"]
    return prune == pruners.get(name, unit=prune.unit, **options)


def test_the_readme_names_only_commands_that_exist():
    commands = set(
        re.findall(r"(?:^|`)make ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    )
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert commands <= targets
