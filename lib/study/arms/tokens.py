"""Which methods does the token chapter compare, and what of the training data do they read?"""

from typing import Any

# One learning rate for the weights of all. The papers train for thousands of steps; what they learn
# beside the weights gets the learning rate with which it can travel as far in our hundreds.
WEIGHTS = {"lr": 3e-5}
POWER = WEIGHTS | {"retention_lr": 1e-2}
SKIM = WEIGHTS | {"predictor_lr": 5e-4}
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "power-bert": ("power-bert", POWER),
    "ltp": ("ltp", WEIGHTS | {"threshold_lr": 2e-4, "temperature": 2e-3}),
    "transkimmer": ("transkimmer", SKIM),
    "transkimmer-free": ("transkimmer", SKIM | {"free": True}),
    "transkimmer-paper": ("transkimmer", SKIM | {"free": True, "faulty": True}),
    "top": ("top", WEIGHTS),
    "tokens-random": ("power-bert", POWER | {"order": "random"}),
    "tokens-first": ("power-bert", POWER | {"order": "first"}),
}
TOKENS = ("power-bert", "ltp", "transkimmer", "top")
CONTROLS = ("tokens-random", "tokens-first")
FREE = ("transkimmer-free", "transkimmer-paper")  # that meet no budget
# A budget is met on texts as long as those that are reported: SST-2's training texts are phrases,
# half as long, and lengths that suit them would cut whole sentences to pieces.
SEES = {arm: {"steps": 400, "batch": 32, "lengths": "reported"} for arm in ARMS}
SEES_QUICK = {"steps": 60}
