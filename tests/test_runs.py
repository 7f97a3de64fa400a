"""Does the store keep what happened, and refuse what cannot be trusted?"""

import errno
import json
import os
import time
from dataclasses import replace

import numpy as np
import pytest

from lib import runs
from lib.errors import StudyError
from lib.runs import Run, Spec, Store, Timing, files

SPEC = Spec(
    "mpnet-base",
    "sst2",
    "coreset",
    1,
    0.5,
    "attention",
    3,
    {"axis": "head-dims", "rescale": False},
    {"teacher": {"epochs": 1.0, "lr": 3e-5}, "sees": None, "after": {"steps": 200}},
)
MEASURED = {
    "score": 0.875,
    "scores": {"accuracy": 0.875},
    "params": 100,
    "encoder_params": 80,
    "attention_params": 30,
    "macs": 1000,
}
KEPT = {"attention": 0.5, "encoder": 0.8, "model": 0.9, "macs": 0.85}
LABELS = np.array([0, 1, 1, 0, 1, 0, 1, 1, 0])
ANSWERS = np.array([0, 1, 0, 0, 1, 0, 1, 1, 1])


def made(spec: Spec = SPEC, **changes) -> Run:
    examples = runs.pack_examples("accuracy", LABELS, LABELS, ANSWERS, 2)
    shape = {"hidden": 8, "layers": [{"heads": 2, "qk": 2, "vo": 2, "neurons": 16}]}
    parts = (MEASURED, MEASURED, KEPT, KEPT, shape, {"prune": 0.1}, examples, {"commit": "abc"})
    return replace(Run(spec, *parts), **changes)


def edited(store: Store, change) -> os.PathLike:
    """Change a stored record as text and return its path."""
    path = store.path(SPEC)
    path.write_text(change(path.read_text()))
    return path


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "runs")


def test_a_run_told_in_accuracy_has_the_same_answers_and_the_share_of_right_ones():
    scored = MEASURED | {"score": 0.2, "scores": {"matthews": 0.2, "accuracy": 0.875}}
    packed = runs.pack_examples("matthews", LABELS, LABELS, ANSWERS, 2)
    told = made(dense=scored, pruned=scored, per_example=packed).in_accuracy()
    assert (told.dense["score"], told.pruned["score"]) == (0.875, 0.875)
    assert told.per_example == runs.pack_examples("accuracy", LABELS, LABELS, ANSWERS, 2)
    regression = runs.pack_examples("pearson", LABELS / 9, LABELS / 9, ANSWERS / 9, None)
    of_numbers = made(per_example=regression)
    assert of_numbers.in_accuracy() is of_numbers


def test_a_key_is_pinned_for_good():
    # A change of this key means that every record of a published study is lost.
    assert SPEC.key == "d780b78b8441eba5"
    assert runs.shape_key({"hidden": 8, "layers": []}) == "17d0153997634d2b"


def test_a_key_follows_the_meaning_and_nothing_else():
    turned = replace(SPEC, options={"rescale": False, "axis": "head-dims"})
    spelled = replace(SPEC, training=SPEC.training | {"teacher": {"lr": 0.00003, "epochs": 1}})
    assert SPEC.key == turned.key == spelled.key
    assert SPEC == turned == spelled
    others = [
        replace(SPEC, encoder="minilm-l6"),
        replace(SPEC, task="mr"),
        replace(SPEC, method="svd"),
        replace(SPEC, version=2),
        replace(SPEC, budget=0.3),
        replace(SPEC, unit="encoder"),
        replace(SPEC, seed=4),
        replace(SPEC, options={"axis": "heads", "rescale": False}),
        replace(SPEC, training=SPEC.training | {"sees": {"examples": 8}}),
        replace(SPEC, training=SPEC.training | {"after": None}),
    ]
    assert len({spec.key for spec in [SPEC, *others]}) == 11


def test_a_spec_does_not_follow_later_changes_of_the_dict_it_was_made_from():
    options = {"axis": "heads"}
    spec = replace(SPEC, options=options)
    key = spec.key
    options["axis"] = "inputs"
    assert spec.options == {"axis": "heads"}
    assert replace(spec).key == key


@pytest.mark.parametrize("budget", [0, 1.1, -0.5, float("nan"), True])
def test_a_budget_outside_its_range_is_refused(budget):
    with pytest.raises(StudyError, match=r"budget in \(0, 1\]"):
        replace(SPEC, budget=budget)


@pytest.mark.parametrize("change", [{"seed": -1}, {"training": {"after": None}}])
def test_a_seed_or_training_of_another_form_is_refused(change):
    with pytest.raises(StudyError, match="wanted"):
        replace(SPEC, **change)


def test_a_record_comes_back_as_it_went(store):
    run = made()
    path = store.put(run)
    assert path == store.folder / f"mpnet-base/sst2/coreset/0.5-s3-{SPEC.key}.json"
    assert store.has(SPEC)
    assert store.get(SPEC) == run
    assert store.all() == [run]
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # nothing temporary stays
    examples = runs.unpack_examples(store.get(SPEC).per_example)
    assert (examples.pruned == ANSWERS).all()
    assert (examples.labels == LABELS).all()


def test_a_path_as_encoder_stays_inside_the_store(store):
    run = made(replace(SPEC, encoder="../../etc/enc oder", task="csv:/a/b.csv"))
    path = store.put(run)
    assert path.resolve().is_relative_to(store.folder.resolve())
    assert store.all() == [run]


def test_an_existing_record_is_never_written_over(store):
    path = store.put(made())
    before = path.read_bytes()
    with pytest.raises(StudyError, match="exists already"):
        store.put(made(seconds={"prune": 9.0}))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_store_without_hard_links_works_and_still_refuses(store, monkeypatch):
    def no_links(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    store.put(made())
    assert store.get(SPEC) == made()
    with pytest.raises(StudyError, match="exists already"):
        store.put(made())


def test_a_full_disk_leaves_no_half_record(store, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    kept = made(replace(SPEC, seed=7))
    store.put(kept)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StudyError, match="No space left on device") as refusal:
        store.put(made())
    assert "\n" not in str(refusal.value)
    assert SPEC.key in str(refusal.value)
    monkeypatch.undo()
    assert not store.has(SPEC)
    assert store.all() == [kept]
    assert not list(store.folder.rglob("*.tmp"))
    store.put(made())  # and the run can be made up for


def test_a_missing_record_is_named(store):
    with pytest.raises(StudyError, match=SPEC.key):
        store.get(SPEC)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: text[: len(text) // 2], "cannot be read"),
        (lambda text: "", "cannot be read"),
        (lambda text: "[1, 2]", "list"),
        (lambda text: text.replace('"seconds"', '"minutes"'), "minutes"),
        (lambda text: text.replace('"score": 0.875', '"score": 0.975'), "edited"),
        (lambda text: text.replace('"score": 0.875', '"score": NaN'), "nan"),
        (lambda text: text.replace('"seed": 3', '"seed": 4'), "edited"),
    ],
)
def test_a_corrupt_record_is_refused_by_name(store, change, why):
    store.put(made())
    path = edited(store, change)
    for read in (lambda: store.get(SPEC), store.all):
        with pytest.raises(StudyError, match=why) as refusal:
            read()
        assert str(path) in str(refusal.value)
        assert "\n" not in str(refusal.value)


def test_a_record_under_a_foreign_name_is_refused(store):
    path = store.put(made())
    other = store.path(replace(SPEC, seed=4))
    path.rename(other)
    for read in (lambda: store.get(replace(SPEC, seed=4)), store.all):
        with pytest.raises(StudyError, match="belongs at") as refusal:
            read()
        assert str(other) in str(refusal.value)


def test_a_record_that_lacks_a_measurement_is_refused_though_its_seal_holds(store):
    path = store.path(SPEC)
    files.write(files.record_of(made(kept={"attention": 0.5})), path, replace=False)
    with pytest.raises(StudyError, match="kept lacks") as refusal:
        store.get(SPEC)
    assert str(path) in str(refusal.value)


def test_a_foreign_file_is_refused_and_a_temporary_one_is_not_seen(store):
    path = store.put(made())
    path.with_name(f".{path.name}.1.tmp").write_text("half")
    assert len(store.all()) == 1
    (store.folder / "notes.json").write_text(json.dumps({"by": "somebody"}))
    with pytest.raises(StudyError, match=r"notes\.json"):
        store.all()


@pytest.mark.parametrize(
    "changes",
    [
        {"dense": {"score": 0.9}},
        {"kept": {"attention": 0.5}},
        {"per_example": {"metric": "accuracy"}},
        {"per_example": made().per_example | {"n": 30}},
        {"seconds": {"prune": float("nan")}},
        {"seconds": {"prune": float("inf")}},
        {"pruned": MEASURED | {"score": np.float32(0.5)}},
    ],
)
def test_an_incomplete_run_is_not_stored(store, changes):
    with pytest.raises(StudyError):
        store.put(made(**changes))
    assert not store.has(SPEC)


@pytest.mark.parametrize("classes", [2, 3, 200])
@pytest.mark.parametrize("n", [1, 8, 9, 872])
def test_labels_survive_packing(n, classes):
    values = np.random.default_rng(0).integers(0, classes, n)
    assert (runs.unpack_labels(runs.pack_labels(values, classes), n, classes) == values).all()
    with pytest.raises(ValueError, match="wanted"):
        runs.unpack_labels(runs.pack_labels(values, classes), n + 8, classes)


def test_a_label_outside_its_classes_is_refused():
    with pytest.raises(StudyError, match="below 2"):
        runs.pack_labels(np.array([0, 2]), 2)


def test_regression_answers_survive_packing_to_half_precision():
    values = np.linspace(0, 5, 101)
    back = runs.unpack_values(runs.pack_values(values), 101)
    assert np.abs(back - values).max() < 2e-3
    packed = runs.pack_examples("spearman", values, values, values[::-1], None)
    assert (runs.unpack_examples(packed).pruned == back[::-1]).all()


def test_timings_are_kept_apart_and_can_be_measured_again(store):
    shape = made().shape
    timing = Timing("mpnet-base", shape, {"batch": 1}, "cpu", {"dense": [0.2]}, {}, {})
    store.put(made())
    path = store.put_timing(timing)
    assert store.timings() == [timing]
    assert len(store.all()) == 1
    assert path.name.startswith(runs.shape_key(shape))
    again = replace(timing, seconds={"dense": [0.1]})
    with pytest.raises(StudyError, match="exists already"):
        store.put_timing(again)
    assert store.put_timing(again, replace=True) == path
    assert store.timings() == [again]
    with pytest.raises(StudyError, match="positive sample"):
        store.put_timing(replace(timing, seconds={"dense": []}))
    with pytest.raises(StudyError, match="positive sample"):
        store.put_timing(replace(timing, seconds={"dense": [0.0]}))


def test_fifteen_hundred_records_are_read_quickly(store, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)
    layer = {"heads": 12, "qk": 32, "vo": 32, "neurons": 3072}
    labels = np.random.default_rng(0).integers(0, 2, 872)
    heavy = {
        "shape": {"hidden": 768, "layers": [layer] * 12},
        "per_example": runs.pack_examples("accuracy", labels, labels, labels, 2),
    }
    for seed in range(1500):
        store.put(made(replace(SPEC, seed=seed), **heavy))
    seconds = []
    for _ in range(3):  # the best of three, for a busy machine
        start = time.process_time()
        assert len(store.all()) == 1500
        seconds.append(time.process_time() - start)
    assert min(seconds) < 4  # about 1 on a quiet machine


def test_a_trace_is_kept_and_a_run_without_one_has_no_such_field(store):
    assert '"trace"' not in store.put(made()).read_text()
    assert store.get(SPEC).trace == {}
    traced = made(replace(SPEC, seed=4), trace={"steps": [1, 2], "sparsity": [0.1, 0.5]})
    store.put(traced)
    assert store.get(traced.spec) == traced
