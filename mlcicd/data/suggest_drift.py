"""Bounds of drift that a table's own past would have kept: how far each column moved from one period to the next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mlcicd.core.errors import ConfigError, InputError
from mlcicd.core.yaml_lines import nearest
from mlcicd.data import distances
from mlcicd.data.conditions import kind_of
from mlcicd.data.drift import Metric, drift
from mlcicd.data.profile import profile
from mlcicd.data.slices import FEWEST_ROWS, slice_profiles
from mlcicd.data.source import Source, quote
from mlcicd.data.yaml_text import scalar

Period = Literal["day", "week", "month", "quarter"]

_FEWEST_PERIODS = 3
_MOST_PERIODS = 200
_SLACK = 1.25
_SMALLEST = 0.02
# A Jensen-Shannon distance above this between all periods: hardly a value comes again.
_MOVES_ALWAYS = 0.8


@dataclass(frozen=True)
class Suggestion:
    """One column: how far each period was from all before it, and the bound that lets them pass."""

    column: str
    moved: tuple[float, ...]
    bound: float
    always: bool


def suggest_drift(
    source: Source, time: str, *, every: Period = "month", metric: Metric = "js", ignore: Sequence[str] = ()
) -> list[Suggestion]:
    """Compares each period with all before it, as new data is compared with the champion's training data.

    The bound is the largest distance seen and a quarter, rounded up to two digits, and at least 0.02. Periods of fewer
    than 200 rows are left out.

    Returns:
        One suggestion a column that has a distance, the most moved first.

    Raises:
        ConfigError: there is no such column, or it holds no times.
        InputError: there are fewer than three periods, or the data can not be read.
    """
    if time not in source.columns:
        raise ConfigError(f"there is no column {time!r}{nearest(time, source.columns)}", where=str(source.path))
    kind = kind_of(source.columns[time])
    if kind not in ("date", "timestamp", "string"):
        raise ConfigError(f"the column {time!r} is {kind}, and no time", where=str(source.path))
    moment = quote(time) if kind != "string" else f"TRY_CAST({quote(time)} AS TIMESTAMP)"
    by = f"CAST(CAST(date_trunc('{every}', {moment}) AS DATE) AS VARCHAR)"
    columns = [n for n in source.columns if n != time and n not in ignore]
    whole = profile(source, columns)
    periods = slice_profiles(source, by, whole, most=_MOST_PERIODS)
    if len(periods) < _FEWEST_PERIODS:
        raise InputError(
            f"there are {len(periods)} periods of at least {FEWEST_ROWS} rows, and a bound needs {_FEWEST_PERIODS}",
            where=str(source.path),
            remedy="give data of a longer time, or shorter periods (--every week)",
        )
    names = sorted(periods)
    past = periods[names[0]]
    moved: dict[str, list[float]] = {name: [] for name in columns}
    for name in names[1:]:
        for result in drift(past, periods[name]):
            # Categories have no order to measure along; what is judged of them is their Jensen-Shannon distance.
            value = getattr(result, metric)
            value = result.js if value is None and metric == "wasserstein" else value
            if value is not None and math.isfinite(value):
                moved[result.column].append(value)
        past = past.merge(periods[name])
    found = [
        Suggestion(column, tuple(values), _bound(max(values), metric), metric == "js" and min(values) > _MOVES_ALWAYS)
        for column, values in moved.items()
        if values
    ]
    return sorted(found, key=lambda one: (-max(one.moved), one.column))


def _bound(largest: float, metric: Metric) -> float:
    value = max(largest * _SLACK, _SMALLEST)
    if metric in ("js", "ks") and value >= 1.0:
        return 1.0  # there is no larger one
    digits = 1 - math.floor(math.log10(value))
    scale = 10.0**digits
    return round(math.ceil(round(value * scale, 6)) / scale, digits)


def suggestion_yaml(found: Sequence[Suggestion], source: Source, time: str, every: Period, metric: Metric) -> str:
    """The suggestions as a `drift` section of `mlcicd.yaml`, with what each was made from."""
    periods = max((len(one.moved) for one in found), default=0) + 1
    lines = [
        f"# From {' '.join(source.path.name.split())}: each {every} of {time} against all before it, {periods} in all.",
        f"# A bound is the largest {distances.DEFINITIONS[metric]} seen, and a quarter.",
        "drift:",
        f"  metric: {metric}",
    ]
    kept = [one for one in found if not one.always]
    if kept:
        lines.append(f"  max: {sorted(one.bound for one in kept)[len(kept) // 2]:g}  # of columns that come later")
    moving = [one for one in found if one.always]
    if moving:
        names = ", ".join(scalar(one.column) for one in moving)
        lines.append(f"  ignore: [{names}]  # new values in every {every}: nothing that could drift")
    if kept:
        lines.append("  columns:")
    lines += [
        f"    {scalar(one.column)}: {one.bound:g}  # moved by {min(one.moved):.2g} to {max(one.moved):.2g}"
        for one in kept
    ]
    return "\n".join(lines) + "\n"
