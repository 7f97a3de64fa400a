"""Are timings interleaved, labelled with what they measured, and ratios of one process?"""

from dataclasses import replace

import pytest
import torch

from lib import devices, origin, runs, study
from lib.measures import costs, timings
from lib.models import encoder


@pytest.fixture
def folder(tmp_path, make_classifier, digits):
    make_classifier("bert", 2).save_pretrained(tmp_path / "tiny")
    digits.save_pretrained(tmp_path / "tiny")
    return str(tmp_path / "tiny")


@pytest.fixture
def clocked(folder, make_classifier):
    """The dense shape and one of half the neurons, under one protocol."""
    whole = encoder.shape(make_classifier("bert", 2))
    half = replace(whole, layers=tuple(replace(it, neurons=20) for it in whole.layers))
    protocol = {"batch": 2, "length": 4, "padding": 8, "precision": "float32"}
    return [study.Clocked(folder, shape.json(), protocol) for shape in (whole, half)]


def test_every_shape_gets_a_record_with_all_arms_of_all_rounds(clocked):
    found = timings.compare(clocked, rounds=3)
    assert [timing.shape for timing in found] == [one.shape for one in clocked]
    for timing in found:
        assert {len(samples) for samples in timing.seconds.values()} == {3}
        assert set(timing.seconds) == {"dense_padded", "dense", "hf", "pruned"}
        assert timing.ratio["pruned"] == 1
        assert timing.protocol["threads"] == torch.get_num_threads()


def test_each_arm_runs_what_it_says(clocked, monkeypatch):
    """The padded arm alone gets padding, and every pruned arm is of its recorded shape."""
    seen = {}

    def latency(models, batches, rounds, precision):
        seen.update({name: (models[name], batches[name][0]) for name in models})
        return {name: [1.0] * rounds for name in models}

    monkeypatch.setattr(costs, "latency", latency)
    timings.compare(clocked, rounds=1)
    assert seen["dense_padded"][1]["attention_mask"].sum(1).tolist() == [4, 4]
    assert seen["dense_padded"][1]["input_ids"].shape == (2, 8)
    assert seen["dense"][1]["input_ids"].shape == (2, 4)
    assert encoder.shape(seen["pruned 1"][0]).json() == clocked[1].shape
    assert encoder.shape(seen["hf"][0]) == encoder.shape(seen["dense"][0])


def test_the_recorded_device_is_that_of_the_models(clocked, monkeypatch):
    """On a device that holds no numbers; a GPU's name would do as well."""
    seen = set()

    def latency(models, batches, rounds, precision):
        seen.update(p.device for model in models.values() for p in model.parameters())
        return {name: [1.0] * rounds for name in models}

    monkeypatch.setattr(costs, "latency", latency)
    monkeypatch.setattr(devices, "device", lambda: torch.device("meta"))
    monkeypatch.setattr(devices, "name", lambda device: f"a {device.type}")
    origin.machine.cache_clear()
    try:
        [first, _] = timings.compare(clocked, rounds=1)
    finally:
        origin.machine.cache_clear()
    assert first.machine == first.provenance["device"] == "a meta"
    assert {device.type for device in seen} == {"meta"}


def test_zeros_are_really_zeroed(clocked, monkeypatch):
    seen = {}

    def latency(models, batches, rounds, precision):
        seen.update(models)
        return {name: [1.0] for name in models}

    monkeypatch.setattr(costs, "latency", latency)
    [first, _] = clocked
    timings.compare([replace(first, protocol=first.protocol | {"zeroed": 0.7})], rounds=1)
    layer = encoder.layers(seen["pruned 0"])[0]
    assert (layer.up.weight == 0).float().mean() == pytest.approx(0.7, abs=0.06)
    assert (encoder.layers(seen["dense"])[0].up.weight == 0).sum() == 0


def test_a_ratio_is_the_median_over_rounds_of_ratios_within_a_round():
    assert timings.ratio([2.0, 30.0, 4.0], [1.0, 10.0, 2.0]) == 2.0


def test_measure_stores_a_timing_of_every_shape_and_replaces_its_own(
    clocked, tmp_path, monkeypatch
):
    profile = replace(study.PROFILES["quick"], folder=tmp_path / "runs")
    monkeypatch.setattr(study, "timings", lambda chapter, *_: clocked if chapter == "x" else [])
    assert len(timings.measure(profile, rounds=1, chapters=["x"])) == 2
    timings.measure(profile, rounds=1, chapters=["x"])
    assert len(runs.Store(tmp_path / "runs").timings()) == 2


def test_many_shapes_are_timed_a_few_at_a_time():
    assert list(timings.batched(range(5), 2)) == [[0, 1], [2, 3], [4]]
