"""gates suggest: thresholds from the champion's own intervals and history, as YAML to paste."""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from mlcicd.config import Project
from mlcicd.core.digests import digest_bytes
from mlcicd.core.errors import InputError
from mlcicd.core.files import write_atomic
from mlcicd.core.progress import SILENT, Progress
from mlcicd.evaluation import budgets, thresholds
from mlcicd.evaluation.false_alarms import Alarms, against_itself, comparable, enough_draws, equal_models, twins
from mlcicd.evaluation.gate_set import GateSet
from mlcicd.evaluation.gate_trials import Rung, Trial, errors_spread, ladder, smallest_caught, trials
from mlcicd.evaluation.gates import Gate, SliceGate, VsChampion
from mlcicd.evaluation.intervals import MetricResult, estimate
from mlcicd.evaluation.metrics import names as metric_names
from mlcicd.evaluation.predictions import Predictions
from mlcicd.evaluation.slices import by_values
from mlcicd.registry import RegisteredVersion
from mlcicd.registry.promotion import ROLLED_BACK
from mlcicd.registry.tracking import TAG, checked_digest
from mlcicd.stages.common import evidence_folder
from mlcicd.stages.gate_backtest import TWIN_NOISE, same_form
from mlcicd.stages.gate_ground import Ground, trial_ground
from mlcicd.stages.gate_self_test import losses
from mlcicd.stages.record import Record


@dataclass(frozen=True)
class Suggestion:
    """Proposed gates, and what is to be expected of them."""

    reference: str
    rows: int
    pair: str
    wholes: tuple[tuple[str, thresholds.Threshold | None, thresholds.Margin | None], ...]
    slices: tuple[thresholds.SliceThreshold, ...]
    kept: dict[str, Any]
    confidence: float
    itself: Alarms
    equal: Alarms
    caught: Rung | None
    missed: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """As plain values."""
        found: dict[str, Any] = asdict(replace(self, itself=None, equal=None))  # type: ignore[arg-type]
        for name, alarms in (("itself", self.itself), ("equal", self.equal)):
            found[name] = {"draws": alarms.draws, "failed": alarms.failed, "inconclusive": alarms.inconclusive}
        return found


def suggest(
    project: Project, *, model: str = "", draws: int = 0, seed: int = 0, progress: Progress = SILENT
) -> Suggestion:
    """Proposes gates for the metrics that mlcicd.yaml names, or for the usual ones, and tries them.

    Args:
        model: a model directory to take for the champion.
        draws: resampled holdouts; 0 for 40 to 200, the fewer the larger the holdout.

    Raises:
        InputError: there is no model, or the holdout has fewer rows than a threshold can be built on.
    """
    write_atomic(project.state / ".gitignore", "*\n")
    record = Record(project, "gates-suggest", dry_run=True, progress=progress)
    with trial_ground(record) as ground:
        gates = ground.gates
        if gates.n < thresholds.LEAST_ROWS:
            raise InputError(
                f"the holdout has {gates.n} rows, and a threshold needs {thresholds.LEAST_ROWS} at least",
                where=project.config.data.holdout,
                why="The interval of so few rows is wider than any difference between honest models.",
                remedy="add labelled rows to the holdout",
            )
        words, reference = ground.reference(model)
        versions = ground.registry.versions(project.config.model.name)
        pair, first, second = _pair(ground, versions, reference, seed)
        shifts = _shifts(ground, versions)
        progress.step("finding thresholds")
        wholes, slices = _proposed(ground, reference, first, second, shifts)
        proposed = _as_gates(ground, wholes, slices)
        count = enough_draws(gates.n, draws)
        progress.step(f"trying them on {count} resampled holdouts")
        asked = project.config.evaluate.gates
        kept = {name: asked[name].max for name in ground.left_out if name in budgets.NAMES}
        return Suggestion(
            words,
            gates.n,
            pair,
            wholes,
            slices,
            kept,
            gates.confidence,
            against_itself(proposed, reference, draws=count, seed=seed),
            equal_models(proposed, first, second, draws=count, seed=seed),
            smallest_caught(ladder(proposed, reference, seed=seed)),
            tuple(_missed(list(trials(proposed, reference, seed=seed)))),
        )


def _missed(found: Sequence[Trial]) -> list[str]:
    return [t.name for t in found if t.kind != "identical" and not t.judged.blocked]


def _pair(
    ground: Ground, versions: Sequence[RegisteredVersion], reference: Predictions, seed: int
) -> tuple[str, Predictions, Predictions]:
    """Two models that differ as versions of this project do, in words; else the reference with noise, twice."""
    # A version that was taken back differs from its champion as no equal model does.
    kept = [version for version in versions if not version.tags.get(ROLLED_BACK)]
    known = {version.version: version for version in kept}
    for version in reversed(kept[-5:]):
        old = known.get(version.tags.get(f"{TAG}measured_against", ""))
        if old is None or not old.digest or old.digest == version.digest:
            continue
        with contextlib.suppress(InputError):
            one = ground.answers(ground.fetched(version), f"model of version {version.version}")
            other = ground.answers(ground.fetched(old), f"model of version {old.version}")
            if same_form(one, other):
                return f"versions {old.version} and {version.version}", one, other
    noisy = twins(reference, strength=TWIN_NOISE, spread=errors_spread(ground.gates, reference), seed=seed)
    return "the model and the same with noise", noisy[0], noisy[1]


def _shifts(ground: Ground, versions: Sequence[RegisteredVersion]) -> dict[str, list[float]]:
    """Metric to the changes of one model's value from the holdout it was registered on to its successor's.

    They are read from the evaluations that are stored with the versions: each tells its candidate's value, and its
    champion's on the same holdout.
    """
    told = {version.version: _evaluation(ground, version) for version in versions[-20:]}
    found: dict[str, list[float]] = defaultdict(list)
    for version in versions[-20:]:
        new, old = told[version.version], told.get(version.tags.get(f"{TAG}measured_against", ""))
        if not new or not old or new["holdout"] == old["holdout"]:
            continue
        for name, values in new["metrics"].items():
            now, then = values.get("champion"), old["metrics"].get(name, {}).get("candidate")
            if all(isinstance(value, int | float) and np.isfinite(value) for value in (now, then)):
                found[name].append(float(now) - float(then))
    return found


def _evaluation(ground: Ground, version: RegisteredVersion) -> dict[str, Any] | None:
    """Metrics and holdout of the evaluation that is stored with a version; None where that is not to be had."""
    digest = version.tags.get(f"{TAG}evidence_digest", "")
    if not version.run_id or not checked_digest(digest):
        return None
    text = ground.registry.read_text(version.run_id, f"{evidence_folder(digest)}/evaluate.json")
    if text is None or digest_bytes(text.encode()) != digest:
        return None
    document = json.loads(text)
    holdouts = [s["digest"] for s in document.get("subjects", []) if s.get("name") == "holdout"]
    metrics = {m["name"]: m for m in document.get("details", {}).get("metrics", [])}
    return {"holdout": holdouts[0] if holdouts else "", "metrics": metrics}


def _proposed(
    ground: Ground,
    reference: Predictions,
    first: Predictions,
    second: Predictions,
    shifts: dict[str, list[float]],
) -> tuple[tuple[Any, ...], tuple[thresholds.SliceThreshold, ...]]:
    gates = ground.gates
    alone = {r.name: r for r in _estimates(gates, gates.metrics or metric_names(gates.task), reference)}
    metrics = gates.metrics or thresholds.default_metrics(gates, alone)
    against = {r.name: r for r in _estimates(gates, metrics, first, comparable(gates, first, second))}
    columns = {**gates.columns} or dict(list(ground.categories.items())[:2])
    count = max(1, 2 * len(metrics) + len(columns))
    wholes = tuple(
        (
            name,
            None
            if alone[name].pairwise
            else thresholds.threshold(alone[name], gates=count, shifts=shifts.get(name, ())),
            thresholds.margin(against[name], gates=count),
        )
        for name in metrics
    )
    # Slices are judged by the first metric that can be told of a part: a mean of errors, an order, a share.
    slices = []
    for column, values in columns.items():
        metric = next((g.metric for g in gates.slice_gates if g.by == column), metrics[0] if metrics else "")
        if metric:
            found = by_values(
                gates.task,
                [metric],
                gates.y,
                reference,
                by=column,
                column=values,
                min_rows=50,
                **gates.common,
            )
            slices.append(thresholds.slice_threshold(column, metric, found, gates=count))
    return wholes, tuple(s for s in slices if s is not None)


def _estimates(
    gates: GateSet, metrics: Sequence[str], candidate: Predictions, champion: Predictions | None = None
) -> list[MetricResult]:
    return estimate(
        gates.task,
        metrics,
        gates.y,
        candidate,
        champion,
        **gates.common,
    )


def _as_gates(ground: Ground, wholes: Sequence[Any], slices: Sequence[thresholds.SliceThreshold]) -> GateSet:
    made = []
    for name, absolute, versus in wholes:
        bound = {absolute.side: absolute.threshold} if absolute is not None else {}
        if bound or versus is not None:
            made.append(Gate(name, vs_champion=VsChampion(versus.margin) if versus is not None else None, **bound))
    parts = [SliceGate(s.by, s.metric, min_rows=s.min_rows, **{s.side: s.threshold}) for s in slices]  # type: ignore[arg-type]
    columns = {**ground.categories, **ground.gates.columns}
    return replace(ground.gates, gates=made, slice_gates=parts, columns={s.by: columns[s.by] for s in slices})


def as_yaml(found: Suggestion) -> str:
    """The proposal as a section of mlcicd.yaml, with what speaks for each number."""
    level = f"{found.confidence:.4g}"
    lines = [
        f"# Proposed by `mlcicd gates suggest` from {_one_line(found.reference)}, on {found.rows:,} rows.",
        "# Tried on holdouts drawn anew from this one, "
        f"{found.itself.draws} times: the champion against itself is stopped on "
        f"{found.itself.blocked_share.estimate:.1%},",
        f"# an equal model on {found.equal.blocked_share.estimate:.1%} "
        f"(failed {found.equal.failed_share.estimate:.1%}); equal models differ as {found.pair}.",
        f"# The smallest loss that is failed: {losses(found.caught)}."
        if found.caught
        else "# No loss that was tried is failed: the holdout is too small, or the metrics do not see it.",
        *([f"# NOT stopped: {', '.join(found.missed)}."] if found.missed else []),
        "evaluate:",
        f"  confidence: {level}",
        "  gates:",
    ]
    for name, absolute, versus in found.wholes:
        if absolute is None and versus is None:
            lines.append(f"    # {name}: {found.rows:,} rows tell nothing certain of it")
            continue
        lines.append(f"    {name}:")
        if absolute is not None:
            low, high = absolute.interval
            learned = (
                f"room for {absolute.shifts} changes of the holdout seen so far"
                if absolute.shifts
                else "no other holdout seen yet: leave room for harder months"
            )
            lines += [
                f"      # the champion has {absolute.value:.4g} ({level} interval {low:.4g} to {high:.4g}); {learned};",
                f"      # needs about {absolute.rows:,} rows",
                f"      {absolute.side}: {absolute.threshold:g}",
            ]
        if versus is not None:
            lines += [
                f"      # equal models differ by up to {versus.half_width:.2g} by chance; "
                f"a loss of {versus.caught:.2g} is failed 4 times of 5;",
                f"      # needs about {versus.rows:,} rows",
                f"      vs_champion: {{margin: {versus.margin:g}}}",
            ]
    for name, most in found.kept.items():
        lines += ["    # a budget, as it is", f"    {name}: {{max: {most:g}}}"]
    if found.slices:
        lines.append("  slices:")
    for part in found.slices:
        value, seen, rows = part.worst
        small = f"; {part.small} smaller ones are not judged" if part.small else ""
        lines += [
            f"    # {part.slices} slices have {part.min_rows:,} rows{small}; the weakest is {_one_line(value)} "
            f"with {seen:.4g} on {rows:,} rows",
            f"    - {{by: {json.dumps(part.by)}, metric: {part.metric}, {part.side}: {part.threshold:g}, "
            f"min_rows: {part.min_rows}}}",
        ]
    return "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    """A value of the user's data inside a comment, which it must not end."""
    return "".join(c if c.isprintable() else " " for c in text)[:60]
