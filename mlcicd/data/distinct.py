"""How many different values columns have: an estimate, which engines make in different ways, exact where it matters."""

# ruff: noqa: S608  (identifiers go through `quote`; values never become SQL)
from __future__ import annotations

from collections.abc import Sequence

from mlcicd.data.source import Source, quote

# Estimates of both engines are nearer than this.
_OFF_BY = 1.25


def distinct_counts(source: Source, names: Sequence[str], limits: Sequence[float]) -> list[int]:
    """The number of different values of each column (NULL is none), on the same side of each limit on every engine.

    Args:
        limits: what the counts are compared with; near one of them they are exact.

    Raises:
        InputError: the data can not be read.
    """
    estimates = [f"approx_count_distinct({quote(name)})" for name in names]
    counts = [int(one) for one in source.fetch(f"SELECT {', '.join(estimates)} FROM data")[0]]
    near = [
        place
        for place, count in enumerate(counts)
        if any(limit / _OFF_BY <= count <= limit * _OFF_BY for limit in limits)
    ]
    if near:
        asked = ", ".join(f"count(DISTINCT {quote(names[place])})" for place in near)
        for place, count in zip(near, source.fetch(f"SELECT {asked} FROM data")[0], strict=True):
            counts[place] = int(count)
    return counts
