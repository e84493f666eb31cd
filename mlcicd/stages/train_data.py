"""What a training needs of data: whether DVC's record of it is up to date, and bringing what is not here."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from mlcicd.config import Project
from mlcicd.core.errors import InputError
from mlcicd.core.verdict import Check, CheckStatus, Severity
from mlcicd.stages.common import prepare_data, run_project_command
from mlcicd.stages.record import Record
from mlcicd.training.dvc_pipeline import Pipeline, Stage, read_pipeline, stale


def by_dvc(project: Project) -> bool:
    """Whether the training command is DVC's, which knows itself what is up to date."""
    return project.config.train.run.split()[:1] == ["dvc"]


def relevant_stages(project: Project, pipeline: Pipeline) -> list[Stage]:
    """The DVC stages that make the training data or the model; all of them when DVC trains and declares no model."""
    config = project.config
    found = pipeline.relevant([config.data.train, config.train.artifact])
    return found or (list(pipeline.stages) if by_dvc(project) else [])


def check_lock(record: Record, pipeline: Pipeline) -> CheckStatus | None:
    """Adds what is out of date in `dvc.lock`; FAILED when the configuration says that this ends the training."""
    stages = relevant_stages(record.project, pipeline)
    if not stages:
        return None
    found = stale(pipeline, stages)
    if not found:
        record.checks.append(
            Check(name="dvc.lock", status=CheckStatus.PASSED, observed=f"{len(stages)} stages up to date")
        )
        return CheckStatus.PASSED
    record.details["stale"] = found
    fails = record.project.config.train.stale_lock == "fail"
    record.checks.append(
        Check(
            name="dvc.lock",
            status=CheckStatus.FAILED,
            severity=Severity.FAIL if fails else Severity.WARN,
            observed=f"{len(found)} of {len(stages)} stages out of date",
            required="up to date",
            reason=_told(found),
            remedy="run `dvc repro`, and commit dvc.lock",
        )
    )
    return CheckStatus.FAILED if fails and not record.dry_run else None


def lock_is_mended(project: Project) -> list[Check]:
    """Whether DVC's training has left its lock up to date, as it should."""
    pipeline = read_pipeline(project.root)
    found = stale(pipeline, relevant_stages(project, pipeline))
    if not found:
        return []
    return [
        Check(
            name="dvc.lock after the training",
            status=CheckStatus.FAILED,
            observed=f"{len(found)} stages out of date",
            required="up to date",
            reason=f"`{project.config.train.run}` has run, and {_told(found)}",
            remedy="let it run every stage that the model depends on, such as `dvc repro`",
        )
    ]


def bring_data(record: Record, pipeline: Pipeline, *, pull: bool) -> None:
    """Makes or fetches what the training needs and is not here.

    Raises:
        CommandFailed: `dvc pull` or `data.prepare` failed.
        InputError: the training data is not here after that.
    """
    project = record.project
    if pull:
        missing = _to_pull(project, pipeline)
        if missing:
            run_project_command(record, f"dvc pull {shlex.join(missing)}", "fetching the data")
    prepare_data(record)
    needed = [project.config.data.train]
    if by_dvc(project) and pipeline.makes(needed[0]):
        # DVC makes the training data, and may fetch what it makes that from.
        needed = [] if "--pull" in project.config.train.run else pipeline.sources(relevant_stages(project, pipeline))
    for path in needed:
        if not (project.root / path).exists() and pipeline.records.covering(path):
            raise InputError(
                f"{path} is not here, and DVC has a record of it",
                where=str(project.root / path),
                why="The training can not be skipped: no finished run has this code, data and configuration.",
                remedy="run `mlcicd train --pull`, or say under data.prepare how the data is brought",
            )
    if needed == [project.config.data.train]:
        project.path(needed[0], ("data", "train"))


def _to_pull(project: Project, pipeline: Pipeline) -> list[str]:
    """What is recorded and not here: the data sets, and for a DVC training what its stages read.

    Not what a stage that is out of date makes: DVC makes that anew.
    """
    data = project.config.data
    wanted = {path for path in (data.train, data.holdout, data.current) if path}
    remade: Sequence[Stage] = []
    if by_dvc(project):
        stages = relevant_stages(project, pipeline)
        wanted |= {dep for stage in stages for dep in stage.deps}
        old = stale(pipeline, stages)
        remade = [stage for stage in stages if stage.name in old]
    made_anew = {out for stage in remade for out in stage.outs}
    return sorted(
        path
        for path in wanted - made_anew
        if not (project.root / path).exists() and pipeline.records.covering(path) is not None
    )


def _told(found: dict[str, list[str]]) -> str:
    return "dvc.lock is out of date: " + "; ".join(f"{name}: {', '.join(why)}" for name, why in found.items())
