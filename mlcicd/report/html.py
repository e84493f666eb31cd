"""The report: one page that needs nothing but itself, and runs no script."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlcicd.core.verdict import Check, Status, Verdict
from mlcicd.report import wording
from mlcicd.report.changes import change_sentences
from mlcicd.report.comparison import Estimate, Row, comparison, told_elsewhere
from mlcicd.report.figures import MalformedFigure, parse_figure
from mlcicd.report.intervals import interval_svg
from mlcicd.report.markup import clean
from mlcicd.report.matrix import KIND, draw_matrix, parse_matrix
from mlcicd.report.quantities import bounds, duration, number
from mlcicd.report.rows import ShownRow, shown_rows
from mlcicd.report.svg import draw, legend

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup

_TEMPLATES = Path(__file__).parent / "templates"
_OPEN_CHECKS = 12
# The stages that a reader comes for stand before the others, each in its order.
_FIRST = ("error", "failed", "inconclusive", "ungated")
_FIGURES = 12
_MINUS = re.compile(r"(?<!\w)-(?=\d)")
_OPERATORS = {">=": "≥ ", "<=": "≤ ", ">= ": "≥ ", "<= ": "≤ ", "-": "−"}
_BACKTICKS = re.compile(r"`([^`]+)`")
# Not behind the & of what has been escaped.
_JOINTS = re.compile(r"[._/](?=\w)")
_OPERATOR = re.compile(r"[<>]= ?|(?<![\w.])-(?=[\d.])")


@dataclass(frozen=True)
class CheckRow:
    name: str
    slice: str
    outcome: wording.Outcome
    observed: str
    interval: str
    plot: str
    reference: str
    required: str
    reason: str
    remedy: str
    rows: list[ShownRow]


@dataclass(frozen=True)
class FigureBlock:
    """A figure, and what it leaves out; or no figure, and why not."""

    title: str
    svg: str
    legend: list[tuple[int, str]]
    note: str


@dataclass(frozen=True)
class SubjectRow:
    kind: str
    name: str
    digest: str
    short: str
    facts: str


@dataclass(frozen=True)
class StageSection:
    """One verdict, as the page shows it; all text is clean, and escaped by the template."""

    anchor: str
    stage: str
    status: str
    sentence: str
    summary: str
    tally: str
    took: str
    started: str
    dry_run: bool
    error: dict[str, str]
    log: list[str]
    comparison: list[Row]
    changes: list[str]
    checks: list[CheckRow]
    folded: list[CheckRow]
    folded_tally: str
    has_reference: bool
    has_plot: bool
    figures: list[FigureBlock]
    figures_left_out: int
    outputs: list[tuple[str, str]]
    subjects: list[SubjectRow]
    evidence: list[SubjectRow]
    tool: str


def report_html(verdicts: Sequence[Verdict], *, title: str, generated: datetime) -> str:
    """The whole report as one HTML page, light or dark as the reader prefers.

    Args:
        title: what the report is about; any text.
        generated: when it is made; shown at the end.
    """
    environment = _environment()
    style = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
    worst = wording.worst(verdicts)
    sections = [_section(v, i) for i, v in enumerate(verdicts, 1)]
    return environment.get_template("report.html.j2").render(
        title=clean(title, limit=160),
        headline=wording.headline(verdicts),
        status=worst.value if worst else Status.SKIPPED.value,
        dry_run=wording.DRY_RUN if any(v.dry_run for v in verdicts) else "",
        strip=sections,
        sections=sorted(sections, key=lambda section: section.status not in _FIRST),
        generated=_moment(generated),
        style=style,
        style_hash=_csp_hash(style),
    )


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code_spans"] = _code_spans
    environment.filters["breakable"] = _breakable
    return environment


def _code_spans(text: str) -> Markup:
    """The text, escaped, with what stands between two backticks set as code."""
    from markupsafe import Markup, escape

    return Markup(_BACKTICKS.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704  (escaped in this very line)


def _breakable(name: str) -> Markup:
    """The name, escaped, with places at which a long one may go on in the next line: not amid a word."""
    from markupsafe import Markup, escape

    return Markup(_JOINTS.sub(r"\g<0><wbr>", str(escape(name))))  # noqa: S704  (escaped in this very line)


def _section(verdict: Verdict, position: int) -> StageSection:
    checks = [c for c in wording.ranked(verdict.checks) if not told_elsewhere(verdict, c)]
    rows = [_check(c) for c in checks]
    attention = sum(map(wording.needs_attention, checks))
    # A few are read, many are not: then only those that need a person stand open.
    shown = len(rows) if len(rows) <= _OPEN_CHECKS else attention
    figures = verdict.details.get("figures")
    figures = figures if isinstance(figures, list) else []
    return StageSection(
        anchor=f"stage-{position}",
        stage=clean(verdict.stage, limit=80),
        status=verdict.status.value,
        sentence=wording.sentence(verdict),
        summary=clean(verdict.summary),
        tally=wording.tally(verdict.checks),
        took=duration((verdict.finished - verdict.started).total_seconds()),
        started=_moment(verdict.started),
        dry_run=verdict.dry_run,
        log=wording.error_log(verdict),
        error={k: v for k, v in wording.error_lines(verdict).items() if v != clean(verdict.summary)},
        comparison=[_typeset_row(row) for row in comparison(verdict)],
        changes=[_MINUS.sub("−", text) for text in change_sentences(verdict)],
        checks=rows[:shown],
        folded=rows[shown:],
        folded_tally=wording.tally(checks[shown:]),
        has_reference=any(r.reference for r in rows),
        has_plot=any(r.plot for r in rows),
        figures=[_figure(f) for f in figures[:_FIGURES]],
        figures_left_out=max(0, len(figures) - _FIGURES),
        outputs=[(clean(k, limit=80), clean(v, limit=300)) for k, v in verdict.outputs.items()],
        subjects=[_file(s.kind, s.name, s.digest, ", ".join(_facts(s.details))) for s in verdict.subjects],
        evidence=[_file(e.kind, e.path, e.digest, "") for e in verdict.evidence],
        tool=clean(verdict.tool, limit=80),
    )


def _check(check: Check) -> CheckRow:
    interval = check.interval
    return CheckRow(
        name=clean(check.name, limit=120),
        slice=clean(check.slice, limit=120),
        outcome=wording.outcome(check),
        observed="" if check.observed is None else _typeset(check.observed, interval),
        interval="" if interval is None else bounds(interval).replace("-", "−"),
        plot=interval_svg(check),
        reference="" if check.reference is None else _typeset(check.reference, interval),
        required=_OPERATOR.sub(lambda m: _OPERATORS[m.group()], clean(check.required, limit=160)),
        reason=clean(check.reason),
        remedy=clean(check.remedy),
        rows=shown_rows(check),
    )


def _typeset_row(row: Row) -> Row:
    """The row with real minus and comparison signs."""

    def minus(seen: Estimate) -> Estimate:
        return Estimate(seen.value.replace("-", "−"), seen.bounds.replace("-", "−"))

    return replace(
        row,
        champion=minus(row.champion),
        candidate=minus(row.candidate),
        difference=minus(row.difference),
        gate=_OPERATOR.sub(lambda m: _OPERATORS[m.group()], row.gate),
    )


def _typeset(value: float | str, interval: tuple[float, float] | None) -> str:
    text = clean(number(value, interval), limit=160)
    return text if isinstance(value, str) else text.replace("-", "−")


def _figure(data: Any) -> FigureBlock:
    title = clean(data.get("title") or "", limit=160) if isinstance(data, dict) else ""
    try:
        if isinstance(data, dict) and data.get("kind") == KIND:
            matrix = parse_matrix(data)
            return FigureBlock(matrix.title, draw_matrix(matrix), [], "")
        figure = parse_figure(data)
        return FigureBlock(figure.title, draw(figure), legend(figure), figure.note)
    except MalformedFigure as error:
        return FigureBlock(title, "", [], f"This figure could not be drawn: {error}.")


def _file(kind: str, name: str, digest: str, facts: str) -> SubjectRow:
    return SubjectRow(
        kind=clean(kind, limit=60),
        name=clean(name, limit=200),
        digest=clean(digest, limit=200),
        short=wording.short_digest(digest),
        facts=facts,
    )


def _facts(details: dict[str, Any]) -> Iterator[str]:
    for key, value in details.items():
        if isinstance(value, bool):
            text = "yes" if value else "no"
        elif isinstance(value, str | int | float):
            text = number(value)
        else:
            continue
        yield f"{clean(key, limit=60)} {clean(text, limit=120)}"


def _moment(at: datetime) -> str:
    zone = at.strftime("%Z") or ""
    return f"{at.day} {at:%B %Y, %H:%M} {zone}".strip()


def _csp_hash(style: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
