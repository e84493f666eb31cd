"""`schema.yaml`: what a table must look like, as the user writes it."""

from __future__ import annotations

import math
import re
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)

from mlcicd.core.errors import ConfigError
from mlcicd.core.verdict import Severity
from mlcicd.core.yaml_lines import Document, nearest, parse_yaml

ColumnType = Literal[
    "int",
    "float",
    "number",
    "decimal",
    "bool",
    "string",
    "date",
    "timestamp",
    "time",
    "binary",
    "list",
    "struct",
]
Member = StrictBool | StrictInt | StrictFloat | StrictStr | datetime | date

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|w)")
_EXPONENT = re.compile(r"[+-]?\d+(?:\.\d*)?[eE][+-]?\d+")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_duration(value: object) -> object:
    """`90s`, `15m`, `36h`, `7d` or `2w` as a timedelta; anything else is left for the model to refuse."""
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match is None:
            raise ValueError("expected a duration such as 90s, 15m, 36h, 7d or 2w")
        return timedelta(seconds=float(match.group(1)) * _SECONDS[match.group(2)])
    return value


def parse_bound(value: object) -> object:
    """A number or a date; YAML 1.1 takes `1e-5` for text, and nobody means it."""
    if isinstance(value, str) and _EXPONENT.fullmatch(value.strip()):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float | date):
        raise ValueError(f"expected a number or a date, not {str(value)[:40]!r}")
    if isinstance(value, float) and math.isnan(value):
        raise ValueError("NaN is no bound")
    return value


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
Bound = Annotated[StrictInt | StrictFloat | datetime | date, BeforeValidator(parse_bound)]
Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class CountRange(_Strict):
    """A count between two bounds, both inclusive."""

    min: Annotated[int, Field(ge=0)] | None = None
    max: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is greater than max")
        return self


class RowCount(CountRange):
    """How many rows there must be. An empty table fails unless `min: 0` says it is welcome."""

    min: Annotated[int, Field(ge=0)] = 1


class TableRows(RowCount):
    """How many rows a table must have; the holdout, usually the smaller one, may have its own bounds."""

    holdout: RowCount | None = None


class Column(_Strict):
    """The rules of one column.

    `nulls` is the largest share of missing values (NULL or NaN). `min`, `max`, `in`, `pattern` and `length`
    look at the values that are there; NaN and infinities violate a range. `mostly` is the smallest share of
    them that must obey each of those.
    """

    description: str = ""
    type: ColumnType | None = None
    required: bool = True
    nulls: Share = 0.0
    unique: bool = False
    min: Bound | None = None
    max: Bound | None = None
    members: Annotated[list[Member], Field(min_length=1)] | None = Field(default=None, alias="in")
    pattern: str | None = None
    length: CountRange | None = None
    mostly: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    severity: Severity = Severity.FAIL
    sensitive: bool = False

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.min is not None and self.max is not None:
            if isinstance(self.min, date) != isinstance(self.max, date):
                raise ValueError("min and max are of different kinds")
            if str(type(self.min)) == str(type(self.max)) and self.min > self.max:  # type: ignore[operator]
                raise ValueError("min is greater than max")
        if self.type in ("string", "bool", "list", "struct", "binary", "time") and (
            self.min is not None or self.max is not None
        ):
            raise ValueError(f"a {self.type} column has no min and max; use length, in or pattern")
        if self.type in ("int", "float", "number", "decimal", "bool", "date", "timestamp") and (
            self.pattern is not None or self.length is not None
        ):
            raise ValueError(f"pattern and length are for text, not for a {self.type} column")
        return self


class Rule(_Strict):
    """A condition over the columns of one row, as an SQL expression.

    A row for which the expression is not true (false, NULL, or an error such as a division by zero) violates
    it; `where` leaves rows out. `mostly` is the smallest share of the rows looked at that must obey.
    """

    name: Annotated[str, Field(min_length=1)]
    expression: Annotated[str, Field(min_length=1)]
    where: str | None = None
    mostly: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    severity: Severity = Severity.FAIL
    description: str = ""


class ForeignKey(_Strict):
    """Columns whose values, together, are a key of another table.

    `file` is beside the schema's own file; `key` names its columns, the same as `columns` when it is left out.
    Rows that lack a part of the key are not looked at. `mostly` is the smallest share of the others that must
    have a counterpart.
    """

    columns: Annotated[list[str], Field(min_length=1)]
    file: Annotated[str, Field(min_length=1)]
    key: list[str] = Field(default_factory=list)
    mostly: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    severity: Severity = Severity.FAIL
    description: str = ""

    @model_validator(mode="before")
    @classmethod
    def _same_names(cls, value: Any) -> Any:
        if isinstance(value, dict) and "key" not in value and "columns" in value:
            return {**value, "key": value["columns"]}
        return value

    @model_validator(mode="after")
    def _as_many(self) -> Self:
        if len(self.key) != len(self.columns):
            raise ValueError(f"{len(self.columns)} columns can not refer to a key of {len(self.key)}")
        return self


class Freshness(_Strict):
    """The newest value of a time column is at most `max_age` old, and not far in the future."""

    column: str
    max_age: Duration
    ahead: Duration = timedelta(days=1)
    severity: Severity = Severity.FAIL


class TableSchema(_Strict):
    """What a table must look like."""

    version: Literal[1]
    description: str = ""
    columns: dict[str, Column] = Field(default_factory=dict)
    extra_columns: Literal["allow", "warn", "forbid"] = "allow"
    rows: TableRows = Field(default_factory=TableRows)
    key: list[str] = Field(default_factory=list)
    rules: list[Rule] = Field(default_factory=list)
    freshness: Freshness | None = None
    foreign_keys: list[ForeignKey] = Field(default_factory=list)

    _source: Document = PrivateAttr(default_factory=lambda: Document({}))

    @model_validator(mode="before")
    @classmethod
    def _bare_columns(cls, value: Any) -> Any:
        # `id:` with nothing behind it is a column that must exist.
        if isinstance(value, dict) and isinstance(value.get("columns"), dict):
            columns = {k: {} if v is None else v for k, v in value["columns"].items()}
            return {**value, "columns": columns}
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [rule.name for rule in self.rules]
        if len(set(names)) != len(names):
            raise ValueError("two rules have the same name")
        lowered = [name.lower() for name in self.columns]
        if len(set(lowered)) != len(lowered):
            raise ValueError("two columns have the same name (compared without regard to case)")
        return self

    def for_holdout(self) -> Self:
        """What the holdout must look like: the same, with its own number of rows where one is given."""
        own = self.rows.holdout
        return self if own is None else self.model_copy(update={"rows": TableRows(min=own.min, max=own.max)})

    @property
    def file(self) -> str:
        """Path of the file it was read from; empty when it was read from text."""
        return self._source.file

    def error(self, what: str, *place: str | int, why: str = "", remedy: str = "") -> ConfigError:
        """An error about a place in the file the schema was read from."""
        return ConfigError(what, file=self._source.file, line=self._source.line(place), why=why, remedy=remedy)


def load_schema(path: Path) -> TableSchema:
    """Reads a schema file.

    Raises:
        ConfigError: missing, not YAML, or not a schema; names file, line and the nearest known key.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(
            "no such schema file", file=str(path), remedy="write one with `mlcicd data infer`, then edit it"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("can not read the schema file", file=str(path), why=str(error)) from error
    return parse_schema(text, file=str(path))


def parse_schema(text: str, *, file: str = "schema.yaml") -> TableSchema:
    """Reads a schema from its text; see :func:`load_schema`."""
    document = parse_yaml(text, file=file)
    try:
        schema = TableSchema.model_validate(document.data)
    except ValidationError as error:
        raise _explain(error, document) from error
    schema._source = document
    return schema


_MODELS: dict[str, type[BaseModel]] = {
    "columns": Column,
    "rules": Rule,
    "rows": TableRows,
    "holdout": RowCount,
    "freshness": Freshness,
    "length": CountRange,
    "foreign_keys": ForeignKey,
}


def _known_keys(place: tuple[str | int, ...]) -> list[str]:
    model: type[BaseModel] = TableSchema
    for depth, part in enumerate(place[:-1]):
        # A column may be called `rows`: names of columns are no keys.
        if depth != 1 or place[0] != "columns":
            model = _MODELS.get(str(part), model)
    return [info.alias or name for name, info in model.model_fields.items()]


def _explain(error: ValidationError, document: Document) -> ConfigError:
    problems = error.errors()
    first = problems[0]
    place = _place(first["loc"], document.data)
    dotted = ".".join(str(part) for part in place)
    remedy = ""
    if first["type"] == "extra_forbidden":
        known = _known_keys(place)
        what = f"unknown key {str(place[-1])!r} at {dotted}{nearest(str(place[-1]), known)}"
        remedy = f"known keys: {', '.join(known)}"
    elif first["type"] == "missing":
        what = f"{'.'.join(str(part) for part in first['loc'])} is missing"
    else:
        what = f"{dotted or 'the schema'}: {first['msg'].removeprefix('Value error, ')}"
    others = len({_place(p["loc"], document.data) for p in problems}) - 1
    why = f"{others} more problem{'s' if others > 1 else ''} in this file" if others else ""
    return ConfigError(what, file=document.file, line=document.line(place), why=why, remedy=remedy)


def _place(loc: tuple[str | int, ...], value: Any) -> tuple[str | int, ...]:
    """The part of pydantic's location that is in the document: it appends the union branch it tried."""
    place: list[str | int] = []
    for part in loc:
        children: dict[Any, Any] = dict(value) if isinstance(value, dict) else {}
        if isinstance(value, list):
            children = dict(enumerate(value))
        if part not in children:
            break
        place.append(part if isinstance(value, list) else str(part))
        value = children[part]
    return tuple(place)
