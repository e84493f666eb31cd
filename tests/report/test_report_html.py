"""The page: self-contained, without script, and nothing in a verdict can add to it or break it."""

from __future__ import annotations

import base64
import hashlib
import math
import random
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest
from hostile_text import hostile
from sample_verdicts import verdicts

from mlcicd.core.verdict import Check, CheckStatus, Evidence, Status, Subject, Verdict
from mlcicd.report import report_html

START = datetime(2026, 3, 14, tzinfo=UTC)
VOID = {"meta", "br", "img", "input", "link", "hr", "wbr"}


class Page(HTMLParser):
    """Elements and attributes of a page; fails when elements are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    @property
    def tags(self) -> list[str]:
        return [tag for tag, _ in self.elements]

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text.append(data)


def page(items: list[Verdict], title: str = "flight-delays") -> str:
    return report_html(items, title=title, generated=START)


def verdict(**fields: object) -> Verdict:
    defaults = {
        "stage": "evaluate",
        "status": Status.PASSED,
        "started": START,
        "finished": START + timedelta(seconds=3),
    }
    return Verdict.model_validate(defaults | fields)


def test_the_page_needs_nothing_but_itself() -> None:
    html = page(verdicts())
    parsed = Page(html)
    assert not {"script", "img", "link", "iframe", "object", "embed", "base", "form"} & set(parsed.tags)
    for tag, attributes in parsed.elements:
        assert not {name for name in attributes if name.startswith("on") or name in ("style", "src", "srcset")}, tag
        assert (attributes.get("href") or "#").startswith("#")
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_the_policy_allows_this_style_and_nothing_else() -> None:
    html = page(verdicts())
    policy = next(m["content"] for m in Page(html).all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_the_headline_comes_first_and_each_stage_is_linked() -> None:
    parsed = Page(page(verdicts()))
    words = parsed.words()
    assert "deploy ended in an error; evaluate failed; 3 stages passed; register was skipped." in words
    anchors = {a.get("id") for a in parsed.all("section")}
    assert {a["href"] for a in parsed.all("a")} == {f"#{anchor}" for anchor in anchors}
    assert len(anchors) == len(verdicts())
    assert words.index("evaluate failed") < words.index("166,158")


def test_stages_of_the_same_name_have_their_own_anchors() -> None:
    ids = [s["id"] for s in Page(page([verdict(), verdict(), verdict()])).all("section")]
    assert len(set(ids)) == 3


def test_failed_checks_first_with_reason_and_remedy() -> None:
    checks = [
        Check(name="fine", status=CheckStatus.PASSED),
        Check(
            name="bad",
            status=CheckStatus.FAILED,
            required=">= -0.5",
            reason="Because.",
            remedy="do `this` now.",
        ),
    ]
    html = page([verdict(status=Status.FAILED, checks=checks)])
    words = Page(html).words()
    assert words.index("bad") < words.index("fine")
    assert "Because." in words
    assert "do <code>this</code> now." in html
    assert "≥ −0.5" in words


def test_a_dry_run_is_said_before_anything_else() -> None:
    words = Page(page([verdict(dry_run=True)])).words()
    assert words.index("Dry run: nothing here was enforced.") < words.index("flight-delays", words.index("Dry run"))
    assert "Dry run" not in page([verdict()])


def test_many_passed_checks_are_folded_and_failed_ones_never() -> None:
    checks = [Check(name=f"p{i}", status=CheckStatus.PASSED) for i in range(200)]
    checks += [Check(name=f"bad{i}", status=CheckStatus.FAILED) for i in range(30)]
    html = page([verdict(status=Status.FAILED, checks=checks)])
    unfolded = html[: html.index("<details")]
    assert all(f">bad{i}<" in unfolded for i in range(30))
    assert "200 more checks: 200 passed" in html


def test_an_error_shows_where_why_and_what_to_do() -> None:
    error = {"where": "mlcicd.yaml:12", "why": "It matters.", "remedy": "rename it."}
    words = Page(page([verdict(status=Status.ERROR, details={"error": error})])).words()
    for text in ("Where mlcicd.yaml:12", "Why It matters.", "What to do rename it."):
        assert text in words


def test_rows_are_shown_with_what_is_known_of_them() -> None:
    examples: list[object] = [
        {"row": 1234, "values": {"id": "7", "temp": None}},
        {"rows": 1, "values": {"id": "8"}},
        {"rows": 3, "values": {"id": "9"}},
        {"row": 5, "values": {"late": "1"}, "likely": "0", "probability": 0.0123},
        {"values": {f"c{i}": str(i) for i in range(12)}},
        {"values": {"sixth": "6"}},
    ]
    checks = [Check(name="train.temp.nulls", status=CheckStatus.FAILED, details={"examples": examples})]
    words = Page(page([verdict(checks=checks)])).words()
    assert "row 1,234 id 7 temp missing 1 row id 8 3 rows id 9 row 5 late 1 looks like 0;" in words
    assert "the probability of its own label is 0.0123" in words
    assert "c7 7" in words
    assert "c8" not in words
    assert "sixth" not in words


@pytest.mark.parametrize("examples", [7, "x", {}, [None, 3, "x", {}, {"values": 3}, {"values": ["a"]}, {"row": True}]])
def test_what_is_no_list_of_rows_shows_none(examples: object) -> None:
    check = Check(name="a", status=CheckStatus.FAILED, reason="why", details={"examples": examples})
    assert 'class="rows"' not in page([verdict(checks=[check])])


def test_a_long_name_goes_on_in_the_next_line_between_words_only() -> None:
    html = page([verdict(checks=[Check(name="leakage.row_overlap & <b>.c'.d", status=CheckStatus.FAILED)])])
    assert "leakage.<wbr>row_<wbr>overlap &amp; &lt;b&gt;.<wbr>c&#39;.<wbr>d" in html


def test_no_verdicts_make_a_page_that_does_not_say_passed() -> None:
    words = Page(page([])).words()
    assert "No stage has run yet." in words
    assert "passed" not in words


def _with_texts(text: object, status: Status) -> Verdict:
    return verdict(
        stage=text(),
        status=status,
        summary=text(),
        tool=text(),
        checks=[
            Check(
                name=text(), status=CheckStatus.FAILED, slice=text(), observed=text(), reference=text(),
                required=text(), reason=text(), remedy=text(),
                details={
                    "examples": [
                        {"row": 7, "values": {text(): text(), "a": None}, "likely": text(), "probability": 0.01},
                        {"rows": 2, "values": {text(): text()}},
                    ]
                },
            ),
            Check(name=text(), status=CheckStatus.PASSED, observed=0.5, interval=(0, 1), required=">= 0.3"),
        ],
        subjects=[Subject(kind=text(), name=text(), digest=text(), details={"k": text()})],
        evidence=[Evidence(path=text(), digest=text(), kind=text())],
        outputs={"name": text()},
        details={
            "error": {"where": text(), "why": text(), "remedy": text()},
            "figures": [
                {
                    "kind": kind,
                    "title": text(),
                    "x_label": text(),
                    "y_label": text(),
                    "series": [
                        {"name": text(), "x": ["a", text()], "y": [1, 2]},
                        {"name": text(), "x": ["a"], "y": [1]},
                    ],
                    "reference": {"y": 1, "label": text()},
                }
                for kind in ("lines", "bars", "intervals", "steps")
            ],
        },
    )  # fmt: skip


def test_hostile_text_adds_no_element_and_no_attribute() -> None:
    rng = random.Random(11)
    plain = Page(page([_with_texts(iter(map(str, range(1_000))).__next__, Status.FAILED)]))
    known = {(tag, name) for tag, attributes in plain.elements for name in attributes}
    for _ in range(150):
        # Backticks make code spans, which harmless text has none of.
        one = _with_texts(lambda: "x" + hostile(rng).replace("`", "'"), Status.FAILED)
        parsed = Page(page([one], title=hostile(rng)))
        assert {(tag, name) for tag, attributes in parsed.elements for name in attributes} <= known
        counted = (
            "section",
            "tr",
            "td",
            "th",
            "li",
            "dd",
            "svg",
            "p",
            "figure",
            "h2",
            "code",
            "details",
            "a",
        )
        assert {t: parsed.tags.count(t) for t in counted} == {t: plain.tags.count(t) for t in counted}


MALFORMED = [
    None,
    3,
    "lines",
    [],
    {},
    {"kind": "pie"},
    {"kind": ["lines"], "series": [{"x": [1], "y": [1]}]},
    {"kind": "lines", "series": []},
    {"kind": "lines", "series": "x"},
    {"kind": "lines", "series": [None]},
    {"kind": "lines", "series": [{"x": [1, 2], "y": [1]}]},
    {"kind": "lines", "series": [{"x": [1], "y": [math.nan]}]},
    {"kind": "lines", "series": [{"x": [1], "y": [math.inf]}]},
    {"kind": "bars", "series": [{"x": ["a"], "y": ["b"]}]},
    {"kind": "lines", "log_y": True, "series": [{"x": [1, 2], "y": [0, -1]}]},
    {"kind": "lines", "series": [{"x": [1], "y": [1], "lo": [1, 2], "hi": 5}]},
    {"kind": "lines", "series": [{"x": [[]], "y": [{}]}]},
    {"kind": "lines", "series": [{"x": [True], "y": [True]}]},
]


@pytest.mark.parametrize("figure", MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_figure_is_told_and_breaks_nothing(figure: object) -> None:
    words = Page(page([verdict(details={"figures": [figure]})])).words()
    assert "This figure could not be drawn: " in words


def test_figures_that_are_no_list_are_left_out() -> None:
    assert "figure" not in Page(page([verdict(details={"figures": {"kind": "lines"}})])).tags
