"""Does the page on forking hold? A new method is one file, and no other test fails for it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TESTS = {
    "test_pruners.py": "my-method or registry",
    "test_study.py": "(every_method_is_tested and mrpc)",
    "test_figures.py": "look_of_its_own",
}


@pytest.fixture
def fork(tmp_path):
    """A copy of the project with the page's method in it, and an arm for that."""
    for folder in ("lib", "tests", "data/claims"):
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    (tmp_path / "data" / "untested.yaml").write_text("")
    page = (ROOT / "book" / "fork.md").read_text()
    [method] = re.findall(r"```python\n(\"\"\"Title.*?)```", page, re.DOTALL)
    (tmp_path / "lib" / "pruners" / "my_method.py").write_text(method)
    arms = tmp_path / "lib" / "study" / "arms" / "coreset.py"
    row = '    "my-method": ("my-method", {}),\n'
    before, first, after = arms.read_text().partition('    "svd": ')
    arms.write_text(before + row + first + after)
    return tmp_path


@pytest.mark.slow
def test_a_new_method_is_one_file_and_an_arm_a_row(fork):
    paths = os.pathsep.join([str(fork), str(fork / "tests")])
    chosen = " or ".join(TESTS.values())
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-k", chosen, *TESTS],
        cwd=fork / "tests",
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 10  # the contract's, and those two
