"""Pruning, Reproduced: the shared code, one question a room.

What is asked, of what, on what:
    assets              where does an encoder come from, and is it the one that we mean?
    tasks               what is the encoder asked to do, where do the texts lie, how are they split?
    batches             how do texts become tensors?
    teachers, train     which fine-tuned model is pruned, and how is a model taught?
How an encoder is made smaller:
    encoder             what is this part called in this architecture, and how large is it?
    masks               how is a unit silenced?
    compact             how is it removed for good?
    compact_model       what does the smaller model compute? compact_config: what is saved of it?
    tokens              how are tokens dropped on their way through the layers?
    pruners             which units matter? One file a method; the folder is the registry
    importance, sampling, search, lossless, products    the methods' common tools
    joint               how are weights and gates trained together?
    hard_concrete       which units does a training keep? lagrangian: how is it held to a size?
    distil              what does a student learn from its teacher?
    checkpoints         how does a killed training go on?
    calibration         what does an encoder compute on sentences, without gradients or labels?
    hull                which rows of a matrix stand for the others?
    filters             how is an FFN made smaller without retraining?
    tuning              how is what survives rescaled or refitted?
What it costs and how good it is:
    costs, timings      parameters, MACs, seconds
    devices             where is everything computed, and does bfloat16 pay there?
    evaluate            scores, with every example's prediction
What happened, and whether the talk held:
    study               which runs does a chapter rest on? One file a chapter; and what is missing?
    engine              how does a whole study run?
    execute, bench      which runs are done now, and how is one done?
    runs                what happened?
    probes              what do we ask that no run answers? One file a question
    claims              did the talk hold, and how sure is a number?
    figures             the runs as tables, as figures, and as the numbers that prose quotes
    book                how does the book come about?
    errors              how do we refuse?

After `import lib`, transformers' Auto classes and pipelines know the compact model and the one that
drops tokens: they register when those load, and not before, so that what only reads records never
waits for torch.
"""

import importlib
import sys
from importlib.machinery import ModuleSpec, PathFinder

_ROOMS = {  # a module, and what is to be imported as soon as it is there
    "transformers.models.auto.configuration_auto": "lib.compact_config",
    "transformers.models.auto.modeling_auto": "lib.compact_model",
    "lib.compact_config": "lib.tokens.config",
    "lib.compact_model": "lib.tokens.model",
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
