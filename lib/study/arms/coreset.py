"""Which methods does the coreset chapter compare, and what of the training data do they read?"""

from typing import Any

# The headline reading of the slides: sample a subset of each head's dims by their norms. What is
# kept keeps its weight; `magnitude` is the same scores with the largest taken instead of sampled.
CORESET = {"axis": "head-dims", "importance": "product", "sampler": "without", "rescale": False}
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "coreset": ("coreset", CORESET),
    "uniform": ("coreset", CORESET | {"sampler": "uniform"}),
    "magnitude": ("magnitude", {}),
    "svd": ("svd", {}),
    "random": ("random", {}),
    "unstructured": ("unstructured", {}),
    "gradient-talk": ("gradient", {"reading": "talk"}),
    "gradient-michel": ("gradient", {"reading": "michel"}),
    "taylor-once": ("taylor", {"steps": 1, "uneven": True}),
    "taylor-steps": ("taylor", {"steps": 8, "uneven": True}),
    "movement": ("movement", {}),
}
SAMPLED = ("coreset", "uniform")  # a seed draws what is kept; `random` draws just what uniform does
CALIBRATED = ("gradient-talk", "gradient-michel", "taylor-once", "taylor-steps", "movement")
FIXED = ("magnitude", "svd", "unstructured")  # nothing is drawn unless fine-tuning follows
PRUNED = SAMPLED + FIXED + CALIBRATED
SEES = {  # training data that an arm itself reads: a sample, or a stream of batches
    "gradient-talk": {"steps": 100, "batch": 32},
    "gradient-michel": {"examples": 512, "batch": 32},
    "taylor-once": {"examples": 512, "batch": 32},
    "taylor-steps": {"examples": 512, "batch": 32},
    "movement": {"steps": 200, "batch": 32},
}
SEES_QUICK = {"steps": 30, "examples": 128}
