"""dbt: the tests of one model in a properties file (`schema.yml`), with those of dbt_utils and dbt_expectations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mlcicd.core.errors import ConfigError
from mlcicd.core.yaml_lines import nearest
from mlcicd.data.imports import great_expectations
from mlcicd.data.imports.draft import Draft
from mlcicd.data.source import quote

_KINDS = ("models", "sources", "seeds", "snapshots")
# ref('kinds'), ref('package', 'kinds', v=2), source('shop', 'kinds'), each with or without braces around it.
_RELATION = re.compile(
    r"""(?:ref|source)\s*\((?:\s*['"][^'"]*['"]\s*,)?\s*['"]([^'"]+)['"]\s*(?:,\s*v\w*\s*=[^)]*)?\)"""
)


def read(
    draft: Draft, document: Mapping[str, Any], *, model: str = "", tables: Mapping[str, str] | None = None
) -> None:
    """Adds the tests of a model.

    Args:
        model: which of several.
        tables: the files (relative to the schema) of the models that `relationships` name.

    Raises:
        ConfigError: there are several models and none is named, or not that one.
    """
    chosen = _chosen(document, model)
    for column in chosen.get("columns") or []:
        name = str(column["name"])
        rules = draft.column(name, nulls=1.0)
        if column.get("description"):
            rules["description"] = str(column["description"])
        if column.get("data_type"):
            draft.type(name, str(column["data_type"]))
        for test in _tests(column):
            if test[0] == "relationships":
                _relationship(draft, name, test[1], tables or {})
            else:
                _column_test(draft, name, rules, *test)
    for kind, given in _tests(chosen):
        _model_test(draft, kind, given)


def _chosen(document: Mapping[str, Any], model: str) -> Mapping[str, Any]:
    found: dict[str, Mapping[str, Any]] = {}
    for kind in _KINDS:
        for item in document.get(kind) or []:
            tables = item.get("tables") if kind == "sources" else [item]
            found.update({str(one["name"]): one for one in tables or []})
    if not model and len(found) == 1:
        return next(iter(found.values()))
    if model in found:
        return found[model]
    raise ConfigError(
        f"there is no model {model!r} in this file{nearest(model, found)}" if model else "there are several models",
        remedy=f"name one with --model: {', '.join(found) or 'there is none in this file'}",
    )


def _tests(holder: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    for test in holder.get("data_tests") or holder.get("tests") or []:
        if isinstance(test, str):
            found.append((test, {}))
            continue
        given = dict(test)
        kind = str(given.pop("test_name", "") or next(iter(given)))
        own = given.pop(kind, None)
        arguments = dict(own) if isinstance(own, Mapping) else {}
        arguments |= given
        # Since dbt 1.10 a test's own settings stand under `arguments`.
        nested = arguments.pop("arguments", None)
        found.append((kind, {**arguments, **(nested or {})}))
    return found


def _config(given: Mapping[str, Any], key: str) -> Any:
    return given.get(key) or (given.get("config") or {}).get(key)


def _relationship(draft: Draft, name: str, given: Mapping[str, Any], tables: Mapping[str, str]) -> None:
    """A foreign key where the other table's file is known; missing values are looked at neither here nor there."""
    to = str(given.get("to", ""))
    found = _RELATION.search(to)
    other = found[1] if found else to
    field = str(given.get("field", ""))
    if _config(given, "where") or not field:
        draft.note(f"{name}: relationships {_short(given)}")
    elif other not in tables:
        draft.note(f"{name}: relationships to {other}, field {field}: say its file with --table {other}=FILE")
    else:
        warns = str(_config(given, "severity") or "").lower() == "warn"
        draft.foreign_key(name, tables[other], field, severity="warn" if warns else "")


def _column_test(draft: Draft, name: str, rules: dict[str, Any], kind: str, given: dict[str, Any]) -> None:
    if _config(given, "where"):
        draft.note(f"{name}: {kind} where {_config(given, 'where')}")
        return
    if str(_config(given, "severity") or "").lower() == "warn":
        draft.note(f"{name}: {kind} is only a warning there")
    if kind == "not_null":
        rules["nulls"] = 0.0
    elif kind == "unique":
        rules["unique"] = True
    elif kind == "accepted_values":
        rules["in"] = list(given.get("values") or [])
    elif kind == "dbt_utils.accepted_range":
        inclusive = given.get("inclusive", True)
        draft.bound(
            name, given.get("min_value"), given.get("max_value"), strict_low=not inclusive, strict_high=not inclusive
        )
    elif kind == "dbt_utils.not_null_proportion" and "at_least" in given:
        rules["nulls"] = round(1.0 - float(given["at_least"]), 9)
    elif kind == "dbt_utils.expression_is_true" and given.get("expression"):
        expression = f"{quote(name)} {given['expression']}"
        draft.rule(f"{name} {given['expression']}", expression, columns=[name])
    elif kind.startswith("dbt_expectations."):
        _expectation(draft, kind, {"column": name, **given})
    else:
        draft.note(f"{name}: {kind} {_short(given)}")


def _model_test(draft: Draft, kind: str, given: dict[str, Any]) -> None:
    if _config(given, "where"):
        draft.note(f"{kind} where {_config(given, 'where')}")
    elif kind == "dbt_utils.expression_is_true" and given.get("expression"):
        # A row for which it is NULL does not fail there.
        draft.rule(str(given["expression"]), f"coalesce(({given['expression']}), true)", columns=[])
    elif kind == "dbt_utils.unique_combination_of_columns" and not draft.key:
        draft.key = [str(name) for name in given.get("combination_of_columns") or []]
    elif kind.startswith("dbt_expectations."):
        _expectation(draft, kind, given)
    else:
        draft.note(f"{kind} {_short(given)}")


def _expectation(draft: Draft, kind: str, given: dict[str, Any]) -> None:
    named = {"strictly": None, "column_type": "type_", "column_type_list": "type_list"}
    arguments = {named.get(key) or key: value for key, value in given.items() if key not in ("strictly", "config")}
    if given.get("strictly"):
        arguments |= {"strict_min": True, "strict_max": True}
    expectation = {"type": kind.removeprefix("dbt_expectations."), "kwargs": arguments}
    great_expectations.read(draft, {"expectations": [expectation]})


def _short(given: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in given.items() if key != "config")
