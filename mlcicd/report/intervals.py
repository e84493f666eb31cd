"""The small picture beside a check: what was seen, how surely, and what was required."""

from __future__ import annotations

import math
import re

from mlcicd.core.verdict import Check
from mlcicd.report import wording
from mlcicd.report.quantities import bounds, number

VERSUS = " vs champion"
_WIDTH = 168.0
_HEIGHT = 24.0
_EDGE = 8.0
# A distance is named with the version of its definition first: `js/1 <= 0.1`.
_BOUND = re.compile(
    r"(?:[a-z]+/\d+\s(?:.*\s)?)?\s*(>=|≥|>|at least|<=|≤|<|at most)"
    r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?)\b(%?)"
)
_LOWER_BOUNDS = (">=", "≥", ">", "at least")


def requirement(check: Check) -> tuple[float | None, float | None]:
    """The lowest and the highest value allowed, each None when there is none that a program can read.

    They are ``details["required_min"]`` and ``details["required_max"]``, or else the number in a `required`
    that begins like ``>= 0.7``, or ``at most 1%``, which is a share of 0.01 (``5 %`` is in a unit of its own).
    """
    low, high = (_finite(check.details.get(key)) for key in ("required_min", "required_max"))
    if low is None and high is None and (match := _BOUND.match(check.required)):
        value = _finite(float(match.group(2)) / (100 if match.group(3) else 1))
        return (value, None) if match.group(1) in _LOWER_BOUNDS else (None, value)
    return low, high


def interval_svg(check: Check) -> str:
    """The picture as an `<svg>` element; empty when there is nothing to compare with."""
    observed = _finite(check.observed)
    low, high = requirement(check)
    if observed is None or (check.interval is None and low is None and high is None):
        return ""
    # A difference is drawn on an axis of differences, where the champion is at zero.
    versus = check.name.endswith(VERSUS) and check.reference is not None
    reference = 0.0 if versus else _finite(check.reference)
    ends = [b for b in (check.interval or ()) if math.isfinite(b)]
    values = [v for v in (observed, low, high, reference, *ends) if v is not None]
    first, last = min(values), max(values)
    if not last - first > abs(last) * 1e-12:
        return ""

    def at(value: float) -> float:
        return _EDGE + (_WIDTH - 2 * _EDGE) * (value / 2 - first / 2) / (last / 2 - first / 2)

    middle = _HEIGHT / 2
    kind = wording.outcome(check)
    parts = [f'<line class="iv-axis" x1="0" y1="{middle}" x2="{_WIDTH}" y2="{middle}"/>']
    for bound, end in ((low, 0.0), (high, _WIDTH)):
        if bound is not None:
            x = at(bound)
            parts.append(
                f'<rect class="iv-out" x="{min(x, end):.1f}" y="3" width="{abs(end - x):.1f}" '
                f'height="{_HEIGHT - 6}"/>'
                f'<line class="iv-required" x1="{x:.1f}" y1="1" x2="{x:.1f}" y2="{_HEIGHT - 1}"/>'
            )
    if len(ends) == 2:
        parts.append(
            f'<line class="iv-bar iv-{kind}" x1="{at(ends[0]):.1f}" y1="{middle}" '
            f'x2="{at(ends[1]):.1f}" y2="{middle}"/>'
        )
    if reference is not None:
        x = at(reference)
        parts.append(f'<path class="iv-reference" d="M{x:.1f},7l4.5,5l-4.5,5l-4.5,-5z"/>')
    parts.append(f'<circle class="iv-point iv-{kind}" cx="{at(observed):.1f}" cy="{middle}" r="4"/>')
    return (
        f'<svg class="iv" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" width="{_WIDTH:.0f}" '
        f'height="{_HEIGHT:.0f}" role="img">'
        f"<title>{_words(check, observed, low, high)}</title>{''.join(parts)}</svg>"
    )


def _words(check: Check, observed: float, low: float | None, high: float | None) -> str:
    words = [f"observed {number(observed, check.interval)}"]
    if check.interval is not None:
        words.append(f"interval {bounds(check.interval)}")
    if low is not None:
        words.append(f"at least {number(low)} required")
    if high is not None:
        words.append(f"at most {number(high)} required")
    return ", ".join(words)


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and abs(value) < 1e300 else None
