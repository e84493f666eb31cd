"""The gates of mlcicd.yaml, judged over what was estimated."""

from __future__ import annotations

import difflib
from typing import Any

import numpy as np

from mlcicd.config import FILE_NAME, Project
from mlcicd.core.errors import ConfigError, InputError
from mlcicd.core.verdict import Check, Severity
from mlcicd.data.source import Source, quote, reading
from mlcicd.evaluation import budgets
from mlcicd.evaluation.metrics import is_metric
from mlcicd.evaluation.metrics import names as metric_names
from mlcicd.evaluation.requirements import Gate, SliceGate, VsChampion
from mlcicd.evaluation.scoring import Scored
from mlcicd.stages.evaluate_models import Model
from mlcicd.stages.record import Record


def known_metrics(project: Project) -> None:
    """Checks the names of metrics before anything is scored.

    Raises:
        ConfigError: there is no such metric for the task, a metric of the project's own has the name of another, or a
        budget has more than `max`; on its line.
    """
    settings, task = project.config.evaluate, project.config.model.task
    for name in settings.metrics:
        if name in (*metric_names(), *budgets.NAMES):
            raise ConfigError(
                f"evaluate.metrics defines {name}, which is a metric already",
                file=FILE_NAME,
                line=project.document.line(("evaluate", "metrics", name)),
                remedy="give it a name of its own",
            )
    asked = [(("evaluate", "gates", name), name) for name in settings.gates]
    asked += [(("evaluate", "slices", i, "metric"), s.metric) for i, s in enumerate(settings.slices)]  # type: ignore[misc]
    for path, name in asked:
        if name not in settings.metrics and name not in budgets.NAMES and not is_metric(name, task):
            raise _no_such(project, path, name)
    for name, gate in settings.gates.items():
        if name in budgets.NAMES and (gate.max is None or gate.min is not None or gate.vs_champion is not None):
            raise ConfigError(
                f"{name} is a budget: it takes `max`, and nothing else",
                file=FILE_NAME,
                line=project.document.line(("evaluate", "gates", name)),
            )


def _no_such(project: Project, path: tuple[str | int, ...], name: str) -> ConfigError:
    task = project.config.model.task
    known = [*metric_names(task), *budgets.NAMES, *project.config.evaluate.metrics]
    close = difflib.get_close_matches(name, known, n=1)
    return ConfigError(
        f"there is no metric {name!r} for a {task} model" + (f"; did you mean {close[0]!r}?" if close else ""),
        file=FILE_NAME,
        line=project.document.line(path),
        remedy=f"choose from {', '.join(known)}",
    )


def known_columns(project: Project, holdout: Source) -> None:
    """Checks the columns that slices and fairness gates name, before anything is scored.

    Raises:
        ConfigError: the holdout has no such column; on its line.
    """
    settings = project.config.evaluate
    asked = [(("evaluate", "slices", i, "by"), gate.by) for i, gate in enumerate(settings.slices)]
    asked += [(("evaluate", "fairness", i, "by"), gap.by) for i, gap in enumerate(settings.fairness)]
    for path, name in asked:
        if name in holdout.columns:
            continue
        close = difflib.get_close_matches(name, list(holdout.columns), n=1)
        raise ConfigError(
            f"the holdout has no column {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""),
            file=FILE_NAME,
            line=project.document.line(path),
            remedy=f"choose from {', '.join(list(holdout.columns)[:20])}",
        )


def gate_of(name: str, gate: Any) -> Gate:
    versus = gate.vs_champion
    return Gate(
        metric=name,
        min=gate.min,
        max=gate.max,
        vs_champion=VsChampion(margin=versus.margin, superiority=versus.superiority) if versus else None,
        severity=Severity(gate.severity),
    )


def slice_gate_of(gate: Any) -> SliceGate:
    return SliceGate(
        by=gate.by,
        metric=gate.metric,
        min=gate.min,
        max=gate.max,
        min_rows=gate.min_rows,
        severity=Severity(gate.severity),
    )


def budget_checks(
    record: Record, scored: Scored, candidate: Model, scored_champion: Scored | None, champion: Model | None
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


def at_line(record: Record, check: Check) -> Check:
    """Pins a check to the line of mlcicd.yaml that asks for it, for annotations."""
    gates = record.project.config.evaluate.gates
    name = next((g for g in gates if check.name == g or check.name.startswith(f"{g} ")), "")
    path: tuple[str | int, ...] = ("evaluate", "gates", name) if name and not check.slice else ("evaluate", "slices")
    line = record.project.document.line(path)
    return check.model_copy(update={"details": {**check.details, "line": line}})


def column_values(source: Source, name: str) -> np.ndarray[Any, Any]:
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
