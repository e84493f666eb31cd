"""Metrics that are functions of the user's own: called in their interpreter, judged like every other metric."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mlcicd.core.errors import InputError
from mlcicd.core.process import run_child, user_environment
from mlcicd.core.progress import SILENT, Progress
from mlcicd.evaluation.intervals import MetricResult
from mlcicd.evaluation.problem import Array, Problem, View
from mlcicd.evaluation.settled import spread_of
from mlcicd.evaluation.uncertainty import Exact, Normal, Uncertainty, Unknown

RUNNER = Path(__file__).with_name("function_runner.py")

# Fewer draws than this are too coarse for percentiles, and give a standard error instead.
_PERCENTILES = 1000
_FEWEST = 50
_MOST_FAILED = 0.05


@dataclass(frozen=True)
class UserMetric:
    """A function of the user's own.

    Attributes:
        function: `module:function`, importable in the project's folder; takes labels and predictions of (n,) rows.
        direction: which way is better.
        needs: what it is given: predicted `labels` (values, for regression and the like), or `scores`.
        seconds: how long resampling may take; the draws that fit are used.
    """

    name: str
    function: str
    direction: Literal["higher", "lower"]
    needs: Literal["labels", "scores"] = "labels"
    seconds: float = 60.0


@dataclass(frozen=True)
class Place:
    """Where the user's code runs: their interpreter, environment and folder."""

    python: str
    environ: Mapping[str, str]
    cwd: Path
    timeout: float
    progress: Progress = field(default=SILENT, repr=False)


def estimate_function(
    metric: UserMetric,
    problem: Problem,
    place: Place,
    *,
    columns: Mapping[str, Array] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> MetricResult:
    """A user's metric with (paired) intervals; what can not be computed has a NaN and a reason.

    Args:
        columns: (n,) columns of the holdout that the function takes by name, in the problem's rows.

    Raises:
        InputError: the interpreter can not be run, a column of another length.
        CommandFailed: it did not finish in time.
    """
    views = [problem.candidate] if problem.champion is None else [problem.candidate, problem.champion]
    lacks = [problem.reason or _lacks(view, metric.needs) for view in views]
    if any(lacks):
        return _result(metric, problem, [], lacks, confidence)
    arrays = _arrays(metric, problem, views, columns or {})
    said = _run(metric, arrays, place, resamples, seed)
    reasons = (said["reasons"] * len(views))[: len(views)]
    if any(reasons) or len(said["points"]) != len(views):
        return _result(metric, problem, said["points"], reasons, confidence)
    short = _too_few(said)
    if short:
        return _result(metric, problem, said["points"], [short] * len(views), confidence)
    return from_draws(metric, problem, said, confidence)


def _lacks(view: View, needs: str) -> str:
    if needs == "labels":
        return view.labels_reason if view.labels is None or view.labels_reason else ""
    if view.quantiles is not None:
        return ""
    return view.scores_reason if view.scores is None or view.scores_reason else ""


def _arrays(
    metric: UserMetric, problem: Problem, views: Sequence[View], columns: Mapping[str, Array]
) -> dict[str, Array]:
    arrays = {"y": _plain(problem, problem.y)}
    for name, view in zip(("candidate", "champion"), views, strict=False):
        if metric.needs == "labels":
            arrays[name] = _plain(problem, np.asarray(view.labels))
        else:
            arrays[name] = np.asarray(view.quantiles if view.quantiles is not None else view.scores)
    if problem.weight is not None:
        arrays["weight"] = problem.weight
    if problem.cluster is not None:
        arrays["unit"] = problem.cluster
    for name, values in columns.items():
        column = np.asarray(values)
        if column.shape[:1] != (problem.n,):
            raise InputError(f"the column {name!r} has {column.shape} values, and the holdout has {problem.n} rows")
        # Objects would need pickles.
        arrays[f"column:{name}"] = column.astype(str) if column.dtype.kind == "O" else column
    return arrays


def _plain(problem: Problem, encoded: Array) -> Array:
    """Labels as the holdout has them."""
    if problem.task not in ("binary", "multiclass"):
        return encoded
    return np.asarray(problem.classes)[encoded.astype(np.intp)]


def _run(metric: UserMetric, arrays: Mapping[str, Array], place: Place, resamples: int, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="mlcicd-metric-") as temporary:
        data, out = Path(temporary, "in.npz"), Path(temporary, "out.json")
        np.savez(data, allow_pickle=False, **arrays)
        command = [place.python, str(RUNNER), "--function", metric.function, "--data", str(data), "--out", str(out)]
        command += ["--resamples", str(resamples), "--seconds", str(metric.seconds), "--seed", str(seed)]
        done = run_child(
            command,
            cwd=place.cwd,
            env=user_environment(place.environ, place.python, {"PYTHONDONTWRITEBYTECODE": "1"}),
            timeout=place.timeout,
            what=f"the metric {metric.name}",
            progress=place.progress,
        )
        if done.returncode != 0 or not out.is_file():
            last = done.tail[-1] if done.tail else "it printed nothing"
            return {"points": [], "reasons": [f"{metric.function} ended with exit code {done.returncode}: {last}"]}
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return found


def _too_few(said: Mapping[str, Any]) -> str:
    done, failed = len(said["draws"]), int(said["failed"])
    if failed > _MOST_FAILED * (done + failed):
        return f"it failed on {failed} of {done + failed} resamples: {said['error']}"
    if done < _FEWEST:
        return f"it is too slow for an interval: {done} resamples in the time it has"
    return ""


def from_draws(metric: UserMetric, problem: Problem, said: Mapping[str, Any], confidence: float = 0.95) -> MetricResult:
    """A metric from what the runner found: `points` by model, lists of such points in `draws` and `jackknife`."""
    draws = np.array(said["draws"], dtype=np.float64)
    without = np.array(said["jackknife"], dtype=np.float64).reshape(-1, draws.shape[1])
    units = problem.n if problem.cluster is None else problem.clusters
    points = [float(p) for p in said["points"]]
    parts = [_spread(p, draws[:, i], units, without[:, i]) for i, p in enumerate(points)]
    if len(points) == 1:
        return _result(metric, problem, points, [""], confidence, parts, draws.shape[0])
    candidate, champion = problem.candidate, problem.champion
    same = champion is not None and (
        candidate.same_labels(champion) if metric.needs == "labels" else candidate.same_scores(champion)
    )
    # Equal labels of two different models are no proof that they are alike; equal scores are.
    identical = same and champion is not None and (candidate.scores is None or candidate.same_scores(champion))
    gap = points[0] - points[1]
    apart: Uncertainty = Exact(0.0)
    if not identical:
        apart = _spread(gap, draws[:, 0] - draws[:, 1], units, without[:, 0] - without[:, 1])
    return _result(metric, problem, points, ["", ""], confidence, [*parts, apart], draws.shape[0], identical)


def _spread(point: float, draws: Array, units: int, without: Array) -> Uncertainty:
    if units < 2 or float(np.ptp(draws)) < 1e-12:
        return Unknown(point, -math.inf, math.inf)
    if draws.size >= _PERCENTILES:
        return spread_of(point, draws, units, without, units)
    return Normal(point, float(draws.std(ddof=1)), min(units, draws.size) - 1)


def _result(
    metric: UserMetric,
    problem: Problem,
    points: Sequence[float | None],
    reasons: Sequence[str],
    confidence: float,
    parts: Sequence[Uncertainty] = (),
    draws: int = 0,
    identical: bool = False,
) -> MetricResult:
    paired = len(reasons) == 2
    values = [math.nan if reason or i >= len(points) else points[i] for i, reason in enumerate(reasons)]
    numbers = [math.nan if v is None else float(v) for v in values]
    difference = numbers[0] - numbers[1] if paired else None
    champion_reason = f"the champion can not be measured: {reasons[1]}" if paired and reasons[1] else ""
    over = f", over {problem.cluster_words}" if problem.cluster_words else ""
    return MetricResult(
        name=metric.name,
        direction=metric.direction,
        n=problem.n,
        candidate=numbers[0],
        candidate_interval=parts[0].interval(confidence) if parts else None,
        champion=numbers[1] if paired else None,
        champion_interval=parts[1].interval(confidence) if parts and paired else None,
        difference=difference,
        difference_interval=parts[2].interval(confidence) if parts and paired else None,
        method=f"bootstrap of {metric.function}, {draws} resamples{over}" if parts else "",
        reason=reasons[0],
        champion_reason=champion_reason,
        identical=identical,
        confidence=confidence,
        units=problem.cluster_words,
        uncertainty=parts[0] if parts else None,
        difference_uncertainty=parts[2] if parts and paired else None,
    )
