"""What a difference comes from, the code or the data: sentences below the comparison of the models.

Read from ``Verdict.details["code_and_data"]``, whose `sentences` are also the reasons of checks.
"""

from __future__ import annotations

from mlcicd.core.verdict import Check, Verdict
from mlcicd.report.markup import clean

_MOST = 20


def change_sentences(verdict: Verdict) -> list[str]:
    """The sentences, clean; none of a verdict that has none."""
    return [clean(text) for text in _given(verdict)]


def told_in_a_sentence(verdict: Verdict, check: Check) -> bool:
    return check.reason in _given(verdict)


def _given(verdict: Verdict) -> list[str]:
    found = verdict.details.get("code_and_data")
    given = found.get("sentences") if isinstance(found, dict) else None
    return [text for text in given[:_MOST] if isinstance(text, str) and text] if isinstance(given, list) else []
