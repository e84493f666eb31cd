"""Whether a table looks like the population that it is meant to stand for: classes, groups, and any other column."""

# ruff: noqa: S608  (identifiers go through `quote`; values never become SQL)
from __future__ import annotations

import math
from collections.abc import Sequence

from mlcicd.core.errors import ConfigError
from mlcicd.core.verdict import Check, CheckStatus, Severity
from mlcicd.core.yaml_lines import nearest
from mlcicd.data import distances
from mlcicd.data.drift import CONFIDENCE, drift
from mlcicd.data.profile import profile
from mlcicd.data.source import Source, quote

_NAMED = 5


def population_checks(
    source: Source,
    population: Source,
    *,
    columns: Sequence[str] = (),
    weight: str = "",
    max: float = 0.1,
    severity: Severity = Severity.WARN,
) -> list[Check]:
    """One check a column: its distribution is at most `max` from the population's, as `ks/1` (total variation of
    categories; largest difference of the cumulative shares of numbers).

    Args:
        columns: which; all that both have when there are none.
        weight: the population's column of counts or shares. Then each of its rows stands for a group, its other
            columns are categories, and its shares are taken as exact. Without, its rows are a sample.

    Raises:
        ConfigError: a column is not in both.
        InputError: one can not be read, or a weight is no positive number.
    """
    names = list(columns) or [n for n in population.columns if n in source.columns and n != weight]
    for name in (*names, *([weight] if weight else [])):
        for table in (population,) if name == weight else (source, population):
            if name not in table.columns:
                raise ConfigError(
                    f"the comparison with the population needs a column {name!r}{nearest(name, table.columns)}",
                    where=str(table.path),
                )
    if weight:
        return [_weighted(source, population, name, weight, max, severity) for name in names]
    checks = []
    for result in sorted(drift(profile(population, names), source), key=lambda one: -(one.ks or math.inf)):
        noise = result.noise.get("ks", 0.0)
        words = f"; not in the population: {', '.join(result.new[:_NAMED])}" if result.new else ""
        words += f"; only in the population: {', '.join(result.vanished[:_NAMED])}" if result.vanished else ""
        if result.problem:
            checks.append(_check(result.column, None, noise, max, severity, result.problem))
        elif result.ks is not None:
            checks.append(_check(result.column, result.ks, noise, max, severity, words.removeprefix("; ")))
    return checks


def _weighted(source: Source, population: Source, name: str, weight: str, limit: float, severity: Severity) -> Check:
    import numpy as np

    counted = source.fetch(
        f"SELECT CAST({quote(name)} AS VARCHAR), count(*) FROM data WHERE {quote(name)} IS NOT NULL GROUP BY 1"
    )
    summed = population.fetch(
        f"SELECT k, sum(v), count_if(NOT coalesce(v >= 0 AND isfinite(v), false)) FROM (SELECT "
        f"CAST({quote(name)} AS VARCHAR) AS k, TRY_CAST({quote(weight)} AS DOUBLE) AS v FROM data) "
        f"WHERE k IS NOT NULL GROUP BY k"
    )
    if any(bad for _, _, bad in summed):
        raise ConfigError(
            f"the population's weights in {weight!r} are not all numbers of at least 0", where=str(population.path)
        )
    seen, known = {str(k): float(n) for k, n in counted}, {str(k): float(n) for k, n, _ in summed}
    rows, whole = sum(seen.values()), sum(known.values())
    if not rows or not whole:
        return _check(name, None, 0.0, limit, severity, "there is nothing to compare with")
    names = sorted({*seen, *known})
    p, q = (np.array([table.get(n, 0.0) for n in names]) for table in (known, seen))
    # Only our side is a sample: total variation is at most half the square root of chi-square (Cauchy-Schwarz).
    chi = distances.chi_square_quantile(CONFIDENCE, len(names) - 1 or 1)
    difference = q / rows - p / whole
    order = sorted(range(len(names)), key=lambda i: -abs(difference[i]))[:_NAMED]
    words = ", ".join(f"{names[i]} {q[i] / rows:.2%} ({p[i] / whole:.2%} of the population)" for i in order)
    return _check(name, distances.total_variation(p, q), min(math.sqrt(chi / rows) / 2, 1.0), limit, severity, words)


def _check(name: str, value: float | None, noise: float, limit: float, severity: Severity, words: str) -> Check:
    required = f"ks/1 from the population <= {limit:g}"
    if value is None:
        status, reason = CheckStatus.FAILED, words
    elif value <= limit:
        status, reason = CheckStatus.PASSED, ""
    elif value - noise <= limit:
        status = CheckStatus.INCONCLUSIVE
        reason = f"{value:.4g} is more than {limit:g}, but chance alone reaches {noise:.4g}"
    else:
        status, reason = CheckStatus.FAILED, f"it is {value:.4g} from the population" + (f": {words}" if words else "")
    return Check(
        name=f"population.{name}",
        status=status,
        severity=severity,
        observed=value,
        required=required,
        reason=reason,
        remedy="sample what is missing, or weigh the rows; a model is best where its data is"
        if status is CheckStatus.FAILED
        else "",
        details={"column": name, "noise": noise},
    )
