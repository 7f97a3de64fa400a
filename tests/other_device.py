"""A device that no machine has, for test_devices.py: what meets a CPU tensor there fails, as it
would on a GPU.

Its tensors hold tensors of the CPU, on which everything is computed. Run as a script it prints, as
JSON, what went wrong with which case: the registration below is for a whole process.
"""

import json
import traceback

import torch
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("other")
OTHER = torch.device("other", 0)
MOVES = ("aten::_to_copy", "aten::copy_", "aten::_copy_from", "aten::_local_scalar_dense")
INDEXED = ("aten::index", "aten::index_put_")  # by places that may lie on the CPU


class Elsewhere(torch.Tensor):
    """A tensor of the CPU that claims to lie on the other device."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, here: torch.Tensor):
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            here.size(),
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=OTHER,
        )
        made.here = here
        return made

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return run(function, *args, **(kwargs or {}))

    # What torch answers before it asks a device.
    @property
    def data(self):
        return self.detach()

    @data.setter
    def data(self, new):
        self.here = new.here

    def tolist(self):
        return self.cpu().tolist()

    def numpy(self):
        raise TypeError("can't convert a tensor of another device to numpy")

    def new_tensor(self, values, dtype=None, **_):
        return torch.tensor(values, dtype=dtype or self.dtype).to(OTHER)


def run(function, *args, **kwargs):
    """Any operation of torch that meets the other device, done on the CPU."""
    name = function._schema.name
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    there = [t for t in tensors if isinstance(t, Elsewhere)]
    strangers = [t for t in tensors if not isinstance(t, Elsewhere) and t.ndim]
    if there and strangers and name not in MOVES + INDEXED:
        raise RuntimeError(f"{name} on tensors of two devices")
    if there and kwargs.get("generator") is not None:
        raise RuntimeError(f"{name} on the other device draws from a generator of the CPU")
    known = {id(t.here): t for t in there}
    to = kwargs.get("device")
    elsewhere = bool(there) if to is None else torch.device(to).type == OTHER.type

    def local(x):
        if isinstance(x, Elsewhere):
            return x.here
        return torch.device("cpu") if isinstance(x, torch.device) else x

    def remote(x):
        if not isinstance(x, torch.Tensor) or not elsewhere:
            return x
        return known.get(id(x)) if id(x) in known else Elsewhere(x)

    with torch._C._AutoDispatchBelowAutograd():
        found = function(*tree_map(local, args), **tree_map(local, kwargs))
    if name in ("aten::copy_", "aten::_copy_from"):
        return args[name == "aten::_copy_from"]
    return tree_map(remote, found)


REGISTRY = torch.library.Library("_", "IMPL", "PrivateUse1")  # what it holds goes with it
REGISTRY.fallback(run)


def main() -> dict:
    """The cases, and what went wrong with which: each is asked of a model here and of one there."""
    # Before conftest has every call's types checked: the other tests do that, at twice the time.
    from lib import bench, pruners  # noqa: F401

    for name in pruners.names():
        pruners.get(name)
    from conftest import tiny
    from test_devices import CASES, stays_behind

    autocast, tensor = torch.autocast, torch.tensor

    class Autocast(autocast):  # the other device has no bfloat16 of its own
        def __init__(self, kind, *args, **kwargs):
            own = {"device_type": "cpu", "enabled": False} if kind == OTHER.type else {}
            super().__init__(**({"device_type": kind} | kwargs | own))

    def made(values, *args, device=None, **kwargs):
        plain = tensor(values, *args, **kwargs)
        return plain if device is None else plain.to(device)

    wrong = {}
    for label, case in (CASES | {"control": stays_behind}).items():
        models = [tiny("bert").to(device) for device in ("cpu", OTHER)]
        torch.autocast, torch.tensor = Autocast, made
        try:
            here, there = (case(model) for model in models)
            if not torch.allclose(here, there.cpu(), atol=1e-4):
                most = (here - there.cpu()).abs().max()
                wrong[label] = f"its logits differ from the CPU's by {most:.2g}"
        except Exception as error:
            lines = traceback.extract_tb(error.__traceback__)
            own = [f"{at.filename}:{at.lineno}" for at in lines if "/lib/" in at.filename]
            wrong[label] = f"{error} at {' < '.join(own[:-4:-1])}"
        finally:
            torch.autocast, torch.tensor = autocast, tensor
    if "two devices" not in wrong.pop("control", ""):
        wrong["control"] = "a tensor that stayed behind went unnoticed"
    return {"cases": list(CASES), "wrong": wrong}


if __name__ == "__main__":
    print(json.dumps(main()))
