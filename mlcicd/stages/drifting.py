"""Drift of a data set against a reference profile, as the configuration bounds it."""

from __future__ import annotations

from mlcicd.config.data import Drift
from mlcicd.core.verdict import Check, Severity
from mlcicd.data.drift import DriftResult, drift, drift_checks
from mlcicd.data.figures import drift_figures
from mlcicd.data.new_categories import category_checks
from mlcicd.data.profile import Profile, profile
from mlcicd.data.source import Source
from mlcicd.stages.record import Record

# A Jensen-Shannon distance below this is not seen with the eye in two histograms.
_VISIBLE = 0.05


def drift_findings(
    record: Record, reference: Profile, source: Source, rule: Drift, *, severity: Severity
) -> list[Check]:
    """One check a column, the most drifted first, and pictures of those in the record."""
    wanted = [column for column in reference.columns if column in source.columns]
    current = profile(source, columns=wanted, sensitive=reference.sensitive, like=reference)
    ignored = {*rule.ignore, *record.project.config.data.ignore}
    # New data often has no labels yet; that is not a column that is gone.
    if reference.target and reference.target not in source.columns:
        ignored.add(reference.target)
    results = [result for result in drift(reference, current) if result.column not in ignored]
    checks = []
    for result in results:
        bound = rule.columns.get(result.column, rule.max)
        checks += drift_checks([result], max=bound, metric=rule.metric, severity=severity)
    if rule.new_categories is not None or rule.vanished_categories is not None:
        checks += category_checks(
            results, max_new=rule.new_categories, max_vanished=rule.vanished_categories, severity=severity
        )
    record.figure(*drift_figures(reference, current, _worth_a_look(results)))
    return checks


def _worth_a_look(results: list[DriftResult]) -> list[DriftResult]:
    """The columns that moved so far that a person sees it, the most first."""
    moved = [result for result in results if (result.js or 0.0) >= _VISIBLE]
    return sorted(moved, key=lambda result: -(result.js or 0.0))
