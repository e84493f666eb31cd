"""Champion and candidate side by side: one row a metric, with what was asked of it and how that ended.

Read from ``Verdict.details["metrics"]``, a list of objects with `name`, `candidate`, `candidate_interval`, `champion`,
`champion_interval`, `difference`, `difference_interval` and `identical`; from the checks of the same names; and from
``Verdict.details["seed_noise"]``, by metric an object with `band`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mlcicd.core.verdict import Check, Verdict
from mlcicd.report import wording
from mlcicd.report.changes import told_in_a_sentence
from mlcicd.report.markup import clean
from mlcicd.report.quantities import bounds, number

_ROWS = 40
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True)
class Estimate:
    """A value and its interval, in words; both empty where there is none."""

    value: str = ""
    bounds: str = ""

    def __str__(self) -> str:
        return f"{self.value} {self.bounds}".strip()


@dataclass(frozen=True)
class Row:
    """One metric. `outcome` is that of the worst of its gates, None where nothing was asked of it.

    `seed`: how far two trainings differ that differ in the seed alone, such as `±0.004`; empty where that is not known.
    """

    metric: str
    champion: Estimate
    candidate: Estimate
    difference: Estimate
    gate: str
    outcome: wording.Outcome | None
    seed: str = ""


def comparison(verdict: Verdict) -> list[Row]:
    """The rows of a verdict that compares models, gated metrics first; none of any other verdict."""
    metrics = verdict.details.get("metrics")
    if not isinstance(metrics, list):
        return []
    known = [m for m in metrics if isinstance(m, dict) and isinstance(m.get("name"), str)]
    noise = verdict.details.get("seed_noise")
    noise = noise if isinstance(noise, dict) else {}
    rows = [_row(m, _gates(m["name"], verdict.checks), noise.get(m["name"])) for m in known[:_ROWS]]
    return sorted(rows, key=lambda row: row.outcome is None)


def told_elsewhere(verdict: Verdict, check: Check) -> bool:
    """Whether a row of the comparison, or a sentence below it, says all there is to a check that asks for nothing."""
    if told_in_a_sentence(verdict, check):
        return True
    metrics = verdict.details.get("metrics")
    if not isinstance(metrics, list) or check.slice or wording.needs_attention(check):
        return False
    names = [m["name"] for m in metrics[:_ROWS] if isinstance(m, dict) and isinstance(m.get("name"), str)]
    return any(check.name in (name, f"{name} vs champion") for name in names)


def _gates(name: str, checks: Iterable[Check]) -> list[Check]:
    return [c for c in checks if not c.slice and c.name in (name, f"{name} vs champion")]


def _row(metric: dict[str, Any], gates: Sequence[Check], noise: object) -> Row:
    worst = wording.ranked(gates)[0] if gates else None
    same = metric.get("identical") is True
    return Row(
        metric=clean(metric["name"], limit=80),
        champion=_value(metric, "champion"),
        candidate=_value(metric, "candidate"),
        difference=Estimate("identical") if same else _value(metric, "difference", signed=True),
        gate="; ".join(clean(c.required, limit=120) for c in gates if c.required),
        outcome=wording.outcome(worst) if worst is not None else None,
        seed=_band(noise, metric),
    )


def _band(noise: object, metric: dict[str, Any]) -> str:
    """The band with the digits of the difference that it stands beside."""
    band = _number(noise.get("band")) if isinstance(noise, dict) else None
    if band is None or metric.get("identical") is True or _number(metric.get("difference")) is None:
        return ""
    return f"±{number(band, (-band, band))}"


def _value(metric: dict[str, Any], key: str, *, signed: bool = False) -> Estimate:
    value = _number(metric.get(key))
    if value is None:
        return Estimate()
    ends = metric.get(f"{key}_interval")
    pair = [_number(e) for e in ends] if isinstance(ends, list | tuple) and len(ends) == 2 else []
    low, high = pair if pair else (None, None)
    interval = (low, high) if low is not None and high is not None else None
    sign = "+" if signed and value > 0 else ""
    return Estimate(sign + number(value, interval), bounds(interval) if interval else "")


def _number(value: object) -> float | None:
    if isinstance(value, str):
        return _NOT_FINITE.get(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e300 or not math.isfinite(value) else None
