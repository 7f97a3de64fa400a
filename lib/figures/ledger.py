"""Which claims held, at a glance?"""

from collections.abc import Iterable

import pandas as pd

from lib.claims import Finding
from lib.figures import style
from lib.figures.style import Drawn


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
    figure, (ax,) = style.canvas(height=0.75 + 0.27 * len(keys))
    for row in table.itertuples():
        x, y = pairs.index((row.encoder, row.task)), keys.index(row.key)
        ax.barh(y, 0.96, left=x - 0.48, height=0.84, color=style.VERDICTS[row.verdict], lw=0)
        ax.text(x, y, row.verdict, ha="center", va="center", color="black", fontsize=9.5)
    ax.set_yticks(range(len(keys)), keys)
    ax.set_xticks(range(len(pairs)), [f"{encoder}\n{task}" for encoder, task in pairs])
    ax.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    ax.set_ylim(len(keys) - 0.5, -0.5)
    ax.set_xlim(-0.5, max(len(pairs), 3) - 0.5)
    ax.spines[:].set_visible(False)
    return figure, table
