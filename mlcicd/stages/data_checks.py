"""The checks of `data.checks` that look at the training data beside its schema, its holdout and its drift."""

from __future__ import annotations

from mlcicd.config.data import Action, RowCounts
from mlcicd.core.errors import ConfigError, InputError
from mlcicd.core.verdict import Check, CheckStatus, Severity, Status, Verdict
from mlcicd.core.yaml_lines import nearest
from mlcicd.data.constants import constant_checks
from mlcicd.data.label_quality import label_checks
from mlcicd.data.origins import origin_checks
from mlcicd.data.personal import personal_checks
from mlcicd.data.population import population_checks
from mlcicd.data.profile import Profile
from mlcicd.data.serving_examples import read_requests, serving_checks
from mlcicd.data.source import Source, open_source
from mlcicd.stages.common import registry_of
from mlcicd.stages.record import Record
from mlcicd.stages.reference import champion_profile


def further_checks(record: Record, own: Profile, sources: dict[str, Source], features: list[str]) -> list[Check]:
    """Each check that the configuration names.

    Args:
        own: the profile of the training data.
        features: the columns that the model is given.

    Raises:
        ConfigError: a column that is named is not there.
        InputError: a file that is named is missing, or can not be read.
    """
    asked, project = record.project.config.data.checks, record.project
    train, target = sources["train"], record.project.config.data.target
    checks: list[Check] = []
    if asked.rows is not None:
        checks += row_count_checks(record, asked.rows, sources)
    if asked.constant is not None:
        rule = asked.constant
        # The label is looked at elsewhere, and a constant one fails there.
        checks += constant_checks(
            train, own, max_share=rule.max_share, severity=_severity(rule.action), columns=features
        )
    if asked.population is not None:
        record.progress.step(f"comparing with {asked.population.file}")
        people = open_source(project.path(asked.population.file, ("data", "checks", "population", "file")))
        checks += population_checks(
            train,
            people,
            columns=asked.population.columns,
            weight=asked.population.weight,
            max=asked.population.max,
            severity=_severity(asked.population.action),
        )
    if asked.sources is not None:
        column = asked.sources.column
        if column not in train.columns:
            raise ConfigError(
                f"the training data has no column {column!r}{nearest(column, train.columns)}",
                file=project.document.file,
                line=project.document.line(("data", "checks", "sources", "column")),
            )
        _, reference = champion_profile(project, registry_of(project))
        checks += origin_checks(
            train,
            column,
            reference.columns.get(column) if reference else None,
            target=target,
            features=features,
            max_rise=asked.sources.max_rise,
            severity=_severity(asked.sources.action),
            hidden=reference is not None and column in reference.sensitive,
        )
    if asked.personal is not None:
        record.progress.step("looking for personal data")
        checks += personal_checks(train, allow=asked.personal.allow, severity=_severity(asked.personal.action))
    if asked.labels is not None:
        record.progress.step("growing trees that tell the labels")
        checks += label_checks(
            train,
            target,
            features,
            max_share=asked.labels.max_share,
            sample=asked.labels.sample,
            group=project.config.data.group,
            sensitive=own.sensitive,
            severity=_severity(asked.labels.action),
        )
    if asked.serving is not None and asked.serving.examples:
        requests = read_requests(project.path(asked.serving.examples, ("data", "checks", "serving", "examples")))
        checks += serving_checks(train, features, requests, severity=_severity(asked.serving.action))
    return checks


def _severity(action: Action) -> Severity:
    return Severity.FAIL if action == "fail" else Severity.WARN


def row_count_checks(record: Record, rule: RowCounts, sources: dict[str, Source]) -> list[Check]:
    """How many rows there are against last time; nothing of a data set that last time had not."""
    before, name = (_champions_rows if rule.against == "champion" else _last_rows)(record)
    required = f"between {rule.min_ratio:g} and {rule.max_ratio:g} times those of {name}"
    checks = []
    for kind, source in sources.items():
        if kind not in before:
            continue
        ratio = source.rows / before[kind]
        good = rule.min_ratio <= ratio <= rule.max_ratio
        checks.append(
            Check(
                name=f"rows of {kind} against last time",
                status=CheckStatus.PASSED if good else CheckStatus.FAILED,
                severity=_severity(rule.action),
                observed=ratio,
                required=required,
                reason="" if good else f"{source.rows:,} rows, and {before[kind]:,} in {name}",
                remedy="" if good else "look for lost or repeated loads; if this is normal, widen data.checks.rows",
                details={"rows": source.rows, "before": before[kind]},
            )
        )
    return checks or [
        Check(
            name="rows against last time",
            status=CheckStatus.SKIPPED,
            severity=Severity.WARN,
            required=required,
            reason=f"there is no {name} to compare with",
        )
    ]


def _champions_rows(record: Record) -> tuple[dict[str, int], str]:
    version, profile = champion_profile(record.project, registry_of(record.project))
    rows = {"train": profile.rows} if profile is not None and profile.rows else {}
    return rows, f"the champion's training data (version {version})" if version else "champion"


def _last_rows(record: Record) -> tuple[dict[str, int], str]:
    """Rows of the data sets of the last `validate-data` that passed."""
    for path in sorted((record.project.state / "history").glob("*-validate-data.json"), reverse=True):
        try:
            verdict = Verdict.read(path)
        except InputError:
            continue  # one that was cut off is no evidence, and an older one may be
        if verdict.status is Status.PASSED:
            counts = {c.name.removeprefix("rows of "): c.observed for c in verdict.checks if c.required == ">= 1"}
            rows = {kind: int(count) for kind, count in counts.items() if isinstance(count, float) and count >= 1}
            return rows, f"the data of {verdict.finished:%Y-%m-%d %H:%M}"
    return {}, "earlier verdict that passed"
