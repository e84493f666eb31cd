"""Waivers: read from the project's file, applied to its gates, announced wherever the verdict goes."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from mlcicd.config import Project
from mlcicd.config.expectations import Waiver, Waivers
from mlcicd.config.load import validate
from mlcicd.core.digests import digest_file
from mlcicd.core.verdict import Check, CheckStatus, Severity, Verdict, now
from mlcicd.core.yaml_lines import read_yaml
from mlcicd.evaluation.waivers import apply_waivers
from mlcicd.stages.record import Record


def read_waivers(project: Project) -> tuple[Waiver, ...]:
    """The waivers of the project's file; none when no file is named.

    Raises:
        ConfigError: something in the file is wrong; the error names its line.
        InputError: the file is not there.
    """
    named = project.config.evaluate.waivers
    if not named:
        return ()
    path = project.path(named, ("evaluate", "waivers"))
    document = read_yaml(path, file=named, environ={}, interpolate=False)
    return tuple(validate(Waivers, document.data, document).waivers)


def waive(record: Record, checks: Sequence[Check]) -> list[Check]:
    """The checks after the project's waivers, each of which becomes a finding of the verdict."""
    project = record.project
    waivers = read_waivers(project)
    if not waivers:
        return list(checks)
    file = project.config.evaluate.waivers
    record.subject("waivers", file, digest_file(project.root / file))
    if record.git.commit and not _committed(project.root, file):
        record.checks.append(
            Check(
                name="waivers",
                status=CheckStatus.FAILED,
                severity=Severity.WARN,
                reason=f"{file} is not committed as it stands, so it waives nothing: nobody has reviewed it",
                remedy=f"commit {file}",
            )
        )
        return list(checks)
    result = apply_waivers(checks, waivers, now().date())
    line = project.document.line(("evaluate", "waivers"))
    record.checks += [f.model_copy(update={"details": {**f.details, "line": line}}) for f in result.findings]
    record.details["waivers"] = [
        {**waiver.model_dump(mode="json"), "state": state} for waiver, state in zip(waivers, result.states, strict=True)
    ]
    return result.checks


def _committed(root: Path, file: str) -> bool:
    """Whether git has the file as it is: a change, an untracked and an ignored one all show in its status."""
    command = ["git", "-C", str(root), "status", "--porcelain", "--ignored", "--", file]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and not done.stdout.strip()


def announced(record: Record) -> str:
    """The record's summary, with the waivers that let it pass in front."""
    used = [w for w in record.details.get("waivers", []) if w["state"] == "used"]
    if not used:
        return record.summary
    gates = ", ".join(" ".join(filter(None, (w["gate"], w["slice"]))) for w in used)
    loud = f"PASSED WITH {len(used)} WAIVER{'S' * (len(used) != 1)} ({gates})"
    return f"{loud}: {record.summary}" if record.summary else loud


def waiver_tag(evaluation: Verdict) -> str:
    """What the registry says about the waivers that let a version in; empty when there were none."""
    used = [w for w in evaluation.details.get("waivers", []) if w["state"] == "used"]
    return "; ".join(
        f"{' '.join(filter(None, (w['gate'], w['slice'])))} until {w['expires']} by {w['approver']}: {w['reason']}"
        for w in used
    )
