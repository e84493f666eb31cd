"""Our conditions in SQLite's words, beside the functions of :mod:`mlcicd.data.sqlite_functions`.

SQLite has no NaN, no time, and whole numbers that become floats when they overflow. Times are text here, all of one
width, so that their order is that of the text; what has no counterpart is refused, or ends the statement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlcicd.data.conditions import kind_of
from mlcicd.data.database_patterns import plain_pattern
from mlcicd.data.database_sql import ToDatabase
from mlcicd.data.postgres_sql import BLANKS
from mlcicd.data.sqlite_functions import of_one_width
from mlcicd.data.translation import NotTranslated, Rewrite

if TYPE_CHECKING:
    from sqlglot import exp

_BITS = {"TINYINT": 8, "SMALLINT": 16, "INTEGER": 32, "BIGINT": 64}
_PLACES = {"Year": (1, 4), "Month": (6, 2), "Day": (9, 2), "Hour": (12, 2), "Minute": (15, 2)}
# A float has no more digits than these for sure.
_EXACT_DIGITS = 15


class ToSqlite(ToDatabase):
    """One statement of ours for SQLite; parameters by name."""

    place = "on SQLite"
    dialect = "sqlite"

    def _parameter(self, name: str) -> exp.Expression:
        return self._exp.Var(this=f":{name}")

    def _plain(self, node: exp.Expression, name: str) -> Rewrite | None:
        if name == "Literal" and not node.is_string:
            digits = str(node.this).lower().partition("e")[0].replace(".", "").strip("0")
            if len(digits) > _EXACT_DIGITS and not str(node.this).isdigit():
                raise NotTranslated(f"{node.this} has more digits than a number of SQLite's holds")
        if name == "Left":
            return lambda new: self._call("SUBSTR", new.this, self._exp.Literal.number(1), new.expression)
        return super()._plain(node, name)

    def _shown(self) -> Rewrite:
        return lambda new: self._exp.paren(new.this)

    def _floating(self, value: exp.Expression, target: str) -> exp.Expression:
        # FLOAT is what an empty column of type REAL is, and nothing else: casts to it are refused.
        return self._exp.cast(value, "REAL", dialect=self.dialect, copy=False)

    def _constant(self, text: str, target: str) -> exp.Expression:
        string = self._exp.Literal.string
        written = self._text_of(string(text), target)
        kind = kind_of(target)
        if kind in ("date", "timestamp") and "WITH TIME ZONE" not in target:
            wide = of_one_width(written, target)
            if wide is None:
                raise NotTranslated(f"the time {text} is not of the years 1 to 9999")
            return string(wide)
        if kind == "bool":
            return self._exp.Boolean(this=written == "true")
        if target == "DOUBLE" and written != "nan":
            return self._exp.Literal.number({"inf": "9e999", "-inf": "-9e999"}.get(written, written))
        raise NotTranslated(f"{text} as {target}, which SQLite does not have")

    def _exact_comparison(self, node: exp.Expression) -> Rewrite | None:
        if isinstance(node, self._exp.Greatest | self._exp.Least):
            function = f"mlcicd_{type(node).__name__.lower()}"
            return lambda new: self._call(function, new.this, *new.expressions)
        return None

    def _compared(self, node: exp.Expression, types: list[str]) -> Rewrite | None:
        kinds = {kind_of(name) for name in types if name and name != '"NULL"'}
        if kinds != {"date", "timestamp"}:
            return super()._compared(node, types)
        days = [(k, p) for (k, p, _), name in zip(self._slots(node), types, strict=True) if name == "DATE"]
        if any(not name for name in types):
            raise NotTranslated(f"{node.sql('duckdb')} compares text with days and times")

        def as_times(new: Any) -> exp.Expression:
            for key, place in days:
                value = new.args[key] if place is None else new.args[key][place]
                value.replace(self._midnight(value.copy()))
            made = self._exact_comparison(new)
            return made(new) if made else new

        return as_times

    def _midnight(self, day: exp.Expression) -> exp.Expression:
        return self._exp.paren(self._exp.DPipe(this=day, expression=self._exp.Literal.string(" 00:00:00.000000")))

    # --- numbers

    def _computed(self, node: exp.Expression, name: str, kinds: list[str], result: str) -> Rewrite:
        if "decimal" in kinds:
            raise NotTranslated(f"arithmetic of a decimal number ({node.sql('duckdb')}), write CAST(... AS DOUBLE)")
        operation = self._exp.Literal.string(name)
        if name == "Div" or result == "DOUBLE":
            return lambda new: self._call("mlcicd_float", operation.copy(), *_operands(new))
        if result not in _BITS:
            raise NotTranslated(f"arithmetic in {result}")
        bits = self._exp.Literal.number(_BITS[result])
        return lambda new: self._call("mlcicd_whole", operation.copy(), bits.copy(), *_operands(new))

    def _is_nan(self) -> Rewrite:
        # No value is: false, and NULL of NULL.
        return lambda new: self._exp.paren(self._exp.NEQ(this=new.this, expression=new.this.copy()))

    def _is_infinite(self) -> Rewrite:
        infinity = self._exp.Literal.number("9e999")
        return lambda new: self._exp.paren(self._exp.EQ(this=self._call("ABS", new.this), expression=infinity))

    def _is_finite(self, kind: str) -> Rewrite:
        if kind in ("date", "timestamp"):
            return lambda new: self._exp.paren(
                self._exp.EQ(this=new.expressions[0], expression=new.expressions[0].copy())
            )
        infinity = self._exp.Literal.number("9e999")
        return lambda new: self._exp.paren(
            self._exp.LT(this=self._call("ABS", new.expressions[0]), expression=infinity)
        )

    # --- text and time

    def _of_text(self, name: str) -> Rewrite | None:
        if name == "DPipe":
            return None
        if name == "Trim":
            return lambda new: self._call("TRIM", new.this, self._exp.Literal.string(BLANKS))
        return lambda new: self._call(f"mlcicd_{name.lower()}", *_operands(new))

    def _matches(self, pattern: str) -> Rewrite:
        written = plain_pattern(pattern)
        return lambda new: self._call("mlcicd_matches", new.this, self._exp.Literal.string(written))

    def _part(self, name: str) -> Rewrite | None:
        first, width = (self._exp.Literal.number(number) for number in _PLACES[name])
        return lambda new: self._exp.cast(
            self._call("SUBSTR", new.this, first.copy(), width.copy()), "INTEGER", dialect=self.dialect
        )

    def _seconds(self) -> Rewrite:
        return lambda new: self._call("mlcicd_seconds", new.this)

    def _as(self, node: Any, before: str, target: str) -> Rewrite | None:
        kind = self._type(node)
        if before == "literal" and target != "string":
            made = self._constant(str(node.this.this), kind)
            return lambda new: made
        if kind == "DOUBLE":
            return lambda new: self._floating(new.this, kind)
        if target == "int" and kind in _BITS:
            bits = self._exp.Literal.number(_BITS[kind])
            return lambda new: self._call("mlcicd_whole", self._exp.Literal.string("Pos"), bits, new.this)
        casts: dict[tuple[str, str], Rewrite] = {
            ("date", "timestamp"): lambda new: self._midnight(new.this),
            ("timestamp", "date"): self._day,
            ("int", "string"): self._written,
            ("date", "string"): self._written,
            ("bool", "string"): self._true_or_false_in_words,
        }
        if before == target:
            return lambda new: self._exp.paren(new.this)
        if (before, target) not in casts:
            raise NotTranslated(f"a cast from {before} to {kind} ({node.sql('duckdb')}) may differ on SQLite")
        return casts[before, target]

    def _day(self, new: Any) -> exp.Expression:
        first, width = (self._exp.Literal.number(number) for number in (1, 10))
        return self._call("SUBSTR", new.this, first, width)

    def _written(self, new: Any) -> exp.Expression:
        return self._exp.cast(new.this, "TEXT", dialect=self.dialect, copy=False)

    def _true_or_false_in_words(self, new: Any) -> exp.Expression:
        exp = self._exp
        words = [(new.this, "true"), (exp.Not(this=exp.paren(new.this.copy())), "false")]
        return exp.paren(exp.Case(ifs=[exp.If(this=this, true=exp.Literal.string(word)) for this, word in words]))


def _operands(node: Any) -> list[Any]:
    return [node.this, *([node.expression] if node.args.get("expression") else [])]
