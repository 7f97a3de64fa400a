"""Do the quantities of the KCM chapter's claims measure what they say?"""

from dataclasses import replace

import made
import numpy as np
import pytest
from scipy import stats

from lib import claims, study
from lib.claims import Verdict, quantities
from lib.claims.quantities import Estimate, Evidence
from lib.errors import StudyError

P = study.PROFILES["published"]
CLAIMS = {claim.key: claim for claim in claims.load() if claim.chapter == "kcm"}
MRPC = study.Pair("mpnet-base", "mrpc")


def runs(arm: str, pair: study.Pair | None = None, budget: float = 0.6, seeds: int = 3) -> tuple:
    cells = (study.spec(P, arm, budget, unit="macs", seed=s, pair=pair) for s in range(seeds))
    return tuple(made.run(spec, examples=200) for spec in cells)


def measure(name: str, found: tuple, rivals: tuple = (), **more) -> Estimate | str:
    return quantities.QUANTITIES[name].measure(Evidence(0.6, found, rivals, found, (), **more))


def shaped(run, neurons: list[int]):
    layers = [layer | {"neurons": n} for layer, n in zip(run.shape["layers"], neurons, strict=True)]
    return replace(run, shape=run.shape | {"layers": layers})


def test_the_paper_s_counts_have_its_own_fingerprint():
    reference = CLAIMS["kcm.fingerprint"].reference["sst2"]
    run = shaped(runs("kcm")[0], [3072 - int(count) for count in reference])
    assert quantities.pruned_neurons(run) == reference
    assert measure("fingerprint", (run,), reference=tuple(reference)).value == pytest.approx(1)
    turned = shaped(run, [int(count) for count in reference])
    assert measure("fingerprint", (turned,), reference=tuple(reference)).value == pytest.approx(-1)
    assert measure("spread", (run,)).value == pytest.approx((3072 - 749) / 3072)


def test_a_fingerprint_that_cannot_be_compared_says_why():
    reference = tuple(CLAIMS["kcm.fingerprint"].reference["sst2"])
    assert "no counts" in measure("fingerprint", runs("kcm"))
    small = runs("kcm", study.Pair("minilm-l6", "sst2"))
    assert "12 layers, this one 6" in measure("fingerprint", small, reference=reference)
    even = shaped(runs("kcm")[0], [1000] * 12)
    assert "no order" in measure("fingerprint", (even,), reference=reference)


def test_seconds_are_those_between_dense_and_smaller():
    spent = [{"teacher": 500.0, "score": 10.0 + n, "prune": 5.0, "evaluate": 9.0} for n in range(3)]
    found = tuple(replace(r, seconds=s) for r, s in zip(runs("kcm"), spent, strict=True))
    estimate = measure("seconds", found)
    values = [15.0, 16.0, 17.0]
    low, high = stats.t.interval(0.95, 2, 16, stats.sem(values))
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((16, low, high))
    assert measure("seconds", found[:1]) == Estimate(15.0, 15.0, 15.0, 1)


def test_errors_grow_or_differ_by_layer():
    def with_errors(found: tuple, *each: list[float]) -> tuple:
        return tuple(
            replace(r, trace={"layer_errors": e}) for r, e in zip(found, each, strict=True)
        )

    alone = with_errors(runs("kcm-r2", seeds=2), [0.1, 0.2, 0.3], [0.1, 0.1, 0.4])
    both = with_errors(runs("kcm", seeds=2), [0.2, 0.2, 0.2], [0.1, 0.2, 0.3])
    assert measure("error-growth", alone).value == pytest.approx(np.mean([1.5, 2]))
    assert measure("error-growth", both[:1]).value == pytest.approx(1)
    assert measure("error-difference", both, alone).value == pytest.approx(-0.1)
    assert measure("growth-difference", alone, both).value == pytest.approx((1.5 - 1 + 2 - 1.5) / 2)
    bare = tuple(replace(r, trace={}) for r in alone)
    assert "no errors by layer" in measure("growth-difference", bare, both)
    assert "no errors by layer" in measure("error-growth", bare)
    assert "no errors by layer" in measure("error-difference", both, bare)


def test_accuracy_stands_for_f1_and_nothing_else():
    found = runs("kcm", MRPC)
    assert {run.per_example["metric"] for run in found} == {"f1"}
    lost, score = measure("accuracy-drop", found), measure("accuracy", found)
    share = measure("accuracy-share", found)
    assert share.value == pytest.approx(score.value / (score.value + lost.value))
    assert lost.value != pytest.approx(measure("drop", found).value)
    other = runs("kcm", study.Pair("mpnet-base", "stsb"))
    assert measure("accuracy-drop", other) == measure("drop", other)


def test_the_paper_s_scores_are_drops_on_another_encoder_and_scores_on_its_own():
    claim = CLAIMS["kcm.table-mrpc"]
    for p, quantity in ((P, "accuracy-drop"), (study.PROFILES["paper"], "accuracy")):
        found = claims.judge(claim, p, study.specs("kcm", p), {}, [], {})
        assert {finding.quantity for finding in found} == {quantity}
        stated = {cell.cell: cell.stated for cell in found[0].cells}[0.6]
        expected = 0.8419 if quantity == "accuracy" else 0.8627 - 0.8419
        assert stated == pytest.approx(expected)


def test_the_talk_s_bound_is_judged_on_every_encoder_and_task():
    specs = study.specs("kcm", P)
    chosen = [s for s in specs if study.matches(s, CLAIMS["kcm.flops40"].select | {"budget": 0.6})]
    by = {s: made.run(s, examples=200) for s in chosen}
    found = claims.judge(CLAIMS["kcm.flops40"], P, specs, by, [], {})
    assert len({(f.encoder, f.task) for f in found}) == len(found) == 10
    assert {cell.n for f in found for cell in f.cells} == {10}
    assert {f.quantity for f in found} == {"accuracy-drop"}
    for finding in found:
        [cell] = finding.cells
        held = cell.high < 0.04
        assert (cell.verdict is Verdict.REPRODUCED) == held


@pytest.mark.parametrize(
    ("key", "changes", "why"),
    [
        ("kcm.hull", {"probe": {"question": "hull"}}, "question and value"),
        ("kcm.hull", {"select": {"arm": "kcm"}}, "without a selection"),
        ("kcm.minutes", {"probe": {"question": "hull", "value": "power"}}, "without a selection"),
        ("kcm.fingerprint", {"reference": {}}, "reference"),
        ("kcm.minutes", {"versus": {"arm": "kcm"}}, "versus goes with"),
        ("kcm.table-sst2", {"dense": None}, "dense"),
    ],
)
def test_a_bad_row_is_refused_in_one_line(key, changes, why, tmp_path):
    import yaml

    content = yaml.safe_load((claims.FOLDER / "kcm.yaml").read_text())
    [row] = [row for row in content["claims"] if row["key"] == key]
    row = {name: value for name, value in (row | changes).items() if value is not None}
    (tmp_path / "kcm.yaml").write_text(yaml.safe_dump({"chapter": "kcm", "claims": [row]}))
    with pytest.raises(StudyError, match=why) as refusal:
        claims.load(tmp_path)
    assert "\n" not in str(refusal.value)
