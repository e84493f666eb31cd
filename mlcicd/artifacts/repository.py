"""Putting files into an artifact repository so that they are whole, once, and stay as they are.

The files are sent first, each is read back, and the manifest is written last, at an address that is its own SHA-256:
what has no manifest is not there, whatever an upload that was killed has left. What is there already and is right is
not sent again, so that running again goes on where it ended. What is there and is something else is never replaced,
but for the beginning of the very file, which is what a broken upload leaves.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from mlcicd.artifacts.manifest import LARGEST_MANIFEST, MANIFEST, Manifest, manifest_of, read_manifest
from mlcicd.artifacts.stores import Sink, Stop, Store
from mlcicd.core.digests import digest_file
from mlcicd.core.errors import InputError, ServiceError

_ATTEMPTS = 3
_PAUSE_S = 1.0


@dataclass(frozen=True)
class Stored:
    """What was put where. `address` is below the repository's; `sent` and `kept` count files."""

    address: str
    digest: str
    sent: int
    kept: int


class _There(StrEnum):
    SAME = "same"
    MISSING = "missing"
    BEGUN = "begun"
    OTHER = "other"


def address_of(name: str, digest: str) -> str:
    """Where below the repository's address the files of a manifest are."""
    return f"{name}/{digest.rpartition(':')[2]}"


def put(
    store: Store,
    name: str,
    files: Mapping[str, Path],
    facts: Mapping[str, str],
    *,
    say: Callable[[str], object] = lambda text: None,
    sleep: Callable[[float], object] = time.sleep,
) -> Stored:
    """Puts files into the repository, or finds that they are there.

    Args:
        name: of the model; it begins the address.
        files: path below the address to file on this machine.
        facts: what goes into the manifest, too; the same files with the same facts have the same address.

    Raises:
        ServiceError: the repository does not take them, does not answer, or has other content at this address.
        InputError: a file can not be read.
    """
    manifest = manifest_of(files, facts)
    address = address_of(name, manifest.digest)
    with tempfile.TemporaryDirectory(prefix="mlcicd-") as temporary:
        last = Path(temporary, MANIFEST)
        last.write_bytes(manifest.document)
        sent = 0
        for path, source in [*sorted(files.items()), (MANIFEST, last)]:
            size = source.stat().st_size
            if _put_one(store, f"{address}/{path}", source, sleep):
                say(f"sent {path} ({size:,} bytes)")
                sent += 1
    return Stored(address, manifest.digest, sent, len(files) + 1 - sent)


def verify(store: Store, name: str, digest: str) -> Manifest:
    """Reads everything of an address, and compares it with the manifest; keeps nothing.

    Raises:
        InputError: it is not there, not whole, or not what the manifest says.
        ServiceError: the repository does not answer.
    """
    manifest = _manifest(store, name, digest)
    for path, (size, wanted) in manifest.files.items():
        _read(store, f"{address_of(name, digest)}/{path}", size, wanted, lambda: lambda chunk: None)
    return manifest


def fetch(store: Store, name: str, digest: str, target: Path) -> Manifest:
    """Downloads everything of an address into a new folder, which is there whole and proven, or not at all.

    Raises:
        InputError: it is not there, not whole, or not what the manifest says; or the folder exists.
        ServiceError: the repository does not answer, or the disk does not take it.
    """
    if target.exists():
        raise InputError("it is there already", where=str(target), remedy="name a folder that is not")
    manifest = _manifest(store, name, digest)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as temporary:
        folder = Path(temporary, "files")
        try:
            for path, (size, wanted) in manifest.files.items():
                file = folder / path
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("wb") as opened:
                    _read(store, f"{address_of(name, digest)}/{path}", size, wanted, _rewinding(opened))
                if digest_file(file) != wanted:
                    raise ServiceError("the disk did not keep what was written", where=str(target))
            folder.rename(target)
        except OSError as error:
            raise ServiceError(
                f"could not write the files ({error.strerror or error})",
                where=str(target),
                remedy="check free space and permissions, then run the same command again",
            ) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return manifest


def _rewinding(file: Any) -> Callable[[], Sink]:
    def begin() -> Sink:
        file.seek(0)
        file.truncate()
        return file.write  # type: ignore[no-any-return]

    return begin


def _put_one(store: Store, path: str, source: Path, sleep: Callable[[float], object]) -> bool:
    """Sends a file unless it is there; whether it was sent. It has been read back when this returns."""
    there = _compare(store, path, source)
    if there is _There.SAME:
        return False
    for attempt in range(_ATTEMPTS):
        if there is _There.OTHER:
            break
        failure: ServiceError | None = None
        try:
            store.put(path, source, new=there is _There.MISSING)
        except ServiceError as error:
            # Whether it took effect is asked, not taken from the answer: that may have been lost.
            failure = error
        there = _compare(store, path, source)
        if there is _There.SAME:
            return True
        if failure is not None:
            raise failure
        if attempt + 1 < _ATTEMPTS:
            sleep(_PAUSE_S * 2**attempt)
    said = {
        _There.OTHER: "something else stands at this address of the artifact repository",
        _There.MISSING: "the artifact repository took a file and does not have it",
        _There.BEGUN: "the artifact repository took a file and has only its beginning",
    }
    raise ServiceError(
        said[there],
        where=f"{store.shown}/{path}",
        why="The address is made from the content, so that nothing else is ever put there.",
        remedy="see what stands there: a page of a proxy, or what somebody has changed; remove it, then run this again",
    )


def _compare(store: Store, path: str, source: Path) -> _There:
    """What the repository has, beside a file of ours. Bytes are compared, not what the repository says of them."""
    seen = _Comparison(source)
    try:
        found = store.get(path, seen.begin)
        return seen.result() if found else _There.MISSING
    finally:
        seen.close()


class _Comparison:
    """A sink that compares with a file, and stops at the first difference."""

    def __init__(self, source: Path) -> None:
        self._file = source.open("rb")
        self._same = True

    def begin(self) -> Sink:
        self._file.seek(0)
        self._same = True
        return self._take

    def _take(self, chunk: bytes) -> None:
        if self._file.read(len(chunk)) != chunk:
            self._same = False
            raise Stop

    def result(self) -> _There:
        if not self._same:
            return _There.OTHER
        return _There.BEGUN if self._file.read(1) else _There.SAME

    def close(self) -> None:
        self._file.close()


def _manifest(store: Store, name: str, digest: str) -> Manifest:
    path = f"{address_of(name, digest)}/{MANIFEST}"
    data = bytearray()

    def begin() -> Sink:
        data.clear()

        def take(chunk: bytes) -> None:
            data.extend(chunk)
            if len(data) > LARGEST_MANIFEST:
                raise Stop

        return take

    if not store.get(path, begin):
        raise InputError(
            "the artifact repository has no such artifacts, or an upload of them that did not end",
            where=f"{store.shown}/{path}",
            remedy="run `mlcicd register` again, which sends what is missing",
        )
    return read_manifest(bytes(data), digest, f"{store.shown}/{path}")


def _read(store: Store, path: str, size: int, wanted: str, begin: Callable[[], Sink]) -> None:
    """Reads a file through, and proves that it is the one of the manifest."""
    sha = hashlib.sha256()
    count = 0

    def again() -> Sink:
        nonlocal sha, count
        sha, count = hashlib.sha256(), 0
        sink = begin()

        def take(chunk: bytes) -> None:
            nonlocal count
            count += len(chunk)
            if count > size:
                raise Stop
            sha.update(chunk)
            sink(chunk)

        return take

    found = store.get(path, again)
    if not found or count != size or f"sha256:{sha.hexdigest()}" != wanted:
        raise InputError(
            "a file in the artifact repository is not the one of the manifest"
            if found
            else "a file of the manifest is not in the artifact repository",
            where=f"{store.shown}/{path}",
            remedy="somebody changed it; register again, or fetch from the registry",
        )
