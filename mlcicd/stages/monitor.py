"""monitor: has the world moved away from what the champion learned?"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

from mlcicd.config import seconds
from mlcicd.config.data import Drift
from mlcicd.core.digests import digest_tree
from mlcicd.core.errors import InputError
from mlcicd.core.verdict import Check, CheckStatus, Severity, Status, now
from mlcicd.data.source import open_source
from mlcicd.monitoring.breach import Breach, BreachRule, judge_breach
from mlcicd.registry import Registry
from mlcicd.registry.tracking import TAG
from mlcicd.stages.common import data_path, prepare_files, registry_of
from mlcicd.stages.data_sets import bring_snapshots
from mlcicd.stages.drifting import drift_findings
from mlcicd.stages.record import Record, stage
from mlcicd.stages.reference import champion_profile

_HISTORY = f"{TAG}monitor"
_KEPT = 20


@stage("monitor")
def monitor(record: Record, *, data: str = "", ignore_breach: bool = False) -> Status | None:
    """Compares new data with the champion's profile and judges the rule under `monitor`.

    The results of earlier runs are kept on the champion's version in the registry, where the next run finds them, on
    whatever machine that is.

    Args:
        data: path of the data; `data.current` when empty.
        ignore_breach: conclude `passed` on a breach; outputs and report still tell of it.
    """
    project = record.project
    rule = project.config.data.checks.drift or Drift()
    prepare_files(record)
    if not data:  # the newest is what is asked about, not what an earlier check has seen
        bring_snapshots(record, [project.config.data.current], always=True)
    path = _explicit(record, data) if data else data_path(record, "current")
    registry = registry_of(project)
    version, reference = champion_profile(project, registry)
    if reference is None:
        raise InputError(
            "there is no champion with a profile to compare with",
            why=f"Champion: {f'version {version}' if version else 'none'}.",
            remedy="register and promote a model whose `validate-data` has run",
        )
    record.progress.step(f"comparing {path.name} with the profile of version {version}")
    findings = drift_findings(record, reference, open_source(path), rule, severity=Severity.WARN)
    record.checks += findings
    drifted = _columns_of(findings)
    outcome = _judge(record, registry, version, drifted)
    action = project.config.monitor.on_breach if outcome.breached else "none"
    record.outputs.update(
        {"breached": str(outcome.breached).lower(), "action": action, "drifted-columns": ",".join(drifted)}
    )
    record.checks.append(
        Check(
            name="monitor rule",
            status=CheckStatus.FAILED if outcome.breached else CheckStatus.PASSED,
            observed=f"{len(drifted)} drifted columns: {', '.join(drifted[:5])}" if drifted else "no drifted column",
            required=f"fewer than {project.config.monitor.violations} violations in "
            f"{project.config.monitor.windows} checks",
            severity=Severity.WARN if ignore_breach else Severity.FAIL,
            reason=outcome.reason if outcome.breached else "",
            remedy="retrain on newer data (`mlcicd run --stages validate-data,train,evaluate,register`)"
            if outcome.breached
            else "",
        )
    )
    shown = ", ".join(drifted[:4]) + (f" and {len(drifted) - 4} more" if len(drifted) > 4 else "")
    record.summary = f"{len(drifted)} columns drifted ({shown})" if drifted else "no column drifted"
    record.summary += f"; {action}" if outcome.breached else f"; no action: {outcome.reason}" if drifted else ""
    return Status.PASSED if ignore_breach else None


def _columns_of(findings: list[Check]) -> list[str]:
    """The columns that findings of drift are about, each once."""
    names: list[str] = []
    for check in findings:
        if check.status is CheckStatus.FAILED:
            # A finding about rows, correlations or a slice says which columns it is about.
            alone = check.name.removeprefix("drift.").removeprefix("categories.")
            names += check.details.get("columns") or [alone]
    return list(dict.fromkeys(names))


def _explicit(record: Record, data: str) -> Path:
    path = record.project.path(data)
    record.subject("data", "current", digest_tree(path), path=data)
    return path


def _judge(record: Record, registry: Registry, version: str, drifted: list[str]) -> Breach:
    """Adds this result to the history and asks the rule; the history moves only when this is no dry run."""
    project = record.project
    settings = project.config.monitor
    champion = registry.version(project.config.model.name, version)
    data = next(s.digest for s in record.subjects if s.kind == "data" and s.name == "current")
    entry = {"time": now().isoformat(), "data": data, "breached": bool(drifted)}
    # The same data looked at again is not a second observation; that it was acted upon stays true.
    history = json.loads(champion.tags.get(_HISTORY, "[]"))
    if any(item["data"] == data and item.get("acted") for item in history):
        entry["acted"] = True
    history = [item for item in history if item["data"] != data] + [entry]
    rule = BreachRule(
        windows=settings.windows,
        violations=settings.violations,
        cooldown=timedelta(seconds=seconds(settings.cooldown)),
    )
    outcome = judge_breach(history, rule, now=now())
    if outcome.breached:
        entry["acted"] = True
    if not record.dry_run:
        registry.tag_version(champion.name, version, {_HISTORY: json.dumps(history[-_KEPT:])})
    return outcome
