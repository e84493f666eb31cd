"""Which files a table is, how they are encoded, and the digest of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from mlcicd.core.digests import digest_file, digest_json
from mlcicd.core.errors import InputError

Format = Literal["parquet", "csv", "jsonl", "arrow"]

_SUFFIXES: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".tsv": "csv",
    ".tsv.gz": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonl.gz": "jsonl",
    ".arrow": "arrow",
    ".feather": "arrow",
}
_GLOB = frozenset("*?[")


def matching_files(path: Path) -> tuple[Path, ...]:
    """A file, the Parquet files of a directory, or what a glob matches; sorted. Raises InputError for none."""
    if path.is_dir():
        found = sorted(file for file in path.rglob("*.parquet") if file.is_file())
        if not found:
            raise InputError("no Parquet files in the directory", where=str(path))
    elif not path.exists() and _GLOB.intersection(str(path)):
        found = _expand(path)
        if not found:
            raise InputError("no file matches", where=str(path))
    elif path.is_file():
        found = [path]
    else:
        raise InputError(
            "no such file",
            where=str(path),
            remedy="check the path in the configuration; data kept with DVC has to be pulled (dvc pull)",
        )
    if any(not os.access(file, os.R_OK) for file in found):
        raise InputError("no permission to read it", where=str(path))
    # Absolute, because the engine compares them with its list of allowed paths.
    return tuple(file.resolve() for file in found)


def _expand(pattern: Path) -> list[Path]:
    parts = pattern.parts
    first = next(i for i, part in enumerate(parts) if _GLOB.intersection(part))
    root = Path(*parts[:first]) if first else Path()
    return sorted(file for file in root.glob(str(Path(*parts[first:]))) if file.is_file())


def format_of(file: Path) -> Format:
    """How a file is encoded, by its name. Raises InputError for an unknown suffix."""
    name = file.name.lower()
    for suffix, file_format in _SUFFIXES.items():
        if name.endswith(suffix):
            return file_format
    raise InputError(
        f"unknown kind of file {file.suffix or file.name!r}",
        where=str(file),
        remedy=f"use one of {', '.join(_SUFFIXES)}",
    )


def refuse_duplicates(names: Sequence[str], where: object) -> None:
    """Raises InputError when two columns have one name, compared without regard to case."""
    # Case does not tell columns apart in SQL, nor on the file systems and warehouses the data goes to next.
    twice = [name for name, count in Counter(name.lower() for name in names).items() if count > 1 and name]
    if twice:
        raise InputError(
            f"duplicate column {twice[0]!r} (compared without regard to case)",
            where=str(where),
            why="A rule about one of them could be checked on the other.",
            remedy="rename or drop one of the columns where the file is written",
        )


def digest_files(files: Sequence[Path]) -> str:
    """`sha256:` digest of a file's bytes, or of the relative paths and bytes of several."""
    if len(files) == 1:
        return digest_file(files[0])
    root = Path(os.path.commonpath(files))
    return digest_json([(file.relative_to(root).as_posix(), digest_file(file)) for file in files])
