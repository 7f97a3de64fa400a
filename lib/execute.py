"""Which runs are on record, and which are done now? Read what is there, execute what is not.

Reading needs no torch, so a book of records is built without it.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from lib import assets, runs
from lib.errors import StudyError


def obtain(specs: Iterable[runs.Spec], store: runs.Store, compute: bool = True) -> list[runs.Run]:
    """The runs of `specs`, in their order: read where on record, executed where not.

    With `compute=False` a missing record is a StudyError that names it. Each run is stored as soon
    as it is complete, so an interruption loses the one under way and no other. A record of a
    reader's own file that has changed since is a StudyError too.
    """
    specs = list(specs)
    for spec in dict.fromkeys(specs):
        _check_files(spec, store)
    missing = [spec for spec in dict.fromkeys(specs) if not store.has(spec)]
    if missing and not compute:
        raise StudyError(
            f"{len(missing)} of {len(specs)} runs are not on record in {store.folder}, first "
            f"{store.path(missing[0]).name} ({missing[0].label}); `make study` computes them"
        )
    with tqdm(total=len(missing), desc="runs", unit="run", disable=not missing) as progress:
        groups: dict[str, list[runs.Spec]] = {}
        for spec in missing:  # one teacher at a time, in the order in which they are first wanted
            groups.setdefault(spec.teacher, []).append(spec)
        for group in groups.values():
            from lib import bench  # torch: only where something is executed

            teacher = None
            for spec in group:
                progress.set_postfix_str(spec.label)
                teacher = teacher or bench.prepare(spec)
                if not store.has(spec):  # another process may have been quicker
                    store.put(bench.perform(spec, teacher))
                bench.forget(spec, teacher)
                progress.update()
    return [store.get(spec) for spec in specs]


def answer(
    questions: Iterable[runs.Question], store: runs.Store, compute: bool = True
) -> list[runs.Probe]:
    """The answers to `questions`, in their order: read where on record, computed where not.

    With `compute=False` a missing answer is a StudyError that names it.
    """
    questions = list(questions)
    missing = [question for question in dict.fromkeys(questions) if not store.answers(question)]
    if missing and not compute:
        raise StudyError(
            f"{len(missing)} of {len(questions)} answers are not on record in {store.folder}, "
            f"first {missing[0].file.name} ({missing[0].label}); `make study` computes them"
        )
    with tqdm(total=len(missing), desc="questions", disable=not missing) as progress:
        for question in missing:
            from lib import probes  # torch: only where something is computed

            progress.set_postfix_str(question.label)
            found = probes.answer(question)
            if not store.answers(question):  # another process may have been quicker
                store.put_probe(found)
            progress.update()
    return [store.probe(question) for question in questions]


def _check_files(spec: runs.Spec, store: runs.Store) -> None:
    """Refuse a record whose CSV or encoder is another by now; one that is gone says nothing."""
    own = spec.task.startswith("csv:") or spec.encoder not in assets.ENCODERS
    if not own or not store.has(spec):
        return
    for file, recorded in _own_files(store.get(spec)):
        if file.is_file() and recorded not in (None, assets.sha256(file)):
            raise StudyError(
                f"{file} has changed since {store.path(spec)} was recorded: put the old one back, "
                "or give the new one another name"
            )


def _own_files(run: runs.Run) -> Iterator[tuple[Path, str | None]]:
    """The files of a reader's own that a run rests on, each with the sha256 it had then."""
    recorded = run.provenance.get("sha256", {})
    if run.spec.task.startswith("csv:"):
        from lib.tasks import own

        for label, path in own.source(run.spec.task.removeprefix("csv:")).labels.items():
            yield path, recorded.get("data", {}).get(label)
    if run.spec.encoder not in assets.ENCODERS:
        folder = Path(run.spec.encoder).expanduser()
        yield folder / assets.WEIGHTS, recorded.get("encoder")
