"""Does every command answer as it says: a result and status 0, or one line and another status?"""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest
from safetensors import SafetensorError

from lib import assets, engine, study
from lib.__main__ import main
from lib.book import chapters, publish
from lib.errors import StudyError

ROOT = Path(__file__).resolve().parent.parent


def test_verdicts_are_tab_separated_lines_under_a_header(capsys):
    assert main(["verdicts", "--profile", "published"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split("\t") == (
        "key encoder task stated measured low high n fidelity verdict".split()
    )
    assert len(rows) > 20
    assert all(row.count("\t") == 9 for row in rows)


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (
            ["verdicts", "--profile", "publish"],
            "unknown profile 'publish'; did you mean published?",
        ),
        (["study", "--profile", "quik"], "unknown profile 'quik'; did you mean quick?"),
        (["chapter", "corset"], "unknown chapter 'corset'; did you mean coreset?"),
        (
            ["chapter", "coreset", "--set", "sed=1"],
            "unknown parameter of the notebook coreset 'sed'",
        ),
        (["chapter", "coreset", "--task", "colla"], "unknown task 'colla'; did you mean cola?"),
        (["chapter", "coreset", "--task", "csv:none.csv"], "no CSV at none.csv: check the path"),
        (["chapter", "coreset", "--encoder", "minilm"], "unknown encoder 'minilm'; did you mean"),
        (["chapter", "coreset", "--encoder", "./none"], "no encoder folder at ./none: give a"),
        (
            ["chapter", "coreset", "--budgets", "half"],
            "wanted numbers for budgets, got 'half'; say",
        ),
        (["chapter", "coreset", "--budgets", ".5,1.5"], "wanted a budget in (0, 1], got 1.5"),
        (["chapter", "coreset", "--seeds", "1.5"], "wanted a whole number of seeds above 0"),
    ],
)
def test_bad_input_is_one_line_and_status_1(command, error, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(assets, "CACHE", tmp_path)
    monkeypatch.setattr("papermill.execute_notebook", lambda *_, **__: pytest.fail("it started"))
    assert main(command) == 1
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {error}")
    assert shown.count("\n") == 1


def test_an_interruption_is_one_line_and_status_130(capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "run", interrupted)
    assert main(["study"]) == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_a_reader_may_stop_reading():
    command = f'"{sys.executable}" -m lib verdicts | head -1'
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("key\t")
    assert done.stderr == ""


@pytest.fixture
def steps(monkeypatch, tmp_path):
    """A quick study that notes its steps instead of taking them."""
    taken = []
    monkeypatch.setattr(assets, "CACHE", tmp_path)
    monkeypatch.setattr(study, "profile", lambda name: SimpleNamespace(name=name, store="a store"))
    monkeypatch.setattr(study, "missing", lambda name: ["a spec"])
    monkeypatch.setattr(study, "untimed", lambda name: [])
    monkeypatch.setattr(publish, "book", lambda name: taken.append("book") or "index.html")
    monkeypatch.setattr(publish, "ledger", lambda name: pd.DataFrame({"key": ["a.claim"]}))
    monkeypatch.setattr(study, "unanswered", lambda name: ["a question"])

    def note(wanted, store):
        taken.extend([f"{wanted} into {store}"] if wanted else [])

    obtain = SimpleNamespace(obtain=note, answer=note)
    measure = SimpleNamespace(measure=lambda name: taken.append("timings"))
    monkeypatch.setattr("lib.execute", obtain, raising=False)
    monkeypatch.setitem(sys.modules, "lib.execute", obtain)
    monkeypatch.setitem(sys.modules, "lib.measures.timings", measure)
    return taken


def test_quick_computes_times_and_shows(steps, capsys):
    assert main(["quick"]) == 0
    computed = ["['a spec'] into a store", "['a question'] into a store"]
    assert steps == [*computed, "timings", "book"]
    shown = capsys.readouterr().out
    assert "a.claim" in shown
    assert shown.endswith("The book: index.html\n")


def test_quick_with_nothing_missing_computes_nothing(steps, monkeypatch):
    monkeypatch.setattr(study, "missing", lambda name: [])
    monkeypatch.setattr(study, "unanswered", lambda name: [])
    assert main(["quick"]) == 0
    assert steps == ["book"]


def test_quick_beside_a_running_quick_study_is_refused(steps, capsys):
    with engine.alone("quick study"):
        assert main(["quick"]) == 1
    assert capsys.readouterr().err.startswith("error: the quick study is being computed already")
    assert steps == []


def test_a_chapter_takes_its_parameters_from_options_and_settings(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(assets, "CACHE", tmp_path)
    given = {}
    monkeypatch.setattr(chapters, "fork", lambda name, parameters: given.update(parameters) or name)
    command = ["chapter", "coreset", "--task", "cola", "--seeds", "3", "--budgets", ".9,.5"]
    assert main([*command, "--set", "profile=paper"]) == 0
    assert given == {"task": "cola", "seeds": 3, "budgets": [0.9, 0.5], "profile": "paper"}


GIVEN = "profile = None\ntask = None\nencoder = None"
LOOK = """
import os
from pathlib import Path
from lib import assets, study, tasks
print(len(tasks.load(task, "dev")), "reported texts of", task)
print("encoder", assets.encoder_folder(encoder))
print("cache", assets.CACHE, study.LOCAL)
print("GLUE", (Path(os.environ["GLUE_DIR"]) / "CoLA").is_dir())
"""


def test_a_chapter_finds_what_is_named_from_where_the_command_stands(
    monkeypatch, tmp_path, make_classifier, digits, capsys
):
    """The notebook itself runs in another folder."""
    here, notebooks = tmp_path / "here", tmp_path / "notebooks"
    notebooks.mkdir()
    cells = [nbformat.v4.new_code_cell(text) for text in (GIVEN, LOOK)]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(book, notebooks / "look.ipynb")
    (here / "glue" / "CoLA").mkdir(parents=True)
    make_classifier("bert", 2).bert.save_pretrained(here / "tiny")
    digits.save_pretrained(here / "tiny")
    for at, name in enumerate(("train.csv", "dev.csv")):
        texts = [f"t{2 + n % 30} t{2 + 2 * at + n // 30},{n % 2}\n" for n in range(60)]
        (here / name).write_text("text,label\n" + "".join(texts))
    monkeypatch.chdir(here)
    monkeypatch.setattr(chapters, "NOTEBOOKS", notebooks)
    monkeypatch.setattr(assets, "CACHE", Path("cache"))
    monkeypatch.setenv("PRUNING_CACHE", "cache")
    monkeypatch.setenv("GLUE_DIR", "glue")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = ["chapter", "look", "--task", "csv:train.csv,dev.csv", "--encoder", "./tiny"]
    assert main(command) == 0, capsys.readouterr().err
    [made] = (here / "cache" / "forks").glob("*/look.ipynb")
    shown = nbformat.read(made, as_version=4).cells[-1].outputs
    shown = "".join(it["text"] for it in shown if it.get("name") == "stdout")
    assert shown.splitlines() == [
        f"60 reported texts of csv:{here}/train.csv,{here}/dev.csv",
        f"encoder {here}/tiny",
        f"cache {here}/cache {here}/cache/runs",
        "GLUE True",
    ]


def test_a_study_error_inside_a_command_is_shown_and_nothing_else(monkeypatch, capsys):
    def refuse(name):
        raise StudyError("no space left on device; free some")

    monkeypatch.setattr(publish, "book", refuse)
    assert main(["book"]) == 1
    assert capsys.readouterr() == ("", "error: no space left on device; free some\n")


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device", "/somewhere"),
        SafetensorError("I/O error: No space left on device\n(os error 28)"),
    ],
)
def test_a_full_disk_is_one_line(monkeypatch, capsys, error):
    def full(name):
        raise error

    monkeypatch.setattr(publish, "book", full)
    assert main(["book"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert "No space left on device" in shown
    assert shown.count("\n") == 1


def test_an_empty_name_of_the_cache_means_the_usual_one_everywhere():
    program = "from lib import assets, study; print(assets.CACHE, study.LOCAL)"
    shown = {
        value: subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PRUNING_CACHE": value, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            capture_output=True,
            text=True,
        ).stdout.split()
        for value in ("", "near")
    }
    assert shown[""] == [f"{ROOT}/data/cache", f"{ROOT}/data/cache/runs"]
    assert shown["near"] == [f"{ROOT}/near", f"{ROOT}/near/runs"]
