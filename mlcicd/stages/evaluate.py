"""evaluate: the candidate on the holdout, against its gates and against the champion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlcicd.config import FILE_NAME, Project, seconds
from mlcicd.core.digests import digest_tree
from mlcicd.core.errors import ConfigError, InputError
from mlcicd.core.verdict import Check, CheckStatus, Severity, Status, Verdict, conclude
from mlcicd.data.questions import questions
from mlcicd.data.source import Source, open_source, quote, reading
from mlcicd.evaluation import budgets
from mlcicd.evaluation.curves import figures as curve_figures
from mlcicd.evaluation.gates import judge_gates
from mlcicd.evaluation.intervals import MetricResult, estimate
from mlcicd.evaluation.metrics import names as metric_names
from mlcicd.evaluation.predictions import Predictions
from mlcicd.evaluation.requirements import Gate, SliceGate, VsChampion
from mlcicd.evaluation.scoring import Scored, score
from mlcicd.evaluation.slices import SliceResult, by_values
from mlcicd.registry import Registry
from mlcicd.stages.common import data_path, digest_of, earlier, prepare_data, registry_of
from mlcicd.stages.insight import add_insight
from mlcicd.stages.record import Record, stage
from mlcicd.stages.reference import champion_version
from mlcicd.stages.train import fingerprint_of

# Shown beside the gated metrics, so that a reader sees more than what was asked.
_ALWAYS = {"binary": ("roc_auc", "log_loss"), "multiclass": ("accuracy",), "regression": ("mae", "rmse")}


@dataclass(frozen=True)
class _Model:
    """A model on disk, and where it comes from."""

    path: Path
    digest: str
    run_id: str = ""
    version: str = ""


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
    candidate = _candidate(record, registry, model)
    champion = _champion(record, registry)
    record.subject("model", "candidate", candidate.digest, run=candidate.run_id)
    record.outputs.update({"run-id": candidate.run_id, "champion-version": champion.version if champion else ""})
    if champion is not None:
        record.subject("model", "champion", champion.digest, run=champion.run_id, version=champion.version)
    holdout = open_source(holdout_path)
    y = _column(holdout, project.config.data.target)
    with questions(holdout, project.config.data.target, project.state / "cache") as asked:
        scored = _score(record, candidate, asked, "candidate", len(y))
        scored_champion = _score(record, champion, asked, "champion", len(y)) if champion else None
    predictions = _predictions(record, scored)
    champion_predictions = _predictions(record, scored_champion) if scored_champion else None
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
    slice_gates = [_slice_gate(gate) for gate in settings.slices]
    checks = judge_gates(
        [_gate(name, settings.gates[name]) for name in gates],
        results,
        slice_gates=slice_gates,
        slice_results=_slices(record, holdout, y, predictions, champion_predictions),
        without_champion=settings.no_champion,
    )
    checks += _budget_checks(record, scored, candidate, scored_champion, champion)
    gate_checks = [_at_line(record, check) for check in checks]
    record.checks += gate_checks
    add_insight(record, holdout, _column, y, predictions, champion_predictions)
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


def known_metrics(project: Project) -> None:
    """Checks the names of metrics before anything is scored.

    Raises:
        ConfigError: there is no such metric for the task, or a budget has more than `max`; on its line.
    """
    import difflib

    settings = project.config.evaluate
    known = [*metric_names(project.config.model.task), *budgets.NAMES]
    asked = [(("evaluate", "gates", name), name) for name in settings.gates]
    asked += [(("evaluate", "slices", i, "metric"), s.metric) for i, s in enumerate(settings.slices)]  # type: ignore[misc]
    for path, name in asked:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise ConfigError(
                f"there is no metric {name!r} for a {project.config.model.task} model"
                + (f"; did you mean {close[0]!r}?" if close else ""),
                file=FILE_NAME,
                line=project.document.line(path),
                remedy=f"choose from {', '.join(known)}",
            )
    for name, gate in settings.gates.items():
        if name in budgets.NAMES and (gate.max is None or gate.min is not None or gate.vs_champion is not None):
            raise ConfigError(
                f"{name} is a budget: it takes `max`, and nothing else",
                file=FILE_NAME,
                line=project.document.line(("evaluate", "gates", name)),
            )


def _candidate(record: Record, registry: Registry, model: str) -> _Model:
    project = record.project
    if model:
        path = Path(model) if Path(model).is_absolute() else project.root / model
        if not (path / "MLmodel").is_file():
            raise InputError("this is not an MLflow model directory (it has no MLmodel file)", where=str(path))
        return _Model(path, digest_tree(path))
    trained = earlier(project, "train")
    record.checks.append(_same_training(record, trained))
    subject = trained.subject("model", "candidate")
    if subject is None:
        raise InputError(
            "the last training left no model",
            where=".mlcicd/verdicts/train.json",
            why=f"It ended {trained.status}: {trained.summary}",
            remedy="mend the training and run `mlcicd train`",
        )
    for data in trained.subjects:
        if data.kind == "data" and data.name == "train":
            record.subjects.append(data)
    run_id = trained.outputs["run-id"]
    local = project.root / project.config.train.artifact
    if local.is_dir() and digest_tree(local) == subject.digest:
        return _Model(local, subject.digest, run_id)
    path = registry.fetch_model(run_id, project.model_cache, digest=subject.digest)
    return _Model(path, subject.digest, run_id)


def _same_training(record: Record, trained: Verdict) -> Check:
    """Whether the model was trained from the code, data, parameters and environment of now; gates may have changed."""
    then = trained.details.get("fingerprint")
    changed = fingerprint_of(record.project).changed_from(then) if isinstance(then, dict) else ["everything"]
    if not changed:
        return Check(name="evidence: train", status=CheckStatus.PASSED, observed=str(trained.status))
    return Check(
        name="evidence: train",
        status=CheckStatus.FAILED,
        reason=f"the model was trained with something else: {', '.join(changed)} changed since",
        remedy="run `mlcicd train` again",
    )


def _champion(record: Record, registry: Registry) -> _Model | None:
    version = champion_version(record.project, registry)
    named = record.project.config.evaluate.champion
    if version is None and named:
        raise InputError(
            f"evaluate.champion names {named}, and there is no such version",
            where=f"{FILE_NAME}:{record.project.document.line(('evaluate', 'champion'))}",
            remedy="correct it, or leave it out: without it, the champion alias of this model is meant",
        )
    if version is None:
        fails = record.project.config.evaluate.no_champion == "fail"
        record.checks.append(
            Check(
                name="champion",
                status=CheckStatus.FAILED if fails else CheckStatus.SKIPPED,
                reason="there is no champion yet: absolute gates alone decide (bootstrap)"
                if not fails
                else "there is no champion, and evaluate.no_champion says to fail then",
            )
        )
        return None
    if not version.digest:
        raise InputError(
            f"the champion, version {version.version}, was not registered by mlcicd: its bytes can not be verified",
            where=f"{version.name} version {version.version}",
            remedy="register it with `mlcicd register`, or remove the alias to start again",
        )
    record.progress.step(f"fetching the champion, version {version.version}")
    path = registry.fetch_model(version.run_id, record.project.model_cache, digest=version.digest)
    return _Model(path, version.digest, version.run_id, version.version)


def _score(record: Record, model: _Model, asked: Path, what: str, rows: int) -> Scored:
    project = record.project
    record.progress.step(f"scoring the {what} on {rows:,} rows")
    scored = score(
        model.path,
        asked,
        model_digest=model.digest,
        data_digest=digest_of(record, "data", "holdout"),
        target=project.config.data.target,
        ignore=project.config.data.ignore,
        python=project.python,
        environ=project.environ,
        cache=project.state / "cache" / "predictions",
        cwd=project.root,
        timeout=seconds(project.config.evaluate.timeout),
        what=what,
        progress=record.progress,
    )
    if len(scored.answer) != rows:
        raise InputError(f"the {what} was scored on {len(scored.answer)} rows, and the holdout has {rows}")
    record.details[f"{what}_cost"] = {
        key: scored.figures[key] for key in ("load_seconds", "score_seconds", "peak_bytes")
    }
    return scored


def _predictions(record: Record, scored: Scored) -> Predictions:
    """What an answer array means for the task: values, labels, or scores by class."""
    answer, classes = scored.answer, scored.figures.get("classes")
    if record.project.config.model.task == "regression":
        return Predictions(labels=answer)
    if answer.ndim == 2:
        return Predictions(scores=answer, classes=classes)
    # One column of fractions is a score of the positive class; anything else are labels.
    if np.issubdtype(answer.dtype, np.floating) and not np.all(np.isin(answer, (0.0, 1.0))):
        return Predictions(scores=answer)
    return Predictions(labels=answer)


def _column(source: Source, name: str) -> np.ndarray[Any, Any]:
    """(n,) values of a column, in the file's order; a missing number is NaN, a missing text None."""
    if name not in source.columns:
        raise InputError(f"the holdout has no column {name!r}", where=str(source.path))
    with reading(str(source.path)):
        values = source.relation.select(quote(name)).fetchnumpy()[name]
    missing = np.ma.getmaskarray(values)
    if not missing.any():
        return np.asarray(values)
    kind, hole = (float, np.nan) if values.dtype.kind in "iufb" else (object, None)
    array = np.asarray(values).astype(kind)
    array[missing] = hole
    return array


def _gate(name: str, gate: Any) -> Gate:
    versus = gate.vs_champion
    return Gate(
        metric=name,
        min=gate.min,
        max=gate.max,
        vs_champion=VsChampion(margin=versus.margin, superiority=versus.superiority) if versus else None,
        severity=Severity(gate.severity),
    )


def _slice_gate(gate: Any) -> SliceGate:
    return SliceGate(
        by=gate.by,
        metric=gate.metric,
        min=gate.min,
        max=gate.max,
        min_rows=gate.min_rows,
        severity=Severity(gate.severity),
    )


def _slices(
    record: Record, holdout: Source, y: Any, candidate: Predictions, champion: Predictions | None
) -> list[SliceResult]:
    """Metrics of every slice that a gate asks about."""
    settings = record.project.config.evaluate
    found: list[SliceResult] = []
    for column in dict.fromkeys(gate.by for gate in settings.slices):
        asked = [gate for gate in settings.slices if gate.by == column]
        record.progress.step(f"slices by {column}")
        found += by_values(
            record.project.config.model.task,
            list(dict.fromkeys(gate.metric for gate in asked)),
            y,
            candidate,
            champion,
            by=column,
            column=_column(holdout, column),
            min_rows=min(gate.min_rows for gate in asked),
            confidence=settings.confidence,
            resamples=settings.resamples,
        )
    return found


def _budget_checks(
    record: Record, scored: Scored, candidate: _Model, scored_champion: Scored | None, champion: _Model | None
) -> list[Check]:
    settings = record.project.config.evaluate
    wanted = {name: gate for name, gate in settings.gates.items() if name in budgets.NAMES}
    if not wanted:
        return []
    own = budgets.measure(scored.figures, candidate.path, confidence=settings.confidence)
    other = None
    if scored_champion is not None and champion is not None:
        other = budgets.measure(scored_champion.figures, champion.path, confidence=settings.confidence)
    return [
        budgets.budget_check(name, own, other, maximum=gate.max, severity=Severity(gate.severity))
        for name, gate in wanted.items()
        if gate.max is not None
    ]


def _at_line(record: Record, check: Check) -> Check:
    """Pins a check to the line of mlcicd.yaml that asks for it, for annotations."""
    gates = record.project.config.evaluate.gates
    name = next((g for g in gates if check.name == g or check.name.startswith(f"{g} ")), "")
    path: tuple[str | int, ...] = ("evaluate", "gates", name) if name and not check.slice else ("evaluate", "slices")
    line = record.project.document.line(path)
    return check.model_copy(update={"details": {**check.details, "line": line}})
