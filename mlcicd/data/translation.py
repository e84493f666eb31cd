"""Our conditions, which are DuckDB's SQL, in another engine's words: what means the same, and nothing else.

sqlglot parses and writes; what may pass is listed here. Two engines that both know a function often differ where it
matters (division by zero, NaN, rounding casts, the syntax of regular expressions), so a function that is not listed is
refused by name instead of being trusted. Text never becomes part of the SQL: literals are bound as parameters.

The checks of types are here, once; the words of an engine are its subclass's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mlcicd.data.conditions import kind_of

if TYPE_CHECKING:
    from sqlglot import exp

NUMBERS = ("int", "float", "decimal")
# Selects and their parts, and what has no type of its own to differ in.
PLAIN = frozenset(
    {"Select", "From", "Table", "TableAlias", "Subquery", "Identifier", "Column", "Star", "Where", "Group", "Having"}
    | {"Order", "Ordered", "Limit", "Tuple", "Alias", "Null", "Boolean", "Literal", "Paren", "And", "Or", "Not", "Is"}
    | {"Case", "If", "Count", "CountIf", "Distinct", "ApproxDistinct", "Filter", "Min", "Max", "Sum", "Avg"}
    | {"StddevPop", "DataType", "Array", "Left"}
)
COMPARED = frozenset(
    {"EQ", "NEQ", "GT", "GTE", "LT", "LTE", "NullSafeEQ", "NullSafeNEQ", "In", "Between"}
    | {"Coalesce", "Nullif", "Greatest", "Least"}
)
COMPUTED = frozenset({"Add", "Sub", "Mul", "Div", "Mod", "Neg", "Abs"})
OF_TEXT = frozenset({"Length", "Lower", "Upper", "Trim", "DPipe", "StartsWith", "EndsWith", "Contains", "Like"})
OF_TIME = {
    "Year": ("date", "timestamp"),
    "Month": ("date", "timestamp"),
    "Day": ("date", "timestamp"),
    "Hour": ("timestamp",),
    "Minute": ("timestamp",),
}
_PARTS = {name.lower(): name for name in OF_TIME}

Rewrite = Callable[[Any], "exp.Expression"]


class NotTranslated(ValueError):
    """What of a statement has no counterpart that is known to mean the same."""


class Translation(ABC):
    """One statement on its way into another engine's SQL.

    A subclass says what is written for each node that passes, as functions from the node, whose children are
    translated already, to another. Types are DuckDB's, asked for before anything is replaced.

    Attributes:
        place: where it runs, for messages: `on Spark`.
        dialect: sqlglot's name of its SQL.
    """

    place = ""
    dialect = ""

    def __init__(self, type_of: Callable[[str], str]) -> None:
        """`type_of`: DuckDB's type of an expression over the columns of `data`."""
        from sqlglot import exp

        self._exp = exp
        self._type_of = type_of
        self._values: dict[str, str] = {}

    def run(self, tree: exp.Expression) -> tuple[str, dict[str, str]]:
        """The engine's SQL, and the values of its named parameters.

        Raises:
            NotTranslated: something in it is not listed here.
        """
        # Types are asked for in DuckDB's words, so before anything is replaced; children before their parents.
        nodes = list(tree.walk(bfs=False))
        made = [(node, self._replacement(node)) for node in nodes]
        for node, replacement in reversed(made):
            if replacement is not None:
                new = replacement(node)
                if new is not node:
                    node.replace(new)
        self._bind(tree)
        return tree.sql(dialect=self.dialect, identify=True), self._values

    def _bind(self, tree: exp.Expression) -> None:
        for node in list(tree.find_all(self._exp.Literal)):
            if node.is_string:
                name = f"text{len(self._values)}"
                self._values[name] = str(node.this)
                node.replace(self._parameter(name))

    def _parameter(self, name: str) -> exp.Expression:
        return self._exp.Placeholder(this=name)

    def _kind(self, node: exp.Expression) -> str:
        return kind_of(self._type(node))

    def _type(self, node: exp.Expression) -> str:
        return self._type_of(node.sql(dialect="duckdb"))

    def _replacement(self, node: exp.Expression) -> Rewrite | None:
        """How a node is rewritten once its children are; None where it stays. Raises NotTranslated."""
        name = type(node).__name__
        if name in PLAIN:
            return self._plain(node, name)
        if name in COMPARED:
            return self._comparison(node)
        if name in COMPUTED:
            return self._arithmetic(node, name)
        if name in OF_TEXT:
            return self._text(node, name)
        if name in OF_TIME:
            self._must_be(node.this, OF_TIME[name], f"{name.lower()}()")
            return self._part(name)
        special: dict[str, Callable[[Any], Rewrite | None]] = {
            "Cast": self._cast,
            "TryCast": self._cast,
            "Try": lambda _: lambda new: self._exp.paren(new.this),
            "IsNan": self._nan,
            "IsInf": self._infinite,
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
            raise NotTranslated(f"{shown} is not among what is known to mean the same {self.place}")
        return special[name](node)

    def _must_be(self, node: exp.Expression, kinds: tuple[str, ...], of: str) -> None:
        kind = self._kind(node)
        if kind not in kinds:
            raise NotTranslated(f"{of} of {node.sql('duckdb')}, which is {kind}, may differ {self.place}")

    # --- what may pass, of which types

    def _comparison(self, node: exp.Expression) -> Rewrite | None:
        operands = [child for _, _, child in self._slots(node)]
        if any(isinstance(value, self._exp.Tuple | self._exp.Subquery) for value in operands):
            raise NotTranslated(f"{node.sql('duckdb')} compares more than single values")
        if isinstance(node.this, self._exp.Sum):  # of counts, over a subquery
            return None
        types = {id(value): self._type(value) for value in operands if not is_text(value)}
        kinds = {kind_of(name) for name in types.values() if name != '"NULL"'}
        if kinds <= {"date", "timestamp"} and any("WITH TIME ZONE" in name for name in types.values()):
            kinds = {"timestamp"} if all("WITH TIME ZONE" in name for name in types.values()) else {"zoned", "naive"}
        numeric = kinds <= set(NUMBERS)
        if "FLOAT" in types.values() and any(name.startswith("DECIMAL") for name in types.values()):
            raise NotTranslated(
                f"{node.sql('duckdb')} compares a 32-bit float with a decimal number: write CAST(... AS DOUBLE)"
            )
        if not (numeric or len(kinds) <= 1 or kinds == {"date", "timestamp"}) or kinds & {"list", "struct"}:
            raise NotTranslated(f"{node.sql('duckdb')} compares {' with '.join(sorted(kinds))}")
        if numeric and any(is_text(value) for value in operands) and kinds:
            raise NotTranslated(f"{node.sql('duckdb')} compares a number with text")
        if kinds & {"date", "timestamp", "bool", "time"}:
            target = next(name for name in types.values() if kind_of(name) in kinds)
            for value in operands:
                if is_text(value):
                    value.replace(self._typed(value, target))
        return self._compared(node, [types.get(id(value), "") for value in operands])

    def _slots(self, node: exp.Expression) -> list[tuple[str, int | None, exp.Expression]]:
        """The operands of a node: key, place in a list, and what is there."""
        slots: list[tuple[str, int | None, Any]] = []
        for key, value in node.args.items():
            many = enumerate(value) if isinstance(value, list) else [(None, value)]
            slots += [(key, place, child) for place, child in many if isinstance(child, self._exp.Expression)]
        return slots

    def _arithmetic(self, node: exp.Expression, name: str) -> Rewrite | None:
        operands = [node.this, *([node.expression] if node.args.get("expression") else [])]
        for operand in operands:
            self._must_be(operand, NUMBERS, "arithmetic")
        result = self._type(node)
        kinds = [self._kind(operand) for operand in operands]
        if result == "FLOAT" or (name == "Mul" and kinds == ["decimal", "decimal"]) or result.startswith(("U", "HUGE")):
            raise NotTranslated(
                f"arithmetic in {result} ({node.sql('duckdb')}) rounds or overflows differently {self.place}"
            )
        if name == "Mod" and set(kinds) != {"int"}:
            raise NotTranslated(f"% of numbers that are not whole differs {self.place}")
        return self._computed(node, name, kinds, result)

    def _text(self, node: exp.Expression, name: str) -> Rewrite | None:
        if name == "Length" and self._kind(node.this) == "list":
            return self._size()
        operands = [
            node.this,
            *([node.expression] if isinstance(node.args.get("expression"), self._exp.Expression) else []),
        ]
        for operand in operands:
            self._must_be(operand, ("string",), f"{name.lower()}()")
        if name == "Trim" and (node.args.get("expression") or node.args.get("position")):
            raise NotTranslated("trim() with other arguments than the text")
        if name == "Like" and not (is_text(node.expression) and "\\" not in str(node.expression.this)):
            raise NotTranslated("LIKE with a pattern that is no plain text, or holds a backslash")
        return self._of_text(name)

    def _full_match(self, node: Any) -> Rewrite:
        self._must_be(node.this, ("string",), "regexp_full_match()")
        if not is_text(node.expression) or node.args.get("options"):
            raise NotTranslated("regexp_full_match() with a pattern that is no plain text, or with options")
        try:
            return self._matches(str(node.expression.this))
        except ValueError as error:
            raise NotTranslated(str(error)) from error

    def _nan(self, node: Any) -> Rewrite:
        self._must_be(node.this, ("float",), "isnan()")
        return self._is_nan()

    def _infinite(self, node: Any) -> Rewrite:
        self._must_be(node.this, ("float",), "isinf()")
        return self._is_infinite()

    def _epoch(self, node: Any) -> Rewrite:
        self._must_be(node.this, ("date", "timestamp"), "epoch()")
        return self._seconds()

    def _anonymous(self, node: Any) -> Rewrite | None:
        name = str(node.this).lower()
        if name == "isfinite" and len(node.expressions) == 1:
            kind = self._kind(node.expressions[0])
            if kind not in ("date", "timestamp"):
                self._must_be(node.expressions[0], ("float", "int"), "isfinite()")
            return self._is_finite(kind)
        if name == "date_part" and len(node.expressions) == 2 and is_text(node.expressions[0]):
            part = str(node.expressions[0].this).lower()
            if part in _PARTS:
                self._must_be(node.expressions[1], OF_TIME[_PARTS[part]], f"{part}()")
                return self._date_part(part)
        if name in ("suffix", "ends_with", "prefix") and len(node.expressions) == 2:
            for operand in node.expressions:
                self._must_be(operand, ("string",), f"{name}()")
            return self._affix("StartsWith" if name == "prefix" else "EndsWith")
        raise NotTranslated(f"{name}() is not among the functions that are known to mean the same {self.place}")

    def _cast(self, node: Any) -> Rewrite | None:
        written = node.to.sql(dialect="duckdb").upper()
        target = kind_of({"TEXT": "VARCHAR", "INT": "INTEGER", "REAL": "FLOAT"}.get(written, written))
        before = "literal" if is_text(node.this) else self._kind(node.this)
        shown = isinstance(node.this, self._exp.Min | self._exp.Max) or isinstance(node.parent, self._exp.Left)
        fine = {
            "string": ("string", "int", "bool", "date", "timestamp", "decimal", *(("float",) if shown else ())),
            "float": (*NUMBERS, "literal"),
            "timestamp": ("timestamp", "date", "literal"),
            "date": ("date", "timestamp", "literal"),
            "bool": ("bool", "literal"),
            "int": ("int", "bool"),
        }
        if before not in fine.get(target, ()) and not (shown and target == "string"):
            raise NotTranslated(f"a cast from {before} to {target} ({node.sql('duckdb')}) may differ {self.place}")
        return self._as(node, before, target)

    # --- an engine's own words

    def _plain(self, node: exp.Expression, name: str) -> Rewrite | None:
        return None

    def _compared(self, node: exp.Expression, types: list[str]) -> Rewrite | None:
        """`types`: of each operand in the order of its slots; empty of a text literal."""
        return None

    def _typed(self, literal: exp.Expression, target: str) -> exp.Expression:
        """A text literal as a value of one of DuckDB's types."""
        return self._exp.cast(literal.copy(), target, dialect="duckdb")

    @abstractmethod
    def _part(self, name: str) -> Rewrite | None: ...

    @abstractmethod
    def _date_part(self, part: str) -> Rewrite: ...

    @abstractmethod
    def _computed(self, node: exp.Expression, name: str, kinds: list[str], result: str) -> Rewrite: ...

    @abstractmethod
    def _size(self) -> Rewrite: ...

    @abstractmethod
    def _of_text(self, name: str) -> Rewrite | None: ...

    @abstractmethod
    def _affix(self, name: str) -> Rewrite: ...

    @abstractmethod
    def _matches(self, pattern: str) -> Rewrite: ...

    @abstractmethod
    def _is_nan(self) -> Rewrite: ...

    @abstractmethod
    def _is_infinite(self) -> Rewrite: ...

    @abstractmethod
    def _is_finite(self, kind: str) -> Rewrite: ...

    @abstractmethod
    def _seconds(self) -> Rewrite: ...

    @abstractmethod
    def _as(self, node: Any, before: str, target: str) -> Rewrite | None: ...

    def _call(self, name: str, *arguments: exp.Expression) -> exp.Expression:
        return self._exp.Anonymous(this=name, expressions=list(arguments))


def is_text(node: Any) -> bool:
    """Whether a node is a text literal."""
    return type(node).__name__ == "Literal" and bool(node.is_string)
