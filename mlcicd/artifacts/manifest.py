"""The manifest of what is in an artifact repository: each file with its size and SHA-256.

The SHA-256 of the manifest is its address, so that whoever knows the address needs to trust nobody for the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlcicd.core.digests import digest_bytes, digest_file
from mlcicd.core.errors import InputError

MANIFEST = "manifest.json"
FORMAT = "mlcicd-artifacts-1"
# Of a manifest that is read from somewhere: thousands of files fit.
LARGEST_MANIFEST = 16 << 20


@dataclass(frozen=True)
class Manifest:
    """What belongs together.

    Args:
        files: path below the address, with forward slashes, to (size in bytes, `sha256:<hex>`).
        facts: what it is about: names and digests.
    """

    files: Mapping[str, tuple[int, str]]
    facts: Mapping[str, str]

    @property
    def document(self) -> bytes:
        """The one sequence of bytes of this content."""
        files = {
            path: {"sha256": digest.rpartition(":")[2], "size": size} for path, (size, digest) in self.files.items()
        }
        content = {"format": FORMAT, "facts": dict(self.facts), "files": files}
        return (json.dumps(content, sort_keys=True, indent=1) + "\n").encode()

    @property
    def digest(self) -> str:
        return digest_bytes(self.document)


def manifest_of(files: Mapping[str, Path], facts: Mapping[str, str]) -> Manifest:
    """The manifest of files on this machine.

    Raises:
        InputError: a file can not be read, or has a name that no repository could keep as it is.
    """
    found = {}
    for name, path in files.items():
        if not sound(name):
            raise InputError(
                f"an artifact repository can not keep a file of this name: {name!r}",
                where=str(path.parent),
                remedy="rename it: no control characters, no backslashes, no names that are not UTF-8",
            )
        digest = digest_file(path)
        found[name] = (path.stat().st_size, digest)
    return Manifest(found, dict(facts))


def read_manifest(data: bytes, digest: str, where: str) -> Manifest:
    """A manifest as it was read from a repository that is not trusted.

    Raises:
        InputError: it is not the one of this address, or names what no manifest of ours does.
    """
    if digest_bytes(data) != digest:
        raise InputError(
            "the manifest is not the one of this address",
            where=where,
            why=f"Its digest is {digest_bytes(data)}; asked for was {digest}.",
            remedy="somebody changed it, or another program answered: look at the repository, then register again",
        )
    try:
        content = json.loads(data)
        files = {str(path): (int(f["size"]), f"sha256:{f['sha256']}") for path, f in content["files"].items()}
        manifest = Manifest(files, {str(k): str(v) for k, v in content["facts"].items()})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise _strange(where) from None
    if manifest.document != data or not all(sound(path) for path in files):
        raise _strange(where)
    return manifest


def sound(path: Any) -> bool:
    """Whether a path is relative, stays below where it begins, and means the same everywhere."""
    if not isinstance(path, str) or not path or not path.isprintable() or any(c in path for c in "\\:"):
        return False
    return all(part not in ("", ".", "..") for part in path.split("/"))


def _strange(where: str) -> InputError:
    return InputError("this is not a manifest as mlcicd writes them", where=where, remedy="register again")
