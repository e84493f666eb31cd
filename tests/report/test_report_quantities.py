"""Numbers with the digits that their interval supports."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlcicd.report.quantities import bounds, duration, number, with_interval


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-0.0, "0"),
        (3, "3"),
        (336776, "336,776"),
        (0.70, "0.7"),
        (0.123456, "0.1235"),
        (12.3456, "12.35"),
        (123456.7, "123,457"),
        (-0.005, "-0.005"),
        (1.2e-9, "1.2e-9"),
        (3.21e22, "3.21e22"),
        (math.nan, "NaN"),
        (math.inf, "infinite"),
        (-math.inf, "-infinite"),
        (None, "–"),
        ("24 of 24", "24 of 24"),
    ],
)
def test_number(value: float | str | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "interval", "text"),
    [
        (0.78123456, (0.7741, 0.7882), "0.7812 [0.7741, 0.7882]"),
        (0.5, (0.4, 0.6), "0.50 [0.40, 0.60]"),
        (1234.56, (1000.0, 1500.0), "1,235 [1,000, 1,500]"),
        (0.5, (0.5, 0.5), "0.5 [0.5, 0.5]"),
        (0.5, (math.nan, 1.0), "0.5 [NaN, 1]"),
        (0.5, None, "0.5"),
        (-0.00001, (-0.01, 0.01), "0.000 [-0.010, 0.010]"),
    ],
)
def test_interval(value: float, interval: tuple[float, float] | None, text: str) -> None:
    assert with_interval(value, interval) == text


@given(st.floats(), st.one_of(st.none(), st.tuples(st.floats(), st.floats())))
def test_any_number_is_written_and_short(value: float, interval: tuple[float, float] | None) -> None:
    text = number(value, interval)
    assert text
    assert len(text) <= 32
    if interval is not None:
        assert bounds(interval).startswith("[")


@given(st.floats(min_value=1e-6, max_value=1e14))
def test_a_number_reads_back_within_its_digits(value: float) -> None:
    assert math.isclose(float(number(value).replace(",", "")), value, rel_tol=6e-3)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (6.42, "6.4 s"),
        (42.4, "42 s"),
        (59.7, "1 min"),
        (94, "1 min 34 s"),
        (3599.9, "1 h 0 min"),
        (7500, "2 h 5 min"),
        (-1, "–"),
        (math.nan, "–"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
