"""Figures as SVG: no plotting library, no script, no colour but through classes of the page's style."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import pairwise
from typing import Any

from mlcicd.report import axes
from mlcicd.report.axes import Axis
from mlcicd.report.figures import Figure, MalformedFigure, Point, Series, parse_figure
from mlcicd.report.quantities import number

_WIDTH = 460.0
_HEIGHT = 264.0
_ROW = 24.0
_TWO_LINES = 32.0  # height of a row whose name takes two lines
_CHARACTER = 6.3  # average width of a character at the labels' size, in pixels


def figure_svg(data: Any) -> str:
    """The figure as an `<svg>` element.

    Raises:
        MalformedFigure: the data do not make a figure (:mod:`mlcicd.report.figures` has the contract).
    """
    return draw(parse_figure(data))


def draw(figure: Figure) -> str:
    """A figure that was read, as an `<svg>` element.

    Raises:
        MalformedFigure: floating-point numbers do not reach as far as its values do.
    """
    try:
        if figure.categories and figure.kind in ("bars", "intervals"):
            return _rows(figure)
        return _plane(figure)
    except (OverflowError, ZeroDivisionError, ValueError) as error:
        raise MalformedFigure("its numbers lie too far apart, or too close together") from error


def legend(figure: Figure) -> list[tuple[int, str]]:
    """Index and name of each series, when there is more than one to tell apart."""
    return [(i, s.name) for i, s in enumerate(figure.series)] if len(figure.series) > 1 else []


def _plane(figure: Figure) -> str:
    """Lines, steps, vertical bars and vertical intervals over a numeric (or a categorical) x."""
    values = list(_values(figure))
    vertical = _y_axis(figure, values, _HEIGHT - 46, 30 if figure.y_label else 12)
    left = 18 + _CHARACTER * max((len(label) for _, label in vertical.ticks), default=1)
    horizontal = _x_axis(figure, left, _WIDTH - 14)
    body = [*_horizontal_grid(vertical, left, _WIDTH - 14), *_x_ticks(horizontal, _HEIGHT - 46)]
    drawn = figure.kind if figure.kind in ("bars", "intervals") else "lines"
    for index, series in enumerate(figure.series):
        if drawn == "bars":
            body.extend(_columns(series, index, len(figure.series), horizontal, vertical))
        elif drawn == "intervals":
            body.extend(_uprights(series, index, len(figure.series), horizontal, vertical))
        else:
            body.extend(_line(series, index, horizontal, vertical, stepped=figure.kind == "steps"))
    if figure.reference is not None:
        y = vertical.at(figure.reference)
        body.append(_segment("fig-ref", left, y, _WIDTH - 14, y))
        above = y - 6 if y > 30 else y + 14
        body.append(_text("fig-ref-label", _WIDTH - 16, above, figure.reference_label, anchor="end"))
    body.append(_text("fig-label", (left + _WIDTH - 14) / 2, _HEIGHT - 6, figure.x_label, anchor="middle"))
    body.append(_text("fig-label", 0, 11, figure.y_label, anchor="start"))
    return _svg(figure, _HEIGHT, body)


def _rows(figure: Figure) -> str:
    """One row a category, values along the horizontal: names stay legible however long they are."""
    longest = max(len(c) for c in figure.categories)
    left = min(_WIDTH * 0.4, 18 + _CHARACTER * longest)
    fits = max(4, int((left - 8) / _CHARACTER))
    row = max(_ROW, 12.0 * len(figure.series) + 10, _TWO_LINES if longest > fits else 0.0)
    top = 22.0 if figure.reference is not None else 8.0
    bottom = top + row * len(figure.categories)
    values = list(_values(figure))
    axis = (
        axes.logarithmic(values, left + 8, _WIDTH - 22)
        if figure.log_y
        else axes.linear(values, left + 8, _WIDTH - 22, zero=figure.kind == "bars")
    )
    body = []
    for value, label in axis.ticks:
        x = axis.at(value)
        body.append(_segment("fig-grid", x, top, x, bottom))
        body.append(_text("fig-tick", x, bottom + 17, label, anchor="middle"))
    for i, name in enumerate(figure.categories):
        lines = _two_lines(name, fits)
        for line, shown in enumerate(lines):
            y = top + row * (i + 0.5) + 4 + (line - (len(lines) - 1) / 2) * 12
            body.append(_text("fig-tick fig-name", left, y, shown, anchor="end"))
    if figure.reference is not None:
        x = axis.at(figure.reference)
        body.append(_segment("fig-ref", x, top - 4, x, bottom))
        anchor = "end" if x > _WIDTH * 0.75 else "start" if x < left + 60 else "middle"
        body.append(_text("fig-ref-label", x, top - 9, figure.reference_label, anchor=anchor))
    for index, series in enumerate(figure.series):
        for point in series.points:
            middle = top + row * (point.x + 0.5) + _shift(index, len(figure.series), 11)
            body.extend(_row_mark(figure, index, point, middle, axis))
    body.append(_text("fig-label", (left + _WIDTH) / 2, bottom + 38, figure.y_label, anchor="middle"))
    return _svg(figure, bottom + 46, body)


def _two_lines(name: str, fits: int) -> list[str]:
    """A name on one line, or on two where it is longer than fits; what is too long for these loses its middle: names
    of slices begin alike, and end differently."""
    if len(name) <= fits:
        return [name]
    if len(name) > 2 * fits - 1:
        name = f"{name[: fits - 1]}…{name[-(fits - 1) :]}"
    gap = name.rfind(" ", max(0, len(name) - fits - 1), fits + 1)
    return [name[:gap], name[gap + 1 :]] if gap > 0 else [name[:fits], name[fits:]]


def _row_mark(figure: Figure, index: int, point: Point, y: float, axis: Axis) -> Iterator[str]:
    x = axis.at(point.y)
    hint = _hint(figure, figure.series[index].name, figure.categories[int(point.x)], point)
    if figure.kind == "bars":
        base = axis.at(axis.low if figure.log_y else 0.0)
        thick = 11 if len(figure.series) == 1 else 9
        low, wide = min(base, x), max(abs(x - base), 0.8)
        yield (
            f'<rect class="fig-bar fig-s{index}" x="{low:.1f}" y="{y - thick / 2:.1f}" width="{wide:.1f}" '
            f'height="{thick}" rx="1.5"><title>{hint}</title></rect>'
        )
    if point.lo is not None and point.hi is not None:
        whisker = "fig-whisker" if figure.kind == "bars" else f"fig-interval fig-s{index}"
        yield _segment(whisker, axis.at(point.lo), y, axis.at(point.hi), y)
    if figure.kind == "intervals":
        place = f'cx="{x:.1f}" cy="{y:.1f}" r="4"'
        yield f'<circle class="fig-dot fig-s{index}" {place}><title>{hint}</title></circle>'


def _line(series: Series, index: int, horizontal: Axis, vertical: Axis, *, stepped: bool) -> Iterator[str]:
    points = sorted(series.points, key=lambda p: p.x)
    places = [(horizontal.at(p.x), vertical.at(p.y)) for p in points]
    banded = [p for p in points if p.lo is not None and p.hi is not None]
    if len(banded) > 1:
        upper = [(horizontal.at(p.x), vertical.at(p.hi or 0.0)) for p in banded]
        lower = [(horizontal.at(p.x), vertical.at(p.lo or 0.0)) for p in banded]
        if stepped:
            upper, lower = _staircase(upper), _staircase(lower)
        yield f'<path class="fig-band fig-s{index}" d="{_path([*upper, *reversed(lower)])}Z"/>'
    drawn = _staircase(places) if stepped else places
    if len(drawn) > 1:
        yield f'<path class="fig-line fig-s{index}" d="{_path(drawn)}"/>'
    if len(points) <= 24 and not stepped:
        for x, y in places:
            yield f'<circle class="fig-dot fig-s{index}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>'


def _columns(series: Series, index: int, of: int, horizontal: Axis, vertical: Axis) -> Iterator[str]:
    xs = sorted({horizontal.at(p.x) for p in series.points})
    gap = min((b - a for a, b in pairwise(xs)), default=60.0)
    wide = max(1.0, min(28.0, gap * 0.7 / of))
    base = vertical.at(vertical.low if vertical.log else 0.0)
    for p in series.points:
        x, y = horizontal.at(p.x) + _shift(index, of, wide), vertical.at(p.y)
        yield (
            f'<rect class="fig-bar fig-s{index}" x="{x - wide / 2:.1f}" y="{min(base, y):.1f}" '
            f'width="{wide:.1f}" height="{max(abs(base - y), 0.8):.1f}" rx="1.5"/>'
        )
        if p.lo is not None and p.hi is not None:
            yield _segment("fig-whisker", x, vertical.at(p.lo), x, vertical.at(p.hi))


def _uprights(series: Series, index: int, of: int, horizontal: Axis, vertical: Axis) -> Iterator[str]:
    for p in series.points:
        x = horizontal.at(p.x) + _shift(index, of, 9)
        if p.lo is not None and p.hi is not None:
            yield _segment(f"fig-interval fig-s{index}", x, vertical.at(p.lo), x, vertical.at(p.hi))
        yield f'<circle class="fig-dot fig-s{index}" cx="{x:.1f}" cy="{vertical.at(p.y):.1f}" r="3.6"/>'


def _y_axis(figure: Figure, values: Sequence[float], start: float, end: float) -> Axis:
    if figure.log_y:
        return axes.logarithmic(values, start, end)
    return axes.linear(values, start, end, zero=figure.kind == "bars")


def _x_axis(figure: Figure, start: float, end: float) -> Axis:
    inset = 14.0 if figure.kind in ("bars", "intervals") else 4.0
    if figure.categories:
        last = len(figure.categories) - 1
        room = int((end - start) / (_CHARACTER * (2 + max(len(c) for c in figure.categories))))
        every = max(1, -(-len(figure.categories) // max(1, room)))
        ticks = tuple((float(i), c) for i, c in enumerate(figure.categories) if i % every == 0)
        return Axis(0.0, float(last) or 1.0, start + inset + 10, end - inset - 10, ticks)
    xs = [p.x for s in figure.series for p in s.points]
    return axes.linear(xs, start + inset, end - inset, count=7, tight=True)


def _values(figure: Figure) -> Iterator[float]:
    for series in figure.series:
        for point in series.points:
            yield from (v for v in (point.y, point.lo, point.hi) if v is not None)
    if figure.reference is not None:
        yield figure.reference


def _horizontal_grid(axis: Axis, left: float, right: float) -> Iterator[str]:
    for value, label in axis.ticks:
        y = axis.at(value)
        yield _segment("fig-grid", left, y, right, y)
        yield _text("fig-tick", left - 8, y + 4, label, anchor="end")


def _x_ticks(axis: Axis, base: float) -> Iterator[str]:
    for value, label in axis.ticks:
        yield _segment("fig-axis", axis.at(value), base, axis.at(value), base + 4)
        yield _text("fig-tick", axis.at(value), base + 18, label, anchor="middle")


def _staircase(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    stairs = list(places[:1])
    for (_, before), (x, y) in pairwise(places):
        stairs += [(x, before), (x, y)]
    return stairs


def _shift(index: int, of: int, by: float) -> float:
    return (index - (of - 1) / 2) * by


def _hint(figure: Figure, name: str, category: str, point: Point) -> str:
    interval = "" if point.lo is None or point.hi is None else f" [{number(point.lo)}, {number(point.hi)}]"
    who = f"{name}, " if len(figure.series) > 1 else ""
    return escape(f"{who}{category}: {number(point.y)}{interval}")


def _path(places: Iterable[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _segment(classes: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{classes}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(classes: str, x: float, y: float, text: str, *, anchor: str) -> str:
    if not text:
        return ""
    return f'<text class="{classes}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(figure: Figure, height: float, body: Iterable[str]) -> str:
    label = escape(figure.title or "Figure")
    return (
        f'<svg class="figure" viewBox="0 0 {_WIDTH:.0f} {height:.0f}" role="img" aria-label="{label}">'
        f"<title>{label}</title>{''.join(body)}</svg>"
    )
