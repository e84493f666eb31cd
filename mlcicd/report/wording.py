"""What a list of verdicts amounts to, in words; and the order in which its checks are read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from mlcicd.core.verdict import Check, CheckStatus, Severity, Status, Verdict
from mlcicd.report.markup import clean

Outcome = Literal["failed", "warning", "inconclusive", "passed", "skipped"]

_OUTCOME_ORDER: tuple[Outcome, ...] = ("failed", "inconclusive", "warning", "passed", "skipped")
_STATUS_ORDER = (
    Status.ERROR,
    Status.FAILED,
    Status.INCONCLUSIVE,
    Status.UNGATED,
    Status.PASSED,
    Status.SKIPPED,
)
_SINGULAR = {
    Status.ERROR: "ended in an error",
    Status.FAILED: "failed",
    Status.INCONCLUSIVE: "was inconclusive",
    Status.UNGATED: "had no gate to pass",
    Status.PASSED: "passed",
    Status.SKIPPED: "was skipped",
}
_PLURAL = _SINGULAR | {Status.INCONCLUSIVE: "were inconclusive", Status.SKIPPED: "were skipped"}
_LOG_LINES = 20
_NAMED = 3

DRY_RUN = "Dry run: nothing here was enforced."


def outcome(check: Check) -> Outcome:
    """What a check means for the reader: a failed check that only warns is a warning."""
    if check.status is CheckStatus.FAILED and check.severity is Severity.WARN:
        return "warning"
    match check.status:
        case CheckStatus.PASSED:
            return "passed"
        case CheckStatus.FAILED:
            return "failed"
        case CheckStatus.INCONCLUSIVE:
            return "inconclusive"
        case CheckStatus.SKIPPED:
            return "skipped"


def ranked(checks: Iterable[Check]) -> list[Check]:
    """Failed checks first, then inconclusive, warnings, passed, skipped; within each, as they came."""
    return sorted(checks, key=lambda check: _OUTCOME_ORDER.index(outcome(check)))


def needs_attention(check: Check) -> bool:
    return outcome(check) in ("failed", "inconclusive", "warning")


def worst(verdicts: Iterable[Verdict]) -> Status | None:
    """The worst status among the verdicts, None when there are none."""
    return min((v.status for v in verdicts), key=_STATUS_ORDER.index, default=None)


def sentence(verdict: Verdict) -> str:
    """`evaluate failed`."""
    return f"{clean(verdict.stage, limit=80)} {_SINGULAR[verdict.status]}"


def headline(verdicts: Sequence[Verdict]) -> str:
    """One sentence for all of them: `evaluate failed; the other 4 stages passed.`"""
    if not verdicts:
        return "No stage has run yet."
    by_status = {s: [v for v in verdicts if v.status is s] for s in _STATUS_ORDER}
    by_status = {s: group for s, group in by_status.items() if group}
    if len(by_status) == 1 and len(verdicts) > 1:
        (status,) = by_status
        return f"All {len(verdicts)} stages {_PLURAL[status]}."
    parts: list[str] = []
    for status, group in by_status.items():
        phrase = (_SINGULAR if len(group) == 1 else _PLURAL)[status]
        if status is Status.PASSED and parts:
            stages = "stage" if len(group) == 1 else "stages"
            parts.append(f"{len(group)} {stages} {phrase}")
        else:
            parts.append(f"{_names(group)} {phrase}")
    return f"{'; '.join(parts)}."


def tally(checks: Sequence[Check]) -> str:
    """`2 failed, 1 inconclusive, 14 passed`, leaving out what did not happen; empty without checks."""
    counts = {kind: sum(outcome(c) == kind for c in checks) for kind in _OUTCOME_ORDER}
    words = {"warning": "warning" if counts["warning"] == 1 else "warnings"}
    return ", ".join(f"{n} {words.get(kind, kind)}" for kind, n in counts.items() if n)


def error_lines(verdict: Verdict) -> dict[str, str]:
    """What an `error` verdict says about its cause: `where`, `why` and `remedy`, those that are there.

    They are read from ``details["error"]``, a mapping of text to text. What the summary says already is left out.
    """
    error = verdict.details.get("error")
    if not isinstance(error, dict):
        return {}
    lines = {key: clean(error.get(key) or "") for key in ("what", "where", "why", "remedy")}
    if clean(verdict.summary) == f"{lines['where']}: {lines['what']}":
        lines["what"] = lines["where"] = ""
    return {key: text for key, text in lines.items() if text}


def error_log(verdict: Verdict) -> list[str]:
    """The last lines of the child process that an `error` is about, from ``details["error"]["log"]``."""
    error = verdict.details.get("error")
    log = error.get("log") if isinstance(error, dict) else None
    return [clean(line, limit=400) for line in log[-_LOG_LINES:]] if isinstance(log, list) else []


def short_digest(digest: str) -> str:
    """The first twelve characters of a digest, without its algorithm: enough to compare by eye."""
    return clean(digest.rpartition(":")[2], limit=200)[:12]


def _names(group: Sequence[Verdict]) -> str:
    names = list(dict.fromkeys(clean(v.stage, limit=80) for v in group))
    if len(names) > _NAMED + 1:
        return f"{', '.join(names[:_NAMED])} and {len(names) - _NAMED} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
