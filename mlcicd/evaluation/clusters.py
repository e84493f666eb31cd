"""The independent units of a holdout: rows, groups of rows, or blocks of time.

Rows of one patient, one user or one series resemble each other, and a bootstrap of rows takes them for more evidence
than they are. The unit that is drawn, or whose contributions are summed up, is then the group (cluster bootstrap, and
Liang & Zeger's cluster-robust variance, Biometrika 73, 1986). Few series over a long time are cut into blocks of time
common to all series, so that both serial dependence and shocks that hit all series at once stay within a unit (batch
means: a fixed number of blocks and Student's quantile).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcicd.core.errors import InputError
from mlcicd.evaluation.problem import Array, Structure

Ints = NDArray[np.intp]

# From so many series on, they are the units; below, blocks of time are, where there is a time.
ENOUGH_GROUPS = 30
MOST_BLOCKS = 20
STEPS_A_BLOCK = 10


def unit_codes(name: str, values: Any, n: int) -> tuple[Ints, int]:
    """(n,) numbers of the distinct values, and how many there are.

    Raises:
        InputError: another length, or rows without a value: they would belong to nobody.
    """
    column = np.asarray(values)
    if column.shape != (n,):
        raise InputError(f"the column {name!r} has shape {column.shape}, and the holdout has {n} rows")
    missing = _missing(column)
    if missing:
        raise InputError(
            f"{missing} rows have no {name}",
            why="Intervals are found over its values, and a row that belongs to none can not be placed.",
            remedy="fill the column in, or drop these rows from the holdout",
        )
    if column.dtype.kind in "OU":
        # Hashing text is many times faster than sorting it.
        number: dict[Any, int] = {}
        codes = np.fromiter((number.setdefault(v, len(number)) for v in column.tolist()), np.intp, n)
        return codes, len(number)
    distinct, found = np.unique(column, return_inverse=True)
    return found.astype(np.intp), int(distinct.size)


def _missing(column: Array) -> int:
    if column.dtype.kind == "f":
        return int(np.isnan(column).sum())
    if column.dtype.kind in "mM":
        return int(np.isnat(column).sum())
    if column.dtype.kind == "O":
        return sum(v is None or bool(v != v) for v in column.tolist())  # noqa: PLR0124 (NaN is not itself)
    return 0


def find_units(task: str, structure: Structure, n: int) -> tuple[Ints | None, int, str]:
    """(unit of each row or None where rows are independent, how many, what they are in words)."""
    groups: tuple[Ints, int] | None = None
    if structure.group is not None:
        groups = unit_codes(structure.group_name, structure.group, n)
    few = groups is None or groups[1] < ENOUGH_GROUPS
    if task == "forecast" and structure.time is not None and few:
        codes, count = time_blocks(structure.time, n)
        return codes, count, f"{count} blocks of time"
    if groups is None:
        return None, n, ""
    return groups[0], groups[1], f"{groups[1]:,} groups by {structure.group_name}"


def time_blocks(time: Any, n: int) -> tuple[Ints, int]:
    """(n,) number of the block of time of each row: at most 20 blocks, of ten steps or more where there are as many."""
    column = np.asarray(time)
    if column.shape != (n,):
        raise InputError(f"the times have shape {column.shape}, and the holdout has {n} rows")
    if _missing(column):
        raise InputError(f"{_missing(column)} rows have no time", remedy="fill the column in, or drop these rows")
    ordered = column.astype(str) if column.dtype.kind == "O" else column
    distinct, step = np.unique(ordered, return_inverse=True)
    steps = int(distinct.size)
    blocks = min(steps, max(2, min(MOST_BLOCKS, steps // STEPS_A_BLOCK)))
    return (step * blocks // max(steps, 1)).astype(np.intp), blocks


def summed(influence: NDArray[np.float64], cluster: Ints | None, clusters: int) -> NDArray[np.float64]:
    """(units,) contributions, from those of (n,) rows."""
    if cluster is None:
        return influence
    return np.bincount(cluster, weights=influence, minlength=clusters).astype(np.float64)


def effective(shares: NDArray[np.float64]) -> int:
    """How many groups of equal size unequal ones are worth, as a variance's degrees of freedom (Satterthwaite).

    A group's contribution to the variance grows with the square of its share where its rows are alike.
    """
    squares = shares * shares
    below = float(squares @ squares)
    return max(2, round(float(squares.sum()) ** 2 / below)) if below > 0 else 2


def sizes(cluster: Ints, clusters: int, weight: Array | None) -> NDArray[np.float64]:
    """(units,) shares of the whole weight."""
    found = np.bincount(cluster, weights=weight, minlength=clusters).astype(np.float64)
    shares: NDArray[np.float64] = found / found.sum()
    return shares
