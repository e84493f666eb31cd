"""Numbers as a reader wants them: as many digits as the interval makes sense of, and no more."""

from __future__ import annotations

import math

_SIGNIFICANT = 4
_LONGEST_FRACTION = 7
_LARGEST_PLAIN = 1e15
ABSENT = "–"


def number(value: float | str | None, interval: tuple[float, float] | None = None) -> str:
    """A value with the digits its interval supports: two significant ones of the interval's half-width.

    Without an interval, four significant digits; whole numbers are written out, with thousands separated.
    """
    if value is None:
        return ABSENT
    if isinstance(value, str):
        return value
    value = float(value)
    if not math.isfinite(value):
        return _not_finite(value)
    decimals = _decimals_of(interval)
    return _plain(value) if decimals is None or value == 0 else _fixed(value, decimals)


def with_interval(value: float | str | None, interval: tuple[float, float] | None) -> str:
    """`0.781 [0.774, 0.788]`, or the value alone when there is no interval."""
    if interval is None:
        return number(value)
    return f"{number(value, interval)} {bounds(interval)}"


def bounds(interval: tuple[float, float]) -> str:
    """`[0.774, 0.788]`."""
    low, high = (number(bound, interval) for bound in interval)
    return f"[{low}, {high}]"


def duration(seconds: float) -> str:
    """`0.8 s`, `42 s`, `3 min 20 s`, `2 h 5 min`."""
    if not math.isfinite(seconds) or seconds < 0:
        return ABSENT
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _not_finite(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "infinite" if value > 0 else "-infinite"


def _plain(value: float) -> str:
    if value.is_integer() and abs(value) < _LARGEST_PLAIN:
        return f"{int(value):,}"
    magnitude = math.floor(math.log10(abs(value)))
    text = _fixed(value, max(0, _SIGNIFICANT - 1 - magnitude))
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def _decimals_of(interval: tuple[float, float] | None) -> int | None:
    if interval is None:
        return None
    half = abs(interval[1] - interval[0]) / 2
    if not math.isfinite(half) or half <= 0:
        return None
    return max(0, 1 - math.floor(math.log10(half)))


def _fixed(value: float, decimals: int) -> str:
    if decimals > _LONGEST_FRACTION or abs(value) >= _LARGEST_PLAIN:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return "0" if float(mantissa) == 0 else f"{mantissa}e{int(exponent)}"
    text = f"{value:,.{decimals}f}"
    return text.lstrip("-") if float(text.replace(",", "")) == 0 else text
