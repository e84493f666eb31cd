"""A table against its schema.

All conditions on rows are counted in one aggregate SELECT, each uniqueness rule costs one more grouping, and
rows to show are fetched in one further pass, for failed rules only.
"""

# ruff: noqa: S608  (identifiers go through `quote`, text through `literal`; values never become SQL)
from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from mlcicd.core.errors import ConfigError
from mlcicd.core.verdict import Check, CheckStatus, Severity
from mlcicd.core.yaml_lines import nearest
from mlcicd.data.conditions import RowRule, Rules
from mlcicd.data.examples import row_examples
from mlcicd.data.foreign_keys import foreign_key_checks
from mlcicd.data.rules import compile_rules
from mlcicd.data.schema import TableSchema
from mlcicd.data.source import Source, quote
from mlcicd.data.uniqueness import unique_checks

# A plan grows with its aggregates, and planning time faster than that: very wide tables are counted in
# several passes.
_RULES_PER_PASS = 100


@dataclass(frozen=True)
class _Count:
    """How many rows a rule looked at, how many violated it, and the extremes where asked for."""

    looked_at: int
    violations: int
    low: str | None = None
    high: str | None = None


def run_checks(source: Source, schema: TableSchema, *, name: str = "train", now: datetime | None = None) -> list[Check]:
    """Holds a table against a schema.

    Args:
        name: what the table is called in the names of the checks: `<name>.<column>.<rule>`.
        now: the time that freshness is measured against; the current time when None.

    Returns:
        One check a rule. A check that applies to no value is skipped (its column's `nulls` decides whether
        that is allowed); a `rules` entry that applies to no row is inconclusive.

    Raises:
        ConfigError: an expression or pattern of the schema is wrong.
        InputError: the data can not be read.
    """
    source = source.as_text(frozenset(n for n, c in schema.columns.items() if c.type == "string"))
    rules = compile_rules(source, schema)
    _refuse_uncountable(source, rules)
    rows, counts = _count(source, rules.rows)
    failed = [rule for rule, count in zip(rules.rows, counts, strict=True) if _violated(rule, count)]
    examples = row_examples(source, failed, schema)
    checks = [_row_count(schema, rows), *_column_checks(source, schema), *rules.settled]
    checks += [
        _row_check(rule, count, examples.get(rule.name, [])) for rule, count in zip(rules.rows, counts, strict=True)
    ]
    checks += unique_checks(source, rules.unique, schema)
    checks += foreign_key_checks(source, schema)
    if schema.freshness is not None:
        checks.append(_freshness(source, schema, now or datetime.now(UTC)))
    return [check.model_copy(update={"name": f"{name}.{check.name}"}) for check in checks]


def _refuse_uncountable(source: Source, rules: Rules) -> None:
    """Nothing is skipped because an engine can not do it: that would be a green light for rows that nobody has seen."""
    reasons = {
        rule.name: reason
        for rule in rules.rows
        for condition in (rule.applies, rule.valid)
        if (reason := source.refuses(condition))
    }
    if reasons:
        first = next(iter(reasons))
        others = f"; so can not {', '.join(list(reasons)[1:20])}" if len(reasons) > 1 else ""
        raise ConfigError(
            f"the rule {first} can not run on this engine: {reasons[first]}{others}",
            where=str(source.path),
            remedy="write it with what docs/data.md lists for Spark, or check this table with `engine: duckdb`",
        )


def _count(source: Source, rules: list[RowRule]) -> tuple[int, list[_Count]]:
    rows, counts = 0, []
    for start in range(0, max(len(rules), 1), _RULES_PER_PASS):
        block = rules[start : start + _RULES_PER_PASS]
        values = list(source.fetch(f"SELECT {', '.join(_aggregates(block))} FROM data")[0])
        rows = int(values.pop(0))
        for rule in block:
            looked_at, obeying = int(values.pop(0) or 0), int(values.pop(0) or 0)  # NULL without rows
            low, high = (values.pop(0), values.pop(0)) if rule.range_of else (None, None)
            counts.append(_Count(looked_at, looked_at - obeying, low, high))
    return rows, counts


def _aggregates(rules: list[RowRule]) -> list[str]:
    parts = ["count(*)"]
    for rule in rules:
        # Rows that obey are counted, not those that violate: `valid` as it stands is the cheapest of conditions.
        # count_if shares common parts of conditions between rules; FILTER evaluates each anew, at twice the cost.
        if rule.of:
            parts += [f"count({rule.of})", f"count_if({rule.valid})"]
        elif rule.applies == "TRUE":
            parts += ["count(*)", f"count_if({rule.valid})"]
        else:
            parts += [f"count_if({rule.applies})", f"count_if({rule.applies} AND ({rule.valid}))"]
        if rule.range_of:
            parts += [f"CAST(min({rule.range_of}) AS VARCHAR)", f"CAST(max({rule.range_of}) AS VARCHAR)"]
    return parts


def _violated(rule: RowRule, count: _Count) -> bool:
    # In fractions: 0.9 of 10 rows must be 9, not 9.000000000000002.
    return count.violations > rule.allowed * count.looked_at


def _row_check(rule: RowRule, count: _Count, examples: list[dict[str, Any]]) -> Check:
    details: dict[str, Any] = {"violations": count.violations, "checked": count.looked_at}
    if len(rule.columns) == 1:
        details["column"] = rule.columns[0]
    if count.low is not None:
        details |= {"min": count.low, "max": count.high}
    if examples:
        details["examples"] = examples
    if count.looked_at == 0:
        status, reason = rule.vacuous, "there is nothing it applies to"
    elif _violated(rule, count):
        status = CheckStatus.FAILED
        share = count.violations / count.looked_at
        reason = f"{count.violations:,} of {count.looked_at:,} ({share:.4%}) are {rule.violation}"
        if count.low is not None:
            reason += f"; the data is in [{count.low}, {count.high}]"
    else:
        status, reason = CheckStatus.PASSED, ""
    return Check(
        name=rule.name,
        status=status,
        observed=f"{count.violations:,} {rule.violation}",
        required=rule.required,
        severity=rule.severity,
        reason=reason,
        remedy="" if status is CheckStatus.PASSED else rule.remedy,
        details=details,
    )


def _row_count(schema: TableSchema, rows: int) -> Check:
    low, high = schema.rows.min, schema.rows.max
    reason = remedy = ""
    if rows < low:
        reason = "the table is empty" if rows == 0 else f"{rows:,} rows, fewer than {low:,}"
        remedy = "find out why rows are missing, or lower `rows.min` (`rows.holdout.min` for the holdout) in the schema"
    elif high is not None and rows > high:
        reason = f"{rows:,} rows, more than {high:,}"
        remedy = "look for repeated loads, or raise `rows.max` (`rows.holdout.max` for the holdout) in the schema"
    return Check(
        name="rows",
        status=CheckStatus.FAILED if reason else CheckStatus.PASSED,
        observed=float(rows),
        required=f">= {low:,}" if high is None else f"in [{low:,}, {high:,}]",
        reason=reason,
        remedy=remedy,
    )


def _column_checks(source: Source, schema: TableSchema) -> list[Check]:
    required = [name for name, column in schema.columns.items() if column.required]
    missing = [name for name in required if name not in source.columns]
    checks = [
        Check(
            name=f"{name}.present",
            status=CheckStatus.FAILED,
            observed="missing",
            required="the column is there",
            severity=schema.columns[name].severity,
            reason=f"there is no column {name!r}{nearest(name, source.columns)}",
            remedy="restore the column where the data is made, or set `required: false` in the schema",
            details={"column": name},
        )
        for name in missing
    ]
    if required and not missing:
        checks.append(
            Check(
                name="columns",
                status=CheckStatus.PASSED,
                observed=float(len(required)),
                required=f"{len(required)} columns are there",
            )
        )
    if schema.extra_columns != "allow":
        checks.append(_extra_columns(source, schema))
    return checks


def _extra_columns(source: Source, schema: TableSchema) -> Check:
    extra = [name for name in source.columns if name not in schema.columns]
    return Check(
        name="extra_columns",
        status=CheckStatus.FAILED if extra else CheckStatus.PASSED,
        observed=float(len(extra)),
        required="no column that the schema does not name",
        severity=Severity.WARN if schema.extra_columns == "warn" else Severity.FAIL,
        reason=f"not in the schema: {', '.join(repr(name) for name in extra[:10])}" if extra else "",
        remedy="name the columns in the schema, or drop them where the data is made" if extra else "",
        details={"columns": extra[:100]},
    )


def _freshness(source: Source, schema: TableSchema, now: datetime) -> Check:
    rule = schema.freshness
    if rule is None or rule.column not in source.columns:
        column = rule.column if rule else ""
        raise schema.error(
            f"freshness names a column {column!r} that the data lacks{nearest(column, source.columns)}",
            "freshness",
            "column",
        )
    name = quote(rule.column)
    kind = source.columns[rule.column]
    # Text must be a time in every row: one unreadable newest value would make old data look fresh, or the
    # reverse.
    value = name if kind.startswith(("TIMESTAMP", "DATE")) else f"TRY_CAST(CAST({name} AS VARCHAR) AS TIMESTAMP)"
    seconds, unreadable = source.fetch(
        f"SELECT epoch(max({value})), count(*) FILTER (WHERE {name} IS NOT NULL AND {value} IS NULL) FROM data"
    )[0]
    required = f"the newest {rule.column} is at most {rule.max_age} old"
    newest: datetime | None = None
    if seconds is None:
        reason = f"{rule.column!r} holds no time"
    elif unreadable:
        reason = f"{unreadable:,} values of {rule.column!r} are no times"
    else:
        reason, newest = _age(float(seconds), now, rule.max_age, rule.ahead)
    return Check(
        name="freshness",
        status=CheckStatus.FAILED if reason else CheckStatus.PASSED,
        observed=newest.isoformat() if newest else None,
        required=required,
        severity=rule.severity,
        reason=reason,
        remedy="run the job that delivers the data, or look at the clock of its producer" if reason else "",
        details={"column": rule.column},
    )


def _age(seconds: float, now: datetime, oldest: timedelta, ahead: timedelta) -> tuple[str, datetime | None]:
    try:
        newest = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return "the newest value is no time on the calendar", None
    reference = now if now.tzinfo else now.replace(tzinfo=UTC)
    if newest > reference + ahead:
        return f"the newest value is in the future ({newest.isoformat()})", newest
    if reference - newest > oldest:
        return f"the newest value is {reference - newest} old", newest
    return "", newest
