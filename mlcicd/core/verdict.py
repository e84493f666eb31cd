"""The verdict: the one document every stage ends in.

Rendering, pull-request comments, later gates and signatures read this document and nothing else. It is JSON with a
published schema (:func:`json_schema`); non-finite numbers are the strings ``"NaN"``, ``"Infinity"`` and
``"-Infinity"``, because JSON has no others and a metric that is NaN must not turn into a missing one.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from mlcicd.core.errors import ExitCode, InputError, redact
from mlcicd.core.files import write_atomic


class Status(StrEnum):
    """What a stage concluded."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    UNGATED = "ungated"
    SKIPPED = "skipped"
    ERROR = "error"


class CheckStatus(StrEnum):
    """What one check concluded."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    SKIPPED = "skipped"


class Severity(StrEnum):
    """`fail`: a failed check fails the verdict. `warn`: it is reported, and fails nothing."""

    FAIL = "fail"
    WARN = "warn"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=True)


_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _number_again(value: Any) -> Any:
    return _NON_FINITE.get(value, value) if isinstance(value, str) else value


Observed = Annotated[float | str | None, BeforeValidator(_number_again)]


class Check(_Model):
    """One thing that was looked at.

    `observed`, `interval` and `required` are what was seen, its confidence interval (same unit) and what was asked
    for, in words a reader of the report understands (``>= 0.70``, ``within 0.005 of the champion``).
    """

    name: str
    status: CheckStatus
    observed: Observed = None
    interval: tuple[float, float] | None = None
    reference: Observed = None
    required: str = ""
    slice: str = ""
    severity: Severity = Severity.FAIL
    reason: str = ""
    remedy: str = ""
    details: dict[str, Any] = Field(default_factory=dict)


class Subject(_Model):
    """What the verdict is about: a kind (`git`, `data`, `model`, `config`, `environment`), a name, a digest."""

    kind: str
    name: str
    digest: str
    details: dict[str, Any] = Field(default_factory=dict)


class Evidence(_Model):
    """A file that backs the verdict, relative to the project's root, with its digest."""

    path: str
    digest: str
    kind: str = ""


class Verdict(_Model):
    """What one run of one stage concluded, over which bytes, and why."""

    schema_version: Literal[1] = 1
    stage: str
    status: Status
    summary: str = ""
    dry_run: bool = False
    subjects: list[Subject] = Field(default_factory=list)
    checks: list[Check] = Field(default_factory=list)
    evidence: list[Evidence] = Field(default_factory=list)
    outputs: dict[str, str] = Field(default_factory=dict)
    details: dict[str, Any] = Field(default_factory=dict)
    started: datetime
    finished: datetime
    tool: str = ""
    error_exit_code: int | None = None

    @property
    def exit_code(self) -> ExitCode:
        """The process exit status this verdict means. A dry run never blocks."""
        if self.status is Status.ERROR:
            return ExitCode(self.error_exit_code or ExitCode.DEFECT)
        if self.dry_run:
            return ExitCode.PASSED
        return {
            Status.PASSED: ExitCode.PASSED,
            Status.SKIPPED: ExitCode.PASSED,
            Status.UNGATED: ExitCode.PASSED,
            Status.FAILED: ExitCode.GATE_FAILED,
            Status.INCONCLUSIVE: ExitCode.INCONCLUSIVE,
        }[self.status]

    def subject(self, kind: str, name: str = "") -> Subject | None:
        """The first subject of a kind (and name, if given), or None."""
        for subject in self.subjects:
            if subject.kind == kind and name in ("", subject.name):
                return subject
        return None

    def to_json(self) -> dict[str, Any]:
        """The document as plain JSON values."""
        document: dict[str, Any] = _plain(self.model_dump(mode="json"))
        return document

    def write(self, path: Path) -> None:
        """Writes the document atomically: a reader sees the old one or the new one, never half of one."""
        write_atomic(path, json.dumps(self.to_json(), indent=2, allow_nan=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> Verdict:
        """Reads a verdict.

        Raises:
            InputError: there is none at `path`, or it is not a verdict of a version this library reads.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise InputError(
                "no verdict here",
                where=str(path),
                why="A later stage acts on the verdict of an earlier one, and that one has not run.",
                remedy="run the earlier stage first",
            ) from None
        except (ValidationError, UnicodeDecodeError, OSError) as error:
            raise InputError(
                "this is not a verdict that can be read",
                where=str(path),
                why=str(error).splitlines()[0],
                remedy="delete it and run the stage again",
            ) from error


def conclude(checks: list[Check]) -> Status:
    """The status that a list of checks amounts to.

    A failed check of severity `fail` fails the verdict; an inconclusive one makes it inconclusive; no enforcing check
    at all is `ungated`: nothing was required, so nothing was passed.
    """
    enforcing = [c for c in checks if c.severity is Severity.FAIL and c.status is not CheckStatus.SKIPPED]
    if any(c.status is CheckStatus.FAILED for c in enforcing):
        return Status.FAILED
    if any(c.status is CheckStatus.INCONCLUSIVE for c in enforcing):
        return Status.INCONCLUSIVE
    if not enforcing:
        return Status.UNGATED
    return Status.PASSED


def _plain(value: Any) -> Any:
    """Numbers that JSON has, and text without secrets."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, float) and not math.isfinite(value):
        return next(text for text, number in _NON_FINITE.items() if str(number) == str(value))
    return value


def now() -> datetime:
    """The current time, in UTC."""
    return datetime.now(UTC)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the verdict document."""
    schema = Verdict.model_json_schema(mode="serialization")
    # JSON has no word for these, so an interval's ends may be one of ours.
    words = {"type": "string", "enum": list(_NON_FINITE)}
    ends = schema["$defs"]["Check"]["properties"]["interval"]["anyOf"][0]
    ends["prefixItems"] = [{"anyOf": [item, words]} for item in ends["prefixItems"]]
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "mlcicd verdict"
    return schema
