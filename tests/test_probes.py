"""Do the probes answer what they are asked, by oracles where there are any?"""

import json
from dataclasses import replace
from itertools import combinations

import made
import numpy as np
import pytest
import torch
from scipy.stats import rankdata, spearmanr

from lib import claims, execute, probes, runs, study
from lib.claims import Verdict
from lib.errors import StudyError
from lib.probes import hull, norms, rankings, vision
from lib.runs import Question, Store

QUICK = study.PROFILES["quick"]
HULL = Question(
    "hull",
    hull.VERSION,
    {
        "points": 20,
        "dimensions": [2, 3],
        "curve": {"dimensions": [2, 4, 6], "points": [12, 24]},
        "kernel": {"points": 16, "dimensions": [2, 8]},
        "rounds": 1,
        "seed": 0,
    },
)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "runs")


# --- records --------------------------------------------------------------------------------------


def test_an_answer_comes_back_as_it_went_and_is_never_written_over(store):
    probe = made.probe(HULL)
    path = store.put_probe(probe)
    assert path == store.folder / "probes" / "hull" / f"{HULL.key}.json"
    assert store.answers(HULL)
    assert store.probe(HULL).values == json.loads(json.dumps(probe.values))
    assert store.probe(HULL).question == HULL
    with pytest.raises(StudyError, match="exists already"):
        store.put_probe(replace(probe, values={"other": 1}))
    assert store.all() == []  # no run among them
    assert store.timings() == []


def test_a_question_s_key_is_its_meaning():
    same = Question("hull", hull.VERSION, dict(reversed(HULL.parameters.items())))
    assert same == HULL
    assert hash(same) == hash(HULL)
    assert Question("hull", hull.VERSION + 1, HULL.parameters).key != HULL.key
    assert Question("hull", hull.VERSION, HULL.parameters | {"seed": 1}).key != HULL.key


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: text.replace('"facets"', '"facades"'), "edited"),
        (lambda text: text[:-40], "cannot be read"),
        (lambda text: text.replace('"values"', '"value"'), "foreign fields"),
    ],
)
def test_a_corrupt_answer_is_refused_by_name(store, change, why):
    path = store.put_probe(made.probe(HULL))
    path.write_text(change(path.read_text()))
    with pytest.raises(StudyError, match=why) as refusal:
        store.probe(HULL)
    assert str(path) in str(refusal.value)


def test_an_answer_without_values_or_of_another_question_is_refused(store):
    with pytest.raises(StudyError, match="at least one value"):
        store.put_probe(replace(made.probe(HULL), values={}))
    path = store.put_probe(made.probe(HULL))
    other = Question("hull", hull.VERSION, HULL.parameters | {"seed": 1})
    path.rename(path.with_name(f"{other.key}.json"))
    with pytest.raises(StudyError, match="belongs at"):
        store.probe(other)


def test_a_missing_answer_is_named_where_nothing_is_computed(store):
    with pytest.raises(StudyError, match=f"1 of 1 answers.*{HULL.key}"):
        execute.answer([HULL], store, compute=False)
    with pytest.raises(StudyError, match="make study"):
        store.probe(HULL)


def test_what_is_missing_is_computed_once(store, monkeypatch):
    asked = []
    monkeypatch.setattr(probes, "answer", lambda q: asked.append(q) or made.probe(q))
    first = execute.answer([HULL, HULL], store)
    assert execute.answer([HULL], store)[0] == first[0] == first[1]
    assert asked == [HULL]


def test_unknown_questions_and_versions_are_refused_in_one_line():
    with pytest.raises(StudyError, match="unknown question 'hul'; did you mean hull"):
        probes.answer(Question("hul", 1, {}))
    with pytest.raises(StudyError, match="hull is at version 2, the study asks for 3"):
        probes.answer(replace(HULL, version=3))


def test_every_question_of_the_study_has_its_file():
    for chapter in study.CHAPTERS:
        for profile in study.PROFILES:
            for question in study.questions(chapter, profile):
                assert question.name in probes.names()


# --- claims about them ----------------------------------------------------------------------------


def judged(key: str, probe: runs.Probe | None) -> claims.Finding:
    [claim] = [claim for claim in claims.load() if claim.key == key]
    [finding] = claims.judge(claim, QUICK, [], {}, [], {HULL: "Too dear."}, {HULL: probe})
    return finding


def test_a_claim_may_rest_on_an_answer():
    probe = made.probe(HULL)
    grown = {"3": 4.0, "4": [2.5, 1.9, 3.1], "5": 1.5}
    finding = judged("kcm.hull", replace(probe, values=probe.values | {"facets_growth": grown}))
    by_cell = {cell.cell: cell for cell in finding.cells}
    assert list(by_cell) == [3, 4, 5]  # cells that were not asked for are left out
    assert [cell.verdict for cell in by_cell.values()] == [
        Verdict.REPRODUCED,
        Verdict.INCONCLUSIVE,
        Verdict.NOT_REPRODUCED,
    ]
    assert (by_cell[4].low, by_cell[4].high) == (1.9, 3.1)
    assert (finding.encoder, finding.task) == (QUICK.encoder, QUICK.task)


def test_without_an_answer_the_claim_is_untested_and_says_why():
    finding = judged("kcm.hull", None)
    assert finding.verdict is Verdict.UNTESTED
    assert {cell.measured for cell in finding.cells} == {None}
    assert finding.note == "Too dear."
    [claim] = [claim for claim in claims.load() if claim.key == "kcm.hull"]
    [finding] = claims.judge(claim, QUICK, [], {}, [], {})
    assert finding.note == "the profile quick does not ask"


# --- hulls ----------------------------------------------------------------------------------------


def test_hulls_are_counted_and_the_kernel_form_is_timed():
    found = probes.answer(HULL)
    assert found.provenance["claims"] == claims.digest()
    values = found.values
    json.dumps(values, allow_nan=False)
    # The upper bound theorem: no hull has more facets than that of points on the moment curve.
    assert values["curve"]["2"] == [12, 24]
    assert values["curve"]["4"] == [n * (n - 3) // 2 for n in (12, 24)]
    assert values["curve"]["6"] == [n * (n - 4) * (n - 5) // 6 for n in (12, 24)]
    assert values["power"]["4"] == pytest.approx(np.log2(24 * 21 / (12 * 9)))
    assert values["facets_growth"]["3"] == values["facets"][1] / values["facets"][0]
    assert values["facets"][0] == values["vertices"][0]  # of a polygon
    assert set(values["kernel_growth"]) == {"2", "8"}
    assert values["kernel_growth"]["2"] == 1


def test_a_plane_hull_is_that_of_brute_force():
    cloud = np.random.default_rng(0).standard_normal((20, 2))
    edges = 0
    for a, b in combinations(range(20), 2):
        normal = np.array([[0, -1], [1, 0]]) @ (cloud[b] - cloud[a])
        sides = np.delete(cloud - cloud[a], (a, b), axis=0) @ normal
        edges += (sides > 0).all() or (sides < 0).all()
    assert hull.answer(**HULL.parameters)["facets"][0] == edges


# --- rankings and norms ---------------------------------------------------------------------------


def test_correlations_are_spearman_s_over_all_filters_and_by_layer():
    draw = np.random.default_rng(1)
    a, b = draw.standard_normal((2, 3, 40))
    assert rankings._overall(a, b) == pytest.approx(spearmanr(a.ravel(), b.ravel()).statistic)
    each = [spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    assert rankings._within(a, b) == pytest.approx(np.mean(each))
    shifted = a * np.array([[1], [100], [1]]) + np.array([[0], [500], [0]])
    assert rankings._within(a, shifted) == pytest.approx(1)
    assert rankings._overall(a, shifted) < 0.9
    assert rankings._overall(a, np.ones_like(a)) == 0
    assert np.array_equal(rankdata([1, 1, 2]), [1.5, 1.5, 3])


def test_every_ranked_arm_scores_every_filter(bert, batch):
    [question] = [q for q in study.questions("kcm", QUICK) if q.name == "rankings"]
    data = [batch, {name: tensor.flip(0) for name, tensor in batch.items()}]
    ranks = {
        name: rankings._ranks(bert, 7.0, arm, data, 0)
        for name, arm in question.parameters["arms"].items()
    }
    assert {scores.shape for scores in ranks.values()} == {(3, 40)}
    assert all(np.ptp(scores) > 0 for scores in ranks.values())
    # rms and energy order a layer alike, by what they are
    assert rankings._within(ranks["ffn-rms"], ranks["ffn-energy"]) == pytest.approx(1)


def test_a_reading_of_r2_is_followed_layer_by_layer():
    draw = torch.Generator().manual_seed(0)
    rows = [torch.randn(12, 5, generator=draw, dtype=torch.float64) for _ in range(2)]
    lengths = [layer.norm(dim=1) for layer in rows]
    printed = norms._reading(rows, lengths, "2s2", "signed")
    assert printed["updates"] == [1, 1]
    kernel = torch.exp(-torch.cdist(rows[0], rows[0]).square() / 2)
    closed = 1 / (12 * kernel.mean(1).sqrt())
    assert printed["by_layer"][0] == pytest.approx(spearmanr(closed, lengths[0]).statistic)
    longer = norms._reading(rows, lengths, "2s2", "l1")
    assert all(count > 1 for count in longer["updates"])
    assert -1 <= longer["overall"] <= 1


# --- images ---------------------------------------------------------------------------------------


def test_every_patch_is_a_word_of_its_own_pixels():
    words, (train, labels), (test, truth) = vision._digits()
    assert train.shape[1] == test.shape[1] == 17
    assert (len(labels), len(truth)) == (len(train), vision.HELD_OUT)
    assert (train[:, 0] == 0).all()
    assert words[0].tolist() == [1, 0, 0, 0, 0]
    assert (words[1:, 0] == 0).all()
    assert len(words[1:].unique(dim=0)) == len(words) - 1
    from sklearn.datasets import load_digits

    totals = words[:, 1:].sum(1)[torch.cat([train, test])].sum(1) - 0
    pixels = torch.tensor(load_digits().images.sum((1, 2)) / 16, dtype=torch.float32)
    assert torch.allclose(totals.sort().values, pixels.sort().values, atol=1e-4)


def test_a_lead_is_paired_and_wider_where_seeds_disagree():
    above = [np.array([True] * 90 + [False] * 10)] * 3
    below = [np.array([True] * 80 + [False] * 20)] * 3
    value, low, high = vision._lead(above, below)
    error = np.sqrt(0.1 * 0.9 / 99)
    assert value == pytest.approx(0.1)
    assert (low, high) == pytest.approx((0.1 - 1.96 * error, 0.1 + 1.96 * error), abs=1e-3)
    apart = [np.array([True] * n + [False] * (100 - n)) for n in (60, 80, 100)]
    _, wide, _ = vision._lead(above, apart)
    assert wide < low - 0.1
    assert vision._lead(above, above) == [0, 0, 0]


@pytest.mark.slow
def test_a_transformer_of_images_is_trained_pruned_and_scored(monkeypatch):
    monkeypatch.setattr(vision, "WIDTHS", vision.WIDTHS | {"num_hidden_layers": 1})
    before = torch.random.get_rng_state()
    asked = {"epochs": 6, "seeds": [0], "budgets": [0.9, 0.6], "calibration": 64, "versions": {}}
    found = vision.answer(**asked)
    assert torch.equal(torch.random.get_rng_state(), before)
    json.dumps(found, allow_nan=False)
    assert found["dense"][0] > 0.15  # chance is one in ten
    assert set(found["scores"]) == set(vision.ARMS)
    for budget in ("0.9", "0.6"):
        lost = found["dense"][0] - found["scores"]["kcm"][budget][0]
        assert found["drop"][budget][0] == pytest.approx(lost)
        lead = found["scores"]["kcm"][budget][0] - found["scores"]["ffn-random"][budget][0]
        assert found["over_random"][budget][0] == pytest.approx(lead)
