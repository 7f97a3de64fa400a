"""What do the generated parts of the book say: the verdicts, and where the records come from?"""

import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment

from lib import assets, claims, origin, study
from lib.runs import Run, Timing

ROOT = Path(__file__).resolve().parents[2]
RENDERERS = ("jupyter-book", "papermill", "matplotlib", "pandas", "numpy")
PHASES = ("base", "prune", "finetune", "evaluate")  # of a run's seconds; its teacher's are shared

# What each talk is known for, one finding a claim: the first page opens with these.
HEADLINES = (
    *("coreset.density", "coreset.time", "coreset.beats-magnitude"),
    *("cofi.ten-x", "cofi.sst2", "cofi.validate.improves"),
    *("kcm.flops40", "kcm.speed-paper", "kcm.minutes"),
    *("token.powerbert", "token.powerbert-padded", "token.ltp", "token.transkimmer"),
    "cost.quadratic",
)

TABLES = """\
{% macro verdict(it) %}<td data-value="{{ it.verdict }}"><a
class="verdict {{ it.verdict | replace(" ", "-") }}"
href="chapters/{{ it.claim.chapter }}.html#{{ it.claim.figure }}">{{ it.verdict }}</a>{% endmacro %}
{% macro numbers(it) %}<td><small>{{ it.quantity | replace("-", " ") }}</small>
{%- for cell in it.cells %}<div>{{ stated(it.claim, cell) }}</div>{% endfor %}</td>
<td><small>&nbsp;</small>{% for cell in it.cells %}<div>{{ measured(cell) }}</div>{% endfor %}</td>
{% endmacro %}
"""

BRIEF = """\
```{raw} html
<div class="verdicts-scroll">
<table class="brief">
<caption>What each talk is known for, and what came of it: on the first encoder and task of its
chapter of which the {{ profile }} study has runs.</caption>
<thead><tr><th>Claim</th><th>Verdict</th><th>Encoder, task</th><th>Stated</th>
<th>Measured [95%]</th></tr></thead>
<tbody>
{% for it in findings %}<tr>
<td>{{ it.claim.text }}<small>{{ it.claim.source.talk }}
{%- if it.claim.source.paper %}; number of {{ it.claim.source.paper }}{% endif %}</small></td>
{{ verdict(it) }}</td>
<td>{{ it.encoder }}, {{ it.task }}</td>
{{ numbers(it) }}
</tr>
{% endfor %}</tbody></table></div>
```
"""

DASHBOARD = """\
```{raw} html
<p>{{ summary }}</p>
<div class="verdicts-scroll">
<table class="verdicts">
<caption>Every claim, by encoder and task, in the {{ profile }} study. Beside a stated number stands
its tolerance, the leave to miss it or to fall short. A verdict links to its figure.</caption>
<thead><tr>
<th data-sort>Claim</th><th data-sort data-filter>Verdict</th>
<th data-sort data-filter>Encoder</th><th data-sort data-filter>Task</th>
<th data-sort data-filter>Whose</th>
<th>Stated</th><th>Measured [95%]</th><th data-sort>Runs or rounds</th>
<th data-sort data-filter>Fidelity</th>
</tr></thead>
<tbody>
{% for it in findings %}<tr id="{{ it.claim.key }}-{{ it.encoder }}-{{ it.task }}">
<td>{{ it.claim.text }}<small><code>{{ it.claim.key }}</code>
{{ it.claim.source.talk }}: {{ it.claim.source.slide }}
{%- if it.claim.source.paper %}; {{ it.claim.source.paper }}{% endif %}</small></td>
{{ verdict(it) }}
{% if it.note %}<small>{{ it.note }}</small>{% endif %}</td>
<td>{{ it.encoder }}</td><td>{{ it.task }}</td>
<td>{{ "ours" if it.claim.ours else "a talk's" }}</td>
{{ numbers(it) }}
<td>{{ counted(it) }}</td><td>{{ it.fidelity }}</td>
</tr>
{% endfor %}</tbody></table></div>
```
"""


def write(folder: Path, profile: str, seconds: Mapping[str, float]) -> None:
    """Write brief.md, verdicts.md, cast.md and environment.md, for pages to include.

    `seconds` is how long each chapter took to execute for this book.
    """
    folder.mkdir(parents=True, exist_ok=True)
    findings = claims.findings(profile)
    (folder / "brief.md").write_text(brief(profile, findings))
    (folder / "verdicts.md").write_text(dashboard(profile, findings))
    (folder / "cast.md").write_text(cast(profile))
    (folder / "environment.md").write_text(provenance(profile, seconds))


def dashboard(profile: str, findings: Sequence[claims.Finding]) -> str:
    """The verdict table as HTML inside Markdown; _static/verdicts.js sorts and filters it."""
    sides = {
        "on what the talks and their papers state": [it for it in findings if not it.claim.ours],
        "on questions and controls of our own": [it for it in findings if it.claim.ours],
    }
    summary = " ".join(
        f"{len(own)} findings {about}: {_tallied(own)}." for about, own in sides.items() if own
    )
    return _rendered(DASHBOARD, findings=findings, profile=profile, summary=summary)


def _tallied(findings: Sequence[claims.Finding]) -> str:
    counts = Counter(it.verdict.value for it in findings)
    return ", ".join(f"{counts[it.value]} {it.value}" for it in claims.Verdict if counts[it.value])


def brief(profile: str, findings: Sequence[claims.Finding]) -> str:
    """The claims that each talk is known for, one finding each: the first that was tested, in the
    order of the study, whatever it says."""
    chosen = []
    for key in HEADLINES:
        own = [it for it in findings if it.claim.key == key]
        tested = (it for it in own if it.verdict is not claims.Verdict.UNTESTED)
        chosen += [next(tested, own[0])] if own else []
    return _rendered(BRIEF, findings=chosen, profile=profile)


def _rendered(template: str, **given: object) -> str:
    page = Environment(autoescape=True).from_string(TABLES + template)
    given |= {"stated": _stated, "measured": _measured, "counted": claims.counted}
    return page.render(**given).lstrip()


def cast(profile: str) -> str:
    """Tables of the encoders and tasks of which a profile has dense models on record."""
    store = study.profile(profile).store
    specs = dict.fromkeys(s for chapter in study.CHAPTERS for s in study.specs(chapter, profile))
    every = [store.get(s) for s in specs if store.has(s)]
    dense = [run for run in every if run.spec.method == "dense" and not run.spec.training["after"]]
    encoders = {run.spec.encoder: run for run in reversed(dense)}
    letters = ("$L$", "$D$", "$H$", "$F$")
    columns = ("encoder", "published as", *letters, "parameters (in layers)")
    scores: dict[str, dict[str, set[float]]] = {}
    for run in every:  # several teachers of one recipe have several scores
        own = scores.setdefault(run.spec.task, {}).setdefault(run.spec.encoder, set())
        own.add(round(run.dense["score"], 4))
    named = {run.spec.task: run.per_example for run in reversed(every)}
    rows = [
        (
            task,
            str(named[task]["n"]),
            named[task]["metric"].replace("_", " and "),
            "; ".join(
                f"{encoder} {' and '.join(f'{score:.4f}' for score in sorted(found))}"
                for encoder, found in own.items()
            ),
        )
        for task, own in scores.items()
    ]
    return "\n\n".join(
        (
            _table(columns, [_encoder(name, run) for name, run in reversed(encoders.items())]),
            _table(("task", "reported texts", "metric", "dense models score"), rows),
        )
    )


def _encoder(name: str, run: Run) -> tuple[str, ...]:
    known, layers = assets.ENCODERS.get(name), run.shape["layers"]
    source = f"`{known.repository}` at `{known.revision[:10]}`" if known else "a reader's own"
    sizes = [f"{run.dense[part] / 1e6:.1f}" for part in ("params", "encoder_params")]
    counted = (len(layers), run.shape["hidden"], layers[0]["heads"], layers[0]["neurons"])
    return (name, source, *map(str, counted), f"{sizes[0]} M ({sizes[1]} M)")


def provenance(profile: str, seconds: Mapping[str, float]) -> str:
    """Tables of code, machines, versions, dates and times behind a profile's records."""
    store = study.profile(profile).store
    runs = {
        s: store.get(s) for c in study.CHAPTERS for s in study.specs(c, profile) if store.has(s)
    }
    return "\n\n".join(
        (
            "## Where the records were made",
            _table(("", "of the records"), _origins(list(runs.values()))),
            "## Where speed was measured",
            _table(("", "of the timings"), _timed(store.timings())),
            "## Run times by chapter",
            _table(
                ("chapter", "records", "computing", "of it teachers", "to execute for this book"),
                [
                    (chapter, *_times(chapter, profile, runs), _duration(seconds.get(chapter)))
                    for chapter in study.CHAPTERS
                ],
            ),
            "## What made these pages",
            _table(("", ""), _here(profile)),
        )
    )


def _stated(claim: claims.Claim, cell: claims.Cell) -> str:
    """A stated number with its relation and tolerance: "0.5: over 2.4 - 0.6", "0.9 ± 0.03"."""
    at = f"{cell.cell}: " if cell.cell != "" else ""
    word, sign = {"above": ("over ", "-"), "below": ("under ", "+"), "equals": ("", "±")}[
        cell.relation
    ]
    leave = claim.tolerance[cell.cell]
    return f"{at}{word}{cell.stated:.3g}" + (f" {sign} {leave:.2g}" if leave else "")


def _measured(cell: claims.Cell) -> str:
    if cell.measured is None:
        return "-"
    exact = cell.low is None or cell.low == cell.high  # a count, or a formula
    low, value, high = (f"{it:.{3 if abs(it) < 10 else 1}f}" for it in _interval(cell))
    return value if exact else f"{value} [{low}, {high}]"


def _interval(cell: claims.Cell) -> tuple[float, float, float]:
    """Low end, value and high end; a count is all three."""
    ends = [cell.measured if end is None else end for end in (cell.low, cell.high)]
    return ends[0], cell.measured, ends[1]


def _origins(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """What differs between records is listed with the number of records."""
    origins = [run.provenance for run in runs]
    packages = sorted({package for it in origins for package in it["versions"]})
    rows = [
        ("commit", _tally(f"`{it['commit'][:10]}`{_changed(it)}" for it in origins)),
        ("finished", _dates(origins)),
        ("device", _tally(it["device"] for it in origins)),
        ("threads", _tally(str(it["threads"]) for it in origins)),
        ("precision", _tally(it["precision"] for it in origins)),
        ("samples cut short", _short(runs)),
        ("teachers", _teachers(runs)),
    ]
    return rows + [
        (package, _tally(it["versions"].get(package, "-") for it in origins))
        for package in packages
    ]


def _timed(timings: Sequence[Timing]) -> list[tuple[str, str]]:
    """The same of timings."""
    origins = [timing.provenance for timing in timings]
    return [
        ("commit", _tally(f"`{it['commit'][:10]}`{_changed(it)}" for it in origins)),
        ("finished", _dates(origins)),
        ("device", _tally(timing.machine for timing in timings)),
        ("threads", _tally(str(timing.protocol["threads"]) for timing in timings)),
        ("torch", _tally(it["versions"]["torch"] for it in origins)),
    ]


def _dates(origins: Sequence[Mapping[str, Any]]) -> str:
    """The first day and the last."""
    dates = sorted(it["finished"][:10] for it in origins)
    return " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "-"


def _short(runs: Sequence[Run]) -> str:
    """Calibration samples smaller than asked for, as the task has no more sentences to train on."""
    pairs = [
        (run.spec.training["sees"]["examples"], run.provenance["examples_read"])
        for run in runs
        if "examples_read" in run.provenance
    ]
    return _tally(f"{read} of {asked} sentences" for asked, read in pairs if read < asked)


def _teachers(runs: Sequence[Run]) -> str:
    """The dense models by their weights, each with the number of records that prune it."""
    return _tally(
        f"{run.spec.encoder} on {run.spec.task} `{run.provenance['sha256']['teacher'][:10]}`"
        for run in runs
    )


def _changed(provenance: Mapping[str, object]) -> str:
    return " with uncommitted changes" if provenance["dirty"] else ""


def _tally(values: Iterable[str]) -> str:
    counts = Counter(values)
    if len(counts) <= 1:
        return next(iter(counts), "-")
    return ", ".join(f"{value} ({count})" for value, count in counts.most_common())


def _times(chapter: str, profile: str, runs: Mapping[object, Run]) -> tuple[str, str, str]:
    """Records of a chapter, their computing with each teacher once, and the teachers' part."""
    mine = [runs[spec] for spec in study.specs(chapter, profile) if spec in runs]
    teachers = {run.provenance["sha256"]["teacher"]: run.seconds.get("teacher", 0) for run in mine}
    pruning = sum(run.seconds.get(phase, 0) for run in mine for phase in PHASES)
    shared = sum(teachers.values())
    return str(len(mine)), _duration(pruning + shared), _duration(shared)


def _here(profile: str) -> list[tuple[str, str]]:
    return [
        ("profile", profile),
        ("built", datetime.now(UTC).strftime("%Y-%m-%d")),
        ("commit", f"`{origin.commit()[:10]}`"),
        ("python", platform.python_version()),
        *((package, version(package)) for package in RENDERERS),
    ]


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
