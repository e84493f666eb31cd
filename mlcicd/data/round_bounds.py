"""Bounds that a person would write: wider than what was seen, and round."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

# Enough for the exact value of any double.
_EXACT = Context(prec=1100)
_PLAIN_BELOW, _PLAIN_FROM = Decimal("1e15"), Decimal("1e-4")
# What is between 0 and one of these, and reaches from a tenth to nine tenths of it, is a share or a percentage.
_SHARES = (Decimal(1), Decimal(100))


def round_bounds(low: float, high: float, slack: float) -> tuple[str, str]:
    """The two bounds as YAML numbers, each read back as no narrower than `low` and `high`.

    The span is widened by `slack` of itself at both ends, and rounded outwards to the first digit of what was added.
    What is never negative stays so, and shares stay shares.

    Args:
        low, high: finite, `low` not above `high`; ints of any size, or floats.
    """
    bottom, top = Decimal(low), Decimal(high)
    more = _EXACT.multiply(_EXACT.subtract(top, bottom), Decimal(slack))
    whole = isinstance(low, int) and isinstance(high, int)
    if whole:
        more = max(more, Decimal(1))
    more = more or abs(top) * Decimal(slack) or Decimal(1)
    if not whole and bottom >= 0:
        for limit in _SHARES:
            if bottom <= limit / 10 and limit * 9 / 10 <= top <= limit:
                return "0", str(limit)
    digit = Decimal(10) ** more.adjusted()
    lower = Decimal(0) if 0 <= bottom < more else _rounded(_EXACT.subtract(bottom, more), digit, ROUND_FLOOR)
    upper = Decimal(0) if -more < top <= 0 else _rounded(_EXACT.add(top, more), digit, ROUND_CEILING)
    return _written(lower, low), _written(upper, high)


def _rounded(value: Decimal, digit: Decimal, how: str) -> Decimal:
    return _EXACT.multiply(_EXACT.divide(value, digit).to_integral_value(rounding=how, context=_EXACT), digit)


def _written(bound: Decimal, seen: float) -> str:
    """The bound as YAML reads it again; what was seen itself, where doubles end."""
    if not math.isfinite(float(bound)):
        return _double(float(seen))
    if bound == bound.to_integral_value() and abs(bound) < _PLAIN_BELOW:
        return str(int(bound))
    if isinstance(seen, int):
        return str(int(bound))
    if _PLAIN_FROM <= abs(bound) < _PLAIN_BELOW:
        return format(bound.normalize(_EXACT), "f")
    return _double(float(bound))


def _double(value: float) -> str:
    # YAML 1.1 reads 1e+20 as text unless there is a dot in it.
    text = repr(value)
    return text.replace("e", ".0e") if "e" in text and "." not in text else text
