"""What a version's own servers say about the requests that failed, from their logs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, runtime_checkable

from mlcicd.core.errors import redact

# As the model server logs it: the exception's type and places. Its text may quote a request and is not logged.
_RAISED = re.compile(r"^\S+ \S+ ERROR mlcicd\.server: (the model raised .+)$", re.MULTILINE)
_READ_BYTES = 256 << 10
_LONGEST = 200


@runtime_checkable
class Explaining(Protocol):
    """A target that can say why a version fails."""

    def failure(self, version: str) -> str:
        """What a version's model raises most often, in one line; empty when nothing is known. It never raises."""


def commonest_failure(logs: Iterable[Path]) -> str:
    """The exception that is most often in the ends of these logs, with how often; empty when there is none.

    A log holds what a model prints, too: what is quoted is one line, of printable characters, without secrets, and
    no longer than some 200 of them.
    """
    counts: Counter[str] = Counter()
    for log in logs:
        counts.update(_RAISED.findall(_end(log)))
    if not counts:
        return ""
    ((line, times),) = counts.most_common(1)
    text = redact("".join(c if c.isprintable() else " " for c in line)).strip()
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    return f"{text} ({times} of {counts.total()} failures in its log)"


def _end(log: Path) -> str:
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _READ_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
