"""What a training set must not share with its holdout, and what a feature must not know.

What is counted is in :mod:`mlcicd.data.pair`, for each engine; here it is judged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mlcicd.core.errors import ConfigError
from mlcicd.core.verdict import Check, CheckStatus, Severity
from mlcicd.core.yaml_lines import nearest
from mlcicd.data.conditions import percent
from mlcicd.data.drift import DriftResult, drift
from mlcicd.data.pair import EmbeddedPair, Pair
from mlcicd.data.profile import profile
from mlcicd.data.source import Source


@dataclass(frozen=True)
class LeakageLimits:
    """How much is too much.

    Attributes:
        row_overlap: largest share of holdout rows that also are training rows, value for value but for the
            keys.
        auc: a feature that alone tells the label better than this knows it.
        conflicts: largest share of training rows whose features stand with another label elsewhere (a
            warning).
        balance: largest change of the label's distribution, as `ks/1` of :mod:`mlcicd.data.distances` (a
            warning).
    """

    row_overlap: float = 0.01
    auc: float = 0.97
    conflicts: float = 0.01
    balance: float = 0.1


def leakage_checks(
    train: Source,
    holdout: Source,
    *,
    keys: Sequence[str] = (),
    time: str | None = None,
    target: str | None = None,
    features: Sequence[str] | None = None,
    limits: LeakageLimits | None = None,
) -> list[Check]:
    """Compares a training set with its holdout.

    Args:
        keys: columns that together identify a subject; none may be in both tables.
        time: a column; the holdout must begin after the training set ends.
        target: the label; a number of many values is cut at its median, of several classes the most common
            one is told from the others.
        features: the model's inputs; all columns but keys, time and target when None.

    Raises:
        ConfigError: a named column is not in both tables, or can not be compared on Spark.
        InputError: a table can not be read.
    """
    limits = limits or LeakageLimits()
    named = [*keys, *([time] if time else []), *([target] if target else []), *(features or ())]
    for name in named:
        for source in (train, holdout):
            if name not in source.columns:
                raise ConfigError(
                    f"the leakage checks name a column {name!r} that {source.path.name} does not have"
                    f"{nearest(name, source.columns)}"
                )
    empty = [source.path.name for source in (train, holdout) if source.rows == 0]
    if empty:
        return [_check("leakage.rows", CheckStatus.FAILED, 0.0, "both tables have rows", f"{empty[0]} has no rows")]
    pair = _pair(train, holdout)
    apart = {*keys, time, target}
    inputs = list(features) if features is not None else [n for n in train.columns if n not in apart]
    checks = []
    if keys:
        checks.append(_key_overlap(pair, keys))
    rows = [n for n in train.columns if n in holdout.columns and n not in keys]
    checks.append(_row_overlap(pair, rows, limits))
    if time:
        checks.append(_time_order(pair, time))
    if target:
        checks += _target_checks(pair, target, inputs, limits)
    return checks


def _pair(train: Source, holdout: Source) -> Pair:
    if not train.distributed:
        return EmbeddedPair(train, holdout)
    from mlcicd.data.spark import SparkSource
    from mlcicd.data.spark_pair import SparkPair

    if not isinstance(train, SparkSource) or not isinstance(holdout, SparkSource):
        raise ConfigError("a table on Spark and one that is not can not be compared")
    return SparkPair(train, holdout)


def _check(
    name: str,
    status: CheckStatus,
    observed: float | str | None,
    required: str,
    reason: str = "",
    *,
    remedy: str = "",
    severity: Severity = Severity.FAIL,
    **details: Any,
) -> Check:
    good = status is CheckStatus.PASSED
    return Check(
        name=name,
        status=status,
        observed=observed,
        required=required,
        severity=severity,
        reason=reason,
        remedy="" if good else remedy,
        details=details,
    )


def _key_overlap(pair: Pair, keys: Sequence[str]) -> Check:
    shared, total = pair.shared_keys(keys)
    label, required = ", ".join(keys), f"no {', '.join(keys)} is in both tables"
    if total == 0:
        return _check("leakage.keys", CheckStatus.FAILED, None, required, f"the holdout holds no {label} at all")
    return _check(
        "leakage.keys",
        CheckStatus.FAILED if shared else CheckStatus.PASSED,
        float(shared),
        required,
        f"{shared:,} of {total:,} holdout rows have a {label} that the training set has, too" if shared else "",
        remedy=f"split by {label}, so that everything about one subject is on one side",
        holdout_rows=total,
    )


def _row_overlap(pair: Pair, columns: Sequence[str], limits: LeakageLimits) -> Check:
    required = f"at most {percent(limits.row_overlap)} of holdout rows are training rows"
    if not columns:
        return _check("leakage.row_overlap", CheckStatus.FAILED, None, required, "the tables have no column in common")
    shared = pair.shared_rows(columns)
    share = shared / pair.holdout.rows
    failed = share > limits.row_overlap
    return _check(
        "leakage.row_overlap",
        CheckStatus.FAILED if failed else CheckStatus.PASSED,
        share,
        required,
        f"{shared:,} of {pair.holdout.rows:,} holdout rows are in the training set, value for value" if shared else "",
        remedy="drop duplicates before the split",
        rows=shared,
        columns=list(columns)[:50],
    )


def _time_order(pair: Pair, time: str) -> Check:
    required = f"the holdout's first {time} is after the training set's last"
    end, start, late, total, unknown, dated = pair.order(time)
    shown: Callable[[float], str] = _moment if dated else repr
    if end is None or start is None:
        return _check(
            "leakage.time", CheckStatus.FAILED, None, required, f"{time!r} holds no time in one of the tables"
        )
    reason = ""
    if not start > end:  # also when either is NaN
        reason = (
            f"the training set goes on to {shown(end)} and the holdout begins at {shown(start)}: "
            f"{late:,} of {total:,} holdout rows are not after it"
        )
    elif unknown:
        reason = f"{unknown:,} rows have no {time}, so that their order is not known"
    return _check(
        "leakage.time",
        CheckStatus.FAILED if reason else CheckStatus.PASSED,
        shown(start),
        required,
        reason,
        remedy="split at one point in time, with a gap as long as the label takes to become known",
        training_end=shown(end),
        holdout_start=shown(start),
        holdout_rows_before=late,
    )


def _moment(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s"


def _target_checks(pair: Pair, target: str, inputs: Sequence[str], limits: LeakageLimits) -> list[Check]:
    inputs = [name for name in inputs if name != target]
    return [
        *_target_leakage(pair, target, inputs, limits),
        _conflicts(pair, target, inputs, limits),
        _balance(pair, target, limits),
    ]


def _target_leakage(pair: Pair, target: str, inputs: Sequence[str], limits: LeakageLimits) -> list[Check]:
    required = f"no feature alone reaches an AUC above {limits.auc}"
    powers = pair.powers(target, inputs)
    if powers is None:
        return [_check("leakage.target", CheckStatus.FAILED, None, required, f"the label {target!r} has one value")]
    unseen = [name for name in inputs if name not in powers]
    if not powers:
        return [
            _check(
                "leakage.target",
                CheckStatus.INCONCLUSIVE,
                None,
                required,
                "there is no feature that could be examined",
                remedy="name numeric or categorical features",
                not_examined=unseen,
            )
        ]
    ranked = sorted(powers, key=lambda name: -powers[name])
    leaks = [name for name in ranked if not powers[name] <= limits.auc]
    strongest = {name: round(powers[name], 4) for name in ranked[:10]}
    if not leaks:
        words = f"the strongest is {ranked[0]!r}"
        if unseen:
            words += f"; not examined: {', '.join(unseen[:5])}"
        return [
            _check(
                "leakage.target",
                CheckStatus.PASSED,
                powers[ranked[0]],
                required,
                words,
                features=strongest,
                not_examined=unseen,
            )
        ]
    return [
        _check(
            f"leakage.target.{name}",
            CheckStatus.FAILED,
            powers[name],
            required,
            f"{name!r} alone tells {target!r} with an AUC of {powers[name]:.4f}",
            remedy=f"make sure that {name!r} is known before the label is, or take it out of the features",
            column=name,
            features=strongest,
            not_examined=unseen,
        )
        for name in leaks
    ]


def _conflicts(pair: Pair, target: str, inputs: Sequence[str], limits: LeakageLimits) -> Check:
    required = f"at most {percent(limits.conflicts)} of training rows contradict another"
    if not inputs:
        return _check("leakage.conflicts", CheckStatus.SKIPPED, None, required, "there are no features")
    rows = pair.contradictions(target, inputs)
    share = rows / pair.train.rows
    failed = share > limits.conflicts
    return _check(
        "leakage.conflicts",
        CheckStatus.FAILED if failed else CheckStatus.PASSED,
        share,
        required,
        f"{rows:,} training rows have the same features as another and a different {target!r}" if rows else "",
        remedy="look for labels that were entered twice, or for a feature that tells those rows apart",
        severity=Severity.WARN,
        rows=rows,
    )


def _balance(pair: Pair, target: str, limits: LeakageLimits) -> Check:
    required = f"ks/1 of {target} between the tables <= {limits.balance:g}"
    (result,) = drift(profile(pair.train, [target]), profile(pair.holdout, [target]))
    status, reason = _judge_balance(result, limits.balance)
    classes = result.kind == "category" and bool(result.new)
    return _check(
        "leakage.balance",
        status,
        result.ks,
        required,
        reason,
        remedy="stratify the split, or expect the metrics of the two tables to differ",
        # A class the model has never seen is no matter of taste.
        severity=Severity.FAIL if classes else Severity.WARN,
        **{"new_classes": list(result.new)} if classes else {},
    )


def _judge_balance(result: DriftResult, limit: float) -> tuple[CheckStatus, str]:
    if result.problem:
        return CheckStatus.FAILED, result.problem
    if result.ks is None:
        return CheckStatus.SKIPPED, f"a {result.kind} label has no distribution to compare"
    if result.new:
        return (
            CheckStatus.FAILED,
            f"the holdout has classes the training set lacks: {', '.join(result.new[:5])}",
        )
    if result.ks <= limit:
        return CheckStatus.PASSED, ""
    if result.ks <= result.noise.get("ks", 0.0):
        return CheckStatus.INCONCLUSIVE, f"{result.ks:.4f}, but chance alone reaches {result.noise['ks']:.4f}"
    return CheckStatus.FAILED, f"the label's distribution differs by {result.ks:.4f}"
