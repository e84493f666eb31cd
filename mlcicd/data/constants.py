"""Columns that hold (almost) one value: nothing can be learned from them, and often a feed has broken."""

# ruff: noqa: S608  (identifiers go through `quote`; values never become SQL)
from __future__ import annotations

from collections.abc import Sequence

from mlcicd.core.verdict import Check, CheckStatus, Severity
from mlcicd.data.column_profile import ColumnProfile
from mlcicd.data.conditions import kind_of
from mlcicd.data.examples import REDACTED
from mlcicd.data.profile import Profile
from mlcicd.data.source import Source, quote

_SHOWN_CHARACTERS = 40


def constant_checks(
    source: Source,
    seen: Profile,
    *,
    max_share: float,
    severity: Severity = Severity.WARN,
    columns: Sequence[str] | None = None,
) -> list[Check]:
    """One check a column of which one value holds more than `max_share` of the rows; one that passed if there is none.

    Missing values (NULL and NaN) are one value.

    Args:
        seen: the profile of the source; columns that it shows to vary are not read again.
        columns: which of the profile's columns; all when None.

    Raises:
        InputError: the data can not be read.
    """
    required = f"no value holds more than {max_share:.6g} of the rows"
    names = [name for name in seen.columns if columns is None or name in columns]
    if source.rows == 0:
        return []
    checks = []
    for name in names:
        if _most(seen.columns[name]) <= max_share * seen.rows:
            continue
        value, count = _most_frequent(source, name)
        if count <= max_share * source.rows:
            continue
        shown = "missing" if value is None else repr(REDACTED if name in seen.sensitive else value)
        whole = count == source.rows
        checks.append(
            Check(
                name=f"constant.{name}",
                status=CheckStatus.FAILED,
                severity=severity,
                observed=count / source.rows,
                required=required,
                reason=f"{name!r} is {shown} in "
                + ("every row" if whole else f"{count:,} of {source.rows:,} rows ({count / source.rows:.4%})"),
                remedy="find out whether its feed has broken; if this is normal, name it under data.ignore",
                details={"column": name, "rows": count},
            )
        )
    return checks or [
        Check(
            name="constant",
            status=CheckStatus.PASSED,
            severity=severity,
            observed=f"{len(names)} columns vary",
            required=required,
        )
    ]


def _most(column: ColumnProfile) -> int:
    """The most rows that one value can hold."""
    if column.kind in ("time", "other"):
        return column.rows
    return max(
        column.nulls + column.nan,
        column.infinite,
        *column.categories.values(),
        *column.rest.values(),
        *column.histogram.cells.values(),
        0,
    )


def _most_frequent(source: Source, name: str) -> tuple[str | None, int]:
    value = quote(name)
    if kind_of(source.columns[name]) == "float":
        value = f"CASE WHEN isnan({value}) THEN NULL ELSE {value} END"
    rows = source.fetch(
        f"SELECT left(CAST(v AS VARCHAR), {_SHOWN_CHARACTERS}), n FROM "
        f"(SELECT {value} AS v, count(*) AS n FROM data GROUP BY 1) ORDER BY n DESC, 1 LIMIT 1"
    )
    return rows[0][0], int(rows[0][1])
