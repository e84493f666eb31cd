"""The plain host, and text that has to fit."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlcicd.ci import Annotation
from mlcicd.ci.limits import cut_markdown, one_line
from mlcicd.ci.plain import PlainHost


def test_annotations_are_lines_with_their_place_worst_first() -> None:
    stream = io.StringIO()
    PlainHost(stream).annotate_all(
        [
            Annotation("notice", "", "hello"),
            Annotation("error", "Unknown key", "did you mean\ntrain?", "mlcicd.yaml", 12),
        ]
    )
    assert stream.getvalue().splitlines() == [
        "error: mlcicd.yaml:12: Unknown key: did you mean train?",
        "notice: hello",
    ]


def test_a_laptop_has_no_pull_request() -> None:
    host = PlainHost(io.StringIO())
    assert not host.is_pull_request()
    assert not host.comment("x").posted
    assert host.summary_room() is None


@given(st.text(), st.integers(0, 400))
def test_a_cut_text_fits_and_begins_as_it_did(text: str, limit: int) -> None:
    cut = cut_markdown(text, limit)
    assert len(cut.encode()) <= limit
    if len(text.encode()) <= limit:
        assert cut == text
    elif cut:
        assert text.startswith(cut[: cut.index("\n\n… cut here")].removesuffix("\n"))


@pytest.mark.parametrize("limit", range(100, 900, 37))
def test_a_cut_leaves_no_details_open(limit: int) -> None:
    cut = cut_markdown("<details><summary>s</summary>\n\ntext\n\n" * 40, limit)
    assert cut.count("<details>") == cut.count("</details>")
    assert len(cut.encode()) <= limit


@given(st.text())
def test_one_line_is_one_line(text: str) -> None:
    assert len(one_line(text).splitlines()) <= 1
