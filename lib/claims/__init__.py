"""Did the talk hold? Claims as data, findings and verdicts derived from the runs on record.

From a row of YAML to a line of the ledger:
    claim       what does a talk state, and what can be found of it?
    reading     what do the claims files say? checks: are they well formed?
    answers     what do packed answers score, and how sure is that?
    quantities  what number do runs give? One file a kind of number
    cells       what do the runs measure beside one stated number?
    verdicts    which verdict does that earn? chance: or could chance have done it?
    judging     what do the runs say of one claim? ledger: of all of them?
"""

from lib.claims.checks import FIELDS
from lib.claims.claim import RELATIONS, Cell, Claim, Finding, Source, Verdict
from lib.claims.judging import judge
from lib.claims.ledger import COLUMNS, counted, findings, table
from lib.claims.reading import FOLDER, digest, load
from lib.claims.verdicts import overall, verdict_of

__all__ = [
    "COLUMNS",
    "FIELDS",
    "FOLDER",
    "RELATIONS",
    "Cell",
    "Claim",
    "Finding",
    "Source",
    "Verdict",
    "counted",
    "digest",
    "findings",
    "judge",
    "load",
    "overall",
    "table",
    "verdict_of",
]
