"""Does the token chapter ask for what was promised, and is what ran read as it was meant?"""

from dataclasses import replace

import made
import numpy as np
import pytest

from lib import claims, pruners, runs, study
from lib.claims import judging
from lib.claims.cells import timings_of
from lib.claims.quantities import QUANTITIES, Evidence, macs
from lib.measures import timings
from lib.models import encoder
from lib.runs import shape_key
from lib.tokens.costs import survivors

PUBLISHED = study.PROFILES["published"]
CLAIMS = {claim.key: claim for claim in claims.load() if claim.chapter == "tokens"}


def fits(specs, **select):
    return [s for s in specs if study.matches(s, select)]


def one(arm="ltp", budget=0.42, task="sst2", **more):
    pair = study.Pair("minilm-l6", task)
    return made.run(study.spec(PUBLISHED, arm, budget, unit="executed", pair=pair, **more))


# --- what is asked --------------------------------------------------------------------------------


@pytest.mark.parametrize(("task", "seeds"), [("sst2", 3), ("cola", 3), ("mrpc", 1), ("imdb", 1)])
def test_every_method_and_control_runs_on_every_task(task, seeds):
    specs = fits(study.specs("tokens", "published"), encoder="minilm-l6", task=task)
    for arm in ("power-bert", "ltp", "transkimmer", "top", "tokens-random", "tokens-first"):
        for budget in (0.42,) if task == "imdb" else (0.6, 0.42):
            cells = fits(specs, arm=arm, budget=budget, sees="own")
            assert sorted(s.seed for s in cells) == list(range(seeds))
            assert {s.unit for s in cells} == {"executed"}
            assert {s.training["after"] for s in cells} == {None}
    assert len(fits(specs, method="dense", after="none")) == 1


def test_the_larger_encoder_and_the_papers_own_points_are_there():
    specs = study.specs("tokens", "published")
    large = fits(specs, encoder="mpnet-base", unit="executed")
    controls = {"tokens-random", "tokens-first"}
    assert {study.arm_of(s) for s in large} == {"power-bert", "ltp"} | controls
    taught = fits(specs, arm="tokens-random-taught")
    tops = fits(specs, arm="top", task="sst2")
    assert {(s.budget, s.seed) for s in taught} == {(s.budget, s.seed) for s in tops}
    more = study.specs("tokens", "published", "more")
    assert [study.arm_of(s) for s in more] == ["dense", "power-bert", "ltp"]
    assert {(s.encoder, s.task, s.seed) for s in more} == {("minilm-l6", "mnli", 0)}
    assert len(fits(specs, arm=["transkimmer-free", "transkimmer-paper"])) == 6
    assert len(fits(specs, arm="ltp", budget=0.48, sees="own")) == 3
    assert len(fits(specs, arm="power-bert", task="cola", budget=0.22)) == 3


def test_long_reviews_are_2000_and_have_a_teacher_of_as_many():
    specs = fits(study.specs("tokens", "published"), task="imdb")
    trained = fits(specs, method="dense", after="steps")  # on, for as long as the methods
    assert [(s.training["after"]["steps"], s.training["after"]["batch"]) for s in trained] == [
        (250, 8)
    ]
    sees = [s.training["sees"] for s in specs if s.method != "dense"]
    assert all(each["steps"] * each["batch"] == 2000 for each in sees)
    assert all(s.training["teacher"]["epochs"] == 0.1 for s in specs)


def test_longer_trainings_are_told_from_the_others():
    longer = study.specs("tokens", "published", "longer")
    asked = [(study.arm_of(s), s.budget, s.seed, s.training["sees"]["steps"]) for s in longer]
    assert asked == [("power-bert", 0.42, 0, 1600), ("ltp", 0.48, 0, 1600)]
    assert {study.sees_of(s) for s in longer} == {"other"}
    every = study.specs("tokens", "published")
    assert {study.sees_of(s) for s in every if s not in longer} == {"own"}  # reviews' too
    asks = {claim.key for claim in CLAIMS.values() if set(judging._meant(longer, claim.select))}
    assert asks == {
        f"token.{m}-{what}" for m in ("powerbert", "ltp") for what in ("longer", "gains")
    }
    for claim in CLAIMS.values():  # no number of one kind counts for the other
        for select in filter(None, (claim.select, claim.versus)):
            assert len({study.sees_of(s) for s in judging._meant(every, select)}) == 1
    assert study.clocked(made.run(longer[0])) == []


def test_the_quick_study_is_two_methods_and_their_controls():
    specs = study.specs("tokens", "quick")
    arms = [study.arm_of(s) for s in specs]
    assert arms == ["dense", "power-bert", "ltp", "tokens-random", "tokens-first"]
    assert all(s.training["sees"]["steps"] == 60 for s in specs[1:])
    assert {(s.encoder, s.task) for s in specs} == {("minilm-l6", "mr")}


def test_a_fork_asks_for_its_own_pair_and_budgets():
    specs = study.specs("tokens", "published", encoder="mine", task="cola", budgets=[0.5], seeds=1)
    assert {(s.encoder, s.task) for s in specs} == {("mine", "cola")}
    assert {s.budget for s in specs if s.method != "dense"} == {0.5}
    p = study.profile("published", encoder="mine", task="cola")
    assert study.lead(p) == study.Pair("mine", "cola")
    assert study.lead(PUBLISHED) == study.Pair("minilm-l6", "sst2")


@pytest.mark.parametrize("name", study.PROFILES)
def test_every_spec_can_be_asked_of_its_method(name):
    for s in study.specs("tokens", name):
        if s.method != "dense":
            pruner = pruners.get(s.method, unit=s.unit, seed=s.seed, **s.own)
            assert pruner.version == s.version
        if s.unit == "executed":
            assert pruner.needs == "training"
            assert set(s.training["sees"]) == {"steps", "batch", "lengths"}


def test_both_roads_lead_to_the_same_work():
    specs = study.groups("tokens", "published")["stacked"]
    for arm in ("power-bert", "ltp"):
        both, alone = fits(specs, arm=f"kcm+{arm}"), fits(specs, arm=arm)
        assert [s.seed for s in both] == [s.seed for s in alone] == [0, 1, 2]
        assert {s.budget for s in both} == {s.budget for s in alone} == {0.3}
        assert [s.training for s in both] == [s.training for s in alone]
        assert {s.base for s in both} == set(fits(specs, arm="kcm"))
    kcm = study.specs("kcm", "published")
    assert set(fits(specs, arm="kcm")) <= set(kcm)  # one record serves both chapters


def test_dense_records_are_shared_with_the_other_chapters():
    mine, *others = (study.specs(chapter, "published") for chapter in ("tokens", "coreset", "cofi"))
    dense = {s for s in fits(mine, method="dense") if s.task != "imdb"}
    assert dense <= {s for part in others for s in part}


# --- what is timed --------------------------------------------------------------------------------


def test_a_run_is_timed_by_the_tokens_that_it_leaves():
    run = one()
    found = study.clocked(run)
    assert [protocol["batch"] for protocol in found] == [1, 32]
    depth = len(run.shape["layers"])
    for protocol in found:
        assert protocol["padding"] == 64
        forced = protocol["tokens"]["forced"]
        assert forced == sorted(forced, reverse=True)
        assert len(forced) == depth
        assert forced[0] <= protocol["length"]
    assert study.clocked(one(seed=1)) == []
    for asked in ({"budget": 0.6}, {"arm": "tokens-random"}, {"arm": "tokens-first"}):
        assert len(study.clocked(one(**asked))) == 2
    assert study.clocked(made.run(study.spec(PUBLISHED, "dense", 1.0))) == []
    assert study.clocked(one(task="imdb"))[0]["padding"] == 512


def test_a_timed_model_leaves_what_it_is_told(make_classifier, tmp_path, monkeypatch):
    make_classifier("bert", 2).save_pretrained(tmp_path)
    monkeypatch.setattr(timings.assets, "encoder_folder", lambda name: tmp_path)
    shape = encoder.shape(make_classifier("bert", 2))
    rule = {"rule": "threshold", "thresholds": [0.01] * 3, "forced": [8, 5, 2]}
    protocol = {"batch": 2, "length": 8, "padding": 16, "precision": "float32", "tokens": rule}
    seen = {}

    def latency(models, batches, rounds, precision):
        seen.update({name: (models[name], batches[name][0]) for name in models})
        return {name: [1.0] * rounds for name in models}

    monkeypatch.setattr(timings.costs, "latency", latency)
    (found,) = timings.compare([study.Clocked("tiny", shape.json(), protocol)], rounds=2)
    model, batch = seen["pruned 0"]
    (left,) = survivors(model, [batch])
    assert left.sum(-1)[0].tolist() == [8, 8, 5, 5, 2, 2]
    assert found.protocol["tokens"] == rule
    assert runs.Store(tmp_path / "store").put_timing(found).is_file()


# --- what is read ---------------------------------------------------------------------------------


def evidence(*found, cell="", timed=()):
    return Evidence(cell, found, (), found, tuple(timed))


def test_padding_and_pruning_are_read_from_what_ran():
    run = one(budget=0.42)
    counted = run.trace["tokens"]["macs"]
    padded = QUANTITIES["padding"].measure(evidence(run, cell=64))
    assert padded.value == pytest.approx(sum(macs(run.shape, 64).values()) / counted["dense"])
    pruned = QUANTITIES["pruning"].measure(evidence(run))
    assert pruned.value == pytest.approx(1 / run.kept["macs"])
    three = [one(budget=0.42, seed=seed) for seed in range(3)]
    found = QUANTITIES["pruning"].measure(evidence(*three))
    ratios = [1 / run.kept["macs"] for run in three]
    assert found.value == pytest.approx(np.mean(ratios))
    assert found.low < min(ratios)
    assert found.high > max(ratios)
    both = QUANTITIES["together"].measure(evidence(*three))
    whole = sum(macs(run.shape, 64).values())
    each = [whole / run.trace["tokens"]["macs"]["pruned"] for run in three]
    assert both.value == pytest.approx(np.mean(each))
    paper = one("transkimmer-paper", 0.5)
    assert QUANTITIES["pruning"].measure(evidence(paper)).value == 1
    assert QUANTITIES["claimed"].measure(evidence(paper)).value > 1.9
    dense = made.run(study.spec(PUBLISHED, "dense", 1.0))
    for name in ("padding", "pruning", "claimed", "together"):
        assert QUANTITIES[name].measure(evidence(dense, cell=64)) == "no record of what ran"


def test_speed_is_that_of_a_run_s_own_tokens():
    run, other = one("ltp"), one("top")
    timed = made.timings([run])
    found = QUANTITIES["token-speedup"].measure(evidence(run, timed=timed))
    assert found.value > 1.2
    (batched,) = [t for t in timed if t.protocol["batch"] == 32]
    padded = QUANTITIES["padded-speedup"].measure(evidence(run, timed=[batched]))
    assert padded.value == pytest.approx(
        np.median(batched.seconds["dense_padded"]) / np.median(batched.seconds["pruned"])
    )
    lost = QUANTITIES["token-speedup"].measure(evidence(run, timed=made.timings([other])))
    assert "make timings" in lost


def test_timings_of_dropped_tokens_and_of_shapes_are_kept_apart():
    run = one()
    dense = made.run(study.spec(PUBLISHED, "dense", 1.0, pair=study.Pair("minilm-l6", "sst2")))
    timed = made.timings([run, dense])
    assert shape_key(run.shape) == shape_key(dense.shape)
    protocol = {"batch": 32, "precision": "float32"}
    plain = timings_of(timed, "minilm-l6", protocol)
    dropped = timings_of(timed, "minilm-l6", protocol, tokens=True)
    assert plain
    assert dropped
    assert not any("tokens" in timing.protocol for timing in plain)
    assert all("tokens" in timing.protocol for timing in dropped)


def test_the_chapter_s_claims_are_judged_on_a_whole_store():
    p = replace(PUBLISHED, seeds=(0, 1, 2))
    specs = study.specs("tokens", p)
    by_spec = {s: made.run(s, examples=200) for s in specs}
    timed = made.timings(by_spec.values())
    for claim in CLAIMS.values():
        found = claims.judge(claim, p, specs, by_spec, timed, {})
        assert found
        for finding in found:
            assert finding.verdict != claims.Verdict.UNTESTED, (claim.key, finding.note)
