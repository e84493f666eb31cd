"""A verdict on a terminal."""

from __future__ import annotations

import io
import random
from datetime import UTC, datetime, timedelta

from hostile_text import hostile
from rich.console import Console
from sample_verdicts import deploy, evaluate

from mlcicd.core.verdict import Check, CheckStatus, Status, Verdict
from mlcicd.report import print_verdict, terminal_lines

START = datetime(2026, 3, 14, tzinfo=UTC)


def test_the_first_line_says_how_it_ended_and_what_follows_is_what_failed() -> None:
    lines = terminal_lines(evaluate())
    assert lines[0] == "✗ evaluate failed (1 failed, 1 inconclusive, 11 passed, 19 s)"
    assert "  ✗ roc_auc (carrier = MQ): observed 0.598 [0.578, 0.618], required >= 0.62, reference 0.647" in lines
    assert "    What to do: look at what changed for this carrier, or hold the candidate back." in lines
    assert not any("carrier = UA" in line for line in lines)
    assert lines.index(next(x for x in lines if "MQ" in x)) < lines.index(next(x for x in lines if "WN" in x))


def test_an_error_says_where_why_and_what_to_do() -> None:
    text = "\n".join(terminal_lines(deploy()))
    assert text.count("The registry did not answer.") == 1
    assert "(503)" in text
    assert "What to do: start the tracking server" in text


def test_a_dry_run_comes_first() -> None:
    verdict = evaluate().model_copy(update={"dry_run": True})
    assert terminal_lines(verdict)[0] == "Dry run: nothing here was enforced."


def test_rich_prints_the_same_words_and_wraps_with_indentation() -> None:
    stream = io.StringIO()
    print_verdict(evaluate(), Console(file=stream, width=60, force_terminal=False))
    printed = stream.getvalue()
    words = " ".join(printed.split())
    for line in terminal_lines(evaluate()):
        assert " ".join(line.split()) in words
    assert all(len(line) <= 60 for line in printed.splitlines())


def test_text_can_not_drive_the_terminal_nor_rich() -> None:
    rng = random.Random(3)
    for _ in range(300):
        text = hostile(rng) + " [bold red]x[/] [/]"
        check = Check(name=text, status=CheckStatus.FAILED, observed=text, reason=text, remedy=text)
        verdict = Verdict(
            stage=text,
            status=Status.FAILED,
            summary=text,
            checks=[check],
            started=START,
            finished=START + timedelta(seconds=1),
        )
        lines = terminal_lines(verdict)
        assert all(line.isprintable() or "\u200d" in line for line in lines)
        stream = io.StringIO()
        print_verdict(verdict, Console(file=stream, width=10_000, force_terminal=True, color_system="standard"))
        assert "[bold red]x[/] [/]" in stream.getvalue()
        assert "\x1b]" not in stream.getvalue()
