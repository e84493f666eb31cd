"""Job summaries and pull-request comments, in the Markdown that GitHub and GitLab render.

Both are made again with fewer rows until they fit, so that no element is ever left open by a cut.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mlcicd.core.verdict import Check, Status, Verdict
from mlcicd.report import wording
from mlcicd.report.changes import change_sentences
from mlcicd.report.comparison import Row, comparison, told_elsewhere
from mlcicd.report.figures import MalformedFigure
from mlcicd.report.markup import clean, code, prose
from mlcicd.report.matrix import KIND, matrix_markdown, parse_matrix
from mlcicd.report.quantities import duration, number, with_interval

SYMBOL = {
    "passed": "✅",
    "failed": "❌",
    "warning": "⚠️",
    "inconclusive": "❔",
    "skipped": "➖",
    "ungated": "⚪",
    "error": "🛑",
}
_ROOM_FOR_MARKER = 512
_CELL = 160
_ENOUGH_FOR_A_MATRIX = 30


@dataclass(frozen=True)
class _Detail:
    """How much of each stage is written down."""

    rows: int
    text: int
    stages: int = 1_000
    subjects: bool = True


_LEVELS = (
    _Detail(rows=100_000, text=600),
    _Detail(rows=2_000, text=600),
    _Detail(rows=500, text=600),
    _Detail(rows=100, text=400),
    _Detail(rows=30, text=300),
    _Detail(rows=10, text=200),
    _Detail(rows=3, text=120, subjects=False),
    _Detail(rows=1, text=80, stages=50, subjects=False),
    _Detail(rows=0, text=0, stages=20, subjects=False),
)


def summary_markdown(verdicts: Sequence[Verdict], *, limit_bytes: int = 900_000) -> str:
    """The job summary: every stage in full, failed checks first.

    Args:
        limit_bytes: the most bytes of UTF-8 it may have; passed checks are left out first, and counted.
    """
    return _fitting(verdicts, limit_bytes, fold=False, report_url=None)


def comment_markdown(verdicts: Sequence[Verdict], *, limit: int = 65_536, report_url: str | None = None) -> str:
    """The pull-request comment: what needs attention in the open, what passed folded.

    Args:
        limit: the most characters the host takes. The text stays 512 bytes below it, for the marker by which
            a host finds the comment again.
        report_url: where the whole report is; linked when it is an `https` address.
    """
    return _fitting(verdicts, limit - _ROOM_FOR_MARKER, fold=True, report_url=report_url)


def _fitting(verdicts: Sequence[Verdict], limit: int, *, fold: bool, report_url: str | None) -> str:
    tail = _report_link(report_url)
    for level in _LEVELS:
        text = _within(_lines(verdicts, level, fold=fold), limit - len(tail.encode()))
        if text is not None:
            return text + tail
    text = prose(wording.headline(verdicts), limit=200) + "\n"
    return text if len(text.encode()) <= limit else ""


def _within(lines: Iterable[str], limit: int) -> str | None:
    """The lines as one text that ends in a line end; None as soon as it is longer than `limit` bytes."""
    kept, size = [], 0
    for line in lines:
        size += len(line.encode()) + 1
        if size > limit:
            return None
        kept.append(line)
    return "\n".join(kept).rstrip("\n") + "\n"


def _lines(verdicts: Sequence[Verdict], level: _Detail, *, fold: bool) -> Iterator[str]:
    if any(v.dry_run for v in verdicts):
        yield f"**{wording.DRY_RUN}**"
        yield ""
    if len(verdicts) != 1 or fold:
        worst = wording.worst(verdicts)
        symbol = f"{SYMBOL[worst]} " if worst else ""
        yield f"## {symbol}{prose(wording.headline(verdicts))}"
        yield ""
    for verdict in verdicts[: level.stages]:
        yield from _section(verdict, level, fold=fold and _quiet(verdict))
    if len(verdicts) > level.stages:
        yield f"… and {len(verdicts) - level.stages} more stages."


def _quiet(verdict: Verdict) -> bool:
    return verdict.status in (Status.PASSED, Status.SKIPPED) and not any(map(wording.needs_attention, verdict.checks))


def _section(verdict: Verdict, level: _Detail, *, fold: bool) -> Iterator[str]:
    title = f"{SYMBOL[verdict.status]} {prose(wording.sentence(verdict))}"
    took = duration((verdict.finished - verdict.started).total_seconds())
    if fold:
        # HTML until the first blank line, Markdown after it; entities hold in both.
        yield f"<details><summary>{title} ({took})</summary>"
    else:
        yield f"### {title}"
    yield ""
    if verdict.summary and level.text:
        yield prose(verdict.summary, limit=level.text)
        yield ""
    yield from _error(verdict, level)
    yield from _comparison(comparison(verdict)[: level.rows])
    for sentence in change_sentences(verdict) if level.text else []:
        yield prose(sentence, limit=level.text)
        yield ""
    if level.rows >= _ENOUGH_FOR_A_MATRIX:
        yield from _confusion(verdict)
    checks = [c for c in wording.ranked(verdict.checks) if not (level.rows and told_elsewhere(verdict, c))]
    yield from _table(checks[: level.rows])
    yield from _omitted(checks[level.rows :])
    yield from _reasons(checks[: level.rows], level)
    if level.subjects:
        yield from _subjects(verdict, took)
    if fold:
        yield "</details>"
        yield ""


def _error(verdict: Verdict, level: _Detail) -> Iterator[str]:
    error = wording.error_lines(verdict)
    if not error or not level.text:
        return
    if "what" in error and error["what"] != clean(verdict.summary):
        yield f"- {prose(error['what'], limit=level.text)}"
    if "where" in error:
        yield f"- Where: {code(error['where'])}"
    if "why" in error:
        yield f"- Why: {prose(error['why'], limit=level.text)}"
    log = wording.error_log(verdict)
    if log:
        yield "- Its last lines:"
        yield from (f"  - {code(line, limit=level.text)}" for line in log if line)
    if "remedy" in error:
        yield f"- What to do: {prose(error['remedy'], limit=level.text)}"
    yield ""


def _table(checks: Sequence[Check]) -> Iterator[str]:
    if not checks:
        return
    with_reference = any(c.reference is not None for c in checks)
    head = ["Check", "Observed", *(["Reference"] if with_reference else []), "Required", "Verdict"]
    yield f"| {' | '.join(head)} |"
    yield f"|{'|'.join(['---'] * len(head))}|"
    for check in checks:
        kind = wording.outcome(check)
        cells = [
            _name(check),
            prose(with_interval(check.observed, check.interval), limit=_CELL),
            *([prose(number(check.reference, check.interval), limit=_CELL)] if with_reference else []),
            prose(check.required, limit=_CELL),
            f"{SYMBOL[kind]} {kind}",
        ]
        yield f"| {' | '.join(cells)} |"
    yield ""


def _comparison(rows: Sequence[Row]) -> Iterator[str]:
    if not rows:
        return
    with_seed = any(row.seed for row in rows)
    head = ["Metric", "Champion", "Candidate", "Difference", *(["Seed alone"] if with_seed else []), "Gate", "Verdict"]
    yield f"| {' | '.join(head)} |"
    yield f"|{'|'.join(['---'] * len(head))}|"
    for row in rows:
        texts = (row.champion, row.candidate, row.difference, *([row.seed] if with_seed else []), row.gate)
        told = [prose(text, limit=_CELL) for text in texts]
        outcome = f"{SYMBOL[row.outcome]} {row.outcome}" if row.outcome else "not gated"
        yield f"| {' | '.join([code(row.metric) or '(unnamed)', *told, outcome])} |"
    yield ""


def _confusion(verdict: Verdict) -> Iterator[str]:
    figures = verdict.details.get("figures")
    for data in figures if isinstance(figures, list) else []:
        if isinstance(data, dict) and data.get("kind") == KIND:
            # What can not be drawn is told in the HTML report, where figures are.
            with contextlib.suppress(MalformedFigure):
                yield from matrix_markdown(parse_matrix(data))


def _name(check: Check) -> str:
    name = code(check.name) or "(unnamed)"
    return f"{name} ({prose(check.slice, limit=_CELL)})" if check.slice else name


def _omitted(checks: Sequence[Check]) -> Iterator[str]:
    if checks:
        yield f"… and {len(checks)} more checks, left out for length: {wording.tally(checks)}."
        yield ""


def _reasons(checks: Sequence[Check], level: _Detail) -> Iterator[str]:
    told = False
    for check in filter(wording.needs_attention, checks):
        if not (check.reason or check.remedy):
            continue
        told = True
        remedy = f" What to do: {prose(check.remedy, limit=level.text)}" if check.remedy else ""
        yield f"- {_name(check)}: {prose(check.reason, limit=level.text)}{remedy}"
    if told:
        yield ""


def _subjects(verdict: Verdict, took: str) -> Iterator[str]:
    about = [f"{prose(s.kind)} {code(s.name)} {code(wording.short_digest(s.digest))}" for s in verdict.subjects]
    yield f"<sub>{', '.join([*about, f'in {took}'])}</sub>"
    yield ""


def _report_link(url: str | None) -> str:
    if not url:
        return ""
    line = clean(url, limit=2_000)
    if line.startswith("https://") and not set(line) & set("<>()[]\"'`\\| "):
        return f"\n[The whole report]({line})\n"
    return f"\nThe whole report: {code(line)}\n"
