"""Does every figure show the measured beside the claimed, legibly, whatever is missing?"""

import itertools
import subprocess
import sys
from dataclasses import replace

import made
import numpy as np
import pandas as pd
import pytest
from drawing import bears, is_legible, laid_out, marks, says_untested, words

from lib import claims, figures, runs, study
from lib.figures import facts, frames, ledger, style
from lib.runs import Store

WIDE = replace(  # as the published study, with less of everything
    study.PROFILES["published"],
    others=(study.Pair("minilm-l6", "cola", tuned=True),),
    budgets=(0.9, 0.5, 0.3),
    full=(1.0, 0.5, 0.1),
    seeds=(0, 1),
    sampled=(0, 1),
)
DRAWN = {
    "parameters": lambda it: figures.parameters(it.runs, it.findings),
    "work": lambda it: figures.work(it.runs, (16, 64, 256, 1024), it.findings),
    "length": lambda it: figures.length(it.runs, it.timings, it.findings),
    "precision": lambda it: figures.precision(it.here, it.timings),
    "formats": lambda it: figures.formats(it.probes),
    "masks_alone": lambda it: figures.masks_alone(it.runs, it.timings, it.findings),
    "density": lambda it: figures.density(it.here, it.findings, "coreset.density", ["none"]),
    "fine_tuned": lambda it: figures.density(
        it.here, it.findings, "coreset.density-ft", ["steps", "epochs"]
    ),
    "hypotheses": lambda it: figures.hypotheses(it.here, it.findings),
    "nearest": lambda it: figures.nearest(it.here, it.findings),
    "baselines": lambda it: figures.baselines(it.here, it.findings),
    "rivals": lambda it: figures.rivals(it.own),
    "samplers": lambda it: figures.samplers(it.here),
    "products": lambda it: figures.products(it.here),
    "unstructured": lambda it: figures.unstructured(it.here, it.timings, it.findings),
    "time": lambda it: figures.speed(it.here, it.findings, "coreset.time", "encoder"),
    "attention_speed": lambda it: figures.speed(
        it.here, it.findings, "coreset.attention-speed", "attention"
    ),
    "full_model": lambda it: figures.full_model(it.here, it.findings),
    "others": lambda it: figures.others(it.there),
    "verdicts": lambda it: figures.verdicts(it.findings),
}
CLAIMED = {  # the numbers of the talk that a figure has to draw
    "parameters": "coreset.share",
    "work": "kcm.ffn-costly",
    "length": "cost.quadratic",
    "masks_alone": "coreset.unstructured",
    "density": "coreset.density",
    "fine_tuned": "coreset.density-ft",
    "nearest": "coreset.density",
    "baselines": "coreset.density",
    "rivals": "coreset.beats-magnitude",
    "unstructured": "coreset.unstructured-sparsity",
    "time": "coreset.time",
    "attention_speed": "coreset.attention-speed",
}


class Given:
    """Runs and what follows from them, as a notebook has them."""

    def __init__(
        self, p: study.Profile, runs: list, timings: list, chapters=("anatomy", "coreset")
    ) -> None:
        self.profile, self.runs, self.timings = p, runs, timings
        by_spec = {run.spec: run for run in runs}
        specs = {chapter: study.specs(chapter, p) for chapter in chapters}
        self.findings = [
            finding
            for claim in claims.load()
            if claim.chapter in chapters
            for finding in claims.judge(claim, p, specs[claim.chapter], by_spec, timings, {})
        ]
        asked = [q for chapter in chapters for q in study.questions(chapter, p)] if runs else []
        self.probes = [made.probe(question) for question in asked]
        pair = (p.encoder, p.task)
        self.here = [run for run in runs if (run.spec.encoder, run.spec.task) == pair]
        self.there = [run for run in runs if (run.spec.encoder, run.spec.task) != pair]
        self.own = [f for f in self.findings if (f.encoder, f.task) == pair]


@pytest.fixture(scope="module")
def whole() -> Given:
    runs = [made.run(spec, examples=200) for spec in study.specs("coreset", WIDE)]
    return Given(WIDE, runs, made.timings(runs))


@pytest.fixture(scope="module")
def part(whole) -> Given:
    """Two runs of three are missing, and no time was measured."""
    return Given(WIDE, whole.runs[::3], [])


@pytest.fixture(scope="module")
def nothing() -> Given:
    return Given(WIDE, [], [])


@pytest.fixture(scope="module")
def drawn(whole) -> dict:
    """Every figure once, laid out."""
    return laid_out(DRAWN, whole)


# --- every figure ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_comes_with_its_data_and_is_complete(drawn, name):
    is_legible(*drawn[name])


@pytest.mark.parametrize("name", DRAWN)
def test_names_on_an_axis_do_not_overlap(drawn, name):
    figure, _ = drawn[name]
    for axes in figure.axes:
        for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
            shown = [label for label in labels if label.get_text() and label.get_visible()]
            boxes = [label.get_window_extent() for label in shown]
            inside = [b for b in boxes if figure.bbox.contains(*b.get_points().mean(axis=0))]
            for one, other in itertools.pairwise(inside):
                assert not one.shrunk(0.9, 0.9).overlaps(other.shrunk(0.9, 0.9))


@pytest.mark.parametrize("name", sorted(set(DRAWN) - {"verdicts"}))
def test_axes_say_what_they_measure(drawn, name):
    figure, _ = drawn[name]
    assert any(axes.get_xlabel() for axes in figure.axes) or figure.get_supxlabel()
    scored = name not in ("parameters", "hypotheses", "rivals", "baselines", "masks_alone")
    if scored and name not in ("precision", "formats"):
        assert figure.axes[0].get_ylabel()


UNITS = {
    "length": ("tokens", "milliseconds"),
    "work": ("tokens", "share"),
    "time": ("density", "times as fast"),
    "density": ("density", "accuracy"),
}


@pytest.mark.parametrize("name", UNITS)
def test_axes_have_their_units(drawn, name):
    axes = drawn[name][0].axes[0]
    x, y = UNITS[name]
    assert x in axes.get_xlabel()
    assert y in axes.get_ylabel()


@pytest.mark.parametrize("name", CLAIMED)
def test_what_the_talk_claims_is_marked_and_named(drawn, whole, name):
    figure, _ = drawn[name]
    claim = frames.claim(whole.findings, CLAIMED[name])
    found = marks(figure)
    assert len(found)
    if name not in ("baselines", "rivals", "masks_alone", "nearest"):
        wanted = next(iter(claim.stated.values()))
        assert np.isclose(found, wanted).any()
    if name not in ("baselines",):  # its caption says it
        labels = [text.get_text() for text in words(figure)]
        assert any(label.startswith("talk") for label in labels)


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_bears_missing_runs_and_timings(part, name):
    bears(DRAWN[name], part)


@pytest.mark.parametrize("name", sorted(set(DRAWN) - {"verdicts"}))
def test_a_figure_of_nothing_says_untested(nothing, name, tmp_path, monkeypatch):
    says_untested(DRAWN[name], nothing, name, tmp_path, monkeypatch)


# --- what single figures show ---------------------------------------------------------------------


def test_the_density_figure_draws_means_and_intervals_of_both_sides(drawn, whole):
    figure, table = drawn["density"]
    left = figure.axes[0]
    ours = table[table["source"] == "ours"].sort_values("budget")
    bars = {round(bar[0].get_xdata()[0], 3): bar for bar in left.containers}
    assert len(left.containers) == 2
    assert bars
    line = left.containers[0][0]
    assert np.allclose(line.get_xdata(), ours["budget"])
    assert np.allclose(line.get_ydata(), ours["score"])
    ends = np.array([path.vertices[:, 1] for path in left.containers[0][2][0].get_paths()])
    assert np.allclose(ends, ours[["score_low", "score_high"]])
    mean = np.mean(
        [
            r.pruned["score"]
            for r in frames.select(whole.here, arm="coreset", budget=0.5)
            if study.after_of(r.spec) == "none" and r.spec.unit == "attention"
        ]
    )
    assert ours.set_index("budget")["score"][0.5] == pytest.approx(mean)
    flat = [line for line in left.lines if len(set(line.get_ydata())) == 1 and line.get_ls() == "-"]
    assert any(np.isclose(line.get_ydata()[0], ours["dense"].iloc[0]) for line in flat)


def test_the_heat_map_frames_the_nearest_reading(drawn):
    figure, table = drawn["hypotheses"]
    [image] = figure.axes[0].images
    grid = np.ma.filled(image.get_array().astype(float), np.nan)
    assert np.nanmin(grid) == pytest.approx(table["distance"].min())
    assert np.isfinite(grid).sum() == len(table)
    solid = next(patch for patch in figure.axes[0].patches if patch.get_linestyle() == "-")
    y, x = np.unravel_index(np.nanargmin(grid), grid.shape)
    assert (round(solid.get_x() + 0.47), round(solid.get_y() + 0.44)) == (x, y)


def test_the_rivals_stand_where_the_findings_put_them(drawn, whole):
    figure, table = drawn["rivals"]
    beats = [f for f in whole.own if f.claim.key == "coreset.beats-svd"]
    [cell] = [cell for cell in beats[0].cells if cell.cell == 0.3]
    row = table[(table["key"] == "coreset.beats-svd") & (table["cell"] == 0.3)].iloc[0]
    assert (row["measured"], row["low"], row["high"]) == (cell.measured, cell.low, cell.high)
    drawn_at = [line.get_xdata()[0] for axes in figure.axes for line in axes.lines]
    assert np.isclose(drawn_at, cell.measured).any()


def test_speed_is_drawn_with_the_line_of_the_talk(drawn, whole):
    _, table = drawn["time"]
    claim = frames.claim(whole.findings, "coreset.time")
    slope, start = frames.talk_line(claim)
    assert slope == pytest.approx(629 / 940, abs=0.01)
    assert start == pytest.approx(333 / 940, abs=0.01)
    assert table.set_index("density")["talk"][0.1] == claim.stated[0.1]
    assert table["measured"].notna().sum() == 2  # densities 0.5 and 0.1 of this study


def test_zeros_are_timed_beside_compact_models_of_the_same_density(drawn):
    _, table = drawn["masks_alone"]
    zeros = table[table["what"] == "zeros in place"]
    assert set(table["density"]) == set(zeros["density"]) == {study.ZEROED}
    assert zeros["speedup"].between(0.99, 1.01).all()
    assert (table[table["what"] != "zeros in place"]["speedup"] > 1.1).all()


def test_every_arm_and_verdict_has_a_look_of_its_own():
    assert set(style.METHODS) == set(frames.ARM_WORDS) == set(study.ARMS)
    for family in study.FAMILIES.values():  # methods of two families share a figure only by name
        named = [arm for arm in ("dense", *family.ARMS) if style.METHODS[arm] != style.PLAIN]
        assert len({style.look(arm)["color"] for arm in named}) == len(named)
    assert set(style.SAMPLERS) == set(frames.SAMPLER_WORDS) == {*study.SAMPLERS, "top", "uniform"}
    assert set(style.VERDICTS) == {verdict.value for verdict in claims.Verdict}
    assert set(frames.AXIS_WORDS) == set(study.AXES)
    assert ledger.verdicts([])[1].empty


def test_black_words_on_badges_can_be_read():
    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return np.dot(linear, (0.2126, 0.7152, 0.0722))

    for verdict, colour in style.VERDICTS.items():
        assert (light(colour) + 0.05) / 0.05 > 7, verdict


def test_saved_data_are_the_figure_s_rows_without_objects(tmp_path, monkeypatch, drawn):
    monkeypatch.setenv("PRUNING_FIGURES", str(tmp_path / "data"))
    figure, table = drawn["samplers"]
    assert figures.save(figure, table, "coreset-samplers") is figure
    back = pd.read_csv(tmp_path / "data" / "coreset-samplers.csv")
    assert len(back) == len(table)
    assert "run" not in back
    assert np.allclose(back["score"], table["score"], atol=1e-5)


# --- the tables behind them -----------------------------------------------------------------------


def test_a_power_law_has_its_exponent():
    table = pd.DataFrame({"encoder": "e", "length": [1, 2, 8], "ms": [3, 12, 3 * 8**2]})
    assert np.allclose(frames.exponents(table, "ms")["exponent"], 2)


def test_the_distance_of_a_reading_is_that_of_its_drops():
    found = [made.run(spec, examples=64) for spec in study.specs("coreset", WIDE, "grid")]
    stated, dense = {0.9: 0.91, 0.5: 0.8, 0.3: 0.6}, 0.9
    table = frames.distances(found, stated, dense)
    assert table["distance"].is_monotonic_increasing
    row = table.iloc[3]
    options = {name: row[name] for name in frames.READING}
    runs = [run for run in found if run.spec.options == options]
    drops = {r.spec.budget: r.dense["score"] - r.pruned["score"] for r in runs}
    off = [drops[budget] - (dense - score) for budget, score in stated.items()]
    assert row["distance"] == pytest.approx(np.sqrt(np.mean(np.square(off))))
    assert len(table) == len(study.readings())


def test_readings_are_ranked_by_one_seed_and_the_others_say_how_far_chance_goes():
    """A mean over seeds has less noise, so it would come nearer than a single draw does."""
    stated, dense = {0.9: 0.91, 0.5: 0.8, 0.3: 0.6}, 0.9
    grid = study.specs("coreset", WIDE, "grid")
    headline = [spec for spec in grid if spec.options == study.CORESET]
    more = [replace(spec, seed=seed) for spec in headline for seed in (1, 2)]
    found = [made.run(spec, examples=64) for spec in (*grid, *more)]
    alone = frames.distances([run for run in found if run.spec.seed == 0], stated, dense)
    table = frames.distances(found, stated, dense)
    columns = [*frames.READING, "distance"]
    pd.testing.assert_frame_equal(table[columns], alone[columns])
    assert (alone["low"] == alone["distance"]).all()
    [own] = table[table["seeds"] == 3].to_dict("records")
    assert {name: own[name] for name in frames.READING} == study.CORESET
    assert own["low"] <= own["distance"] <= own["high"]
    assert own["low"] < own["high"]
    said = facts._chance(table, int(table["seeds"].idxmax()))
    assert said["headline-seeds"] == "3"
    assert int(said["headline-between"]) >= 1
    assert facts._chance(alone, 0)["headline-range"] == facts.UNTESTED


def test_readings_are_compared_where_most_of_them_were_run():
    found = [made.run(spec, examples=64) for spec in study.specs("coreset", WIDE, "grid")]
    some = [run for run in found if run.spec.budget == 0.5 or run.spec.options["sampler"] == "top"]
    table = frames.distances(some, {0.9: 0.9, 0.5: 0.8, 0.3: 0.6}, 0.9)
    assert "off@0.5" in table
    assert "off@0.9" not in table
    assert len(table) == len(study.readings())
    lacking = [run for run in found if run is not found[0]]
    assert len(frames.distances(lacking, {0.9: 0.9, 0.5: 0.8}, 0.9)) == len(study.readings()) - 1


def test_parts_of_a_dense_encoder_add_up(whole):
    table = frames.parts(whole.runs)
    for _, own in table.groupby("encoder"):
        assert own["of_model"].sum() == pytest.approx(1)
        assert own["of_encoder"].sum() == pytest.approx(1)
    assert set(table["encoder"]) == {"mpnet-base", "minilm-l6"}


def test_densities_are_those_of_what_is_physically_smaller(whole):
    table = frames.densities(whole.here)
    row = table[(table["pruned"] == "attention") & (table["budget"] == 0.5)].iloc[0]
    assert row["density of attention"] == pytest.approx(0.5, abs=0.02)
    assert row["density of attention"] < row["density of the encoder"]
    assert row["density of the encoder"] < row["density of the whole model"]


def test_a_ratio_never_crosses_machines(whole):
    other = [replace(timing, machine="another") for timing in whole.timings[:3]]
    assert set(frames.timings([*other, *whole.timings])["machine"]) == {"made up"}


@pytest.mark.parametrize("name", ["A machine", "Z machine"])
def test_of_two_machines_that_timed_as_much_the_later_counts(whole, name):
    """Else a reader's own `make timings` would never be shown, or only for the name's sake."""
    late = {"finished": "2999-01-01T00:00:00+00:00"}
    again = [replace(timing, machine=name, provenance=late) for timing in whole.timings]
    for both in ([*again, *whole.timings], [*whole.timings, *again]):
        assert {timing.machine for timing in runs.of_one_machine(both)} == {name}
        assert set(frames.timings(both)["machine"]) == {name}
    assert runs.of_one_machine([]) == []


def test_the_talk_s_counts_have_intervals(whole):
    talk = frames.talk(frames.claim(whole.findings, "coreset.density"))
    assert ((talk["score_low"] < talk["score"]) & (talk["score"] < talk["score_high"])).all()
    assert np.allclose(talk["drop"] + talk["score"], 0.9083)


@pytest.mark.parametrize(
    ("name", "fidelity"), [("paper", "reproduction"), ("published", "replication")]
)
def test_the_talk_s_own_encoder_and_task_make_a_reproduction(name, fidelity, tmp_path):
    p = replace(study.PROFILES[name], folder=tmp_path)
    assert facts.place(p, claims.findings(p, chapters=["coreset"]))["fidelity"] == fidelity


def test_facts_are_short_texts_and_say_untested_of_what_is_missing(whole, nothing):
    full = facts.coreset(whole.here, whole.findings)
    bare = facts.coreset([], nothing.findings)
    assert set(full) == set(bare)
    assert set(facts.anatomy(whole.here, whole.findings)) == set(
        facts.anatomy([], nothing.findings)
    )
    encoder = whole.profile.encoder
    given, missing = (facts.formats(probes, encoder) for probes in (whole.probes, []))
    assert given["dense-int8-speed"] == "3.7"
    assert set(given) == set(missing)
    assert set(missing.values()) == {"untested"}
    assert all(isinstance(text, str) and text for text in full.values())
    assert bare["ours-0.5"] == bare["nearest"] == bare["dense"] == "untested"
    assert full["talk-above"] == "6"
    assert full["talk-dense-right"] == "792"
    assert full["ours-0.9"] != "untested"
    assert full["speed-0.1"] != "untested"
    assert facts.verdicts(nothing.findings)["verdict-coreset.density"] == "untested"
    here = facts.place(whole.profile, whole.findings)
    assert here["fidelity"] == "replication"
    assert here["encoder"] == "mpnet-base"


def test_figures_and_their_tables_do_without_torch():
    code = "import sys, lib.figures, lib.figures.facts; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_store_of_made_records_is_one(tmp_path):
    store = Store(tmp_path)
    run = made.run(study.specs("coreset", WIDE)[0])
    store.put(run)
    assert store.get(run.spec) == run
