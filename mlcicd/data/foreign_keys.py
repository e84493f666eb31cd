"""Values that must be keys of another table: one anti-join a rule."""

# ruff: noqa: S608  (identifiers go through `quote`; values never become SQL)
from __future__ import annotations

from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

from mlcicd.core.verdict import Check, CheckStatus
from mlcicd.core.yaml_lines import nearest
from mlcicd.data.conditions import kind_of, percent
from mlcicd.data.examples import REDACTED, SHOWN_ROWS
from mlcicd.data.schema import ForeignKey, TableSchema
from mlcicd.data.source import Source, connect, open_source, quote, reading

_NUMBERS = ("int", "float", "decimal")
_SHOWN_CHARACTERS = 80


def foreign_key_checks(source: Source, schema: TableSchema) -> list[Check]:
    """One check a rule of `foreign_keys`: every whole key is in the other table.

    A row that lacks a part of the key is not looked at; the `nulls` of its columns decide about that.

    Raises:
        ConfigError: the other table has no such column; on Spark, the two have types that engines compare in
            different ways.
        InputError: the other table is missing or can not be read; on Spark, it is not Parquet.
    """
    return [_check(source, schema, index, rule) for index, rule in enumerate(schema.foreign_keys)]


def _check(source: Source, schema: TableSchema, index: int, rule: ForeignKey) -> Check:
    common: dict[str, Any] = {
        "name": f"foreign_key.{','.join(rule.columns)}",
        "required": f"{', '.join(rule.columns)} is a {', '.join(rule.key)} of {rule.file}"
        + (f", for at least {percent(rule.mostly)} of rows" if rule.mostly < 1 else ""),
        "severity": rule.severity,
    }
    missing = [name for name in rule.columns if name not in source.columns]
    if missing:
        return Check(
            **common,
            status=CheckStatus.FAILED,
            reason=f"the column {missing[0]!r} is not in the data",
            remedy="restore the column, or take the rule out of the schema",
        )
    if refused := source.joins_refused():
        raise schema.error(
            f"foreign_key.{','.join(rule.columns)} can not be checked: {refused}",
            "foreign_keys",
            index,
            remedy="let the database keep it (REFERENCES), or check this table with `engine: duckdb`",
        )
    other = _opened(source, _path(schema, rule))
    for place, name in enumerate(rule.key):
        if name not in other.columns:
            raise schema.error(
                f"{rule.file} has no column {name!r}{nearest(name, other.columns)}", "foreign_keys", index, "key", place
            )
    # A text column of the data is read as text; so must be what it is compared with: `007` is no 7.
    texts = [k for c, k in zip(rule.columns, rule.key, strict=True) if kind_of(source.columns[c]) == "string"]
    looked_at, dangling, examples = _count(source, other.as_text(frozenset(texts)), schema, rule)
    failed = dangling > (1 - Fraction(str(rule.mostly))) * looked_at
    reason = ""
    if failed:
        reason = f"{dangling:,} of {looked_at:,} rows ({dangling / looked_at:.4%}) refer to no row of {rule.file}"
    elif looked_at == 0:
        reason = "there is nothing it applies to"
    return Check(
        **common,
        status=CheckStatus.FAILED if failed else CheckStatus.PASSED if looked_at else CheckStatus.SKIPPED,
        observed=f"{dangling:,} rows without a counterpart",
        reason=reason,
        remedy=f"bring {rule.file} up to date, or correct the rows where the data is made" if failed else "",
        details={"violations": dangling, "checked": looked_at, **({"examples": examples} if dangling else {})},
    )


def _opened(source: Source, path: Path) -> Source:
    """The other table, on the engine of the first."""
    if not source.distributed:
        return open_source(path, memory_limit=source.memory_limit, threads=source.threads)
    from mlcicd.data.spark import SparkSource, open_spark

    assert isinstance(source, SparkSource)
    return open_spark(path, session=source.frame.sparkSession)


def _path(schema: TableSchema, rule: ForeignKey) -> Path:
    """A path beside the schema's own file."""
    return Path(schema.file).parent / rule.file


def _count(
    source: Source, other: Source, schema: TableSchema, rule: ForeignKey
) -> tuple[int, int, list[dict[str, Any]]]:
    """Rows with a whole key, those of them without a counterpart, and the most frequent such keys."""
    pairs = list(zip(rule.columns, rule.key, strict=True))
    if source.distributed:
        return _count_on_spark(source, other, schema, rule)
    left = [_comparable(source, name, other, key) for name, key in pairs]
    right = [_comparable(other, key, source, name) for name, key in pairs]
    parts = ", ".join(f"{sql} AS k{place}" for place, sql in enumerate(left))
    keys = ", ".join(f"{sql} AS k{place}" for place, sql in enumerate(right))
    whole = " AND ".join(f"{quote(name)} IS NOT NULL" for name in rule.columns)
    equal = " AND ".join(f"d.k{place} = o.k{place}" for place in range(len(pairs)))
    names = ", ".join(f"k{place}" for place in range(len(pairs)))
    dangling = (
        f"SELECT {names}, n FROM (SELECT {names}, count(*) AS n FROM (SELECT {parts} FROM data WHERE {whole}) "
        f"GROUP BY ALL) d ANTI JOIN (SELECT {keys} FROM other) o ON {equal}"
    )
    shown = ", ".join(
        f"'{REDACTED}'" if _sensitive(schema, name) else f"left(CAST(k{place} AS VARCHAR), {_SHOWN_CHARACTERS})"
        for place, name in enumerate(rule.columns)
    )
    with closing(connect({"data": source, "other": other})) as connection, reading(f"{source.path} and {other.path}"):
        found = connection.execute(
            f"WITH dangling AS MATERIALIZED ({dangling}) SELECT "
            f"(SELECT count(*) FROM data WHERE {whole}), (SELECT coalesce(sum(n), 0) FROM dangling), "
            f"(SELECT list([{shown}, CAST(n AS VARCHAR)]) FROM (SELECT * FROM dangling ORDER BY n DESC, {names} "
            f"LIMIT {SHOWN_ROWS}))"
        ).fetchall()
    looked_at, count, rows = found[0]
    examples = [{"values": dict(zip(rule.columns, values, strict=True)), "rows": int(n)} for *values, n in rows or []]
    return int(looked_at), int(count), examples


def _count_on_spark(
    source: Source, other: Source, schema: TableSchema, rule: ForeignKey
) -> tuple[int, int, list[dict[str, Any]]]:
    from mlcicd.data.spark import SparkSource
    from mlcicd.data.spark_keys import count_dangling

    assert isinstance(source, SparkSource)
    assert isinstance(other, SparkSource)
    pairs = list(zip(rule.columns, rule.key, strict=True))
    looked_at, dangling, keys = count_dangling(source, other, pairs, most=SHOWN_ROWS)
    hidden = [_sensitive(schema, name) for name in rule.columns]
    return (
        looked_at,
        dangling,
        [
            {
                "values": {
                    name: REDACTED if secret else text[:_SHOWN_CHARACTERS]
                    for name, secret, text in zip(rule.columns, hidden, texts, strict=True)
                },
                "rows": count,
            }
            for texts, count in keys
        ],
    )


def _sensitive(schema: TableSchema, name: str) -> bool:
    declared = schema.columns.get(name)
    return declared is not None and declared.sensitive


def _comparable(source: Source, name: str, other: Source, counterpart: str) -> str:
    """A column so that equal values are equal in both tables: numbers as numbers, different types as text."""
    types = source.columns[name], other.columns[counterpart]
    kinds = [kind_of(one) for one in types]
    if types[0] == types[1] or (all(kind in _NUMBERS for kind in kinds) and "float" not in kinds):
        return quote(name)
    if all(kind in _NUMBERS for kind in kinds):
        # As doubles, whole numbers beyond 2^53 would be equal to their neighbours.
        return f"coalesce(TRY_CAST({_whole(name)} AS HUGEINT)::VARCHAR, CAST(CAST({quote(name)} AS DOUBLE) AS VARCHAR))"
    return f"CAST({quote(name)} AS VARCHAR)"


def _whole(name: str) -> str:
    """A number where it is a whole one, else NULL; DuckDB's cast would round it."""
    return f"CASE WHEN {quote(name)} = floor({quote(name)}) THEN {quote(name)} END"
