"""How does the book come about: chapters executed, tables generated, pages built and checked?"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import nbformat
import pandas as pd
import yaml

from lib import assets, claims, origin, study
from lib.book import chapters, pages
from lib.errors import StudyError

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
HTML = BOOK / "_build" / "html"
MADE = ("chapters", "_generated", "_static/data", "_build")  # in BOOK, ignored by git
SOURCES = ("lib/**/*.py", "data/claims/*", "data/untested.yaml", "requirements.lock")


def book(profile: str) -> Path:
    """Build the book of a profile from its records and return its first page.

    What has not changed since the last build is not executed again; a missing record that is not
    marked untested is an error that names it.
    """
    _require_records(profile)
    inputs = _digest(_inputs(profile), [profile, origin.repository(), origin.commit()])
    stamp = HTML.parent / "inputs"
    if (HTML / "index.html").is_file() and stamp.is_file() and stamp.read_text() == inputs:
        return HTML / "index.html"
    folders = {name: _executed(name, profile) for name in chapters.names()}
    stamp.unlink(missing_ok=True)
    _lay_out(folders)
    seconds = {name: _seconds(folder / f"{name}.ipynb") for name, folder in folders.items()}
    pages.write(BOOK / "_generated", profile, seconds)
    _build()
    stamp.write_text(inputs)
    return HTML / "index.html"


def ledger(profile: str) -> pd.DataFrame:
    """Every finding of a profile, one a row."""
    return claims.table(claims.findings(profile))


# --- what a build rests on ------------------------------------------------------------------------


def _executed(name: str, profile: str) -> Path:
    """The folder of a chapter of the book; executed anew if anything it rests on has changed."""
    folder = assets.CACHE / "chapters" / f"{profile}-{name}"
    inputs = _digest([chapters.NOTEBOOKS / f"{name}.ipynb", *_records(profile), *_sources()])
    key = folder / "inputs"
    if not key.is_file() or key.read_text() != inputs:
        chapters.execute(name, {"profile": profile}, folder)
        key.write_text(inputs)
    return folder


def _seconds(path: Path) -> float:
    return nbformat.read(path, as_version=4).metadata["papermill"]["duration"]


def _require_records(profile: str) -> None:
    """StudyError that names the first record which is missing and not marked untested."""
    lost = [cell.spec for cell in study.cells(profile) if cell.status == "missing"]
    store = study.profile(profile).store
    if lost:
        raise StudyError(
            f"the {profile} book lacks {len(lost)} records, first {store.path(lost[0])} "
            f"({lost[0].label}); compute them with `make study PROFILE={profile}` or mark them "
            "in data/untested.yaml"
        )
    marked = study.excused(profile)
    if asked := [question for question in study.unanswered(profile) if question not in marked]:
        raise StudyError(
            f"the {profile} book lacks {len(asked)} answers, first {store.folder / asked[0].file} "
            f"({asked[0].label}); compute them with `make study PROFILE={profile}` or mark them "
            "in data/untested.yaml"
        )
    if unknown := study.untimed(profile):
        raise StudyError(
            f"the {profile} book lacks {len(unknown)} timings, first of {unknown[0].encoder} under "
            f"{unknown[0].protocol}; measure them with `make timings PROFILE={profile}`"
        )


def _inputs(profile: str) -> list[Path]:
    prose = [
        path
        for path in BOOK.rglob("*")
        if path.is_file() and not any(path.is_relative_to(BOOK / made) for made in MADE)
    ]
    return [*prose, *chapters.NOTEBOOKS.glob("*.ipynb"), *_records(profile), *_sources()]


def _records(profile: str) -> Iterable[Path]:
    return Path(study.profile(profile).store.folder).rglob("*.json")


def _sources() -> list[Path]:
    return [path for pattern in SOURCES for path in ROOT.glob(pattern)]


def _digest(files: Iterable[Path], more: object = None) -> str:
    """sha256 of names and contents, and of anything JSON holds."""
    total = hashlib.sha256(json.dumps(more).encode())
    for path in sorted(files):
        total.update(f"{path}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


# --- pages ----------------------------------------------------------------------------------------


def _lay_out(folders: Mapping[str, Path]) -> None:
    """Put the executed chapters and their figures' data where the book expects them."""
    pages_, data = BOOK / "chapters", BOOK / "_static" / "data"
    for made in (pages_, data):
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
    for name, folder in folders.items():
        shutil.copytree(folder / "data", data, dirs_exist_ok=True)
        notebook = nbformat.read(folder / f"{name}.ipynb", as_version=4)
        if origin.repository():
            notebook.cells.insert(1, nbformat.v4.new_markdown_cell(_launch(name)))
        nbformat.write(notebook, pages_ / f"{name}.ipynb")


def _launch(name: str) -> str:
    """Links that open the chapter's source; only a clone with a remote has any."""
    where = origin.repository()
    path = f"notebooks/{name}.ipynb"
    binder = where.replace("https://github.com/", "https://mybinder.org/v2/gh/")
    return (
        f"[Run it on Binder]({binder}/HEAD?urlpath={quote(f'lab/tree/{path}', safe='')}) · "
        f"[The notebook]({where}/blob/HEAD/{path})"
    )


def _build() -> None:
    """Run Jupyter Book; the book that stands is replaced only by one without a warning."""
    built = assets.CACHE / "book"
    shutil.rmtree(built, ignore_errors=True)
    built.mkdir(parents=True)
    command = [Path(sys.executable).with_name("jupyter-book"), "build", BOOK, "-W", "--keep-going"]
    command += ["--path-output", built, "--config", _configuration(built)]
    print("building the pages ...", file=sys.stderr, flush=True)
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"NO_COLOR": "1"},
    )
    report = built / "report.txt"
    report.write_text(done.stdout)
    if done.returncode:
        first = re.search(r"^.*(?:WARNING|ERROR|Error).*$", done.stdout, re.MULTILINE)
        why = first[0].strip() if first else done.stdout.strip().splitlines()[-1]
        raise StudyError(f"the book does not build: {why}; read {report}")
    html = built / "_build" / "html"
    _offline(html)
    shutil.rmtree(HTML, ignore_errors=True)
    HTML.parent.mkdir(exist_ok=True)
    shutil.move(html, HTML)


def _configuration(folder: Path) -> Path:
    """book/_config.yml, with the repository's buttons where there is a repository."""
    configuration = yaml.safe_load((BOOK / "_config.yml").read_text())
    if origin.repository():
        configuration["repository"] = {"url": origin.repository(), "path_to_book": "book"}
        configuration["html"] |= {"use_repository_button": True, "use_issues_button": True}
    path = folder / "_config.yml"
    path.write_text(yaml.safe_dump(configuration))
    return path


def _offline(html: Path) -> None:
    """Make every page readable without a network: MathJax at home, nothing from elsewhere."""
    carrier = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
    for part in ("tex-chtml-full.js", "output/chtml/fonts/woff-v2"):
        target = html / "_static" / "mathjax" / part
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (carrier / part).is_dir() else shutil.copyfile
        copy(carrier / part, target)
    for page in html.rglob("*.html"):
        text = re.sub(r"<script[^>]*?>[^<]*THEBE_JS_URL[^<]*</script>", "", page.read_text())
        text = re.sub(r"<script[^>]*sphinx-thebe\.js[^>]*></script>", "", text)
        page.write_text(text)
        for tag in re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", text):
            if re.search(r"""(?:src|href)=["']?(?:https?:)?//""", tag) and "canonical" not in tag:
                raise StudyError(f"{page.relative_to(html)} loads from elsewhere: {tag}; host it")
