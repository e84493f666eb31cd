"""From a schema to conditions on rows, in SQL.

Here and in :mod:`mlcicd.data.column_rules` rules become SQL, and nowhere else: what comes after counts
conditions and knows no rule. Another engine needs another version of these two.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from mlcicd.core.verdict import Check, CheckStatus, Severity
from mlcicd.core.yaml_lines import nearest
from mlcicd.data.column_rules import ColumnRules
from mlcicd.data.conditions import RowRule, Rules, UniqueRule, percent
from mlcicd.data.expressions import ExpressionError, check_expression
from mlcicd.data.schema import Rule, TableSchema
from mlcicd.data.source import Source, quote


def compile_rules(source: Source, schema: TableSchema) -> Rules:
    """Turns a schema into conditions on the columns a source has.

    Raises:
        ConfigError: a rule's expression or pattern is wrong; names the line.
    """
    rules = Rules()
    for name, column in schema.columns.items():
        if name in source.columns:
            ColumnRules(source, schema, name, column).add_to(rules)
    for index, rule in enumerate(schema.rules):
        _expression(source, schema, index, rule, rules)
    _key(source, schema, rules)
    return rules


def _expression(source: Source, schema: TableSchema, index: int, rule: Rule, rules: Rules) -> None:
    parts = []
    for key, text in (("expression", rule.expression), ("where", rule.where)):
        if text is None:
            continue
        try:
            parts.append(check_expression(text, source))
        except ExpressionError as error:
            raise schema.error(
                f"the {key} of rule {rule.name!r}: {error}",
                "rules",
                index,
                key,
                remedy="write one SQL condition over the columns of a row, such as: arrival >= departure",
            ) from error
    missing = list(_missing_columns(schema, index, rule, [name for part in parts for name in part.missing]))
    if missing:
        rules.settled.append(
            Check(
                name=f"rule.{rule.name}",
                status=CheckStatus.FAILED,
                required=rule.expression,
                severity=rule.severity,
                reason=f"it needs the column {missing[0]!r}, which the data does not have",
                remedy="restore the column, or take the rule out of the schema",
            )
        )
        return
    condition = parts[0]
    where = parts[1].sql if len(parts) > 1 else ""
    columns = tuple(dict.fromkeys(name for part in parts for name in part.columns))
    rules.rows.append(
        RowRule(
            name=f"rule.{rule.name}",
            columns=columns,
            applies=f"(TRY({where}) IS TRUE)" if where else "TRUE",
            valid=f"TRY({condition.sql})",
            allowed=1 - Fraction(str(rule.mostly)),
            required=rule.expression + (f" for at least {percent(rule.mostly)} of rows" if rule.mostly < 1 else ""),
            violation="rows for which it is not true",
            severity=rule.severity,
            remedy=rule.description
            or "correct the rows where the data is made; `where` leaves out rows the rule is not meant for",
            vacuous=CheckStatus.INCONCLUSIVE,
        )
    )


def _missing_columns(schema: TableSchema, index: int, rule: Rule, names: list[str]) -> Iterator[str]:
    declared = {name.lower() for name in schema.columns}
    for name in names:
        if name.lower() not in declared:
            raise schema.error(
                f"rule {rule.name!r} names a column {name!r} that neither the data nor the schema has"
                f"{nearest(name, schema.columns)}",
                "rules",
                index,
                "expression",
            )
        yield name


def _key(source: Source, schema: TableSchema, rules: Rules) -> None:
    if not schema.key:
        return
    missing = [name for name in schema.key if name not in source.columns]
    if missing:
        rules.settled.append(
            Check(
                name="key",
                status=CheckStatus.FAILED,
                required=f"unique by {', '.join(schema.key)}",
                reason=f"the key column {missing[0]!r} is not in the data",
                remedy="restore the column, or correct `key` in the schema",
            )
        )
        return
    rules.rows.append(
        RowRule(
            name="key.nulls",
            columns=tuple(schema.key),
            applies="TRUE",
            valid=" AND ".join(f"{quote(name)} IS NOT NULL" for name in schema.key),
            allowed=Fraction(0),
            required="no missing values in the key",
            violation="rows without a whole key",
            severity=Severity.FAIL,
            remedy="fill the key where the data is made, or drop those rows there",
        )
    )
    rules.unique.append(UniqueRule("key.unique", tuple(schema.key), Severity.FAIL))
