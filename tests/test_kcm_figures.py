"""Does every figure of the KCM chapter show measured beside claimed, whatever is missing?"""

from dataclasses import replace

import made
import numpy as np
import pytest
from drawing import bears, is_legible, laid_out, marks, says_untested, words
from scipy import stats

from lib import claims, figures, study
from lib.claims import Verdict
from lib.claims.quantities import layer_errors, pruned_neurons
from lib.figures import frames, kcm
from lib.figures.kcm import choices, quoted
from lib.study.chapters import kcm as chapter

WIDE = replace(
    study.PROFILES["published"],
    seeds=(0, 1),
    calibrated=(0, 1, 2),
    macs=(0.6, 0.7, 0.5),
)
PAIRS = tuple(
    study.Pair(encoder, task)
    for encoder in ("minilm-l6", "mpnet-base")
    for task in ("sst2", "mrpc", "stsb")
)
DRAWN = {
    "tasks": lambda it: kcm.tasks(it.runs, it.findings),
    "curves": lambda it: kcm.curves(it.runs, it.findings, "mpnet-base"),
    "baselines": lambda it: kcm.baselines(it.runs, it.findings, "mpnet-base", "sst2"),
    "rivals": lambda it: kcm.rivals(it.findings),
    "readings": lambda it: kcm.readings(it.runs, it.findings, 0.6),
    "norms": lambda it: kcm.norms(it.probes),
    "rankings": lambda it: kcm.rankings(it.probes),
    "layers": lambda it: kcm.layers(it.runs, it.findings, "mpnet-base", "sst2"),
    "errors": lambda it: kcm.errors(it.here),
    "samples": lambda it: kcm.samples(it.here, 0.6),
    "seconds": lambda it: kcm.seconds(it.runs, it.findings, "sst2"),
    "speed": lambda it: kcm.speed(it.runs, it.findings, it.timings),
    "hull": lambda it: kcm.hull(it.probes, it.findings),
    "sizes": lambda it: kcm.sizes(it.runs),
    "vision": lambda it: kcm.vision(it.probes, it.findings),
    "verdicts": lambda it: figures.verdicts(it.findings),
}
CLAIMED = {  # figure: (claim, cell, what the drawn number is made of it)
    "tasks": ("kcm.flops40", 0.6, lambda stated: 100 * stated),
    "seconds": ("kcm.minutes", 0.6, lambda stated: stated),
    "speed": ("kcm.speed", 0.6, lambda stated: stated),
}


class Given:
    """Runs, probes and what follows from them, as the notebook has them."""

    def __init__(self, runs: list, timings: list, probes: dict) -> None:
        self.runs, self.timings = runs, timings
        self.probes = [probe for probe in probes.values() if probe]
        specs, by_spec = study.specs("kcm", WIDE), {run.spec: run for run in runs}
        self.findings = [
            finding
            for claim in claims.load()
            if claim.chapter == "kcm"
            for finding in claims.judge(claim, WIDE, specs, by_spec, timings, {}, probes)
        ]
        own = ("mpnet-base", "sst2")
        self.here = [run for run in runs if (run.spec.encoder, run.spec.task) == own]


@pytest.fixture(scope="module", autouse=True)
def pairs():
    """Three tasks are enough to draw."""
    before, chapter.PAIRS = chapter.PAIRS, {"published": PAIRS}
    yield
    chapter.PAIRS = before


@pytest.fixture(scope="module")
def whole(pairs) -> Given:
    runs = [made.run(spec, examples=100) for spec in study.specs("kcm", WIDE)]
    probes = {question: made.probe(question) for question in study.questions("kcm", WIDE)}
    return Given(runs, made.timings(runs), probes)


@pytest.fixture(scope="module")
def part(whole) -> Given:
    """Three runs of four, every time and two answers of four are missing."""
    asked = study.questions("kcm", WIDE)
    answered = {q: made.probe(q) if n % 2 else None for n, q in enumerate(asked)}
    return Given(whole.runs[::4], [], answered)


@pytest.fixture(scope="module")
def nothing(pairs) -> Given:
    return Given([], [], dict.fromkeys(study.questions("kcm", WIDE)))


@pytest.fixture(scope="module")
def drawn(whole) -> dict:
    return laid_out(DRAWN, whole)


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_is_complete_and_legible_at_700_pixels(drawn, name):
    is_legible(*drawn[name])


@pytest.mark.parametrize("name", sorted(set(DRAWN) - {"verdicts"}))
def test_axes_say_what_they_measure(drawn, name):
    figure, _ = drawn[name]
    assert any(axes.get_xlabel() for axes in figure.axes) or figure.get_supxlabel()


@pytest.mark.parametrize("name", CLAIMED)
def test_what_the_talk_claims_is_drawn(drawn, whole, name):
    key, cell, of = CLAIMED[name]
    figure, _ = drawn[name]
    stated = of(frames.claim(whole.findings, key).stated[cell])
    assert np.isclose(marks(figure), stated).any()
    assert any(text.get_text().startswith("talk") for text in words(figure))


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_bears_missing_runs_timings_and_answers(part, name):
    bears(DRAWN[name], part)


@pytest.mark.parametrize("name", sorted(set(DRAWN) - {"verdicts"}))
def test_a_figure_of_nothing_says_untested(nothing, name, tmp_path, monkeypatch):
    says_untested(DRAWN[name], nothing, name, tmp_path, monkeypatch)


# --- what single figures show ---------------------------------------------------------------------


def test_the_paper_s_points_are_drops_from_its_own_dense_model(drawn, whole):
    figure, table = drawn["curves"]
    told = table[(table["source"] == "paper") & (table["arm"] == "kcm")]
    by = told.set_index(["task", "budget"])["drop"]
    assert by["sst2", 0.6] == pytest.approx(0.9357 - 0.9111)
    assert by["mrpc", 0.5] == pytest.approx(0.8627 - 0.6037)
    drawn_at = np.concatenate([line.get_ydata() for line in figure.axes[0].lines])
    assert np.isclose(drawn_at.astype(float), by["sst2", 0.6]).any()


def test_the_curves_hold_the_best_control_and_the_strongest_peer(drawn, whole):
    figure, table = drawn["curves"]
    ours = table[(table["source"] == "ours") & (table["task"] == "sst2")]
    assert set(ours["arm"]) == set(chapter.BY_BUDGET) >= {"ffn-rms", "k-prune", "ffn-w2"}
    assert set(ours[ours["arm"] == "k-prune"]["budget"]) == set(WIDE.macs)
    assert {"rms output", "K-prune"} <= {text.get_text() for text in words(figure)}


def test_the_claim_table_has_a_row_an_encoder_and_task(whole):
    table = kcm.table(whole.runs, whole.findings)
    places = list(zip(table["encoder"], table["task"], strict=True))
    assert set(places) == {(pair.encoder, pair.task) for pair in PAIRS}
    assert places[0] == ("mpnet-base", "sst2")
    row = table[table["task"] == "mrpc"].iloc[0]
    assert row["paper 60%"] == "2.1"
    assert row["60%"].count("[") == 1
    assert kcm.table([], whole.findings).empty


def test_the_claim_table_names_what_is_untested_and_keeps_the_papers_number(whole):
    left = [r for r in whole.runs if (r.spec.encoder, r.spec.budget) != ("mpnet-base", 0.7)]
    table = kcm.table(left, whole.findings).set_index(["encoder", "task"])
    whole_row, row = (table.loc[encoder, "sst2"] for encoder in ("minilm-l6", "mpnet-base"))
    assert row["70%"] == "untested"
    assert row["paper 70%"] == whole_row["paper 70%"] != "-"
    assert not table.isna().any(axis=None)


def test_mrpc_is_scored_by_accuracy_as_in_the_paper(drawn, whole):
    _, table = drawn["tasks"]
    here = (table["encoder"] == "mpnet-base") & (table["task"] == "mrpc") & (table["budget"] == 0.6)
    runs = frames.select(whole.runs, encoder="mpnet-base", task="mrpc", arm="kcm", sees="own")
    lost = []
    for run in (run for run in runs if run.spec.budget == 0.6):
        assert run.per_example["metric"] == "f1"
        answers = frames.unpack_examples(run.per_example)
        right = [(answers.labels == side).mean() for side in (answers.dense, answers.pruned)]
        lost.append(right[0] - right[1])
    assert table[here]["drop"].item() == pytest.approx(np.mean(lost))


def test_the_map_of_rivals_shows_the_findings(drawn, whole):
    figure, table = drawn["rivals"]
    row = table[(table["key"] == "kcm.row-norm") & (table["encoder"] == "minilm-l6")].iloc[0]
    assert row["comparison"] == "R2 alone over norm of W2, scaled"
    shown = {text.get_text() for text in words(figure)}
    assert f"{100 * row['measured']:+.1f}" in shown
    assert set(table["cell"]) == {0.6}


def test_the_layers_are_those_of_the_runs_beside_the_paper_s(drawn, whole):
    figure, table = drawn["layers"]
    runs = frames.select(whole.here, arm="kcm", budget=0.6, sees="own")
    left = [[layer["neurons"] / 3072 for layer in run.shape["layers"]] for run in runs]
    ours = table[(table["arm"] == "kcm") & (table["task"] == "sst2")]
    by_layer = ours.groupby("layer")["kept"].mean()
    assert np.allclose(by_layer.to_numpy(), np.mean(left, axis=0))
    paper = figure.axes[2].images[0].get_array()
    assert paper[0][0] == pytest.approx(1 - 2416 / 3072)
    assert sum(pruned_neurons(runs[0])) == 12 * 3072 - sum(
        layer["neurons"] for layer in runs[0].shape["layers"]
    )


def test_errors_are_the_means_of_the_traces(drawn, whole):
    _, table = drawn["errors"]
    runs = frames.select(whole.here, arm="kcm-r2", budget=0.6)
    last = np.mean([layer_errors(run)[-1] for run in runs])
    own = table[(table["arm"] == "kcm-r2") & (table["layer"] == 12)]
    assert own["error"].mean() == pytest.approx(last)
    assert {"kcm-unscaled", "kcm-r2-unscaled", "kcm-d2-unscaled"} <= set(table["arm"])
    [run] = frames.select(whole.here, arm="kcm-r2-unscaled", budget=0.6)
    said = kcm.facts(whole.here, whole.findings, [])["propagation-r2-unscaled"]
    assert said == f"{layer_errors(run)[-1] / np.mean(layer_errors(run)):.2f}"


def test_seconds_are_of_one_task(drawn, whole):
    _, table = drawn["seconds"]
    assert set(table["task"]) == {"sst2"}
    assert set(table["encoder"]) == {"mpnet-base", "minilm-l6"}
    assert kcm.facts(whole.here, whole.findings, [])["memory"] == "1.5"


def test_cola_is_told_in_its_own_metric_too(whole):
    runs = [r for r in whole.runs if r.spec.task == "cola" and r.spec.budget == 0.6]
    runs = frames.select(runs, arm="kcm", sees="own")
    by = {}
    for run in runs:
        by.setdefault(run.spec.encoder, []).append(run.dense["score"] - run.pruned["score"])
    said = kcm.matthews(whole.runs)["matthews"]
    for encoder, drops in by.items():
        assert f"({encoder})" in said
        assert f"{100 * np.mean(drops):.1f} [" in said
    assert kcm.matthews([]) == {"matthews": "untested"}


def test_a_claim_s_places_are_counted_by_verdict(whole):
    findings = [f for f in whole.findings if f.claim.key == "kcm.row-norm"]
    verdicts = ["reproduced", "partly", "not reproduced", "inconclusive", "untested"]
    some = [replace(findings[0], verdict=claims.Verdict(verdict)) for verdict in verdicts]
    said = quoted._held([*some, some[0]], "kcm.row-norm")
    assert said == "holds on 2, holds in part on 1, fails on 1, is undecided on 1"
    assert quoted._held(some[-1:], "kcm.row-norm") == "is untested"


def test_another_task_s_sentences_stand_apart(drawn):
    _, table = drawn["samples"]
    assert set(table["of"]) == {"sst2", "cola"}
    assert set(table[table["of"] == "sst2"]["sentences"]) == {512, 1024, 2048, 4096}


def test_facts_are_short_texts_and_say_untested_of_what_is_missing(whole, part, nothing):
    full = kcm.facts(whole.here, whole.findings, whole.probes)
    bare = kcm.facts([], nothing.findings, [])
    some = kcm.facts(part.here, part.findings, part.probes)
    assert set(full) == set(bare) == set(some)
    assert all(isinstance(text, str) and text for text in full.values())
    assert bare["kcm-0.6"] == bare["seconds"] == bare["hull-facets"] == "untested"
    assert full["paper-mnli"] == bare["paper-mnli"] == "7.29"
    assert full["over-bound"] == "1"
    assert full["floor"] == "35%"  # attention of 12 heads, at 128 tokens
    unmeasured = {name for name, text in full.items() if text == "untested"}
    assert unmeasured == {"kcm-0.8", "kcm-0.9"}  # budgets that this study leaves out


def test_twins_are_quoted_within_layers_and_over_all(whole):
    probe = next(probe for probe in whole.probes if probe.question.name == "rankings")
    values = {
        side: [["ffn-output", "kcm", value]]
        for side, value in (("overall", 0.66), ("within", 0.9915))
    }
    said = kcm.facts(whole.here, whole.findings, [replace(probe, values=probe.values | values)])
    assert said["ranked-output"] == "0.66"
    assert said["ranked-output-within"] == "0.9915"
    assert said["ranked-row-norm"] == said["ranked-row-norm-within"] == "untested"  # not asked


def test_no_finding_of_nothing_is_more_than_untested(nothing):
    assert {finding.verdict for finding in nothing.findings} == {Verdict.UNTESTED}


def test_readings_name_what_differs_from_ours(whole):
    _, table = kcm.readings(whole.runs, whole.findings, 0.6)
    asked = [s.options for s in study.groups("kcm", WIDE)["readings"]]
    assert set(table["reading"]) == {choices.name(options) for options in [{}, *asked]}
    assert table["own"].sum() == 2  # one for each of two encoders
    assert table["paper"].round(4).unique() == [0.0246]
    slow = table[table["reading"] == "stop rule with the l1 norm"]
    assert set(slow["encoder"]) == {"minilm-l6"}


def test_readings_are_held_against_the_paper_s_counts_where_layers_are_as_many(drawn, whole):
    figure, table = drawn["readings"]
    assert table[table["encoder"] == "minilm-l6"][["off", "rank"]].isna().all(axis=None)
    assert any("cannot decide" in text.get_text() for text in words(figure))
    [own] = [
        r for r in whole.here if r.spec.method == "kcm" and r.spec.options == {"guide": "dense"}
    ]
    kept = np.array([layer["neurons"] / 3072 for layer in own.shape["layers"]])
    told = 1 - np.array(frames.claim(whole.findings, "kcm.fingerprint").reference["sst2"]) / 3072
    row = table[
        (table["encoder"] == "mpnet-base") & (table["reading"] == choices.name(own.spec.options))
    ]
    assert row["off"].item() == pytest.approx(np.abs(kept - told).mean())
    assert row["rank"].item() == pytest.approx(stats.spearmanr(kept, told).statistic)
    assert f"{row['rank'].item():+.2f}" in {text.get_text() for text in words(figure)}


def test_the_nearest_reading_is_named_and_its_counts_decide_on_the_paper_s_encoder_alone(whole):
    said = kcm.nearest(whole.runs, whole.findings, "mpnet-base", "sst2", 0.6)
    table = choices.table(whole.runs, whole.findings)
    table = table[(table["encoder"] == "mpnet-base") & (table["budget"] == 0.6)]
    table = table[table["task"] == "sst2"].set_index("reading")
    nearest = (table["drop"] - table["paper"]).abs().idxmin()
    assert said["nearest-reading"].startswith(f"{nearest} (loses ")
    assert said["nearest-counts"].startswith(table["off"].idxmin())
    assert "decides nothing" in said["nearest-counts"]
    told = frames.claim(whole.findings, "kcm.fingerprint").reference["sst2"]
    bert = [
        replace(run, spec=replace(run.spec, encoder="bert-base-uncased"))
        for run in frames.select(whole.here, method="kcm", budget=0.6, seed=0)
    ]
    layers = [
        layer | {"neurons": 3072 - int(n)}
        for layer, n in zip(bert[0].shape["layers"], told, strict=True)
    ]
    like = [
        replace(run, shape=run.shape | {"layers": layers})
        if run.spec.options == {"stop": "abs"}
        else run
        for run in bert
    ]
    said = kcm.nearest(like, whole.findings, "bert-base-uncased", "sst2", 0.6)
    assert said["nearest-counts"] == (
        "stop rule with absolute values (off by 0.00 of a layer's filters, rank correlation +1.00)"
    )
    small = kcm.nearest(whole.runs, whole.findings, "minilm-l6", "sst2", 0.6)
    assert small["nearest-counts"] == "none: no counts of the paper fit minilm-l6 on sst2"
    other = [replace(run, spec=replace(run.spec, task="cola")) for run in whole.here]
    said = kcm.nearest(other, whole.findings, "mpnet-base", "cola", 0.6)
    assert said["nearest-reading"] == "none: the paper has no loss on cola"
    assert set(kcm.nearest([], whole.findings, "mpnet-base", "sst2", 0.6).values()) == {"untested"}
