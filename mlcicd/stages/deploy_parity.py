"""Whether the server that deploy has started answers what the model answered where it was evaluated."""

from __future__ import annotations

from pathlib import Path

from mlcicd.config import seconds
from mlcicd.core.verdict import Check, CheckStatus, Severity
from mlcicd.data.questions import questions
from mlcicd.data.source import open_source
from mlcicd.evaluation.golden import golden_rows
from mlcicd.serving.parity import NAME, compare_answers
from mlcicd.stages.common import prepare_data
from mlcicd.stages.places import Place, token
from mlcicd.stages.record import Record


def parity(record: Record, where: Place, url: str, model: Path) -> Check:
    """Rows of the holdout, asked of the running server and of the runner that evaluates.

    Raises:
        InputError: parity is configured, and the holdout is not here; or the rows do not fit the model.
        CommandFailed: the model could not be asked.
    """
    project, settings = record.project, where.settings.parity
    if not settings.rows:
        return _skipped(f"deploy.environments.{where.name}.parity.rows is 0")
    holdout = project.config.data.holdout
    if "parity" in where.settings.model_fields_set:
        prepare_data(record, holdout)
    elif not (project.root / holdout).exists():
        return _skipped("the holdout is not here; name `parity` under the environment to insist on it")
    record.progress.step(f"comparing {settings.rows} answers of the server with those of the evaluated model")
    source = open_source(project.path(holdout, ("data", "holdout")))
    with questions(source, project.config.data.target, project.state / "cache", most=settings.rows) as rows:
        golden = golden_rows(
            model,
            rows,
            target=project.config.data.target,
            ignore=project.config.data.ignore,
            python=project.python,
            environ=project.environ,
            cwd=project.root,
            timeout=seconds(project.config.evaluate.timeout),
            progress=record.progress,
        )
    return compare_answers(url, golden.body, golden.answer, tolerance=settings.tolerance, token=token(project))


def _skipped(reason: str) -> Check:
    return Check(name=NAME, status=CheckStatus.SKIPPED, severity=Severity.WARN, reason=reason)
