"""How does a whole study run: sweep after sweep, one study at a time, resumed where it stopped?"""

import fcntl
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from lib import assets, study
from lib.errors import StudyError, unknown

ROOT = Path(__file__).resolve().parent.parent
SNAKEFILE = ROOT / "workflow" / "Snakefile"

log = logging.getLogger(__name__)


def run(profile: str, cluster: str | None = None) -> None:
    """Compute every missing run of a profile through Snakemake, one job a sweep.

    What is on record is never computed again. On a `cluster` one sweep of each teacher goes first,
    so that the others find the teacher ready instead of training it once each.
    """
    configuration = _configuration(cluster)
    threads = 1 if cluster else os.cpu_count()  # a cluster's profile says how many a job gets
    with alone(f"{study.profile(profile).name} study"):
        sweeps = study.sweeps(profile)
        for wave in _waves(sweeps) if cluster else [sweeps]:
            if wave and not _snakemake(configuration, profile, threads, [it.name for it in wave]):
                left = len(study.missing(profile)) + len(study.unanswered(profile))
                raise StudyError(
                    f"the study stopped with {left} records missing, for the reason above; "
                    "run the same command again to resume"
                )


def sweep(profile: str, name: str) -> None:
    """Compute what is missing of one sweep; the body of a Snakemake job.

    A killed study can leave the process of its sweep behind: then wait for it and do what is left.
    """
    with alone(f"{study.profile(profile).name} sweep {name}", patient=True):
        here = [it for it in study.sweeps(profile) if it.name == name]
        if not here:
            log.warning("nothing is missing of the sweep %s, if there is one of that name", name)
            return
        from lib import execute  # torch: only where it is needed

        store = study.profile(profile).store
        for it in here:
            execute.obtain(it.specs, store)
            if it.questions:
                execute.answer(it.questions, store)


@contextmanager
def alone(name: str, patient: bool = False) -> Iterator[None]:
    """Hold the lock `name`, which dies with this process, however it dies.

    If another process holds it, raise - unless that process was left behind when its parent was
    killed, or we are `patient`: then wait for its work to finish, rather than do it twice.
    """
    path = assets.CACHE / "locks" / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(path)
            who = f"process {holder.get('pid', 'unknown')}"
            if not (patient or _orphaned(holder)):
                raise StudyError(
                    f"the {name} is being computed already, by {who}; wait for it or end it"
                ) from None
            log.warning("waiting for %s, which is computing the %s", who, name)
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "parent": os.getppid()}))
        file.flush()
        yield


def _holder(path: Path) -> dict[str, int]:
    try:
        return json.loads(path.read_text())
    except ValueError:
        return {}  # caught between truncation and writing


def _orphaned(holder: dict[str, int]) -> bool:
    """True if the parent of the lock's holder has gone."""
    try:
        return psutil.Process(holder["pid"]).ppid() != holder["parent"]
    except (KeyError, psutil.NoSuchProcess):
        return False


def _configuration(cluster: str | None) -> Path:
    """The Snakemake profile for this machine or a cluster."""
    profiles = SNAKEFILE.parent / "profiles"
    known = sorted(path.name for path in profiles.iterdir() if path.is_dir())
    if (cluster or "local") not in known:
        raise unknown("cluster", cluster, known)
    return profiles / (cluster or "local")


def _waves(sweeps: Sequence[study.Sweep]) -> tuple[list[study.Sweep], list[study.Sweep]]:
    """One sweep for each teacher, then all others."""
    first = {}
    for it in (it for it in sweeps if it.specs):
        first.setdefault(it.specs[0].teacher, it)
    return list(first.values()), [it for it in sweeps if it not in first.values()]


def _snakemake(configuration: Path, profile: str, threads: int, sweeps: list[str]) -> bool:
    """Run Snakemake in this process, so that the lock and the scheduler die together."""
    from snakemake.cli import main

    command = ["--snakefile", SNAKEFILE, "--directory", ROOT, "--profile", configuration]
    command += ["--config", f"profile={profile}", f"threads={threads}"]
    command += [f"sweeps={json.dumps(sweeps)}", "--", *sweeps]
    try:
        main([str(word) for word in command])
    except SystemExit as stop:
        return stop.code in (None, 0)
    return True
