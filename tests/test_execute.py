"""Does a spec become a run: teacher, pruner, fine-tuning, measurement - and only once?"""

import json
import shutil
import time
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from lib import assets, bench, devices, execute, pruners, runs, study
from lib.book import pages
from lib.errors import StudyError
from lib.models import encoder
from lib.probes import formats, rankings
from lib.training import teachers

WORDS = {"good": range(5, 25), "bad": range(25, 45)}


@pytest.fixture
def place(tmp_path, monkeypatch, make_classifier, digits):
    """A tiny pretrained encoder in a folder, a CSV task, and caches of their own."""
    monkeypatch.setattr(assets, "CACHE", tmp_path / "cache")
    encoder = tmp_path / "tiny"
    make_classifier("bert", 2).bert.save_pretrained(encoder)
    digits.save_pretrained(encoder)
    draw, rows = np.random.default_rng(0), ["text,label"]
    for number in range(160):
        label = "good" if number % 2 else "bad"
        words = draw.choice(WORDS[label], draw.integers(3, 9))
        rows.append(" ".join(f"t{word}" for word in words) + f",{label}")
    (tmp_path / "data.csv").write_text("\n".join(rows))
    return tmp_path


TEACH = {"steps": 40, "batch": 16, "lr": 5e-3, "precision": "float32"}


@pytest.fixture
def spec(place):
    return runs.Spec(
        encoder=str(place / "tiny"),
        task=f"csv:{place / 'data.csv'}",
        method="magnitude",
        version=study.VERSIONS["magnitude"],
        budget=0.5,
        unit="attention",
        seed=0,
        options={},
        training={"teacher": TEACH, "sees": None, "after": None},
    )


@pytest.fixture
def store(place):
    return runs.Store(place / "runs")


def test_a_run_is_a_teacher_made_smaller(spec, store):
    [run] = execute.obtain([spec], store)
    assert run.dense["score"] > 0.9  # the task can be learned
    assert run.kept["attention"] == pytest.approx(0.5, abs=0.02)
    assert run.kept["encoder"] == run.nonzero["encoder"] < 1
    assert run.pruned["encoder_params"] < run.dense["encoder_params"]
    assert {layer["qk"] for layer in run.shape["layers"]} == {3}
    answers = runs.unpack_examples(run.per_example)
    assert np.mean(answers.pruned == answers.labels) == pytest.approx(run.pruned["score"])
    assert {"teacher", "prune", "evaluate"} == set(run.seconds)
    assert len(run.provenance["sha256"]["teacher"]) == 64
    assert run.provenance["precision"] == devices.precision("bfloat16", devices.device())
    assert run.provenance["claims"]


def test_a_record_names_the_precision_that_was_really_used(spec, store, monkeypatch):
    bfloat16 = spec.training | {"teacher": TEACH | {"steps": 2, "precision": "bfloat16"}}
    for seed, (pays, used) in enumerate([(True, "bfloat16"), (False, "float32")]):
        monkeypatch.setattr(devices, "bfloat16_pays", lambda device, pays=pays: pays)
        asked = replace(spec, seed=seed, training=bfloat16)
        [run] = execute.obtain([asked], store)
        assert run.provenance["precision"] == used
        assert run.spec.key == asked.key


def test_what_is_on_record_is_read_and_not_computed_again(spec, store, monkeypatch):
    [first] = execute.obtain([spec], store)
    monkeypatch.setattr(bench, "perform", lambda *_: pytest.fail("computed again"))
    assert execute.obtain([spec, spec], store) == [first, first]


@pytest.mark.parametrize("compute", [True, False])
@pytest.mark.parametrize("name", ["data.csv", "tiny/model.safetensors"])
def test_a_record_of_a_file_that_has_changed_is_refused(spec, store, place, name, compute):
    execute.obtain([spec], store)
    file, old = place / name, (place / name).read_bytes()
    file.write_bytes(old.replace(b"t5 ", b"t6 ") if name == "data.csv" else old + b" ")
    with pytest.raises(StudyError, match=rf"^{file} has changed since {store.path(spec)} was rec"):
        execute.obtain([spec], store, compute)
    file.write_bytes(old)
    assert len(execute.obtain([spec], store, compute)) == 1
    file.unlink()  # what was recorded of it still stands
    assert len(execute.obtain([spec], store, compute)) == 1


def test_without_computing_a_missing_record_is_named(spec, store):
    with pytest.raises(StudyError, match=rf"1 of 1 runs are not on record.*{spec.key}"):
        execute.obtain([spec], store, compute=False)


def test_a_failing_run_loses_none_before_it(spec, store):
    bad = replace(spec, method="nonesuch")
    with pytest.raises(StudyError, match="nonesuch"):
        execute.obtain([spec, bad], store)
    assert store.has(spec)
    assert not store.has(bad)


def test_the_teacher_is_trained_once_and_by_content(spec, store, monkeypatch):
    execute.obtain([spec], store)
    made = list((assets.CACHE / "teachers").glob("*/model.safetensors"))
    assert len(made) == 1
    monkeypatch.setattr(teachers, "_train", lambda *_: pytest.fail("trained again"))
    execute.obtain([replace(spec, budget=0.9)], store)
    other = spec.training | {"teacher": TEACH | {"steps": 41}}
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        execute.obtain([replace(spec, training=other)], store)


def test_a_killed_training_leaves_no_teacher_behind(spec, store, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("transformers.PreTrainedModel.save_pretrained", killed)
        with pytest.raises(KeyboardInterrupt):
            execute.obtain([spec], store)
    assert not list((assets.CACHE / "teachers").glob("*/teacher.json"))
    assert not list((assets.CACHE / "teachers").glob("*.new"))


def test_what_a_kill_left_of_a_teacher_is_cleared_away(spec, store):
    execute.obtain([spec], store)
    [made] = (assets.CACHE / "teachers").glob("*/teacher.json")
    shutil.rmtree(made.parent)
    left = made.parent.with_name(f"{made.parent.name}.1.new")
    left.mkdir()
    execute.obtain([replace(spec, budget=0.9)], store)
    assert made.is_file()
    assert not left.exists()


def test_of_dropped_tokens_what_really_ran_is_on_record(spec, store):
    sees = {"steps": 6, "batch": 16, "lengths": "reported"}
    dropping = replace(
        spec,
        method="power-bert",
        version=study.VERSIONS["power-bert"],
        unit="executed",
        training=spec.training | {"sees": sees},
    )
    [run] = execute.obtain([dropping], store)
    ran = run.trace["tokens"]
    assert run.kept["macs"] == pytest.approx(ran["macs"]["pruned"] / ran["macs"]["dense"], abs=1e-6)
    assert 0.3 < run.kept["macs"] < 0.6
    assert run.kept["encoder"] == 1  # no weight is gone
    assert ran["macs"]["dense"] < ran["macs"]["padded"]
    assert ran["rule"]["lengths"] == sorted(ran["rule"]["lengths"], reverse=True)
    assert {"searching", "settling", "reached"} <= set(run.trace)
    assert store.get(dropping) == run


def test_a_token_method_reads_texts_as_long_as_the_reported_ones(spec):
    it = bench.prepare(spec)
    it.__dict__["lengths"] = [7]
    pruner = pruners.get("power-bert")
    for lengths, wanted in ({}, False), ({"lengths": "reported"}, True):
        sees = {"steps": 4, "batch": 8} | lengths
        asked = replace(spec, method="power-bert", training=spec.training | {"sees": sees})
        read = [b["attention_mask"].sum(1) for b in bench._data(pruner, asked, it)]
        assert all((n == 7).all() for n in read) == wanted
    sees = {"steps": 4, "batch": 8, "lengths": "other"}
    asked = replace(spec, method="power-bert", training=spec.training | {"sees": sees})
    with pytest.raises(StudyError, match="unknown lengths of training"):
        list(bench._data(pruner, asked, it))


def test_a_model_is_pruned_on_top_of_another(spec, store):
    first = replace(
        spec,
        method="kcm",
        unit="macs",
        budget=0.7,
        training=spec.training | {"sees": {"examples": 32, "batch": 16}},
    )
    sees = {"steps": 6, "batch": 16}
    training = spec.training | {"sees": sees}
    own = {"method": "power-bert", "version": study.VERSIONS["power-bert"]}
    tokens = replace(spec, **own, unit="executed", budget=0.35, training=training)
    both = replace(tokens, options={"base": first.as_base()})
    assert both.base == first
    assert both.label.startswith(f"{spec.encoder} {spec.task} kcm 0.7 + power-bert 0.35")
    alone, run, after = execute.obtain([first, both, replace(both, seed=1)], store)
    assert run.shape == alone.shape  # tokens leave the shape as the base left it
    assert run.kept["encoder"] == alone.kept["encoder"] < 1
    ran = run.trace["tokens"]["macs"]
    assert run.kept["macs"] == pytest.approx(ran["pruned"] / ran["dense"], abs=1e-6)
    assert 0.2 < run.kept["macs"] < 0.5  # of the teacher, not of the base
    assert ran["dense"] == execute.obtain([tokens], store)[0].trace["tokens"]["macs"]["dense"]
    assert run.seconds["base"] > 0
    assert after.spec.base == replace(first, seed=1)
    assert store.get(both) == run


def test_a_small_task_s_whole_training_split_is_read_and_said_so(spec, store):
    sees = {"examples": 5000, "batch": 16}
    asked = replace(
        spec, method="kcm", unit="macs", budget=0.7, training=spec.training | {"sees": sees}
    )
    few = replace(asked, training=spec.training | {"sees": sees | {"examples": 32}})
    plain, short, whole = execute.obtain([spec, asked, few], store)
    assert "examples_read" not in plain.provenance  # it reads none
    assert 32 < short.provenance["examples_read"] < 160
    assert short.provenance["examples_read"] == len(bench.prepare(asked).train)
    assert whole.provenance["examples_read"] == 32
    read = short.provenance["examples_read"]
    assert pages._short([plain, short, whole]) == f"{read} of 5000 sentences"
    place = {"encoder": spec.encoder, "task": spec.task, "seed": 0, "teacher": TEACH}
    arms = {score: {"method": "ffn", "options": {"score": score}} for score in ("output", "rms")}
    ranked = rankings.answer(**place, sees=sees, arms=arms, versions={})
    assert ranked["examples_read"] == read


def test_what_the_weights_say_is_computed_once_and_paid_by_every_run(spec, monkeypatch):
    sees = {"examples": 32, "batch": 16}
    asked = replace(
        spec, method="kcm", unit="macs", budget=0.7, training=spec.training | {"sees": sees}
    )
    kind, calls = type(pruners.get("kcm")), []
    it, real = bench.prepare(spec), kind._r2

    def slow(self, model):
        calls.append(self.kernel)
        time.sleep(0.2)
        return real(self, model)

    monkeypatch.setattr(kind, "_r2", slow)
    again = [asked, replace(asked, budget=0.8), replace(asked, seed=1)]
    found = [bench.perform(one, it) for one in again]
    assert len(calls) == 1
    assert all(run.trace["seconds"]["r2"] >= 0.2 for run in found)
    assert all(run.seconds["score"] >= run.trace["seconds"]["r2"] for run in found)
    assert all(run.trace["process_peak_bytes"] > 0 for run in found)
    bench.perform(replace(asked, options={"kernel": "s2"}), it)
    assert calls == ["2s2", "s2"]
    alone = bench.perform(replace(asked, seed=1), bench.prepare(spec))  # with nothing at hand
    assert len(calls) == 3
    assert alone.per_example == found[2].per_example
    assert alone.shape == found[2].shape


def test_formats_are_scored_and_timed_as_they_are(spec, monkeypatch):
    """The probe that puts number formats beside pruning."""
    monkeypatch.setattr(formats, "SHOWN", 2)
    place = {"encoder": spec.encoder, "task": spec.task, "seed": 0, "teacher": TEACH}
    first = replace(spec, method="kcm", unit="macs", budget=0.7)
    first = replace(first, training=spec.training | {"sees": {"examples": 32, "batch": 16}})
    found = formats.answer(**place, pruned=first.as_base(), rounds=2)
    json.dumps(found, allow_nan=False)
    cells = {(cell["model"], cell["format"]): cell for cell in found["cells"]}
    assert list(cells) == list(product(("dense", "pruned"), ("float32", "bfloat16", "int8")))
    assert 0.5 < found["kept"] <= 0.7
    whole = cells["dense", "float32"]
    assert whole["score"] > 0.9
    assert (whole["drop"], whole["speed"]) == ([0, 0, 0], [1, 1, 1])
    for cell in cells.values():
        lost, low, high = cell["drop"]
        assert lost == pytest.approx(whole["score"] - cell["score"], abs=1e-5)
        assert low <= lost <= high
        slow, middle, fast = sorted(cell["speed"])
        assert [middle, slow, fast] == cell["speed"]


def test_a_base_that_is_fine_tuned_is_fine_tuned_first(spec, store):
    after = {"steps": 5, "batch": 16, "lr": 1e-3, "precision": "float32"}
    tuned = replace(spec, training=spec.training | {"after": after})
    kept = {"method": "dense", "budget": 1.0, "training": spec.training | {"sees": None}}
    one, two = (replace(spec, options={"base": s.as_base()}, **kept) for s in (spec, tuned))
    runs = execute.obtain([spec, tuned, one, two], store)
    for base, same in zip(runs[:2], runs[2:], strict=True):
        assert same.per_example == base.per_example
        assert same.shape == base.shape
    assert runs[0].per_example["pruned"] != runs[1].per_example["pruned"]


@pytest.mark.parametrize(
    ("change", "budget", "wanted"),
    [
        ({}, 0.9, r"wanted 0\.9 of attention, but .* leaves 0\.5"),
        ({"method": "unstructured"}, 0.2, "merely zeroes weights"),
    ],
)
def test_a_base_that_cannot_bear_another_method_is_refused(spec, store, change, budget, wanted):
    first = replace(spec, **{"budget": 0.5, "options": {}} | change)
    both = replace(spec, method="magnitude", budget=budget, options={"base": first.as_base()})
    with pytest.raises(StudyError, match=wanted):
        execute.obtain([both], store)


def test_a_base_is_named_whole(spec):
    with pytest.raises(StudyError, match="wanted a base with method, version"):
        replace(spec, options={"base": {"method": "kcm"}})


def test_fine_tuning_after_keeps_the_shape_and_moves_the_weights(spec, store):
    after = {"steps": 5, "batch": 16, "lr": 1e-3, "precision": "float32"}
    tuned = replace(spec, training=spec.training | {"after": after})
    plain, moved = execute.obtain([spec, tuned], store)
    assert plain.shape == moved.shape
    assert plain.kept == moved.kept
    assert moved.seconds["finetune"] > 0
    assert "finetune" not in plain.seconds


def test_zeros_survive_fine_tuning(spec, store):
    after = {"steps": 5, "batch": 16, "lr": 1e-3, "precision": "float32"}
    zeroed = replace(
        spec,
        method="unstructured",
        version=study.VERSIONS["unstructured"],
        training=spec.training | {"after": after},
    )
    [run] = execute.obtain([zeroed], store)
    assert run.kept["attention"] == 1
    assert run.nonzero["attention"] == pytest.approx(0.5, abs=0.03)


def test_a_method_sees_only_what_it_declares(spec, store, monkeypatch):
    """Labels never reach a method that needs only examples."""
    seen = []

    class Spy:
        version, compact, needs, stochastic = 1, True, "examples", False
        units, unit, seed = ("attention",), "attention", 0

        def __call__(self, model, data, budget):
            seen.extend(data)
            return bench.dense(model)

    monkeypatch.setattr(bench.pruners, "get", lambda *_, **__: Spy())
    sees = {"examples": 40, "batch": 16}
    asked = replace(spec, version=1, training=spec.training | {"sees": sees})
    execute.obtain([asked], store)
    assert sum(len(batch["input_ids"]) for batch in seen) == 40
    assert all("labels" not in batch for batch in seen)
    with pytest.raises(StudyError, match="sees"):
        execute.obtain([replace(spec, version=1)], store)


def test_a_stale_version_is_refused(spec, store):
    with pytest.raises(StudyError, match="at version"):
        execute.obtain([replace(spec, version=99)], store)


def test_scores_that_know_no_budget_are_computed_once_and_charged_to_every_run(
    spec, store, monkeypatch
):
    from lib.pruners import gradient

    calls, real = [], gradient.sensitivities
    monkeypatch.setattr(gradient, "sensitivities", lambda *a: calls.append(1) or real(*a))
    asked = replace(
        spec,
        method="gradient",
        options={"reading": "michel"},
        training=spec.training | {"sees": {"examples": 32, "batch": 16}},
    )
    few, many = execute.obtain([asked, replace(asked, budget=0.75)], store)
    assert len(calls) == 1
    assert few.seconds["score"] == many.seconds["score"] > 0
    [alone] = execute.obtain([replace(asked, budget=0.75)], runs.Store(store.folder / "other"))
    assert len(calls) == 2
    assert alone.per_example == many.per_example


COFI = {"reg_lr": 1.0, "lr": 1e-3}
TUNED = {"steps": 6, "batch": 16, "lr": 1e-3, "precision": "float32", "selections": 2}


@pytest.fixture
def cofi(spec):
    return replace(
        spec,
        method="cofi",
        version=study.VERSIONS["cofi"],
        budget=0.4,
        unit="parameters",
        options=COFI,
        training={
            "teacher": TEACH,
            "sees": {"steps": 40, "batch": 16},
            "after": TUNED | {"distil": {"prediction": 0.1, "layers": 0.9}},
        },
    )


def test_a_method_that_trains_for_long_leaves_its_trace_and_no_checkpoint(cofi, store):
    [run] = execute.obtain([cofi], store)
    assert run.trace["realised"] == pytest.approx(1 - run.kept["encoder"], abs=1e-5)
    assert [step for step, _ in run.trace["finetune"]["selection"]] == [3, 6]
    assert run.trace["scores"][-1][0] == run.trace["taken"]  # its last step: the target was met
    assert {"prune", "finetune"} < set(run.seconds)
    assert not list((assets.CACHE / "checkpoints").glob("*"))
    assert execute.obtain([cofi], store, compute=False) == [run]


@pytest.mark.parametrize("phase", ["prune", "finetune"])
def test_a_killed_run_goes_on_from_its_checkpoint(cofi, store, place, monkeypatch, phase):
    from lib.training import checkpoints

    [straight] = execute.obtain([cofi], runs.Store(place / "straight"))
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    real, saved = checkpoints.Keeper.save, []

    def save(keeper, *state):
        real(keeper, *state)
        saved.append(keeper.file.stem)
        if saved.count(phase) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Keeper, "save", save)
        with pytest.raises(KeyboardInterrupt):
            execute.obtain([cofi], store)
    assert list((assets.CACHE / "checkpoints").glob("*/*"))
    [resumed] = execute.obtain([cofi], store)
    assert resumed.per_example == straight.per_example
    assert resumed.trace == straight.trace
    assert resumed.shape == straight.shape
    assert not list((assets.CACHE / "checkpoints").glob("*"))


def test_a_student_may_begin_as_the_pretrained_encoder(cofi, store, place):
    asked = replace(cofi, options=COFI | {"start": "pretrained", "before": 0.25})
    [run] = execute.obtain([asked], store)
    assert run.trace["curve"][0][0] > 10
    own, again, other = (bench._pretrained(it) for it in (asked, asked, replace(asked, seed=1)))
    assert torch.equal(own.classifier.weight, again.classifier.weight)
    assert not torch.equal(own.classifier.weight, other.classifier.weight)
    source = encoder.load(place / "tiny", ("bad", "good"))
    torch.testing.assert_close(own.bert.encoder.state_dict(), source.bert.encoder.state_dict())


@pytest.fixture
def kcm(spec):
    sees = {"examples": 32, "batch": 16}
    training = spec.training | {"sees": sees}
    return replace(spec, method="kcm", version=1, unit="macs", budget=0.8, training=training)


def test_budgets_of_macs_are_counted_at_the_tasks_own_length(kcm, spec, store):
    run, plain = execute.obtain([kcm, spec], store)
    tokens = run.provenance["macs_tokens"]
    assert 3 <= tokens <= 8  # words of a sentence, and no special token of this tokenizer
    assert tokens == round(tokens, 2)
    assert 0.78 < run.kept["macs"] <= 0.8
    assert run.kept["macs"] == pytest.approx(run.pruned["macs"] / run.dense["macs"], abs=1e-3)
    shapes = [layer["neurons"] for layer in run.shape["layers"]]
    assert 0 < sum(shapes) < 120
    assert run.trace["seconds"].keys() == {"r2", "d2", "scale"}
    assert len(run.trace["layer_errors"]) == 3
    assert "tokens" not in run.spec.options
    assert plain.provenance["macs_tokens"] == bench.MACS_TOKENS == 128
    assert plain.dense["macs"] > run.dense["macs"]
    [given] = execute.obtain([replace(kcm, options={"tokens": 30})], store)
    assert given.provenance["macs_tokens"] == 30


def test_calibration_may_come_from_another_task(kcm, store, place):
    other = place / "other.csv"
    other.write_text((place / "data.csv").read_text().replace("t1", "t2"))
    sees = {"examples": 32, "batch": 16, "task": f"csv:{other}"}
    away = replace(kcm, training=kcm.training | {"sees": sees})
    home, foreign = execute.obtain([kcm, away], store)
    assert home.trace["layer_errors"] != foreign.trace["layer_errors"]
    assert foreign.provenance["sha256"]["sees"] != foreign.provenance["sha256"]["data"]
    assert "sees" not in home.provenance["sha256"]
    labels = replace(away, method="mask-tuning")
    with pytest.raises(StudyError, match="its labels mean nothing to"):
        execute.obtain([labels], store)
