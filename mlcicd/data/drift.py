"""How far each column has moved from a reference, as an effect with its uncertainty.

A p-value at ten million rows always fires; a distance at a hundred rows is mostly noise. So every distance
comes with the value that chance alone would reach at these sample sizes, and a check that can not tell says
so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from mlcicd.core.errors import ConfigError
from mlcicd.core.verdict import Check, CheckStatus, Severity
from mlcicd.data import distances
from mlcicd.data.column_profile import ColumnProfile, bucket, fold
from mlcicd.data.histogram import FINE_BITS, aligned
from mlcicd.data.profile import Profile, profile
from mlcicd.data.source import Source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Metric = Literal["js", "psi", "ks", "wasserstein"]

CONFIDENCE = 0.95
_DRAWS = 200
_NAMED = 20


@dataclass(frozen=True)
class DriftResult:
    """How far one column has moved.

    Attributes:
        column, kind: which, and `numeric`, `category`, `text` (of its lengths), `time` or `other`.
        psi, ks, js, wasserstein: distances as :mod:`mlcicd.data.distances` defines them; None where they can
            not be computed (no values on a side) or have no meaning.
        interval: 95 % bootstrap interval of `js`.
        noise: what each distance reaches in 95 % of samples of these sizes when nothing has moved.
        missing_reference, missing_current: share of NULL or NaN.
        new, vanished: categories that only one side has (at most 20, largest first), with the share of rows that
            hold the new ones, the reference's share of those that vanished, and how many rows of the largest of
            these were to be expected.
        problem: why there is no distance, in words.
        is_target: whether it is the label.
    """

    column: str
    kind: str
    psi: float | None = None
    ks: float | None = None
    js: float | None = None
    wasserstein: float | None = None
    interval: tuple[float, float] | None = None
    noise: dict[str, float] = field(default_factory=dict)
    missing_reference: float | None = None
    missing_current: float | None = None
    new: tuple[str, ...] = ()
    new_share: float = 0.0
    vanished: tuple[str, ...] = ()
    vanished_share: float = 0.0
    vanished_expected: float = 0.0
    rows_reference: int = 0
    rows_current: int = 0
    problem: str = ""
    is_target: bool = False

    @property
    def missing_change(self) -> float | None:
        """How much the share of missing values has risen."""
        if self.missing_reference is None or self.missing_current is None:
            return None
        return self.missing_current - self.missing_reference

    def to_json(self) -> dict[str, Any]:
        """A JSON value; a distance that is no finite number is the string `Infinity` or `NaN`."""
        value = asdict(self) | {"missing_change": self.missing_change, "definitions": distances.DEFINITIONS}
        return {k: _json_number(v) if isinstance(v, float) else v for k, v in value.items()}


def _json_number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity"


def drift(reference: Profile, current: Profile | Source) -> list[DriftResult]:
    """Compares each column of the reference with the current data.

    Returns:
        One result a column of the reference, those that can not be compared first, then by `js` beyond chance (or the
        change of missing values, where that is more), largest first.

    Raises:
        InputError: the current data can not be read.
    """
    if isinstance(current, Source):
        there = [name for name in reference.columns if name in current.columns]
        current = profile(current, there, sensitive=reference.sensitive, like=reference)
    results = []
    for name, before in reference.columns.items():
        after = current.columns.get(name)
        results.append(_compare(name, before, after, is_target=name == reference.target))
    return sorted(results, key=_rank)


def _rank(result: DriftResult) -> tuple[int, float, float, str]:
    # Without what chance contributes: a column of a thousand categories is far from everything in a small sample.
    js = math.sqrt(max((result.js or 0.0) ** 2 - result.noise.get("js", 0.0) ** 2, 0.0))
    effect = max(js, abs(result.missing_change or 0.0))
    return (0 if result.problem else 1, -effect, -(result.ks or 0.0), result.column)


def _compare(name: str, before: ColumnProfile, after: ColumnProfile | None, *, is_target: bool) -> DriftResult:
    if after is None:
        return DriftResult(name, before.kind, problem="the column is gone", is_target=is_target)
    common: dict[str, Any] = {
        "column": name,
        "kind": before.kind,
        "missing_reference": before.missing_share,
        "missing_current": after.missing_share,
        "rows_reference": before.rows,
        "rows_current": after.rows,
        "is_target": is_target,
    }
    problem = _problem(before, after)
    if problem or before.kind in ("time", "other") or before.values == 0:
        return DriftResult(**common, problem=problem)
    return (_categories if before.kind == "category" else _numbers)(before, after, common)


def _problem(before: ColumnProfile, after: ColumnProfile) -> str:
    """Why two columns can not be compared; empty when they can, or when both hold nothing."""
    if after.rows == 0:
        return "there are no rows to compare"
    kinds_matter = before.values > 0 and after.values > 0  # a column without values has no kind to speak of
    if before.kind != after.kind and kinds_matter:
        return f"it was {before.kind} and is {after.kind}"
    if (before.values == 0) != (after.values == 0):
        return f"the {'reference' if before.values == 0 else 'current data'} holds no values"
    return ""


def _numbers(before: ColumnProfile, after: ColumnProfile, common: dict[str, Any]) -> DriftResult:
    values, p, q = aligned(before.histogram, after.histogram)
    wide = min(before.histogram.bits, after.histogram.bits) < FINE_BITS
    divisible = distances.divisible_cells(p, wide=wide)
    p_js, q_js = distances.equal_mass_counts(p, q, distances.JS_BINS, divisible=divisible)
    p_psi, q_psi = distances.equal_mass_counts(p, q, distances.PSI_BINS, divisible=divisible)
    deviation = before.deviation or 0.0
    n, m = float(p.sum()), float(q.sum())
    noise = _noise(len(p_js), len(p_psi), n, m)
    noise["wasserstein"] = distances.wasserstein_noise(values, p + q, deviation, 1 / n + 1 / m)
    return DriftResult(
        **common,
        psi=distances.psi(p_psi, q_psi),
        ks=distances.ks(p, q),
        js=distances.js(p_js, q_js),
        wasserstein=distances.wasserstein(values, p, q, deviation),
        interval=_interval(p_js, q_js),
        noise=noise,
    )


def _categories(before: ColumnProfile, after: ColumnProfile, common: dict[str, Any]) -> DriftResult:
    import numpy as np

    new = [c for c in after.categories if c not in before.categories and not before.rest.get(bucket(c))]
    vanished = [c for c in before.categories if c not in after.categories and not after.rest.get(bucket(c))]
    known = set(before.categories) | set(after.categories)
    if before.rest or after.rest:  # only what both can name is compared by name
        known = {
            c
            for c in known
            if (c in before.categories or not before.rest) and (c in after.categories or not after.rest)
        }
    left, right = fold(before, known), fold(after, known)
    names = sorted(known)
    buckets = sorted(set(left.rest) | set(right.rest))
    p = np.array([left.categories.get(c, 0) for c in names] + [left.rest.get(b, 0) for b in buckets], float)
    q = np.array([right.categories.get(c, 0) for c in names] + [right.rest.get(b, 0) for b in buckets], float)
    n, m = float(p.sum()), float(q.sum())
    return DriftResult(
        **common,
        psi=distances.psi(p, q),
        ks=distances.total_variation(p, q),
        js=distances.js(p, q),
        interval=_interval(p, q),
        noise=_noise(len(p), len(p), n, m, categories=True),
        new=tuple(sorted(new, key=lambda c: (-after.categories[c], c))[:_NAMED]),
        new_share=sum(after.categories[c] for c in new) / m,
        vanished=tuple(sorted(vanished, key=lambda c: (-before.categories[c], c))[:_NAMED]),
        vanished_share=sum(before.categories[c] for c in vanished) / n,
        vanished_expected=max((before.categories[c] for c in vanished), default=0) / n * m,
    )


def _noise(js_bins: int, psi_bins: int, n: float, m: float, *, categories: bool = False) -> dict[str, float]:
    """What chance reaches: (p - q)^2 / p summed over B bins is (1/n + 1/m) chi-square(B - 1)."""
    scale = 1 / n + 1 / m
    js_chi = distances.chi_square_quantile(CONFIDENCE, max(js_bins - 1, 1))
    psi_chi = distances.chi_square_quantile(CONFIDENCE, max(psi_bins - 1, 1))
    kolmogorov = 1.3581 * math.sqrt(scale)
    return {
        "js": math.sqrt(min(js_chi * scale / (8 * math.log(2)), 1.0)),
        "psi": psi_chi * scale,
        # Total variation is at most half the square root of the chi-square distance (Cauchy-Schwarz).
        "ks": min(math.sqrt(js_chi * scale) / 2 if categories else kolmogorov, 1.0),
    }


def _interval(reference: NDArray[np.float64], current: NDArray[np.float64]) -> tuple[float, float]:
    """Basic bootstrap interval of the Jensen-Shannon distance, over multinomial samples of both sides."""
    import numpy as np

    # Seeded: the same data must give the same verdict.
    random = np.random.default_rng(20_240_101)
    # Counts of divided cells are no whole numbers.
    p, q = reference / reference.sum(), current / current.sum()
    n, m = round(float(reference.sum())), round(float(current.sum()))
    draws = distances.js_divergence(random.multinomial(n, p, _DRAWS) / n, random.multinomial(m, q, _DRAWS) / m)
    estimate = float(distances.js_divergence(p, q))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    bounds = (max(2 * estimate - float(high), 0.0), min(max(2 * estimate - float(low), 0.0), 1.0))
    return math.sqrt(bounds[0]), math.sqrt(bounds[1])


def drift_checks(
    results: Iterable[DriftResult],
    *,
    max: float,
    metric: Metric = "js",
    severity: Severity = Severity.FAIL,
    max_missing_change: float | None = None,
    columns: Sequence[str] | None = None,
) -> list[Check]:
    """One check a column: the distance is at most `max`.

    A distance above `max` that chance alone could reach at these sample sizes is inconclusive; a column that
    can not be compared fails. Columns of times and of nested values are left out, but for their missing
    values.

    Args:
        max: the largest distance allowed, in the metric's unit.
        max_missing_change: the largest rise of the share of missing values; `max` when None.

    Raises:
        ConfigError: an unknown metric, or `max` is no positive number.
    """
    if metric not in distances.DEFINITIONS:
        raise ConfigError(f"unknown drift metric {metric!r}", remedy=f"use one of {', '.join(distances.DEFINITIONS)}")
    if not max > 0:
        raise ConfigError(f"the largest drift allowed must be positive, not {max!r}")
    rise = max_missing_change if max_missing_change is not None else max
    wanted = None if columns is None else set(columns)
    return [
        _check(result, max, metric, severity, rise) for result in results if wanted is None or result.column in wanted
    ]


def _check(result: DriftResult, limit: float, metric: Metric, severity: Severity, rise: float) -> Check:
    value: float | None = getattr(result, metric)
    name = f"drift.{result.column}"
    if value is None and metric == "wasserstein" and result.js is not None:
        value, metric = result.js, "js"  # categories have no order to measure along
    required = f"{distances.DEFINITIONS[metric]} <= {limit:g}"
    status, reason = _judge(result, value, limit, metric)
    change = result.missing_change
    if change is not None and change > rise and status is not CheckStatus.FAILED:
        status = CheckStatus.FAILED
        reason = (
            f"{result.missing_current:.2%} of the values are missing, {result.missing_reference:.2%} in the reference"
        )
    return Check(
        name=name,
        status=status,
        observed=value,
        interval=result.interval if metric == "js" else None,
        required=required,
        severity=severity,
        reason=reason,
        remedy=_remedy(status),
        details=result.to_json(),
    )


def _judge(result: DriftResult, value: float | None, limit: float, metric: Metric) -> tuple[CheckStatus, str]:
    if result.problem:
        return CheckStatus.FAILED, result.problem
    if value is None:
        return CheckStatus.SKIPPED, f"only the missing values of this {result.kind} column were compared"
    if math.isnan(value):
        return CheckStatus.FAILED, "the distance is not a number"
    if value <= limit:
        return CheckStatus.PASSED, ""
    noise = result.noise.get(metric, 0.0)
    # The distance of two samples of one population is not zero: what chance alone reaches is taken off before the
    # limit is held against it.
    proven = value - noise
    if metric == "js" and result.interval is not None:
        proven = min(proven, result.interval[0])
    if value <= noise or proven <= limit:
        return (
            CheckStatus.INCONCLUSIVE,
            f"{value:.4g} is more than {limit:g}, but that is not proven: chance alone reaches {noise:.4g} with "
            f"{result.rows_current:,} rows against {result.rows_reference:,}",
        )
    words = f"{metric} {value:.4g} is more than {limit:g} (chance reaches {noise:.2g})"
    if result.new:
        words += f"; {result.new_share:.2%} of rows hold new categories such as {result.new[0]!r}"
    return CheckStatus.FAILED, words


def _remedy(status: CheckStatus) -> str:
    return {
        CheckStatus.FAILED: "look at the column's distribution beside the reference's: a broken feed has to "
        "be repaired, a changed world calls for retraining",
        CheckStatus.INCONCLUSIVE: "collect more rows before you decide",
    }.get(status, "")
