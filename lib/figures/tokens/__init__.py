"""What do the token chapter's runs look like?

rows        one row a run: score, and MACs padded, alone and pruned
scores      score by work; methods against tokens chosen blindly
padding     padding left away, then tokens pruned
speed       times as fast, and score by that
texts       which words stay; short texts and long ones
longer      does more training help?
readings    do other readings of a paper or its code do better?
stacking    filters first, then tokens
"""

from lib.figures.tokens.facts import facts, roads
from lib.figures.tokens.longer import longer
from lib.figures.tokens.padding import padding
from lib.figures.tokens.readings import readings
from lib.figures.tokens.scores import controls, frontier
from lib.figures.tokens.speed import alone, pace, times
from lib.figures.tokens.stacking import stacked
from lib.figures.tokens.texts import by_length, survivors

__all__ = [
    "alone",
    "by_length",
    "controls",
    "facts",
    "frontier",
    "longer",
    "pace",
    "padding",
    "readings",
    "roads",
    "stacked",
    "survivors",
    "times",
]
