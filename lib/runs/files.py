"""How is one record written whole or not at all, once, and read only as it was written?"""

import errno
import json
import os
from contextlib import suppress
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from lib.errors import StudyError
from lib.runs.naming import digest

SEAL = "sha256"  # last field of every record: a digest of the fields before it


def write(record: dict[str, Any], path: Path, replace: bool) -> Path:
    """Whole or not at all: a temporary file beside it, fsync, then the name."""
    try:
        text = json.dumps(record, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise refused(path, f"it cannot be written as JSON ({error})") from error
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(temporary, path)
        else:
            _name_once(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise StudyError(
            f"could not write record {path}: {error.strerror or error}; mend that and run again, "
            "what is on record stays"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    return path


def read(path: Path, kind: type) -> dict[str, Any]:
    """The fields of a record of that dataclass; StudyError where they are not what was written."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise refused(path, f"it cannot be read ({error})") from error
    names = {f.name for f in fields(kind)} | {SEAL}
    needed = {f.name for f in fields(kind) if f.default_factory is MISSING} | {SEAL}
    if not isinstance(record, dict) or not needed <= set(record) <= names:
        wrong = type(record).__name__
        if isinstance(record, dict):
            wrong = sorted((needed - set(record)) | (set(record) - names))
        raise refused(path, f"missing or foreign fields: {wrong}")
    seal = record.pop(SEAL)
    try:
        same = digest(record) == seal
    except StudyError as error:
        raise refused(path, str(error)) from error
    if not same:
        raise refused(path, "its contents do not match its own sha256: it was edited")
    return record


def record_of(value: Any) -> dict[str, Any]:
    """The fields of a dataclass, without the optional ones that are empty, and their seal."""
    optional = {f.name for f in fields(value) if f.default_factory is not MISSING}
    record = {n: v for n, v in asdict(value).items() if v or n not in optional}
    return record | {SEAL: digest(record)}


def files_in(folder: Path) -> list[Path]:
    """Every record below a folder, in the order of their paths."""
    return sorted(path for path in folder.rglob("*.json") if not path.name.startswith("."))


def refused(path: Path, why: str) -> StudyError:
    """The error to raise of a record that cannot be trusted."""
    return StudyError(f"record {path}: {why}; remove the file or restore it, then run again")


def _name_once(temporary: Path, path: Path) -> None:
    """Give the file its name unless the name is taken; a link does both at once."""
    taken = f"record {path} exists already; a record is never written over"
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        raise StudyError(taken) from error
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        if path.exists():  # a file system without hard links: two steps
            raise StudyError(taken) from error
        os.rename(temporary, path)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
