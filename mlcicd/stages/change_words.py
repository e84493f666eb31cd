"""What is said of a difference that is split between code and data."""

from __future__ import annotations

from mlcicd.core.verdict import Check, CheckStatus, Severity
from mlcicd.evaluation.intervals import MetricResult
from mlcicd.evaluation.two_factors import Share, Split
from mlcicd.report.quantities import bounds, number

# Below, the larger of two opposite shares is hardly more than the other.
_ALL_BACK = 0.05


def told(result: MetricResult, found: Split, *, changed: str = "", lacking: str = "") -> Check:
    """One metric's split.

    Args:
        changed: `code` or `data`, where it is the only one of the two that changed.
        lacking: the crossed training that is not known, and why.
    """
    if changed:
        other = "training data is" if changed == "code" else "code, its parameters and its environment are"
        text = (
            f"only the {changed} changed: the {other} the champion's, so all of the difference comes from the {changed}"
        )
    else:
        text = _whose(found, better=(found.difference > 0) == (result.direction == "higher")) + _chance(found)
    if lacking:
        text += f"; this is one order of two, since {lacking}"
    return Check(
        name=f"{found.metric} by code and data",
        status=CheckStatus.PASSED,
        severity=Severity.WARN,
        observed=f"code {_shown(found.code)}, data {_shown(found.data)}, together {_signed(found.difference)}",
        reason=text,
    )


def neither() -> Check:
    """Code and data are the same, and the models are not."""
    return Check(
        name="difference by code and data",
        status=CheckStatus.PASSED,
        severity=Severity.WARN,
        observed="neither changed",
        reason="code and data are the champion's: what differs is chance in the training itself, such as its threads",
    )


def not_known(reason: str, remedy: str = "") -> Check:
    return Check(
        name="difference by code and data",
        status=CheckStatus.SKIPPED,
        severity=Severity.WARN,
        reason=f"not known: {reason}",
        remedy=remedy,
    )


def _whose(found: Split, *, better: bool) -> str:
    """Which of the two it was, in a sentence without numbers that the table beside it has."""
    code, data = found.code.value, found.data.value
    if code * data < 0:
        strong, weak = ("code", "data") if abs(code) > abs(data) else ("data", "code")
        larger, smaller = max(abs(code), abs(data)), min(abs(code), abs(data))
        change, back = ("better", "takes") if better else ("worse", "gives")
        if smaller > (1 - _ALL_BACK) * larger:
            return f"the {strong} and the {weak} pull in opposite directions, and cancel out"
        return f"the new {strong} makes it {change}, and the new {weak} {back} {smaller / larger:.0%} of that back"
    if found.difference == 0:
        return "neither moves it"
    of = "gain" if better else "loss"
    share = code / found.difference
    return f"{share:.0%} of the {of} come from the code, {1 - share:.0%} from the data"


def _chance(found: Split) -> str:
    """What the rows of this holdout do not tell apart from nothing."""
    unsure = [
        name
        for name, share in (("code", found.code), ("data", found.data))
        if share.interval is not None and share.interval[0] <= 0 <= share.interval[1]
    ]
    if not unsure:
        return ""
    return f"; what the {' and the '.join(unsure)} did may be chance, on these rows"


def _shown(share: Share) -> str:
    if share.interval is None or share.interval[0] == share.interval[1]:
        return _signed(share.value)
    sign = "+" if share.value > 0 else ""
    return f"{sign}{number(share.value, share.interval)} {bounds(share.interval)}"


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{number(value)}"
