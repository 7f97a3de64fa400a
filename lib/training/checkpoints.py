"""How does a killed training go on? From its last checkpoint, to the same result.

A checkpoint is one safetensors file, its facts as JSON in the header; never a pickle.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from lib.errors import StudyError
from lib.runs import digest

EVERY = 300.0  # seconds between two checkpoints
State = tuple[dict[str, Tensor], dict]  # tensors, and facts that JSON can hold


class Keeper:
    """Keeps the state of one training in `file`; `what` are its hyperparameters, plain values."""

    def __init__(self, file: Path, what: Mapping) -> None:
        self.file, self.what = Path(file), digest(dict(what))
        self.before = 0.0  # seconds that were spent before this process
        self.start = self.last = time.perf_counter()

    def load(self) -> State | None:
        """What `save` was given last; None where there is nothing.

        Raises a StudyError for a checkpoint of other hyperparameters, or one that is damaged.
        """
        if not self.file.exists():
            return None
        try:
            with safe_open(self.file, framework="pt") as opened:
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}
                facts = json.loads(opened.metadata()["facts"])
            what, self.before = facts.pop("what"), facts.pop("seconds")
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise StudyError(
                f"cannot read the checkpoint {self.file} ({error}); remove it to start afresh"
            ) from None
        if what != self.what:
            raise StudyError(
                f"the checkpoint {self.file} is of a run with other hyperparameters; give those "
                "back, or remove it to start afresh"
            )
        return tensors, facts

    def due(self) -> bool:
        """Is it time for the next one?"""
        return time.perf_counter() - self.last >= EVERY

    def save(self, tensors: Mapping[str, Tensor], facts: Mapping) -> None:
        """Put a checkpoint in the place of the last one, whole or not at all."""
        self.last = time.perf_counter()
        seconds = self.before + self.last - self.start
        text = json.dumps(dict(facts) | {"what": self.what, "seconds": seconds})
        self.file.parent.mkdir(parents=True, exist_ok=True)
        new = self.file.with_name(f".{self.file.name}.{os.getpid()}.new")
        own = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        try:
            save_file(own, new, metadata={"facts": text})
            os.replace(new, self.file)
        finally:
            new.unlink(missing_ok=True)


def join(**states: State) -> State:
    """Several states as one, each under its name."""
    tensors = {f"{n}/{key}": t for n, (own, _) in states.items() for key, t in own.items()}
    return tensors, {name: facts for name, (_, facts) in states.items()}


def part(state: State, name: str) -> State:
    """One of the states that were joined."""
    tensors, facts = state
    start = f"{name}/"
    own = {key.removeprefix(start): t for key, t in tensors.items() if key.startswith(start)}
    return own, facts[name]


def of_optimiser(optimiser: Optimizer) -> State:
    """Moments by parameter, and the groups' settings."""
    state = optimiser.state_dict()
    moments = {f"{n}/{key}": t for n, own in state["state"].items() for key, t in own.items()}
    return moments, {"groups": state["param_groups"]}


def to_optimiser(optimiser: Optimizer, state: State) -> None:
    """Give an optimiser back what `of_optimiser` took."""
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state[0].items():
        number, _, key = name.partition("/")
        moments.setdefault(int(number), {})[key] = tensor
    optimiser.load_state_dict({"state": moments, "param_groups": state[1]["groups"]})


def weights(model: nn.Module) -> str:
    """sha256 of a model's parameters, for a training that goes on from no other model."""
    found = hashlib.sha256()
    for parameter in model.parameters():
        found.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def of_noise() -> State:
    """torch's own generators, from which dropout draws."""
    found = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_rng_state()
    return found, {}


def to_noise(state: State) -> None:
    """Take torch's generators back to where they were when a checkpoint was written."""
    torch.set_rng_state(state[0]["cpu"])
    if "cuda" in state[0] and torch.cuda.is_available():
        torch.cuda.set_rng_state(state[0]["cuda"])
