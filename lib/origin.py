"""Whose code is this, and on which machine does it run?"""

import platform
import re
import subprocess
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "transformers", "datasets", "accelerate", "numpy")


@lru_cache
def machine() -> dict:
    """Code and machine of this process: commit, versions, device, threads. Read once."""
    import torch

    from lib import devices

    changed = git("status", "--porcelain", "--", "lib", "data/claims")
    return {
        "commit": commit(),
        "dirty": bool(changed) if commit() != "unknown" else None,
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "device": devices.name(devices.device()),
        "threads": torch.get_num_threads(),
    }


def commit() -> str:
    """The commit that is checked out; "unknown" outside a clone, as in a downloaded archive."""
    return git("rev-parse", "HEAD") or "unknown"


def repository() -> str | None:
    """Where readers find this code: the clone's GitHub remote, or None where it has none."""
    remote = git("remote", "get-url", "origin")
    found = re.search(r"github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?$", remote)
    return f"https://github.com/{found[1]}" if found else None


def git(*command: str) -> str:
    """What git says, or "" where it knows nothing (or there is none)."""
    try:
        done = subprocess.run(["git", "-C", ROOT, *command], capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
