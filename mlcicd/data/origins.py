"""Hints at poisoned data: where rows come from, and whose labels contradict the others'.

Hints only: a new customer looks like this, too.
"""

# ruff: noqa: S608  (identifiers go through `quote`; values never become SQL)
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mlcicd.core.verdict import Check, CheckStatus, Severity
from mlcicd.data.column_profile import ColumnProfile, bucket, hashed
from mlcicd.data.source import Source, quote

_NAMED = 5
_MOST_SOURCES = 4000
_LONGEST = 80
_FEWEST_CONFLICTS = 30
# Two-sided 99.9 %: a hint a thousand sources without a cause.
_Z = 3.29


def origin_checks(
    source: Source,
    column: str,
    reference: ColumnProfile | None,
    *,
    target: str,
    features: Sequence[str],
    max_rise: float = 0.1,
    severity: Severity = Severity.WARN,
    hidden: bool = False,
) -> list[Check]:
    """Whether one source's share has risen by more than `max_rise`, and whether one holds the contradicting labels.

    Args:
        column: which source (sensor, user, supplier, file) a row is from; missing is a source of its own.
        reference: the column's profile in the reference, if there is one.
        target, features: two rows contradict each other when their features are the same and their labels are not.
        max_rise: largest rise of one source's share; and the largest excess of its share of the contradicting rows
            over its share of all rows.
        hidden: sources are shown, and stand in the reference, as hashes of their names.

    Raises:
        InputError: the data can not be read.
    """
    rows = source.fetch(
        f"SELECT left(CAST({quote(column)} AS VARCHAR), {_LONGEST}), count(*) FROM data GROUP BY 1 "
        f"ORDER BY 2 DESC, 1 LIMIT {_MOST_SOURCES}"
    )
    counts = {_named(name, hidden): int(count) for name, count in rows}
    return [
        _risen(source.rows, counts, column, reference, max_rise, severity),
        _conflicting(source, counts, column, target, features, max_rise, severity, hidden),
    ]


def _risen(
    total: int,
    counts: dict[str | None, int],
    column: str,
    reference: ColumnProfile | None,
    limit: float,
    severity: Severity,
) -> Check:
    common: dict[str, Any] = {
        "name": f"sources.{column}",
        "severity": severity,
        "required": f"no source's share rises by more than {limit:g}",
    }
    if reference is None or reference.kind != "category" or not reference.rows or not total:
        reason = f"the reference has no shares of {column!r} to compare with"
        return Check(**common, status=CheckStatus.SKIPPED, reason=reason)
    risen = []
    for name, count in counts.items():
        before = _share_before(name, reference)
        pooled = (count + before * reference.rows) / (total + reference.rows)
        noise = _Z * math.sqrt(pooled * (1 - pooled) * (1 / total + 1 / reference.rows))
        rise = count / total - before
        if rise > limit and rise - noise > 0:
            risen.append((rise, name, before))
    risen.sort(key=lambda one: -one[0])
    told = [
        f"{_shown(name)} has {counts[name] / total:.2%} of the rows ({f'{before:.2%} in' if before else 'not in'} "
        "the reference)"
        for _, name, before in risen[:_NAMED]
    ]
    most = max((counts[n] / total - _share_before(n, reference) for n in counts), default=0.0)
    return Check(
        **common,
        status=CheckStatus.FAILED if risen else CheckStatus.PASSED,
        observed=most,
        reason="; ".join(told),
        remedy="look at those rows before you train on them: who sent them, and since when" if risen else "",
        details={"column": column, "sources": len(counts)},
    )


def _share_before(name: str | None, reference: ColumnProfile) -> float:
    """The largest share that the source can have had: of one that was not kept by name, its bucket's."""
    if name is None:
        return reference.nulls / reference.rows
    count = reference.categories.get(name, reference.rest.get(bucket(name), 0))
    return count / reference.rows


def _conflicting(
    source: Source,
    counts: dict[str | None, int],
    column: str,
    target: str,
    features: Sequence[str],
    limit: float,
    severity: Severity,
    hidden: bool,
) -> Check:
    common: dict[str, Any] = {
        "name": f"sources.{column}.conflicts",
        "severity": severity,
        "required": f"no source holds {limit:g} more of the contradicting rows than of all rows",
    }
    inputs = [name for name in features if name not in (column, target)]
    if not inputs:
        return Check(**common, status=CheckStatus.SKIPPED, reason="there are no features")
    torn = {_named(name, hidden): count for name, count in _contradicting(source, column, target, inputs)}
    total = sum(torn.values())
    excess = {name: count / total - counts.get(name, 0) / source.rows for name, count in torn.items()}
    worst = max(excess, key=lambda name: excess[name], default=None)
    failed = total >= _FEWEST_CONFLICTS and excess[worst] > limit
    reason = ""
    if failed:
        reason = (
            f"{_shown(worst)} has {counts.get(worst, 0) / source.rows:.2%} of the rows and {torn[worst] / total:.2%} "
            f"of the {total:,} whose label contradicts a row of the same features"
        )
    return Check(
        **common,
        status=CheckStatus.FAILED if failed else CheckStatus.PASSED,
        observed=f"{total:,} contradicting rows",
        reason=reason,
        remedy="look at the labels of that source before you train on them" if failed else "",
        details={"column": column, "rows": total},
    )


def _contradicting(source: Source, column: str, target: str, inputs: Sequence[str]) -> Sequence[tuple[str | None, int]]:
    """How many rows of each source have a label that another row of the same features contradicts, most first."""
    if source.distributed:
        from mlcicd.data.spark import SparkSource
        from mlcicd.data.spark_rows import contradicting_by

        assert isinstance(source, SparkSource)
        return contradicting_by(source, column, target, inputs, longest=_LONGEST)
    features = ", ".join(quote(name) for name in inputs)
    # Equal features have equal 64-bit hashes; that two different rows share one is a matter of chance in 1e19.
    found = source.fetch(
        f"WITH rows AS (SELECT hash({features}) AS h, CAST({quote(target)} AS VARCHAR) AS y, "
        f"left(CAST({quote(column)} AS VARCHAR), {_LONGEST}) AS s FROM data), "
        f"torn AS (SELECT h FROM rows GROUP BY h HAVING min(y) <> max(y)) "
        f"SELECT s, count(*) FROM rows SEMI JOIN torn USING (h) GROUP BY s ORDER BY 2 DESC, 1"
    )
    return [(name, int(count)) for name, count in found]


def _named(name: str | None, hidden: bool) -> str | None:
    return hashed(name) if hidden and name is not None else name


def _shown(name: str | None) -> str:
    return "a missing source" if name is None else repr(name)
