"""Pruning, Reproduced: the shared code, one question a room.

What is asked, of what, on what:
    assets      where does an encoder come from, and is it the one that we mean?
    tasks       what is the encoder asked to do, where do the texts lie, how are they split?
    training    how do texts become tensors, and how is a model taught: a teacher, what is left
                after pruning, or weights and gates together? How does a killed training go on?
How an encoder is made smaller:
    models      what is this part called in this architecture, how is a unit silenced (masks), how
                is it removed for good (compact), and what does the smaller model compute?
    tokens      how are tokens dropped on their way through the layers?
    pruners     which units matter? One file a method; the folder is the registry
    scoring     the methods' common tools: importance, sampling, search, calibration, refitting
What it costs and how good it is:
    measures    parameters, MACs, seconds; scores, with every example's prediction
    devices     where is everything computed, and does bfloat16 pay there?
What happened, and whether the talk held:
    study       which runs does a chapter rest on? One file a chapter; and what is missing?
    engine      how does a whole study run?
    execute     which runs are done now? bench: how is one done?
    runs        what happened?
    probes      what do we ask that no run answers? One file a question
    claims      did the talk hold, and how sure is a number?
    figures     the runs as tables, as figures, and as the numbers that prose quotes
    book        how does the book come about?
    errors      how do we refuse?

After `import lib`, transformers' Auto classes and pipelines know the compact model and the one that
drops tokens: they register when those load, and not before, so that what only reads records never
waits for torch.
"""

import importlib
import sys
from importlib.machinery import ModuleSpec, PathFinder

_ROOMS = {  # a module, and what is to be imported as soon as it is there
    "transformers.models.auto.configuration_auto": "lib.models.compact_config",
    "transformers.models.auto.modeling_auto": "lib.models.compact_model",
    "lib.models.compact_config": "lib.tokens.config",
    "lib.models.compact_model": "lib.tokens.model",
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
