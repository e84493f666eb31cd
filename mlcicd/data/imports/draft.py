"""A schema while it is being put together from another tool's rules."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from mlcicd.core.errors import redact
from mlcicd.data.schema import Column, parse_schema
from mlcicd.data.source import quote

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_LONGEST_NOTE = 200
# Without its type a rule says less; without the others it is not the rule that was meant.
_GIVEN_UP_FIRST = ("type", "pattern", "length", "min", "max")
_TYPES = {
    "int": r"u?int(eger)?\d*|bigint|smallint|tinyint|hugeint|long|short|byte",
    "float": r"float\d*|double( precision)?|real",
    "decimal": r"decimal|numeric|number",
    "bool": r"bool(ean)?",
    "string": r"str(ing)?|object|text|n?varchar|char|category|bytes",
    "timestamp": r"datetime(64)?|timestamp(tz|_ns|_ms|_s)?|timestamp with time zone",
    "date": r"date",
    "time": r"time",
    "binary": r"blob|binary|bytea",
}


@dataclass
class Draft:
    """What was understood so far, in the words of `schema.yaml`, and what was not.

    Attributes:
        of: where it comes from, for the first line.
        notes: rules without a counterpart, one line each.
    """

    of: str
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    rules: list[dict[str, Any]] = field(default_factory=list)
    foreign_keys: list[dict[str, Any]] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    key: list[str] = field(default_factory=list)
    extra_columns: str = "allow"
    notes: list[str] = field(default_factory=list)
    _said: set[str] = field(default_factory=set)
    _taken: set[str] = field(default_factory=set)
    _numbers: dict[str, int] = field(default_factory=dict)

    def column(self, name: str, **default: Any) -> dict[str, Any]:
        """The column's rules so far, begun with the defaults of the other tool."""
        return self.columns.setdefault(name, dict(default))

    def note(self, text: str) -> None:
        """Keeps a rule that has no counterpart."""
        line = redact(_CONTROL.sub(" ", text))
        self.notes.append(line if len(line) <= _LONGEST_NOTE else line[: _LONGEST_NOTE - 1] + "…")

    def rule(self, name: str, expression: str, *, columns: list[str], mostly: float = 1.0, severity: str = "") -> None:
        """A condition over rows that hold all the columns; the same one twice is one."""
        found: dict[str, Any] = {"name": name, "expression": expression}
        if columns:
            found["where"] = " AND ".join(f"{quote(column)} IS NOT NULL" for column in columns)
        if mostly < 1:
            found["mostly"] = mostly
        if severity:
            found["severity"] = severity
        said = repr(found)
        if said in self._said:
            return
        self._said.add(said)
        number, unique = self._numbers.get(name, 1), name
        while unique in self._taken:
            number += 1
            unique = f"{name} ({number})"
        self._numbers[name] = number
        self._taken.add(unique)
        self.rules.append({**found, "name": unique})

    def foreign_key(self, name: str, file: str, key: str, *, severity: str = "") -> None:
        """A column whose values must be in a column of another file; the same one twice is one."""
        found: dict[str, Any] = {"columns": [name], "file": file, "key": [key]}
        if severity:
            found["severity"] = severity
        if found not in self.foreign_keys:
            self.foreign_keys.append(found)

    def bound(
        self, name: str, low: Any, high: Any, *, strict_low: bool = False, strict_high: bool = False, **more: Any
    ) -> None:
        """A range; bounds that are excluded become conditions, since `min` and `max` are inclusive."""
        column = self.column(name)
        for key, value, strict, sign in (("min", low, strict_low, ">"), ("max", high, strict_high, "<")):
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
                self.note(f"{name}: {key} {value!r} is no number")
            elif strict:
                self.rule(f"{name} {sign} {value}", f"{quote(name)} {sign} {value!r}", columns=[name], **more)
            elif math.isfinite(value):
                column[key] = value

    def type(self, name: str, given: str) -> None:
        """The column's type, from another tool's or database's name for it."""
        kind = type_of(given)
        if kind:
            self.column(name)["type"] = kind
        else:
            self.note(f"{name}: type {given}")

    def text(self) -> str:
        """The schema as YAML, with what was not understood as comments; it can be read by :func:`parse_schema`."""
        import yaml

        columns = {name: self._settled(name, rules) for name, rules in self.columns.items()}
        document: dict[str, Any] = {"version": 1}
        if self.rows:
            document["rows"] = self.rows
        if self.key and all(columns.get(name, {}).get("nulls", 1.0) == 0.0 for name in self.key):
            document["key"] = self.key
        elif self.key:
            self.note(f"unique together: {', '.join(self.key)} (here, a key is never missing)")
        document["extra_columns"] = self.extra_columns
        if self.rules:
            document["rules"] = self.rules
        if self.foreign_keys:
            document["foreign_keys"] = self.foreign_keys
        document["columns"] = columns
        lines = [
            f"# Imported from {_CONTROL.sub(' ', self.of)}. Read it once: what one tool leaves open, another decides."
        ]
        if self.notes:
            lines.append(f"# {len(self.notes)} without a counterpart here, or with one of another meaning:")
            lines += [f"#   {note}" for note in self.notes]
        body = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=math.inf, default_flow_style=None)
        text = "\n".join(lines) + "\n" + body
        parse_schema(text)
        return text

    def _settled(self, name: str, rules: dict[str, Any]) -> dict[str, Any]:
        """The column's rules, without those that contradict each other, which become notes."""
        rules = dict(rules)
        for key in (*_GIVEN_UP_FIRST, *rules):
            problem = _problem(rules)
            if problem is None:
                return rules
            if key in rules:
                self.note(f"{name}: {key} {rules.pop(key)!r} ({problem})")
        return rules


def type_of(given: str) -> str:
    """The schema's name of a type by which another tool or a database calls it; empty when it has none."""
    base = re.sub(r"[\[(<].*", "", given.strip().lower()).strip()
    return next((kind for kind, names in _TYPES.items() if re.fullmatch(names, base)), "")


def _problem(rules: dict[str, Any]) -> str | None:
    try:
        Column.model_validate(rules)
    except ValidationError as error:
        return error.errors()[0]["msg"].removeprefix("Value error, ")
    return None
