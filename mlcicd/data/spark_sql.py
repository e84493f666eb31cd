"""Our conditions in Spark's words; what may pass is in :mod:`mlcicd.data.translation`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mlcicd.data.java_patterns import java_pattern
from mlcicd.data.translation import Rewrite, Translation

if TYPE_CHECKING:
    from sqlglot import exp

_TYPES = {
    "TINYINT": "TINYINT",
    "SMALLINT": "SMALLINT",
    "INTEGER": "INT",
    "BIGINT": "BIGINT",
    "FLOAT": "FLOAT",
    "DOUBLE": "DOUBLE",
}
_CALLS = {"StartsWith": "STARTSWITH", "EndsWith": "ENDSWITH", "Contains": "CONTAINS", "Length": "CHAR_LENGTH"}


def to_spark(sql: str, type_of: Callable[[str], str], parameters: Sequence[str] = ()) -> tuple[str, dict[str, str]]:
    """Translates a statement of ours.

    Args:
        sql: DuckDB's.
        type_of: DuckDB's type of an expression over the columns of `data`.
        parameters: the text of each `?`, in order.

    Returns:
        Spark's SQL (meant for a session without ANSI mode and in UTC), and the values of its named parameters.

    Raises:
        NotTranslated: something in it is not known to mean the same.
    """
    import sqlglot

    tree = sqlglot.parse_one(sql, read="duckdb")
    asked = list(tree.find_all(sqlglot.exp.Placeholder, bfs=False)) if parameters else []
    for node, text in zip(asked, parameters, strict=True):
        node.replace(sqlglot.exp.Literal.string(text))
    return _ToSpark(type_of).run(tree)


class _ToSpark(Translation):
    place = "on Spark"
    dialect = "spark"

    def _part(self, name: str) -> Rewrite | None:
        return None

    def _date_part(self, part: str) -> Rewrite:
        return lambda new: self._call(part.upper(), new.expressions[1])

    # --- arithmetic

    def _computed(self, node: exp.Expression, name: str, kinds: list[str], result: str) -> Rewrite:
        if name == "Div":
            return self._division
        functions = {"Add": "TRY_ADD", "Sub": "TRY_SUBTRACT", "Mul": "TRY_MULTIPLY", "Mod": "TRY_MOD"}
        exact = _TYPES.get(result) if set(kinds) == {"int"} else None

        def overflows_to_null(new: Any) -> exp.Expression:
            parts = [new.this, *([new.expression] if new.args.get("expression") else [])]
            if exact:
                parts = [self._call("BIGINT", part) for part in parts]
            if name in functions:
                made = self._call(functions[name], *parts)
            elif name == "Neg":
                zero = self._exp.Literal.number(0)
                made = (
                    self._call("TRY_SUBTRACT", zero, parts[0])
                    if exact
                    else self._exp.Neg(this=self._exp.paren(parts[0]))
                )
            else:
                made = self._call("ABS", self._decimal(parts[0]) if exact else parts[0])
            return self._try_cast(made, self._exp.DataType.build(exact, dialect="spark")) if exact else made

        return overflows_to_null

    def _division(self, node: Any) -> exp.Expression:
        """IEEE's division, which DuckDB's is: by zero it gives an infinity or NaN, where Spark's gives NULL."""
        exp = self._exp
        over, under = self._call("DOUBLE", node.this), self._call("DOUBLE", node.expression)
        # Times an infinity zero is NaN, and a negative number a negative infinity. -0.0 below is not told from 0.0.
        infinite = exp.Mul(this=exp.paren(over.copy()), expression=self._call("DOUBLE", exp.Literal.string("Infinity")))
        zero = exp.EQ(this=under.copy(), expression=self._call("DOUBLE", exp.Literal.number(0)))
        return exp.Case(
            ifs=[exp.If(this=zero, true=infinite)], default=exp.Div(this=over, expression=under, typed=True, safe=True)
        )

    # --- text

    def _size(self) -> Rewrite:
        return lambda new: self._call("ARRAY_SIZE", new.this)

    def _of_text(self, name: str) -> Rewrite | None:
        if name in _CALLS:
            return lambda new: self._call(_CALLS[name], *filter(None, (new.this, new.args.get("expression"))))
        return None

    def _affix(self, name: str) -> Rewrite:
        return lambda new: self._call(_CALLS[name], *new.expressions)

    def _matches(self, pattern: str) -> Rewrite:
        java = java_pattern(pattern)
        return lambda new: self._call("REGEXP_LIKE", new.this, self._exp.Literal.string(java))

    # --- the rest

    def _is_nan(self) -> Rewrite:
        # Spark's isnan(NULL) is false, and NaN equals itself on both.
        return lambda new: self._exp.paren(self._exp.EQ(this=new.this, expression=self._special("NaN")))

    def _is_infinite(self) -> Rewrite:
        infinite = self._special("Infinity")
        return lambda new: self._exp.paren(self._exp.EQ(this=self._call("ABS", new.this), expression=infinite))

    def _is_finite(self, kind: str) -> Rewrite:
        if kind in ("date", "timestamp"):
            return lambda new: self._exp.paren(
                self._exp.EQ(this=new.expressions[0], expression=new.expressions[0].copy())
            )

        def between_infinities(new: Any) -> exp.Expression:
            # NaN is the largest number to both engines.
            size = self._call("ABS", self._call("DOUBLE", new.expressions[0]))
            return self._exp.paren(self._exp.LT(this=size, expression=self._special("Infinity")))

        return between_infinities

    def _seconds(self) -> Rewrite:
        def seconds(new: Any) -> exp.Expression:
            stamp = self._exp.Anonymous(this="TIMESTAMP", expressions=[new.this])
            return self._exp.Div(
                this=self._call("UNIX_MICROS", stamp),
                expression=self._call("DOUBLE", self._exp.Literal.number(1_000_000)),
            )

        return seconds

    def _as(self, node: Any, before: str, target: str) -> Rewrite | None:
        if target == "int":  # one that is too large is NULL in a rule, not what is left of it
            return lambda new: self._try_cast(new.this, new.to)
        if target == "string" and self._exp.DataType.is_type(node.to, "text", "varchar"):
            if "WITH TIME ZONE" in self._type(node.this):  # which is UTC, and DuckDB says so
                return lambda new: self._call("CONCAT", self._call("STRING", new.this), self._exp.Literal.string("+00"))
            return lambda new: self._call("STRING", new.this)
        return None

    def _try_cast(self, value: exp.Expression, target: exp.Expression) -> exp.Expression:
        # Without the last argument sqlglot writes a CAST, which outside of ANSI mode drops the upper bits.
        return self._exp.TryCast(this=value, to=target, safe=True)

    def _special(self, value: str) -> exp.Expression:
        return self._call("DOUBLE", self._exp.Literal.string(value))

    def _decimal(self, value: exp.Expression) -> exp.Expression:
        return self._exp.cast(value, "DECIMAL(20, 0)")
