"""No CI host at all: a laptop, or a CI system without commands of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from mlcicd.ci.host import LEVELS, Annotation, CommentResult, Level
from mlcicd.ci.limits import one_line


class PlainHost:
    """Prints what a person should see. Outputs and summaries have no reader here; the verdict holds both."""

    name = "plain"

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def outputs(self, values: Mapping[str, str]) -> None:
        """Nothing to do: no later step reads them."""

    def summary(self, markdown: str) -> None:
        """Nothing to do: the terminal has shown the verdict already."""

    def summary_room(self) -> int | None:
        return None

    def annotate(self, level: Level, title: str, message: str, *, file: str = "", line: int | None = None) -> None:
        self.annotate_all([Annotation(level, title, message, file, line)])

    def annotate_all(self, annotations: Iterable[Annotation]) -> None:
        for annotation in sorted(annotations, key=lambda a: LEVELS.index(a.level)):
            self._print(annotation_line(annotation))

    def log(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._print(line)

    def mask(self, value: str) -> None:
        """Nothing to do: nobody else reads this log."""

    @contextmanager
    def group(self, title: str) -> Iterator[None]:
        self._print(one_line(title))
        yield

    @contextmanager
    def stop_commands(self) -> Iterator[None]:
        yield

    def is_pull_request(self) -> bool:
        return False

    def comment(self, markdown: str, *, key: str = "report") -> CommentResult:
        return CommentResult(posted=False, reason="there is no pull request here")

    def _print(self, line: str) -> None:
        print(line, file=self._stream or sys.stderr, flush=True)


def annotation_line(annotation: Annotation) -> str:
    """`error: mlcicd.yaml:12: Unknown key: ...`"""
    place = annotation.file and (
        f"{annotation.file}:{annotation.line}: " if annotation.line else f"{annotation.file}: "
    )
    title = f"{annotation.title}: " if annotation.title else ""
    return one_line(f"{annotation.level}: {place}{title}{annotation.message}")
