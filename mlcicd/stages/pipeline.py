"""run: several stages in order, as CI would; the first that does not pass ends it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlcicd import stages as all_stages
from mlcicd.config import FILE_NAME
from mlcicd.core.errors import ConfigError
from mlcicd.core.verdict import Check, CheckStatus, Status
from mlcicd.stages.common import run_project_command
from mlcicd.stages.evaluate_gates import known_metrics
from mlcicd.stages.record import ORDER, Record, stage

_GO_ON = (Status.PASSED, Status.SKIPPED, Status.UNGATED)


@stage("run")
def run(
    record: Record,
    /,
    *,
    stages: Sequence[str] = ("validate-data", "train", "evaluate"),
    refresh: bool = False,
    **options: Any,
) -> Status:
    """Runs stages in order.

    Args:
        refresh: first run `data.refresh`, which makes the newest data part of the training data.
        stages: names, in the order of the pipeline.
        options: keyword arguments of single stages, by name with underscores: `deploy={"approved_by": "ann"}`.
    """
    # `plan` alone: nothing is run, and a workflow learns what to branch on.
    wanted = [] if list(stages) == ["plan"] else _checked(stages)
    if "evaluate" in wanted:
        # A misspelled metric is told now, not after the training.
        known_metrics(record.project)
    if refresh:
        _refresh(record)
    done: list[str] = []
    record.details["stages"] = done
    record.outputs.update(_plan(record))
    for name in wanted:
        record.progress.step(f"stage {name}")
        function = getattr(all_stages, name.replace("-", "_"))
        verdict = function(
            record.project,
            dry_run=record.dry_run,
            progress=record.progress,
            **options.get(name.replace("-", "_"), {}),
        )
        done.append(name)
        record.outputs.update(verdict.outputs)
        passed = verdict.status in _GO_ON or (verdict.dry_run and verdict.status is not Status.ERROR)
        record.checks.append(
            Check(
                name=name,
                status=CheckStatus.PASSED if passed else CheckStatus.FAILED,
                observed=str(verdict.status),
                reason="" if passed else verdict.summary,
            )
        )
        if not passed:
            record.outputs["failed-stage"] = name
            record.summary = f"{name}: {verdict.summary}"
            record.error_exit_code = int(verdict.exit_code)
            return Status(verdict.status)
    if not done:
        record.summary = "nothing was to be run"
        return Status.SKIPPED
    if all(check.observed == Status.SKIPPED for check in record.checks):
        return Status.SKIPPED
    record.summary = f"{', '.join(done)} passed"
    return Status.UNGATED if any(check.observed == Status.UNGATED for check in record.checks) else Status.PASSED


def _refresh(record: Record) -> None:
    command = record.project.config.data.refresh
    if not command:
        raise ConfigError(
            "--refresh needs data.refresh, the command that makes the newest data part of the training data",
            file=FILE_NAME,
            line=record.project.document.line(("data",)),
            remedy="add it, or leave --refresh out when data.prepare always brings the newest data",
        )
    if not record.dry_run:
        run_project_command(record, command, "refreshing the data")


def _plan(record: Record) -> dict[str, str]:
    """What a CD workflow branches on: production's name, and the GitHub environment whose reviewers approve it."""
    deploy = record.project.config.deploy
    production = list(deploy.environments)[-1] if deploy.environments else ""
    unattended = deploy.mode == "deployment"
    return {
        "production": production,
        "github-environment": f"{production}-unattended" if unattended else production,
    }


def _checked(stages: Sequence[str]) -> list[str]:
    unknown = [name for name in stages if name not in ORDER]
    if unknown or not stages:
        raise ConfigError(
            f"unknown stage {unknown[0]!r}" if unknown else "no stages were given",
            remedy=f"choose from {', '.join(ORDER)}",
        )
    positions = [ORDER.index(name) for name in stages]
    if sorted(set(positions)) != positions:
        raise ConfigError(
            f"stages are out of order: {', '.join(stages)}", remedy=f"the order is {', '.join(ORDER)}, each once"
        )
    return list(stages)
