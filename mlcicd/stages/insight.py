"""What an evaluation tells beyond its gates: where the candidate is weak, and which rows changed sides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlcicd.core.verdict import Check, CheckStatus, Severity
from mlcicd.data.source import Source
from mlcicd.evaluation.flips import flips
from mlcicd.evaluation.predictions import Predictions
from mlcicd.evaluation.weakest import WeakSlice, weakest_slices
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
) -> None:
    """Adds checks of severity `warn` and a picture: they inform, and block nothing."""
    config = record.project.config
    if champion is not None:
        record.checks += _flips(config.model.task, y, candidate, champion)
    if not 0 < len(y) <= _ROWS:
        return
    left_out = {config.data.target, *config.data.ignore}
    names = [name for name in holdout.columns if name not in left_out]
    record.progress.step("looking for the weakest slices")
    features = {name: column(holdout, name) for name in names if _plain(holdout.columns[name])}
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


def _picture(weak: list[WeakSlice]) -> dict[str, Any]:
    return {
        "kind": "intervals",
        "title": "Where the candidate is weakest",
        "x_label": "mean loss above that of the other rows",
        "y_label": "",
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
