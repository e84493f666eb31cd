"""Quantile predictions and forecasts: views, per-row losses, and the error of the naive forecast.

MASE divides absolute errors by the mean absolute error, within the training data, of forecasting each value by the one
a season before it (Hyndman & Koehler, Int. J. Forecasting 22, 2006). The interval score is Winkler's: the interval's
width, plus 2 / alpha times the distance of values outside of it (Gneiting & Raftery, JASA 102, 2007).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcicd.core.errors import InputError
from mlcicd.evaluation.encoding import floats, regression_view
from mlcicd.evaluation.problem import Array, Predictions, View

Floats = NDArray[np.float64]

_NEAR = 1e-9
INTERVALS = ("interval_coverage", "interval_score", "interval_width")


def quantile_view(predictions: Predictions) -> View:
    """A model that answered (n, q) quantiles; the median, where there is one, is its point prediction.

    Raises:
        InputError: columns without levels, levels outside (0, 1) or twice.
    """
    raw = predictions.scores if predictions.scores is not None else predictions.labels
    if raw is None or np.ndim(raw) == 1:
        return regression_view(predictions)
    values, missing = floats(np.asarray(raw))
    levels = np.asarray([] if predictions.classes is None else predictions.classes, dtype=np.float64)
    if values.ndim != 2 or levels.size != values.shape[1]:
        raise InputError(
            f"the model answered {values.shape} values, and {levels.size} quantile levels are named",
            remedy="name the level of each of its columns, in order, in model.quantiles",
        )
    if not ((levels > 0) & (levels < 1)).all() or np.unique(levels).size != levels.size:
        raise InputError(f"quantile levels must be distinct and between 0 and 1: {levels.tolist()}")
    order = np.argsort(levels)
    values, levels = np.ascontiguousarray(values[:, order]), levels[order]
    reason = f"{missing} of its {values.size} predictions are not finite" if missing else ""
    middle = np.flatnonzero(np.abs(levels - 0.5) < _NEAR)
    point = values[:, middle[0]] if middle.size else None
    no_point = reason or ("" if middle.size else "it gave no median (the 0.5 quantile) to be its point prediction")
    return View(point, point, no_point, no_point, values, tuple(levels.tolist()))


def quantile_reason(view: View, name: str, level: float) -> str:
    """Why a metric of quantiles can not be computed of a model's answers, or empty."""
    if view.quantiles is None:
        return view.scores_reason or "it gave no quantiles"
    if not np.isfinite(view.quantiles).all():
        return f"{int((~np.isfinite(view.quantiles)).sum())} of its {view.quantiles.size} predictions are not finite"
    needed = interval_levels(level) if name in INTERVALS else [level] if level else []
    for one in needed:
        if _column(view, one) is None:
            return f"it gave no {one:g} quantile"
    return ""


def interval_levels(level: float) -> list[float]:
    """The two quantiles that bound the central interval of a level: 0.8 is from 0.1 to 0.9."""
    return [round((1 - level) / 2, 12), round((1 + level) / 2, 12)]


def _column(view: View, level: float) -> Floats | None:
    found = [i for i, own in enumerate(view.levels) if abs(own - level) < _NEAR]
    return None if not found or view.quantiles is None else view.quantiles[:, found[0]]


def _named(view: View, level: float) -> Floats:
    column = _column(view, level)
    if column is None:
        raise InputError(f"there is no {level:g} quantile")
    return column


def inside(y: Floats, view: View, level: float) -> NDArray[np.bool_]:
    """(n,) whether each value is within the central interval of a level."""
    low, high = (_named(view, each) for each in interval_levels(level))
    within: NDArray[np.bool_] = (low <= y) & (y <= high)
    return within


def _pinball(y: Floats, predicted: Floats, level: float) -> Floats:
    error = y - predicted
    loss: Floats = np.where(error >= 0, level * error, (level - 1) * error)
    return loss


def quantile_loss(name: str, y: Floats, view: View, level: float) -> Floats:
    """(n,) losses whose mean is the metric; `level` 0 of `pinball` is the mean over all of the model's levels."""
    if name == "pinball" and level:
        return _pinball(y, _named(view, level), level)
    if name == "pinball" and view.quantiles is not None:
        every: list[Floats] = [_pinball(y, view.quantiles[:, i], q) for i, q in enumerate(view.levels)]
        return np.asarray(np.stack(every).mean(axis=0), dtype=np.float64)
    if name == "quantile_crossing" and view.quantiles is not None:
        return np.asarray((np.diff(view.quantiles, axis=1) < 0).any(axis=1), dtype=np.float64)
    low, high = (_named(view, each) for each in interval_levels(level))
    width = np.asarray(high - low, dtype=np.float64)
    if name == "interval_width":
        return width
    outside: Floats = np.maximum(low - y, 0) + np.maximum(y - high, 0)
    return width + 2 / (1 - level) * outside


def smape(y: Floats, predicted: Floats) -> Floats:
    """(n,) symmetric absolute percentage errors, of 0 to 2; 0 where both are 0."""
    below = np.abs(y) + np.abs(predicted)
    loss: Floats = np.divide(2 * np.abs(y - predicted), below, out=np.zeros(y.shape), where=below > 0)
    return loss


def naive_errors(values: Any, series: Any, time: Any, season: int = 1) -> dict[Any, float]:
    """Mean absolute error of the (seasonal) naive forecast by series, within the training data.

    Args:
        values: (m,) of the training data; `series` and `time`, (m,), say where each belongs; no series: all one (None).
        season: steps from a value to the one it is compared with.

    Returns:
        only series of more than `season` finite values that are not constant over a season.
    """
    numbers, _ = floats(np.asarray(values))
    keys = [None] * numbers.size if series is None else np.asarray(series).tolist()
    places: dict[Any, list[int]] = {}
    for row, key in enumerate(keys):
        places.setdefault(key, []).append(row)
    when = np.asarray(time)
    found = {}
    for key, rows in places.items():
        own = numbers[np.asarray(rows)[np.argsort(when[rows], kind="stable")]]
        steps = np.abs(own[season:] - own[:-season])
        error = float(steps.mean()) if steps.size else 0.0
        if np.isfinite(error) and error > 0:
            found[key] = error
    return found


def scale_of(errors: dict[Any, float], series: Any, n: int) -> Floats:
    """(n,) the naive error of each row's series; NaN where its training data do not give one."""
    keys = [None] * n if series is None else np.asarray(series).tolist()
    return np.array([errors.get(key, np.nan) for key in keys], dtype=np.float64)


def scale_reason(scale: Array | None) -> str:
    """Why MASE can not be computed, or empty."""
    if scale is None:
        return "there is no naive error of the training data to scale by"
    lacking = int((~(np.isfinite(scale) & (scale > 0))).sum())
    if lacking:
        return f"{lacking} rows are of series without a naive error: too short, constant or unseen in the training data"
    return ""
