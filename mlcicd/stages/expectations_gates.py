"""Fairness and calibration as gates: what can be judged from the answers to the holdout alone."""

from __future__ import annotations

import math
from typing import Any

from mlcicd.config import FILE_NAME
from mlcicd.config.expectations import FAIRNESS, Fairness
from mlcicd.core.errors import ConfigError
from mlcicd.core.verdict import Check, CheckStatus, Severity
from mlcicd.core.yaml_lines import nearest
from mlcicd.evaluation.brier import calibration_parts
from mlcicd.evaluation.drawn import Draws
from mlcicd.evaluation.fairness import Gap, fairness_gap
from mlcicd.evaluation.metrics import get_metric
from mlcicd.evaluation.predictions import prepare
from mlcicd.stages.evaluate_gates import column_values
from mlcicd.stages.expectations_asked import Ground
from mlcicd.stages.record import Record


def known_names(record: Record) -> None:
    """Checks the names that the further gates use, before anything is scored.

    Raises:
        ConfigError: an unknown metric, on its line.
    """
    settings, task = record.project.config.evaluate, record.project.config.model.task
    asked: list[tuple[tuple[str | int, ...], str]] = []
    asked += [(("evaluate", "fairness", i, "metric"), gate.metric) for i, gate in enumerate(settings.fairness)]
    asked += [(("evaluate", "robustness", i, "metric"), gate.metric) for i, gate in enumerate(settings.robustness)]
    for path, name in asked:
        line = record.project.document.line(path)
        if path[1] == "fairness" and name in FAIRNESS:
            if task != "binary":
                raise ConfigError(f"{name} belongs to binary tasks, and this one is {task}", file=FILE_NAME, line=line)
            continue
        try:
            metric = get_metric(name, task)
        except ConfigError as error:
            fair = nearest(name, FAIRNESS) if path[1] == "fairness" and task == "binary" else ""
            what = f"there is no metric {name!r} for fairness{fair}" if fair else error.what
            raise ConfigError(what, file=FILE_NAME, line=line, remedy=error.remedy) from error
        if metric.pairwise:
            raise ConfigError(f"{name} compares two models: it has no value of its own", file=FILE_NAME, line=line)


def fairness_checks(record: Record, ground: Ground) -> list[Check]:
    """One check for each fairness gate."""
    config = record.project.config
    checks = []
    for number, gate in enumerate(config.evaluate.fairness):
        record.progress.step(f"fairness: {gate.metric} by {gate.by}")
        gap = fairness_gap(
            gate.metric,
            config.model.task,
            ground.y,
            ground.predictions,
            by=gate.by,
            column=column_values(ground.holdout, gate.by),
            named=gate.groups,
            min_rows=gate.min_rows,
            confidence=config.evaluate.confidence,
            resamples=config.evaluate.resamples,
            sample_weight=ground.weight,
            structure=ground.structure,
        )
        line = record.project.document.line(("evaluate", "fairness", number))
        checks.append(_fairness_check(gate, gap, line))
    return checks


def _fairness_check(gate: Fairness, gap: Gap, line: int | None) -> Check:
    ratio = gate.min is not None
    name = gate.metric if gate.metric in FAIRNESS else f"{gate.metric} gap"
    bound = gate.min if gate.min is not None else gate.max
    assert bound is not None
    common: dict[str, Any] = {
        "name": f"{name} by {gate.by}",
        "severity": Severity(gate.severity),
        "required": f"{'>=' if ratio else '<='} {bound:g}",
    }
    details: dict[str, Any] = {"line": line, "left_out": gap.left_out}
    if gap.interval is None or not math.isfinite(gap.estimate):
        return Check(
            **common,
            status=CheckStatus.FAILED,
            reason=f"the gap can not be measured: {gap.reason}",
            remedy="add rows of these groups to the holdout, lower min_rows, or name other groups",
            details=details,
        )
    low, high = gap.interval
    good, bad = (low >= bound, high < bound) if ratio else (high <= bound, low > bound)
    status = CheckStatus.PASSED if good else CheckStatus.FAILED if bad else CheckStatus.INCONCLUSIVE
    worst, best = (next(g for g in gap.groups if g.name == n) for n in (gap.worst, gap.best))
    told = (
        f"{gap.what} is {worst.values[gap.what].estimate:.4g} for {gate.by}={worst.name} ({worst.n:,} rows) and "
        f"{best.values[gap.what].estimate:.4g} for {gate.by}={best.name} ({best.n:,} rows)"
    )
    reason = {
        CheckStatus.PASSED: "",
        CheckStatus.FAILED: f"{told}: beyond what chance among {len(gap.groups)} groups explains",
    }.get(status, f"{told}: whether the gap is within {bound:g} is not decided (interval {low:.4g} to {high:.4g})")
    remedies = {
        CheckStatus.FAILED: "look at the training rows and the labels of these groups before anything else",
        CheckStatus.INCONCLUSIVE: "add labelled rows of these two groups to the holdout",
    }
    details["groups"] = {
        group.name: {"rows": group.n, **{what: value.estimate for what, value in group.values.items()}}
        for group in gap.groups
    }
    return Check(
        **common,
        status=status,
        observed=gap.estimate,
        interval=gap.interval,
        reason=reason,
        remedy=remedies.get(status, ""),
        details=details,
    )


def calibration_checks(record: Record, ground: Ground) -> list[Check]:
    """The candidate's Brier parts against their bounds; both models' parts become details of the verdict."""
    config = record.project.config
    rules = config.evaluate.calibration
    if config.model.task != "binary" or rules is None:
        if rules is not None:
            raise ConfigError(
                f"evaluate.calibration belongs to binary tasks, and this one is {config.model.task}",
                file=FILE_NAME,
                line=record.project.document.line(("evaluate", "calibration")),
                remedy="gate `brier` or `ece` instead",
            )
        return []
    if ground.weight is not None or ground.structure.group is not None:
        raise ConfigError(
            "evaluate.calibration takes each row alone, and the rows have weights or groups",
            file=FILE_NAME,
            line=record.project.document.line(("evaluate", "calibration")),
            remedy="gate `brier` or `ece` instead, whose intervals know about both",
        )
    problem = prepare("binary", ground.y, ground.predictions)
    view = problem.candidate
    reason = problem.reason or view.scores_reason
    if not reason and view.scores is not None and not (view.scores.min() >= 0 and view.scores.max() <= 1):
        reason = "its scores are not probabilities"
    if not reason and problem.n < 2:
        reason = "the holdout has one row"
    bounds = (("reliability", rules.max_reliability, False), ("resolution", rules.min_resolution, True))
    asked = [(name, bound, at_least) for name, bound, at_least in bounds if bound is not None]
    line = record.project.document.line(("evaluate", "calibration"))
    severity = Severity(rules.severity)
    if reason or view.scores is None:
        return [
            Check(
                name=f"brier {name}",
                status=CheckStatus.FAILED,
                severity=severity,
                required=f"{'>=' if at_least else '<='} {bound:g}",
                reason=f"it can not be computed: {reason or 'the model gave no scores'}",
                remedy="serve probabilities (`predict_proba`)",
                details={"line": line},
            )
            for name, bound, at_least in asked
        ]
    parts = calibration_parts(problem.y, view.scores, resamples=config.evaluate.resamples)
    record.details["calibration"] = {
        "reliability": parts.reliability.estimate,
        "resolution": parts.resolution.estimate,
        "uncertainty": parts.uncertainty,
    }
    found = {"reliability": parts.reliability, "resolution": parts.resolution}
    return [
        _part_check(name, found[name], bound, at_least, config.evaluate.confidence, severity, line)
        for name, bound, at_least in asked
    ]


def _part_check(
    name: str, part: Draws, bound: float, at_least: bool, confidence: float, severity: Severity, line: int | None
) -> Check:
    """By the rules of absolute gates: the candidate carries the burden of proof."""
    value, (low, high) = part.estimate, part.interval(confidence)
    wrong = value < bound if at_least else value > bound
    clear = low >= bound if at_least else high <= bound
    status = CheckStatus.FAILED if wrong else CheckStatus.PASSED if clear else CheckStatus.INCONCLUSIVE
    required = f"{'>=' if at_least else '<='} {bound:g}"
    seen = f"the Brier score's {name} is {value:.4g} (interval {low:.4g} to {high:.4g})"
    reasons = {
        CheckStatus.FAILED: f"{seen}, and {required} is required",
        CheckStatus.INCONCLUSIVE: f"{seen}: the estimate meets {required}, the whole interval does not",
    }
    mend = (
        "find features that tell the rows apart" if at_least else "calibrate the scores (isotonic, Platt) on new rows"
    )
    return Check(
        name=f"brier {name}",
        status=status,
        severity=severity,
        observed=value,
        interval=(low, high),
        required=required,
        reason=reasons.get(status, ""),
        remedy={CheckStatus.FAILED: mend, CheckStatus.INCONCLUSIVE: "add labelled rows to the holdout"}.get(status, ""),
        details={"line": line},
    )
