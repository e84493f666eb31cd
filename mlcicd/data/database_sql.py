"""Our conditions in the words of databases; what may pass is in :mod:`mlcicd.data.translation`.

No name of a column or table is part of what is written here: the columns are `c0`, `c1`, ... of a projection that
:mod:`mlcicd.data.in_database` builds, in which each has the type that the embedded engine would give it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from mlcicd.data.conditions import kind_of
from mlcicd.data.translation import NUMBERS, NotTranslated, Rewrite, Translation

if TYPE_CHECKING:
    from sqlglot import exp


class ToDatabase(Translation):
    """What databases have in common, who know neither `count_if` nor truth of a number."""

    def __init__(
        self,
        type_of: Callable[[str], str],
        *,
        columns: Sequence[str],
        opaque: Collection[str],
        canonical: Callable[[str, str], str],
    ) -> None:
        """Binds a translation to a table.

        Args:
            type_of: DuckDB's type of an expression over the columns of `data`.
            columns: the names that `c0`, `c1`, ... stand for.
            opaque: columns of types that are text to the embedded engine in a form of its own.
            canonical: a literal's text and DuckDB's type for it, to the text that DuckDB writes it as.
        """
        super().__init__(type_of)
        self._names = {name.lower(): f"c{index}" for index, name in enumerate(columns)}
        self._opaque = {name.lower() for name in opaque}
        self._canonical = canonical

    def run(self, tree: exp.Expression) -> tuple[str, dict[str, str]]:
        for number, inner in enumerate(tree.find_all(self._exp.Subquery)):
            inner.set("alias", self._exp.TableAlias(this=self._exp.to_identifier(f"q{number}")))
        return super().run(tree)

    def _plain(self, node: exp.Expression, name: str) -> Rewrite | None:
        if name == "Column":
            return self._column(node)
        if name in ("And", "Or", "Not"):
            self._true_or_false(node.this, *([node.expression] if name != "Not" else []))
        elif name == "CountIf":
            one = self._exp.Literal.number(1)
            return lambda new: self._exp.Count(this=self._exp.Case(ifs=[self._exp.If(this=new.this, true=one)]))
        elif name == "Case":
            self._one_kind(node)
        elif name == "Is" and isinstance(node.expression, self._exp.Boolean):
            self._true_or_false(node.this)
        elif name in ("Array", "Avg", "StddevPop", "ApproxDistinct"):
            raise NotTranslated(f"{name.lower()} is not asked of a database")
        return None

    def _column(self, node: Any) -> Rewrite | None:
        name = str(node.this.this).lower()
        if name not in self._names:
            return None  # one of a subquery of ours
        parent = node.parent
        if name in self._opaque and not (
            isinstance(parent, self._exp.Count | self._exp.Select)
            or parent.meta.get("shown")
            or (isinstance(parent, self._exp.Is) and isinstance(parent.expression, self._exp.Null))
        ):
            raise NotTranslated(f"the column {node.name!r} has a type that is read as text here, in no standard form")
        written = self._names[name]
        return lambda new: self._exp.column(written)

    def _true_or_false(self, *operands: exp.Expression) -> None:
        exp = self._exp
        for operand in operands:
            # Of these the type needs no question, and there are many of them.
            if not isinstance(operand.unnest(), exp.Predicate | exp.Connector | exp.Not | exp.Boolean | exp.Null):
                self._must_be(operand, ("bool",), "a logical operator")

    def _one_kind(self, node: Any) -> None:
        if node.this is not None:
            raise NotTranslated(f"CASE with an operand ({node.sql('duckdb')}): write CASE WHEN ... = ...")
        self._true_or_false(*(branch.this for branch in node.args["ifs"]))
        values = [branch.args["true"] for branch in node.args["ifs"]]
        values += [node.args["default"]] if node.args.get("default") else []
        kinds = {self._kind(value) for value in values if not isinstance(value, self._exp.Null)}
        if len(kinds) > 1 and not kinds <= set(NUMBERS):
            raise NotTranslated(f"{node.sql('duckdb')} gives {' or '.join(sorted(kinds))}")

    def _compared(self, node: exp.Expression, types: list[str]) -> Rewrite | None:
        """Numbers become what DuckDB compares them as: databases compare 2^53 + 1 with a float in other ways."""
        kinds = {kind_of(name) for name in types if name and name != '"NULL"'}
        made = self._exact_comparison(node)
        if "float" not in kinds or len({name for name in types if name}) == 1:
            return made
        target = "DOUBLE" if {"DOUBLE"} & set(types) or "decimal" in kinds else "FLOAT"
        slots = [(key, place) for key, place, _ in self._slots(node)]
        odd = [slot for slot, name in zip(slots, types, strict=True) if name not in (target, '"NULL"', "")]

        def aligned(new: Any) -> exp.Expression:
            for key, place in odd:
                value = new.args[key] if place is None else new.args[key][place]
                cast = self._floating(value.copy(), target)
                value.replace(cast)
            return made(new) if made else new

        return aligned

    def _exact_comparison(self, node: exp.Expression) -> Rewrite | None:
        return None

    def _cast(self, node: Any) -> Rewrite | None:
        # What is shown is made text here, by the engine that always does.
        return self._shown() if node.meta.get("shown") else super()._cast(node)

    @abstractmethod
    def _shown(self) -> Rewrite:
        """From a cast to text, which is for people, to a value that comes here whole."""

    @abstractmethod
    def _floating(self, value: exp.Expression, target: str) -> exp.Expression:
        """A number as a DOUBLE or FLOAT."""

    def _date_part(self, part: str) -> Rewrite:
        whole = self._part(part.capitalize())
        assert whole is not None
        return lambda new: whole(self._exp.Year(this=new.expressions[1]))

    def _affix(self, name: str) -> Rewrite:
        whole = self._of_text(name)
        assert whole is not None
        return lambda new: whole(self._exp.EndsWith(this=new.expressions[0], expression=new.expressions[1]))

    def _size(self) -> Rewrite:
        raise NotTranslated(f"length() of a list {self.place}")

    def _typed(self, literal: exp.Expression, target: str) -> exp.Expression:
        return self._constant(str(literal.this), target)

    def _text_of(self, literal: exp.Expression, target: str) -> str:
        try:
            return self._canonical(str(literal.this), target)
        except ValueError as error:
            raise NotTranslated(f"{literal.sql('duckdb')} is no {target}: {error}") from error

    @abstractmethod
    def _constant(self, text: str, target: str) -> exp.Expression:
        """A literal of one of DuckDB's types, whose text may be written in any way that DuckDB reads."""
