"""What can be asked of the project on a command line? `make help` shows it from a reader's side."""

import argparse
import logging
import os
import subprocess
import sys
from collections.abc import Sequence

from safetensors import SafetensorError

from lib.errors import StudyError

# Imports stand inside the commands: most of them need no torch, and `make` should start at once.


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of one command; what a person can mend is one line on stderr and status 1."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    options = vars(_parser().parse_args(arguments))
    try:
        return options.pop("command")(**options) or 0
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what is complete is on record, run it again to resume", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (OSError, SafetensorError) as error:  # a full disk, a folder that is not ours, ...
        why = " ".join(str(error).split())
        print(f"error: {why}; mend that and run again, what is on record stays", file=sys.stderr)
        return 1


def quick(profile: str) -> None:
    """compute what a profile lacks here and now, build its book, print its verdicts"""
    from lib import engine, study
    from lib.book import publish

    missing, store = study.missing(profile), study.profile(profile).store
    asked = study.unanswered(profile)
    if missing or asked or study.untimed(profile):
        from lib import execute
        from lib.measures.timings import measure

        with engine.alone(f"{profile} study"):
            execute.obtain(missing, store)
            execute.answer(asked, store)
            measure(profile)
    page = publish.book(profile)
    table = publish.ledger(profile)
    print(table.to_string(index=False, na_rep="-", float_format="{:.4g}".format))
    print(f"\nThe book: {page}")


def book(profile: str) -> None:
    """render the book of a profile from its records, computing nothing"""
    from lib.book import publish

    print(f"The book: {publish.book(profile)}")


def study(profile: str, cluster: str | None) -> None:
    """compute whatever a profile lacks, resuming where it stopped"""
    from lib import engine
    from lib.study import describe_missing

    engine.run(profile, cluster)
    print(describe_missing(profile))


def sweep(profile: str, name: str) -> None:
    """compute one sweep: the job that `study` starts"""
    from lib import engine

    engine.sweep(profile, name)


def timings(profile: str) -> None:
    """measure the speed of the recorded shapes on this machine"""
    from lib import engine
    from lib.measures.timings import measure

    with engine.alone(f"{profile} study"):
        print(f"{len(measure(profile))} timings on record; `make book` shows them")


def chapter(name: str, settings: list[str], **parameters: str | None) -> None:
    """execute one notebook for another task, encoder, number of seeds or list of budgets"""
    from lib import engine
    from lib.book import chapters

    named = [f"{key}={text}" for key, text in parameters.items() if text]
    given = chapters.settings(named + settings)
    with engine.alone("quick study"):  # both write to the local store
        print(f"The executed notebook: {chapters.fork(name, given)}")


def verdicts(profile: str) -> None:
    """print the ledger as tab-separated lines under a header"""
    from lib.book import publish

    publish.ledger(profile).to_csv(sys.stdout, sep="\t", index=False, lineterminator="\n")


def lab() -> int:
    """open the notebooks in JupyterLab"""
    return subprocess.run([sys.executable, "-m", "jupyterlab", "notebooks"]).returncode


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lib", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command, profile in (
        (quick, "quick"),
        (book, "published"),
        (study, "published"),
        (sweep, "published"),
        (timings, "published"),
        (verdicts, "published"),
        (chapter, "quick"),
        (lab, None),
    ):
        it = commands.add_parser(command.__name__, help=command.__doc__)
        it.set_defaults(command=command)
        if profile:
            it.add_argument("--profile", default=profile, help="default: %(default)s")
        if command is study:
            it.add_argument("--cluster", help="a folder of workflow/profiles, such as slurm")
        if command in (sweep, chapter):
            it.add_argument("name", help=f"of the {command.__name__}")
        if command is chapter:
            for option in ("task", "encoder", "seeds", "budgets"):
                it.add_argument(f"--{option}")
            it.add_argument("--set", dest="settings", action="append", default=[], metavar="N=V")
    return parser


if __name__ == "__main__":
    sys.exit(main())
