"""Judges gates by metric results. The rules, and why they are so: :mod:`mlcicd.evaluation.requirements`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

from mlcicd.core.verdict import Check, CheckStatus
from mlcicd.evaluation import sentences
from mlcicd.evaluation.holm import HOPELESS, Judged, correct
from mlcicd.evaluation.intervals import MetricResult
from mlcicd.evaluation.metrics import get_metric
from mlcicd.evaluation.requirements import Gate, SliceGate, VsChampion
from mlcicd.evaluation.slices import SliceResult
from mlcicd.evaluation.uncertainty import Uncertainty, p_value

__all__ = ["Gate", "SliceGate", "VsChampion", "judge_gates", "measurement", "metrics_of"]

WithoutChampion = Literal["bootstrap", "fail"]
BOOTSTRAP = "bootstrap: there is no champion yet, so the absolute gates alone decide"


def judge_gates(
    gates: Sequence[Gate],
    results: Sequence[MetricResult],
    *,
    slice_gates: Sequence[SliceGate] = (),
    slice_results: Sequence[SliceResult] = (),
    without_champion: WithoutChampion = "bootstrap",
) -> list[Check]:
    """One check for each absolute requirement, each comparison with the champion, and each slice of each.

    Args:
        gates: on the whole holdout.
        results: of `estimate`, or of `measurement` (sizes, load times), which are taken as exact.
        slice_gates, slice_results: on slices, and what `slices.by_values` found there.
        without_champion: what a comparison becomes when there is no champion: skipped (`bootstrap`), or
            failed.

    Returns:
        checks in the order of the gates. Every check that did not pass has a reason and a remedy. An
        inconclusive one has `details["rows_needed"]`: about how many rows in all would decide half of such
        cases (absent: no realistic number would).
    """
    by_name = {r.name: r for r in results}
    checks: list[Check] = []
    for gate in gates:
        checks.extend(j.check for j in _judge(gate, by_name.get(gate.metric), "", without_champion))
    judged: list[Judged] = []
    for slice_gate in slice_gates:
        judged.extend(_judge_slices(slice_gate, slice_results, without_champion))
    checks.extend(correct(judged))
    return checks


def _judge(
    gate: Gate | SliceGate, result: MetricResult | None, slice_: str, without: WithoutChampion
) -> Iterable[Judged]:
    if gate.min is not None or gate.max is not None:
        yield _absolute(gate, result, slice_, without)
    if gate.vs_champion is not None:
        yield _against_champion(gate, gate.vs_champion, result, slice_, without)


def _check(gate: Gate | SliceGate, slice_: str, required: str, versus: bool, **rest: Any) -> Check:
    name = f"{gate.metric} vs champion" if versus else gate.metric
    return Check(name=name, slice=slice_, required=required, severity=gate.severity, **rest)


def _missing(gate: Gate | SliceGate, slice_: str, required: str, versus: bool) -> Judged:
    return Judged(
        _check(
            gate,
            slice_,
            required,
            versus,
            status=CheckStatus.FAILED,
            reason=f"the metric {gate.metric} was not computed",
            remedy="list it among the metrics of the evaluation, or take the gate away",
        )
    )


def _absolute(gate: Gate | SliceGate, result: MetricResult | None, slice_: str, without: WithoutChampion) -> Judged:
    required = gate.words
    if result is None:
        return _missing(gate, slice_, required, versus=False)
    if result.pairwise and result.champion_absent:
        return Judged(_no_champion(gate, slice_, required, False, without))
    if result.reason or not math.isfinite(result.candidate):
        return Judged(
            _check(
                gate,
                slice_,
                required,
                False,
                status=CheckStatus.FAILED,
                observed=result.candidate,
                reason=f"{gate.metric} can not be computed: {result.reason or f'it is {result.candidate}'}",
                remedy="fix what the reason names; a metric without a value is never a pass",
            )
        )
    value = result.candidate
    low, high = result.candidate_interval or (value, value)
    bounds = [(b, s) for b, s in ((gate.min, 1), (gate.max, -1)) if b is not None]
    wrong = [b for b, s in bounds if not s * value >= s * b]
    clear = all((low >= b) if s > 0 else (high <= b) for b, s in bounds)
    status = CheckStatus.FAILED if wrong else CheckStatus.PASSED if clear else CheckStatus.INCONCLUSIVE
    caution = "" if wrong else result.caution
    if caution:
        status = CheckStatus.INCONCLUSIVE
    rows = None
    if status is CheckStatus.INCONCLUSIVE and not caution:
        rows = max(
            (_rows(result.n, value - b, (value - low) if s > 0 else (high - value)) for b, s in bounds),
            key=lambda r: math.inf if r is None else r,
        )
    check = _check(
        gate,
        slice_,
        required,
        False,
        status=status,
        observed=value,
        interval=(low, high),
        reference=result.champion,
        reason=sentences.absolute_reason(
            status,
            gate.metric,
            value=value,
            interval=(low, high),
            required=required,
            result=result,
            rows=rows,
            caution=caution,
        ),
        remedy=sentences.remedy(status, rows, result.n, caution=caution),
        details=_details(result, rows),
    )
    p = min((_tail(result.uncertainty, (low, high), b, "below" if s > 0 else "above") for b, s in bounds))
    return Judged(check, p, (1 - result.confidence) / 2)


def _against_champion(
    gate: Gate | SliceGate, vs: VsChampion, result: MetricResult | None, slice_: str, without: WithoutChampion
) -> Judged:
    required = vs.words
    if result is None:
        return _missing(gate, slice_, required, versus=True)
    if result.champion_absent:
        return Judged(_no_champion(gate, slice_, required, True, without))
    bad = _no_difference(gate.metric, result)
    if bad:
        return Judged(
            _check(
                gate,
                slice_,
                required,
                True,
                status=CheckStatus.FAILED,
                observed=result.difference if result.difference is not None else math.nan,
                reference=result.champion,
                reason=bad,
                remedy="fix what the reason names; a comparison without a value is never a pass",
            )
        )
    difference = float(result.difference if result.difference is not None else math.nan)
    interval = result.difference_interval or (difference, difference)
    better = result.direction == "higher"
    gain = difference if better else -difference
    low, high = interval if better else (-interval[1], -interval[0])
    status = _compare(low, high, vs, identical=result.identical)
    # A loss that is seen stays one: caution never turns a failure into something that a team may let through.
    caution = "" if result.identical or status is CheckStatus.FAILED else result.difference_caution
    if caution:
        status = CheckStatus.INCONCLUSIVE
    rows = None
    if status is CheckStatus.INCONCLUSIVE and not caution:
        distance = gain - vs.threshold
        rows = _rows(result.n, distance, gain - low if distance > 0 else high - gain)
    check = _check(
        gate,
        slice_,
        required,
        True,
        status=status,
        observed=difference,
        interval=interval,
        reference=result.champion,
        reason=sentences.versus_reason(
            status, gate.metric, gain=gain, interval=interval, vs=vs, result=result, rows=rows, caution=caution
        ),
        remedy=sentences.remedy(status, rows, result.n, vs, caution=caution),
        details=_details(result, rows),
    )
    side = "below" if better else "above"
    threshold = vs.threshold if better else -vs.threshold
    p = _tail(result.difference_uncertainty, interval, threshold, side)
    if status is CheckStatus.FAILED and result.identical:
        p = 0.0
    return Judged(check, p, (1 - result.confidence) / 2)


def _compare(low: float, high: float, vs: VsChampion, *, identical: bool) -> CheckStatus:
    if math.isnan(low) or math.isnan(high):
        return CheckStatus.FAILED
    if identical and not vs.superiority:
        return CheckStatus.PASSED
    if low > vs.threshold:
        return CheckStatus.PASSED
    if high < vs.threshold or (vs.superiority and high <= vs.threshold):
        return CheckStatus.FAILED
    return CheckStatus.INCONCLUSIVE


def _no_champion(gate: Gate | SliceGate, slice_: str, required: str, versus: bool, without: WithoutChampion) -> Check:
    if without == "bootstrap":
        return _check(
            gate,
            slice_,
            required,
            versus,
            status=CheckStatus.SKIPPED,
            reason=BOOTSTRAP,
            remedy="nothing to do: the first version that passes becomes the champion",
        )
    return _check(
        gate,
        slice_,
        required,
        versus,
        status=CheckStatus.FAILED,
        reason="there is no champion to compare with, and this gate requires one",
        remedy="register a champion, or let the absolute gates decide on the first version",
    )


def _no_difference(metric: str, result: MetricResult) -> str:
    if result.reason or not math.isfinite(result.candidate):
        return f"{metric} of the candidate can not be computed: {result.reason or f'it is {result.candidate}'}"
    if result.champion_reason or result.champion is None or not math.isfinite(result.champion):
        why = result.champion_reason or f"it is {result.champion}"
        return f"{metric} of the champion can not be computed: {why}"
    if result.difference is None or not math.isfinite(result.difference):
        return f"{metric} of candidate and champion can not be compared"
    return ""


def _tail(uncertainty: Uncertainty | None, interval: tuple[float, float], threshold: float, side: str) -> float:
    if uncertainty is not None:
        return p_value(uncertainty, threshold, side=side)
    return 0.0 if (interval[1] < threshold if side == "below" else interval[0] > threshold) else 1.0


def _rows(n: int, distance: float, half_width: float) -> float | None:
    """About how many rows shrink the interval (as 1 / sqrt(n)) until it ends at the threshold."""
    if not math.isfinite(half_width) or not math.isfinite(distance):
        return None
    if half_width >= abs(distance) * math.sqrt(HOPELESS / n):
        return None
    return math.ceil(n * max((half_width / distance) ** 2, 1.0)) + 1


def _details(result: MetricResult, rows: float | None) -> dict[str, Any]:
    details: dict[str, Any] = {
        "n": result.n,
        "confidence": result.confidence,
        "method": result.method,
        "candidate": result.candidate,
    }
    if result.units:
        details["units"] = result.units
    if rows is not None:
        details["rows_needed"] = int(rows)
    return details


def _judge_slices(gate: SliceGate, results: Sequence[SliceResult], without: WithoutChampion) -> Iterable[Judged]:
    found = {r.value: r for r in results if r.by == gate.by}
    named = gate.values or tuple(found)
    large = [v for v in named if v in found and found[v].n >= gate.min_rows]
    if not gate.values and not large:
        yield Judged(_slice_failure(gate, f"{gate.by}=*", f"no slice by {gate.by} has {gate.min_rows} rows"))
        return
    for value in named:
        label = f"{gate.by}={value}"
        slice_ = found.get(value)
        if slice_ is None:
            yield Judged(_slice_failure(gate, label, f"the holdout has no rows with {label}"))
        elif slice_.n < gate.min_rows:
            few = f"{label} has {slice_.n:,} rows, and {gate.min_rows:,} are required"
            if gate.values:
                yield Judged(_slice_failure(gate, label, few))
            else:
                yield Judged(
                    _check(
                        gate,
                        label,
                        _all_words(gate),
                        False,
                        status=CheckStatus.SKIPPED,
                        reason=f"{few} for a slice to be judged",
                        remedy="add rows of this slice, or lower min_rows",
                    )
                )
        else:
            by_name = {r.name: r for r in slice_.results}
            yield from _judge(gate, by_name.get(gate.metric), label, without)


def _all_words(gate: SliceGate) -> str:
    return gate.words or (gate.vs_champion.words if gate.vs_champion else "")


def _slice_failure(gate: SliceGate, label: str, reason: str) -> Check:
    return _check(
        gate,
        label,
        _all_words(gate),
        False,
        status=CheckStatus.FAILED,
        reason=reason,
        remedy="add rows of this slice to the holdout, lower min_rows, or take the slice off the gate",
    )


def measurement(
    name: str, value: float, *, direction: Literal["higher", "lower"] = "lower", champion: float | None = None
) -> MetricResult:
    """A number measured without sampling error worth an interval (bytes, a load time), as a gate reads it."""
    difference = None if champion is None else value - champion
    result = MetricResult(name=name, direction=direction, n=1, candidate=value, method="measured")
    return result if champion is None else replace(result, champion=champion, difference=difference)


def metrics_of(gates: Sequence[Gate], slice_gates: Sequence[SliceGate], task: str) -> list[str]:
    """The distinct metric names that gates ask for, validated.

    Raises:
        ConfigError: an unknown metric.
    """
    asked = list(dict.fromkeys([*(g.metric for g in gates), *(g.metric for g in slice_gates)]))
    for name in asked:
        get_metric(name, task)
    return asked
