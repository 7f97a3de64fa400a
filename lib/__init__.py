"""Pruning, Reproduced: the shared code, one question a room.

assets      where do an encoder's and a task's files come from?
tasks       what is asked, and which split is what?
batches     how do texts become tensors?
encoder     what is this part called in this architecture, and how large is it?
masks       how is a unit silenced?
compact     how is it removed for good? compact_model and compact_config are what is left
costs       what does a model cost: parameters, MACs, seconds?
search      given scores, which units fit the budget?
pruners     which units matter? One file a method; the folder is the registry
train       how is a model fine-tuned?
evaluate    how good is it, example by example?
teachers    where is the fine-tuned dense model, or how is it made?
study       which runs does a chapter rest on?
execute     how is a run done?
runs        what happened? The store of records
claims      did the talk hold?
figures     what does it look like?
publish     how do the records become a book?

After `import lib`, transformers' Auto classes and pipelines know the compact model: it registers
itself when they load, and not before, so that what only reads records never waits for torch.
"""

import importlib
import sys
from importlib.machinery import ModuleSpec, PathFinder

_ROOMS = {  # a module of transformers, and what registers itself there
    "transformers.models.auto.configuration_auto": "lib.compact_config",
    "transformers.models.auto.modeling_auto": "lib.compact_model",
}


class _Registration:
    """An import finder that, right after one of those modules loads, imports its room of ours."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name not in _ROOMS:
            return None
        spec = PathFinder.find_spec(name, path, target)
        load = spec.loader.exec_module

        def exec_module(module: object) -> None:
            load(module)
            importlib.import_module(_ROOMS[name])

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _Registration)
for _name in _ROOMS.keys() & sys.modules.keys():
    importlib.import_module(_ROOMS[_name])
