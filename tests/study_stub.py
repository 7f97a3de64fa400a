"""A study of three short runs, for test_engine.py: the real engine, with nothing to compute.

It is called as `study_stub.py study [CLUSTER]`, and by the jobs as if it were a Python.
"""

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from snakemake.cli import main as snakemake

import lib
from lib import assets, engine, study
from lib.__main__ import main

FOLDER = Path(os.environ["STUB_FOLDER"])
SPECS = [SimpleNamespace(name=name, teacher="its") for name in ("first", "second", "third")]


def sweeps(profile, chapter=None):
    left = [spec for spec in SPECS if not (FOLDER / spec.name).exists()]
    return [study.Sweep(spec.name, (spec,)) for spec in left]


def obtain(specs, store):
    for spec in specs:
        with open(FOLDER / "log", "a") as log:
            log.write(f"{spec.name} {os.getpid()}\n")
        while "STUB_WAITS" in os.environ and not (FOLDER / "go").exists():
            time.sleep(0.05)
        if spec.name == os.environ.get("STUB_FAILS"):
            raise lib.errors.StudyError("no space left on device")
        (FOLDER / spec.name).touch()


assets.CACHE = FOLDER / "cache"
study.profile = lambda name: SimpleNamespace(name=name, store=None)
study.sweeps = study.missing = sweeps
study.unanswered = lambda profile: []
study.describe_missing = lambda profile: "complete"
lib.execute = SimpleNamespace(obtain=obtain)
sys.executable = str(FOLDER / "python")  # what the jobs are started with
if (FOLDER / "workflow").is_dir():
    engine.SNAKEFILE = FOLDER / "workflow" / "Snakefile"
if sys.argv[2:3] == ["snakemake"]:
    snakemake(sys.argv[3:])
if sys.argv[1] == "study":
    cluster = sys.argv[2:3]
    sys.exit(main(["study", *(["--cluster", *cluster] if cluster else [])]))
sys.exit(main(sys.argv[3:]))
