"""Labels that are probably wrong: rows whose label finds little belief with a classifier that has not seen them.

A bounded sample is read, five times trees are grown (:mod:`mlcicd.data.confidence`). What this can not see: labels that
are wrong by a rule (the trees learn the rule), wrong labels among rows that nothing tells apart, and more than about a
tenth of wrong labels, which make the trees unsure of all. What it can not tell from wrong labels: two outcomes of which
one is rare and both are true.
"""

# ruff: noqa: S608  (identifiers go through `quote`; values never become SQL)
from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlcicd.core.errors import ConfigError
from mlcicd.core.verdict import Check, CheckStatus, Severity
from mlcicd.core.yaml_lines import nearest
from mlcicd.data.conditions import kind_of, percent
from mlcicd.data.confidence import FOLDS, out_of_fold, suspicion
from mlcicd.data.distinct import distinct_counts
from mlcicd.data.examples import REDACTED, SHOWN_ROWS
from mlcicd.data.row_numbers import HASH, at_hand, below, bound
from mlcicd.data.source import ROW, Source, quote, reading

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SAMPLE = 20_000
_CELLS = 4_000_000
_MOST_CLASSES = 20
_FEWEST_ROWS = 200
_FEWEST_OF_A_CLASS = 20
_CATEGORIES = 100
_SHOWN_COLUMNS = 8
_NAMED = 3
_NAME = 40
_SHOWN_CHARACTERS = 80
_LARGEST = 1e100
_Z = 1.959963984540054
_NUMBERS = ("int", "float", "decimal", "bool")
_TIMES = ("date", "timestamp")


@dataclass(frozen=True)
class _Rows:
    """A sample of labelled rows.

    Attributes:
        numbers: (n,) int, each row's place in the table, from 1.
        labels: (n,) text.
        folds: (n,) int.
        features: (n, columns) float.
        categorical: by column.
    """

    numbers: NDArray[np.int64]
    labels: NDArray[Any]
    folds: NDArray[np.int64]
    features: NDArray[np.float64]
    categorical: list[bool]

    def where(self, chosen: NDArray[np.bool_]) -> _Rows:
        return _Rows(
            self.numbers[chosen],
            self.labels[chosen],
            self.folds[chosen],
            self.features[chosen],
            self.categorical,
        )


def label_checks(
    train: Source,
    target: str,
    features: Sequence[str],
    *,
    max_share: float,
    sample: int = SAMPLE,
    group: str = "",
    sensitive: Collection[str] = (),
    severity: Severity = Severity.WARN,
) -> list[Check]:
    """One check: the share of suspicious labels among the rows that were looked at.

    It fails when the share is beyond `max_share` by more than the sample explains (Wilson's 95 % interval), and is
    inconclusive when it is beyond it at all. Rows with equal features are in one fold, so that a copy of a row does not
    vouch for it. A number of more than twenty values has no classes, and is skipped; so are a table of fewer than 200
    labelled rows, and classes of fewer than twenty rows of the sample.

    Args:
        target: the label.
        features: the model's inputs; lists, structures, times of day and bytes are not looked at.
        sample: the most rows to look at, chosen by the hash of their number; fewer of more than 200 columns.
        group: a column whose rows stay in one fold (all rows of a patient), in the place of equal features.
        sensitive: columns whose values are not shown.

    Raises:
        ConfigError: there is no such column as `group`.
        InputError: the data can not be read.
    """
    import numpy as np

    if group and group not in train.columns:
        raise ConfigError(f"the training data has no column {group!r}{nearest(group, train.columns)}")
    required = f"at most {percent(max_share)} of the labels are improbable"
    known = [n for n in features if n not in (target, group) and _readable(train, n)]
    problem = _unfit(train, target, known)
    rows = None
    if not problem:
        kept = max(min(sample, _CELLS // (len(known) + 1)), _FEWEST_ROWS)
        limit = bound(kept, _labelled(train, target))
        train = at_hand(train, [target, *known, *([group] if group else [])], limit, present=target)
        rows = _read(train, target, known, kept, limit, group)
    if rows is not None:
        names, codes, counts = np.unique(rows.labels, return_inverse=True, return_counts=True)
        rows = rows.where(counts[codes] >= _FEWEST_OF_A_CLASS)
        names, codes = np.unique(rows.labels, return_inverse=True)
        if len(rows.labels) < _FEWEST_ROWS or len(names) < 2:
            problem = f"there are too few labelled rows of two classes ({len(rows.labels):,})"
    if problem or rows is None:
        return [_check(CheckStatus.SKIPPED, None, required, severity, problem)]
    chances = out_of_fold(rows.features, codes, rows.folds, len(names), rows.categorical)
    found = suspicion(chances, codes)
    looked, bad = int(found.judged.sum()), int(found.suspicious.sum())
    if not looked:
        reason = f"no fold has a label of another: {group or 'equal features'} and {target!r} go together"
        return [_check(CheckStatus.SKIPPED, None, required, severity, reason)]
    right = float((chances.argmax(axis=1) == codes)[found.judged].mean())
    worst = np.argsort(np.where(found.suspicious, found.given, 2.0), kind="stable")[: min(bad, SHOWN_ROWS)]
    share, interval = bad / looked, _wilson(bad, looked)
    status, reason = CheckStatus.PASSED, ""
    if share > max_share:
        status = CheckStatus.FAILED if interval[0] > max_share else CheckStatus.INCONCLUSIVE
        hidden = target in sensitive
        reason = f"{bad:,} of {looked:,} rows have a {target!r} that is improbable by what the other rows say"
        reason += "" if hidden else f": {_turned(codes, names, found)}"
    shown = _examples(train, target, known, rows, names, found, worst, sensitive) if reason else []
    return [
        _check(
            status,
            share,
            required,
            severity,
            reason,
            interval=interval,
            rows=bad,
            checked=looked,
            accuracy=round(right, 4),
            **({"examples": shown} if shown else {}),
        )
    ]


def _readable(train: Source, name: str) -> bool:
    return kind_of(train.columns[name]) in (*_NUMBERS, *_TIMES, "string")


def _unfit(train: Source, target: str, known: Sequence[str]) -> str:
    """Why labels of this column can not be held against what trees say; empty when they can."""
    kind = kind_of(train.columns[target])
    if not known:
        return "there are no features that trees can read"
    if kind not in (*_NUMBERS, "string"):
        return f"a {kind} is no class"
    (classes,) = distinct_counts(train, [target], [_MOST_CLASSES])
    if classes > _MOST_CLASSES:
        return f"{target!r} has more than {_MOST_CLASSES} different values: they are no classes that trees could tell"
    return ""


def _labelled(train: Source, target: str) -> int:
    return int(train.fetch(f"SELECT count_if({_has_label(train, target)}) FROM data")[0][0] or 0)


def _has_label(train: Source, target: str) -> str:
    label = quote(target)
    return f"{label} IS NOT NULL" + (f" AND NOT isnan({label})" if _is_float(train, target) else "")


def _read(train: Source, target: str, features: Sequence[str], kept: int, limit: int, group: str) -> _Rows:
    """Labelled rows by the hash of their number: the same table, the same sample."""
    import numpy as np

    together = quote(group) if group else ", ".join(map(quote, features))
    values = ", ".join(f"{_value(train, name)} AS c{place}" for place, name in enumerate(features))
    query = (
        f"SELECT {ROW}, CAST({quote(target)} AS VARCHAR) AS label, "
        f"CAST(hash({together}) % {FOLDS} AS BIGINT) AS fold, {values} FROM {train.numbered} "
        f"WHERE {_has_label(train, target)} AND {below(limit)} ORDER BY {HASH} LIMIT {kept}"
    )
    with reading(str(train.path)):
        found = train.connection.execute(query).fetchnumpy()
    categorical = [kind_of(train.columns[name]) == "string" for name in features]
    columns = [
        _coded(found[f"c{place}"]) if of_text else _numbers(found[f"c{place}"])
        for place, of_text in enumerate(categorical)
    ]
    return _Rows(
        found[ROW].astype(np.int64),
        np.asarray(found["label"]).astype(str),
        found["fold"].astype(np.int64),
        np.stack(columns, axis=1),
        categorical,
    )


def _is_float(train: Source, name: str) -> bool:
    return kind_of(train.columns[name]) == "float"


def _value(train: Source, name: str) -> str:
    kind = kind_of(train.columns[name])
    if kind == "string":
        return f"left(CAST({quote(name)} AS VARCHAR), {_SHOWN_CHARACTERS})"
    return f"epoch({quote(name)})" if kind in _TIMES else f"CAST({quote(name)} AS DOUBLE)"


def _numbers(values: Any) -> NDArray[np.float64]:
    """Finite numbers and NaN: trees look at the order, and infinities are the ends of it."""
    import numpy as np

    plain: NDArray[np.float64] = np.ma.filled(np.ma.asarray(values).astype(np.float64), np.nan)
    return np.asarray(np.clip(plain, -_LARGEST, _LARGEST))


def _coded(values: Any) -> NDArray[np.float64]:
    """The most frequent texts as numbers from 0, all others as one more; missing is NaN."""
    import numpy as np

    missing = np.ma.getmaskarray(values)
    texts = np.where(missing, "", np.asarray(values)).astype(str)
    names, codes, counts = np.unique(texts, return_inverse=True, return_counts=True)
    rank = np.empty(len(names), dtype=np.int64)
    rank[np.lexsort((names, -counts))] = np.arange(len(names))
    return np.where(missing, np.nan, np.minimum(rank, _CATEGORIES)[codes])


def _turned(codes: NDArray[np.int64], names: NDArray[Any], found: Any) -> str:
    """The most frequent changes: label, and what the others make of it."""
    from collections import Counter

    pairs = Counter(zip(codes[found.suspicious].tolist(), found.likely[found.suspicious].tolist(), strict=True))
    return ", ".join(
        f"{count:,} labelled {str(names[a])[:_NAME]!r} look like {str(names[b])[:_NAME]!r}"
        for (a, b), count in pairs.most_common(_NAMED)
    )


def _examples(
    train: Source,
    target: str,
    features: Sequence[str],
    rows: _Rows,
    names: NDArray[Any],
    found: Any,
    worst: NDArray[np.int64],
    sensitive: Collection[str],
) -> list[dict[str, Any]]:
    """The least believed labels: `[{"row": 17, "values": {column: text}, "probability": 0.01, "likely": "text"}]`."""
    columns = [target, *features][:_SHOWN_COLUMNS]
    cells = ", ".join(
        f"'{REDACTED}'" if name in sensitive else f"left(CAST({quote(name)} AS VARCHAR), {_SHOWN_CHARACTERS})"
        for name in columns
    )
    numbers = ", ".join(str(int(rows.numbers[place])) for place in worst)
    read = {
        int(n): texts
        for n, *texts in train.fetch(f"SELECT {ROW}, {cells} FROM {train.numbered} WHERE {ROW} IN ({numbers})")
    }
    return [
        {
            "row": int(rows.numbers[place]),
            "values": dict(zip(columns, read[int(rows.numbers[place])], strict=True)),
            "probability": round(float(found.given[place]), 4),
            "likely": REDACTED if target in sensitive else str(names[found.likely[place]])[:_SHOWN_CHARACTERS],
        }
        for place in worst
    ]


def _wilson(count: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, J. Am. Stat. Assoc. 22, 1927)."""
    share, square = count / of, _Z * _Z
    middle = share + square / (2 * of)
    reach = _Z * math.sqrt(share * (1 - share) / of + square / (4 * of * of))
    whole = 1 + square / of
    return max(0.0, min((middle - reach) / whole, share)), min(1.0, max((middle + reach) / whole, share))


def _check(
    status: CheckStatus,
    share: float | None,
    required: str,
    severity: Severity,
    reason: str,
    *,
    interval: tuple[float, float] | None = None,
    **details: Any,
) -> Check:
    return Check(
        name="labels",
        status=status,
        severity=severity,
        observed=share,
        interval=interval,
        required=required,
        reason=reason,
        remedy="look at the rows in the report and correct the labels, or find the feature that tells them apart"
        if status in (CheckStatus.FAILED, CheckStatus.INCONCLUSIVE)
        else "",
        details=details,
    )
