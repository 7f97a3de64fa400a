"""Which methods does the token chapter compare, and what of the training data do they read?"""

from typing import Any

# One learning rate for the weights of all. The papers train for thousands of steps; what they learn
# beside the weights gets a learning rate with which it can travel as far in our hundreds.
WEIGHTS = {"lr": 3e-5}
SKIM = WEIGHTS | {"predictor_lr": 5e-4}
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "power-bert": ("power-bert", WEIGHTS),
    "ltp": ("ltp", WEIGHTS),
    "transkimmer": ("transkimmer", SKIM),
    "transkimmer-free": ("transkimmer", SKIM | {"free": True}),
    "transkimmer-paper": ("transkimmer", SKIM | {"free": True, "faulty": True}),
    "top": ("top", WEIGHTS),
    "top-released": ("top", WEIGHTS | {"released": True, "ranking": 0.01}),
    "ltp-rising": ("ltp", WEIGHTS | {"rising": True}),
    "tokens-random": ("power-bert", WEIGHTS | {"order": "random"}),
    "tokens-first": ("power-bert", WEIGHTS | {"order": "first"}),
    "tokens-random-taught": ("power-bert", WEIGHTS | {"order": "random", "distil": 1.0}),
}
TOKENS = ("power-bert", "ltp", "transkimmer", "top")
CONTROLS = ("tokens-random", "tokens-first")
TAUGHT = "tokens-random-taught"  # of ToP, which learns from the dense model's answers too
READINGS = ("top-released", "ltp-rising")  # where code or paper can be read otherwise
FREE = ("transkimmer-free", "transkimmer-paper")  # that meet no budget
# A budget is met on texts as long as those that are reported: SST-2's training texts are phrases,
# half as long, and lengths that suit them would cut whole sentences to pieces.
SEES = {arm: {"steps": 400, "batch": 32, "lengths": "reported"} for arm in ARMS}
SEES_TASK = {"imdb": {"steps": 250, "batch": 8}}  # 2,000 reviews of up to 512 tokens
SEES_QUICK = {"steps": 60}
LONGER = {"steps": 4 * 400}
