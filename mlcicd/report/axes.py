"""Axes: which range, which ticks, and how they are written."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Axis:
    """A range of values laid over a range of pixels.

    Attributes:
        low, high: the values at the two ends.
        start, end: the pixels at the two ends; `end` is below `start` for an axis that points up.
        ticks: values and how they are written.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value."""
        low, high, v = (math.log10(x) if self.log else x for x in (self.low, self.high, value))
        share = (v / 2 - low / 2) / (high / 2 - low / 2)
        return self.start + (self.end - self.start) * share


def linear(
    values: Iterable[float],
    start: float,
    end: float,
    *,
    count: int = 5,
    zero: bool = False,
    tight: bool = False,
) -> Axis:
    """An axis over finite values, with about `count` round ticks.

    Args:
        zero: whether 0 has to be on it, as bars need.
        tight: whether it ends at the values, not at the ticks around them.
    """
    seen = list(values)
    low, high = min(seen), max(seen)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= abs(high) * 1e-9:
        pad = abs(high) * 0.1 or 1.0
        low, high = low - pad, high + pad
    step = _step(high - low, count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if tight:
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    else:
        low, high = first * step, last * step
    power = math.floor(math.log10(step) + 1e-9)
    uneven = abs(step / 10.0**power - 2.5) < 1e-6  # 25, 2.5, 0.25: one digit more than its power of ten
    decimals = uneven - power
    ticks = tuple((i * step, _label(i * step, step, decimals)) for i in range(first, last + 1))
    return Axis(low, high, start, end, ticks)


def logarithmic(values: Iterable[float], start: float, end: float) -> Axis:
    """An axis over positive values with ticks at powers of ten, and at 2 and 5 when those are few."""
    seen = list(values)
    low, high = math.floor(math.log10(min(seen)) + 1e-9), math.ceil(math.log10(max(seen)) - 1e-9)
    if low == high:
        low, high = low - 1, high + 1
    decades = range(low, high + 1)
    every = math.ceil(len(decades) / 6)
    within = (1, 2, 5) if len(decades) <= 3 else (1,)
    ticks = [10.0**d * m for d in decades[::every] for m in within]
    kept = tuple((t, _label(t, t, -math.floor(math.log10(t) + 1e-9))) for t in ticks if t <= 10.0**high * (1 + 1e-9))
    return Axis(10.0**low, 10.0**high, start, end, kept, log=True)


def _step(span: float, count: int) -> float:
    rough = span / max(1, count)
    power = 10.0 ** math.floor(math.log10(rough))
    return next(s for s in _STEPS if s * power >= rough * (1 - 1e-9)) * power


def _label(value: float, step: float, decimals: int) -> str:
    """A tick's value; `decimals` is the last place that its step reaches, below zero for tens and hundreds."""
    if value == 0 or abs(value) < step * 1e-6:
        return "0"
    if abs(value) >= 1e6 or decimals > 5:
        # As many digits as tell neighbours apart, however far the axis is from zero.
        digits = min(15, max(0, math.floor(math.log10(abs(value)) + 1e-9) + decimals))
        mantissa, _, exponent = f"{value:.{digits}e}".partition("e")
        return f"{mantissa}e{int(exponent)}".replace("-", "−")
    return f"{value:,.{max(0, decimals)}f}".replace("-", "−")
