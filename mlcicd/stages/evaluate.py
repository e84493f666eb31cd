"""evaluate: the candidate on the holdout, against its gates and against the champion."""

from __future__ import annotations

from mlcicd.core.errors import ConfigError, ServiceError
from mlcicd.core.verdict import Check, CheckStatus, Severity, Status, conclude
from mlcicd.data.source import open_source
from mlcicd.evaluation import budgets
from mlcicd.evaluation.curves import figures as curve_figures
from mlcicd.evaluation.gates import judge_gates
from mlcicd.evaluation.intervals import MetricResult
from mlcicd.registry import Registry
from mlcicd.stages.common import data_path, prepare_data, registry_of
from mlcicd.stages.evaluate_answers import answers_of, file_model
from mlcicd.stages.evaluate_changes import add_change_origin
from mlcicd.stages.evaluate_gates import (
    at_line,
    budget_checks,
    column_values,
    gate_of,
    known_columns,
    known_metrics,
    slice_gate_of,
)
from mlcicd.stages.evaluate_metrics import metric_results, rows_of
from mlcicd.stages.evaluate_models import Model, candidate_model, champion_model
from mlcicd.stages.evaluate_seeds import add_seed_noise
from mlcicd.stages.evaluate_slices import slice_results
from mlcicd.stages.expectations import Ground, check_expectations, further_gates
from mlcicd.stages.expectations_contract import count_judgement
from mlcicd.stages.expectations_waivers import announced
from mlcicd.stages.insight import add_insight
from mlcicd.stages.record import Record, stage


@stage("evaluate")
def evaluate(
    record: Record, *, model: str = "", predictions: str = "", champion_predictions: str = ""
) -> Status | None:
    """Scores candidate and champion on the same holdout rows and judges every gate.

    Args:
        model: a model directory or file, or `module:function`; empty for the model of this project's `train`.
        predictions: file of the candidate's predictions, which is then not loaded at all.
        champion_predictions: file of the champion's predictions, instead of the registry's champion.
    """
    project = record.project
    settings = project.config.evaluate
    known_metrics(project)
    check_expectations(record)
    prepare_data(record)
    holdout_path = data_path(record, "holdout")
    holdout = open_source(holdout_path)
    known_columns(project, holdout)
    registry = registry_of(project)
    candidate, champion = _models(record, registry, model, predictions, champion_predictions)
    _count(record, registry, candidate, champion)
    settings = record.project.config.evaluate
    y = column_values(holdout, project.config.data.target)
    own, other = answers_of(record, holdout, y, candidate, champion)
    both = (own.predictions, other.predictions if other else None)
    record.progress.step("computing metrics and intervals")
    gates = [name for name in settings.gates if name not in budgets.NAMES]
    rows = rows_of(record, holdout)
    results = metric_results(record, holdout, y, both, rows, gates)
    record.details["metrics"] = [result.to_dict() for result in results]
    slice_gates = [slice_gate_of(gate) for gate in settings.slices]
    checks = judge_gates(
        [gate_of(name, settings.gates[name]) for name in gates],
        results,
        slice_gates=slice_gates,
        slice_results=slice_results(record, holdout, y, both, rows),
        without_champion=settings.no_champion,
    )
    checks += budget_checks(record, own.scored, candidate, other.scored if other else None, champion)
    known = _known(champion)
    ground = Ground(registry, holdout, y, candidate, both[0], known, both[1], rows.weight, rows.structure)
    add_seed_noise(record, registry, holdout, y, candidate, rows, results)
    add_change_origin(record, ground, results)
    gate_checks = further_gates(record, [at_line(record, check) for check in checks], ground)
    record.checks += gate_checks
    add_insight(record, holdout, column_values, y, *both, rows)
    record.figure(*curve_figures(project.config.model.task, y, *both, sample_weight=rows.weight, results=results))
    # Evidence that is in order is no gate: where nothing was judged, nothing was passed.
    judged = conclude(gate_checks)
    everything = conclude(record.checks)
    if judged is Status.UNGATED and everything is Status.PASSED:
        return Status.UNGATED
    if everything is Status.PASSED and gates:
        record.summary = _headline(next(r for r in results if r.name == gates[0]), len(y), gate_checks)
    if everything is Status.PASSED:
        record.summary = announced(record)
    return everything


def _models(
    record: Record, registry: Registry, model: str, predictions: str, champion_predictions: str
) -> tuple[Model, Model | None]:
    """Candidate and champion, which become subjects of the verdict."""
    if model and predictions:
        raise ConfigError("--model and --predictions both name the candidate", remedy="give one of them")
    if predictions:
        candidate = file_model(record, predictions, "candidate")
    else:
        candidate = candidate_model(record, registry, model)
        record.subject("model", "candidate", candidate.digest, run=candidate.run_id)
    champion: Model | None
    if champion_predictions:
        champion = file_model(record, champion_predictions, "champion")
    else:
        champion = champion_model(record, registry)
        if champion is not None:
            where = {"run": champion.run_id, "of": champion.name, "version": champion.version}
            record.subject("model", "champion", champion.digest, **where)
    record.outputs.update({"run-id": candidate.run_id, "champion-version": champion.version if champion else ""})
    return candidate, champion


def _count(record: Record, registry: Registry, candidate: Model, champion: Model | None) -> None:
    """Counts this look at the holdout. Where nothing else needs a registry, its absence is no error."""
    try:
        count_judgement(record, registry, candidate)
    except ServiceError as error:
        if candidate.answers is None or champion is None or champion.answers is None:
            raise
        record.checks.append(
            Check(
                name="holdout wear",
                status=CheckStatus.SKIPPED,
                severity=Severity.WARN,
                reason=f"this look at the holdout could not be counted: {error.one_line()}",
            )
        )


def _known(champion: Model | None) -> Model | None:
    """The champion, if there is more of it than a file of predictions."""
    return champion if champion is None or champion.answers is None else None


def _headline(result: MetricResult, rows: int, checks: list[Check]) -> str:
    """The first gate's figure, as a person would tell it, and how many gates there were."""
    text = f"{result.name} {result.candidate:.4g} on {rows:,} rows"
    if result.difference is not None and result.difference_interval is not None:
        low, high = result.difference_interval
        text += f", {result.difference:+.3g} [{low:+.3g}, {high:+.3g}] against the champion"
    passed = sum(c.status is CheckStatus.PASSED for c in checks)
    skipped = sum(c.status is CheckStatus.SKIPPED for c in checks)
    text += f"; {passed} gate{'s' * (passed != 1)} passed"
    return f"{text}, {skipped} could not be judged without a champion" if skipped else text
