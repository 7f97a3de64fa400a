"""Which methods does the KCM chapter compare, and what of the training data do they read?

Every budget here is a fraction of the encoder's MACs: give `spec` the unit "macs".
"""

from typing import Any

ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "kcm": ("kcm", {}),
    "kcm-unscaled": ("kcm", {"recover": "none"}),
    "kcm-refit": ("kcm", {"recover": "refit"}),
    "kcm-r2": ("kcm", {"ranks": "r2"}),
    "kcm-d2": ("kcm", {"ranks": "d2"}),
    "kcm-r2-unscaled": ("kcm", {"ranks": "r2", "recover": "none"}),
    "kcm-d2-unscaled": ("kcm", {"ranks": "d2", "recover": "none"}),
    "kcm-voting": ("kcm", {"merge": "voting"}),
    "kcm-layerwise": ("kcm", {"layerwise": True}),
    "kcm-even": ("kcm", {"even": True}),
    "kcm-512": ("kcm", {"labels": 512}),
    "kcm-1k": ("kcm", {"labels": 1024}),
    "ffn-w1": ("ffn", {"score": "w1"}),
    "ffn-w2": ("ffn", {"score": "w2"}),
    "ffn-both": ("ffn", {"score": "both"}),
    "ffn-w1-unscaled": ("ffn", {"score": "w1", "recover": "none"}),
    "ffn-w2-unscaled": ("ffn", {"score": "w2", "recover": "none"}),
    "ffn-both-unscaled": ("ffn", {"score": "both", "recover": "none"}),
    "ffn-output": ("ffn", {"score": "output"}),
    "ffn-rms": ("ffn", {"score": "rms"}),
    "ffn-energy": ("ffn", {"score": "energy"}),
    "ffn-random": ("ffn", {"score": "random"}),
    "flap": ("flap", {}),
    "mask-tuning": ("mask-tuning", {}),
    "mask-tuning-untuned": ("mask-tuning", {"tune": False}),
    "k-prune": ("k-prune", {}),
    "taylor-apart": ("taylor", {"steps": 8, "uneven": True, "apart": True}),
}
WEIGHTS_ALONE = ("ffn-w1-unscaled", "ffn-w2-unscaled", "ffn-both-unscaled")  # read no sentence
ONCE = (*WEIGHTS_ALONE, "kcm-r2-unscaled")  # no sample changes what they keep
# Training sentences of a sample; labels of all are read by mask-tuning alone, of the first 512 or
# 1024 by the labelled extension, of none by the rest.
SEES = {arm: {"examples": 2048, "batch": 32} for arm in ARMS if arm not in WEIGHTS_ALONE}
# K-prune measures anew before each of its 24 cuts, so it reads a quarter of what the rest do.
SEES["k-prune"] = {"examples": 512, "batch": 32}
SEES["taylor-apart"] = {"examples": 512, "batch": 32}  # as the family of the coreset gives it
SEES_QUICK = {"examples": 256}
