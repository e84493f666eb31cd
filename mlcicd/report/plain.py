"""A verdict on a terminal: one line of status, then what failed, why, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mlcicd.core.verdict import Check, Verdict
from mlcicd.report import wording
from mlcicd.report.markup import clean
from mlcicd.report.quantities import duration, number, with_interval

if TYPE_CHECKING:
    from rich.console import Console

_MARK = {
    "passed": "✓",
    "failed": "✗",
    "warning": "!",
    "inconclusive": "?",
    "skipped": "-",
    "ungated": "○",
    "error": "✗",
}
_STYLE = {
    "passed": "green",
    "failed": "red",
    "warning": "yellow",
    "inconclusive": "yellow",
    "skipped": "dim",
    "ungated": "yellow",
    "error": "red",
}


def terminal_lines(verdict: Verdict) -> list[str]:
    """The verdict as plain lines, without colour and without the checks that passed."""
    return [text for text, _ in _styled(verdict)]


def print_verdict(verdict: Verdict, console: Console) -> None:
    """Prints the same lines through rich, coloured by status and wrapped with their indentation."""
    from rich.padding import Padding
    from rich.text import Text

    for text, style in _styled(verdict):
        body = text.lstrip(" ")
        console.print(Padding(Text(body, style=style), (0, 0, 0, len(text) - len(body))), highlight=False)


def _styled(verdict: Verdict) -> Iterator[tuple[str, str]]:
    if verdict.dry_run:
        yield wording.DRY_RUN, "bold yellow"
    took = duration((verdict.finished - verdict.started).total_seconds())
    tally = wording.tally(verdict.checks)
    facts = ", ".join(filter(None, [tally, took]))
    yield f"{_MARK[verdict.status]} {wording.sentence(verdict)} ({facts})", f"bold {_STYLE[verdict.status]}"
    if verdict.summary:
        yield f"  {clean(verdict.summary)}", ""
    error = wording.error_lines(verdict)
    if "what" in error and error["what"] != clean(verdict.summary):
        yield f"  {error['what']}", ""
    if "where" in error:
        yield f"  {error['where']}", ""
    if "why" in error:
        yield f"  {error['why']}", ""
    for line in wording.error_log(verdict):
        yield f"    │ {line}", "dim"
    if "remedy" in error:
        yield f"  What to do: {error['remedy']}", "bold"
    for check in filter(wording.needs_attention, wording.ranked(verdict.checks)):
        yield from _check(check)


def _check(check: Check) -> Iterator[tuple[str, str]]:
    kind = wording.outcome(check)
    name = clean(check.name, limit=120) + (f" ({clean(check.slice, limit=120)})" if check.slice else "")
    seen = clean(with_interval(check.observed, check.interval), limit=160)
    facts = [f"observed {seen}"] if check.observed is not None else []
    if check.required:
        facts.append(f"required {clean(check.required, limit=160)}")
    if check.reference is not None:
        facts.append(f"reference {clean(number(check.reference, check.interval), limit=160)}")
    yield f"  {_MARK[kind]} {name}: {', '.join(facts) or kind}", _STYLE[kind]
    if check.reason:
        yield f"    {clean(check.reason)}", ""
    if check.remedy:
        yield f"    What to do: {clean(check.remedy)}", "bold"
