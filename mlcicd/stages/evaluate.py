"""evaluate: the candidate on the holdout, against its gates and against the champion."""

from __future__ import annotations

from mlcicd.core.verdict import Check, CheckStatus, Status, conclude
from mlcicd.data.questions import questions
from mlcicd.data.source import open_source
from mlcicd.evaluation import budgets
from mlcicd.evaluation.curves import figures as curve_figures
from mlcicd.evaluation.gates import judge_gates
from mlcicd.evaluation.intervals import MetricResult, estimate
from mlcicd.stages.common import data_path, prepare_data, registry_of
from mlcicd.stages.evaluate_gates import (
    at_line,
    budget_checks,
    column_values,
    gate_of,
    known_metrics,
    slice_gate_of,
    slice_results,
)
from mlcicd.stages.evaluate_models import as_predictions, candidate_model, champion_model, score_model
from mlcicd.stages.insight import add_insight
from mlcicd.stages.record import Record, stage

# Shown beside the gated metrics, so that a reader sees more than what was asked.
_ALWAYS = {"binary": ("roc_auc", "log_loss"), "multiclass": ("accuracy",), "regression": ("mae", "rmse")}


@stage("evaluate")
def evaluate(record: Record, *, model: str = "") -> Status | None:
    """Scores candidate and champion on the same holdout rows and judges every gate.

    Args:
        model: a model directory; empty for the model of this project's `train`.
    """
    project = record.project
    settings = project.config.evaluate
    known_metrics(project)
    prepare_data(record)
    holdout_path = data_path(record, "holdout")
    registry = registry_of(project)
    candidate = candidate_model(record, registry, model)
    champion = champion_model(record, registry)
    record.subject("model", "candidate", candidate.digest, run=candidate.run_id)
    record.outputs.update({"run-id": candidate.run_id, "champion-version": champion.version if champion else ""})
    if champion is not None:
        record.subject("model", "champion", champion.digest, run=champion.run_id, version=champion.version)
    holdout = open_source(holdout_path)
    y = column_values(holdout, project.config.data.target)
    with questions(holdout, project.config.data.target, project.state / "cache") as asked:
        scored = score_model(record, candidate, asked, "candidate", len(y))
        scored_champion = score_model(record, champion, asked, "champion", len(y)) if champion else None
    predictions = as_predictions(record, scored)
    champion_predictions = as_predictions(record, scored_champion) if scored_champion else None
    record.progress.step("computing metrics and intervals")
    gates = [name for name in settings.gates if name not in budgets.NAMES]
    shown = [*gates, *(m for m in _ALWAYS[project.config.model.task] if m not in gates)]
    results = estimate(
        project.config.model.task,
        shown,
        y,
        predictions,
        champion_predictions,
        confidence=settings.confidence,
        resamples=settings.resamples,
    )
    record.details["metrics"] = [result.to_dict() for result in results]
    slice_gates = [slice_gate_of(gate) for gate in settings.slices]
    checks = judge_gates(
        [gate_of(name, settings.gates[name]) for name in gates],
        results,
        slice_gates=slice_gates,
        slice_results=slice_results(record, holdout, y, predictions, champion_predictions),
        without_champion=settings.no_champion,
    )
    checks += budget_checks(record, scored, candidate, scored_champion, champion)
    gate_checks = [at_line(record, check) for check in checks]
    record.checks += gate_checks
    add_insight(record, holdout, column_values, y, predictions, champion_predictions)
    record.figure(*curve_figures(project.config.model.task, y, predictions, champion_predictions, results=results))
    # Evidence that is in order is no gate: where nothing was judged, nothing was passed.
    judged = conclude(gate_checks)
    everything = conclude(record.checks)
    if judged is Status.UNGATED and everything is Status.PASSED:
        return Status.UNGATED
    if everything is Status.PASSED and gates:
        record.summary = _headline(next(r for r in results if r.name == gates[0]), len(y), gate_checks)
    return everything


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
