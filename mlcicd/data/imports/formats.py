"""Which tool's rules a file holds, and their import."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlcicd.core.errors import ConfigError, InputError
from mlcicd.core.yaml_lines import parse_yaml
from mlcicd.data.imports import dbt, great_expectations, pandera, tfdv
from mlcicd.data.imports.draft import Draft

FORMATS = ("great-expectations", "pandera", "tfdv", "dbt")
_LARGEST = 50 * 2**20
# What reading a document of another shape than the tool writes ends in.
_DAMAGED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, StopIteration, RecursionError)


def import_schema(path: Path, *, kind: str = "", model: str = "", tables: Mapping[str, str] | None = None) -> str:
    """A `schema.yaml` from another tool's rules; what has no counterpart stands in its first comment.

    Args:
        kind: one of `FORMATS`; found out from the content when empty.
        model: which of several, for dbt.
        tables: for dbt, by model the files (relative to the schema) that its `relationships` are looked up in.

    Raises:
        InputError: it can not be read, or is of none of the formats.
        ConfigError: dbt: the model is not there, or not said.
    """
    text = _text(path)
    suffix = path.suffix.lower()
    if kind == "tfdv" or (not kind and suffix in (".pbtxt", ".textproto", ".txtpb")):
        return _imported(path, "TFDV", lambda draft: tfdv.read(draft, text))
    document = _document(path, text, suffix)
    kind = kind or _kind_of(document)
    if kind == "great-expectations":
        return _imported(path, "Great Expectations", lambda draft: great_expectations.read(draft, document))
    if kind == "pandera":
        return _imported(path, "Pandera", lambda draft: pandera.read(draft, document))
    if kind == "dbt":
        return _imported(path, "dbt", lambda draft: dbt.read(draft, document, model=model, tables=tables))
    raise InputError(
        "this is no suite, schema or properties file that can be imported",
        where=str(path),
        remedy=f"say what it is with --from: {', '.join(FORMATS)}",
    )


def _imported(path: Path, tool: str, read: Any) -> str:
    draft = Draft(f"{path.name} ({tool})")
    try:
        read(draft)
    except (InputError, ConfigError) as error:
        error.where = error.where or str(path)
        raise
    except _DAMAGED as error:
        raise InputError(f"the {tool} file is damaged", where=str(path), why=repr(error)[:200]) from error
    if not (draft.columns or draft.rules or draft.rows):
        raise InputError(
            "there is nothing to import", where=str(path), why="; ".join(draft.notes[:3]), remedy="name another file"
        )
    return draft.text()


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"the file is larger than {_LARGEST >> 20} MiB: this is no file of rules", where=str(path))
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError("no such file", where=str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("the file can not be read", where=str(path), why=str(error)) from error


def _document(path: Path, text: str, suffix: str) -> dict[str, Any]:
    try:
        document = json.loads(text) if suffix == ".json" else parse_yaml(text, file=str(path)).data
    except (ValueError, RecursionError) as error:
        raise InputError("this is not JSON", where=str(path), why=str(error)[:200]) from error
    if not isinstance(document, dict):
        raise InputError("a mapping was expected", where=str(path))
    return document


def _kind_of(document: dict[str, Any]) -> str:
    if "expectations" in document:
        return "great-expectations"
    if "schema_type" in document:
        return "pandera"
    if any(kind in document for kind in ("models", "sources", "seeds", "snapshots")):
        return "dbt"
    return ""
