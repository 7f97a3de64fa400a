"""Is a checkpoint whole, its own run's, and enough to go on from?"""

import pytest
import torch

from lib.errors import StudyError
from lib.training import checkpoints
from lib.training.checkpoints import Keeper


def test_what_is_kept_comes_back(tmp_path):
    keeper = Keeper(tmp_path / "deep" / "a.safetensors", {"lr": 0.1})
    assert keeper.load() is None
    own, best = {"x": torch.arange(3.0), "empty": torch.ones(0, 4)}, {}
    keeper.save(*checkpoints.join(own=(own, {"step": 3, "loss": 0.1}), best=(best, {})))
    again = Keeper(tmp_path / "deep" / "a.safetensors", {"lr": 0.1})
    state = again.load()
    tensors, facts = checkpoints.part(state, "own")
    torch.testing.assert_close(tensors, own, rtol=0, atol=0)
    assert facts == {"step": 3, "loss": 0.1}
    assert checkpoints.part(state, "best") == ({}, {})
    assert again.before > 0
    assert [file.name for file in keeper.file.parent.iterdir()] == ["a.safetensors"]


def test_a_full_disk_leaves_the_last_checkpoint_and_nothing_else(tmp_path, monkeypatch):
    keeper = Keeper(tmp_path / "a.safetensors", {})
    keeper.save({"x": torch.ones(2)}, {"step": 1})

    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        keeper.save({"x": torch.zeros(2)}, {"step": 2})
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]
    assert keeper.load()[1] == {"step": 1}


def test_another_run_s_checkpoint_is_refused(tmp_path):
    file = tmp_path / "a.safetensors"
    Keeper(file, {"lr": 0.1}).save({"x": torch.ones(2)}, {})
    with pytest.raises(StudyError, match="of a run with other hyperparameters") as refusal:
        Keeper(file, {"lr": 0.2}).load()
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("length", [0, 7, 100])
def test_a_damaged_checkpoint_is_refused(tmp_path, length):
    file = tmp_path / "a.safetensors"
    Keeper(file, {}).save({"x": torch.ones(200)}, {})
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(StudyError, match="remove it to start afresh"):
        Keeper(file, {}).load()


def test_an_optimiser_goes_on_as_if_nothing_had_happened(tmp_path):
    def new():
        weight = torch.nn.Parameter(torch.arange(4.0))
        idle = torch.nn.Parameter(torch.zeros(2))  # never has a gradient, so no moments
        return weight, torch.optim.AdamW([weight, idle], lr=0.1, fused=True)

    def steps(weight, optimiser, count):
        for _ in range(count):
            optimiser.zero_grad()
            (weight**2).sum().backward()
            optimiser.step()

    straight, first, second = new(), new(), new()
    steps(*straight, 6)
    steps(*first, 3)
    keeper = Keeper(tmp_path / "a.safetensors", {})
    keeper.save(*checkpoints.join(o=checkpoints.of_optimiser(first[1])))
    with torch.no_grad():
        second[0].copy_(first[0])
    checkpoints.to_optimiser(second[1], checkpoints.part(keeper.load(), "o"))
    steps(*second, 3)
    assert torch.equal(second[0], straight[0])
