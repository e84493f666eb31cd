"""The verdict: exit codes, conclusions, and a document that survives writing and reading."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest

from mlcicd.core.errors import ExitCode, InputError
from mlcicd.core.verdict import Check, CheckStatus, Severity, Status, Verdict, conclude, json_schema

THEN = datetime(2026, 1, 2, tzinfo=UTC)


def verdict(status: Status = Status.PASSED, **more: object) -> Verdict:
    return Verdict(stage="evaluate", status=status, started=THEN, finished=THEN, **more)


def check(status: CheckStatus, severity: Severity = Severity.FAIL, **more: object) -> Check:
    return Check(name="c", status=status, severity=severity, **more)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (Status.PASSED, 0),
        (Status.SKIPPED, 0),
        (Status.UNGATED, 0),
        (Status.FAILED, 1),
        (Status.INCONCLUSIVE, 3),
    ],
)
def test_exit_codes(status: Status, code: int) -> None:
    assert verdict(status).exit_code == code
    assert verdict(status, dry_run=True).exit_code == 0


def test_errors_keep_their_own_exit_code_even_when_dry() -> None:
    assert verdict(Status.ERROR, error_exit_code=5).exit_code is ExitCode.SERVICE
    assert verdict(Status.ERROR, error_exit_code=4, dry_run=True).exit_code is ExitCode.INPUT
    assert verdict(Status.ERROR).exit_code is ExitCode.DEFECT


@pytest.mark.parametrize(
    ("checks", "status"),
    [
        ([], Status.UNGATED),
        ([check(CheckStatus.SKIPPED)], Status.UNGATED),
        ([check(CheckStatus.PASSED, Severity.WARN)], Status.UNGATED),
        ([check(CheckStatus.PASSED)], Status.PASSED),
        ([check(CheckStatus.PASSED), check(CheckStatus.FAILED, Severity.WARN)], Status.PASSED),
        ([check(CheckStatus.PASSED), check(CheckStatus.INCONCLUSIVE)], Status.INCONCLUSIVE),
        ([check(CheckStatus.INCONCLUSIVE), check(CheckStatus.FAILED)], Status.FAILED),
    ],
)
def test_conclusion(checks: list[Check], status: Status) -> None:
    assert conclude(checks) is status


def test_document_survives(tmp_path: Path) -> None:
    path = tmp_path / "v.json"
    made = verdict(checks=[check(CheckStatus.FAILED, observed=math.nan, interval=(-math.inf, 0.5))])
    made.write(path)
    document = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    jsonschema.validate(document, json_schema())
    assert document["checks"][0]["observed"] == "NaN"
    back = Verdict.read(path).checks[0]
    assert math.isnan(float(back.observed))
    assert back.interval == (-math.inf, 0.5)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"stage": "x"}', "\x00"])
def test_damaged_document_is_an_input_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "v.json"
    path.write_text(content)
    with pytest.raises(InputError):
        Verdict.read(path)


def test_truncated_document_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "v.json"
    verdict().write(path)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 2, 25):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            Verdict.read(path)
