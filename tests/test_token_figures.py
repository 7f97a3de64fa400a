"""Do the token chapter's figures show what is on record, legibly, whatever is missing?"""

from dataclasses import replace

import made
import pytest
from drawing import bears, is_legible, laid_out, marks, says_untested
from test_figures import Given

from lib import study
from lib.figures import style, tokens

WIDE = replace(study.PROFILES["published"], seeds=(0, 1))
CHAPTER = ("tokens",)
DRAWN = {
    "frontier": lambda it: tokens.frontier(it.runs, it.findings),
    "longer": lambda it: tokens.longer(it.runs, it.findings),
    "readings": lambda it: tokens.readings(it.runs),
    "padding": lambda it: tokens.padding(it.runs, it.findings),
    "controls": lambda it: tokens.controls(it.runs, it.findings),
    "pace": lambda it: tokens.pace(it.runs, it.timings),
    "times": lambda it: tokens.times(it.runs, it.timings, it.findings),
    "by_length": lambda it: tokens.by_length(it.runs),
    "survivors": lambda it: tokens.survivors(it.runs),
    "stacked": lambda it: tokens.stacked(it.runs),
}


@pytest.fixture(scope="module")
def whole() -> Given:
    runs = [made.run(spec, examples=200) for spec in study.specs("tokens", WIDE)]
    return Given(WIDE, runs, made.timings(runs), CHAPTER)


@pytest.fixture(scope="module")
def part(whole) -> Given:
    """Two runs of three are missing, and no time was measured."""
    return Given(WIDE, whole.runs[::3], [], CHAPTER)


@pytest.fixture(scope="module")
def nothing() -> Given:
    return Given(WIDE, [], [], CHAPTER)


@pytest.fixture(scope="module")
def drawn(whole) -> dict:
    return laid_out(DRAWN, whole)


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_is_complete_and_legible_at_700_pixels(drawn, name):
    is_legible(*drawn[name])


def test_the_papers_speeds_are_marked_and_our_own_questions_are_not(drawn):
    figure, _ = drawn["times"]
    assert sorted(set(marks(figure)[:, 0])) == [1.9, 2.4, 4.5, 7.4]


@pytest.mark.parametrize("name", ["frontier", "pace", "by_length"])
def test_no_encoder_and_task_is_left_out(drawn, whole, name):
    ran = {(run.spec.encoder, run.spec.task) for run in whole.runs if "tokens" in run.trace}
    titles = [axes.get_title(loc="left") for axes in drawn[name][0].axes]
    assert len(ran) == 6
    assert all(any(f"{e}, {t}" in title for title in titles) for e, t in ran)


def test_score_by_time_has_the_controls_and_every_budget(drawn):
    _, table = drawn["pace"]
    here = table[(table["task"] == "sst2") & (table["encoder"] == "minilm-l6")]
    timed = set(zip(here["arm"], here["budget"], strict=True))
    assert {("tokens-random", 0.6), ("tokens-first", 0.42), ("ltp", 0.6), ("top", 0.42)} <= timed


def test_the_controls_table_has_the_work_of_both(drawn):
    _, table = drawn["controls"]
    here = table[table["key"].str.endswith("-random")]
    assert here["kept"].between(0.3, 0.7).all()
    assert here["kept_control"].notna().all()
    assert (here["kept"] - here["kept_control"]).abs().max() < 0.02


def test_controls_are_those_that_choose_blindly(drawn):
    keys = set(drawn["controls"][1]["key"])
    assert len(keys) == 5
    assert all(key.endswith(("-random", "-first")) for key in keys)  # and no road of stacking


def test_marks_of_score_by_work_fill_their_panels(drawn):
    for axes in (axes for axes in drawn["frontier"][0].axes if axes.get_title(loc="left")):
        marked = [line for line in axes.lines if line.get_marker() not in ("", "None")]
        at = [x for line in marked for x in line.get_xdata()]
        assert axes.get_xlim() == pytest.approx((max(at) + 0.05, min(at) - 0.05))


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_bears_missing_runs(part, name):
    bears(DRAWN[name], part)


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_of_nothing_says_untested(nothing, name, tmp_path, monkeypatch):
    says_untested(DRAWN[name], nothing, name, tmp_path, monkeypatch)


def test_the_decomposition_multiplies_to_what_padded_over_pruned_is(drawn):
    _, table = drawn["padding"]
    product = table["macs_padded"] / table["macs_pruned"]
    assert (table["padding"] * table["pruning"] - product).abs().max() < 1e-9
    assert (table["together"] - product).abs().max() < 1e-9


def test_words_stand_as_long_as_they_are_read(drawn, whole):
    figure, table = drawn["survivors"]
    shown = table[table["arm"] == table["arm"].iloc[0]]
    sentence = shown[: 1 + shown["place"].tolist().index(0, 1)][:-1]
    texts = [text.get_text() for text in figure.axes[0].texts]
    for word, layers in zip(sentence["token"], sentence["layers"], strict=True):
        if sentence["token"].tolist().count(word) == 1:
            assert texts.count(word.replace("$", "\\$")) == 1 + layers


def test_a_method_that_masks_stands_at_what_it_really_takes(drawn):
    _, table = drawn["frontier"]
    masks = table[table["arm"] == "transkimmer-paper"]
    assert len(masks)
    assert (masks["kept"] == 1).all()
    assert (masks["claimed"] < 0.7).all()


def test_speeds_are_read_from_the_timing_of_what_a_run_leaves(drawn):
    _, table = drawn["times"]
    pruned = table[table["timed"] == "pruned"]
    assert set(table["batch"]) == {1, 32}
    assert (pruned["speed"] > 1.1).all()
    assert (table[table["timed"] == "dense_padded"]["speed"] < 1).all()


def test_facts_of_nothing_are_untested(whole):
    pair = study.lead(WIDE)
    full = tokens.facts(whole.runs, whole.findings, pair)
    none = tokens.facts([], whole.findings, pair)
    assert set(full) == set(none)
    assert "untested" not in full.values()
    assert none["drop-ltp"] == none["padding"] == "untested"
    assert set(style.METHODS) >= set(study.TOKEN_ARMS)
    [told] = [
        one
        for one in whole.findings
        if (one.claim.key, one.task) == ("token.powerbert-first", "cola")
    ]
    least = next(cell for cell in told.cells if cell.cell == 0.42)
    assert full["first-cola"] == f"{least.measured:+.3f} [{least.low:.3f}, {least.high:.3f}]"
    assert full["quadratic-mean"] == "1.0%"  # T / (T + 2D + F) at 24 tokens, D = 384, F = 1536
    assert full["quadratic-512"] == "18.2%"


def test_what_is_chosen_well_or_badly_is_counted_outside_the_lead(whole):
    pair = study.lead(WIDE)
    told = tokens.facts(whole.runs, whole.findings, pair)
    cells = [
        cell
        for one in whole.findings
        for cell in one.cells
        if one.claim.key.endswith(("-random", "-first"))
        and (one.encoder, one.task) != (pair.encoder, pair.task)
    ]
    assert told["chosen-all"] == str(len(cells))
    better, worse = (
        sum(f(cell) for cell in cells) for f in (lambda c: c.low > 0, lambda c: c.high < 0)
    )
    assert (told["chosen-better"], told["chosen-worse"]) == (str(better), str(worse))


def test_one_text_by_itself_has_the_speeds_of_its_timings(drawn, whole):
    _, table = drawn["times"]
    pair = study.lead(WIDE)
    own = table[(table["encoder"] == pair.encoder) & (table["task"] == pair.task)]
    own = own[(own["batch"] == 1) & (own["timed"] == "pruned")]
    own = own[own["budget"] == own["budget"].min()]
    said = tokens.alone(whole.runs, whole.timings, pair)["alone-speeds"]
    assert said == f"{own['speed'].min():.2f} to {own['speed'].max():.2f}"
    assert tokens.alone(whole.runs, [], pair) == {"alone-speeds": "untested"}


def test_filters_first_lead_by_what_is_judged(whole):
    told = tokens.roads([r for r in whole.runs if r.spec.base], whole.findings)
    [one] = [f for f in whole.findings if f.claim.key == "token.stack-ltp"]
    [cell] = one.cells
    assert told["road-lead-ltp"] == f"{cell.measured:+.3f} [{cell.low:.3f}, {cell.high:.3f}]"


def test_longer_training_stands_beside_the_shorter(drawn):
    _, table = drawn["longer"]
    asked = table[["arm", "budget", "steps"]].values.tolist()
    assert sorted(asked) == [
        ["ltp", 0.48, 400],
        ["ltp", 0.48, 1600],
        ["power-bert", 0.42, 400],
        ["power-bert", 0.42, 1600],
    ]
    assert len(marks(drawn["longer"][0])) == 2  # of the papers


def test_scores_by_work_have_the_intervals_of_their_drops(drawn):
    figure, table = drawn["frontier"]
    assert (table["drop_low"] < table["drop"]).all()
    assert (table["drop"] < table["drop_high"]).all()
    [axes] = [ax for ax in figure.axes if ax.get_title(loc="left").startswith("minilm-l6, mrpc")]
    row = table[(table["task"] == "mrpc") & (table["arm"] == "ltp")].iloc[0]
    ends = [segment for bars in axes.collections for segment in bars.get_segments()]
    heights = [tuple(sorted(y for _, y in segment)) for segment in ends]
    below, above = row["drop_high"] - row["drop"], row["drop"] - row["drop_low"]
    wanted = (row["score"] - below, row["score"] + above)
    assert any(found == pytest.approx(wanted) for found in heights)


def test_controls_name_method_control_and_encoder(drawn):
    words = [label.get_text() for label in drawn["controls"][0].axes[0].get_yticklabels()]
    assert len(words) == len(set(words))
    assert "PoWER-BERT over random, sst2 (mpnet-base)" in words


def test_the_dense_model_that_was_trained_on_is_drawn_where_there_is_one(drawn, whole):
    [on] = [r for r in whole.runs if r.spec.method == "dense" and r.spec.training["after"]]
    assert (on.spec.task, on.spec.training["after"]["steps"]) == ("imdb", 250)
    for name in ("frontier", "pace"):
        dashed = {
            axes.get_title(loc="left"): line.get_ydata()[0]
            for axes in drawn[name][0].axes
            for line in axes.lines
            if line.get_linestyle() == "--"
        }
        assert dashed == {"minilm-l6, imdb (line: dense)": on.pruned["score"]}
    told = tokens.facts(whole.runs, whole.findings, study.lead(WIDE))
    assert told["on-task"] == "imdb"
    assert told["on-after"] == f"{on.pruned['score']:.4f}"


def test_the_larger_encoder_s_losses_are_quoted(whole):
    pair = study.lead(WIDE)
    told = tokens.facts(whole.runs, whole.findings, pair)
    assert told["larger-encoder"] == "mpnet-base"
    assert told["larger-loss-ltp"] == "0.25"
    [run] = [
        run
        for run in whole.runs
        if run.spec.encoder == "mpnet-base" and study.arm_of(run.spec) == "ltp"
    ]
    drop = run.dense["score"] - run.pruned["score"]
    assert float(told["larger-ltp"].split()[0]) == pytest.approx(drop, abs=0.02)
    none = tokens.facts([], whole.findings, pair)
    assert none["larger-ltp"] == none["larger-encoder"] == "untested"
