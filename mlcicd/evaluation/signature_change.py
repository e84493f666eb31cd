"""What a new model's signature breaks for those who call the old one. Read from MLmodel files: nothing is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlcicd.core.errors import ConfigError, InputError
from mlcicd.core.yaml_lines import read_yaml

# MLflow converts these when it checks an input against the signature, without losing anything.
_SAFE = {("integer", "long"), ("integer", "double"), ("float", "double")}
_PARTS = ("inputs", "outputs", "params")


@dataclass(frozen=True)
class Column:
    """One input, output or parameter: its name (its place, if it has none), and its type as comparable text."""

    name: str
    kind: str
    required: bool = True


@dataclass(frozen=True)
class Signature:
    """The columns by part; None where the file says nothing about that part."""

    inputs: tuple[Column, ...] | None = None
    outputs: tuple[Column, ...] | None = None
    params: tuple[Column, ...] | None = None

    @property
    def empty(self) -> bool:
        return self.inputs is None and self.outputs is None


@dataclass(frozen=True)
class Changes:
    """What breaks callers, and what is different without breaking any."""

    breaking: tuple[str, ...]
    compatible: tuple[str, ...]


def read_signature(model: Path) -> Signature:
    """The signature of an MLflow model directory; an empty one when it has none.

    Raises:
        InputError: there is no MLmodel file, or it can not be understood.
    """
    try:
        data = read_yaml(model / "MLmodel", file="MLmodel", environ={}, interpolate=False).data
    except ConfigError as error:
        raise InputError(error.what, where=str(model / "MLmodel")) from error
    signature = data.get("signature")
    if signature is None:
        return Signature()
    if not isinstance(signature, Mapping):
        raise InputError("the signature is not a mapping", where=str(model / "MLmodel"))
    try:
        return Signature(**{part: _columns(signature.get(part), part) for part in _PARTS})
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError("the signature can not be read", where=str(model / "MLmodel"), why=str(error)) from error


def _columns(text: Any, part: str) -> tuple[Column, ...] | None:
    if text is None:
        return None
    listed = json.loads(text) if isinstance(text, str) else text
    if not isinstance(listed, list):
        raise ValueError(f"{part} is not a list")
    found = tuple(_column(item, place) for place, item in enumerate(listed))
    names = [column.name for column in found]
    if len(set(names)) != len(names):
        raise ValueError(f"{part} has the same name twice")
    return found


def _column(item: Any, place: int) -> Column:
    if not isinstance(item, Mapping):
        raise ValueError(f"{item!r} is no column")
    name = item.get("name")
    shown = f"#{place + 1}" if name is None else str(name)
    # MLflow before 2.6 wrote `optional`, later ones `required`.
    required = bool(item.get("required", not item.get("optional", False)))
    rest = {k: v for k, v in item.items() if k not in ("name", "required", "optional", "default")}
    kind = str(rest["type"]) if set(rest) == {"type"} else json.dumps(rest, sort_keys=True)
    if item.get("type") == "tensor" and isinstance(item.get("tensor-spec"), Mapping):
        spec = item["tensor-spec"]
        kind = f"tensor of {spec.get('dtype')}, shape {spec.get('shape')}"
    return Column(shown, kind, required)


def compare(champion: Signature, candidate: Signature) -> Changes:
    """What changes for callers who know the champion."""
    breaking: list[str] = []
    compatible: list[str] = []
    if champion.inputs is not None:
        _inputs(champion.inputs, candidate.inputs, breaking, compatible)
    if champion.outputs is not None:
        _outputs(champion.outputs, candidate.outputs, breaking)
    _params(champion.params or (), candidate.params or (), breaking, compatible)
    return Changes(tuple(breaking), tuple(compatible))


def _inputs(old: Sequence[Column], new: Sequence[Column] | None, breaking: list[str], compatible: list[str]) -> None:
    if new is None:
        breaking.append("the candidate does not say any more which inputs it takes")
        return
    before, after = {c.name: c for c in old}, {c.name: c for c in new}
    gone = [c for c in old if c.name not in after]
    added = [c for c in new if c.name not in before]
    for column in gone:
        like = next((c for c in added if c.kind == column.kind and _place(new, c) == _place(old, column)), None)
        if like is not None:
            added.remove(like)
            breaking.append(f"the input {column.name!r} is gone, and {like.name!r} is in its place (renamed?)")
        else:
            breaking.append(f"the input {column.name!r} is gone")
    for column in added:
        if column.required:
            breaking.append(f"the input {column.name!r} ({column.kind}) is new and required")
        else:
            compatible.append(f"the input {column.name!r} is new and optional")
    for name in before.keys() & after.keys():
        was, now = before[name], after[name]
        if was.kind != now.kind:
            safe = (was.kind, now.kind) in _SAFE
            (compatible if safe else breaking).append(f"the input {name!r} was {was.kind} and is {now.kind}")
        if now.required and not was.required:
            breaking.append(f"the input {name!r} was optional and is required")
        elif was.required and not now.required:
            compatible.append(f"the input {name!r} is optional now")


def _place(columns: Sequence[Column], column: Column) -> int:
    return list(columns).index(column)


def _outputs(old: Sequence[Column], new: Sequence[Column] | None, breaking: list[str]) -> None:
    if new is None:
        breaking.append("the candidate does not say any more what it answers")
        return
    before, after = {c.name: c.kind for c in old}, {c.name: c.kind for c in new}
    breaking.extend(f"the output {name!r} is gone" for name in before if name not in after)
    breaking.extend(f"the output {name!r} ({kind}) is new" for name, kind in after.items() if name not in before)
    breaking.extend(
        f"the output {name!r} was {before[name]} and is {after[name]}"
        for name in before
        if name in after and before[name] != after[name]
    )


def _params(old: Sequence[Column], new: Sequence[Column], breaking: list[str], compatible: list[str]) -> None:
    before, after = {c.name: c.kind for c in old}, {c.name: c.kind for c in new}
    for name, kind in before.items():
        if name not in after:
            breaking.append(f"the parameter {name!r} is gone")
        elif after[name] != kind:
            breaking.append(f"the parameter {name!r} was {kind} and is {after[name]}")
    # A parameter always has a default, so nobody has to send it.
    compatible.extend(f"the parameter {name!r} is new" for name in after if name not in before)
