"""Does a book hold what was executed and recorded, all of it, and nothing that failed?"""

import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import made
import nbformat
import pytest

from lib import assets, claims, origin, study
from lib.book import chapters, pages, publish
from lib.claims import Cell, Claim, Finding, Source, Verdict
from lib.errors import StudyError
from lib.runs import Store

PAGES = {
    "_toc.yml": "format: jb-book\nroot: index\nchapters:\n- file: chapters/tiny\n",
    "references.bib": "",
    "index.md": (
        "# Tiny\n\n```{include} _generated/verdicts.md\n```\n\n"
        "```{include} _generated/environment.md\n```\n\n$$\na^2\n$$\n"
    ),
}
CODE = """
import os, sys
from pathlib import Path
from tqdm import tqdm
if fail:
    raise ValueError("a missing\\nrecord")
folder = Path(os.environ["PRUNING_FIGURES"])
(folder / "tiny.csv").write_text(f"profile\\n{profile}\\n")
for _ in tqdm(range(3)):
    pass
print("profile", profile, "seeds", seeds)
"""


def notebook(code: str = CODE) -> nbformat.NotebookNode:
    v4 = nbformat.v4
    parameters = v4.new_code_cell('profile = "none"\nseeds = 1\nfail = False')
    parameters.metadata["tags"] = ["parameters", "remove-input"]
    cells = [v4.new_markdown_cell("# Tiny chapter"), parameters, v4.new_code_cell(code)]
    kernel = {"name": "another", "display_name": "Another", "language": "python"}
    return v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A book of one page and one chapter, on no records, in a folder of its own."""
    book, notebooks, store = (tmp_path / name for name in ("book", "notebooks", "runs"))
    for folder in (book, notebooks, store):
        folder.mkdir()
    for name, text in PAGES.items():
        (book / name).write_text(text)
    shutil.copy(publish.BOOK / "_config.yml", book)
    shutil.copytree(
        publish.BOOK / "_static", book / "_static", ignore=shutil.ignore_patterns("data")
    )
    nbformat.write(notebook(), notebooks / "tiny.ipynb")
    monkeypatch.setattr(publish, "BOOK", book)
    monkeypatch.setattr(publish, "HTML", book / "_build" / "html")
    monkeypatch.setattr(publish, "SOURCES", ())
    monkeypatch.setattr(chapters, "NOTEBOOKS", notebooks)
    monkeypatch.setattr(assets, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(study, "CHAPTERS", {})
    monkeypatch.setattr(
        study, "profile", lambda name: SimpleNamespace(name=name, store=Store(store))
    )
    monkeypatch.setattr(study, "cells", lambda name: [])
    monkeypatch.setattr(claims, "findings", lambda name: [FINDING])
    monkeypatch.setattr(origin, "git", lambda *command: "")
    return tmp_path


CLAIM = Claim(
    chapter="tiny",
    file="tiny",
    key="tiny.claim",
    figure="tiny-chapter",
    source=Source("A talk", "Slide <3>"),
    text="Small & fast",
    original={"encoder": "e", "task": "t"},
    tolerance={0.9: 0.005, 0.3: 0.0},
)
CELLS = (
    Cell(0.9, "below", 0.02, None, None, 0.0123456, -0.01, 0.03, 5, Verdict.REPRODUCED),
    Cell(0.3, "above", 0.05, None, None, None, None, None, 0, Verdict.UNTESTED),
)
FINDING = Finding(
    CLAIM, "minilm-l6", "mr", "drop", CELLS, Verdict.PARTLY, "replication", "1 of 2 runs on record"
)


def forbid(*_, **__):
    raise AssertionError("this should not have run")


def test_a_book_is_built_once_and_again_only_for_a_change(project, monkeypatch):
    import papermill

    page = publish.book("quick")
    chapter = (page.parent / "chapters" / "tiny.html").read_text()
    assert "profile quick seeds 1" in chapter
    assert 'profile = "quick"' not in chapter, "the injected cell shows"
    assert "100%|" not in chapter, "a progress bar shows"
    assert "tiny.claim" in page.read_text()
    assert (page.parent / "_static/mathjax/tex-chtml-full.js").is_file()
    assert len(list((page.parent / "_static/mathjax").rglob("*.woff"))) > 20
    assert (page.parent / "_static/data/tiny.csv").read_text() == "profile\nquick\n"
    assert "unpkg" not in chapter
    assert str(project) not in json.dumps(
        [path.read_text() for path in page.parent.rglob("*.ipynb")]
    )

    monkeypatch.setattr(papermill, "execute_notebook", forbid)
    with monkeypatch.context() as patch:
        patch.setattr(publish, "_build", forbid)
        assert publish.book("quick") == page

    with open(project / "book" / "index.md", "a") as prose:
        prose.write("\nA new sentence.\n")
    assert "A new sentence." in publish.book("quick").read_text()  # nothing was executed

    (project / "runs" / "new.json").write_text("{}")
    monkeypatch.setattr(study, "untimed", lambda profile: [])
    with pytest.raises(AssertionError, match="should not have run"):  # a record is an input
        publish.book("quick")


def test_a_warning_fails_the_build_and_the_book_that_stands_stays(project):
    html = publish.HTML
    html.mkdir(parents=True)
    (html / "index.html").write_text("the last good book")
    with open(project / "book" / "index.md", "a") as prose:
        prose.write("\n[nowhere](nowhere.md)\n")
    for _ in range(2):  # a second try must not pass because pages were read before
        with pytest.raises(StudyError, match=r"the book does not build: .*nowhere.*; read \S+"):
            publish.book("quick")
    assert (html / "index.html").read_text() == "the last good book"


def test_a_failed_notebook_is_kept_aside_and_stays_out_of_the_book(project):
    done = chapters.execute("tiny", {}, project / "out")
    assert (done / "data" / "tiny.csv").is_file()
    with pytest.raises(StudyError) as caught:
        chapters.execute("tiny", {"fail": True}, project / "out")
    assert "\n" not in str(caught.value)
    aside = assets.CACHE / "failed" / "tiny.ipynb"
    assert str(caught.value) == f"tiny: a missing record; read {aside}"
    assert "a missing" in aside.read_text()
    assert '"ename"' in aside.read_text()
    assert '"ename"' not in (done / "tiny.ipynb").read_text()
    assert sorted(path.name for path in project.iterdir() if path.name.startswith(".")) == []


def test_an_unknown_chapter_or_parameter_fails_before_anything_runs(project, monkeypatch):
    import papermill

    monkeypatch.setattr(papermill, "execute_notebook", forbid)
    with pytest.raises(StudyError, match="unknown chapter 'tony'; did you mean tiny"):
        chapters.fork("tony", {})
    with pytest.raises(StudyError, match="unknown parameter of the notebook tiny 'seed'; did you"):
        chapters.fork("tiny", {"seed": 3})


def test_a_fork_is_executed_with_its_parameters_and_leaves_the_book_alone(project):
    made = chapters.fork("tiny", {"seeds": 3, "profile": "my/own"})
    assert "seeds 3" in made.read_text()
    assert made.is_relative_to(assets.CACHE)
    assert not (project / "book" / "chapters").exists()
    assert not (project / "book" / "_static" / "data").exists()


def test_a_fork_is_computed_and_timed_before_its_notebook_runs(monkeypatch):
    """Else a reader's own encoder would stay untimed: `make timings` knows the profiles alone."""
    from lib import execute
    from lib.measures import timings

    taken = []
    monkeypatch.setattr(execute, "obtain", lambda specs, store: taken.append(len(specs) > 0))
    monkeypatch.setattr(execute, "answer", lambda asked, store: taken.append("answers"))
    monkeypatch.setattr(study, "untimed", lambda p, named: named)
    monkeypatch.setattr(timings, "measure", lambda p, chapters: taken.append((p.task, chapters)))
    monkeypatch.setattr(chapters, "execute", lambda *given: taken.append("notebook") or given[-1])
    chapters.fork("coreset", {"task": "cola"})
    assert taken == [True, "answers", ("cola", ("coreset",)), "notebook"]
    taken.clear()
    chapters.fork("coreset", {"profile": "published"})  # its records are the study's
    assert taken == ["notebook"]


def test_settings_of_a_command_line_become_parameters():
    texts = [
        "task=csv:a,b.csv",
        "encoder=2024",
        "seeds=3",
        "budgets=.9,0.5",
        "lr=2e-5",
        "name=true",
    ]
    assert chapters.settings(texts) == {
        "task": "csv:a,b.csv",
        "encoder": "2024",
        "seeds": 3,
        "budgets": [0.9, 0.5],
        "lr": 2e-5,
        "name": "true",
    }
    assert chapters.settings(["budgets=.5"]) == {"budgets": [0.5]}
    with pytest.raises(StudyError, match="wanted NAME=VALUE, got 'seeds'"):
        chapters.settings(["seeds"])


def test_a_missing_record_is_named_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(chapters, "execute", forbid)
    empty = study.Profile("tiny", tmp_path, "minilm-l6", "mr", quick=True)
    monkeypatch.setitem(study.PROFILES, "tiny", empty)
    with pytest.raises(StudyError, match=r"lacks \d+ records, first \S+-s0-[0-9a-f]{16}\.json"):
        publish.book("tiny")


def test_a_missing_timing_is_named_before_anything_runs(project, monkeypatch):
    monkeypatch.setattr(chapters, "execute", forbid)
    clocked = study.Clocked("minilm-l6", {"hidden": 8}, {"batch": 1, "length": 16})
    monkeypatch.setattr(study, "CHAPTERS", {"tiny": {}})
    monkeypatch.setattr("lib.study.clocks.timings", lambda chapter, name, runs: [clocked])
    with pytest.raises(
        StudyError, match=r"lacks 1 timings, first of minilm-l6 under .*'length': 16"
    ):
        publish.book("quick")


@pytest.mark.parametrize(
    "tag",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/a.css">',
        "<img alt='' src=http://example/x.png>",
    ],
)
def test_a_page_that_loads_from_elsewhere_is_refused(tmp_path, tag):
    (tmp_path / "page.html").write_text(f"<html>{tag}</html>")
    with pytest.raises(StudyError, match=r"page\.html loads from elsewhere"):
        publish._offline(tmp_path)


@pytest.mark.parametrize(
    "remote", ["git@github.com:some.one/a-fork.git", "https://github.com/some.one/a-fork"]
)
def test_a_clone_with_a_remote_shows_its_buttons_and_they_lead_to_real_files(
    project, monkeypatch, remote
):
    monkeypatch.setattr(origin, "git", lambda *command: remote)
    assert origin.repository() == "https://github.com/some.one/a-fork"
    folder = chapters.execute("tiny", {}, project / "out")
    publish._lay_out({"tiny": folder})
    links = nbformat.read(publish.BOOK / "chapters" / "tiny.ipynb", 4).cells[1].source
    binder, source = re.findall(r"\((https://[^)]+)\)", links)
    assert binder == (
        "https://mybinder.org/v2/gh/some.one/a-fork/HEAD?urlpath=lab%2Ftree%2Fnotebooks%2Ftiny.ipynb"
    )
    assert source == "https://github.com/some.one/a-fork/blob/HEAD/notebooks/tiny.ipynb"
    configuration = publish._configuration(project).read_text()
    assert "url: https://github.com/some.one/a-fork" in configuration


def test_a_clone_without_a_remote_shows_none(project):
    assert origin.repository() is None
    assert "github.com" not in publish._configuration(project).read_text()


def test_the_first_page_opens_with_what_each_talk_is_known_for(monkeypatch):
    known = {claim.key for claim in claims.load()}
    assert set(pages.HEADLINES) <= known
    assert {key.split(".")[0] for key in pages.HEADLINES} == {
        *("coreset", "cofi", "kcm", "token", "cost")
    }
    monkeypatch.setattr(pages, "HEADLINES", (FINDING.claim.key, "tiny.none"))
    lost = replace(FINDING, encoder="first", verdict=claims.Verdict.UNTESTED)
    failed = replace(FINDING, encoder="second", verdict=claims.Verdict.NOT_REPRODUCED)
    table = pages.brief("quick", [lost, failed, FINDING])  # what was tested first, not what is best
    assert table.count("<tr>") == 2
    assert 'class="verdict not-reproduced"' in table
    assert "second, " in table
    assert "- [How" not in table
    assert 'class="verdict untested"' in pages.brief("quick", [lost])


def test_the_dashboard_shows_every_cell_escaped_and_linked():
    table = pages.dashboard("quick", [FINDING])
    assert "1 findings on what the talks and their papers state: 1 partly." in table
    assert "of our own" not in table
    assert "Small &amp; fast" in table
    assert "Slide &lt;3&gt;" in table
    assert "<small>drop</small><div>0.9: under 0.02 + 0.005</div><div>0.3: over 0.05</div>" in table
    assert "<div>0.012 [-0.010, 0.030]</div><div>-</div>" in table
    assert 'class="verdict partly"\nhref="chapters/tiny.html#tiny-chapter"' in table
    assert "1 of 2 runs on record" in table


def test_the_environment_page_names_every_teacher():
    p = study.profile("quick")
    runs = [made.run(s) for s in study.specs("coreset", p, "headline")[:3]]
    other = replace(runs[0], provenance=runs[0].provenance | {"sha256": {"teacher": "f" * 64}})
    own = "minilm-l6 on mr `minilm-l6m`"
    assert pages._teachers(runs) == own
    assert pages._teachers([*runs, other]) == f"{own} (3), minilm-l6 on mr `{'f' * 10}` (1)"
