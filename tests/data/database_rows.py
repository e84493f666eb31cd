"""One table with everything that engines disagree about, for each database as much of it as it can hold."""

from __future__ import annotations

import datetime as dt
import itertools
from decimal import Decimal
from typing import Any

HOSTILE = 'x"; DROP TABLE "t"; -- %s :p %(text0)s `\\'
INF, NAN = float("inf"), float("nan")


def rows() -> list[dict[str, Any]]:
    """Every kind of column, with every value that engines disagree about, in all combinations of a few."""
    floats = [0.0, -0.0, 1.5, -1.5, 1e300, INF, -INF, NAN, None]
    texts = ["AB1", "ab1", "AB1\n", "Ä", "", "\u00a0a ", "a'\\' OR 1=1 --", "%x_", None]
    whole = [0, 1, -7, 2**31 - 1, 2**53 + 1, -(2**62), None]
    pairs = list(itertools.islice(zip(itertools.cycle(floats), itertools.cycle(whole), strict=False), 126))
    return [
        {
            "id": 5 if n == 124 else None if n == 125 else n,
            "f": f,
            "r": None if f is None else f % 7 if abs(f) < 9 else 0.1,
            "i": w,
            "k": n % 5 * 8000,
            "s": texts[n % 8 if n % 11 else 8],
            HOSTILE: texts[n * 5 % 9],
            "b": (True, False, None)[n % 3],
            "d": None if n % 9 == 0 else dt.date(2020, 1, 1) + dt.timedelta(n),
            "t": None if n % 8 == 0 else dt.datetime(2020, 1, 1, n % 24, n % 60, 0, n % 2 * 500_000),
            "z": dt.datetime(2020, 1, 1, tzinfo=dt.UTC) + dt.timedelta(hours=n),
            "m": None if n % 10 == 0 else Decimal(n - 40) / 4,
            "c": ("AB", "A ", "XYZ", None)[n % 4],
            "e": None if n % 6 == 0 else n / 4,
        }
        for n, (f, w) in enumerate(pairs)
    ]


POSTGRES = {
    **{"id": "bigint", "f": "double precision", "r": "real", "i": "bigint", "k": "smallint", "s": "text"},
    **{HOSTILE: 'varchar(40) COLLATE "und-x-icu"', "b": "boolean", "d": "date", "t": "timestamp", "z": "timestamptz"},
    **{"m": "numeric(10,2)", "c": "char(3)", "e": "numeric"},
}
# No NaN, no 32-bit float, no time zone, no decimal.
SQLITE = {
    **{"id": "INTEGER", "f": "REAL", "i": "INTEGER", "k": "INTEGER", "s": "TEXT COLLATE NOCASE", HOSTILE: "TEXT"},
    **{"b": "BOOLEAN", "d": "DATE", "t": "DATETIME", "c": "TEXT", "e": ""},
}
