"""Does every figure of the CoFi chapter show measured beside claimed, whatever is missing?"""

from dataclasses import replace

import made
import numpy as np
import pytest
from drawing import bears, is_legible, laid_out, marks, says_untested

from lib import claims, figures, study
from lib.claims import Verdict
from lib.figures import cofi, frames
from lib.runs import shape_key

WIDE = replace(study.PROFILES["published"], seeds=(0, 1), sizes=(0.05, 0.4, 0.1))
DRAWN = {
    "training": lambda it: cofi.training(it.here, it.findings),
    "curve": lambda it: cofi.curve(it.runs, it.timings, it.findings),
    "tasks": lambda it: cofi.tasks(it.runs, it.findings),
    "sizes": lambda it: cofi.sizes(it.runs, it.timings, it.findings),
    "speed": lambda it: cofi.speed(it.runs, it.timings, it.findings),
    "units": lambda it: cofi.units(it.here, it.timings, it.findings),
    "heads": lambda it: cofi.heads(it.here, it.findings),
    "distillation": lambda it: cofi.distillation(it.small, it.timings, it.findings),
    "matching": lambda it: cofi.matching(it.here, it.timings, it.findings),
    "structure": lambda it: cofi.structure(it.runs, it.findings),
    "rivals": lambda it: cofi.rivals(it.runs, it.timings, it.findings),
    "cost": lambda it: cofi.cost(it.runs, it.findings),
    "validation": lambda it: cofi.validation(it.runs, it.timings, it.findings),
    "verdicts": lambda it: figures.verdicts(it.findings),
}
CLAIMED = {  # figure: (claim, cell, what the drawn number is made of it)
    "training": ("cofi.sparsity", 0.05, lambda claim, stated: stated),
    "curve": ("cofi.curve", 12.2, lambda claim, stated: 100 * (claim.dense - stated)),
    "tasks": ("cofi.cola-fall", "", lambda claim, stated: 100 * stated),
    "sizes": ("cofi.validate.sparsity-full", 0.05, lambda claim, stated: 1 - stated),
    "speed": ("cofi.ten-x", "speedup", lambda claim, stated: stated),
    "distillation": ("cofi.distil", "cofi", lambda claim, stated: 100 * (claim.dense - stated)),
    "matching": ("cofi.matching", "", lambda claim, stated: stated),
    "cost": ("cofi.cost", 0.05, lambda claim, stated: stated),
    "validation": ("cofi.validate.cola", 0.05, lambda claim, stated: stated),
}


class Given:
    """Runs and what follows from them, as the notebook has them."""

    def __init__(self, runs: list, timings: list) -> None:
        self.runs, self.timings = runs, timings
        specs, by_spec = study.specs("cofi", WIDE), {run.spec: run for run in runs}
        self.findings = [
            finding
            for claim in claims.load()
            if claim.chapter == "cofi"
            for finding in claims.judge(claim, WIDE, specs, by_spec, timings, {})
        ]
        self.small, self.here = cofi.own(WIDE, runs), cofi.own(WIDE, runs, same_task=True)


@pytest.fixture(scope="module")
def whole() -> Given:
    runs = [made.run(spec, examples=100) for spec in study.specs("cofi", WIDE)]
    return Given(runs, made.timings(runs))


@pytest.fixture(scope="module")
def part(whole) -> Given:
    """Two runs of three and every time are missing."""
    return Given(whole.runs[::3], [])


@pytest.fixture(scope="module")
def nothing() -> Given:
    return Given([], [])


@pytest.fixture(scope="module")
def drawn(whole) -> dict:
    return laid_out(DRAWN, whole)


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_is_complete_and_legible_at_700_pixels(drawn, name):
    is_legible(*drawn[name])


@pytest.mark.parametrize("name", sorted(set(DRAWN) - {"verdicts"}))
def test_axes_say_what_they_measure(drawn, name):
    assert any(axes.get_xlabel() for axes in drawn[name][0].axes)


@pytest.mark.parametrize("name", CLAIMED)
def test_what_the_talk_claims_is_drawn(drawn, whole, name):
    key, cell, of = CLAIMED[name]
    figure, _ = drawn[name]
    claim = frames.claim(whole.findings, key)
    assert np.isclose(marks(figure), of(claim, claim.stated[cell])).any()


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_bears_missing_runs_and_timings(part, name):
    bears(DRAWN[name], part)


@pytest.mark.parametrize("name", sorted(set(DRAWN) - {"verdicts"}))
def test_a_figure_of_nothing_says_untested(nothing, name, tmp_path, monkeypatch):
    says_untested(DRAWN[name], nothing, name, tmp_path, monkeypatch)


# --- what single figures show ---------------------------------------------------------------------


def test_the_curve_starts_at_the_dense_model_and_has_the_measured_speeds(drawn, whole):
    _, table = drawn["curve"]
    ours = table[(table["source"] == "ours") & (table["encoder"] == "minilm-l6")]
    dense = ours[ours["size"] == 1].iloc[0]
    assert (dense["speed"], dense["drop"]) == (1, 0)
    runs = frames.select(whole.here, arm="cofi", budget=0.4)
    (timing,) = [
        timing
        for timing in whole.timings
        if shape_key(timing.shape) == shape_key(runs[0].shape)
        and timing.protocol["batch"] == 32
        and timing.protocol["precision"] == "float32"
    ]
    ratio = np.median(timing.seconds["dense"]) / np.median(timing.seconds["pruned"])
    assert ours[ours["size"] == 0.4]["speed"].item() == pytest.approx(ratio, rel=0.05)
    assert set(table["source"]) == {"ours", "talk", "validators, released", "validators, own"}


def test_the_picture_of_a_structure_is_that_of_its_shapes(drawn, whole):
    _, table = drawn["structure"]
    runs = frames.select(whole.here, arm="cofi", budget=0.05)
    first = table[(table["encoder"] == "minilm-l6") & (table["size"] == 0.05)]
    for run in runs:
        own = first[first["seed"] == run.spec.seed].set_index(["part", "layer"])["share"]
        for number, layer in enumerate(run.shape["layers"], start=1):
            assert own["attention", number] == pytest.approx(layer["heads"] / 12)
            assert own["feed-forward", number] == pytest.approx(layer["neurons"] / 1536)


def test_macs_promise_what_two_forward_passes_count(drawn, whole):
    _, table = drawn["speed"]
    run = frames.select(whole.here, arm="cofi", budget=0.05, seed=0)[0]
    at = (table["encoder"] == "minilm-l6") & (table["length"] == 128)
    promised = table[at]["from_macs"].iloc[0]
    assert promised == pytest.approx(run.dense["macs"] / run.pruned["macs"])


def test_the_table_counts_runs_that_missed_their_sparsity(whole):
    spec = frames.select(whole.here, arm="cofi", budget=0.05)[0].spec
    runs = [
        replace(run, trace=run.trace | {"missed": 0.01}) if run.spec == spec else run
        for run in whole.here
    ]
    table = cofi.table(runs, [])
    here = (table["arm"] == "CoFi") & (table["budget"] == 0.05)
    assert table[here]["missed"].item() == 1
    assert table[~here]["missed"].sum() == 0
    assert cofi.table([], []).empty


def test_facts_are_short_texts_and_say_untested_of_what_is_missing(whole, part, nothing):
    full, some, bare = (
        cofi.facts(WIDE, it.runs, it.timings, it.findings) for it in (whole, part, nothing)
    )
    assert set(full) == set(bare) == set(some)
    assert all(isinstance(text, str) and text for text in full.values())
    assert bare["speed-high"] == bare["joint"] == bare["hidden"] == bare["reached"] == "untested"
    assert (full["talk-over-ten"], full["talk-speeds"]) == ("3", "6")
    assert (full["talk-released-right"], full["talk-own-right"]) == ("788", "755")
    assert full["implied-cola"] == "0.247"
    assert full["talk-layer-loss"] == "0.5"
    unmeasured = {name for name, text in full.items() if text == "untested"}
    assert unmeasured == {f"{what}-80" for what in ("score", "drop", "share", "speed", "sparsity")}


def test_milliseconds_are_those_of_one_sentence_of_the_smallest_model(whole):
    facts = cofi.facts(WIDE, whole.runs, whole.timings, whole.findings)
    place = {"method": "cofi", "encoder": "minilm-l6", "task": "sst2"}
    own = [run for run in whole.runs if study.matches(run.spec, place)]
    small = min(run.spec.budget for run in own)
    [run] = [
        r
        for r in own
        if study.arm_of(r.spec) == "cofi" and r.spec.budget == small and not r.spec.seed
    ]
    way = {"batch": 32, "length": 32, "precision": "float32"}
    [timing] = [
        t
        for t in whole.timings
        if t.encoder == "minilm-l6" and t.shape == run.shape and way.items() <= t.protocol.items()
    ]
    for arm in ("dense", "pruned"):
        each = 1e3 * float(np.median(timing.seconds[arm])) / 32
        assert facts[f"ms-{arm}"].split(", ")[1].startswith(f"{each:.2f} and ")
    assert facts["threads"] == str(timing.protocol["threads"])


def test_of_nothing_only_the_talks_own_arithmetic_is_judged(nothing):
    judged = {f.claim.key for f in nothing.findings if f.verdict != Verdict.UNTESTED}
    assert judged == {"cofi.validate.confirmed"}
