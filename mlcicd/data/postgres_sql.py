"""Our conditions in PostgreSQL's words, for a session in UTC.

What would be an error in a row of DuckDB's, and NULL in a rule, is one here, too, and ends the statement: whole numbers
that overflow, above all. The rule is then named instead of being counted otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlcicd.data.database_patterns import plain_pattern
from mlcicd.data.database_sql import ToDatabase
from mlcicd.data.translation import NotTranslated, Rewrite

if TYPE_CHECKING:
    from sqlglot import exp

_TYPES = {
    "TINYINT": "smallint",
    "SMALLINT": "smallint",
    "INTEGER": "integer",
    "BIGINT": "bigint",
    "FLOAT": "real",
    "DOUBLE": "double precision",
    "DATE": "date",
    "TIME": "time",
    "TIMESTAMP": "timestamp",
    "TIMESTAMP WITH TIME ZONE": "timestamptz",
    "BOOLEAN": "boolean",
}
# What DuckDB's trim() takes for blank: Unicode's space separators.
BLANKS = "\u0020\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"


class ToPostgres(ToDatabase):
    """One statement of ours for PostgreSQL; parameters as psycopg takes them."""

    place = "on PostgreSQL"
    dialect = "postgres"

    def _parameter(self, name: str) -> exp.Expression:
        # Texts are compared by their bytes, as the projection's columns are.
        return self._words(f"CAST(%({name})s AS text)")

    def _words(self, text: str) -> exp.Expression:
        return self._exp.Var(this=text)

    def _as_type(self, value: exp.Expression, target: str) -> exp.Expression:
        return self._exp.cast(value, target, dialect=self.dialect, copy=False)

    def _shown(self) -> Rewrite:
        # As PostgreSQL's own text: a driver does not know every date.
        return lambda new: self._as_type(new.this, "text")

    def _floating(self, value: exp.Expression, target: str) -> exp.Expression:
        return self._as_type(value, _TYPES[target])

    def _constant(self, text: str, target: str) -> exp.Expression:
        literal = self._exp.Literal.string(text)
        return self._as_type(self._exp.Literal.string(self._text_of(literal, target)), _type(target))

    # --- numbers

    def _computed(self, node: exp.Expression, name: str, kinds: list[str], result: str) -> Rewrite:
        target = _type(result)

        def computed(new: Any) -> exp.Expression:
            parts = [new.this, *([new.expression] if new.args.get("expression") else [])]
            # Before as DuckDB casts them, and after, because a decimal here would have as many digits as it needs.
            parts = [part if result.startswith("DECIMAL") else self._as_type(part, target) for part in parts]
            if name == "Div":
                return self._division(*parts)
            if name == "Mod":
                zero = self._exp.Literal.number(0)
                return self._as_type(self._call("MOD", parts[0], self._call("NULLIF", parts[1], zero)), target)
            if name == "Neg":
                made: Any = self._exp.Neg(this=self._exp.paren(parts[0]))
            elif name == "Abs":
                made = self._call("ABS", parts[0])
            else:
                over, under = (self._exp.paren(part) for part in parts)
                made = getattr(self._exp, name)(this=over, expression=under)
            return self._as_type(made, target)

        return computed

    def _division(self, over: exp.Expression, under: exp.Expression) -> exp.Expression:
        """IEEE's division, which DuckDB's is: by zero it gives an infinity or NaN, and here an error."""
        exp = self._exp
        minus = exp.EQ(this=self._as_type(under.copy(), "text"), expression=exp.Literal.string("-0"))
        infinity = exp.Case(
            ifs=[exp.If(this=minus, true=self._special("-Infinity"))], default=self._special("Infinity")
        )
        zero = exp.EQ(this=under.copy(), expression=exp.Literal.number(0))
        infinite = exp.Mul(this=exp.paren(over.copy()), expression=exp.paren(infinity))
        quotient = exp.Div(this=exp.paren(over), expression=exp.paren(under), typed=True, safe=True)
        return exp.paren(exp.Case(ifs=[exp.If(this=zero, true=infinite)], default=quotient))

    def _special(self, value: str) -> exp.Expression:
        return self._as_type(self._exp.Literal.string(value), "double precision")

    def _is_nan(self) -> Rewrite:
        return lambda new: self._exp.paren(self._exp.EQ(this=new.this, expression=self._special("NaN")))

    def _is_infinite(self) -> Rewrite:
        return lambda new: self._exp.paren(
            self._exp.EQ(this=self._call("ABS", new.this), expression=self._special("Infinity"))
        )

    def _is_finite(self, kind: str) -> Rewrite:
        if kind in ("date", "timestamp"):
            return lambda new: self._call("ISFINITE", new.expressions[0])
        # NaN is the largest number on both.
        return lambda new: self._exp.paren(
            self._exp.LT(
                this=self._call("ABS", self._as_type(new.expressions[0], "double precision")),
                expression=self._special("Infinity"),
            )
        )

    # --- text and time

    def _of_text(self, name: str) -> Rewrite | None:
        calls = {"StartsWith": "STARTS_WITH", "Length": "CHAR_LENGTH"}
        if name in calls:
            return lambda new: self._call(calls[name], *filter(None, (new.this, new.args.get("expression"))))
        if name == "Contains":
            return self._contains
        if name == "EndsWith":
            return self._ends_with
        if name == "Trim":
            return lambda new: self._call("BTRIM", new.this, self._exp.Literal.string(BLANKS))
        if name in ("Lower", "Upper"):
            # In the collation "C" only the letters of ASCII have another case.
            return lambda new: self._words_of(name.upper(), new.this)
        return None

    def _words_of(self, function: str, value: exp.Expression) -> exp.Expression:
        unicode = self._exp.Collate(this=value, expression=self._exp.to_identifier("und-x-icu", quoted=True))
        binary = self._exp.to_identifier("C", quoted=True)
        return self._exp.paren(self._exp.Collate(this=self._call(function, unicode), expression=binary))

    def _contains(self, new: Any) -> exp.Expression:
        place = self._call("STRPOS", new.this, new.expression)
        return self._exp.paren(self._exp.GT(this=place, expression=self._exp.Literal.number(0)))

    def _ends_with(self, new: Any) -> exp.Expression:
        end = self._call("RIGHT", new.this, self._call("CHAR_LENGTH", new.expression))
        return self._exp.paren(self._exp.EQ(this=end, expression=new.expression.copy()))

    def _matches(self, pattern: str) -> Rewrite:
        written = plain_pattern(pattern)
        return lambda new: self._call("TEXTREGEXEQ", new.this, self._exp.Literal.string(written))

    def _part(self, name: str) -> Rewrite | None:
        part = self._exp.Literal.string(name.lower())
        return lambda new: self._as_type(self._call("DATE_PART", part.copy(), new.this), "bigint")

    def _seconds(self) -> Rewrite:
        epoch = self._exp.Literal.string("epoch")
        return lambda new: self._call("DATE_PART", epoch.copy(), new.this)

    def _as(self, node: Any, before: str, target: str) -> Rewrite | None:
        kind = self._type(node)
        if before == "literal" and target != "string":
            made = self._constant(str(node.this.this), kind)
            return lambda new: made
        if target == "string":
            return lambda new: self._as_type(new.this, "text")
        if target == "int" and before == "bool":
            return lambda new: self._as_type(self._as_type(new.this, "integer"), _type(kind))
        return lambda new: self._as_type(new.this, _type(kind))


def _type(kind: str) -> str:
    if kind.startswith("DECIMAL("):
        return kind.replace("DECIMAL", "numeric")
    if kind not in _TYPES:
        raise NotTranslated(f"{kind} is no type of PostgreSQL's")
    return _TYPES[kind]
