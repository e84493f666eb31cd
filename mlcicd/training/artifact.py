"""The model directory of a project: putting a model there, and comparing two."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from mlcicd.core.digests import digest_file

# What `save_model` writes anew each time, whatever the model is.
_VOLATILE = re.compile(rb"^(\s*)(utc_time_created|model_uuid|model_id|run_id|model_size_bytes):.*$", re.MULTILINE)


def put_model(source: Path, target: Path) -> None:
    """Makes `target` a copy of a model directory; it is the old one or the new one, never half of one."""
    fresh, old = target.with_name(f".{target.name}.new"), target.with_name(f".{target.name}.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(source, fresh)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def differing_files(one: Path, other: Path) -> list[str]:
    """Relative paths of the files that differ between two model directories.

    Times and identifiers, which MLflow writes anew into each `MLmodel`, are no difference.
    """
    files = {path.relative_to(base).as_posix() for base in (one, other) for path in base.rglob("*") if path.is_file()}
    return sorted(name for name in files if not _same(one / name, other / name))


def _same(one: Path, other: Path) -> bool:
    if not (one.is_file() and other.is_file()):
        return False
    if one.name == "MLmodel":
        return _VOLATILE.sub(b"", one.read_bytes()) == _VOLATILE.sub(b"", other.read_bytes())
    return digest_file(one) == digest_file(other)
