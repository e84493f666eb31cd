"""Confusion matrices: drawn inside their box, shaded by row, small in Markdown, and never taken on trust."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hostile_text import PIECES
from sample_verdicts import verdicts

from mlcicd.core.verdict import Verdict
from mlcicd.report import report_html
from mlcicd.report.figures import MalformedFigure
from mlcicd.report.markdown import comment_markdown, summary_markdown
from mlcicd.report.matrix import draw_matrix, matrix_markdown, parse_matrix


def matrix(k: int = 2, models: int = 2, **fields: Any) -> dict[str, Any]:
    counts = [[900 if true == said else 10 * (true + 1) for said in range(k)] for true in range(k)]
    tables = [{"name": name, "counts": counts} for name in ("candidate", "champion")[:models]]
    said = {"kind": "matrix", "title": "Confusion matrix", "x_label": "answered", "y_label": "true"}
    return {**said, "classes": [f"class {i}" for i in range(k)], "matrices": tables, **fields}


def drawn(data: dict[str, Any]) -> ET.Element:
    return ET.fromstring(draw_matrix(parse_matrix(data)))


@pytest.mark.parametrize("models", [1, 2])
@pytest.mark.parametrize("k", [2, 4, 5, 6, 13, 16])
def test_every_cell_is_in_its_box_and_none_on_another(k: int, models: int) -> None:
    root = drawn(matrix(k, models))
    _, _, width, height = map(float, root.get("viewBox", "").split())
    cells = [tuple(float(r.get(n, 0)) for n in ("x", "y", "width", "height")) for r in root.iter("rect")]
    assert len(cells) == models * k * k
    assert len({cell[:2] for cell in cells}) == len(cells)
    for x, y, wide, high in cells:
        assert x >= 0 and x + wide <= width + 0.1
        assert y >= 0 and y + high <= height
        assert wide == high > 10


def test_shade_is_the_share_of_the_row_and_the_diagonal_has_its_own_colour() -> None:
    counts = [[75, 25], [1, 3]]
    root = drawn(matrix(matrices=[{"name": "candidate", "counts": counts}]))
    found = [(r.get("class"), float(r.get("fill-opacity", 0))) for r in root.iter("rect")]
    assert [kind for kind, _ in found] == ["fig-hit", "fig-miss", "fig-miss", "fig-hit"]
    assert found[0][1] == found[3][1] > found[1][1] == found[2][1]
    told = [t.text for t in root.iter("text") if t.get("class") == "fig-count"]
    assert told == ["75", "25", "1", "3"]
    assert "true class 1, answered class 0: 1 (25.0% of the row)" in [t.text for t in root.iter("title")]


def test_large_counts_are_shortened_and_an_empty_row_is_no_error() -> None:
    root = drawn(matrix(13, 1, matrices=[{"name": "c", "counts": [[1_234_567.0] * 13] * 12 + [[0.0] * 13]}]))
    told = {t.text for t in root.iter("text") if t.get("class") == "fig-count"}
    assert told == {"1M", "0"}


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ["one"]},
        {"classes": [str(i) for i in range(17)]},
        {"matrices": []},
        {"matrices": [{"name": "a", "counts": [[1, 2]]}]},
        {"matrices": [{"name": "a", "counts": [[1, 2], [3, float("nan")]]}]},
        {"matrices": [{"name": "a", "counts": [[1, 2], [3, -1]]}]},
        {"matrices": [{"name": "a", "counts": [[1, 2], [3, "4"]]}]},
        {"matrices": [{"name": "a", "counts": [[1, 2], [3, True]]}]},
        {"matrices": "all"},
        {"kind": "lines"},
    ],
)
def test_what_is_no_matrix_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedFigure):
        parse_matrix(matrix(**change))


def test_markdown_has_both_models_in_a_cell_and_no_large_table() -> None:
    lines = list(matrix_markdown(parse_matrix(matrix())))
    assert lines[0].endswith("(candidate / champion) | class 0 | class 1 |")
    assert lines[2] == "| **class 0** | 900 / 900 | 10 / 10 |"
    assert list(matrix_markdown(parse_matrix(matrix(7)))) == []


def with_matrix(**fields: Any) -> list[Verdict]:
    found = copy.deepcopy(list(verdicts()))
    evaluation = next(v for v in found if v.stage == "evaluate")
    evaluation.details.setdefault("figures", []).insert(0, matrix(**fields))
    return found


def page(found: list[Verdict]) -> str:
    return report_html(found, title="t", generated=datetime(2026, 1, 1, tzinfo=UTC))


def test_it_is_in_the_page_the_summary_and_the_comment() -> None:
    found = with_matrix()
    assert 'class="fig-hit"' in page(found)
    for text in (summary_markdown(found), comment_markdown(found)):
        assert "| **class 0** | 900 / 900 | 10 / 10 |" in text
    broken = with_matrix(matrices=[])
    assert "could not be drawn: it needs one matrix or two" in page(broken)
    assert "900" not in "".join(line for line in summary_markdown(broken).splitlines() if "class 0" in line)


@pytest.mark.parametrize("text", PIECES)
def test_hostile_class_names_stay_text(text: str) -> None:
    found = with_matrix(classes=[text, "b"])
    plain = page(with_matrix()).count("<script") + page(with_matrix()).count("<img")
    assert page(found).count("<script") + page(found).count("<img") == plain
    for line in summary_markdown(found).splitlines():
        if line.startswith("| **"):
            assert "<" not in line and "](" not in line
