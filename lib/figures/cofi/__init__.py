"""What do the CoFi chapter's runs look like?

points      one row an encoder, task, arm and size: score, size and speed
training    sparsity and score by step
curves      score against speed and size; rivals at equal speed
speed       parameters and MACs beside speed
ablations   units, distillation, matching
tasks       every task; the validation talk's table
structure   what remains of each layer
cost        hours of compute
"""

from lib.figures.cofi.ablations import distillation, matching, units
from lib.figures.cofi.cost import cost
from lib.figures.cofi.curves import curve, rivals
from lib.figures.cofi.facts import facts
from lib.figures.cofi.points import here, own, table
from lib.figures.cofi.speed import sizes, speed
from lib.figures.cofi.structure import structure
from lib.figures.cofi.tasks import tasks, validation
from lib.figures.cofi.training import heads, training

__all__ = [
    "cost",
    "curve",
    "distillation",
    "facts",
    "heads",
    "here",
    "matching",
    "own",
    "rivals",
    "sizes",
    "speed",
    "structure",
    "table",
    "tasks",
    "training",
    "units",
    "validation",
]
