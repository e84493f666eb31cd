"""Whether some columns identify a row: rows with a whole key, against distinct keys among them.

Whole numbers of a narrow span are counted exactly in a bitmap, one bit for each number of the span: it costs a fifth of
a table of hashes, and its size does not grow with the rows. Everything else is grouped.
"""

# ruff: noqa: S608  (identifiers go through `quote`; values never become SQL)
from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from mlcicd.core.verdict import Check, CheckStatus
from mlcicd.data.conditions import UniqueRule, kind_of
from mlcicd.data.examples import duplicate_examples
from mlcicd.data.schema import TableSchema
from mlcicd.data.source import Source, quote

# Each thread has a bitmap of its own; together they take at most 128 MiB.
_BITS = 1 << 30
_BITS_A_THREAD = 1 << 27
# A group of a hash table takes more than a hundred bits: wider than this, a bitmap would cost more than it saves.
_BITS_A_ROW = 64


def unique_checks(source: Source, rules: Sequence[UniqueRule], schema: TableSchema) -> list[Check]:
    """One check a rule.

    Raises:
        InputError: the data can not be read.
    """
    counted: dict[tuple[str, ...], tuple[int, int]] = {}
    checks = []
    for rule in rules:
        if rule.columns not in counted:  # a key of one column is often declared unique, too
            counted[rule.columns] = _count_distinct(source, rule)
        checks.append(_unique_check(source, rule, schema, *counted[rule.columns]))
    return checks


def _count_distinct(source: Source, rule: UniqueRule) -> tuple[int, int]:
    """Rows with a whole key, and distinct keys among them."""
    names = [quote(column) for column in rule.columns]
    if len(names) == 1:
        # A text format has to be read once more for the span, which costs more than the bitmap saves.
        if kind_of(source.columns[rule.columns[0]]) == "int" and not (source.untyped or source.distributed):
            return _count_numbers(source, names[0])
        sql = _distinct(names[0])
    else:
        whole = " AND ".join(f"{name} IS NOT NULL" for name in names)
        sql = (
            f"SELECT coalesce(sum(n), 0), count(*) FROM "
            f"(SELECT count(*) AS n FROM data WHERE {whole} GROUP BY {', '.join(names)})"
        )
    total, distinct = source.fetch(sql)[0]
    return int(total), int(distinct)


def _distinct(name: str) -> str:
    return f"SELECT count({name}), count(DISTINCT {name}) FROM data"


def _count_numbers(source: Source, name: str) -> tuple[int, int]:
    total, low, high = source.fetch(f"SELECT count({name}), min({name}), max({name}) FROM data")[0]
    if not total:
        return 0, 0
    threads = source.threads or os.cpu_count() or 1
    if high - low < min(_BITS_A_THREAD, _BITS // threads, _BITS_A_ROW * total):
        sql = f"SELECT bit_count(bitstring_agg({name}, {low}, {high})) FROM data"
        return int(total), int(source.fetch(sql)[0][0])
    return int(total), int(source.fetch(_distinct(name))[0][1])


def _unique_check(source: Source, rule: UniqueRule, schema: TableSchema, total: int, distinct: int) -> Check:
    excess = total - distinct
    details: dict[str, Any] = {"checked": total, "distinct": distinct, "excess_rows": excess}
    if excess:
        details["examples"] = duplicate_examples(source, rule, schema)
    shown = ", ".join(rule.columns)
    return Check(
        name=rule.name,
        status=CheckStatus.SKIPPED if total == 0 else CheckStatus.FAILED if excess else CheckStatus.PASSED,
        observed=float(excess),
        required=f"no two rows with the same {shown}",
        severity=rule.severity,
        reason=f"{excess:,} rows repeat the {shown} of an earlier one ({distinct:,} distinct in {total:,})"
        if excess
        else "there is nothing it applies to"
        if total == 0
        else "",
        remedy="drop the repeated rows where the data is made" if excess else "",
        details=details,
    )
