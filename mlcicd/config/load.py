"""From a folder to a :class:`Project`: the file read, checked, and its paths resolved."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from mlcicd.config.model import Config
from mlcicd.core.digests import digest_json
from mlcicd.core.errors import ConfigError, InputError, learn_secret, learn_secrets
from mlcicd.core.yaml_lines import Document, KeyPath, nearest, read_yaml

FILE_NAME = "mlcicd.yaml"
T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True)
class Project:
    """A user's project: its root folder, its configuration (after `profile`), and where things are kept."""

    root: Path
    config: Config
    document: Document
    digest: str
    environ: Mapping[str, str] = field(repr=False, default_factory=dict)
    profile: str = ""

    @property
    def state(self) -> Path:
        """The folder of verdicts and evidence."""
        return self.root / ".mlcicd"

    @property
    def model_cache(self) -> Path:
        """The folder of verified copies of models, by digest."""
        return self.state / "cache" / "models"

    def verdict_path(self, stage: str) -> Path:
        return self.state / "verdicts" / f"{stage}.json"

    def path(self, relative: str, key: KeyPath = ()) -> Path:
        """A path from the configuration, which must exist.

        Raises:
            InputError: nothing is there; the error names the line that asks for it.
        """
        path = self.root / relative
        if not path.exists():
            line = self.document.line(key)
            raise InputError(
                f"{relative} does not exist",
                where=f"{FILE_NAME}:{line}" if line else FILE_NAME,
                why=f"It is named by {'.'.join(map(str, key))}." if key else "",
                remedy="make it (for example with `dvc repro` or `dvc pull`), or correct the path",
            )
        return path

    @property
    def tracking_uri(self) -> str:
        """The tracking URI, with a relative SQLite path made absolute, so that every process means the same file."""
        uri = self.config.tracking.uri
        prefix = "sqlite:///"
        if uri.startswith(prefix) and not uri.startswith("sqlite:////"):
            return prefix + str((self.root / uri.removeprefix(prefix)).resolve())
        return uri

    @property
    def artifact_location(self) -> str | None:
        """Where a new experiment keeps its artifacts; None leaves it to the tracking server."""
        configured = self.config.tracking.artifacts
        if configured:
            return configured if "://" in configured else (self.root / configured).resolve().as_uri()
        if self.tracking_uri.startswith("sqlite:///"):
            return (Path(self.tracking_uri.removeprefix("sqlite:///")).parent / "mlartifacts").as_uri()
        return None

    @property
    def python(self) -> str:
        """The interpreter that the user's code runs in.

        `python` of the configuration; else, in an action's private environment, the first Python on PATH, which is
        the workflow's own; else the one that runs us.

        Raises:
            ConfigError: none is found.
        """
        configured = self.config.python or self.environ.get("MLCICD_PYTHON", "")
        if configured:
            found = shutil.which(configured) or shutil.which(str(self.root / configured))
            if not found:
                raise ConfigError(
                    f"there is no interpreter {configured!r}",
                    file=FILE_NAME,
                    line=self.document.line(("python",)),
                    remedy="name one that is on PATH, or a path relative to the project",
                )
            return found
        if self.environ.get("MLCICD_PRIVATE_ENV"):
            found = shutil.which("python", path=self.environ.get("PATH")) or shutil.which(
                "python3", path=self.environ.get("PATH")
            )
            if found:
                return found
        return sys.executable


def load_project(root: str | Path = ".", *, profile: str = "", environ: Mapping[str, str] | None = None) -> Project:
    """Loads the project in a folder.

    Args:
        root: the folder that holds `mlcicd.yaml`.
        profile: name under `profiles` whose values override the file's.
        environ: variables for `${NAME}`; the process's own when None.

    Raises:
        ConfigError: the file is missing, or something in it is wrong; the error names the line and the nearest key.
    """
    environ = dict(os.environ) if environ is None else dict(environ)
    learn_secrets(environ)
    root = Path(root).resolve()
    document = read_yaml(root / FILE_NAME, file=FILE_NAME, environ=environ)
    data = document.data
    if profile:
        profiles = data.get("profiles") or {}
        if profile not in profiles:
            raise ConfigError(
                f"there is no profile {profile!r}{_nearest(profile, list(profiles))}",
                file=FILE_NAME,
                line=document.line(("profiles",)),
            )
        data = _merge(data, profiles[profile])
    config = validate(Config, data, document)
    for name in _named_variables(config.model_dump(mode="json")):
        learn_secret(environ.get(name, ""))
    digest = digest_json(config.model_dump(mode="json", exclude={"profiles"}))
    return Project(root, config, document, digest, environ, profile)


def _named_variables(value: object) -> Iterator[str]:
    """The environment variables that the configuration names by a key `..._env`: a token, or a URL that holds one."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, str) and str(key).endswith("_env"):
                yield inner
            else:
                yield from _named_variables(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _named_variables(inner)


def validate(model: type[T], data: dict[str, Any], document: Document) -> T:
    """Checks data against a model; the first thing that is wrong is raised with its line, the others follow it.

    Raises:
        ConfigError: something is wrong.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = [_problem(model, item, document) for item in error.errors(include_url=False)]
        (line, first), others = problems[0], problems[1:]
        why = "\n".join(f"{document.file}:{line or 1}: {text}" for line, text in others)
        raise ConfigError(first, file=document.file, line=line, why=why) from None


def _problem(model: type[BaseModel], item: Any, document: Document) -> tuple[int | None, str]:
    path: KeyPath = tuple(item["loc"])
    shown = ".".join(str(part) for part in path) or "the file"
    line = document.line(path)
    kind = item["type"]
    if kind == "extra_forbidden":
        known = _keys_at(model, path[:-1])
        return line, f"unknown key {shown!r}{_nearest(str(path[-1]), known)}"
    if kind == "missing":
        return line, f"{shown} is missing"
    message = item["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    given = item.get("input")
    if isinstance(given, bool):
        message += f" (YAML reads {'yes/on/true' if given else 'no/off/false'} as a truth value: quote the text)"
    elif isinstance(given, str | int | float):
        message += f" (it is {given!r})"
    return line, f"{shown}: {message}"


def _keys_at(model: type[BaseModel], path: KeyPath) -> list[str]:
    """The keys that are allowed at a place of the model."""
    schema = model.model_json_schema(by_alias=True)
    node: dict[str, Any] = schema
    for part in path:
        node = _resolve(schema, node)
        if isinstance(part, int):
            node = node.get("items", {})
        else:
            node = node.get("properties", {}).get(part) or node.get("additionalProperties") or {}
    return list(_resolve(schema, node).get("properties", {}))


def _resolve(schema: dict[str, Any], node: Any) -> dict[str, Any]:
    if not isinstance(node, dict):
        return {}
    for choice in node.get("anyOf", []):
        if choice.get("type") != "null":
            return _resolve(schema, choice)
    if "$ref" in node:
        resolved: dict[str, Any] = schema["$defs"][node["$ref"].rpartition("/")[2]]
        return resolved
    return node


def _nearest(name: str, known: list[str]) -> str:
    return nearest(name, known) or (f"; known: {', '.join(known)}" if known else "")


def _merge(base: Any, override: Any) -> Any:
    if isinstance(base, dict) and isinstance(override, dict):
        return {**base, **{key: _merge(base.get(key), value) for key, value in override.items()}}
    return override
