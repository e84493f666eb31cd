"""Markdown for summaries and comments: what it says, that it fits, and that text stays text."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest
from hostile_text import hostile
from markdown_it import MarkdownIt
from sample_verdicts import verdicts

from mlcicd.core.verdict import Check, CheckStatus, Severity, Status, Subject, Verdict
from mlcicd.report import comment_markdown, summary_markdown
from mlcicd.report.markup import clean, code, prose

START = datetime(2026, 3, 14, tzinfo=UTC)
OURS = {"code", "details", "summary", "sub"}
FROM_MARKDOWN = {"h2", "h3", "p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "strong"}
REFERENCES = re.compile(
    r"@[\w/]|(?<!\w)#\d|\bGH-\d|https?://|ftp://|www\.|mailto:\w|:[\w+-]+:|[!~%&$]\w", re.IGNORECASE
)


def verdict(**fields: object) -> Verdict:
    defaults = {
        "stage": "evaluate",
        "status": Status.PASSED,
        "started": START,
        "finished": START + timedelta(seconds=3),
    }
    return Verdict.model_validate(defaults | fields)


def many(count: int, status: CheckStatus = CheckStatus.PASSED, **fields: object) -> list[Check]:
    return [Check(name=f"check-{i}", status=status, observed=i / 7, **fields) for i in range(count)]


class Rendered(HTMLParser):
    """Elements, attributes and text outside of code, as a renderer of GitHub Flavored Markdown makes them."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.comments: list[str] = []
        self._code = 0
        renderer = MarkdownIt("commonmark", {"html": True, "linkify": True}).enable(
            ["table", "linkify", "strikethrough"]
        )
        self.feed(renderer.render(markdown))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.extend(attrs)
        self._code += tag == "code"

    def handle_endtag(self, tag: str) -> None:
        self._code -= tag == "code"

    def handle_data(self, data: str) -> None:
        if not self._code:
            self.text.append(data)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)


def hostile_verdict(rng: random.Random) -> Verdict:
    def text() -> str:
        return hostile(rng)

    checks = [
        Check(
            name=text(),
            slice=text(),
            status=rng.choice(list(CheckStatus)),
            severity=rng.choice(list(Severity)),
            observed=text(),
            reference=text(),
            required=text(),
            reason=text(),
            remedy=text(),
        )
        for _ in range(5)
    ]
    return verdict(
        stage=text(),
        summary=text(),
        status=rng.choice(list(Status)),
        checks=checks,
        subjects=[Subject(kind=text(), name=text(), digest=text())],
        details={"error": {"what": text(), "where": text(), "why": text(), "remedy": text()}},
    )


def shape(verdict: Verdict) -> list[str]:
    """The elements of the same verdict when every text is harmless, code spans left out."""
    data = verdict.model_dump()
    plain = data | {"stage": "x", "summary": "x"}
    plain["checks"] = [
        c | dict.fromkeys(("name", "slice", "observed", "reference", "required", "reason", "remedy"), "x")
        for c in data["checks"]
    ]
    plain["subjects"] = [s | {"kind": "x", "name": "x", "digest": "x"} for s in data["subjects"]]
    plain["details"] = {"error": {"what": "y", "where": "x", "why": "x", "remedy": "x"}}
    return [t for t in Rendered(comment_markdown([Verdict.model_validate(plain)])).tags if t not in ("code", "p")]


@pytest.mark.slow
def test_no_text_of_twenty_thousand_becomes_markup() -> None:
    """460 verdicts with 44 hostile texts each, rendered with HTML and automatic links switched on."""
    rng = random.Random(20260314)
    for _ in range(460):
        hostile_one = hostile_verdict(rng)
        text = comment_markdown([hostile_one])
        page = Rendered(text)
        assert set(page.tags) <= OURS | FROM_MARKDOWN, text
        assert not page.attributes, text
        assert not page.comments, text
        assert not REFERENCES.search("".join(page.text)), text
        assert not re.search(r"^\s*/\w", text, re.MULTILINE), text


def test_hostile_text_changes_no_element_of_the_document() -> None:
    """Cells, rows and list items are as many as for harmless text."""
    rng = random.Random(7)
    for _ in range(150):
        one = hostile_verdict(rng)
        filled = [
            c.model_copy(update={k: f"x{getattr(c, k)}" for k in ("reason", "remedy", "slice", "name")})
            for c in one.checks
        ]
        one = one.model_copy(
            update={
                "checks": filled,
                "summary": f"x{one.summary}",
                "details": {"error": {k: f"y{v}" for k, v in one.details["error"].items()}},
            }
        )
        tags = [t for t in Rendered(comment_markdown([one])).tags if t not in ("code", "p")]
        assert tags == shape(one)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words, 3.5 % of rows", "plain words, 3.5 % of rows"),
        ("0.61 is below 0.7", "0.61 is below 0.7"),
        ("a|b", "a|b"),
        ("<b>", "<b>"),
        ("*x* _y_ `z`", "*x* _y_ `z`"),
        ("two\nlines", "two lines"),
        ("1. item", "1. item"),
        ("- item", "- item"),
        ("@octocat", "@\u200boctocat"),
        ("see https://x.example", "see https:\u200b//x.example"),
        ("token=hunter2", "token=***"),
        ("postgres://me:secret@db/x", "postgres:\u200b//***@\u200bdb/x"),
        ("caf\u00e9 航班", "caf\u00e9 航班"),
        ("a\ud800b", "a\ufffdb"),
        ("\x1b[31mred\x1b[0m", "red"),
    ],
)
def test_prose_reads_as_it_was_written(text: str, shown: str) -> None:
    page = Rendered(prose(text))
    assert "".join(page.text).strip() == shown
    assert page.tags == ["p"]


@pytest.mark.parametrize(
    "text", ["roc_auc", "a`b", "``", "x|y", "a\\|b", "<b>", "$x", " lead", "carrier = MQ", "a *b* c"]
)
def test_code_reads_as_it_was_written_inside_a_table(text: str) -> None:
    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(f"| {code(text)} | b |\n|---|---|\n")
    cells = re.findall(r"<th>(.*?)</th>", rendered)
    assert len(cells) == 2
    parser = HTMLParser()
    seen: list[str] = []
    parser.handle_data = seen.append  # type: ignore[method-assign]
    parser.feed(cells[0])
    assert "".join(seen) == text.strip()


def test_long_text_is_cut_with_an_ellipsis() -> None:
    assert clean("x" * 700) == "x" * 599 + "…"
    assert len(clean("word " * 1_000_000, limit=50)) <= 50


def test_failed_checks_come_first_with_reason_and_remedy() -> None:
    checks = [
        Check(name="fine", status=CheckStatus.PASSED, observed=1),
        Check(name="unsure", status=CheckStatus.INCONCLUSIVE, reason="Too few rows.", remedy="add rows."),
        Check(name="soft", status=CheckStatus.FAILED, severity=Severity.WARN, reason="A little high."),
        Check(
            name="bad",
            status=CheckStatus.FAILED,
            observed=0.6123,
            interval=(0.58, 0.64),
            reference=0.7,
            required=">= 0.65",
            reason="The interval lies below.",
            remedy="hold it back.",
        ),
    ]
    text = summary_markdown([verdict(status=Status.FAILED, checks=checks)])
    positions = [text.index(f"`{name}`") for name in ("bad", "unsure", "soft", "fine")]
    assert positions == sorted(positions)
    page = "".join(Rendered(text).text)
    assert "0.612 [0.580, 0.640]" in page
    assert "The interval lies below. What to do: hold it back." in page
    assert "Too few rows. What to do: add rows." in page
    assert "❌ failed" in text
    assert "⚠️ warning" in text


def test_the_reference_column_is_there_only_when_something_is_in_it() -> None:
    without = summary_markdown([verdict(checks=[Check(name="a", status=CheckStatus.PASSED)])])
    assert "Reference" not in without
    assert "Reference" in summary_markdown([verdict(checks=[Check(name="a", status=CheckStatus.PASSED, reference=1)])])


def test_a_dry_run_says_so_in_the_first_line() -> None:
    for make in (summary_markdown, comment_markdown):
        assert make([verdict(dry_run=True)]).splitlines()[0] == "**Dry run: nothing here was enforced.**"
        assert "Dry run" not in make([verdict()])


def test_ungated_is_not_called_passed() -> None:
    text = summary_markdown([verdict(status=Status.UNGATED)])
    assert "had no gate to pass" in text
    assert "passed" not in text


def test_nan_is_written_out() -> None:
    check = Check(name="auc", status=CheckStatus.FAILED, observed=float("nan"), interval=(float("nan"), float("inf")))
    assert "NaN [NaN, infinite]" in "".join(Rendered(summary_markdown([verdict(checks=[check])])).text)


def test_a_comment_folds_what_passed_and_leaves_failures_open() -> None:
    text = comment_markdown(verdicts())
    assert text.count("<details>") == text.count("</details>") == 3  # train, register (skipped), canary
    failed = text.index("evaluate failed", text.index("###"))
    assert text.rfind("<details>", 0, failed) < text.rfind("</details>", 0, failed)
    assert "### ❌ evaluate failed" in text
    assert "### ✅ validate-data passed" in text  # it has warnings


def test_a_comment_fits_whatever_is_in_it() -> None:
    huge = [
        verdict(stage=f"stage-{i}", status=Status.FAILED, checks=many(900, CheckStatus.FAILED, reason="<&" * 300))
        for i in range(8)
    ]
    text = comment_markdown(huge)
    assert 2_000 < len(text.encode()) <= 65_536 - 512
    assert "left out for length" in text
    assert text.count("<details>") == text.count("</details>")
    assert set(Rendered(text).tags) <= OURS | FROM_MARKDOWN


def test_a_summary_fits_and_counts_what_it_left_out() -> None:
    checks = [
        *many(20_000, required=">= 0.5 of whatever it was"),
        Check(name="the-bad-one", status=CheckStatus.FAILED, reason="It is bad."),
    ]
    text = summary_markdown([verdict(status=Status.FAILED, checks=checks)], limit_bytes=900_000)
    assert len(text.encode()) <= 900_000
    assert "`the-bad-one`" in text
    assert "… and 18001 more checks, left out for length: 18001 passed." in text


@pytest.mark.parametrize("limit", [1, 40, 300, 2_000, 10_000])
def test_any_limit_is_kept(limit: int) -> None:
    big = [verdict(stage="s" * 70, checks=many(300)) for _ in range(60)]
    assert len(summary_markdown(big, limit_bytes=limit).encode()) <= limit


def test_the_report_is_linked_only_when_the_address_is_harmless() -> None:
    good = "https://ci.example.org/artifacts/7/report.html?x=1"
    assert f"[The whole report]({good})" in comment_markdown([verdict()], report_url=good)
    for bad in (
        "javascript:alert(1)",
        "https://x/)[y](https://evil",
        'https://x"><b>',
        "http://plain.example",
    ):
        text = comment_markdown([verdict()], report_url=bad)
        assert "a" not in Rendered(text).tags
        assert not Rendered(text).attributes


def test_no_verdicts_is_said_and_not_called_passed() -> None:
    text = comment_markdown([])
    assert "No stage has run yet." in text
    assert "passed" not in text
