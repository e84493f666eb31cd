"""Numbers and tables as the canary's commands print them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def plain(value: Any) -> Any:
    """Numbers that JSON does not have, as null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def count(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if math.isfinite(value) else "never"


def minutes(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.3g}" if math.isfinite(value) else "never"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of text: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
