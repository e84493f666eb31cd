"""What is said of a difference that is split between code and data: a sentence each, which the report shows."""

from __future__ import annotations

from mlcicd.core.verdict import Check, CheckStatus, Severity
from mlcicd.evaluation.intervals import MetricResult
from mlcicd.evaluation.two_factors import Share, Split
from mlcicd.report.quantities import number, with_interval

# Opposite shares that are as large as each other up to this part cancel out.
_EVEN = 0.05


def told(result: MetricResult, found: Split, *, changed: str = "", lacking: str = "") -> Check:
    """One metric's split.

    Args:
        changed: `code` or `data`, where it is the only one of the two that changed.
        lacking: the crossed training that is not known, and why.
    """
    sign = 1 if result.direction == "higher" else -1
    text = _alone(found, sign, changed) if changed else _both(found, sign)
    names = [changed] if changed else ["code", "data"]
    unsure = [name for name in names if _may_be_nothing(found.code if name == "code" else found.data)]
    if unsure:
        text += f"; what the {' and the '.join(unsure)} did may be chance, on these rows"
    if lacking:
        text += f". This is one order of two; the other is not known ({lacking})"
    return Check(
        name=f"{found.metric} by code and data",
        status=CheckStatus.PASSED,
        severity=Severity.WARN,
        observed=f"code {_shown(found.code)}, data {_shown(found.data)}",
        reason=f"{text}.",
    )


def neither() -> Check:
    """Code and data are the same, and the models are not."""
    return Check(
        name="difference by code and data",
        status=CheckStatus.PASSED,
        severity=Severity.WARN,
        observed="neither changed",
        reason="Code and data are the champion's: what differs is chance in the training itself, such as its threads.",
    )


def not_known(reason: str, remedy: str = "") -> Check:
    told = "What of the difference comes from the code, and what from the data, is not known: "
    return Check(
        name="difference by code and data",
        status=CheckStatus.SKIPPED,
        severity=Severity.WARN,
        reason=told + reason + (f". To know it, {remedy}." if remedy else "."),
    )


def _alone(found: Split, sign: int, changed: str) -> str:
    share = found.code if changed == "code" else found.data
    return (
        f"{_better(found, sign)} ({_shown(share)}), and all of it comes from the {changed}: "
        + ("the training data is" if changed == "code" else "code, parameters and environment are")
        + " the champion's"
    )


def _both(found: Split, sign: int) -> str:
    code, data = found.code, found.data
    if code.value * data.value >= 0:
        if found.difference == 0:
            return f"{found.metric} is moved neither by the code nor by the data"
        share = code.value / found.difference
        return (
            f"{_better(found, sign)}: {share:.0%} of that comes from the code ({_shown(code)}), {1 - share:.0%} from "
            f"the data ({_shown(data)})"
        )
    (strong, larger), (weak, smaller) = sorted((("code", code), ("data", data)), key=lambda one: -abs(one[1].value))
    part = abs(smaller.value / larger.value)
    if part > 1 - _EVEN:
        return f"{found.metric} hardly moves: code ({_shown(code)}) and data ({_shown(data)}) cancel out"
    word, back = ("better", "takes") if found.difference * sign > 0 else ("worse", "gives")
    return (
        f"{_better(found, sign)}: the new {strong} makes it {word} ({_shown(larger)}), and the new {weak} {back} "
        f"{part:.0%} of that back ({_shown(smaller)})"
    )


def _better(found: Split, sign: int) -> str:
    word = "better" if found.difference * sign > 0 else "worse"
    return f"{found.metric} is {word} than the champion's by {number(abs(found.difference))}"


def _may_be_nothing(share: Share) -> bool:
    return share.interval is not None and share.interval[0] <= 0 <= share.interval[1]


def _shown(share: Share) -> str:
    interval = None if share.interval is None or share.interval[0] == share.interval[1] else share.interval
    return ("+" if share.value > 0 else "") + with_interval(share.value, interval)
