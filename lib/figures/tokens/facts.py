"""Which numbers does the token chapter's prose quote?"""

from collections.abc import Iterable, Sequence

from lib import study
from lib.claims import Finding
from lib.claims.quantities import macs
from lib.figures import frames
from lib.figures.facts import UNTESTED
from lib.runs import Run
from lib.study.arms.tokens import LONGER

ELSEWHERE = ("cola", "mrpc", "imdb")  # tasks beside the lead's whose controls the prose quotes


def facts(found: Sequence[Run], findings: Sequence[Finding], pair: study.Pair) -> dict[str, str]:
    """Of the token chapter; `pair` is the encoder and task that it is mainly about."""
    lead = [run for run in found if (run.spec.encoder, run.spec.task) == (pair.encoder, pair.task)]
    facts = {"lead-encoder": pair.encoder, "lead-task": pair.task, **dict(_budgets(lead))}
    ran = [run for run in lead if "tokens" in run.trace]
    facts["padded-to"] = str(study.padded(pair.task))
    if ran:
        counted = ran[0].trace["tokens"]
        whole = sum(macs(ran[0].shape, study.padded(pair.task)).values())
        facts["mean-length"] = f"{counted['length']:.1f}"
        facts["padding"] = f"{whole / counted['macs']['dense']:.2f}"
        facts["batch-padding"] = f"{counted['macs']['batch'] / counted['macs']['dense']:.2f}"
    else:
        facts |= dict.fromkeys(("mean-length", "padding", "batch-padding"), UNTESTED)
    met = [r for r in ran if r.spec.unit == "executed" and not r.spec.own.get("free")]
    miss = max((abs(r.kept["macs"] - r.spec.budget) for r in met), default=None)
    facts["budget-miss"] = UNTESTED if miss is None else f"{miss:.3f}"
    facts |= _quadratic([run for run in found if "tokens" in run.trace], pair)
    facts |= _trained_on(found) | _larger(found, pair)
    table = frames.cells(ran)
    for arm in study.TOKEN_ARMS:
        own = table[table["arm"] == arm].sort_values("budget")
        if own.empty:
            facts |= {f"drop-{arm}": UNTESTED, f"kept-{arm}": UNTESTED}
            continue
        row = own.iloc[0]
        facts[f"drop-{arm}"] = f"{row['drop']:+.3f} [{row['drop_low']:.3f}, {row['drop_high']:.3f}]"
        facts[f"kept-{arm}"] = f"{row['macs']:.0%}"
    saving = {"powerbert-time": ".1f", "ltp-time": ".1f", "transkimmer": ".0f"}
    for key, form in saving.items():
        stated = frames.claim(findings, f"token.{key}").stated
        facts[f"said-{key}"] = f"{next(iter(stated.values())):{form}}"
    for key in ("ltp", "top", "powerbert-cola"):
        (budget,) = frames.claim(findings, f"token.{key}").stated
        facts[f"said-{key}"] = f"{1 / budget:.1f}"
    for task in ELSEWHERE:
        for control in ("random", "first"):
            facts[f"{control}-{task}"] = _lead(findings, f"token.powerbert-{control}", task)
    place = (pair.encoder, pair.task)
    own = [one for one in findings if one.encoder == pair.encoder]
    other = [one for one in findings if one.encoder != pair.encoder]
    for control in ("random", "first"):
        key = f"token.powerbert-{control}"
        facts[f"{control}-lead"] = _lead(own, key, pair.task)
        facts[f"{control}-larger"] = _lead(other, key, pair.task)
    facts |= _chosen([one for one in findings if (one.encoder, one.task) != place])
    facts["longer-steps"] = str(LONGER["steps"])
    for name in ("powerbert", "ltp"):
        facts[f"gain-{name}"] = _lead(findings, f"token.{name}-gains", pair.task)
    claimed = [run for run in ran if study.arm_of(run.spec) == "transkimmer-paper"]
    facts["claimed-paper"] = UNTESTED
    if claimed:
        counted = claimed[0].trace["tokens"]["macs"]
        facts["claimed-paper"] = f"{counted['claimed'] / counted['dense']:.0%}"
    return facts


def _chosen(findings: Sequence[Finding]) -> dict[str, str]:
    """How often a method is clearly better than blindly chosen tokens, and how often worse."""
    cells = [
        cell
        for one in findings
        if one.claim.key.endswith(("-random", "-first"))
        for cell in one.cells
        if cell.measured is not None
    ]
    if not cells:
        return dict.fromkeys(("chosen-all", "chosen-better", "chosen-worse"), UNTESTED)
    return {
        "chosen-all": str(len(cells)),
        "chosen-better": str(sum(cell.low > 0 for cell in cells)),
        "chosen-worse": str(sum(cell.high < 0 for cell in cells)),
    }


def _lead(findings: Sequence[Finding], key: str, task: str) -> str:
    """By how much a method leads its control on a task, at the smallest budget measured."""
    cells = [
        cell
        for one in findings
        if (one.claim.key, one.task) == (key, task)
        for cell in one.cells
        if cell.measured is not None
    ]
    if not cells:
        return UNTESTED
    least = min(cells, key=lambda cell: cell.cell)
    return f"{least.measured:+.3f} [{least.low:.3f}, {least.high:.3f}]"


def _quadratic(ran: Sequence[Run], pair: study.Pair) -> dict[str, str]:
    """The share of the MACs that grows with the square of the length, for the lead's encoder: at
    the mean length of the lead's texts, of those of the task with the longest, and at 512."""
    ran = [run for run in ran if run.spec.encoder == pair.encoder]
    names = ("quadratic-mean", "long-task", "long-length", "quadratic-long", "quadratic-512")
    lead = [run for run in ran if run.spec.task == pair.task]
    if not lead:
        return dict.fromkeys(names, UNTESTED)
    longest = max(ran, key=lambda run: run.trace["tokens"]["length"])
    length = longest.trace["tokens"]["length"]

    def share(tokens: int) -> str:
        counted = macs(lead[0].shape, tokens)
        return f"{counted['products'] / sum(counted.values()):.1%}"

    return {
        "quadratic-mean": share(round(lead[0].trace["tokens"]["length"])),
        "long-task": longest.spec.task,
        "long-length": f"{length:.0f}",
        "quadratic-long": share(round(length)),
        "quadratic-512": share(512),
    }


def _trained_on(found: Sequence[Run]) -> dict[str, str]:
    """The task whose dense model was trained on for as long as methods train, and its score before
    and after."""
    for run in found:
        if run.spec.method == "dense" and run.spec.training["after"]:
            return {
                "on-task": run.spec.task,
                "on-before": f"{run.dense['score']:.4f}",
                "on-after": f"{run.pruned['score']:.4f}",
            }
    return dict.fromkeys(("on-task", "on-before", "on-after"), UNTESTED)


LARGER = ("power-bert", "ltp", "tokens-random", "tokens-first")


def _larger(found: Sequence[Run], pair: study.Pair) -> dict[str, str]:
    """What another encoder than the lead's loses on the lead's task, at the smallest budget; and
    the training loss with which each method ends there."""
    own = [
        run
        for run in found
        if "tokens" in run.trace and run.spec.task == pair.task and run.spec.encoder != pair.encoder
    ]
    facts = {"larger-encoder": own[0].spec.encoder if own else UNTESTED}
    table = frames.cells(own)
    for arm in LARGER:
        mine = table[table["arm"] == arm].sort_values("budget")
        last = [run.trace["settling"][-1] for run in own if study.arm_of(run.spec) == arm]
        facts |= {f"larger-{arm}": UNTESTED, f"larger-loss-{arm}": UNTESTED}
        if not mine.empty:
            row = mine.iloc[0]
            drop = f"{row['drop']:+.3f} [{row['drop_low']:.3f}, {row['drop_high']:.3f}]"
            facts |= {f"larger-{arm}": drop, f"larger-loss-{arm}": f"{last[0]:.2f}"}
    return facts


def roads(found: Sequence[Run], findings: Sequence[Finding]) -> dict[str, str]:
    """Of the two roads to the same work: where they lead, the mean scores at their ends, and by how
    much filters first lead."""
    ends = [run for run in found if run.spec.base]
    budget = ends[0].spec.budget if ends else None
    facts = {
        "both-budget": f"{budget:g}" if ends else UNTESTED,
        "first-budget": f"{ends[0].spec.base.budget:g}" if ends else UNTESTED,
    }
    for arm in ("power-bert", "kcm+power-bert", "ltp", "kcm+ltp"):
        own = [run for run in found if study.arm_of(run.spec) == arm and run.spec.budget == budget]
        mean = sum(run.pruned["score"] for run in own) / len(own) if own else None
        facts[f"road-{arm.replace('+', '-')}"] = f"{mean:.4f}" if own else UNTESTED
    for arm, key in (("power-bert", "powerbert"), ("ltp", "ltp")):
        task = ends[0].spec.task if ends else ""
        facts[f"road-lead-{arm}"] = _lead(findings, f"token.stack-{key}", task)
    return facts


def _budgets(lead: Sequence[Run]) -> Iterable[tuple[str, str]]:
    lead = [run for run in lead if run.spec.unit == "executed"]
    steps = {run.spec.training["sees"]["steps"] for run in lead}
    yield "token-steps", str(min(steps)) if steps else UNTESTED
