"""Does a study run each sweep once, alone, and resume however it was stopped?"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lib import assets, engine
from lib import study as plan
from lib.errors import StudyError
from lib.runs import Spec

STUB = Path(__file__).with_name("study_stub.py")
ROOT = STUB.parent.parent


@pytest.fixture
def study(tmp_path):
    """A function that starts the stub's study; everything it started is gone at the end."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STUB}" "$@"\n')
    python.chmod(0o755)
    started = []

    def start(*arguments, **settings):
        process = subprocess.Popen(
            [sys.executable, STUB, "study", *arguments],
            cwd=ROOT,
            env=os.environ | {"STUB_FOLDER": str(tmp_path), "PYTHONPATH": str(ROOT)} | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # a runner in the background ignores ctrl-C, and would hand that on
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.communicate()


def finished(process) -> tuple[int, str]:
    output, errors = process.communicate(timeout=240)
    return process.returncode, errors + output


def runs(folder: Path) -> list[str]:
    log = folder / "log"
    return [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []


def wait_for(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_each_sweep_runs_once_in_order(study, tmp_path):
    assert finished(study())[0] == 0
    assert runs(tmp_path) == ["first", "second", "third"]
    assert finished(study())[0] == 0
    assert runs(tmp_path) == ["first", "second", "third"]


def test_a_failed_sweep_stops_no_other_and_the_next_study_resumes(study, tmp_path):
    status, output = finished(study(STUB_FAILS="second"))
    assert status == 1
    assert "error: no space left on device" in output
    assert "the study stopped with 1 records missing" in output
    assert "Traceback" not in output
    assert finished(study())[0] == 0
    assert runs(tmp_path) == ["first", "second", "third", "second"]


def test_a_second_study_is_refused_in_one_line(study, tmp_path):
    first = study(STUB_WAITS="1")
    wait_for(lambda: runs(tmp_path))
    status, output = finished(study())
    assert status == 1
    assert output.count("\n") == 1
    assert f"process {first.pid}" in output
    (tmp_path / "go").touch()
    assert finished(first)[0] == 0
    assert runs(tmp_path) == ["first", "second", "third"]


def test_a_killed_study_resumes_without_doing_its_orphans_work_again(study, tmp_path):
    first = study(STUB_WAITS="1")
    wait_for(lambda: runs(tmp_path))
    os.kill(first.pid, signal.SIGKILL)
    orphan = int((tmp_path / "log").read_text().split()[1])
    assert psutil.pid_exists(orphan)
    again = study(STUB_WAITS="1")
    assert any(f"waiting for process {orphan}" in line for line in again.stderr)
    (tmp_path / "go").touch()
    status, output = finished(again)
    assert status == 0, output
    assert runs(tmp_path) == ["first", "second", "third"]


def test_ctrl_c_ends_a_study_and_its_jobs(study, tmp_path):
    first = study(STUB_WAITS="1")
    wait_for(lambda: runs(tmp_path))
    os.killpg(first.pid, signal.SIGINT)  # as a terminal sends it
    status, output = finished(first)
    assert status != 0
    assert "Traceback" not in output
    assert not psutil.pid_exists(int((tmp_path / "log").read_text().split()[1]))
    (tmp_path / "go").touch()
    assert finished(study())[0] == 0
    assert runs(tmp_path) == ["first", "first", "second", "third"]


SLURM = {  # as much of it as Snakemake asks for
    "sbatch": (
        'for it; do case "$it" in --wrap=*) job=${it#--wrap=};; esac; last=$it; done\n'
        '[ -n "$job" ] || job=$last\n'
        'echo "$@" >> "$SLURM_FOLDER/submitted"\n'
        '(sh -c "$job" > "$SLURM_FOLDER/$$.log" 2>&1; echo $? > "$SLURM_FOLDER/$$.status")'
        " < /dev/null > /dev/null 2>&1 &\n"
        "echo $$\n"
    ),
    "squeue": (
        'for log in "$SLURM_FOLDER"/*.log; do id=$(basename "$log" .log)\n'
        '  case "$(cat "$SLURM_FOLDER/$id.status" 2>/dev/null)" in\n'
        '    "") echo "$id|RUNNING";; 0) echo "$id|COMPLETED";; *) echo "$id|FAILED";;\n'
        "  esac; done\n"
    ),
    "scontrol": "echo MinJobAge = 300 sec\n",
    "sinfo": "echo main\n",
    "sacct": "echo Slurm accounting storage is disabled >&2; exit 1\n",
    "scancel": "",
    "srun": 'while [ "${1#-}" != "$1" ]; do shift; done; exec "$@"\n',
}


@pytest.mark.slow
def test_a_cluster_runs_every_sweep_as_a_job_of_its_own(study, tmp_path):
    commands, jobs = tmp_path / "bin", tmp_path / "jobs"
    commands.mkdir()
    jobs.mkdir()
    for name, text in SLURM.items():
        (commands / name).write_text(f"#!/bin/sh\n{text}")
        (commands / name).chmod(0o755)
    workflow = shutil.copytree(engine.SNAKEFILE.parent, tmp_path / "workflow")
    with open(workflow / "profiles" / "slurm" / "config.yaml", "a") as profile:
        profile.write("slurm-init-seconds-before-status-checks: 1\n")
    path = f"{commands}:{os.environ['PATH']}"
    status, output = finished(study("slurm", PATH=path, SLURM_FOLDER=str(jobs)))
    logs = [log.read_text() for log in jobs.glob("*.log")]
    assert status == 0, (output, logs)
    assert (jobs / "submitted").read_text().count("--wrap") == 3
    assert runs(tmp_path)[0] == "first"  # its teacher's
    assert sorted(runs(tmp_path)) == ["first", "second", "third"]


def test_an_unknown_cluster_is_refused(study):
    status, output = finished(study("slrum"))
    assert status == 1
    assert output == "error: unknown cluster 'slrum'; did you mean slurm?\n"


def test_a_lock_left_to_an_orphan_is_waited_for(tmp_path, monkeypatch, caplog):
    # The holder's parent dies at once: what `make` killed with -9 leaves behind.
    monkeypatch.setattr(assets, "CACHE", tmp_path)
    code = (
        "import os, sys, time; from pathlib import Path; from lib import assets, engine\n"
        f"assets.CACHE = Path({str(tmp_path)!r})\n"
        "if os.fork(): time.sleep(1.5); os._exit(0)\n"
        "with engine.alone('it'): print('held', flush=True); time.sleep(4)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout.readline() == b"held\n"
        with pytest.raises(StudyError, match="is being computed already"), engine.alone("it"):
            pass
        parent.wait()
        with engine.alone("it"):
            pass
    assert "waiting for process" in caplog.text


def test_a_cluster_gets_one_sweep_of_each_teacher_first():
    def sweep(name: str, task: str, epochs: int) -> plan.Sweep:
        training = {"teacher": {"epochs": epochs}, "sees": None, "after": None}
        return plan.Sweep(name, (Spec("e", task, "m", 1, 0.5, "u", 0, {}, training),))

    sweeps = [sweep("a", "x", 1), sweep("b", "x", 1), sweep("c", "y", 1), sweep("d", "x", 2)]
    first, rest = engine._waves(sweeps)
    assert [it.name for it in first] == ["a", "c", "d"]
    assert [it.name for it in rest] == ["b"]
