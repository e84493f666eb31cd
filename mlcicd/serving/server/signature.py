"""Tables in requests: their columns, checked against the types of the model's signature.

MLflow's own reading of a request casts what it finds to the signature's types. Where that loses something
without a word (30.5 for an integer becomes 30, "no" for a boolean becomes true), the request is refused here.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .errors import RequestRefused

# The bounds of MLflow's types for whole numbers.
BOUNDS = {"integer": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
# The types that MLflow gives the columns of its DataFrames.
NUMPY = {
    "double": "float64",
    "float": "float32",
    "integer": "int32",
    "long": "int64",
    "boolean": "bool",
    "string": "object",
}
_NOTHING = type(None)


@dataclass(frozen=True, eq=False)
class Column:
    """One column of a signature: its name, MLflow's name of its type, and whether it must be there.

    Each is equal to itself alone, so that tables of the same columns are found without comparing names.
    """

    name: str
    kind: str
    required: bool


@dataclass(frozen=True)
class Table:
    """Rows whose values have the signature's types exactly, as lists by column in the signature's order."""

    kinds: tuple[Column, ...]
    values: tuple[Sequence[Any], ...]
    rows: int


def columns_of(schema: Any) -> tuple[Column, ...] | None:
    """The columns of a signature of named scalar columns; None for tensors, nested types or no signature."""
    if schema is None or schema.is_tensor_spec() or not schema.has_input_names():
        return None
    columns = []
    for spec in schema.inputs:
        kind = getattr(spec.type, "name", None)
        if not isinstance(kind, str):
            return None
        columns.append(Column(str(spec.name), kind, bool(getattr(spec, "required", True))))
    return tuple(columns)


def by_column(form: str, value: Any) -> tuple[dict[str, Sequence[Any]], int] | None:
    """The values of a request by column, and the number of rows; None if they do not make a table.

    A record without a column has None there. What this does not understand MLflow may, or says what is wrong.
    """
    if form == "dataframe_split":
        return _of_split(value)
    if form == "inputs":
        return _of_lists(value)
    return _of_records(value)


def _of_split(value: Any) -> tuple[dict[str, Sequence[Any]], int] | None:
    if not isinstance(value, dict) or not set(value) <= {"columns", "data"}:
        return None
    names, data = value.get("columns"), value.get("data")
    if not isinstance(names, list) or not isinstance(data, list) or not all(isinstance(n, str) for n in names):
        return None
    if len(set(names)) != len(names) or not all(isinstance(row, list) and len(row) == len(names) for row in data):
        return None
    return dict(zip(names, zip(*data))), len(data)  # noqa: B905  (Python 3.9)


def _of_lists(value: Any) -> tuple[dict[str, Sequence[Any]], int] | None:
    if not isinstance(value, dict) or not value or not all(isinstance(items, list) for items in value.values()):
        return None
    lengths = {len(items) for items in value.values()}
    return (value, lengths.pop()) if len(lengths) == 1 else None


def _of_records(value: Any) -> tuple[dict[str, Sequence[Any]], int] | None:
    if not isinstance(value, list) or not all(isinstance(record, dict) for record in value):
        return None
    names = dict.fromkeys(name for record in value for name in record)
    return {name: [record.get(name) for record in value] for name in names}, len(value)


def checked(columns: Sequence[Column], values: dict[str, Sequence[Any]], rows: int) -> Table | None:
    """The table in the signature's own types; None when only MLflow can tell what is meant.

    Raises:
        RequestRefused: 400, when there are no rows, or a value would lose something in its column's type.
    """
    if rows == 0:
        raise RequestRefused(400, "BAD_REQUEST", "the request has no rows")
    present = [column for column in columns if column.name in values]
    exact = [_exact(column, values[column.name]) for column in present]
    missing = any(column.required and column.name not in values for column in columns)
    if missing or len(present) != len(values) or any(items is None for items in exact):
        return None
    return Table(tuple(present), tuple(items for items in exact if items is not None), rows)


def _exact(column: Column, values: Sequence[Any]) -> Sequence[Any] | None:
    """The values as what the column's type is in Python; None if some are something else."""
    types = set(map(type, values))
    if types & {list, dict}:
        raise _refused(column, "takes one value a row, no list and no object")
    if column.kind in BOUNDS:
        return _whole_numbers(column, values, types)
    if column.kind in ("double", "float"):
        return _real_numbers(column, values, types)
    if column.kind == "boolean":
        # 0 and 1 are equal to false and true, and MLflow takes them.
        if not all(isinstance(value, (bool, int, float)) and value in (0, 1) for value in values):
            raise _refused(column, "takes true and false only")
        return values if types == {bool} else None
    return values if column.kind == "string" and types == {str} else None


def _whole_numbers(column: Column, values: Sequence[Any], types: set[type]) -> Sequence[Any] | None:
    low, high = BOUNDS[column.kind]
    numbers = [value for value in values if type(value) in (int, float)]
    if float in types and not all(math.isfinite(n) and n == math.floor(n) for n in numbers):
        raise _refused(column, "takes whole numbers only")
    if any(not low <= n <= high for n in numbers):
        raise _refused(column, f"takes whole numbers from {low} to {high}")
    if not types <= {int, float}:
        return None
    return [int(n) for n in numbers] if float in types else values


def _real_numbers(column: Column, values: Sequence[Any], types: set[type]) -> Sequence[Any] | None:
    # A column of nothing but nulls has no type of its own: MLflow gives it one.
    if not types <= {float, int, _NOTHING} or types == {_NOTHING}:
        return None
    if int in types:
        try:
            return [None if value is None else float(value) for value in values]
        except OverflowError as error:
            raise _refused(column, "holds a number that is too large") from error
    return values


def _refused(column: Column, what: str) -> RequestRefused:
    return RequestRefused(400, "BAD_REQUEST", f"column {column.name!r} {what} (its type is {column.kind})")


def joined(tables: Sequence[Table]) -> Table:
    """The rows of tables with the same columns, one table after the other."""
    if len(tables) == 1:
        return tables[0]
    values = tuple([value for part in parts for value in part] for parts in zip(*(t.values for t in tables)))  # noqa: B905
    return Table(tables[0].kinds, values, sum(table.rows for table in tables))


@functools.lru_cache(maxsize=64)
def _index(names: tuple[str, ...]) -> Any:
    """The names as pandas keeps them, which takes four times as long as the rest of a small DataFrame."""
    return importlib.import_module("pandas").Index(names)


def frame_of(table: Table) -> Any:
    """The pandas DataFrame that MLflow would make of these rows."""
    import numpy as np

    pd: Any = importlib.import_module("pandas")
    names = _index(tuple(column.name for column in table.kinds)).view()
    dtypes = {NUMPY[column.kind] for column in table.kinds}
    if dtypes <= {"float64", "int64", "float32", "int32", "bool"} and len(dtypes) == 1:
        # One block instead of one a column: pandas spends most of its time on blocks.
        return pd.DataFrame(np.array(table.values, dtype=dtypes.pop()).T, columns=names)
    return pd.DataFrame(
        {
            column.name: list(items) if column.kind == "string" else np.array(items, dtype=NUMPY[column.kind])
            for column, items in zip(table.kinds, table.values)  # noqa: B905
        }
    )
