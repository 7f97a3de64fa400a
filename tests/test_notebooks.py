"""Are the notebooks narrow, free of outputs and typed numbers, and do they run on any store?"""

import ast
import os
import re
from dataclasses import replace
from pathlib import Path

import made
import nbformat
import numpy as np
import pytest

from lib import assets, bench, claims, study
from lib.book import chapters
from lib.errors import StudyError

NOTEBOOKS = {path.stem: path for path in sorted(chapters.NOTEBOOKS.glob("*.ipynb"))}
PARAMETERS = {"profile", "encoder", "task", "seeds", "budgets"}
each = pytest.mark.parametrize("name", NOTEBOOKS)


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOKS[name], as_version=4)


def code(name: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(name).cells if cell.cell_type == "code"]


def prose(name: str) -> str:
    return "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "markdown")


def figures_of(name: str) -> dict[str, nbformat.NotebookNode]:
    """Cells that show a figure, by its label."""
    found = [cell for cell in code(name) if "figure" in cell.metadata.get("mystnb", {})]
    return {cell.metadata["mystnb"]["figure"]["name"]: cell for cell in found}


def plain(source: str) -> str:
    return "\n".join(line for line in source.splitlines() if not line.startswith("%"))


# --- as committed ---------------------------------------------------------------------------------


def test_every_chapter_of_the_study_has_a_notebook():
    assert set(NOTEBOOKS) == set(study.CHAPTERS)


@each
def test_a_notebook_is_committed_without_outputs(name):
    nbformat.validate(read(name))
    for cell in code(name):
        assert cell.outputs == []
        assert cell.execution_count is None
    assert read(name).metadata["kernelspec"]["name"] == "python3"


@each
def test_a_notebook_begins_with_its_title_and_its_parameters(name):
    cells = read(name).cells
    assert cells[0].cell_type == "markdown"
    assert cells[0].source.startswith("# ")
    assert "parameters" in cells[1].metadata["tags"]
    tree = ast.parse(cells[1].source)
    assert {node.targets[0].id for node in tree.body} == PARAMETERS
    assert sum("parameters" in cell.metadata["tags"] for cell in code(name)) == 1


@each
def test_a_notebook_defines_nothing(name):
    defining = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    for cell in code(name):
        nodes = list(ast.walk(ast.parse(plain(cell.source))))
        assert not [node for node in nodes if isinstance(node, defining)]
        assert len(plain(cell.source).splitlines()) <= 12


@each
def test_the_prose_has_no_measured_numbers_in_it(name):
    text = re.sub(r"\{glue:text\}`[^`]*`", "", prose(name))
    assert not re.findall(r"\d+\.\d{2,}|\d+(?:\.\d+)? ?%|\d+\.?\d*x\b", text)


@each
def test_every_figure_has_a_caption_an_alternative_text_and_its_data(name):
    found = figures_of(name)
    for label, cell in found.items():
        options = cell.metadata["mystnb"]
        assert f"(../_static/data/{label}.csv)" in options["figure"]["caption"]
        assert len(options["image"]["alt"]) > 20
        assert f'figures.save(figure, table, "{label}")' in cell.source
    drawn = [cell for cell in code(name) if "figures." in plain(cell.source)]
    assert len(drawn) == len(found)


def test_every_claim_s_figure_stands_in_its_chapter():
    for claim in claims.load():
        assert claim.figure in figures_of(claim.chapter), claim.key


def test_labels_are_unique_across_the_book():
    labels = [label for name in NOTEBOOKS for label in figures_of(name)]
    assert len(labels) == len(set(labels))


def test_every_citation_has_an_entry_in_the_bibliography():
    book = chapters.NOTEBOOKS.parent / "book"
    entries = set(re.findall(r"^@\w+\{(\w+),", (book / "references.bib").read_text(), re.M))
    pages = [path.read_text() for path in book.glob("*.md")]
    cited = set(re.findall(r"\{cite\}`(\w+)`", "\n".join([*map(prose, NOTEBOOKS), *pages])))
    assert cited <= entries


# --- run ------------------------------------------------------------------------------------------


@pytest.fixture
def quick(tmp_path, monkeypatch) -> study.Profile:
    """The quick profile on a store of made records and timings, in a folder of its own."""
    profile = replace(study.PROFILES["quick"], folder=tmp_path / "runs")
    monkeypatch.setitem(study.PROFILES, "quick", profile)
    specs = [spec for chapter in study.CHAPTERS for spec in study.specs(chapter, profile)]
    runs = [made.run(spec, examples=200) for spec in dict.fromkeys(specs)]
    for run in runs:
        profile.store.put(run)
    for timing in made.timings(runs):
        profile.store.put_timing(timing)
    for chapter in study.CHAPTERS:
        for question in study.questions(chapter, profile):
            profile.store.put_probe(made.probe(question))
    monkeypatch.setenv("PRUNING_FIGURES", str(tmp_path / "data"))
    return profile


def played(name: str, **parameters: object) -> dict:
    """Run a notebook's cells in this process; its names, and what it glued, come back."""
    glued: dict[str, object] = {}
    names: dict = {}
    for cell in code(name):
        source = plain(cell.source).replace("from myst_nb import glue", "")
        if "parameters" in cell.metadata["tags"]:
            source += "".join(f"\n{key} = {value!r}" for key, value in parameters.items())
        names["glue"] = lambda key, value, display=True: glued.update({key: value})
        exec(compile(source, name, "exec"), names)
    return names | {"glued": glued}


@each
def test_a_notebook_reads_a_whole_store_and_computes_nothing(name, quick, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "perform", lambda *_: pytest.fail("a run was computed"))
    names = played(name)
    quoted = set(re.findall(r"\{glue:text\}`([^`]+)`", prose(name)))
    assert quoted <= set(names["glued"])
    saved = {path.stem for path in (tmp_path / "data").glob("*.csv")}
    assert saved == set(figures_of(name))
    assert names["glued"]["profile"] == "quick"


def test_a_fork_of_the_coreset_chapter_draws_what_its_claims_are_judged_in(quick, monkeypatch):
    monkeypatch.setattr(study, "LOCAL", quick.folder)
    fork = study.profile("quick", task="cola")
    for spec in study.specs("coreset", fork):
        fork.store.put(made.run(spec, examples=200))
    names = played("coreset", task="cola")
    assert {run.per_example["metric"] for run in names["here"]} == {"accuracy"}
    dense = names["here"][0].dense
    assert names["glued"]["dense"] == f"{dense['scores']['accuracy']:.4f}"


@each
def test_a_missing_record_that_is_not_marked_is_an_error_that_names_it(name, quick):
    spec = study.specs(name, quick)[-1]
    quick.store.path(spec).unlink()
    with pytest.raises(StudyError, match=spec.key):
        played(name)


def test_a_record_that_is_marked_untested_is_done_without(quick, tmp_path, monkeypatch):
    marks = tmp_path / "untested.yaml"
    marks.write_text(
        "- {select: {group: [grid, full_model, fine_tuned]}, why: no time}\n"
        "- {select: {method: unstructured}, why: no time}\n"
    )
    monkeypatch.setattr(study, "UNTESTED", marks)
    lost = [cell.spec for cell in study.cells(quick) if cell.group != "headline"]
    kept = {spec for spec in lost if spec.method in ("dense", "gradient")}
    for spec in {*lost, *study.specs("coreset", quick, "headline")} - kept:
        if spec in lost or spec.method == "unstructured":
            quick.store.path(spec).unlink()
    for timing in (quick.folder / "timings").rglob("*.json"):
        timing.unlink()
    names = played("coreset")
    assert names["glued"]["verdict-coreset.time"] == "untested"
    assert names["glued"]["ours-ft-0.5"] == "untested"
    assert "untested" not in names["glued"]["ours-0.5"]
    played("anatomy")


def test_a_missing_answer_is_an_error_that_names_it_unless_it_is_marked(
    quick, tmp_path, monkeypatch
):
    [question] = [q for q in study.questions("kcm", quick) if q.name == "hull"]
    (quick.folder / question.file).unlink()
    with pytest.raises(StudyError, match=question.key):
        played("kcm")
    marks = tmp_path / "untested.yaml"
    marks.write_text("- {select: {question: [hull]}, why: no time}\n")
    monkeypatch.setattr(study, "UNTESTED", marks)
    glued = played("kcm")["glued"]
    assert glued["verdict-kcm.hull"] == glued["hull-facets"] == "untested"
    assert glued["vision-dense"] != "untested"


def test_an_unknown_profile_is_refused(quick):
    with pytest.raises(StudyError, match="unknown profile 'qick'; did you mean quick"):
        played("anatomy", profile="qick")


@pytest.fixture
def tiny(tmp_path, monkeypatch, make_classifier, digits) -> dict[str, object]:
    """A tiny random encoder in a folder and a task of the reader's own, to run for real."""
    encoder = tmp_path / "tiny"
    make_classifier("bert", 2).bert.save_pretrained(encoder)
    digits.save_pretrained(encoder)
    draw = np.random.default_rng(0)
    rows = ["text,label"]
    for number in range(160):
        label, start = ("good", 5) if number % 2 else ("bad", 25)
        words = draw.integers(start, start + 20, draw.integers(3, 9))
        rows.append(" ".join(f"t{word}" for word in words) + f",{label}")
    (tmp_path / "reviews.csv").write_text("\n".join(rows))
    for variable, folder in (("PRUNING_CACHE", "cache"), ("PYTHONPATH", None)):
        value = str(tmp_path / folder) if folder else str(chapters.NOTEBOOKS.parent)
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    monkeypatch.setattr(assets, "CACHE", tmp_path / "cache")
    return {"encoder": str(encoder), "task": f"csv:{tmp_path / 'reviews.csv'}"}


@pytest.mark.slow
@each
def test_a_notebook_runs_under_papermill_on_a_tiny_random_encoder(name, tiny, tmp_path):
    """All of it: teacher, pruners, fine-tuning, records, figures; for a fork nothing is timed."""
    settings = tiny | {"budgets": [0.5 if name != "kcm" else 0.8], "seeds": 1}
    folder = chapters.execute(name, settings, tmp_path / name)
    notebook = nbformat.read(folder / f"{name}.ipynb", as_version=4)
    assert {path.stem for path in (folder / "data").iterdir()} == set(figures_of(name))
    shown = [cell for cell in notebook.cells if "figure" in cell.metadata.get("mystnb", {})]
    for cell in shown:
        [output] = [it for it in cell.outputs if "image/svg+xml" in it.get("data", {})]
        assert "<svg" in output["data"]["image/svg+xml"]
    records = Path(tmp_path / "cache" / "runs").rglob("*.json")
    asked = [*study.specs(name, "quick", **settings), *study.questions(name, "quick", **settings)]
    assert len(list(records)) == len(asked)
