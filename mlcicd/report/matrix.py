"""Confusion matrices: one or two models' counts by true and answered class, as SVG and as a table of Markdown.

A figure of this kind stands among the others in ``Verdict.details["figures"]``::

    {"kind": "matrix", "title": str, "x_label": str, "y_label": str,
     "classes": [str, ...],
     "matrices": [{"name": str, "counts": [[number, ...], ...]}, ...]}

`counts` are by true class, then by answered class. Colour says the share of the row, so that a rare class is as
visible as a frequent one; the numbers are the counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from mlcicd.report.figures import MalformedFigure
from mlcicd.report.markup import clean, prose
from mlcicd.report.quantities import number

KIND = "matrix"
_MOST = 16
_SIDE_BY_SIDE = 5  # classes; more are drawn below each other
_TABLE = 6  # classes; a wider table is not small
_WIDTH = 460.0
_CHARACTER = 6.3
_DIGIT = 7.0
_GAP = 24.0
_HEAD = 40.0


@dataclass(frozen=True)
class Matrix:
    """One or two square tables over the same classes, of finite counts."""

    title: str
    x_label: str
    y_label: str
    classes: tuple[str, ...]
    tables: tuple[tuple[str, tuple[tuple[float, ...], ...]], ...]


def parse_matrix(data: Any) -> Matrix:
    """Reads one figure.

    Raises:
        MalformedFigure: it is no square of counts.
    """
    if not isinstance(data, dict) or data.get("kind") != KIND:
        raise MalformedFigure("it is no matrix")
    named, raw = data.get("classes"), data.get("matrices")
    if not isinstance(named, list) or not 2 <= len(named) <= _MOST:
        raise MalformedFigure(f"it needs from 2 to {_MOST} classes")
    if not isinstance(raw, list) or not 1 <= len(raw) <= 2 or not all(isinstance(one, dict) for one in raw):
        raise MalformedFigure("it needs one matrix or two")
    tables = tuple((clean(one.get("name") or "", limit=40), _counts(one.get("counts"), len(named))) for one in raw)
    return Matrix(
        clean(data.get("title") or "", limit=160),
        clean(data.get("x_label") or "", limit=80),
        clean(data.get("y_label") or "", limit=80),
        tuple(clean(name, limit=60) for name in named),
        tables,
    )


def _counts(raw: Any, k: int) -> tuple[tuple[float, ...], ...]:
    if not isinstance(raw, list) or len(raw) != k or not all(isinstance(row, list) and len(row) == k for row in raw):
        raise MalformedFigure(f"its counts are no square of {k} classes")
    if not all(type(value) in (int, float) and 0 <= value < 1e15 for row in raw for value in row):
        raise MalformedFigure("a count is not a number from 0 on")
    return tuple(tuple(float(value) for value in row) for row in raw)


def draw_matrix(matrix: Matrix) -> str:
    """The matrices as one `<svg>` element: the first on the left or on top."""
    k, many = len(matrix.classes), len(matrix.tables)
    beside = many == 1 or k <= _SIDE_BY_SIDE
    wide = (_WIDTH - _GAP * (many - 1)) / many if beside else _WIDTH
    rows, columns = _labels(matrix.classes)
    names = min(0.36 * wide, 14 + _CHARACTER * max(len(name) for name in rows))
    cell = min((wide - names) / k, 52.0)
    high = _HEAD + cell * k + 10
    body: list[str] = []
    for side, (name, counts) in enumerate(matrix.tables):
        left = side * (wide + _GAP) if beside else 0.0
        top = 0.0 if beside else side * high
        head = f"{name}: {matrix.x_label}" if name else matrix.x_label
        body.append(_text("fig-label", left + names, top + _HEAD - 26, head, "start"))
        for i in range(k):
            middle = cell * (i + 0.5)
            fits = int((names - 10) / _CHARACTER)
            across = _short(columns[i], max(1, int((cell - 3) / _CHARACTER)))
            down = _short(rows[i], max(2, fits))
            body.append(
                _text("fig-tick", left + names + middle, top + _HEAD - 7, across, "middle", hint=matrix.classes[i])
            )
            place = (left + names - 8, top + _HEAD + middle + 4)
            body.append(_text("fig-tick fig-name", *place, down, "end", hint=matrix.classes[i]))
        body.extend(_cells(matrix, counts, (left + names, top + _HEAD, cell)))
    height = high if beside else high * many
    label = escape(matrix.title or "Confusion matrix")
    return (
        f'<svg class="figure" viewBox="0 0 {_WIDTH:.0f} {height:.0f}" role="img" aria-label="{label}">'
        f"<title>{label}</title>{''.join(body)}</svg>"
    )


def _labels(classes: Sequence[str]) -> tuple[list[str], list[str]]:
    """What stands at the rows and above the columns: many columns are too narrow for anything but a number."""
    if len(classes) <= _SIDE_BY_SIDE:
        return list(classes), list(classes)
    return [f"{name} · {i}" for i, name in enumerate(classes, 1)], [str(i + 1) for i in range(len(classes))]


def _cells(matrix: Matrix, counts: Sequence[Sequence[float]], place: tuple[float, float, float]) -> Iterator[str]:
    left, top, cell = place
    room = max(1, int((cell - 2) / _DIGIT))
    for true, row in enumerate(counts):
        whole = math.fsum(row)
        for said, count in enumerate(row):
            share = count / whole if whole else 0.0
            x, y = left + cell * said, top + cell * true
            kind = "fig-hit" if true == said else "fig-miss"
            hint = f"{matrix.y_label} {matrix.classes[true]}, {matrix.x_label} {matrix.classes[said]}: "
            hint += f"{number(count)} ({share:.1%} of the row)"
            yield (
                f'<rect class="{kind}" x="{x + 1:.1f}" y="{y + 1:.1f}" width="{cell - 2:.1f}" height="{cell - 2:.1f}" '
                f'rx="2" fill-opacity="{0.05 + 0.5 * share:.3f}"><title>{escape(hint)}</title></rect>'
            )
            told = _compact(count, room)
            yield _text("fig-count", x + cell / 2, y + cell / 2 + 4, told, "middle")


def _short(text: str, room: int) -> str:
    """The text in so many characters; of a numbered one, the number stays."""
    name, dot, place = text.rpartition(" · ")
    if dot and len(text) > room:
        return f"{name[: max(1, room - len(place) - 4)]}… · {place}"
    return text if len(text) <= room else f"{text[: max(1, room - 1)]}…"


def _compact(count: float, room: int) -> str:
    """A count in so many characters: 1234567 as 1.2M; nothing where even that does not fit."""
    forms = [number(round(count))]
    for size, letter in ((1e3, "k"), (1e6, "M"), (1e9, "G")):
        if count >= size:
            forms += [f"{count / size:.1f}{letter}", f"{count / size:.0f}{letter}"]
    return next((form for form in forms if len(form) <= room), "")


def _text(classes: str, x: float, y: float, text: str, anchor: str, *, hint: str = "") -> str:
    title = f"<title>{escape(hint)}</title>" if hint and hint != text else ""
    return f'<text class="{classes}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}{title}</text>'


def matrix_markdown(matrix: Matrix) -> Iterator[str]:
    """A small table, the candidate's count and the champion's in one cell; nothing where there are many classes."""
    if len(matrix.classes) > _TABLE:
        return
    names = [prose(name, limit=40) for name in matrix.classes]
    who = " / ".join(prose(name, limit=40) for name, _ in matrix.tables)
    yield f"| {prose(matrix.y_label)} \\ {prose(matrix.x_label)} ({who}) | {' | '.join(names)} |"
    yield f"|---|{'---:|' * len(names)}"
    for true, name in enumerate(names):
        cells = [
            " / ".join(number(round(counts[true][said])) for _, counts in matrix.tables) for said in range(len(names))
        ]
        yield f"| **{name}** | {' | '.join(cells)} |"
    yield ""
