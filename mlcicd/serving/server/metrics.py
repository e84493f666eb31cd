"""What the server counts, in Prometheus' text format."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

LATENCY_EDGES_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SCORE_EDGES = tuple(round(0.05 * i, 2) for i in range(21))
_HELP = {
    "mlcicd_prediction_batches_total": "Groups of requests that were handed to the model.",
    "mlcicd_inference_log_written_total": "Requests written to the inference log.",
    "mlcicd_inference_log_dropped_total": "Requests of the log's sample that were not written: it could not keep up.",
}


@dataclass
class Histogram:
    """A Prometheus histogram: counts by upper edge, the last one without an edge."""

    edges: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.edges) + 1)

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.edges, value)] += 1
        self.total += value

    def lines(self, name: str, labels: str) -> Iterator[str]:
        running = 0
        for edge, count in zip([*map(str, self.edges), "+Inf"], self.counts):  # noqa: B905  (Python 3.9)
            running += count
            yield f'{name}_bucket{{{labels},le="{edge}"}} {running}'
        yield f"{name}_sum{{{labels}}} {self.total:g}"
        yield f"{name}_count{{{labels}}} {running}"


class Metrics:
    """What the event loop counts. Touched by that one thread only, so it needs no lock."""

    def __init__(self, name: str, version: str) -> None:
        self._labels = f'model="{_escape(name)}",version="{_escape(version)}"'
        self.requests: dict[int, int] = {}
        self.latency = Histogram(LATENCY_EDGES_S)
        self.scores = Histogram(SCORE_EDGES)

    def answered(self, status: int, seconds: float) -> None:
        """Counts one prediction request by its HTTP status and the time it took."""
        self.requests[status] = self.requests.get(status, 0) + 1
        self.latency.add(seconds)

    def scored(self, scores: Iterable[float]) -> None:
        """Counts the numbers of an answer."""
        for score in scores:
            self.scores.add(score)

    def text(self, counts: Mapping[str, int]) -> str:
        """All of it, with counters of others by name."""
        lines = [
            "# HELP mlcicd_requests_total Prediction requests answered, by HTTP status code.",
            "# TYPE mlcicd_requests_total counter",
            *(
                f'mlcicd_requests_total{{{self._labels},code="{code}"}} {count}'
                for code, count in sorted(self.requests.items())
            ),
            "# HELP mlcicd_request_seconds Time from the whole body read to the answer.",
            "# TYPE mlcicd_request_seconds histogram",
            *self.latency.lines("mlcicd_request_seconds", self._labels),
            "# HELP mlcicd_prediction_score Numbers predicted.",
            "# TYPE mlcicd_prediction_score histogram",
            *self.scores.lines("mlcicd_prediction_score", self._labels),
        ]
        for name, count in counts.items():
            lines += [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} counter", f"{name}{{{self._labels}}} {count}"]
        return "\n".join(lines) + "\n"


def _escape(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
