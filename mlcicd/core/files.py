"""Files that are either whole or not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlcicd.core.errors import ServiceError


def write_atomic(path: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """Writes a file so that a crash at any instruction leaves the old content or the new, never part of it.

    Raises:
        ServiceError: the disk is full, read-only, or the directory can not be made.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(mode)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ServiceError(
            f"could not write the file ({error.strerror or error})",
            where=str(path),
            remedy="check free space and permissions, then run the same command again",
        ) from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock for as long as the block runs; the kernel drops it when the process dies."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock right now."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


@contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """Holds a lock while the block runs, or says at once that somebody else holds it.

    Raises:
        ServiceError: another process is in such a block.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServiceError(
                f"{what} is running here", where=str(path), remedy="wait until it has ended, then run this again"
            ) from None
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)
