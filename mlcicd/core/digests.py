"""Content digests, in the form `sha256:<hex>` everywhere."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from mlcicd.core.errors import InputError

_CHUNK = 1 << 20


def digest_bytes(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def digest_json(value: Any) -> str:
    """Digest of a JSON value, independent of key order."""
    return digest_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode())


def digest_file(path: Path) -> str:
    """Digest of a file's bytes.

    Raises:
        InputError: the file is missing or can not be read.
    """
    sha = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                sha.update(chunk)
    except OSError as error:
        raise InputError(f"can not read it ({error.strerror})", where=str(path)) from error
    return f"sha256:{sha.hexdigest()}"


def digest_tree(path: Path) -> str:
    """Digest of a file, or of a directory's relative paths and contents, independent of listing order.

    Every file counts, bytecode too: what is not in the digest could be changed unseen. Symbolic links inside a
    directory are refused, because what they name is not part of it.

    Raises:
        InputError: nothing is there, or there is a link.
    """
    if path.is_file():
        return digest_file(path)
    if not path.is_dir():
        raise InputError("no such file or directory", where=str(path))
    entries = []
    for file in sorted(path.rglob("*")):
        relative = file.relative_to(path)
        if file.is_symlink():
            raise InputError(
                "a symbolic link stands in the directory",
                where=str(file),
                why="A digest of the directory could not speak for what the link names.",
                remedy="put the file itself there",
            )
        if file.is_dir():
            continue
        entries.append((relative.as_posix(), digest_file(file)))
    return digest_json(entries)
