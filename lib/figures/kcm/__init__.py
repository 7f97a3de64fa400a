"""What do the KCM chapter's runs and probes look like?

tables      what KCM loses by task and budget, beside what the paper states
scores      scores by task, budget and size of encoder
methods     every method beside every other
choices     what paper and talk leave open
layers      what is kept of each layer, and what its output is off by
prices      calibration sentences, seconds and speed
probed      hulls, row norms, rankings, images
"""

from lib.figures.kcm.choices import nearest, readings
from lib.figures.kcm.layers import errors, layers
from lib.figures.kcm.methods import baselines, rivals
from lib.figures.kcm.prices import samples, seconds, speed
from lib.figures.kcm.probed import hull, norms, rankings, vision
from lib.figures.kcm.quoted import facts, matthews
from lib.figures.kcm.scores import curves, sizes, tasks
from lib.figures.kcm.tables import table

__all__ = [
    "baselines",
    "curves",
    "errors",
    "facts",
    "hull",
    "layers",
    "matthews",
    "nearest",
    "norms",
    "rankings",
    "readings",
    "rivals",
    "samples",
    "seconds",
    "sizes",
    "speed",
    "table",
    "tasks",
    "vision",
]
