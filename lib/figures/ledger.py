"""Which claims held, at a glance?"""

from collections.abc import Iterable

import pandas as pd

from lib.claims import Finding
from lib.figures import style
from lib.figures.style import Drawn

SHORT = {"reproduced": "yes", "not reproduced": "no", "inconclusive": "?", "untested": "-"}
MANY = 5  # encoders and tasks beyond which a badge has room for a short word only


def verdicts(findings: Iterable[Finding]) -> Drawn:
    """Every claim's verdict, a badge for each encoder and task."""
    rows = [
        (f.claim.key, f.encoder, f.task, f.fidelity, f.verdict.value, f.claim.text)
        for f in findings
    ]
    columns = ["key", "encoder", "task", "fidelity", "verdict", "claim"]
    table = pd.DataFrame(rows, columns=columns)
    if table.empty:
        return style.untested("verdicts", table)
    keys = list(dict.fromkeys(table["key"]))
    pairs = list(dict.fromkeys(zip(table["encoder"], table["task"], strict=True)))
    many = len(pairs) > MANY
    figure, (ax,) = style.canvas(height=(1.6 if many else 0.75) + 0.27 * len(keys))
    for row in table.itertuples():
        x, y = pairs.index((row.encoder, row.task)), keys.index(row.key)
        ax.barh(y, 0.96, left=x - 0.48, height=0.84, color=style.VERDICTS[row.verdict], lw=0)
        word = SHORT.get(row.verdict, row.verdict) if many else row.verdict
        ax.text(x, y, word, ha="center", va="center", color="black", fontsize=9.5)
    ax.set_yticks(range(len(keys)), keys)
    style.places(ax, pairs)
    if many:
        ax.set_xlabel(", ".join(f"{short}: {verdict}" for verdict, short in SHORT.items()))
    ax.set_ylim(len(keys) - 0.5, -0.5)
    ax.set_xlim(-0.5, max(len(pairs), 3) - 0.5)
    return figure, table
