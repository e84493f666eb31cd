"""What a stage says while it works. The library says nothing unless it is given somewhere to say it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Where a stage reports what it is doing."""

    def step(self, message: str) -> None:
        """Something worth a line: the stage has begun or finished a part of its work."""

    def output(self, line: str) -> None:
        """A line of a child process, without its newline."""


class Silent:
    """Says nothing: the default of the library."""

    def step(self, message: str) -> None:
        """Drops it."""

    def output(self, line: str) -> None:
        """Drops it."""


SILENT = Silent()
