"""The one table of an evaluation: metric, champion, candidate, difference, gate, verdict."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

import pytest
from sample_verdicts import START

from mlcicd.core.verdict import Check, CheckStatus, Severity, Status, Verdict
from mlcicd.report import comment_markdown, report_html, summary_markdown
from mlcicd.report.comparison import comparison

NOW = datetime(2026, 3, 14, tzinfo=UTC)


def metric(name: str, **more: object) -> dict[str, object]:
    return {
        "name": name,
        "candidate": 0.8123,
        "candidate_interval": [0.80, 0.82],
        "champion": 0.7951,
        "champion_interval": [0.78, 0.81],
        "difference": 0.0172,
        "difference_interval": [0.011, 0.023],
        **more,
    }


def verdict(metrics: object, *checks: Check) -> Verdict:
    return Verdict(
        stage="evaluate",
        status=Status.FAILED,
        checks=list(checks),
        details={"metrics": metrics},
        started=START,
        finished=START,
    )


AUC = Check(name="roc_auc", status=CheckStatus.PASSED, observed=0.8123, required=">= 0.7")
VERSUS = Check(
    name="roc_auc vs champion",
    status=CheckStatus.INCONCLUSIVE,
    observed=0.0172,
    interval=(0.011, 0.023),
    reference=0.7951,
    required="not worse than the champion by more than 0.005",
    reason="the interval holds the margin",
    remedy="add rows",
)


def test_a_row_has_both_models_and_the_worst_of_its_gates() -> None:
    (row, other) = comparison(verdict([metric("log_loss"), metric("roc_auc")], AUC, VERSUS))
    assert row.metric == "roc_auc"
    assert str(row.champion) == "0.795 [0.780, 0.810]"
    assert str(row.candidate) == "0.8123 [0.8000, 0.8200]"
    assert str(row.difference) == "+0.0172 [0.0110, 0.0230]"
    assert row.gate == ">= 0.7; not worse than the champion by more than 0.005"
    assert row.outcome == "inconclusive"
    assert (other.metric, other.outcome) == ("log_loss", None)


def test_both_renderings_have_it_and_what_passed_is_not_told_twice() -> None:
    evaluated = verdict([metric("roc_auc")], AUC, VERSUS)
    for text in (summary_markdown([evaluated]), comment_markdown([evaluated])):
        assert "| Metric | Champion | Candidate | Difference | Gate | Verdict |" in text
        assert "the interval holds the margin" in text
        assert "add rows" in text
        assert text.count("| `roc_auc` |") == 1
    page = report_html([evaluated], title="t", generated=NOW)
    assert 'class="checks comparison"' in page
    assert len(re.findall('<span class="name">roc_auc</span>', page)) == 1
    assert "add rows" in page


def test_nan_is_told_and_never_looks_like_a_value() -> None:
    failed = Check(name="roc_auc", status=CheckStatus.FAILED, observed=math.nan, required=">= 0.7", reason="NaN")
    nan = metric("roc_auc", candidate="NaN", candidate_interval=None, difference=math.nan, difference_interval=None)
    (row,) = comparison(verdict([nan], failed))
    assert (str(row.candidate), str(row.difference), row.outcome) == ("NaN", "NaN", "failed")


def test_identical_models_and_no_champion() -> None:
    alone = metric("b", champion=None, champion_interval=None, difference=None, difference_interval=None)
    same, bare = comparison(verdict([metric("a", identical=True), alone]))
    assert str(same.difference) == "identical"
    assert (str(bare.champion), str(bare.difference)) == ("", "")


@pytest.mark.parametrize(
    "metrics",
    [
        None,
        "text",
        7,
        {"name": "x"},
        [None, 3, {}, {"name": 5}, {"name": "x", "candidate": "<b>", "candidate_interval": [1, "NaN", 3]}],
        [metric("x", candidate=True, difference_interval=["NaN", "Infinity"])],
        [metric("<script>alert(1)</script>|`x`\n@all")],
        [metric(f"m{i}") for i in range(500)],
    ],
)
def test_strange_details_break_nothing(metrics: object) -> None:
    made = verdict(metrics, AUC)
    page = report_html([made], title="t", generated=NOW)
    assert "<script" not in page
    assert "<b>" not in page.partition("<main>")[2].replace("<b>What to do</b>", "")
    for text in (summary_markdown([made]), comment_markdown([made])):
        assert "<script" not in text
        assert "@all" not in text


def test_a_warning_is_a_warning() -> None:
    warned = Check(name="roc_auc", status=CheckStatus.FAILED, severity=Severity.WARN, required=">= 0.9")
    (row,) = comparison(verdict([metric("roc_auc")], warned))
    assert row.outcome == "warning"
