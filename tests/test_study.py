"""Does the study ask for what was promised, and know what is missing?"""

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

import made
import numpy as np
import pytest
import torch

from lib import pruners, runs, study
from lib.errors import StudyError
from lib.runs import Run, Spec
from lib.study.chapters.cofi import UNITS

PUBLISHED = study.PROFILES["published"]
CHAPTERS = list(study.CHAPTERS)


def fits(specs, **select) -> list[Spec]:
    wanted = {name.replace("__", "."): value for name, value in select.items()}
    return [s for s in specs if study.matches(s, wanted)]


def recorded(spec: Spec) -> Run:
    """A run with made-up numbers, good enough for the store."""
    sizes = {"params": 9, "encoder_params": 8, "attention_params": 3, "macs": 5}
    measured = {"score": 1.0, "scores": {"accuracy": 1.0}} | sizes
    kept = dict.fromkeys(("attention", "encoder", "model", "macs"), spec.budget)
    layer = {"heads": 2, "qk": 2, "vo": 2, "neurons": round(100 * spec.budget)}
    right = np.array([0, 1, 1])
    examples = runs.pack_examples("accuracy", right, right, right, 2)
    shape = {"hidden": 8, "layers": [layer]}
    return Run(spec, measured, measured, kept, kept, shape, {"prune": 0.1}, examples, {})


@pytest.fixture
def quick(tmp_path) -> study.Profile:
    return replace(study.PROFILES["quick"], folder=tmp_path / "runs")


@pytest.fixture
def marks(tmp_path, monkeypatch):
    """Write data/untested.yaml anew; nothing is marked to begin with."""
    path = tmp_path / "untested.yaml"

    monkeypatch.setattr(study, "UNTESTED", path)
    path.write_text("[]")
    return path.write_text


# --- what is asked --------------------------------------------------------------------------------


def test_the_published_study_has_the_teachers():
    wanted = {("mpnet-base", "sst2"), *product(["minilm-l6"], ["sst2", "cola", "mrpc"])}
    dense = fits(study.specs("coreset", "published", "teachers"), method="dense", after="none")
    assert {(s.encoder, s.task) for s in dense} == wanted
    assert all(s.training["teacher"]["epochs"] >= 1 for s in dense)


def test_the_grid_crosses_every_open_question_at_every_density():
    grid = study.specs("coreset", "published", "grid")
    for budget in (0.9, 0.7, 0.5, 0.3):
        at = fits(grid, budget=budget, method="coreset", unit="attention", after="none")
        for axis, sampler in product(
            ("head-dims", "layer-dims", "heads", "inputs"),
            ("top", "uniform", "pps", "without", "until-unique", "with"),
        ):
            here = fits(at, options__axis=axis, options__sampler=sampler)
            rescaled = {s.options["rescale"] for s in here}
            assert rescaled == ({False} if sampler == "top" else {False, True})
            importances = {s.options["importance"] for s in here} - {"mussay"}
            alone = sampler == "uniform" or axis == "inputs"
            assert importances == ({"product"} if alone else {"product", "first", "second"})
        assert len(fits(at, options__importance="mussay")) == 1


def test_whatever_samples_has_five_seeds_at_the_headline_reading():
    headline = fits(
        study.specs("coreset", "published"),
        encoder="mpnet-base",
        method="coreset",
        unit="attention",
        after="none",
        options__axis="head-dims",
        options__importance="product",
    )
    samplers = ("uniform", "pps", "without", "until-unique", "with")
    for sampler, rescale, budget in product(samplers, (False, True), (0.9, 0.7, 0.5, 0.3)):
        way = {"axis": "head-dims", "importance": "product", "sampler": sampler, "rescale": rescale}
        seeds = sorted(s.seed for s in headline if (s.options, s.budget) == (way, budget))
        assert seeds == [0, 1, 2, 3, 4]


def seeds_by_cell(specs) -> dict[tuple, list[int]]:
    """Seeds of each arm, budget and kind of fine-tuning."""
    found: dict[tuple, list[int]] = {}
    for s in specs:
        found.setdefault((study.arm_of(s), s.budget, study.after_of(s)), []).append(s.seed)
    return {cell: sorted(seeds) for cell, seeds in found.items()}


@pytest.mark.parametrize(
    ("encoder", "task"),
    [("mpnet-base", "sst2"), ("minilm-l6", "cola"), ("minilm-l6", "mrpc")],
)
def test_every_method_is_tested_with_and_without_fine_tuning(encoder, task):
    specs = fits(study.specs("coreset", "published"), encoder=encoder, task=task, unit="attention")
    cells = seeds_by_cell(specs)
    for arm, budget in product(study.PRUNED, (0.9, 0.7, 0.5, 0.3)):
        assert cells[arm, budget, "steps"] == [0, 1, 2]
        assert cells[arm, budget, "none"]
    lengths = {
        (s.training["after"]["steps"], s.training["after"]["batch"])
        for s in fits(specs, after="steps")
    }
    assert lengths == {(200, 32)}
    family = {"coreset", "magnitude", "svd", "unstructured", "gradient", "taylor", "movement"}
    assert {s.method for s in specs} == {*family, "dense"}
    everyone = {method for each in study.FAMILIES.values() for method, _ in each.ARMS.values()}
    assert everyone <= set(pruners.names())


@pytest.mark.parametrize("unit", ["attention", "encoder"])
def test_random_need_not_be_run_for_it_draws_what_uniform_draws(bert, unit):
    _, options = study.ARMS["uniform"]
    random = pruners.get("random", unit=unit, seed=3)(bert, [], 0.5).state_dict()
    uniform = pruners.get("coreset", unit=unit, seed=3, **options)(bert, [], 0.5).state_dict()
    assert random.keys() == uniform.keys()
    assert all(torch.equal(random[name], uniform[name]) for name in random)


def test_the_small_encoder_is_pruned_on_three_tasks():
    for task in ("sst2", "cola", "mrpc"):
        cells = seeds_by_cell(
            fits(study.specs("coreset", "published"), encoder="minilm-l6", task=task, after="none")
        )
        for arm, budget in product(study.PRUNED, (0.9, 0.7, 0.5, 0.3)):
            assert cells[arm, budget, "none"] == ([0] if arm in study.FIXED else [0, 1, 2])


def test_a_whole_epoch_and_the_full_model_are_there():
    specs = study.specs("coreset", "published")
    for arm, budget in product(("coreset", "magnitude", "svd", "uniform"), (0.5, 0.3)):
        (one,) = fits(specs, arm=arm, budget=budget, after="epochs")
        assert one.training["after"]["epochs"] == 1
    full = fits(specs, arm="coreset", unit="encoder")
    assert {s.budget for s in full} == {1.0, 0.9, 0.7, 0.5, 0.3, 0.1}


@pytest.mark.parametrize("name", study.PROFILES)
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_specs_are_asked_once_and_the_valuable_come_first(name, chapter):
    specs = study.specs(chapter, name)
    assert len({s.key for s in specs}) == len(specs) == len({s.file for s in specs})
    groups = study.groups(chapter, name)
    assert next(iter(groups)) == "teachers"
    assert [s.method for s in specs[: len(groups["teachers"])]] == ["dense"] * len(
        groups["teachers"]
    )
    assert set(specs) == {s for group in groups.values() for s in group}


def test_the_quick_study_stays_quick():
    specs = study.specs("coreset", "quick")
    assert {(s.encoder, s.task) for s in specs} == {("minilm-l6", "mr")}
    assert 25 <= len(fits(specs, after="none")) <= 36
    tuned = fits(specs, after="steps")
    assert len(tuned) == 2
    assert all(s.training["after"]["steps"] == 60 for s in tuned)


@pytest.mark.parametrize("name", study.PROFILES)
def test_every_spec_can_be_asked_of_its_method(name):
    for s in study.specs("coreset", name):
        if s.method == "dense":
            continue
        pruner = pruners.get(s.method, unit=s.unit, seed=s.seed, **s.options)
        assert pruner.version == s.version == study.VERSIONS[s.method]
        sees = s.training["sees"] or {}
        wanted = {"nothing": set(), "training": {"steps", "batch"}}
        assert set(sees) == wanted.get(pruner.needs, {"examples", "batch"})
        fixed = study.arm_of(s) in study.FIXED
        assert not (fixed and pruner.stochastic)


def test_the_public_experiment_is_a_point_of_the_grid():
    # Gordon's, on BERT in 2020: weighted 1 / (m p), but drawn without replacement
    gordon = {"importance": "mussay", "sampler": "without", "rescale": True, "rounding": "down"}
    assert study.readings()[-1] == study.CORESET | gordon


def test_the_cofi_chapter_asks_for_what_its_issue_does():
    specs = study.specs("cofi", "published")
    tuned = fits(specs, unit="parameters", after="steps")
    small, large = {"encoder": "minilm-l6"}, {"encoder": "mpnet-base"}
    for task, budget in product(("sst2", "cola", "mrpc", "stsb"), (0.05, 0.4)):
        seeds = {s.seed for s in fits(tuned, arm="cofi", task=task, budget=budget, **small)}
        assert seeds == {0, 1, 2}
    for arm, budget in product(("cofi",), (0.1, 0.2)):
        assert len(fits(tuned, arm=arm, task="sst2", budget=budget)) == 3
    for arm in set(study.FAMILIES["cofi"].ARMS) - {"cofi", "cofi-paper"}:
        assert len(fits(tuned, arm=arm, task="sst2", budget=0.05)) == 3, arm
    for arm in ("cofi-undistilled", "cofi-prediction"):
        assert len(fits(tuned, arm=arm, task="mrpc")) == 1
    assert len(fits(tuned, arm="cofi", task="sst2", **large)) == 2
    assert all(s.training["after"]["distil"] for s in fits(tuned, arm="cofi"))
    assert not any("distil" in s.training["after"] for s in fits(tuned, arm="cofi-undistilled"))
    rivals = [s for s in specs if s.unit in ("encoder", "macs")]
    assert {study.arm_of(s) for s in rivals} == {"magnitude", "mask-tuning", "kcm"}
    # a step of pruning takes the time of two of fine-tuning
    whole = {2 * s.training["sees"]["steps"] + s.training["after"]["steps"] for s in tuned}
    assert whole == {s.training["after"]["steps"] for s in rivals}
    order = list(dict.fromkeys((s.encoder, s.budget, s.task) for s in tuned))
    assert order[:3] == [
        ("minilm-l6", 0.05, "sst2"),
        ("minilm-l6", 0.4, "sst2"),
        ("mpnet-base", 0.05, "sst2"),
    ]


def test_the_paper_s_whole_schedule_is_an_arm_of_its_own():
    specs = fits(study.specs("cofi", "paper"), arm="cofi-paper", after="epochs")
    assert {s.budget for s in specs} == {0.05, 0.4}
    for s in specs:
        assert s.training["sees"]["steps"] * s.options["reg_lr"] > 400
        assert s.options["matching"] == "unordered"
    learnt = [s.training["after"]["distil"]["matching"] for s in specs]
    assert learnt == ["unordered", "unordered"]


def test_the_papers_schedule_begins_as_the_authors_do():
    """Of 20 epochs the first is without masks, and in the next two the target rises."""
    [spec] = fits(study.specs("cofi", "paper"), arm="cofi-paper", budget=0.05)
    steps, own = spec.training["sees"]["steps"], spec.own
    before = own["before"] * steps
    assert own["start"] == "pretrained"
    assert before == steps / 20
    assert own["warmup"] * (steps - before) == pytest.approx(2 * before)


def test_the_quick_cofi_study_is_one_short_run_of_the_sparsity_it_names():
    specs = fits(study.specs("cofi", "quick"), method="cofi")
    assert [study.arm_of(s) for s in specs] == ["cofi"]
    assert {(s.encoder, s.task, s.budget) for s in specs} == {("minilm-l6", "mr", 0.05)}
    steps = sum(s.training["sees"]["steps"] + s.training["after"]["steps"] for s in specs)
    assert steps <= 1000


def test_only_the_smallest_of_sst2_is_timed_in_every_way():
    asked = {s: study.protocols("cofi", s) for s in study.specs("cofi", "published")}
    full = [s for s, ways in asked.items() if len(ways) > 3]
    assert {(s.encoder, s.task, s.budget, s.seed) for s in full} == {
        ("minilm-l6", "sst2", 0.05, 0),
        ("mpnet-base", "sst2", 0.05, 0),
    }
    ways = {(w["batch"], w["length"], w["precision"]) for w in asked[full[0]]}
    assert ways == set(product((1, 32, 128), (32, 128), ("float32", "bfloat16")))
    untimed = [s for s, ways in asked.items() if not ways]
    assert all(s.seed and study.arm_of(s) not in ("cofi", *UNITS) for s in untimed)


# --- a forker's wishes ----------------------------------------------------------------------------


def test_a_fork_of_the_published_study_is_whole(tmp_path, monkeypatch):
    """What that study has not computed yet, or leaves out, is no mark on a reader's own."""
    monkeypatch.setattr(study, "LOCAL", tmp_path)
    mine = study.profile("published", task="rte")
    assert mine.name == "published"
    assert {cell.status for cell in study.cells(mine)} == {"missing"}
    assert study.excused(mine) == {}
    assert not study.profile("published", seeds=2).forked


@pytest.mark.parametrize("budgets", [(0.9, 0.5), (0.3,), (0.9, 0.7, 0.5, 0.3)])
def test_a_quick_grid_is_never_empty(budgets):
    specs = study.specs("coreset", "quick", "grid", budgets=budgets)
    assert {spec.budget for spec in specs} == {min(budgets, key=lambda b: abs(b - 0.5))}


def test_another_encoder_and_task_go_to_the_local_store():
    p = study.profile("published", encoder="path/to/mine", task="cola")
    assert p.folder == study.LOCAL
    specs = study.specs("coreset", "published", encoder="path/to/mine", task="cola")
    assert {(s.encoder, s.task) for s in specs} == {("path/to/mine", "cola")}
    assert study.profile("published", encoder="mpnet-base", task="sst2") == PUBLISHED
    assert study.profile("published", seeds=3).folder == PUBLISHED.folder


def test_seeds_and_budgets_can_be_chosen():
    specs = study.specs("coreset", "quick", seeds=3, budgets=[0.8, 0.4])
    assert {s.seed for s in fits(specs, arm="coreset")} == {0, 1, 2}
    assert {s.budget for s in specs if s.method != "dense"} == {0.8, 0.4}
    assert {s.seed for s in study.specs("coreset", "quick", seeds=[7])} == {0, 7}
    with pytest.raises(StudyError, match="a whole number of seeds above 0"):
        study.specs("coreset", "quick", seeds=0)
    with pytest.raises(StudyError, match="at least one budget"):
        study.specs("coreset", "quick", budgets=[])
    with pytest.raises(StudyError, match=r"budget in \(0, 1\]"):
        study.specs("coreset", "quick", budgets=[1.5])


@pytest.mark.parametrize(
    ("ask", "near"),
    [
        (lambda: study.specs("coreset", "publishd"), "published"),
        (lambda: study.specs("corest", "quick"), "coreset"),
        (lambda: study.specs("coreset", "quick", "headlines"), "headline"),
        (lambda: study.spec(PUBLISHED, "magnitud", 0.5), "magnitude"),
        (lambda: study.matches(study.spec(PUBLISHED, "svd", 0.5), {"methd": "svd"}), "method"),
        (lambda: study.check_select({"arm": "corset"}, "here"), "coreset"),
        (lambda: study.check_select({"budgets": 0.5}, "here"), "budget"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(ask, near):
    with pytest.raises(StudyError, match=near):
        ask()


def test_a_selection_reads_arms_options_and_fine_tuning():
    after = study.after_recipe("mpnet-base", steps=200)
    s = study.spec(PUBLISHED, "coreset", 0.5, after=after)
    for select in (
        {"arm": "coreset"},
        {"arm": ["uniform", "coreset"], "budget": [0.3, 0.5]},
        {"options.sampler": "without", "after": "steps"},
    ):
        assert study.matches(s, select)
    for select in (
        {"arm": "uniform"},
        {"budget": 0.3},
        {"options.sampler": "top"},
        {"after": "none"},
    ):
        assert not study.matches(s, select)
    assert study.arm_of(study.spec(PUBLISHED, "coreset", 0.5, options={"sampler": "top"})) == ""


# --- what is missing ------------------------------------------------------------------------------


def test_missing_names_what_is_not_on_record(quick, marks):
    specs = list(dict.fromkeys(s for name in CHAPTERS for s in study.specs(name, quick)))
    assert study.missing(quick) == specs
    for s in specs:
        quick.store.put(recorded(s))
    assert study.missing(quick) == []
    asked = study.unanswered(quick)
    assert [it.questions for it in study.sweeps(quick)] == [(question,) for question in asked]
    for question in asked:
        quick.store.put_probe(made.probe(question))
    assert study.unanswered(quick) == [] == study.sweeps(quick)
    lost = study.specs("coreset", quick)[7]
    quick.store.path(lost).unlink()
    assert study.missing(quick) == [lost] == study.missing(quick, "coreset")
    assert [s for sweep in study.sweeps(quick) for s in sweep.specs] == [lost]
    assert Counter(cell.status for cell in study.cells(quick))["missing"] == 1
    assert "1 missing" in study.describe_missing(quick)


def test_sweeps_hold_every_missing_spec_once_by_encoder_task_method_and_seed(marks):
    p = replace(PUBLISHED, folder=Path("nowhere"))
    sweeps = study.sweeps(p)
    every = [s for sweep in sweeps for s in sweep.specs]
    assert sorted(s.key for s in every) == sorted(s.key for s in study.missing(p))
    assert len({sweep.name for sweep in sweeps}) == len(sweeps)
    for sweep in (it for it in sweeps if it.specs):
        assert len({(s.encoder, s.task, s.method, s.seed) for s in sweep.specs}) == 1
    assert every[0].method == "dense"


def test_untested_cells_need_a_reason_and_are_not_expected(quick, marks):
    marks("- select: {group: grid, options.axis: heads}\n  why: Too dear.")
    cells = study.cells(quick, ("coreset",))
    out = [cell for cell in cells if cell.status == "untested"]
    assert {cell.spec.options["axis"] for cell in out} == {"heads"}
    assert {cell.why for cell in out} == {"Too dear."}
    asked = study.specs("coreset", quick)
    assert set(asked) - set(study.expected("coreset", quick)) == {cell.spec for cell in out}
    assert study.missing(quick, "coreset") == asked  # they can still be computed
    quick.store.put(recorded(out[0].spec))
    assert study.expected("coreset", quick) == asked  # on record after all
    marks("- select: {profile: published}\n  why: Elsewhere.")
    assert all(cell.status != "untested" for cell in study.cells(quick))


def test_questions_are_marked_by_name_and_never_with_runs(quick, marks):
    questions = study.questions("kcm", quick)
    assert {question.name for question in questions} == {"hull", "norms", "rankings", "vision"}
    marks("- select: {profile: quick, chapter: kcm}\n  why: Later.")
    assert study.answerable("kcm", quick) == questions
    assert study.excused(quick) == {}
    marks("- select: {profile: quick, question: [hull, norms]}\n  why: Too dear.")
    left = {question.name for question in study.answerable("kcm", quick)}
    assert left == {"rankings", "vision"}
    assert set(study.excused(quick).values()) == {"Too dear."}
    assert study.unanswered(quick, ["kcm"]) == questions  # they can still be computed
    assert all(cell.status == "missing" for cell in study.cells(quick))
    assert "5 asked, 0 on record, 2 untested, 3 missing" in study.describe_missing(quick)
    hull = next(question for question in questions if question.name == "hull")
    quick.store.put_probe(made.probe(hull))
    assert hull in study.answerable("kcm", quick)
    assert "5 asked, 1 on record, 1 untested, 3 missing" in study.describe_missing(quick)


def test_a_selection_by_sample_tells_samples_apart():
    specs = study.specs("kcm", PUBLISHED)
    own = fits(specs, arm="kcm", task="sst2", encoder="mpnet-base", budget=0.6, sees="own")
    assert {s.training["sees"]["examples"] for s in own} == {2048}
    assert {s.seed for s in own} == set(range(10))
    small = fits(specs, arm="kcm", sees__examples=512, sees__task=None)
    assert {study.sees_of(s) for s in small} == {"other"}
    assert {s.seed for s in small} == {0, 1, 2}
    [(task, examples)] = {
        (s.training["sees"]["task"], s.training["sees"]["examples"])
        for s in fits(specs, arm="kcm", sees__task="cola")
    }
    assert (task, examples) == ("cola", 2048)
    plain = fits(specs, arm="ffn-w2-unscaled", sees="own")
    assert plain
    assert {s.seed for s in plain} == {0}


def test_the_kcm_chapter_asks_for_its_tier():
    by_group = study.groups("kcm", PUBLISHED)
    assert list(by_group)[:3] == ["teachers", "headline", "methods"]
    pairs = set(product(("mpnet-base", "minilm-l6"), ("sst2", "cola", "mrpc", "stsb", "mnli")))
    every = study.specs("kcm", PUBLISHED)
    family = {*study.FAMILIES["kcm"].ARMS, "taylor-steps"}
    for encoder, task in pairs:
        here = fits(every, encoder=encoder, task=task, after="none", sees="own")
        for budget in (0.6, 0.7):
            assert {study.arm_of(s) for s in here if s.budget == budget} == family
        by_budget = ("kcm", "ffn-w2", "ffn-rms", "mask-tuning", "k-prune")
        for arm, budget in product(by_budget, (0.5, 0.8, 0.9)):
            assert {s.seed for s in fits(here, arm=arm, budget=budget)} == {0, 1, 2}
        assert len(fits(here, arm="kcm", budget=0.6)) == 10
    slow = fits(every, options__stop="l1")
    assert {(s.encoder, s.task) for s in slow} == {("minilm-l6", "sst2")}
    assert fits(every, options__heads=True)
    for arm, seeds in (("kcm-r2-unscaled", {0}), ("kcm-d2-unscaled", {0, 1, 2})):
        cells = fits(every, arm=arm, budget=0.6, sees="own")
        assert {s.seed for s in cells} == seeds
        assert {s.training["sees"]["examples"] for s in cells} == {2048}
    assert {s.unit for s in every if s.method != "dense"} == {"macs"}
    fork = study.specs("kcm", "quick", task="imdb", budgets=[0.8], seeds=2)
    assert {(s.encoder, s.task) for s in fork} == {("minilm-l6", "imdb")}
    assert {s.budget for s in fork} == {1.0, 0.8}
    assert {s.seed for s in fork} == {0, 1}
    teachers = {s.encoder + s.task for s in study.specs("kcm", "paper", "teachers")}
    assert len(teachers) == 6


def test_what_the_kcm_chapter_times():
    every = study.specs("kcm", PUBLISHED)
    timed = [s for s in every if study.protocols("kcm", s)]
    assert {study.arm_of(s) for s in timed} == {"dense", "kcm", "mask-tuning", "ffn-w2"}
    assert {s.budget for s in timed} == {1.0, 0.6}
    assert {s.seed for s in timed} == {0}


@pytest.mark.parametrize(
    "text",
    [
        "- select: {arm: coreset}",
        "- {select: {question: hull, task: sst2}, why: so}",
        "- {select: {arm: coreset}, why: ''}",
        "- {select: {armour: coreset}, why: so}",
        "- {select: coreset, why: so}",
        "select: [",
        "just words",
    ],
)
def test_a_bad_row_of_untested_cells_is_refused(text, marks):
    marks(text)
    with pytest.raises(StudyError, match=r"untested\.yaml") as refusal:
        study.untested()
    assert "\n" not in str(refusal.value)


@pytest.fixture(scope="module")
def cells() -> list[study.Cell]:
    """All of the published study; nobody here changes what is on record."""
    return study.cells("published")


def test_every_cell_of_tier_one_is_on_record_or_marked_untested(cells):
    lost = [cell.spec.label for cell in cells if cell.status == "missing"]
    assert not lost, f"{len(lost)} cells are neither on record nor in data/untested.yaml"
    open_ = set(study.unanswered("published")) - set(study.excused("published"))
    assert not open_, f"{len(open_)} questions are neither answered nor in data/untested.yaml"


def test_no_mark_covers_what_is_on_record(cells):
    """Were its record to be lost, nobody would be told."""
    marks, store = study.untested(), PUBLISHED.store
    swallowed = [
        f"{mark.select} marks {cell.spec.label}"
        for cell in cells
        if cell.status == "present"
        for mark in marks
        if mark.covers("published", cell.chapter, cell.group, cell.spec)
    ]
    swallowed += [
        f"{mark.select} marks {question.label}"
        for chapter in study.CHAPTERS
        for question in study.questions(chapter, "published")
        if store.answers(question)
        for mark in marks
        if mark.covers_question("published", chapter, question)
    ]
    assert not swallowed, f"{len(swallowed)} are on record, first {swallowed[0]}: narrow the row"


def test_nothing_on_record_is_asked_by_nobody():
    """A record of a dropped version or cell would say in silence what no chapter shows."""
    store, asked = PUBLISHED.store, set()
    for name in ("published", "paper"):
        asked |= {s for chapter in study.CHAPTERS for s in study.specs(chapter, name)}
    found = store.all()
    stray = [run.spec.label for run in found if run.spec not in asked]
    assert not stray, f"{len(stray)} runs, first {stray[0]}: remove their files"

    def key(timing) -> tuple:
        protocol = {name: at for name, at in timing.protocol.items() if name != "threads"}
        return timing.encoder, runs.shape_key(timing.shape), runs.digest(protocol)

    clocks = [c for name in study.CHAPTERS for c in study.timings(name, "published", found)]
    wanted = {key(clock) for clock in clocks}
    stray = [str(timing.protocol) for timing in store.timings() if key(timing) not in wanted]
    assert not stray, f"{len(stray)} timings, first {stray[0]}: remove their files"


def test_every_mark_covers_a_cell_that_is_missing(cells):
    open_cells = [cell for cell in cells if cell.status == "untested"]
    lost = study.excused("published")
    for mark in study.untested():
        if "question" in mark.select:
            chapters = mark.select.get("chapter", CHAPTERS)
            assert any(
                mark.covers_question("published", chapter, question)
                for chapter in ([chapters] if isinstance(chapters, str) else chapters)
                for question in lost
            ), f"no question that {mark.select} marks is open: take the row out"
            continue
        covered = [
            cell
            for cell in open_cells
            if mark.covers("published", cell.chapter, cell.group, cell.spec)
        ]
        assert covered, f"nothing that {mark.select} marks is missing: take the row out"


def test_published_records_are_whole():
    PUBLISHED.store.all()
    PUBLISHED.store.timings()


# --- timings --------------------------------------------------------------------------------------


def test_timings_want_each_shape_once_under_each_protocol(quick, marks):
    records = [recorded(s) for s in study.specs("coreset", quick)]
    wanted = study.timings("coreset", quick, records)
    keys = [(runs.shape_key(w.shape), *w.protocol.items()) for w in wanted]
    assert len(set(keys)) == len(keys)
    assert {w.protocol["precision"] for w in wanted} == {"float32", "bfloat16"}
    shapes = {runs.shape_key(w.shape) for w in wanted}
    for run in records:
        if study.matches(run.spec, {"arm": "coreset", "unit": "encoder", "after": "none"}):
            assert runs.shape_key(run.shape) in shapes
    lengths = [w.protocol["length"] for w in study.timings("anatomy", quick, records)]
    assert lengths == list(study.LENGTHS)
    assert study.timings("coreset", quick, []) == []


# --- the cheap half stays cheap -------------------------------------------------------------------


def test_the_reading_half_imports_without_torch():
    program = """
import sys

class Blocked:
    def find_spec(self, name, *_):
        if name.split(".")[0] in {"torch", "transformers", "datasets", "accelerate"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
from lib import claims, runs, study
claims.table(claims.findings("quick"))
study.missing("published")
"""
    root = Path(study.__file__).resolve().parent.parent
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=root
    )
    assert done.returncode == 0, done.stderr
