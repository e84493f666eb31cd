"""What a check says to the person who has to act on it."""

from __future__ import annotations

import math

from mlcicd.core.verdict import CheckStatus
from mlcicd.evaluation.intervals import MetricResult
from mlcicd.evaluation.requirements import VsChampion


def number(value: float) -> str:
    """Four significant digits."""
    return f"{value:.4g}"


def _span(interval: tuple[float, float], confidence: float) -> str:
    return f"{confidence:.4g} interval {number(interval[0])} to {number(interval[1])}"


def _rows(result: MetricResult) -> str:
    """On what a figure was found: rows, and the groups or blocks of time they belong to."""
    return f"{result.n:,} rows" + (f" in {result.units}" if result.units else "")


def _more(rows: float | None, n: int) -> str:
    if rows is None:
        return "no realistic number of rows would decide it"
    return f"about {int(rows) - n:,} more rows of the same kind would decide it"


def absolute_reason(
    status: CheckStatus,
    metric: str,
    *,
    value: float,
    interval: tuple[float, float],
    required: str,
    result: MetricResult,
    rows: float | None,
    caution: str = "",
) -> str:
    """One sentence with the numbers of an absolute gate."""
    if status is CheckStatus.PASSED:
        return ""
    seen = f"{metric} is {number(value)} on {_rows(result)} ({_span(interval, result.confidence)})"
    if status is CheckStatus.FAILED:
        return f"{seen}, and {required} is required"
    if caution:
        return f"{seen}: the estimate meets {required}, and {caution}"
    return f"{seen}: the estimate meets {required}, the whole interval does not; {_more(rows, result.n)}"


def versus_reason(
    status: CheckStatus,
    metric: str,
    *,
    gain: float,
    interval: tuple[float, float],
    vs: VsChampion,
    result: MetricResult,
    rows: float | None,
    caution: str = "",
) -> str:
    """One sentence with the numbers of a comparison with the champion."""
    if status is CheckStatus.PASSED:
        return ""
    how = f"{number(abs(gain))} {'better' if gain > 0 else 'worse'}" if gain else "no different"
    champion = number(result.champion if result.champion is not None else math.nan)
    seen = (
        f"{metric} is {number(result.candidate)} against the champion's {champion}, "
        f"{how} (difference: {_span(interval, result.confidence)}, {_rows(result)})"
    )
    if status is CheckStatus.FAILED:
        return f"{seen}: it must be {vs.words}"
    if caution:
        return f"{seen}: whether it is {vs.words} is not decided: {caution}"
    return f"{seen}: whether it is {vs.words} is not decided; {_more(rows, result.n)}"


def remedy(status: CheckStatus, rows: float | None, n: int, vs: VsChampion | None = None, *, caution: str = "") -> str:
    """What to do about a check, against a threshold (no `vs`) or the champion."""
    if status is CheckStatus.PASSED:
        return ""
    if status is CheckStatus.FAILED:
        return (
            "improve the candidate; the weakest slices and the negative flips show where it lost"
            if vs
            else "improve the candidate, or change the threshold in a reviewed commit if it is wrong"
        )
    if caution:
        return (
            "look at the largest errors by hand, and gate what a few rows can not decide: median_absolute_error, "
            "absolute_error@0.95, or a function of yours that caps an error"
        )
    if vs is None:
        wider = "choose a threshold farther from the estimate"
    else:
        wider = "ask for not worse instead of better" if vs.superiority else "allow a wider margin"
    if rows is None:
        return wider
    return f"add about {int(rows) - n:,} labelled rows to the holdout, or {wider}"
