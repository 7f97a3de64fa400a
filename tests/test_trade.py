"""Are speed and score read together as promised, and what is left of an encoder?"""

from dataclasses import replace

import numpy as np
import pytest

from lib import claims, runs, study
from lib.claims import Verdict, overall
from lib.claims.cells import at_cell
from lib.claims.checks import check
from lib.claims.quantities import QUANTITIES, Evidence, trade
from lib.errors import StudyError
from lib.runs import Run, Timing

PUBLISHED = study.PROFILES["published"]
SMALL, LARGE = study.Pair("minilm-l6", "sst2"), study.Pair("mpnet-base", "sst2")
N = 400
CLAIMS = {claim.key: claim for claim in claims.load()}


def shape(width: int) -> dict:
    return {"hidden": 8, "layers": [{"heads": 2, "qk": 2, "vo": 2, "neurons": width}] * 3}


def run(size: float, right: int, pair=SMALL, arm="cofi", seed=0, **changes) -> Run:
    """`right` of N answers right, the dense model's 380."""
    unit = "attention" if arm == "dense" else "parameters"
    spec = study.spec(PUBLISHED, arm, size, unit=unit, pair=pair, seed=seed)
    answers = [(np.arange(N) < count).astype(int) for count in (N, 380, right)]
    packed = runs.pack_examples("accuracy", *answers, 2)
    sizes = {"params": 1000, "encoder_params": 800, "attention_params": 300, "macs": 1}
    scored = [{"score": a.mean(), "scores": {}} | sizes for a in answers[1:]]
    kept = dict.fromkeys(runs.FRACTIONS, size)
    left = shape(round(100 * size))
    return replace(Run(spec, *scored, kept, kept, left, {}, packed, {}), **changes)


def timing(made: Run, dense: float, pruned: float) -> Timing:
    seconds = {"dense": [dense] * 3, "pruned": [pruned] * 3}
    return Timing(made.spec.encoder, made.shape, {}, "here", seconds, {}, {})


def evidence(own, rivals=(), timings=(), cell="", **more) -> Evidence:
    return Evidence(cell, tuple(own), tuple(rivals), tuple(own), tuple(timings), **more)


def measure(name: str, *arguments, **more):
    return QUANTITIES[name].measure(evidence(*arguments, **more))


CURVE = [run(0.5, 370), run(0.1, 340)]
TIMED = [timing(CURVE[0], 2.0, 1.0), timing(CURVE[1], 2.0, 0.25)]


def test_between_two_speeds_the_score_is_read_off_a_line_over_the_logarithm():
    four = measure("score-at-speed", CURVE, timings=TIMED, cell=4)  # half-way from 2x to 8x
    assert four.value == pytest.approx(355 / N)
    assert four.low < four.value < four.high
    lost = measure("drop-at-speed", CURVE, timings=TIMED, cell=4)
    assert lost.value == pytest.approx(25 / N)
    root = measure("drop-at-speed", CURVE, timings=TIMED, cell=2**0.5)  # from dense at 1x
    assert root.value == pytest.approx(5 / N)


def test_faster_than_any_run_is_not_measured():
    assert "fastest is at 8.0" in measure("score-at-speed", CURVE, timings=TIMED, cell=12)
    assert "no timing" in measure("score-at-speed", CURVE, cell=2)


def test_a_lead_is_at_equal_speed_and_a_slow_rival_stands_with_its_fastest_run():
    rival = [run(0.4, 350, arm="cofi-layers")]
    timed = [*TIMED, timing(rival[0], 2.0, 0.5)]  # 4x
    assert measure("lead-at-speed", CURVE, rival, timed, 4).value == pytest.approx(5 / N)
    assert measure("lead-at-speed", CURVE, rival, timed, 8).value == pytest.approx(-10 / N)
    at_two = measure("lead-at-speed", CURVE, rival, timed, 2)
    assert at_two.value == pytest.approx((370 - 365) / N)  # half-way from dense to the rival
    assert "no timing" in measure("lead-at-speed", CURVE, rival, TIMED, 4)


def test_a_lead_may_be_at_equal_size_too():
    own, rival = [run(0.5, 370), run(0.125, 340)], [run(0.25, 350, arm="cofi-layers")]
    at_half_way = measure("lead-at-size", own, rival, cell=0.25)  # over the logarithm
    assert at_half_way.value == pytest.approx((355 - 350) / N)
    assert measure("lead-at-size", own, rival, cell=0.125).value == pytest.approx(-10 / N)


def test_a_rival_of_another_encoder_is_as_fast_as_its_seconds_say():
    large = [run(0.5, 375, LARGE), run(0.1, 350, LARGE)]
    timed = [timing(large[0], 8.0, 4.0), timing(large[1], 8.0, 0.5), *TIMED]
    small = run(1.0, 380, arm="dense")
    assert trade.speed_of(small, timed, "mpnet-base") == pytest.approx(4)
    assert trade.speed_of(CURVE[1], timed, "mpnet-base") == pytest.approx(32)
    found = measure("lead-at-speed", large, [small], timed)  # at its speed: half-way from 2x to 16x
    part = np.log(4 / 2) / np.log(16 / 2)
    assert found.value == pytest.approx((375 - 25 * part - 380) / N)


def test_both_sides_of_a_joint_claim_have_to_hold():
    assert measure("speed-and-share", CURVE[1:], timings=TIMED, cell="speedup").value == 8
    share = measure("speed-and-share", CURVE[1:], timings=TIMED, cell="share")
    assert share.value == pytest.approx(340 / 380)
    good, bad, unsure = Verdict.REPRODUCED, Verdict.NOT_REPRODUCED, Verdict.INCONCLUSIVE
    assert overall([good, good], joint=True) is good
    assert overall([good, bad], joint=True) is bad
    assert overall([good, unsure], joint=True) is unsure
    assert overall([good, bad]) is Verdict.PARTLY
    assert overall([Verdict.UNTESTED] * 2, joint=True) is Verdict.UNTESTED


def test_seeds_of_unlike_shapes_give_a_speed_with_their_spread():
    seeds = [run(0.1, 340, seed=n, shape=shape(10 + n)) for n in range(3)]
    timed = [timing(one, 2.0, 0.2 + 0.02 * n) for n, one in enumerate(seeds)]
    found = measure("speedup", seeds, timings=timed)
    assert found.value == pytest.approx(np.mean([2 / 0.2, 2 / 0.22, 2 / 0.24]))
    assert found.low < 2 / 0.22 < found.high
    assert found.n == 9
    ratio = measure("faster", seeds[:1], seeds[2:], timed)
    assert ratio.value == pytest.approx(0.24 / 0.2)


def test_a_fall_and_how_much_more_it_is_than_the_rivals():
    assert measure("fall", CURVE).value == pytest.approx(30 / N)
    rival = [run(0.5, 360, arm="cofi-prediction"), run(0.1, 335, arm="cofi-prediction")]
    found = measure("gain-difference", CURVE, rival)  # leads by 10 at 0.5 and by 5 at 0.1
    assert found.value == pytest.approx(5 / N)
    assert measure("fall", CURVE[:1]) == "wanted runs at two budgets"
    assert measure("gain-difference", CURVE, rival[:1]) == "wanted runs at two budgets"


# --- what is left ---------------------------------------------------------------------------------


def left(neurons: list[int], heads: list[int], **more) -> Run:
    layers = [
        {"heads": h, "qk": 2, "vo": 2, "neurons": n} for h, n in zip(heads, neurons, strict=True)
    ]
    return run(0.05, 350, shape={"hidden": 8, "layers": layers}, **more)


def test_ends_are_kept_first_by_the_pairs_they_win():
    assert measure("ends-first", [left([9, 0, 5, 7], [1] * 4)]).value == 1
    assert measure("ends-first", [left([5, 0, 5, 0], [1] * 4)]).value == pytest.approx(
        (1 + 0.5 + 0.5 + 0) / 4
    )
    assert "middle" in measure("ends-first", [left([1, 2], [1, 1])])


def test_the_top_goes_first_where_the_correlation_is_below_zero():
    one = left([9, 7, 5, 1], [1, 2, 3, 4])
    assert measure("depth", [one], cell="feed-forward").value == -1
    assert measure("depth", [one], cell="attention").value == 1
    assert "no order" in measure("depth", [left([1, 2, 3], [2, 2, 2])], cell="attention")


def test_layers_that_went_are_counted_against_the_rivals():
    own, rival = left([0, 0, 5, 1], [0, 1, 1, 1]), left([0, 1, 5, 1], [1, 1, 1, 1])
    assert measure("attention-gone", [own], [rival]).value == 0.25
    assert measure("feed-forward-gone", [own], [rival]).value == 0.25


def test_a_training_is_off_its_target_by_the_last_row_and_off_the_model_by_the_row_taken():
    trace = {
        "columns": ["step", "expected", "target", "realised"],
        "curve": [[10, 0.93, 0.95, 0.90], [20, 0.955, 0.97, 0.97]],  # its own target had moved
        "taken": 10,
        "target": 0.95,
    }
    own = [run(0.05, 350, trace=trace)]
    assert measure("expected-off", own).value == pytest.approx(0.005)
    assert measure("realised-off", own).value == pytest.approx(0.03)
    assert "no trace" in measure("expected-off", [run(0.05, 350)])


def test_sizes_hours_and_a_talks_own_figures():
    own = [run(0.05, 350, seconds={"teacher": 1800.0, "prune": 900.0, "finetune": 900.0})]
    assert measure("sparsity", own).value == pytest.approx(0.95)
    assert measure("full-sparsity", own).value == pytest.approx(0.95)
    assert measure("within-layers", own).value == pytest.approx(0.8)
    assert measure("hours", own).value == pytest.approx(1)
    half = measure("own-figures", [], cell=10, reference=(10.3, 12.4, 10.4, 8.9, 9.6, 9.1))
    assert half.value == 0.5


# --- claims ---------------------------------------------------------------------------------------


def test_a_cell_may_be_an_arm():
    specs = study.specs("cofi", "published")
    own = [s for s in specs if study.matches(s, CLAIMS["cofi.units"].select)]
    for arm in CLAIMS["cofi.units"].stated:
        found = at_cell(own, arm, "speedup")
        assert {study.arm_of(s) for s in found} == {arm}
        assert {s.budget for s in found} == {0.05}
    assert at_cell(own, 0.05, "speedup") == own


@pytest.mark.parametrize(
    ("key", "change", "why"),
    [
        ("cofi.units", {"stated": {"cofy": 10}, "relation": "above"}, "not a budget"),
        ("cofi.ten-x", {"stated": {"speed": 10}}, "not a side"),
        ("cofi.curve", {"stated": {0.5: 0.9}}, "not a speed"),
        ("cofi.curve", {"protocol": None}, "protocol"),
        ("cofi.validate.confirmed", {"reference": None}, "lacks reference"),
    ],
)
def test_a_bad_row_is_refused(key, change, why):
    import yaml

    rows = yaml.safe_load((claims.FOLDER / "cofi.yaml").read_text())["claims"]
    row = next(row for row in rows if row["key"] == key) | change
    row = {name: value for name, value in row.items() if value is not None}
    with pytest.raises(StudyError, match=why):
        check(row, "here")


def test_the_numbers_of_the_validation_talk_are_those_of_its_slide():
    stated = {
        key: next(iter(claim.stated.values())) for key, claim in CLAIMS.items() if claim.stated
    }
    rows = {"mnli": (0.8054, 10.30, 0.8182, 12.36), "sst2": (0.9037, 10.43, 0.8658, 8.94)}
    rows["cola"] = (1.5733, 9.59, 1.5979, 9.09)
    for task, row in rows.items():
        stem = f"cofi.validate.{task}"
        keys = (f"{stem}-checkpoint", f"{stem}-checkpoint-speed", stem, f"{stem}-speed")
        assert tuple(stated[key] for key in keys) == row
    speeds = [row[n] for row in rows.values() for n in (1, 3)]
    told = CLAIMS["cofi.validate.confirmed"].reference.values()
    assert sorted(speed for row in told for speed in row) == sorted(speeds)


def test_a_stated_accuracy_that_counts_answers_has_a_tolerance_of_their_noise():
    for key in ("cofi.sst2", "cofi.curve", "cofi.distil", "cofi.validate.sst2"):
        claim = CLAIMS[key]
        for cell, stated in claim.stated.items():
            half = 1.96 * np.sqrt(2 * stated * (1 - stated) / claim.examples)
            assert 0 <= claim.tolerance[cell] - half < 0.015, (key, cell)
