"""Figures from data: axes that fit, marks where they belong, and no data that breaks the drawing."""

from __future__ import annotations

import math
import re
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_verdicts import verdicts

from mlcicd.core.verdict import Check, CheckStatus
from mlcicd.report import axes
from mlcicd.report.figures import MalformedFigure, parse_figure
from mlcicd.report.intervals import interval_svg, requirement
from mlcicd.report.svg import figure_svg, legend


def figure(kind: str = "lines", **fields: Any) -> dict[str, Any]:
    series = [{"name": "a", "x": [1, 2, 3], "y": [0.1, 0.3, 0.2]}]
    return {"kind": kind, "title": "T", "x_label": "X", "y_label": "Y", "series": series} | fields


def parsed(data: Any) -> ET.Element:
    return ET.fromstring(figure_svg(data))


def classed(root: ET.Element, name: str) -> list[ET.Element]:
    return [e for e in root.iter() if name in (e.get("class") or "").split()]


SAMPLES = [f for v in verdicts() for f in v.details.get("figures", [])]


@pytest.mark.parametrize("data", SAMPLES, ids=[f["title"] for f in SAMPLES])
def test_each_sample_is_drawn_inside_its_box(data: dict[str, Any]) -> None:
    root = parsed(data)
    assert root[0].tag == "title"
    assert root[0].text == data["title"]
    _, _, width, height = map(float, root.get("viewBox", "").split())
    for mark in (e for e in root.iter() if e.tag in ("line", "circle", "rect")):
        for name in ("x1", "x2", "cx", "x"):
            assert 0 <= float(mark.get(name, 0)) <= width
        for name in ("y1", "y2", "cy", "y"):
            assert 0 <= float(mark.get(name, 0)) <= height


def test_points_stand_where_their_values_are() -> None:
    dots = classed(parsed(figure(series=[{"name": "a", "x": [0, 1, 2], "y": [0, 5, 10]}])), "fig-dot")
    xs, ys = [float(d.get("cx", 0)) for d in dots], [float(d.get("cy", 0)) for d in dots]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)
    assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.2)
    assert ys[0] > ys[2]


def test_a_log_axis_gives_equal_room_to_equal_ratios() -> None:
    dots = classed(parsed(figure(log_y=True, series=[{"name": "a", "x": [0, 1, 2], "y": [1, 10, 100]}])), "fig-dot")
    ys = [float(d.get("cy", 0)) for d in dots]
    assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.2)


def test_bars_begin_at_zero() -> None:
    root = parsed(figure("bars", series=[{"name": "a", "x": ["p", "q"], "y": [10, 20]}]))
    short, long = (float(r.get("width", 0)) for r in classed(root, "fig-bar"))
    assert long == pytest.approx(2 * short, rel=0.01)


def test_nan_leaves_a_point_out_and_the_string_of_json_too() -> None:
    series = [{"name": "a", "x": [1, 2, 3, 4], "y": [1.0, math.nan, "NaN", 2.0]}]
    assert len(parse_figure(figure(series=series)).series[0].points) == 2


def test_steps_are_drawn_as_stairs() -> None:
    path = classed(parsed(figure("steps", series=[{"name": "a", "x": [0, 1], "y": [1, 5]}])), "fig-line")[0]
    places = [tuple(map(float, p.split(","))) for p in re.findall(r"[\d.]+,[\d.]+", path.get("d", ""))]
    assert len(places) == 3
    assert places[0][1] == places[1][1]
    assert places[1][0] == places[2][0]


def test_an_interval_is_drawn_as_long_as_it_is() -> None:
    series = [{"name": "a", "x": ["p", "q"], "y": [2, 3], "lo": [1, 2.5], "hi": [3, 3.5]}]
    wide, narrow = (
        float(e.get("x2", 0)) - float(e.get("x1", 0))
        for e in classed(parsed(figure("intervals", series=series)), "fig-interval")
    )
    assert wide == pytest.approx(2 * narrow, rel=0.02)


def test_long_series_keep_their_extremes() -> None:
    y = [0.0] * 100_000
    y[54_321] = 9.0
    points = parse_figure(figure(series=[{"name": "a", "x": list(range(100_000)), "y": y}])).series[0].points
    assert len(points) <= 401
    assert max(p.y for p in points) == 9.0


def test_what_is_left_out_is_counted() -> None:
    many = figure("bars", series=[{"name": "a", "x": [f"c{i}" for i in range(100)], "y": [1] * 100}])
    assert "60 more of 100 are not shown" in parse_figure(many).note
    assert figure_svg(many).count("fig-bar") == 40


def test_a_legend_only_where_there_is_something_to_tell_apart() -> None:
    assert legend(parse_figure(figure())) == []
    two = [{"name": n, "x": [1], "y": [1]} for n in ("a", "b")]
    assert legend(parse_figure(figure(series=two))) == [(0, "a"), (1, "b")]


numbers = st.one_of(st.floats(), st.integers(), st.sampled_from(["NaN", "Infinity", "x", None, True]))
lists = st.one_of(st.lists(numbers, max_size=6), st.lists(st.text(max_size=5), max_size=6), st.none())
any_series = st.fixed_dictionaries({"name": st.text(max_size=4), "x": lists, "y": lists, "lo": lists, "hi": lists})
any_figure = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["lines", "bars", "intervals", "steps"]),
        "title": st.one_of(st.text(max_size=8), numbers),
        "y_label": st.text(max_size=8),
        "series": st.lists(any_series, max_size=3),
        "reference": st.one_of(st.none(), st.fixed_dictionaries({"y": numbers, "label": st.text()})),
        "log_y": st.booleans(),
    }
)
same_length = st.integers(1, 5).flatmap(
    lambda n: st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["lines", "bars", "intervals", "steps"]),
            "series": st.lists(
                st.fixed_dictionaries(
                    {k: st.lists(st.floats(), min_size=n, max_size=n) for k in ("x", "y", "lo", "hi")}
                ),
                min_size=1,
                max_size=2,
            ),
            "log_y": st.booleans(),
        }
    )
)


@settings(max_examples=400, deadline=None)
@given(st.one_of(any_figure, same_length))
def test_any_data_is_drawn_or_refused_with_a_reason(data: Any) -> None:
    try:
        text = figure_svg(data)
    except MalformedFigure as error:
        assert str(error)
        return
    drawn = [(name, value) for part in ET.fromstring(text).iter() for name, value in part.items()]
    # Titles are text, and may say what they like.
    assert not [one for one in drawn if one[0] != "aria-label" and "nan" in one[1].lower()]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=5))
def test_a_linear_axis_holds_all_values_between_round_ticks(values: list[float]) -> None:
    axis = axes.linear(values, 100, 0)
    assert 2 <= len(axis.ticks) <= 9
    slack = (axis.high - axis.low) * 1e-6
    assert all(axis.low - slack <= v <= axis.high + slack for v in values)
    labels = [label for _, label in axis.ticks]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ((0, 200), ["0", "50", "100", "150", "200"]),
        ((0.55, 0.78), ["0.55", "0.60", "0.65", "0.70", "0.75", "0.80"]),
        ((0, 1), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ((-1.1, 1.1), ["−1.5", "−1.0", "−0.5", "0", "0.5", "1.0", "1.5"]),
        ((0, 12.4), ["0.0", "2.5", "5.0", "7.5", "10.0", "12.5"]),
        ((0, 4e7), ["0", "1e7", "2e7", "3e7", "4e7"]),
        ((1.2e-5, 1.22e-5), ["1.200e−5", "1.205e−5", "1.210e−5", "1.215e−5", "1.220e−5"]),
        ((8.188e11, 8.2e11), ["8.1875e11", "8.1900e11", "8.1925e11", "8.1950e11", "8.1975e11", "8.2000e11"]),
    ],
)
def test_ticks_are_round(values: tuple[float, float], labels: list[str]) -> None:
    written = [label for _, label in axes.linear(values, 0, 100).ticks]
    assert [w.replace("0.0", "0") if w == "0.0" else w for w in written] == [
        label.replace("0.0", "0") if label == "0.0" else label for label in labels
    ]


@pytest.mark.parametrize(
    ("required", "details", "expected"),
    [
        (">= 0.70", {}, (0.70, None)),
        ("<= 20", {}, (None, 20.0)),
        ("≥ -1e-3", {}, (-1e-3, None)),
        ("at most 5 %", {}, (None, 5.0)),
        ("within 0.005 of the champion", {}, (None, None)),
        ("", {"required_min": 0.2, "required_max": 0.8}, (0.2, 0.8)),
        (">= 0.7", {"required_min": math.nan}, (0.7, None)),
        ("", {}, (None, None)),
        ("at most 2.5% of the labels are improbable", {}, (None, 0.025)),
        (">= 70%", {}, (0.7, None)),
        ("js/1 <= 0.1", {}, (None, 0.1)),
        ("ks/1 of a >= 3 between the tables <= 0.2", {}, (None, 0.2)),
        ("spearman/1 changes by at most 0.3", {}, (None, 0.3)),
        ("js/1 of all", {}, (None, None)),
    ],
)
def test_requirement(required: str, details: dict[str, Any], expected: tuple[float | None, float | None]) -> None:
    assert requirement(Check(name="a", status=CheckStatus.PASSED, required=required, details=details)) == expected


def test_the_small_picture_puts_the_point_on_its_side_of_the_line() -> None:
    check = Check(name="a", status=CheckStatus.FAILED, observed=0.6, interval=(0.58, 0.62), required=">= 0.7")
    root = ET.fromstring(interval_svg(check))
    line = float(classed(root, "iv-required")[0].get("x1", 0))
    assert float(classed(root, "iv-point")[0].get("cx", 0)) < line
    assert float(classed(root, "iv-bar")[0].get("x2", 0)) < line
    assert root[0].text == "observed 0.600, interval [0.580, 0.620], at least 0.7 required"


@pytest.mark.parametrize("observed", [math.nan, math.inf, "NaN", "text", None])
def test_no_small_picture_without_a_finite_value(observed: float | str | None) -> None:
    assert interval_svg(Check(name="a", status=CheckStatus.FAILED, observed=observed, required=">= 0.7")) == ""


@settings(max_examples=200, deadline=None)
@given(st.floats(), st.tuples(st.floats(), st.floats()), st.floats())
def test_any_interval_is_drawn_or_left_out(observed: float, interval: tuple[float, float], required: float) -> None:
    check = Check(
        name="a",
        status=CheckStatus.PASSED,
        observed=observed,
        interval=interval,
        details={"required_min": required},
    )
    text = interval_svg(check)
    if text:
        ET.fromstring(text)
