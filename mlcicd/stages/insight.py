"""What an evaluation tells beyond its gates: where the candidate is weak, which rows changed sides, and which part of
the holdout a difference comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from mlcicd.core.verdict import Check, CheckStatus, Severity
from mlcicd.data.source import Source
from mlcicd.evaluation.attribution import Attribution, attribute, attributed_metric, most_uneven, row_differences
from mlcicd.evaluation.flips import flips
from mlcicd.evaluation.predictions import Predictions, prepare
from mlcicd.evaluation.weakest import WeakSlice, weakest_slices
from mlcicd.report.quantities import number
from mlcicd.stages.common import sensitive_columns
from mlcicd.stages.evaluate_metrics import Rows
from mlcicd.stages.record import Record

# More rows than this say nothing new about where a model is weak, and cost memory.
_ROWS = 1_000_000
_SHOWN = 5


def add_insight(
    record: Record,
    holdout: Source,
    column: Callable[[Source, str], Any],
    y: Any,
    candidate: Predictions,
    champion: Predictions | None,
    rows: Rows,
) -> None:
    """Adds checks of severity `warn` and a picture: they inform, and block nothing."""
    config = record.project.config
    if champion is not None:
        record.checks += _flips(config.model.task, y, candidate, champion)
    if not 0 < len(y) <= _ROWS:
        return
    # Values of columns stand in these findings.
    left_out = {config.data.target, *config.data.ignore, *sensitive_columns(record.project)}
    names = [name for name in holdout.columns if name not in left_out]
    record.progress.step("looking for the weakest slices")
    features = {name: column(holdout, name) for name in names if _plain(holdout.columns[name])}
    if champion is not None:
        found = _attributions(record, y, (candidate, champion), features, rows)
        record.details["attribution"] = [asdict(one) for one in found]
        record.checks += [_origin(one) for one in found]
        record.figure(*map(_waterfall, found))
    weak = weakest_slices(config.model.task, y, candidate, features, min_rows=max(100, len(y) // 50), most=_SHOWN)
    record.details["weakest_slices"] = [
        {"slice": s.name, "rows": s.n, "loss": s.loss, "rest": s.rest, "gap_interval": s.gap_interval} for s in weak
    ]
    if weak:
        record.figure(_picture(weak))


def _plain(kind: str) -> bool:
    return not kind.startswith(("TIMESTAMP", "DATE", "TIME", "STRUCT", "MAP", "UNION", "BLOB")) and "[" not in kind


def _flips(task: str, y: Any, candidate: Predictions, champion: Predictions) -> list[Check]:
    found = flips(task, y, candidate, champion)
    if not found:
        return []
    whole = found[0]
    return [
        Check(
            name="negative flips",
            status=CheckStatus.PASSED,
            severity=Severity.WARN,
            observed=whole.rate,
            interval=whole.interval,
            reason=f"{whole.negative:,} rows that the champion has right and the candidate wrong; "
            f"{whole.positive:,} the other way round",
        )
    ]


def _attributions(
    record: Record, y: Any, models: tuple[Predictions, Predictions], features: Mapping[str, Any], rows: Rows
) -> list[Attribution]:
    """The difference by the columns of slices and fairness gates, and by the one other column that tells the most."""
    settings = record.project.config.evaluate
    problem = prepare(record.project.config.model.task, y, *models, rows.weight, rows.structure)
    metric = attributed_metric(problem, settings.gates)
    if metric is None:
        return []
    differences = row_differences(problem, metric)
    if not differences.any():
        return []
    # Rows of weight zero are not there.
    kept = slice(None) if rows.weight is None else np.asarray(rows.weight, dtype=float) > 0
    by = [*(gate.by for gate in settings.slices), *(gap.by for gap in settings.fairness)]
    named = dict.fromkeys(name for name in by if name in features)
    asked = [attribute(problem, metric, differences, by, features[by][kept]) for by in named]
    others = {name: values[kept] for name, values in features.items() if name not in named}
    further = most_uneven(problem, metric, differences, others)
    return [*asked[:_SHOWN], *([further] if further is not None else [])]


def _origin(found: Attribution) -> Check:
    largest = ", ".join(
        f"{part.value} {_signed(part.contribution)} ({part.share:.0%} of rows)" for part in found.parts[:3]
    )
    return Check(
        name=f"{found.metric} difference by {found.by}",
        status=CheckStatus.PASSED,
        severity=Severity.WARN,
        observed=f"{_signed(found.difference)} in all: {largest}",
    )


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{number(value)}"


def _waterfall(found: Attribution) -> dict[str, Any]:
    return {
        "kind": "intervals",
        "title": f"Where the difference in {found.metric} comes from, by {found.by}",
        "x_label": "",
        "y_label": f"contributions: they add up to {_signed(found.difference)}",
        "series": [
            {
                "name": "contribution",
                "x": [f"{part.value} ({part.share:.0%} of rows)" for part in found.parts],
                "y": [part.contribution for part in found.parts],
                "lo": [part.interval[0] for part in found.parts],
                "hi": [part.interval[1] for part in found.parts],
            }
        ],
        "reference": {"y": 0.0, "label": "no difference"},
        "log_y": False,
    }


def _picture(weak: list[WeakSlice]) -> dict[str, Any]:
    return {
        "kind": "intervals",
        "title": "Where the candidate is weakest",
        "x_label": "",
        "y_label": "mean loss above that of the other rows",
        "series": [
            {
                "name": "gap",
                "x": [f"{s.name} ({s.share:.0%} of rows)" for s in weak],
                "y": [s.loss - s.rest for s in weak],
                "lo": [s.gap_interval[0] for s in weak],
                "hi": [s.gap_interval[1] for s in weak],
            }
        ],
        "reference": {"y": 0.0, "label": "as the others"},
        "log_y": False,
    }
