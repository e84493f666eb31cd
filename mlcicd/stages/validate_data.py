"""validate-data: is this data what the model may learn from and be judged on?"""

from __future__ import annotations

import json
from pathlib import Path

from mlcicd.config import FILE_NAME, Project
from mlcicd.core.digests import digest_json
from mlcicd.core.errors import ConfigError
from mlcicd.core.files import write_atomic
from mlcicd.core.verdict import Check, CheckStatus, Severity, Status, conclude
from mlcicd.core.yaml_lines import nearest
from mlcicd.data.leakage import leakage_checks
from mlcicd.data.profile import Profile, profile
from mlcicd.data.source import Source, open_source, quote
from mlcicd.stages.common import data_path, prepare_data, prepare_files, registry_of, sensitive_columns
from mlcicd.stages.data_checks import further_checks, row_count_checks
from mlcicd.stages.drifting import drift_findings, with_rows_and_slices
from mlcicd.stages.record import Record, stage
from mlcicd.stages.reference import champion_profile

_NOT_IN_A_DATABASE = ("leakage", "drift", "constant", "population", "sources", "personal", "labels", "serving")


@stage("validate-data")
def validate_data(record: Record) -> Status | None:
    """Checks training data and holdout: schema, leakage between them, and drift against the reference profile."""
    project = record.project
    data = project.config.data
    if data.engine == "database":
        _refuse_what_a_database_can_not(project)
        _validate_in_database(record)
        return None
    prepare_data(record, always=True)
    sources: dict[str, Source] = {}
    for kind in ("train", "holdout"):
        record.progress.step(f"reading {getattr(data, kind)}")
        sources[kind] = _open(project, data_path(record, kind))
    _first_checks(record, sources)
    if any(c.status is CheckStatus.FAILED and c.name.startswith("target in") for c in record.checks):
        return None
    if data.checks.leakage is not None:
        record.checks += leakage_checks(
            sources["train"],
            sources["holdout"],
            keys=data.checks.leakage.keys,
            time=data.checks.leakage.time or None,
            target=data.target,
            features=_features(project, sources["train"]),
        )
    reference = _store_profile(record, sources["train"])
    record.checks += further_checks(record, reference, sources, _features(project, sources["train"]))
    if data.checks.drift is not None:
        _drift_checks(record, reference, sources)
    _say_that_all_is_well(record, sources)
    return None


def _validate_in_database(record: Record) -> None:
    """The checks that need no rows here; the others were refused."""
    from mlcicd.stages.database_tables import open_tables

    prepare_files(record, always=True)
    with open_tables(record) as tables:
        sources: dict[str, Source] = {**tables}
        _first_checks(record, sources)
        rule = record.project.config.data.checks.rows
        if rule is not None:
            record.checks += row_count_checks(record, rule, sources)
        _say_that_all_is_well(record, sources)


def _first_checks(record: Record, sources: dict[str, Source]) -> None:
    config = record.project.config
    for kind, source in sources.items():
        record.checks += _basics(kind, source, config.data.target, config.model.task)
    record.checks += _unknown_ignored(record, sources)
    _schema_checks(record, sources)


def _say_that_all_is_well(record: Record, sources: dict[str, Source]) -> None:
    if conclude(record.checks) is Status.PASSED:
        rows = [f"{source.rows:,} {kind} rows" for kind, source in sources.items()]
        warnings = sum(c.status is CheckStatus.FAILED for c in record.checks)
        record.summary = f"{' and '.join(rows)} are as they should be"
        record.summary += f", with {warnings} warning{'s' * (warnings != 1)}" if warnings else ""


def _open(project: Project, path: Path) -> Source:
    data = project.config.data
    if data.engine == "duckdb":
        return open_source(path)
    from mlcicd.data.spark import open_spark

    return open_spark(path, master=data.spark.master, options=data.spark.options)


def _refuse_what_a_database_can_not(project: Project) -> None:
    """A check that is asked for and can not run is an error, before anything is read: not a check less."""
    for name in _NOT_IN_A_DATABASE:
        if getattr(project.config.data.checks, name):
            raise ConfigError(
                f"data.checks.{name} can not run in a database",
                file=FILE_NAME,
                line=project.document.line(("data", "checks", name)),
                why="It looks at rows themselves, by functions that a database does not have.",
                remedy="check a sample of the data with `engine: duckdb` for it, in a profile of its own",
            )


def _unknown_ignored(record: Record, sources: dict[str, Source]) -> list[Check]:
    """A misspelled name under data.ignore ignores nothing, and a key or a time becomes a feature."""
    known = list(dict.fromkeys(name for source in sources.values() for name in source.columns))
    line = record.project.document.line(("data", "ignore"))
    return [
        Check(
            name=f"data.ignore {name}",
            status=CheckStatus.FAILED,
            severity=Severity.WARN,
            reason=f"no data set has a column {name!r} to ignore{nearest(name, known)}",
            remedy="correct data.ignore",
            details={"line": line},
        )
        for name in record.project.config.data.ignore
        if name not in known
    ]


def _basics(kind: str, source: Source, target: str, task: str) -> list[Check]:
    """Rows and a target: without these, nothing else is worth a look."""
    checks = [
        Check(
            name=f"rows of {kind}",
            status=CheckStatus.PASSED if source.rows else CheckStatus.FAILED,
            observed=source.rows,
            required=">= 1",
            reason="" if source.rows else f"the {kind} data has a header and no rows",
            remedy="" if source.rows else "look at what wrote it",
        )
    ]
    if target not in source.columns:
        checks.append(
            Check(
                name=f"target in {kind}",
                status=CheckStatus.FAILED,
                observed=", ".join(list(source.columns)[:20]),
                required=target,
                reason=f"the {kind} data has no column {target!r}",
                remedy="correct data.target, or the data",
            )
        )
    elif source.rows:
        checks.append(_labels(kind, source, target, task))
    return checks


def _labels(kind: str, source: Source, target: str, task: str) -> Check:
    """Labels that are there, and as many classes as the task has: known before hours of training, not after."""
    column = quote(target)
    missing = f"{column} IS NULL"
    if source.columns[target] in ("FLOAT", "DOUBLE"):
        missing += f" OR NOT isfinite({column})"
    # Identifiers are quoted; nothing of the data is SQL.
    holes, classes = source.fetch(f"SELECT count(*) FILTER (WHERE {missing}), count(DISTINCT {column}) FROM data")[0]  # noqa: S608
    enough = classes == 2 if task == "binary" else classes >= (1 if task == "multilabel" else 2)
    reason = ""
    if holes:
        reason = f"{holes:,} of {source.rows:,} rows of the {kind} data have no label"
    elif not enough:
        reason = f"the {kind} data has {classes} different labels, and a {task} task has " + (
            "two" if task == "binary" else "at least two"
        )
    return Check(
        name=f"target of {kind}",
        status=CheckStatus.FAILED if reason else CheckStatus.PASSED,
        observed=f"{classes} different labels, {holes} missing",
        required="every row labelled",
        reason=reason,
        remedy="drop or label these rows; correct model.task or data.target" if reason else "",
    )


def _schema_checks(record: Record, sources: dict[str, Source]) -> None:
    from mlcicd.data.checks import run_checks
    from mlcicd.data.schema import load_schema

    data = record.project.config.data
    if not data.schema_file:
        return
    schema = load_schema(record.project.path(data.schema_file, ("data", "schema")))
    for kind, source in sources.items():
        record.progress.step(f"checking {kind} against {data.schema_file}")
        own = schema.for_holdout() if kind == "holdout" else schema
        record.checks += run_checks(source, own, name=kind)


def _features(project: Project, source: Source) -> list[str]:
    left_out = {project.config.data.target, *project.config.data.ignore}
    return [column for column in source.columns if column not in left_out]


def _store_profile(record: Record, train: Source) -> Profile:
    """Keeps the profile of the training data: it is stored with the model, and is what later data is held against."""
    project = record.project
    record.progress.step("profiling the training data")
    asked = project.config.data.checks
    # Of a column of sources the shares are kept, whether the model is given it or not.
    ignored = set(project.config.data.ignore) - {asked.sources.column if asked.sources else ""}
    made = profile(
        train,
        columns=[c for c in train.columns if c not in ignored],
        target=project.config.data.target,
        sensitive=sensitive_columns(project),
    )
    made = with_rows_and_slices(made, train, asked.drift)
    path = project.state / "evidence" / "profile.json"
    text = json.dumps(made.to_json(), sort_keys=True)
    write_atomic(path, text)
    record.attach(path, "profile")
    record.subject("profile", "train", digest_json(text))
    return made


def _drift_checks(record: Record, own: Profile, sources: dict[str, Source]) -> None:
    project = record.project
    rule = project.config.data.checks.drift
    assert rule is not None
    reference: Profile | None = own
    name = "the training data"
    compared = sources["holdout"]
    if rule.reference == "champion":
        version, reference = champion_profile(project, registry_of(project))
        name, compared = f"the champion's profile (version {version})", sources["train"]
    if reference is None:
        record.checks.append(
            Check(
                name="drift",
                status=CheckStatus.SKIPPED,
                severity=Severity.WARN,
                reason="there is no champion with a profile yet to compare with",
            )
        )
        return
    record.progress.step(f"comparing with {name}")
    severity = Severity.FAIL if rule.action == "fail" else Severity.WARN
    record.checks += drift_findings(record, reference, compared, rule, severity=severity)
