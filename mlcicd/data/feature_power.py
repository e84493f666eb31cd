"""How well each feature of a table alone tells its label, counted in one pass a label and forty features."""

# ruff: noqa: S608  (identifiers go through `quote`, text through `literal`; values never become SQL)
from __future__ import annotations

from collections.abc import Sequence

from mlcicd.data.conditions import kind_of
from mlcicd.data.histogram import rounding_sql
from mlcicd.data.separability import category_auc, numeric_auc
from mlcicd.data.source import Source, literal, quote

MOST_CLASSES = 20
CLASSES_TOLD_APART = 5
MOST_CATEGORIES = 4000
_FEATURES_PER_PASS = 40


def positive_conditions(train: Source, target: str) -> list[str]:
    """The conditions that each make a row a positive; none when the label does not vary."""
    column = quote(target)
    (distinct,) = train.fetch(f"SELECT approx_count_distinct({column}) FROM data")[0]
    if kind_of(train.columns[target]) in ("int", "float", "decimal") and distinct > MOST_CLASSES:
        (median,) = train.fetch(
            f"SELECT approx_quantile(CAST({column} AS DOUBLE), 0.5) FROM data WHERE isfinite(CAST({column} AS DOUBLE))"
        )[0]
        above = f"(CAST({column} AS DOUBLE) > CAST('{median}' AS DOUBLE))"
        return [above] if median is not None else []
    rows = train.fetch(
        f"SELECT CAST({column} AS VARCHAR) FROM data WHERE {column} IS NOT NULL GROUP BY 1 "
        f"ORDER BY count(*) DESC, 1 LIMIT {CLASSES_TOLD_APART}"
    )
    if len(rows) < 2:
        return []
    classes = [str(row[0]) for row in (rows[:1] if len(rows) == 2 else rows)]
    return [f"(CAST({column} AS VARCHAR) = {literal(text)})" for text in classes]


def powers_of(train: Source, positive: str, inputs: Sequence[str]) -> dict[str, float]:
    """AUC by feature, for those that are numbers or categories."""
    numbers = [n for n in inputs if kind_of(train.columns[n]) in ("int", "float", "decimal")]
    texts = [n for n in inputs if kind_of(train.columns[n]) in ("string", "bool")]
    if texts:
        counts = train.fetch(f"SELECT {', '.join(f'approx_count_distinct({quote(n)})' for n in texts)} FROM data")[0]
        texts = [name for name, count in zip(texts, counts, strict=True) if count <= MOST_CATEGORIES]
    seen = [*numbers, *texts]
    powers: dict[str, float] = {}
    for start in range(0, len(seen), _FEATURES_PER_PASS):
        block = seen[start : start + _FEATURES_PER_PASS]
        parts = []
        for name in block:
            column = quote(name)
            cell = rounding_sql(f"CAST({column} AS DOUBLE)") if name in numbers else f"CAST({column} AS VARCHAR)"
            parts += [
                f"histogram({cell}) FILTER (WHERE {positive})",
                f"histogram({cell}) FILTER (WHERE NOT {positive})",
            ]
        totals = f"count(*) FILTER (WHERE {positive}), count(*) FILTER (WHERE NOT {positive})"
        values = list(train.fetch(f"SELECT {totals}, {', '.join(parts)} FROM data")[0])
        total_p, total_n = values.pop(0), values.pop(0)
        for name in block:
            p, n = values.pop(0) or {}, values.pop(0) or {}
            missing = (total_p - sum(p.values()), total_n - sum(n.values()))
            powers[name] = numeric_auc(p, n, missing) if name in numbers else category_auc(p, n, missing)
    return powers
