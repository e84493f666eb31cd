"""Our conditions, which are DuckDB's SQL, as Spark's: what means the same, and nothing else.

sqlglot parses and writes; what may pass is listed here. Two engines that both know a function often differ where it
matters (division by zero, NaN, rounding casts, the syntax of regular expressions), so a function that is not listed is
refused by name instead of being trusted. Text never becomes part of the SQL: literals are bound as parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mlcicd.data.conditions import kind_of
from mlcicd.data.java_patterns import java_pattern

if TYPE_CHECKING:
    from sqlglot import exp

_NUMBERS = ("int", "float", "decimal")
_SPARK_TYPES = {
    "TINYINT": "TINYINT",
    "SMALLINT": "SMALLINT",
    "INTEGER": "INT",
    "BIGINT": "BIGINT",
    "FLOAT": "FLOAT",
    "DOUBLE": "DOUBLE",
}
# Selects and their parts, and what has no type of its own to differ in.
_PLAIN = frozenset(
    {"Select", "From", "Table", "TableAlias", "Subquery", "Identifier", "Column", "Star", "Where", "Group", "Having"}
    | {"Order", "Ordered", "Limit", "Tuple", "Alias", "Null", "Boolean", "Literal", "Paren", "And", "Or", "Not", "Is"}
    | {"Case", "If", "Count", "CountIf", "Distinct", "ApproxDistinct", "Filter", "Min", "Max", "Sum", "Avg"}
    | {"StddevPop", "DataType", "Array", "Left"}
)
_COMPARED = frozenset(
    {"EQ", "NEQ", "GT", "GTE", "LT", "LTE", "NullSafeEQ", "NullSafeNEQ", "In", "Between"}
    | {"Coalesce", "Nullif", "Greatest", "Least"}
)
_COMPUTED = frozenset({"Add", "Sub", "Mul", "Div", "Mod", "Neg", "Abs"})
_OF_TEXT = frozenset({"Length", "Lower", "Upper", "Trim", "DPipe", "StartsWith", "EndsWith", "Contains", "Like"})
_OF_TIME = {
    "Year": ("date", "timestamp"),
    "Month": ("date", "timestamp"),
    "Day": ("date", "timestamp"),
    "Hour": ("timestamp",),
    "Minute": ("timestamp",),
}


class NotOnSpark(ValueError):
    """What of a statement has no counterpart that is known to mean the same."""


def to_spark(sql: str, type_of: Callable[[str], str], parameters: Sequence[str] = ()) -> tuple[str, dict[str, str]]:
    """Translates a statement of ours.

    Args:
        sql: DuckDB's.
        type_of: DuckDB's type of an expression over the columns of `data`.
        parameters: the text of each `?`, in order.

    Returns:
        Spark's SQL (meant for a session without ANSI mode and in UTC), and the values of its named parameters.

    Raises:
        NotOnSpark: something in it is not listed here.
    """
    import sqlglot

    tree = sqlglot.parse_one(sql, read="duckdb")
    asked = list(tree.find_all(sqlglot.exp.Placeholder, bfs=False)) if parameters else []
    for node, text in zip(asked, parameters, strict=True):
        node.replace(sqlglot.exp.Literal.string(text))
    return _Translation(type_of).run(tree)


class _Translation:
    def __init__(self, type_of: Callable[[str], str]) -> None:
        from sqlglot import exp

        self._exp = exp
        self._type_of = type_of
        self._values: dict[str, str] = {}

    def run(self, tree: exp.Expression) -> tuple[str, dict[str, str]]:
        # Types are asked for in DuckDB's words, so before anything is replaced; children before their parents.
        nodes = list(tree.walk(bfs=False))
        made = [(node, self._replacement(node)) for node in nodes]
        for node, replacement in reversed(made):
            if replacement is not None:
                new = replacement(node)
                if new is not node:
                    node.replace(new)
        self._bind(tree)
        return tree.sql(dialect="spark", identify=True), self._values

    def _bind(self, tree: exp.Expression) -> None:
        for node in list(tree.find_all(self._exp.Literal)):
            if node.is_string:
                name = f"text{len(self._values)}"
                self._values[name] = str(node.this)
                node.replace(self._exp.Placeholder(this=name))

    def _kind(self, node: exp.Expression) -> str:
        return kind_of(self._type(node))

    def _type(self, node: exp.Expression) -> str:
        return self._type_of(node.sql(dialect="duckdb"))

    def _replacement(self, node: exp.Expression) -> Callable[[Any], exp.Expression] | None:
        """How a node is rewritten once its children are; None where it stays. Raises NotOnSpark."""
        name = type(node).__name__
        if name in _PLAIN:
            return None
        if name in _COMPARED:
            return self._comparison(node)
        if name in _COMPUTED:
            return self._arithmetic(node, name)
        if name in _OF_TEXT:
            return self._text(node, name)
        if name in _OF_TIME:
            self._must_be(node.this, _OF_TIME[name], f"{name.lower()}()")
            return None
        special: dict[str, Callable[[Any], Callable[[Any], exp.Expression] | None]] = {
            "Cast": self._cast,
            "TryCast": self._cast,
            "Try": lambda _: lambda new: self._exp.paren(new.this),
            "IsNan": self._is_nan,
            "IsInf": self._is_infinite,
            "RegexpFullMatch": self._full_match,
            "TimeToUnix": self._epoch,
            "Anonymous": self._anonymous,
        }
        if name not in special:
            shown = (
                node.sql_name().lower() + "()"
                if isinstance(node, self._exp.Func)
                else f"{name} in {node.sql('duckdb')}"
            )
            raise NotOnSpark(f"{shown} is not among what is known to mean the same on Spark")
        return special[name](node)

    def _must_be(self, node: exp.Expression, kinds: tuple[str, ...], of: str) -> None:
        kind = self._kind(node)
        if kind not in kinds:
            raise NotOnSpark(f"{of} of {node.sql('duckdb')}, which is {kind}, may differ on Spark")

    # --- comparisons

    def _comparison(self, node: exp.Expression) -> Callable[[Any], exp.Expression] | None:
        operands = [v for value in node.args.values() for v in (value if isinstance(value, list) else [value])]
        operands = [value for value in operands if isinstance(value, self._exp.Expression)]
        if any(isinstance(value, self._exp.Tuple | self._exp.Subquery) for value in operands):
            raise NotOnSpark(f"{node.sql('duckdb')} compares more than single values")
        if isinstance(node.this, self._exp.Sum):  # of counts, over a subquery
            return None
        types = {id(value): self._type(value) for value in operands if not _is_text_literal(value)}
        kinds = {kind_of(name) for name in types.values() if name != '"NULL"'}
        if kinds <= {"date", "timestamp"} and any("WITH TIME ZONE" in name for name in types.values()):
            kinds = {"timestamp"} if all("WITH TIME ZONE" in name for name in types.values()) else {"zoned", "naive"}
        numeric = kinds <= set(_NUMBERS)
        if "FLOAT" in types.values() and any(name.startswith("DECIMAL") for name in types.values()):
            raise NotOnSpark(
                f"{node.sql('duckdb')} compares a 32-bit float with a decimal number: write CAST(... AS DOUBLE)"
            )
        if not (numeric or len(kinds) <= 1 or kinds == {"date", "timestamp"}) or kinds & {"list", "struct"}:
            raise NotOnSpark(f"{node.sql('duckdb')} compares {' with '.join(sorted(kinds))}")
        if numeric and any(_is_text_literal(value) for value in operands) and kinds:
            raise NotOnSpark(f"{node.sql('duckdb')} compares a number with text")
        if kinds & {"date", "timestamp", "bool", "time"}:
            target = next(name for name in types.values() if kind_of(name) in kinds)
            for value in operands:
                if _is_text_literal(value):
                    value.replace(self._exp.cast(value.copy(), target, dialect="duckdb"))
        return None

    # --- arithmetic

    def _arithmetic(self, node: exp.Expression, name: str) -> Callable[[Any], exp.Expression] | None:
        operands = [node.this, *([node.expression] if node.args.get("expression") else [])]
        for operand in operands:
            self._must_be(operand, _NUMBERS, "arithmetic")
        result = self._type(node)
        kinds = [self._kind(operand) for operand in operands]
        if result == "FLOAT" or (name == "Mul" and kinds == ["decimal", "decimal"]) or result.startswith(("U", "HUGE")):
            raise NotOnSpark(f"arithmetic in {result} ({node.sql('duckdb')}) rounds or overflows differently on Spark")
        if name == "Mod" and set(kinds) != {"int"}:
            raise NotOnSpark("% of numbers that are not whole differs on Spark")
        if name == "Div":
            return self._division
        functions = {"Add": "TRY_ADD", "Sub": "TRY_SUBTRACT", "Mul": "TRY_MULTIPLY", "Mod": "TRY_MOD"}
        exact = _SPARK_TYPES.get(result) if set(kinds) == {"int"} else None

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

    def _text(self, node: exp.Expression, name: str) -> Callable[[Any], exp.Expression] | None:
        if name == "Length" and self._kind(node.this) == "list":
            return lambda new: self._call("ARRAY_SIZE", new.this)
        operands = [
            node.this,
            *([node.expression] if isinstance(node.args.get("expression"), self._exp.Expression) else []),
        ]
        for operand in operands:
            self._must_be(operand, ("string",), f"{name.lower()}()")
        if name == "Trim" and (node.args.get("expression") or node.args.get("position")):
            raise NotOnSpark("trim() with other arguments than the text")
        if name == "Like" and not (_is_text_literal(node.expression) and "\\" not in str(node.expression.this)):
            raise NotOnSpark("LIKE with a pattern that is no plain text, or holds a backslash")
        calls = {"StartsWith": "STARTSWITH", "EndsWith": "ENDSWITH", "Contains": "CONTAINS", "Length": "CHAR_LENGTH"}
        if name in calls:
            return lambda new: self._call(calls[name], *filter(None, (new.this, new.args.get("expression"))))
        return None

    def _full_match(self, node: Any) -> Callable[[Any], exp.Expression]:
        self._must_be(node.this, ("string",), "regexp_full_match()")
        if not _is_text_literal(node.expression) or node.args.get("options"):
            raise NotOnSpark("regexp_full_match() with a pattern that is no plain text, or with options")
        try:
            pattern = java_pattern(str(node.expression.this))
        except ValueError as error:
            raise NotOnSpark(str(error)) from error
        return lambda new: self._call("REGEXP_LIKE", new.this, self._exp.Literal.string(pattern))

    # --- the rest

    def _is_nan(self, node: Any) -> Callable[[Any], exp.Expression]:
        self._must_be(node.this, ("float",), "isnan()")
        # Spark's isnan(NULL) is false, and NaN equals itself on both.
        return lambda new: self._exp.paren(self._exp.EQ(this=new.this, expression=self._special("NaN")))

    def _is_infinite(self, node: Any) -> Callable[[Any], exp.Expression]:
        self._must_be(node.this, ("float",), "isinf()")
        infinite = self._special("Infinity")
        return lambda new: self._exp.paren(self._exp.EQ(this=self._call("ABS", new.this), expression=infinite))

    def _finite(self, node: Any) -> Callable[[Any], exp.Expression]:
        (value,) = node.expressions
        kind = self._kind(value)
        if kind in ("date", "timestamp"):
            return lambda new: self._exp.paren(
                self._exp.EQ(this=new.expressions[0], expression=new.expressions[0].copy())
            )
        self._must_be(value, ("float", "int"), "isfinite()")

        def between_infinities(new: Any) -> exp.Expression:
            # NaN is the largest number to both engines.
            size = self._call("ABS", self._call("DOUBLE", new.expressions[0]))
            return self._exp.paren(self._exp.LT(this=size, expression=self._special("Infinity")))

        return between_infinities

    def _epoch(self, node: Any) -> Callable[[Any], exp.Expression]:
        self._must_be(node.this, ("date", "timestamp"), "epoch()")

        def seconds(new: Any) -> exp.Expression:
            stamp = self._exp.Anonymous(this="TIMESTAMP", expressions=[new.this])
            return self._exp.Div(
                this=self._call("UNIX_MICROS", stamp),
                expression=self._call("DOUBLE", self._exp.Literal.number(1_000_000)),
            )

        return seconds

    def _anonymous(self, node: Any) -> Callable[[Any], exp.Expression]:
        name = str(node.this).lower()
        if name == "isfinite" and len(node.expressions) == 1:
            return self._finite(node)
        parts = {"year": "YEAR", "month": "MONTH", "day": "DAY", "hour": "HOUR", "minute": "MINUTE"}
        if name == "date_part" and len(node.expressions) == 2 and _is_text_literal(node.expressions[0]):
            part = str(node.expressions[0].this).lower()
            if part in parts:
                self._must_be(node.expressions[1], _OF_TIME[part.capitalize()], f"{part}()")
                return lambda new: self._call(parts[part], new.expressions[1])
        if name in ("suffix", "ends_with", "prefix") and len(node.expressions) == 2:
            for operand in node.expressions:
                self._must_be(operand, ("string",), f"{name}()")
            called = "STARTSWITH" if name == "prefix" else "ENDSWITH"
            return lambda new: self._call(called, *new.expressions)
        raise NotOnSpark(f"{name}() is not among the functions that are known to mean the same on Spark")

    def _cast(self, node: Any) -> Callable[[Any], exp.Expression] | None:
        written = node.to.sql(dialect="duckdb").upper()
        target = kind_of({"TEXT": "VARCHAR", "INT": "INTEGER", "REAL": "FLOAT"}.get(written, written))
        before = "literal" if _is_text_literal(node.this) else self._kind(node.this)
        shown = isinstance(node.this, self._exp.Min | self._exp.Max) or isinstance(node.parent, self._exp.Left)
        fine = {
            "string": ("string", "int", "bool", "date", "timestamp", "decimal", *(("float",) if shown else ())),
            "float": (*_NUMBERS, "literal"),
            "timestamp": ("timestamp", "date", "literal"),
            "date": ("date", "timestamp", "literal"),
            "bool": ("bool", "literal"),
            "int": ("int", "bool"),
        }
        if before not in fine.get(target, ()) and not (shown and target == "string"):
            raise NotOnSpark(f"a cast from {before} to {target} ({node.sql('duckdb')}) may differ on Spark")
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

    def _call(self, name: str, *arguments: exp.Expression) -> exp.Expression:
        return self._exp.Anonymous(this=name, expressions=list(arguments))


def _is_text_literal(node: Any) -> bool:
    return type(node).__name__ == "Literal" and bool(node.is_string)
