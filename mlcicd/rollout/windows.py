"""Windows of counts: what the judge reads, and the JSON-lines file that holds them.

A window is a stretch of time (10 s by default) in which the champion's and the canary's requests were
counted. One JSON object a line::

    {"t": 1700000000, "share": 0.1,
     "champion": {"requests": 450, "errors": 2, "latency_ms": {"edges": [10, 20], "counts": [300, 140, 10]}},
     "canary": {"requests": 50, "errors": 0, "rates": {"clicked": {"n": 50, "x": 4}}}}

A histogram with `k` edges has `k + 1` counts: below the first edge, between edges (left edge included), and
from the last edge up. `k - 1` counts are read as the bins between the edges, with nothing below and nothing
above them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from mlcicd.core.errors import InputError

# A count above this is not a count of requests in a window, and would lose its last digits as a float.
_MAX_COUNT = 2**53
_MAX_EDGES = 1000


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts over fixed bins.

    Args:
        edges: strictly increasing, finite, at least one (ms for latency, score units for scores).
        counts: `len(edges) + 1` non-negative integers: below the first edge, between, from the last edge up.

    Raises:
        InputError: edges or counts are not of that form.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.edges) <= _MAX_EDGES:
            raise InputError(f"a histogram needs 1 to {_MAX_EDGES} edges, this one has {len(self.edges)}")
        if not all(math.isfinite(edge) for edge in self.edges):
            raise InputError("a histogram's edges must be finite numbers")
        if any(low >= high for low, high in pairwise(self.edges)):
            raise InputError("a histogram's edges must increase")
        if len(self.counts) != len(self.edges) + 1:
            raise InputError(
                f"{len(self.edges)} edges make {len(self.edges) + 1} counts, not {len(self.counts)}",
                remedy="count below the first edge, between each two, and from the last edge up",
            )
        for count in self.counts:
            _check_count(count, "a histogram's count")

    @property
    def total(self) -> int:
        return sum(self.counts)

    def to_json(self) -> dict[str, Any]:
        return {"edges": list(self.edges), "counts": list(self.counts)}

    @classmethod
    def from_json(cls, value: object, name: str = "histogram") -> Histogram:
        data = _object(value, name, required=("edges", "counts"))
        edges = tuple(_number(edge, f"{name}.edges") for edge in _list(data["edges"], f"{name}.edges"))
        counts = tuple(_count(count, f"{name}.counts") for count in _list(data["counts"], f"{name}.counts"))
        if edges and len(counts) == len(edges) - 1:
            counts = (0, *counts, 0)
        return cls(edges, counts)


@dataclass(frozen=True, slots=True)
class Arm:
    """What one model did in a window.

    Args:
        requests: requests answered or failed.
        errors: those that failed, at most `requests`.
        latency_ms: of the requests, or None when nobody measured.
        scores: of the predictions, or None.
        rates: further binary metrics by name, each `(n, x)`: `x` events in `n` trials.

    Raises:
        InputError: a negative count, or more events than trials.
    """

    requests: int
    errors: int = 0
    latency_ms: Histogram | None = None
    scores: Histogram | None = None
    rates: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_count(self.requests, "requests")
        _check_count(self.errors, "errors")
        if self.errors > self.requests:
            raise InputError(f"{self.errors} errors in {self.requests} requests")
        for name, (n, x) in self.rates.items():
            _check_count(n, f"rates.{name}.n")
            _check_count(x, f"rates.{name}.x")
            if x > n:
                raise InputError(f"rate {name!r} counts {x} events in {n} trials")

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {"requests": self.requests, "errors": self.errors}
        if self.latency_ms is not None:
            value["latency_ms"] = self.latency_ms.to_json()
        if self.scores is not None:
            value["scores"] = self.scores.to_json()
        if self.rates:
            value["rates"] = {name: {"n": n, "x": x} for name, (n, x) in self.rates.items()}
        return value

    @classmethod
    def from_json(cls, value: object, name: str = "arm") -> Arm:
        data = _object(value, name, required=("requests",), optional=("errors", "latency_ms", "scores", "rates"))
        rates = {}
        for metric, counts in _object(data.get("rates") or {}, f"{name}.rates").items():
            pair = _object(counts, f"{name}.rates.{metric}", required=("n", "x"))
            rates[metric] = (_count(pair["n"], f"rates.{metric}.n"), _count(pair["x"], f"rates.{metric}.x"))
        return cls(
            requests=_count(data["requests"], f"{name}.requests"),
            errors=_count(data.get("errors", 0), f"{name}.errors"),
            latency_ms=_histogram(data.get("latency_ms"), f"{name}.latency_ms"),
            scores=_histogram(data.get("scores"), f"{name}.scores"),
            rates=rates,
        )


@dataclass(frozen=True, slots=True)
class Window:
    """One window of both arms.

    Args:
        t: seconds, increasing from window to window; any origin (the start of the window, by convention).
        champion: arm a.
        canary: arm b.
        share: the part of the traffic the canary was meant to get, in [0, 1].

    Raises:
        InputError: `t` is not finite, `share` is outside [0, 1], or the arms' histograms have different
            edges.
    """

    t: float
    champion: Arm
    canary: Arm
    share: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.t):
            raise InputError(f"a window's time must be a finite number of seconds, not {self.t}")
        if not 0.0 <= self.share <= 1.0:
            raise InputError(f"the canary's share must be between 0 and 1, not {self.share}")
        for name in ("latency_ms", "scores"):
            champion, canary = getattr(self.champion, name), getattr(self.canary, name)
            if champion is not None and canary is not None and champion.edges != canary.edges:
                raise InputError(
                    f"the arms' {name} histograms have different edges",
                    why="Counts can only be compared bin by bin.",
                    remedy="take the bins from the champion's reference and use them for both arms",
                )

    def to_json(self) -> dict[str, Any]:
        return {
            "t": self.t,
            "champion": self.champion.to_json(),
            "canary": self.canary.to_json(),
            "share": self.share,
        }

    @classmethod
    def from_json(cls, value: object) -> Window:
        """Reads a window from a parsed JSON object.

        Raises:
            InputError: a key is missing or unknown, a count is negative, not whole or not a number.
        """
        data = _object(value, "window", required=("t", "champion", "canary", "share"))
        return cls(
            t=_number(data["t"], "t"),
            champion=Arm.from_json(data["champion"], "champion"),
            canary=Arm.from_json(data["canary"], "canary"),
            share=_number(data["share"], "share"),
        )


def read_windows(path: Path) -> Iterator[Window]:
    """Reads a JSON-lines file of windows, one at a time; blank lines are passed over.

    Raises:
        InputError: the file can not be read, or a line (named) is not a window or does not come after the one
            before.
    """
    last: float | None = None
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                window = _parse_line(line, f"{path}:{number}")
                if last is not None and window.t <= last:
                    raise InputError(
                        f"the window at t={window.t:g} does not come after the one at t={last:g}",
                        where=f"{path}:{number}",
                        remedy="sort the windows by time and give each once",
                    )
                last = window.t
                yield window
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("can not read the windows", where=str(path), why=str(error)) from error


def _parse_line(line: str, where: str) -> Window:
    try:
        return Window.from_json(json.loads(line))
    except InputError as error:
        raise InputError(error.what, where=where, why=error.why, remedy=error.remedy) from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError("this line is not JSON", where=where, why=str(error)) from error


def _histogram(value: object, name: str) -> Histogram | None:
    return None if value is None else Histogram.from_json(value, name)


def _object(
    value: object, name: str, *, required: tuple[str, ...] = (), optional: tuple[str, ...] = ()
) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{name} must be an object, not {type(value).__name__}")
    missing = [key for key in required if key not in value]
    if missing:
        raise InputError(f"{name} lacks {', '.join(missing)}")
    unknown = sorted(set(value) - set(required) - set(optional))
    if required and unknown:
        raise InputError(f"{name} has unknown keys: {', '.join(unknown)}")
    return value


def _list(value: object, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{name} must be a list, not {type(value).__name__}")
    return value


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{name} must be a number, not {value!r}")
    try:
        number = float(value)
    except OverflowError:
        raise InputError(f"{name} is too large") from None
    if not math.isfinite(number):
        raise InputError(f"{name} must be finite, not {value!r}")
    return number


def _count(value: object, name: str) -> int:
    number = _number(value, name)
    if number != int(number):
        raise InputError(f"{name} must be a whole number, not {value!r}")
    return _check_count(int(number), name)


def _check_count(value: int, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{name} must be a whole number, not {value!r}")
    if not 0 <= value <= _MAX_COUNT:
        raise InputError(f"{name} must be between 0 and 2^53, not {value}")
    return value
