"""The rules of one column as SQL conditions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import date, datetime
from fractions import Fraction

from mlcicd.core.verdict import Check, CheckStatus
from mlcicd.data.conditions import RowRule, Rules, UniqueRule, kind_of, percent
from mlcicd.data.schema import Bound, Column, Member, TableSchema
from mlcicd.data.source import Source, literal, quote

_NUMBERS = ("int", "float", "decimal", "number")
_TIMES = ("date", "timestamp")
_CAST = {
    "int": "BIGINT",
    "float": "DOUBLE",
    "number": "DOUBLE",
    "decimal": "DOUBLE",
    "bool": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "time": "TIME",
}
# What a declared type is content with. Text formats hold 1 where 1.0 is meant, and a day where midnight is.
_ACCEPTED = {"number": {"int", "float", "decimal"}}
_ACCEPTED_UNTYPED = {
    **_ACCEPTED,
    "float": {"float", "int", "decimal"},
    "decimal": {"decimal", "int", "float"},
    "timestamp": {"timestamp", "date"},
}


@dataclass(frozen=True)
class ColumnRules:
    """The rules of a column that the source has."""

    source: Source
    schema: TableSchema
    name: str
    column: Column

    @property
    def identifier(self) -> str:
        return quote(self.name)

    @property
    def actual(self) -> str:
        """The kind of the column as the engine reads it."""
        return kind_of(self.source.columns[self.name])

    @property
    def read_as(self) -> str:
        """The declared type, where text has to be read as it; else empty."""
        declared = self.column.type or ""
        return declared if self.source.untyped and self.actual == "string" and declared in _CAST else ""

    @property
    def kind(self) -> str:
        return self.read_as or self.actual

    @property
    def value(self) -> str:
        return f"TRY_CAST({self.identifier} AS {_CAST[self.read_as]})" if self.read_as else self.identifier

    def add_to(self, rules: Rules) -> None:
        """Adds what this column asks for.

        Raises:
            ConfigError: the pattern is no regular expression.
        """
        column = self.column
        rules.rows.append(self._missing_values())
        if column.type is not None:
            self._type(column.type, rules)
        if column.unique:
            rules.unique.append(UniqueRule(f"{self.name}.unique", (self.name,), column.severity))
        if column.min is not None or column.max is not None:
            self._range(rules)
        if column.members is not None:
            rules.rows.append(self._members(column.members))
        if column.pattern is not None:
            rules.rows.append(self._pattern(column.pattern))
        if column.length is not None:
            rules.rows.append(self._length(column.length.min, column.length.max))

    def _rule(self, suffix: str, valid: str, required: str, violation: str) -> RowRule:
        """A condition on the values that are there, with the column's `mostly`."""
        mostly = self.column.mostly
        return RowRule(
            name=f"{self.name}.{suffix}",
            columns=(self.name,),
            applies=f"{self.identifier} IS NOT NULL",
            of=self.identifier,
            valid=valid,
            allowed=1 - Fraction(str(mostly)),
            required=required + (f", for at least {percent(mostly)} of values" if mostly < 1 else ""),
            violation=violation,
            severity=self.column.severity,
            remedy=f"correct {self.name!r} where the data is made, or widen the rule if this is normal",
        )

    def _missing_values(self) -> RowRule:
        present = f"{self.identifier} IS NOT NULL"
        if self.actual == "float":
            present = f"NOT isnan({self.identifier})"  # NULL of NULL, which is not true
        share = self.column.nulls
        return RowRule(
            name=f"{self.name}.nulls",
            columns=(self.name,),
            applies="TRUE",
            valid=present,
            allowed=Fraction(str(share)),
            required=f"at most {percent(share)} missing" if share else "no missing values",
            violation="missing values",
            severity=self.column.severity,
            remedy=f"find out why {self.name!r} is missing, or raise `nulls` in the schema if this is normal",
        )

    def _type(self, declared: str, rules: Rules) -> None:
        accepted = (_ACCEPTED_UNTYPED if self.source.untyped else _ACCEPTED).get(declared, {declared})
        good = self.actual in accepted
        condition = "" if good else self._reads_as(declared)
        if condition:
            rule = self._rule("type", condition, f"type {declared}", f"values that are no {declared}")
            # A share of values of the wrong type would make the whole column text for everyone else.
            rules.rows.append(replace(rule, allowed=Fraction(0), required=f"type {declared}"))
            return
        reason = "" if good else f"{self.name!r} is {self.actual} in the file and must be {declared}"
        rules.settled.append(
            self._settled(
                "type",
                f"{self.actual} ({self.source.columns[self.name]})",
                f"type {declared}",
                reason,
                "write the column with its type, or correct `type` in the schema",
            )
        )

    def _settled(self, suffix: str, observed: str, required: str, reason: str, remedy: str) -> Check:
        """A check that needs no reading; it has passed when there is no reason why not."""
        return Check(
            name=f"{self.name}.{suffix}",
            status=CheckStatus.FAILED if reason else CheckStatus.PASSED,
            observed=observed,
            required=required,
            severity=self.column.severity,
            reason=reason,
            remedy=remedy if reason else "",
            details={"column": self.name},
        )

    def _reads_as(self, declared: str) -> str:
        """In text formats, whether each value can be read as the type; empty where that is no question."""
        if not self.source.untyped:
            return ""
        if self.actual == "string":
            if declared == "int":  # a cast would round 1.5
                return f"regexp_full_match(trim(CAST({self.identifier} AS VARCHAR)), '[+-]?[0-9]+')"
            return f"{self.value} IS NOT NULL" if declared in _CAST else ""
        if self.actual == "float" and declared == "int":  # many tools write an integer column with gaps as 1.0
            return f"{self.identifier} = trunc({self.identifier})"
        if self.actual == "int" and declared == "bool":
            return f"{self.identifier} IN (0, 1)"
        return ""

    def _range(self, rules: Rules) -> None:
        low, high = self.column.min, self.column.max
        required = f"values {_range_words(low, high)}"
        times = isinstance(low if low is not None else high, date)
        if self.kind not in (_TIMES if times else _NUMBERS):
            rules.settled.append(
                self._settled(
                    "range",
                    self.kind,
                    required,
                    f"{self.name!r} is {self.kind}, which can not be compared with the bounds of the schema",
                    "correct the column's type in the data, or its bounds in the schema",
                )
            )
            return
        valid = _between(self.value, *(None if bound is None else _bound(bound, self.kind) for bound in (low, high)))
        # NaN is greater than everything, and infinity passes a side that has no bound.
        if self.kind in ("float", "number", *_TIMES) and not (_finite(low) and _finite(high)):
            valid = f"(isfinite({self.value}) AND {valid})"
        rule = self._rule("range", valid, required, "values outside the range")
        rules.rows.append(replace(rule, range_of="" if self.column.sensitive else self.value))

    def _members(self, members: list[Member]) -> RowRule:
        options = [sql for member in members if (sql := _member(member, self.kind)) is not None]
        # No member is of the column's type: nothing can match, and an empty IN () is no SQL.
        valid = f"{self.value} IN ({', '.join(options)})" if options else "FALSE"
        text_of_parquet = self.source.columns[self.name] == "VARCHAR" and self.source.format == "parquet"
        if options and text_of_parquet and not self.source.distributed:
            # The embedded engine asks a function once for each entry of a Parquet dictionary, and IN for each row.
            valid = f"list_position([{', '.join(options)}], {self.identifier}) > 0"
        shown = ", ".join(str(member) for member in members[:8]) + (", ..." if len(members) > 8 else "")
        return self._rule("in", valid, f"one of {shown}", "values not in the list")

    def _pattern(self, pattern: str) -> RowRule:
        import duckdb

        try:
            self.source.connection.execute("SELECT regexp_full_match('', ?)", [pattern]).fetchall()
        except duckdb.Error as error:
            raise self.schema.error(
                f"the pattern of column {self.name!r} is not a regular expression",
                "columns",
                self.name,
                "pattern",
                why=str(error).splitlines()[0],
                remedy="write it in RE2 syntax (no look-around, no back references)",
            ) from error
        return self._rule(
            "pattern",
            f"regexp_full_match(CAST({self.identifier} AS VARCHAR), {literal(pattern)})",
            f"the whole text matches {pattern}",
            "values that do not match the pattern",
        )

    def _length(self, low: int | None, high: int | None) -> RowRule:
        inner = self.identifier if self.kind == "list" else f"CAST({self.identifier} AS VARCHAR)"
        bounds = (None if bound is None else str(bound) for bound in (low, high))
        return self._rule(
            "length",
            _between(f"length({inner})", *bounds),
            f"length {_range_words(low, high)}",
            "values of a wrong length",
        )


def _bound(bound: Bound, kind: str) -> str:
    if isinstance(bound, datetime):
        return f"CAST({literal(bound.isoformat(sep=' '))} AS TIMESTAMP{'TZ' if bound.tzinfo else ''})"
    if isinstance(bound, date):
        return f"CAST({literal(bound.isoformat())} AS {'DATE' if kind == 'date' else 'TIMESTAMP'})"
    if isinstance(bound, float):
        return f"CAST({literal(repr(bound))} AS DOUBLE)"
    return str(bound)


def _finite(bound: Bound | None) -> bool:
    return isinstance(bound, int | date) or (bound is not None and math.isfinite(bound))


def _between(value: str, low: str | None, high: str | None) -> str:
    parts = [f"{value} >= {low}"] if low is not None else []
    if high is not None:
        parts.append(f"{value} <= {high}")
    return f"({' AND '.join(parts) or 'TRUE'})"


def _range_words(low: object, high: object) -> str:
    if low is None:
        return f"<= {high}"
    return f">= {low}" if high is None else f"in [{low}, {high}]"


def _member(member: Member, kind: str) -> str | None:
    """A list member as SQL of the column's kind; None when no value of that kind can equal it."""
    if kind == "string":
        return literal(str(member).lower() if isinstance(member, bool) else str(member))
    if kind == "bool":
        return str(member).upper() if isinstance(member, bool) else None
    if kind in _NUMBERS:
        return _bound(member, kind) if isinstance(member, int | float) and not isinstance(member, bool) else None
    if kind in _TIMES:
        return _bound(member, kind) if isinstance(member, date) else None
    return None
