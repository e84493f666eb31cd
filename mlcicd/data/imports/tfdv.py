"""TensorFlow Data Validation: a schema in protobuf's text format (`schema.pbtxt`), read without TensorFlow.

The grammar is that of protobuf's text format language specification, as far as a schema uses it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from mlcicd.core.errors import InputError
from mlcicd.data.imports.draft import Draft

Message = dict[str, list[Any]]

_TOKEN = re.compile(
    r"""\s+|\#[^\n]*                                   # nothing
    | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    | (?P<name>[A-Za-z_][\w.]*)
    | (?P<number>[+-]?(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|inf|nan)[fF]?)
    | (?P<mark>[{}<>:;,\[\]-])
    """,
    re.VERBOSE,
)
_DEEPEST = 50
_TYPES = {"INT": "int", "FLOAT": "float", "BYTES": "string"}
_GONE = ("DEPRECATED", "DISABLED", "PLANNED", "ALPHA", "DEBUG_ONLY")


def read(draft: Draft, text: str) -> None:
    """Adds the features of a schema.

    Raises:
        InputError: it is not protobuf's text format.
    """
    schema = parse(text)
    domains = {_one(domain, "name"): domain for domain in schema.get("string_domain", [])}
    for feature in schema.get("feature", []):
        _feature(draft, feature, domains)
    for name in schema:
        if name not in ("feature", "string_domain", "default_environment"):
            draft.note(f"{name}: {len(schema[name])}")


def _feature(draft: Draft, feature: Message, domains: dict[Any, Message]) -> None:
    name = str(_one(feature, "name", ""))
    if _one(feature, "deprecated") == "true" or _one(feature, "lifecycle_stage") in _GONE:
        draft.note(f"{name}: {_one(feature, 'lifecycle_stage', 'deprecated')}")
        return
    presence = _one(feature, "presence", {})
    column = draft.column(name)
    if not presence:
        # Nothing is said of its presence: it need not be there.
        column["required"] = False
    column["nulls"] = round(1.0 - float(_one(presence, "min_fraction", 0.0)), 9)
    several = any(float(_one(_one(feature, "value_count", {}), key, 1)) > 1 for key in ("min", "max"))
    kind = _one(feature, "type", "")
    if several:
        column["type"] = "list"
    elif kind in _TYPES:
        column["type"] = _TYPES[kind]
    _domain(draft, name, column, feature, domains)
    mass = _one(_one(feature, "distribution_constraints", {}), "min_domain_mass")
    if mass is not None and float(mass) > 0:
        column["mostly"] = float(mass)
    if _one(feature, "unique_constraints"):
        draft.note(f"{name}: unique_constraints")
    for key in ("skew_comparator", "drift_comparator", "not_in_environment", "in_environment"):
        if key in feature:
            draft.note(f"{name}: {key}; see data.checks.drift of mlcicd.yaml" if "comp" in key else f"{name}: {key}")


def _domain(draft: Draft, name: str, column: dict[str, Any], feature: Message, domains: dict[Any, Message]) -> None:
    named = _one(feature, "domain")
    texts = domains.get(named) if named is not None else _one(feature, "string_domain")
    if texts:
        column["in"] = [str(value) for value in texts.get("value", [])]
        if not column["in"]:
            del column["in"]
    for key in ("int_domain", "float_domain"):
        domain = _one(feature, key)
        if domain:
            draft.bound(name, _number(domain, "min"), _number(domain, "max"))
            if _one(domain, "is_categorical") == "true":
                draft.note(f"{name}: its numbers are categories")
    truth = _one(feature, "bool_domain")
    if truth is not None:
        members = [str(_one(truth, key)) for key in ("true_value", "false_value") if _one(truth, key) is not None]
        if column.get("type") == "string" and members:
            column["in"] = members
        else:
            column |= {"min": 0, "max": 1}


def _number(message: Message, key: str) -> int | float | None:
    value = _one(message, key)
    if value is None:
        return None
    number = float(value)
    return int(number) if number.is_integer() and "." not in str(value) else number


def _one(message: Any, key: str, default: Any = None) -> Any:
    values = message.get(key) if isinstance(message, dict) else None
    return values[-1] if values else default


def parse(text: str) -> Message:
    """A message in text format: field name to its values, in order; nested messages are of the same shape.

    Strings are decoded, numbers and enumerators stay text.

    Raises:
        InputError: it is not the text format, or nested more than 50 deep.
    """
    tokens = list(_tokens(text))
    message, end = _message(tokens, 0, "", 0)
    if end != len(tokens):
        raise _wrong(tokens, end)
    return message


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    position, line = 0, 1
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise InputError(f"line {line} is not protobuf's text format", why=repr(text[position : position + 40]))
        if found.lastgroup:
            yield found.lastgroup, found.group(), line
        line += found.group().count("\n")
        position = found.end()


def _message(tokens: list[tuple[str, str, int]], at: int, closing: str, depth: int) -> tuple[Message, int]:
    if depth > _DEEPEST:
        raise InputError(f"messages are nested more than {_DEEPEST} deep")
    message: Message = {}
    while at < len(tokens):
        kind, value, _ = tokens[at]
        if closing and value == closing:
            return message, at + 1
        if kind == "mark" and value in ",;":
            at += 1
            continue
        if kind != "name":
            raise _wrong(tokens, at)
        at += 1
        colon = at < len(tokens) and tokens[at][1] == ":"
        values, at = _values(tokens, at + colon, depth)
        message.setdefault(value, []).extend(values)
    if closing:
        raise InputError(f"the text ends before {closing!r}: it was cut off")
    return message, at


def _values(tokens: list[tuple[str, str, int]], at: int, depth: int) -> tuple[list[Any], int]:
    if at >= len(tokens):
        raise InputError("the text ends in the middle of a field: it was cut off")
    kind, value, _ = tokens[at]
    if value in ("{", "<"):
        nested, at = _message(tokens, at + 1, "}" if value == "{" else ">", depth + 1)
        return [nested], at
    if value == "[":
        found: list[Any] = []
        at += 1
        while at < len(tokens) and tokens[at][1] != "]":
            if tokens[at][1] == ",":
                at += 1
                continue
            one, at = _values(tokens, at, depth)
            found += one
        return found, at + 1
    if kind == "string":
        text = ""
        while at < len(tokens) and tokens[at][0] == "string":  # neighbours are one string
            text += _decoded(tokens[at][1][1:-1])
            at += 1
        return [text], at
    if value == "-" and at + 1 < len(tokens):
        return ["-" + tokens[at + 1][1]], at + 2
    if kind in ("name", "number"):
        return [value.rstrip("fF") if kind == "number" and not value.lower().startswith("0x") else value], at + 1
    raise _wrong(tokens, at)


_ESCAPE = re.compile(rb"\\([0-7]{1,3}|x[0-9a-fA-F]{1,2}|u[0-9a-fA-F]{4}|.)", re.DOTALL)
_SIMPLE = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}


def _decoded(text: str) -> str:
    """Escapes name bytes, of which UTF-8 text is made."""

    def one(found: re.Match[bytes]) -> bytes:
        what = found.group(1)
        if what[:1] in b"01234567":
            return bytes([int(what, 8) & 0xFF])
        if what[:1] == b"x" and len(what) > 1:
            return bytes([int(what[1:], 16)])
        if what[:1] == b"u" and len(what) > 1:
            return chr(int(what[1:], 16)).encode("utf-8", "replace")
        return _SIMPLE.get(what, what)

    return _ESCAPE.sub(one, text.encode("utf-8", "replace")).decode("utf-8", "replace")


def _wrong(tokens: list[tuple[str, str, int]], at: int) -> InputError:
    _, value, line = tokens[min(at, len(tokens) - 1)]
    return InputError(f"line {line} is not protobuf's text format", why=f"unexpected {value[:40]!r}")
