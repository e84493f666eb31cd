"""Values of parameter files, as `dvc.lock` remembers them."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from mlcicd.core.digests import digest_file
from mlcicd.core.errors import InputError

MISSING = object()


def load_params(path: Path) -> Any:
    """The content of a YAML, JSON or TOML file.

    Raises:
        InputError: it can not be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        raise InputError("this parameter file can not be read", where=str(path), why=str(error)) from error


def value_at(params: Any, key: str) -> Any:
    """The value at a dotted key; `MISSING` when there is none."""
    if isinstance(params, dict) and key in params:
        return params[key]
    for part in key.split("."):
        if isinstance(params, dict) and part in params:
            params = params[part]
        elif isinstance(params, list) and part.isdigit() and int(part) < len(params):
            params = params[int(part)]
        else:
            return MISSING
    return params


def same_value(now: Any, then: Any) -> bool:
    """Whether two values are one to DVC, whose YAML reads `1e-3` as a number where ours reads text."""
    if isinstance(now, dict) and isinstance(then, dict):
        return now.keys() == then.keys() and all(same_value(now[key], then[key]) for key in now)
    if isinstance(now, list) and isinstance(then, list):
        return len(now) == len(then) and all(map(same_value, now, then))
    if isinstance(now, bool) or isinstance(then, bool):
        return now is then
    if now == then:
        return True
    try:
        return float(now) == float(then)
    except (TypeError, ValueError):
        return False


def chosen_values(path: Path, keys: Sequence[str] | None) -> Any:
    """The values that are read of a file, for a digest: of these keys, or of all of it."""
    if not path.is_file():
        return None
    if keys is None or path.suffix == ".py":
        return digest_file(path)
    params = load_params(path)
    return [[key, None if (value := value_at(params, key)) is MISSING else value] for key in keys]
