"""The rows that a check of data shows, from `details["examples"]`, as the page lists them.

Each is a mapping with `values` (column to text) and, as far as the check knows them, `row` (its number in the table,
from 1), `rows` (how many are like it), `likely` and `probability` (what a label was expected to be, and how probable
the one is that it has). Whatever else stands there is left out: a verdict is not trusted to be ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlcicd.core.verdict import Check
from mlcicd.report.markup import clean
from mlcicd.report.quantities import number

_MOST_ROWS = 5
_MOST_COLUMNS = 8
_LONGEST = 80


@dataclass(frozen=True)
class ShownRow:
    """One row: where it is, its values by column, and what is said about it; all text is clean."""

    place: str
    values: list[tuple[str, str]]
    note: str


def shown_rows(check: Check) -> list[ShownRow]:
    """The first rows that a check shows; none where it shows none."""
    given = check.details.get("examples")
    return list(_rows(given)) if isinstance(given, list) else []


def _rows(given: list[Any]) -> Iterator[ShownRow]:
    for example in given[:_MOST_ROWS]:
        values = example.get("values") if isinstance(example, Mapping) else None
        if isinstance(values, Mapping):
            yield ShownRow(
                _place(example),
                [
                    (clean(name, limit=_LONGEST), "missing" if value is None else clean(value, limit=_LONGEST))
                    for name, value in list(values.items())[:_MOST_COLUMNS]
                ],
                _note(example),
            )


def _place(example: Mapping[str, Any]) -> str:
    row, count = example.get("row"), example.get("rows")
    if _is_whole(row):
        return f"row {row:,}"
    return f"{count:,} row{'s' * (count != 1)}" if _is_whole(count) else ""


def _note(example: Mapping[str, Any]) -> str:
    likely, probability = example.get("likely"), example.get("probability")
    if likely is None:
        return ""
    given = f"; the probability of its own label is {number(probability)}" if isinstance(probability, float) else ""
    return f"looks like {clean(likely, limit=_LONGEST)}{given}"


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
