"""Thresholds that a champion's own uncertainty supports.

All follow one rule: a model that equals the champion ought to pass, on another holdout of the same size, with
probability 1 - `risk` over all gates together (Bonferroni). Let h be the interval's half-width, z its normal quantile,
and q the quantile of a gate's share of the risk. An absolute threshold lies h (1 + q sqrt(2) / z) away from the
champion's value: the new interval has to clear it, and its estimate and the champion's are both off by a standard
error. A margin is h (1 + q / z), where h is that of a difference of two equal models, whose true value is known: 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mlcicd.evaluation.gate_set import GateSet
from mlcicd.evaluation.intervals import MetricResult
from mlcicd.evaluation.slices import SliceResult
from mlcicd.evaluation.uncertainty import normal_quantile

RISK = 0.05
# Below this many rows an interval is too rough to build a threshold on.
LEAST_ROWS = 100
# How well a slice has to be known: the half-width of its interval, as a share of the metric's range (or value).
_SLICE_WIDTH = 0.05


@dataclass(frozen=True)
class Threshold:
    """A proposed threshold on a metric of the whole holdout.

    Attributes:
        side: `min` or `max`.
        value: what the champion has, with its interval.
        shifts: how many changes of the holdout its room was learned from; 0: from this holdout's sampling error alone.
        rows: below about so many rows, a model that equals the champion would not pass half of the time.
    """

    metric: str
    side: str
    threshold: float
    value: float
    interval: tuple[float, float]
    shifts: int
    rows: int


@dataclass(frozen=True)
class Margin:
    """A proposed margin of a comparison with the champion.

    Attributes:
        caught: the true loss that is failed four times of five.
        rows: as `Threshold.rows`.
    """

    metric: str
    margin: float
    half_width: float
    caught: float
    rows: int


@dataclass(frozen=True)
class SliceThreshold:
    """A proposed threshold for all slices of a column.

    Attributes:
        worst: the slice that it was learned from, its value and rows.
        slices, small: how many slices have `min_rows` rows, and how many have fewer.
    """

    by: str
    metric: str
    side: str
    threshold: float
    min_rows: int
    worst: tuple[str, float, int]
    slices: int
    small: int


def threshold(result: MetricResult, *, gates: int, shifts: Sequence[float] = ()) -> Threshold | None:
    """The threshold for a metric; None where its interval says nothing (too few rows, no value, tails too heavy).

    Args:
        gates: over how many gates the risk is shared.
        shifts: by how much the value of one and the same model changed when the holdout did.
    """
    if result.candidate_interval is None or not math.isfinite(result.candidate) or result.n < LEAST_ROWS:
        return None
    if result.caution:
        return None
    low, high = result.candidate_interval
    side = "min" if result.direction == "higher" else "max"
    half = result.candidate - low if side == "min" else high - result.candidate
    if not (math.isfinite(half) and half > 0):
        return None
    z, q = normal_quantile((1 + result.confidence) / 2), normal_quantile(1 - RISK / gates)
    error = half / z
    seen = math.sqrt(sum(s * s for s in shifts) / len(shifts)) if shifts else 0.0
    room = half + q * max(math.sqrt(2) * error, seen)
    sign = -1 if side == "min" else 1
    bound = rounded(result.candidate + sign * room, room, up=sign > 0)
    rows = math.ceil(result.n * (half / room) ** 2)
    return Threshold(result.name, side, bound, result.candidate, (low, high), len(shifts), rows)


def margin(result: MetricResult, *, gates: int) -> Margin | None:
    """The margin for a metric, from two models that differ as a retraining does; None where that says nothing.

    Args:
        result: of the two, one as the candidate, the other as the champion; only the difference's width counts.
    """
    if result.difference_interval is None or result.identical or result.pairwise or result.n < LEAST_ROWS:
        return None
    if result.difference_caution:
        return None
    half = (result.difference_interval[1] - result.difference_interval[0]) / 2
    if not (math.isfinite(half) and half > 0):
        return None
    z, q = normal_quantile((1 + result.confidence) / 2), normal_quantile(1 - RISK / gates)
    wide = rounded(half * (1 + q / z), half * (1 + q / z), up=True)
    caught = wide + half * (1 + normal_quantile(0.8) / z)
    return Margin(result.name, wide, half, caught, math.ceil(result.n * (half / wide) ** 2))


def slice_threshold(by: str, metric: str, found: Sequence[SliceResult], *, gates: int) -> SliceThreshold | None:
    """The threshold that every large enough slice of a column passes; None where no two slices are large enough.

    Slices are large enough from the number of rows on at which an interval's half-width is at most 5 % of the metric's
    value.
    """
    known = [(s, r) for s in found for r in s.results if r.name == metric and _half(r) is not None]
    if len(known) < 2:
        return None
    roughness = float(np.median([(_half(r) or 0.0) * math.sqrt(s.n) / max(abs(r.candidate), 1e-12) for s, r in known]))
    min_rows = max(LEAST_ROWS, math.ceil((roughness / _SLICE_WIDTH) ** 2 / 50) * 50)
    large = [(s, r) for s, r in known if s.n >= min_rows]
    if len(large) < 2:
        return None
    side = "min" if large[0][1].direction == "higher" else "max"
    sign = -1 if side == "min" else 1
    z = normal_quantile((1 + large[0][1].confidence) / 2)
    q = normal_quantile(1 - RISK / (gates * len(large)))

    def edge(result: MetricResult) -> float:
        return result.candidate + sign * (_half(result) or 0.0) * (1 + q * math.sqrt(2) / z)

    worst_slice, worst = max(large, key=lambda pair: sign * edge(pair[1]))
    bound = rounded(edge(worst), abs(edge(worst) - worst.candidate), up=sign > 0)
    told = (worst_slice.value, worst.candidate, worst_slice.n)
    return SliceThreshold(by, metric, side, bound, min_rows, told, len(large), len(found) - len(large))


def default_metrics(gates: GateSet, available: Mapping[str, MetricResult]) -> list[str]:
    """The metrics to gate where mlcicd.yaml names none: one of order or rightness, and one of probabilities or size."""
    wished = {
        "binary": ("roc_auc", "brier", "accuracy"),
        "multiclass": ("accuracy", "log_loss"),
        "multilabel": ("f1_macro", "hamming_loss"),
        "regression": ("mae", "rmse"),
        "quantile": ("pinball", "interval_score@0.8"),
        "forecast": ("mae", "mase"),
        "ranking": ("ndcg", "map"),
    }.get(gates.task, ())
    return [name for name in wished if name in available and math.isfinite(available[name].candidate)][:2]


def rounded(value: float, scale: float, *, up: bool) -> float:
    """A value to two digits of `scale`, rounded up or down."""
    digits = max(0, 1 - math.floor(math.log10(scale))) if scale > 0 else 6
    step = 10.0**digits
    return round((math.ceil if up else math.floor)(value * step * (1 - 1e-12 if up else 1 + 1e-12)) / step, digits)


def _half(result: MetricResult) -> float | None:
    if result.candidate_interval is None or not math.isfinite(result.candidate):
        return None
    low, high = result.candidate_interval
    half = result.candidate - low if result.direction == "higher" else high - result.candidate
    return half if math.isfinite(half) and half > 0 else None
