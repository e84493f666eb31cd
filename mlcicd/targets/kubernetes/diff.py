"""What applying would change, as the API server itself sees it."""

from __future__ import annotations

import difflib
from typing import Any

import yaml

Object = dict[str, Any]
# The server's own bookkeeping.
_OWN = ("managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "selfLink")


def object_diff(before: Object | None, after: Object) -> list[str]:
    """A unified diff of an object's YAML; no line when applying changes nothing. Values of Secrets are not shown."""
    name = f"{after['kind']}/{after['metadata']['name']}"
    old, new = _lines(before), _lines(after)
    return [
        line.rstrip("\n")
        for line in difflib.unified_diff(old, new, f"{name} (cluster)", f"{name} (to apply)", lineterm="\n", n=2)
    ]


def removal_diff(before: Object) -> list[str]:
    """The same for an object that is to be removed."""
    name = f"{before['kind']}/{before['metadata']['name']}"
    return [
        line.rstrip("\n")
        for line in difflib.unified_diff(_lines(before), [], f"{name} (cluster)", f"{name} (to remove)", n=2)
    ]


def _lines(one: Object | None) -> list[str]:
    if one is None:
        return []
    shown = {key: value for key, value in one.items() if key != "status"}
    shown["metadata"] = {key: value for key, value in one["metadata"].items() if key not in _OWN}
    if one["kind"] == "Secret":
        for key in ("data", "stringData"):
            if key in shown:
                shown[key] = dict.fromkeys(shown[key], "***")
    return yaml.safe_dump(shown, sort_keys=True, width=110).splitlines(keepends=True)
