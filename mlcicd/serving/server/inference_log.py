"""The inference log: what was asked and answered, one JSON object a line, for labels to be joined to later.

The threads that serve only put a request's bytes in a bounded queue; parsing, redaction and writing happen in
a thread of its own. When it can not keep up, records are dropped and counted: it never holds a request up.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import os
import queue
import re
import threading
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .invocations import FORMATS, media_type
from .signature import by_column

MAX_QUEUED = 4096
MAX_QUEUED_BYTES = 32 << 20

_DELIMITERS = re.compile(r"[,;|\t]")

log = logging.getLogger("mlcicd.server")


@dataclass(frozen=True)
class Entry:
    """An answered request as it came and went; `time` in seconds since the epoch."""

    request_id: str
    time: float
    protocol: str
    status: int
    content_type: str
    body: bytes
    answer: bytes

    @property
    def size(self) -> int:
        return len(self.body) + len(self.answer)


class InferenceLog:
    """Writes a sample of the requests to a file that only its owner may read.

    Args:
        path: the file; older ones are kept beside it as `NAME.1` (the newest) to `NAME.KEEP`.
        model, version: written with each record.
        sample: the part of the requests that is written, 0 to 1, decided by the request's id: all replicas,
            and a retry, decide alike.
        redact: columns of inputs and answers that never reach the disk. A request that does not name its
            columns, or where it is not certain which value belongs to which, is then written without its inputs.
            Case, blanks and invisible characters of a name do not count.
        max_mb: a file of this size is put aside.
        keep: how many files are kept beside the current one.
    """

    def __init__(
        self, path: Path, *, model: str, version: str, sample: float, redact: Sequence[str], max_mb: float, keep: int
    ) -> None:
        self._path = path
        self._model = model
        self._version = version
        self._sample = sample
        self._redact = frozenset(map(_plain, redact))
        self._max_bytes = int(max_mb * 1_000_000)
        self._keep = keep
        self._queue: queue.Queue[Entry | None] = queue.Queue(MAX_QUEUED)
        self._queued_bytes = 0
        self._lock = threading.Lock()
        self.written = 0
        self.dropped = 0
        self._file = self._open()
        self._thread = threading.Thread(target=self._run, name="inference-log", daemon=True)
        self._thread.start()

    def wants(self, request_id: str) -> bool:
        """Whether the request belongs to the sample."""
        if self._sample >= 1.0:
            return True
        digest = hashlib.blake2b(request_id.encode("utf-8", "replace"), digest_size=8).digest()
        return int.from_bytes(digest, "big") < self._sample * 2.0**64

    def add(self, entry: Entry) -> None:
        """Takes an entry to be written, or drops it: at once either way."""
        with self._lock:
            if self._queued_bytes + entry.size > MAX_QUEUED_BYTES:
                self.dropped += 1
                return
            self._queued_bytes += entry.size
        try:
            self._queue.put_nowait(entry)
        except queue.Full:
            self._taken(entry, dropped=True)

    def close(self, timeout_s: float = 5.0) -> None:
        """Writes what waits, for at most this long."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                self._queue.put(None, timeout=0.1)
                break
            except queue.Full:
                continue
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def _taken(self, entry: Entry, *, dropped: bool) -> None:
        with self._lock:
            self._queued_bytes -= entry.size
            if dropped:
                self.dropped += 1
            else:
                self.written += 1

    def _run(self) -> None:
        complained = False
        while True:
            entry = self._queue.get()
            if entry is None:
                self._file.close()
                return
            try:
                self._write((json.dumps(self._record(entry)) + "\n").encode())
            except Exception as error:
                # Its text may hold a value of the request.
                if not complained:
                    log.error("the inference log can not be written: %s", type(error).__name__)
                complained = True
                self._taken(entry, dropped=True)
            else:
                complained = False
                self._taken(entry, dropped=False)

    def _record(self, entry: Entry) -> dict[str, Any]:
        asked = datetime.fromtimestamp(entry.time, timezone.utc)  # noqa: UP017  (Python 3.9)
        record: dict[str, Any] = {
            "request_id": entry.request_id,
            "time": asked.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "model": self._model,
            "version": self._version,
            "status": entry.status,
        }
        if entry.status == 200:
            record["inputs"] = self._inputs(entry)
            record["answer"] = self._without_redacted(_answer(entry))
        return record

    def _inputs(self, entry: Entry) -> Any:
        """The values by column; of a request that is no table its body, unless something is to be redacted."""
        values = _values(entry)
        if values is None:
            return None if self._redact else _body(entry)
        if self._redact and _is_csv(entry) and not any(map(self._is_redacted, values)):
            # Whether the first line really holds names, only a name that is known can tell.
            return None
        return self._without_redacted({name: list(items) for name, items in values.items()})

    def _is_redacted(self, name: str) -> bool:
        # A table that was read with another delimiter than its own has several names in one.
        return any(_plain(part) in self._redact for part in (name, *_DELIMITERS.split(name)))

    def _without_redacted(self, value: Any) -> Any:
        if not self._redact:
            return value
        if isinstance(value, dict):
            return {key: self._without_redacted(item) for key, item in value.items() if not self._is_redacted(key)}
        if isinstance(value, list):
            return [self._without_redacted(item) for item in value]
        return value

    def _write(self, line: bytes) -> None:
        if self._file.tell() and self._file.tell() + len(line) > self._max_bytes:
            self._rotate()
        self._file.write(line)
        self._file.flush()

    def _rotate(self) -> None:
        self._file.close()
        try:
            for number in range(self._keep, 0, -1):
                newer = self._path if number == 1 else self._numbered(number - 1)
                if newer.exists():
                    newer.replace(self._numbered(number))
            if self._keep == 0:
                self._path.unlink()
        finally:
            self._file = self._open()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _open(self) -> Any:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(self._path, flags, 0o600)
        os.fchmod(descriptor, 0o600)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            # A server that was killed while it wrote left half a line.
            os.write(descriptor, b"\n")
        return os.fdopen(descriptor, "ab")


def _values(entry: Entry) -> dict[str, Sequence[Any]] | None:
    """The values of a request by column, of whatever format; None if it is no table with names."""
    if _is_csv(entry):
        return _csv_values(_text(entry))
    payload = json.loads(entry.body)
    if entry.protocol == "v2":
        tensors = payload["inputs"]
        if len(tensors) == 1 and len(tensors[0]["shape"]) > 1:
            return None
        return {tensor["name"]: tensor["data"] for tensor in tensors}
    form = next(form for form in FORMATS if form in payload)
    table = by_column(form, payload[form])
    return None if table is None else table[0]


def _plain(name: str) -> str:
    """A name without what the eye does not see, or takes for the same."""
    seen = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in seen if c.isprintable() and not c.isspace() and c not in "'\"")


def _is_csv(entry: Entry) -> bool:
    # The Open Inference Protocol is JSON, whatever the header says.
    return entry.protocol != "v2" and media_type(entry.content_type) == "text/csv"


def _text(entry: Entry) -> str:
    return entry.body.decode("utf-8-sig")


def _body(entry: Entry) -> Any:
    return _text(entry) if _is_csv(entry) else json.loads(entry.body)


def _csv_values(text: str) -> dict[str, Sequence[Any]] | None:
    """The cells by column; None where pandas, which reads the request, may see other columns.

    Cells beyond the header move its names to other columns there, and names that repeat are numbered.
    """
    rows = [row for row in csv.reader(io.StringIO(text)) if row]
    names = rows[0] if rows else []
    # A first line of blanks is no header there.
    if not any(map(_plain, names)) or len(set(names)) != len(names) or any(len(row) != len(names) for row in rows):
        return None
    return dict(zip(names, map(list, zip(*rows[1:]))))  # noqa: B905  (Python 3.9)


def _answer(entry: Entry) -> Any:
    answer = json.loads(entry.answer)
    if entry.protocol == "v2":
        return {output["name"]: output["data"] for output in answer["outputs"]}
    return answer["predictions"]
