"""The packages that a lock or requirements file pins."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mlcicd.core.errors import InputError

_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*(?:==\s*([A-Za-z0-9.!+_-]+))?")
_MAX_BYTES = 32 << 20


@dataclass(frozen=True, order=True)
class Package:
    """A package by its normalised name (PEP 503); `version` is empty when nothing pins it."""

    name: str
    version: str = ""

    @property
    def purl(self) -> str:
        """Its package URL (https://github.com/package-url/purl-spec, type pypi)."""
        return f"pkg:pypi/{self.name}" + (f"@{self.version.replace('+', '%2B')}" if self.version else "")


def packages_of(files: Iterable[Path]) -> list[Package]:
    """The packages of all files together, by name; of two pins of one package both are given.

    Raises:
        InputError: a file can not be read.
    """
    found: set[Package] = set()
    for path in files:
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise InputError("it is larger than a lock file ever is", where=str(path))
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError("can not read the lock file", where=str(path), why=str(error)) from error
        found.update(_from_toml(text, path) if path.suffix in (".lock", ".toml") else _from_lines(text))
    pinned = {package.name for package in found if package.version}
    return sorted(package for package in found if package.version or package.name not in pinned)


def _from_lines(text: str) -> list[Package]:
    """Requirements files, and the pip and conda parts of an environment file (`- name=1.0`)."""
    packages = []
    for line in text.splitlines():
        bare = line.split("#", 1)[0].strip().removeprefix("- ").strip()
        bare = re.sub(r"^([\w.-]+)=(?!=)", r"\1==", bare)
        match = _PINNED.match(bare)
        if match and not bare.endswith(":") and ":" not in bare.split(";")[0].split("==")[0]:
            packages.append(Package(_normal(match.group(1)), match.group(2) or ""))
    return packages


def _from_toml(text: str, path: Path) -> list[Package]:
    """uv.lock, poetry.lock and pylock.toml: a table a package."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError("the lock file is not TOML", where=str(path), why=str(error)) from error
    tables = [*document.get("package", []), *document.get("packages", [])]
    return [
        Package(_normal(str(table["name"])), str(table.get("version", "")))
        for table in tables
        if isinstance(table, dict) and "name" in table
    ]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
