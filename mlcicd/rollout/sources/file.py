"""Windows from a file: JSON lines as :mod:`mlcicd.rollout.windows` describes them, or CSV.

A CSV file's columns are the JSON's keys joined by dots: `t`, `share`, `champion.requests`, `champion.errors`,
`canary.requests`, `canary.errors`, and for further rates `champion.rates.<name>.n`, `champion.rates.<name>.x` (and the
same for the canary). An empty cell is a missing number. Histograms need JSON lines.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mlcicd.core.errors import ConfigError, InputError
from mlcicd.rollout.labels import is_cohort, is_promotion
from mlcicd.rollout.sources.base import SourceContext
from mlcicd.rollout.windows import Window

_NUMBERS = ("requests", "errors")


def read_file(path: Path, *, growing: bool = False) -> Iterator[Window]:
    """The windows of a `.csv` file, or of any other as JSON lines, one at a time and in order of time; lines that hold
    late outcomes or a promotion (:mod:`mlcicd.rollout.labels`) are passed over.

    Args:
        path: the file.
        growing: somebody is writing it: a last line without its end is left for later.

    Raises:
        InputError: the file can not be read, or a line (named) is not a window or does not come after the one before.
    """
    last: float | None = None
    for where, value in _objects(path, growing):
        if is_cohort(value) or is_promotion(value):
            continue
        try:
            window = Window.from_json(value)
        except InputError as error:
            raise InputError(error.what, where=where, why=error.why, remedy=error.remedy) from error
        if last is not None and window.t <= last:
            raise InputError(
                f"the window at t={window.t:g} does not come after the one at t={last:g}",
                where=where,
                remedy="sort the windows by time and give each once",
            )
        last = window.t
        yield window


def _objects(path: Path, growing: bool) -> Iterator[tuple[str, Any]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = (line for line in file if line.endswith("\n") or not growing)
            yield from (_rows if path.suffix.lower() == ".csv" else _json_lines)(lines, path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError("can not read the windows", where=str(path), why=str(error)) from error


def _json_lines(lines: Iterator[str], path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield f"{path}:{number}", json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError("this line is not JSON", where=f"{path}:{number}", why=str(error)) from error


def _rows(lines: Iterator[str], path: Path) -> Iterator[tuple[str, Any]]:
    reader = csv.reader(lines)
    header = [name.strip().removeprefix("\ufeff") for name in next(reader, [])]
    if len(set(header)) != len(header):
        raise InputError("a column is there twice", where=f"{path}:1")
    for name in header:
        if not _is_column(name):
            raise InputError(
                f"unknown column {name!r}",
                where=f"{path}:1",
                remedy="name the columns t, share, champion.requests, champion.errors, canary.requests, "
                "canary.errors, champion.rates.<name>.n and so on",
            )
    for row in reader:
        if not row:
            continue
        where = f"{path}:{reader.line_num}"
        if len(row) != len(header):
            raise InputError(f"{len(row)} cells under {len(header)} columns", where=where)
        yield where, _nested(header, row, where)


def _is_column(name: str) -> bool:
    if name in ("t", "share"):
        return True
    arm, _, rest = name.partition(".")
    rate = rest.removeprefix("rates.")
    named = rest.startswith("rates.") and rate.endswith((".n", ".x")) and len(rate) > 2
    return arm in ("champion", "canary") and (rest in _NUMBERS or named)


def _nested(header: list[str], row: list[str], where: str) -> dict[str, Any]:
    value: dict[str, Any] = {"champion": {}, "canary": {}}
    for name, cell in zip(header, row, strict=True):
        if not cell.strip():
            continue
        try:
            number = float(cell)
        except ValueError:
            raise InputError(f"{name} is not a number: {cell[:40]!r}", where=where) from None
        arm, _, rest = name.partition(".")
        if not rest:
            value[name] = number
        elif rest in _NUMBERS:
            value[arm][rest] = number
        else:
            rate, _, part = rest.removeprefix("rates.").rpartition(".")
            value[arm].setdefault("rates", {}).setdefault(rate, {})[part] = number
    for arm in ("champion", "canary"):
        # A window file may leave errors out where nobody counts them; an empty cell beside filled ones is a gap.
        if f"{arm}.errors" in header and "errors" not in value[arm]:
            raise InputError(f"{arm}.errors is missing", where=where, why="A missing count is not a count of zero.")
    return value


class FileSource:
    """Windows that something else appends to a file. Their times are seconds since 1970."""

    def __init__(self, path: Path, window_s: float, share_at: Callable[[float], float]) -> None:
        self._path = path
        self._window_s = window_s
        self._share_at = share_at
        self._begin: float | None = None

    def read(self, since: float | None, until: float) -> list[Window]:
        """The windows in the file, with the share that each states itself."""
        if not self._path.exists():
            return []
        closed = [
            window
            for window in read_file(self._path, growing=True)
            if window.t + self._window_s <= until and self._wanted(window, since)
        ]
        if since is None and self._begin is None:
            closed = closed[-1:]
        return [window for window in closed if self._share_at(window.t) == self._share_at(self._end(window))]

    def restart(self, now: float) -> None:
        self._begin = now if self._begin is None else self._begin

    def state(self) -> dict[str, Any]:
        return {"begin": self._begin}

    def restore(self, state: Mapping[str, Any]) -> None:
        begin = state.get("begin")
        if not (begin is None or isinstance(begin, int | float)):
            raise InputError("the file source's last state is damaged")
        self._begin = begin

    def _wanted(self, window: Window, since: float | None) -> bool:
        if since is not None:
            return window.t > since
        return self._begin is None or window.t >= self._begin

    def _end(self, window: Window) -> float:
        return window.t + self._window_s - 0.001


def make(context: SourceContext) -> FileSource:
    """The source named `file`.

    Raises:
        ConfigError: no file is named.
    """
    if context.windows is None:
        raise ConfigError(
            "the file of windows is not named", where="canary.windows", remedy="set canary.windows to its path"
        )
    return FileSource(context.windows, context.window_s, context.share_at)
