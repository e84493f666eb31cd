"""YAML that remembers where each key stood, and refuses what YAML would silently accept."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mlcicd.core.errors import ConfigError, InputError

_MAX_BYTES = 1 << 20
_MAX_DEPTH = 50
_VARIABLE = re.compile(r"\$(?:\$|\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})")
# YAML 1.1 reads 1e-3 as text, because it wants a dot in a float; people do not.
_FLOAT = re.compile(r"^[-+]?\d+[eE][-+]?\d+$")

_SCALARS = frozenset({"str", "int", "float", "bool", "null", "timestamp"})

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """A parsed file: its data, and the line (from 1) of each key and list item."""

    data: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)
    file: str = ""

    def line(self, path: KeyPath) -> int | None:
        """The line of the key, or of the nearest key above it that is in the file; the first line for none."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return 1 if self.lines else None


def read_yaml(path: Path, *, file: str, environ: Mapping[str, str], interpolate: bool = True) -> Document:
    """Reads a YAML mapping; `${NAME}` and `${NAME:-default}` in its values come from `environ`, `$$` is a dollar.

    Args:
        interpolate: false leaves `$` in values alone, for files that are not ours.

    Raises:
        InputError: there is no such file.
        ConfigError: not YAML, not a mapping, a duplicate key, an alias, too deep, too large, or a variable is unset.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            "there is no configuration here",
            file=file,
            remedy="run `mlcicd init`, or name the folder with --working-directory",
        ) from None
    except OSError as error:
        raise InputError(f"can not read it ({error.strerror})", where=file) from error
    if len(raw) > _MAX_BYTES:
        raise ConfigError(f"it is larger than {_MAX_BYTES} bytes", file=file)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError("it is not UTF-8 text", file=file, line=line, remedy="save it as UTF-8") from error
    return parse_yaml(text, file=file, environ=environ if interpolate else None)


def parse_yaml(text: str, *, file: str, environ: Mapping[str, str] | None = None) -> Document:
    """Reads a YAML mapping from its text.

    Args:
        file: its name, for messages.
        environ: variables for `${NAME}` in values; None leaves `$` alone, for files that are not ours.

    Raises:
        ConfigError: not YAML, not a mapping, a duplicate key, an alias, too deep, or a variable is unset.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(
            f"not valid YAML: {error.problem or error.context}", file=file, line=mark.line + 1 if mark else None
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"not valid YAML: {str(error).splitlines()[0]}", file=file) from error
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError("it must be a mapping of keys to values", file=file, line=1)
    reader = _Reader(file, environ)
    data = reader.read(node, ())
    return Document(data, reader.lines, file)


class _Reader:
    def __init__(self, file: str, environ: Mapping[str, str] | None) -> None:
        self.file = file
        self.environ = environ
        self.lines: dict[KeyPath, int] = {}
        self._seen: set[int] = set()
        self._scalar: Callable[[yaml.ScalarNode], Any] = yaml.SafeLoader("").construct_object

    def read(self, node: yaml.Node, path: KeyPath) -> Any:
        line = node.start_mark.line + 1
        if len(path) > _MAX_DEPTH:
            raise ConfigError(f"nested deeper than {_MAX_DEPTH} levels", file=self.file, line=line)
        if id(node) in self._seen:
            raise ConfigError(
                "YAML aliases (*name) are not read here", file=self.file, line=line, remedy="write the value out"
            )
        self._seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                self.lines[(*path, index)] = item.start_mark.line + 1
                items.append(self.read(item, (*path, index)))
            return items
        assert isinstance(node, yaml.ScalarNode)
        return self._value(node, line)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError("a key must be plain text", file=self.file, line=line)
            key = str(key_node.value)
            if key in result:
                first = self.lines[(*path, key)]
                raise ConfigError(f"the key {key!r} is here twice (first on line {first})", file=self.file, line=line)
            self.lines[(*path, key)] = line
            result[key] = self.read(value_node, (*path, key))
        return result

    def _value(self, node: yaml.ScalarNode, line: int) -> Any:
        if node.tag == "tag:yaml.org,2002:str":
            if node.style is None and _FLOAT.match(node.value):
                return float(node.value)
            return node.value if self.environ is None else self._interpolate(node.value, line)
        if node.tag.rpartition(":")[2] not in _SCALARS or not node.tag.startswith("tag:yaml.org,2002:"):
            raise ConfigError(f"the tag {node.tag!r} is not read here", file=self.file, line=line)
        try:
            return self._scalar(node)
        except (ValueError, yaml.YAMLError) as error:
            raise ConfigError(f"{node.value!r} can not be read: {error}", file=self.file, line=line) from error

    def _interpolate(self, text: str, line: int) -> str:
        def replace(match: re.Match[str]) -> str:
            name, default = match.group(1), match.group(2)
            if name is None:
                return "$"
            # As in a shell, `:-` means: unset or empty.
            value = (self.environ or {}).get(name, "")
            if value:
                return value
            if default is not None:
                return default
            raise ConfigError(
                f"the environment variable {name} is not set",
                file=self.file,
                line=line,
                remedy=f"set it, or give a default: ${{{name}:-value}}",
            )

        return _VARIABLE.sub(replace, text)


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
