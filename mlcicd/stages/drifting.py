"""Drift of a data set against a reference profile, as the configuration bounds it."""

from __future__ import annotations

from dataclasses import replace

from mlcicd.config.data import Drift
from mlcicd.core.verdict import Check, CheckStatus, Severity
from mlcicd.data.drift import DriftResult, drift, drift_checks
from mlcicd.data.figures import drift_figures, ranked_figure
from mlcicd.data.joint_drift import correlation_changes, correlation_check, separation, separation_check
from mlcicd.data.new_categories import category_checks
from mlcicd.data.profile import Profile, profile
from mlcicd.data.row_sample import codes_for, row_sample
from mlcicd.data.slices import by_value, slice_profiles
from mlcicd.data.source import Source
from mlcicd.stages.record import Record

# A Jensen-Shannon distance below this is not seen with the eye in two histograms.
_VISIBLE = 0.05


def with_rows_and_slices(made: Profile, source: Source, rule: Drift | None) -> Profile:
    """The profile with what multivariate drift and drift within slices need, where they are asked for."""
    if rule is None:
        return made
    if rule.multivariate is not None or rule.correlations is not None:
        known = {name: column for name, column in made.columns.items() if name not in rule.ignore}
        made = replace(made, sample=row_sample(source, codes_for(known, made.sensitive)))
    slices = {
        by: slice_profiles(source, by_value(by), made, hidden=by in made.sensitive)
        for by in rule.slices
        if by in source.columns
    }
    return replace(made, slices=slices) if slices else made


def drift_findings(
    record: Record, reference: Profile, source: Source, rule: Drift, *, severity: Severity
) -> list[Check]:
    """One check a column, the most drifted first; those of rows, correlations and slices; pictures in the record."""
    wanted = [column for column in reference.columns if column in source.columns]
    current = profile(source, columns=wanted, sensitive=reference.sensitive, like=reference)
    ignored = {*rule.ignore, *record.project.config.data.ignore}
    # New data often has no labels yet; that is not a column that is gone.
    if reference.target and reference.target not in source.columns:
        ignored.add(reference.target)
    results = [result for result in drift(reference, current) if result.column not in ignored]
    checks = _bounded(results, rule, severity)
    if rule.new_categories is not None or rule.vanished_categories is not None:
        checks += category_checks(
            results, max_new=rule.new_categories, max_vanished=rule.vanished_categories, severity=severity
        )
    unlike = {result.column for result in results if result.problem}
    checks += _joint(reference, source, rule, ignored | unlike, severity)
    for by in rule.slices:
        checks += _within(reference, source, rule, by, ignored | unlike, severity)
    record.figure(*ranked_figure(results, bound=rule.max if rule.metric == "js" else None))
    record.figure(*drift_figures(reference, current, _worth_a_look(results)))
    return checks


def _bounded(results: list[DriftResult], rule: Drift, severity: Severity) -> list[Check]:
    checks = []
    for result in results:
        bound = rule.columns.get(result.column, rule.max)
        checks += drift_checks([result], max=bound, metric=rule.metric, severity=severity)
    return checks


def _worth_a_look(results: list[DriftResult]) -> list[DriftResult]:
    """The columns that moved so far that a person sees it, the most first."""
    moved = [result for result in results if (result.js or 0.0) >= _VISIBLE]
    return sorted(moved, key=lambda result: -(result.js or 0.0))


def _joint(reference: Profile, source: Source, rule: Drift, ignored: set[str], severity: Severity) -> list[Check]:
    if rule.multivariate is None and rule.correlations is None:
        return []
    if reference.sample is None:
        return [_unknown("drift of rows", "no sample of rows")]
    before = reference.sample.only(n for n in reference.sample.columns if n in source.columns and n not in ignored)
    current = row_sample(source, before.columns)
    checks = []
    if rule.multivariate is not None:
        try:
            checks.append(separation_check(separation(before, current), max=rule.multivariate, severity=severity))
        except ValueError as error:
            checks.append(_unknown("drift of rows", str(error), "so that nothing was compared"))
    if rule.correlations is not None:
        changes = correlation_changes(before, current)
        checks.append(correlation_check(changes, max=rule.correlations, severity=severity))
    return checks


def _unknown(name: str, what: str, why: str = "so nothing could be compared") -> Check:
    return Check(
        name=name,
        status=CheckStatus.SKIPPED,
        severity=Severity.WARN,
        reason=f"the reference's profile has {what}, {why}",
        remedy="profiles that `validate-data` makes from now on have what data.checks.drift asks for",
    )


def _within(
    reference: Profile, source: Source, rule: Drift, by: str, ignored: set[str], severity: Severity
) -> list[Check]:
    """One check a slice that the reference has: the column of it that moved most for its bound."""
    known = reference.slices.get(by)
    if not known or by not in source.columns:
        return [_unknown(f"drift within {by}", f"no slices of {by!r}")]
    # Columns whose kind has changed are told once, of the whole table.
    like = replace(reference, columns={n: c for n, c in reference.columns.items() if n not in ignored})
    current = slice_profiles(source, by_value(by), like, names=list(known), hidden=by in reference.sensitive)
    checks = []
    for name, before in known.items():
        common = {"name": f"drift within {by}", "slice": name, "severity": severity}
        if name not in current:
            reason = "the data has no such rows"
            checks.append(Check.model_validate({**common, "status": CheckStatus.SKIPPED, "reason": reason}))
            continue
        results = [r for r in drift(before, current[name]) if r.column not in ignored and r.column != by]
        each = _bounded(results, rule, severity)
        failed = [check for check in each if check.status is CheckStatus.FAILED]
        unsure = [check for check in each if check.status is CheckStatus.INCONCLUSIVE]
        worst = next(iter([*failed, *unsure, *(c for c in each if c.status is CheckStatus.PASSED)]), None)
        if worst is None:
            continue
        column = worst.name.removeprefix("drift.")
        more = f"; and {len(failed) - 1} more columns" if failed[1:] else ""
        reason = f"{column!r}: {worst.reason}{more}" if worst.reason else ""
        columns = {"columns": [c.name.removeprefix("drift.") for c in failed]}
        checks.append(worst.model_copy(update={**common, "reason": reason, "details": columns}))
    return checks
