"""Archives and compressed files, opened within bounds: nothing is written to a place that a member names."""

from __future__ import annotations

import bz2
import io
import lzma
import mmap
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from mlcicd.supply_chain.pickles import Data

_CHUNK = 1 << 20
_IN_MEMORY = 64 << 20
# A file may unpack to this much whatever its size, and beyond it to this many times its size.
_FREE = 256 << 20
_RATIO = 200
_TOTAL = 16 << 30
_MEMBERS = 100_000
_HEAD = 1 << 16
_LOCAL = struct.Struct("<4s5H3I2H")
_ENCRYPTED = 0x1
_BROKEN_ZIP = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    ValueError,
    EOFError,
    OSError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
)


class Hostile(Exception):
    """The container is broken, or made to do harm."""


@dataclass
class Budget:
    """How much may be unpacked in one scan, in bytes and members."""

    left: int = _TOTAL
    members: int = _MEMBERS

    def take(self, unpacked: int, packed: int, sofar: int) -> None:
        self.left -= unpacked
        if self.left < 0 or (sofar > _FREE and sofar > _RATIO * max(packed, 1)):
            raise Hostile(f"it unpacks to more than {_RATIO} times its size: a decompression bomb")

    def member(self) -> None:
        self.members -= 1
        if self.members < 0:
            raise Hostile(f"it has more than {_MEMBERS:,} members")


class _Decompressor(Protocol):
    unused_data: bytes

    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


@dataclass
class _Spool:
    """Unpacked bytes, on disk when they are many."""

    budget: Budget
    packed: int
    file: Any = field(default_factory=lambda: tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY))  # noqa: SIM115
    size: int = 0

    def __enter__(self) -> _Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, data: bytes) -> None:
        self.size += len(data)
        self.budget.take(len(data), self.packed, self.size)
        self.file.write(data)

    def data(self) -> Data:
        if self.size <= _IN_MEMORY:
            self.file.seek(0)
            whole: bytes = self.file.read()
            self.file.close()
            return whole
        self.file.flush()
        mapped = mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ)
        self.file.close()
        return mapped


def inflate(data: Data, kind: str, budget: Budget) -> Data:
    """The content of a compressed file (`gzip`, `zlib`, `bz2`, `xz`, `lzma`).

    Raises:
        Hostile: it is cut short, damaged, a bomb, or something stands behind its end.
    """
    position = 0
    try:
        with _Spool(budget, len(data)) as spool:
            while True:
                position = _one_stream(_engine(kind), data, position, spool, kind)
                rest = bytes(data[position : position + 16])
                if not rest.strip(b"\0"):
                    return spool.data()
                if kind not in ("gzip", "bz2", "xz") or not rest.startswith(_MAGIC[kind]):
                    raise Hostile(f"{len(data) - position} bytes stand behind the end of the {kind} stream")
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise Hostile(f"it can not be decompressed ({error})") from error


def _one_stream(engine: Any, data: Data, position: int, spool: _Spool, kind: str) -> int:
    """Decompresses one stream from a position; gives the position behind it."""
    size = len(data)
    pending = b""
    while not engine.eof:
        if kind in ("gzip", "zlib"):
            chunk = pending or bytes(data[position : position + _CHUNK])
            position += 0 if pending else len(chunk)
            if not chunk:
                raise Hostile("it ends in the middle")
            spool.write(engine.decompress(chunk, 4 * _CHUNK))
            pending = engine.unconsumed_tail
        else:
            chunk = bytes(data[position : position + _CHUNK]) if engine.needs_input else b""
            if engine.needs_input and not chunk:
                raise Hostile("it ends in the middle")
            position += len(chunk)
            spool.write(engine.decompress(chunk, 4 * _CHUNK))
    return min(size, position) - len(engine.unused_data)


_MAGIC = {"gzip": b"\x1f\x8b", "bz2": b"BZh", "xz": b"\xfd7zXZ\0"}


def _engine(kind: str) -> Any:
    if kind == "gzip":
        return zlib.decompressobj(31)
    if kind == "zlib":
        return zlib.decompressobj()
    if kind == "bz2":
        return bz2.BZ2Decompressor()
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ if kind == "xz" else lzma.FORMAT_ALONE)


def zip_members(data: Data, budget: Budget, plain: Callable[[str, bytes], bool]) -> Iterator[tuple[str, Data]]:
    """Name and content of each member.

    Args:
        plain: told the name and the first bytes of an uncompressed member, whether it is numbers only; those are not
            given, so that a large model is not copied.

    Raises:
        Hostile: a member's name leaves the archive, is there twice, or differs between directory and member; it is
            encrypted, linked, damaged, or something stands before or behind the archive.
    """
    try:
        with zipfile.ZipFile(_Mapped(data)) as archive:
            entries = archive.infolist()
            _whole(data, archive, entries)
            seen: set[str] = set()
            for entry in entries:
                budget.member()
                if entry.filename in seen:
                    raise Hostile(f"the member {entry.filename!r} is there twice")
                seen.add(entry.filename)
                if entry.is_dir():
                    continue
                content = _zip_member(data, archive, entry, budget, plain)
                if content is not None:
                    yield entry.filename, content
    except _BROKEN_ZIP as error:
        raise Hostile(f"it is no whole zip archive ({error})") from error


class _Mapped(io.RawIOBase):
    """A mapped file as a stream; `mmap` itself lacks part of that interface before Python 3.13."""

    def __init__(self, data: Data) -> None:
        self._data = data
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._data)}[whence]
        if base + offset < 0:
            raise ValueError("before the beginning")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        part = self._data[self._position : self._position + len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)


def zip_names(data: Data) -> set[str]:
    """The names of a zip archive's members.

    Raises:
        Hostile: it is no zip archive that can be read.
    """
    try:
        with zipfile.ZipFile(_Mapped(data)) as archive:
            return set(archive.namelist())
    except _BROKEN_ZIP as error:
        raise Hostile(f"it is no whole zip archive ({error})") from error


def _whole(data: Data, archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo]) -> None:
    first = min((entry.header_offset for entry in entries), default=0)
    if entries and first != 0:
        raise Hostile("something stands before the zip archive: another reader may see another file")
    if len(data) - data.rfind(b"PK\x05\x06") != 22 + len(archive.comment):
        raise Hostile("something stands behind the zip archive")


def _zip_member(
    data: Data, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, budget: Budget, plain: Callable[[str, bytes], bool]
) -> Data | None:
    safe_name(entry.filename)
    if (entry.external_attr >> 16) & 0o170000 == 0o120000:
        raise Hostile(f"the member {entry.filename!r} is a symbolic link")
    if entry.flag_bits & _ENCRYPTED:
        raise Hostile(f"the member {entry.filename!r} is encrypted")
    header = _LOCAL.unpack_from(data, entry.header_offset)
    start = entry.header_offset + _LOCAL.size
    local = bytes(data[start : start + header[9]])
    if header[0] != b"PK\x03\x04" or local != entry.orig_filename.encode("utf-8" if header[2] & 0x800 else "cp437"):
        raise Hostile(f"the member {entry.filename!r} has another name in its own header")
    if header[3] != entry.compress_type:
        raise Hostile(f"the member {entry.filename!r} has another compression in its own header")
    if entry.compress_type == zipfile.ZIP_STORED and entry.file_size == entry.compress_size:
        start += header[9] + header[10]
        if plain(entry.filename, bytes(data[start : start + min(_HEAD, entry.file_size)])):
            return None
        return _stored(data, entry, start, budget)
    with _Spool(budget, entry.compress_size) as spool, archive.open(entry) as member:
        while chunk := member.read(_CHUNK):
            spool.write(chunk)
        return spool.data()


def _stored(data: Data, entry: zipfile.ZipInfo, start: int, budget: Budget) -> Data:
    """An uncompressed member: its bytes are those of the archive, and only its checksum is to be proven."""
    content = bytes(data[start : start + entry.file_size])
    budget.take(len(content), len(content), 0)
    if len(content) != entry.file_size or zlib.crc32(content) != entry.CRC:
        raise Hostile(f"the member {entry.filename!r} is damaged")
    return content


def tar_members(data: Data, budget: Budget) -> Iterator[tuple[str, Data]]:
    """Name and content of each file of a tar archive.

    Raises:
        Hostile: a member's name leaves the archive, or it is a link, a device, or damaged.
    """
    try:
        with tarfile.open(fileobj=_Mapped(data), mode="r:") as archive:
            for member in archive:
                budget.member()
                safe_name(member.name)
                if member.isdir():
                    continue
                if not member.isreg():
                    raise Hostile(f"the member {member.name!r} is a link or a device")
                file = archive.extractfile(member)
                assert file is not None
                with _Spool(budget, len(data)) as spool:
                    while chunk := file.read(_CHUNK):
                        spool.write(chunk)
                    if spool.size != member.size:
                        raise Hostile("it ends in the middle")
                    content = spool.data()
                yield member.name, content
    except (tarfile.TarError, ValueError, EOFError, OSError) as error:
        raise Hostile(f"it is no whole tar archive ({error})") from error


def safe_name(name: str) -> None:
    """Refuses a member's name that leads out of the folder it would be unpacked into.

    Raises:
        Hostile: it does.
    """
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\", "~")) or ".." in parts or ":" in parts[0] or "\0" in name:
        raise Hostile(f"the member {name!r} would be written outside of the folder it is unpacked into")
