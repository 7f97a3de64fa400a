"""Which verdict do measured numbers earn? Derived, and never typed."""

from collections.abc import Sequence

from lib.claims.claim import Verdict
from lib.claims.quantities import Estimate


def verdict_of(relation: str, found: Estimate, stated: float, tolerance: float) -> Verdict:
    """The verdict on one number.

    equals: reproduced where the measured interval meets stated +- tolerance, inconclusive where it
    does so by being wider than that band. above, below: the interval's near end decides; the
    tolerance is leave to fall short. Where the interval holds the bound, nothing is decided.
    """
    if relation == "equals":
        if found.low > stated + tolerance or found.high < stated - tolerance:
            return Verdict.NOT_REPRODUCED
        wide = found.high - found.low > 2 * tolerance
        return Verdict.INCONCLUSIVE if wide else Verdict.REPRODUCED
    if relation == "below":  # the mirror image of above
        found = Estimate(-found.value, -found.high, -found.low, found.n)
        stated = -stated
    bound = stated - tolerance
    if found.low > bound:
        return Verdict.REPRODUCED
    return Verdict.NOT_REPRODUCED if found.high <= bound else Verdict.INCONCLUSIVE


def overall(verdicts: Sequence[Verdict], joint: bool = False) -> Verdict:
    """The verdict on a claim of several cells; `joint` where they have to hold at once.

    All: reproduced. At least half: partly. If what is not decided could still make up half:
    inconclusive (untested where no cell was measured). Else not reproduced. Of cells that have to
    hold at once, one that fails is enough.
    """
    if not verdicts or set(verdicts) == {Verdict.UNTESTED}:
        return Verdict.UNTESTED
    good, bad = verdicts.count(Verdict.REPRODUCED), verdicts.count(Verdict.NOT_REPRODUCED)
    if good == len(verdicts):
        return Verdict.REPRODUCED
    if joint:
        return Verdict.NOT_REPRODUCED if bad else Verdict.INCONCLUSIVE
    if 2 * good >= len(verdicts):
        return Verdict.PARTLY
    return Verdict.NOT_REPRODUCED if 2 * bad > len(verdicts) else Verdict.INCONCLUSIVE
