"""Where a rollout's state is kept: one document that one process at a time may write.

Three things keep two jobs from treading on each other. A *lease* in the document says who works on it, and until
when; a dead holder on the same machine is seen to be dead, and elsewhere its lease ends. Each lease has a higher
*fencing token* than the last, so that a process that slept through its lease finds its token outdated and can write
no more. And every write is a *compare-and-swap* on the document's revision.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mlcicd.core.digests import digest_bytes
from mlcicd.core.errors import InputError, MlcicdError, ServiceError
from mlcicd.core.files import locked, write_atomic

LEASE_S = 300.0
_POLL_S = 0.2


class Superseded(ServiceError):
    """Another process has taken the rollout over, or written to it in between: nothing was written."""


class Cell(Protocol):
    """One text with compare-and-swap: all that a new place for the state has to bring."""

    where: str

    def read(self) -> str | None:
        """The text; None when there is none."""

    def swap(self, old: str | None, new: str) -> None:
        """Writes `new` if the text is still `old`.

        Raises:
            Superseded: it is not.
        """


class FileCell:
    """A file, written whole, with the kernel's lock on a file beside it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.where = str(path)

    def read(self) -> str | None:
        try:
            return self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise InputError("the rollout's state can not be read", where=self.where, why=str(error)) from error

    def swap(self, old: str | None, new: str) -> None:
        with locked(self._path.with_suffix(".lock")):
            if self.read() != old:
                raise Superseded("the rollout was written to by another process in between", where=self.where)
            write_atomic(self._path, new, mode=0o600)


class Tags(Protocol):
    """Named texts of a few kB each, such as the tags of a registered model's version."""

    def all(self) -> Mapping[str, str]: ...

    def set(self, tags: Mapping[str, str]) -> None: ...


class TagCell:
    """Tags in a registry: the next job finds them wherever it runs.

    The text is packed into pieces under names of their own, and then one tag is set that names them: a reader sees
    the old text or the new. A registry has no compare-and-swap, so the one tag is read again after it was set; two
    writers within the same second are told apart by that, and otherwise by the lease.
    """

    PIECE = 4500
    SETS = 2

    def __init__(self, tags: Tags, prefix: str, *, where: str = "") -> None:
        self._tags = tags
        self._prefix = prefix
        self.where = where

    def read(self) -> str | None:
        return self._unpack(self._tags.all())

    def swap(self, old: str | None, new: str) -> None:
        tags = self._tags.all()
        if self._unpack(tags) != old:
            raise Superseded("the rollout was written to by another process in between", where=self.where)
        head = json.loads(tags.get(self._prefix, "null") or "null")
        packed = base64.b85encode(gzip.compress(new.encode(), mtime=0)).decode()
        # Two sets of pieces in turn: the one that the head names is never written to.
        turn = (head["turn"] + 1) % self.SETS if head else 0
        pieces = [packed[i : i + self.PIECE] for i in range(0, len(packed), self.PIECE)]
        self._tags.set({f"{self._prefix}.{turn}.{i}": piece for i, piece in enumerate(pieces)})
        mark = {
            "turn": turn,
            "pieces": len(pieces),
            "digest": digest_bytes(packed.encode()),
            "by": secrets.token_hex(8),
        }
        self._tags.set({self._prefix: json.dumps(mark)})
        if self._tags.all().get(self._prefix) != json.dumps(mark):
            raise Superseded("another process wrote to the rollout at the same moment", where=self.where)

    def _unpack(self, tags: Mapping[str, str]) -> str | None:
        head = tags.get(self._prefix)
        if not head:
            return None
        try:
            mark = json.loads(head)
            packed = "".join(tags[f"{self._prefix}.{mark['turn']}.{i}"] for i in range(mark["pieces"]))
            if digest_bytes(packed.encode()) != mark["digest"]:
                raise ValueError("its pieces do not fit together")
            return gzip.decompress(base64.b85decode(packed)).decode()
        except (ValueError, KeyError, TypeError, OSError, EOFError) as error:
            raise InputError("the rollout's state can not be read", where=self.where, why=str(error)) from error


@dataclass
class Hold:
    """The document for as long as its lease is held."""

    _cell: Cell
    _text: str
    _envelope: dict[str, Any]

    @property
    def document(self) -> dict[str, Any] | None:
        document: dict[str, Any] | None = self._envelope["rollout"]
        return document

    @property
    def token(self) -> int:
        """Higher than every token before it."""
        return int(self._envelope["token"])

    def save(self, document: dict[str, Any]) -> None:
        """Writes the document.

        Raises:
            Superseded: the lease ended and somebody else has taken it. Then nothing is written, and the caller
                has no business to move any weight.
        """
        self._write({**self._envelope, "rollout": document})

    def release(self) -> None:
        self._write({**self._envelope, "lease": None})

    def _write(self, envelope: dict[str, Any]) -> None:
        text = json.dumps(envelope, separators=(",", ":"), allow_nan=False)
        self._cell.swap(self._text, text)
        self._text, self._envelope = text, envelope


class Store:
    """A rollout's state in a cell."""

    def __init__(self, cell: Cell, *, lease_s: float = LEASE_S, clock: Callable[[], float] = time.time) -> None:
        self._cell = cell
        self._lease_s = lease_s
        self._clock = clock
        self._holder = _this_process()
        self._id = secrets.token_hex(8)

    def read(self) -> dict[str, Any] | None:
        """The document as it stands, without a lease; None when there is none.

        Raises:
            InputError: what is there is not a rollout's state.
        """
        document: dict[str, Any] | None = self._open(self._cell.read())["rollout"]
        return document

    def discard(self) -> None:
        """Replaces whatever is there, readable or not, by nothing."""
        self._cell.swap(self._cell.read(), json.dumps({"token": int(self._clock()), "lease": None, "rollout": None}))

    @contextmanager
    def hold(self, *, wait_s: float = 60.0) -> Iterator[Hold]:
        """Takes the lease, waiting for another holder, and gives it back.

        Raises:
            ServiceError: somebody else held it for the whole of `wait_s`.
        """
        hold = self._acquire(wait_s)
        try:
            yield hold
        except BaseException:
            # Given back if it is still ours; the first error is the one to be told.
            with suppress(MlcicdError):
                hold.release()
            raise
        hold.release()

    def _acquire(self, wait_s: float) -> Hold:
        deadline = time.monotonic() + wait_s
        while True:
            text = self._cell.read()
            envelope = self._open(text)
            lease = envelope["lease"]
            # A lease of our own that is found here was left by a signal that came between writing it and knowing of it.
            ours = lease is not None and lease.get("by") == self._id
            if lease is None or ours or lease["until"] <= self._clock() or _dead(lease["holder"]):
                taken = {
                    "token": int(envelope["token"]) + 1,
                    "lease": {"holder": self._holder, "by": self._id, "until": self._clock() + self._lease_s},
                    "rollout": envelope["rollout"],
                }
                new = json.dumps(taken, separators=(",", ":"), allow_nan=False)
                try:
                    self._cell.swap(text, new)
                    return Hold(self._cell, new, taken)
                except Superseded:
                    # Somebody was quicker; they will be done soon.
                    lease = {"holder": "another process"}
            if time.monotonic() > deadline:
                raise ServiceError(
                    "another process is working on this rollout",
                    where=self._cell.where,
                    why=f"It is held by {lease['holder']}.",
                    remedy="wait for it to end; a lease that nobody renews ends by itself",
                )
            time.sleep(_POLL_S)

    def _open(self, text: str | None) -> dict[str, Any]:
        if text is None:
            return {"token": 0, "lease": None, "rollout": None}
        try:
            envelope = json.loads(text)
            int(envelope["token"])
            if envelope["lease"] is not None:
                float(envelope["lease"]["until"])
                str(envelope["lease"]["holder"])
            return {key: envelope[key] for key in ("token", "lease", "rollout")}
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                "the rollout's state is damaged",
                where=self._cell.where,
                why=str(error),
                remedy="run `mlcicd canary abort`: it takes the canary out of the traffic and forgets the rollout",
            ) from error


def _this_process() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def _dead(holder: str) -> bool:
    """Whether a holder was a process of this machine that has ended. One on another machine is never known to be."""
    host, _, rest = holder.rpartition(":")[0].rpartition(":")
    pid, started = rest, holder.rpartition(":")[2]
    if host != socket.gethostname() or not pid.isdigit():
        return False
    return _started(int(pid)) != started


def _started(pid: int) -> str:
    """When a process started, in the system's own unit, which tells it from a later one with its id; empty: none."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return ""
        return "" if fields[0] in ("Z", "X") else fields[19]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "running"
    return "running"
