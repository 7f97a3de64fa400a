"""What number do runs give, and how sure is it? Small named quantities with 95% intervals.

quantity    what is one, what does it read, what does it give?
scores      how good are the answers?
work        how much work is there? Shapes, MACs, padding
times       how fast is it?
trade       how much score at how much speed?
layers      what did each layer lose, and how far off is its output?
training    did training do what was asked, and at what price?
told        what do a probe, or a talk's own numbers, say?
"""

from lib.claims.quantities import layers, scores, times, told, trade, training, work
from lib.claims.quantities.layers import dense_hidden, layer_errors, pruned_neurons, units
from lib.claims.quantities.quantity import Estimate, Evidence, Quantity
from lib.claims.quantities.scores import leads
from lib.claims.quantities.told import cell_name
from lib.claims.quantities.training import pruning_seconds, sparsity
from lib.claims.quantities.work import macs

__all__ = [
    "ANSWERED",
    "DRAWN",
    "LOSSES",
    "PER_ENCODER",
    "QUANTITIES",
    "TIMED",
    "Estimate",
    "Evidence",
    "Quantity",
    "cell_name",
    "dense_hidden",
    "layer_errors",
    "leads",
    "macs",
    "pruned_neurons",
    "pruning_seconds",
    "sparsity",
    "units",
]

TIMED = ("timings", "token-timings", "trade")  # what wants a protocol
ANSWERED = ("answers", "trade")  # what reads how texts were answered
PER_ENCODER = ("shape", "timings")  # a matter of the encoder alone, whatever the task

QUANTITIES: dict[str, Quantity] = {
    name: quantity
    for room in (scores, work, times, trade, layers, training, told)
    for name, quantity in room.QUANTITIES.items()
}
DRAWN = tuple(name for room in (scores, trade, layers) for name in room.QUANTITIES)
"""What another seed gives otherwise; what is counted or timed hardly depends on one."""
LOSSES = {quantity.loss for quantity in QUANTITIES.values() if quantity.loss}
