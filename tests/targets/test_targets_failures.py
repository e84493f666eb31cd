"""What is quoted of a version's log when its canary is taken back."""

from __future__ import annotations

from mlcicd.targets.failures import Explaining, commonest_failure
from mlcicd.targets.local import LocalTarget

LINE = "2026-01-02 03:04:05,678 ERROR mlcicd.server: the model raised {}\n"


def log(tmp_path, text, name="server.log"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_the_commonest_exception_of_all_logs_is_quoted_with_how_often(tmp_path):
    one = log(tmp_path, LINE.format("ValueError at a.py:1") + "noise\n" + LINE.format("KeyError at b.py:2"), "one.log")
    two = log(tmp_path, LINE.format("KeyError at b.py:2"), "two.log")
    said = commonest_failure([one, two, tmp_path / "missing.log"])
    assert said == "the model raised KeyError at b.py:2 (2 of 3 failures in its log)"


def test_a_log_without_failures_and_no_log_say_nothing(tmp_path):
    assert commonest_failure([log(tmp_path, "INFO fine\nthe model raised nothing\n")]) == ""
    assert commonest_failure([tmp_path, tmp_path / "missing"]) == ""
    assert commonest_failure([]) == ""


def test_what_is_quoted_is_one_bounded_line_without_secrets_or_control_characters(tmp_path):
    hostile = LINE.format("Error at \x1b[31m\x00\u202e token=abcdefghij " + "x" * 5000)
    said = commonest_failure([log(tmp_path, hostile)])
    assert len(said) < 260
    assert said.isprintable()
    assert "abcdefghij" not in said
    assert "***" in said


def test_of_a_huge_log_only_the_end_is_read_and_bytes_that_are_no_text_do_no_harm(tmp_path):
    old = LINE.format("OldError at a.py:1") * 10
    path = log(
        tmp_path, (old + "z" * 400_000 + "\n").encode() + b"\xff\xfe\n" + LINE.format("NewError at b.py:9").encode()
    )
    assert commonest_failure([path]) == "the model raised NewError at b.py:9 (1 of 1 failures in its log)"


def test_a_target_that_knows_nothing_says_nothing(tmp_path):
    target = LocalTarget("staging", tmp_path / "state")
    assert isinstance(target, Explaining)
    assert target.failure("2") == ""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "desired.json").write_text("{")
    assert target.failure("2") == ""
