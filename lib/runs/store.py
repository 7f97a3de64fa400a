"""Where does the record of a spec lie, and what is on record?"""

from dataclasses import dataclass
from pathlib import Path

from lib.errors import StudyError
from lib.runs.files import files_in, read, record_of, refused, write
from lib.runs.records import TIMINGS, Probe, Run, Timing, check_probe, check_run, check_timing
from lib.runs.spec import PROBES, Question, Spec


@dataclass(frozen=True)
class Store:
    """A folder of records: <encoder>/<task>/<method>/<budget>-s<seed>-<key>.json."""

    folder: Path

    def path(self, spec: Spec) -> Path:
        """Where the record of `spec` lies, or would."""
        return Path(self.folder) / spec.file

    def has(self, spec: Spec) -> bool:
        """Is `spec` on record?"""
        return self.path(spec).is_file()

    def get(self, spec: Spec) -> Run:
        """The record of `spec`; StudyError if it is missing or cannot be trusted."""
        path = self.path(spec)
        if not path.is_file():
            raise StudyError(f"no record {path} ({spec.label}); compute it with `make study`")
        return _read_run(path, Path(self.folder))

    def put(self, run: Run) -> Path:
        """Write the record whole or not at all; one that exists is never written over."""
        path = self.path(run.spec)
        check_run(run, path)
        return write(record_of(run), path, replace=False)

    def all(self) -> list[Run]:
        """Every run of the store, in the order of their paths."""
        folder = Path(self.folder)
        paths = (
            path
            for path in files_in(folder)
            if path.relative_to(folder).parts[0] not in (TIMINGS, PROBES)
        )
        return [_read_run(path, folder) for path in paths]

    def put_timing(self, timing: Timing, replace: bool = False) -> Path:
        """Write the timing whole or not at all; over an older one only with `replace`."""
        path = Path(self.folder) / timing.file
        check_timing(timing, path)
        return write(record_of(timing), path, replace)

    def timings(self) -> list[Timing]:
        """Every timing of the store, in the order of their paths."""
        folder = Path(self.folder)
        return [_read_timing(path, folder) for path in files_in(folder / TIMINGS)]

    def answers(self, question: Question) -> bool:
        """Is an answer to `question` on record?"""
        return (Path(self.folder) / question.file).is_file()

    def probe(self, question: Question) -> Probe:
        """The answer to `question`; StudyError if it is missing or cannot be trusted."""
        path = Path(self.folder) / question.file
        if not path.is_file():
            raise StudyError(f"no record {path} ({question.label}); compute it with `make study`")
        return _read_probe(path, Path(self.folder))

    def put_probe(self, probe: Probe) -> Path:
        """Write the answer whole or not at all; one that exists is never written over."""
        path = Path(self.folder) / probe.question.file
        check_probe(probe, path)
        return write(record_of(probe), path, replace=False)


def _read_run(path: Path, folder: Path) -> Run:
    record = read(path, Run)
    try:
        run = Run(**record | {"spec": Spec(**record["spec"])})
    except (TypeError, StudyError) as error:
        raise refused(path, f"its spec is not one ({error})") from error
    if path.relative_to(folder) != run.spec.file:
        raise refused(path, f"its spec belongs at {run.spec.file}")
    check_run(run, path)
    return run


def _read_timing(path: Path, folder: Path) -> Timing:
    timing = Timing(**read(path, Timing))
    if path.relative_to(folder) != timing.file:
        raise refused(path, f"it belongs at {timing.file}")
    check_timing(timing, path)
    return timing


def _read_probe(path: Path, folder: Path) -> Probe:
    record = read(path, Probe)
    try:
        probe = Probe(**record | {"question": Question(**record["question"])})
    except (TypeError, StudyError) as error:
        raise refused(path, f"its question is not one ({error})") from error
    if path.relative_to(folder) != probe.question.file:
        raise refused(path, f"its question belongs at {probe.question.file}")
    check_probe(probe, path)
    return probe
