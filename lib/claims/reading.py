"""What do the claims files say? Each is data/claims/<chapter>.yaml.

Claims that come once a chapter has runs stand in another, <chapter>-<word>.yaml: a record carries
the hash of each file, and what it was held against stays as it was.
"""

import hashlib
from pathlib import Path
from typing import Any

import yaml

from lib import study
from lib.claims.checks import by_cell, check
from lib.claims.claim import Claim, Source
from lib.errors import StudyError, unknown

FOLDER = study.DATA / "claims"


def load(folder: Path = FOLDER) -> tuple[Claim, ...]:
    """Every claim of every chapter, in the order of the files; StudyError for a bad one."""
    found = [claim for path in sorted(Path(folder).glob("*.yaml")) for claim in _file(path)]
    seen: set[str] = set()
    for claim in found:
        if claim.key in seen:
            raise StudyError(f"the claim {claim.key} stands twice in {folder}; rename one of them")
        seen.add(claim.key)
    return tuple(found)


def digest(name: str | None = None, folder: Path = FOLDER) -> str | dict[str, str]:
    """sha256 of a claims file, for provenance; of every file without a name."""
    if name is None:
        return {path.stem: digest(path.stem, folder) for path in sorted(folder.glob("*.yaml"))}
    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise unknown("claims file", name, (found.stem for found in folder.glob("*.yaml")))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _file(path: Path) -> list[Claim]:
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise StudyError(f"{path} is not YAML ({' '.join(str(error).split())}); mend it") from error
    if not isinstance(content, dict) or not {"chapter", "claims"} <= set(content):
        raise StudyError(f"{path}: wanted a mapping with chapter and claims; mend it")
    if not isinstance(content["claims"], list):
        raise StudyError(f"{path}: wanted claims as a list of rows, got {content['claims']!r}")
    chapter = content["chapter"]
    if path.stem != chapter and not path.stem.startswith(f"{chapter}-"):
        raise StudyError(
            f"{path}: its chapter is {chapter!r}; call it {chapter}.yaml or {chapter}-WORD.yaml"
        )
    return [_claim(row, chapter, path) for row in content["claims"]]


def _claim(row: Any, chapter: str, path: Path) -> Claim:
    where = f"{path.name}: claim {row.get('key', '?') if isinstance(row, dict) else row!r}"
    check(row, where)
    stated = {cell: float(value) for cell, value in by_cell(row.get("stated", {})).items()}
    relation = row.get("relation", {})
    built = {
        "source": Source(**row["source"]),
        "stated": stated,
        "relation": relation if isinstance(relation, dict) else dict.fromkeys(stated, relation),
    }
    if "tolerance" in row:
        ((how, given),) = row["tolerance"].items()
        each = given if isinstance(given, dict) else dict.fromkeys(stated, given)
        built["tolerance"] = {
            cell: float(each[cell]) * (abs(value) if how == "relative" else 1)
            for cell, value in stated.items()
        }
    if "reference" in row:
        built["reference"] = {t: [float(x) for x in row["reference"][t]] for t in row["reference"]}
    if "dense" in row:
        built["dense"] = float(row["dense"])
    return Claim(chapter=chapter, file=path.stem, **row | built)
