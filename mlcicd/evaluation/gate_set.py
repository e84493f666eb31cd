"""A set of gates over one holdout, judged again and again: what trials of the gates are made of.

`evaluate` judges one candidate. To learn what gates are worth, hundreds of made-up candidates are judged by the very
same functions (`estimate`, `by_values`, `judge_gates`), in arrays: no model is loaded, and nothing is scored again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlcicd.core.errors import InputError
from mlcicd.core.verdict import Check, CheckStatus, Severity, Status, conclude
from mlcicd.evaluation.clusters import find_units
from mlcicd.evaluation.gates import Gate, SliceGate, judge_gates
from mlcicd.evaluation.intervals import MetricResult, estimate
from mlcicd.evaluation.predictions import Predictions, Structure, take
from mlcicd.evaluation.slices import by_values


@dataclass(frozen=True)
class Judged:
    """What a set of gates said of one candidate: `status` as the verdict's, with the checks and estimates behind it.

    Attributes:
        refused: why the candidate was not judged at all (its answers do not fit the holdout); empty when it was.
    """

    status: Status
    checks: tuple[Check, ...] = ()
    results: tuple[MetricResult, ...] = ()
    refused: str = ""

    @property
    def blocked(self) -> bool:
        """Whether the candidate would not go on: failed or inconclusive."""
        return self.status in (Status.FAILED, Status.INCONCLUSIVE, Status.ERROR)

    def named(self, status: CheckStatus) -> list[str]:
        """The enforcing gates that ended so, as a reader knows them: `roc_auc (origin=EWR)`."""
        return [gate_name(c) for c in self.checks if c.status is status and c.severity is Severity.FAIL]

    def result(self, metric: str) -> MetricResult | None:
        return next((r for r in self.results if r.name == metric), None)


def gate_name(check: Check) -> str:
    """The name of a check with its slice."""
    return f"{check.name} ({check.slice})" if check.slice else check.name


@dataclass(frozen=True)
class GateSet:
    """Gates, and the holdout that they are judged over.

    Attributes:
        y: (n,) labels.
        columns: (n,) values by name, at least of the columns that slice gates name.
        without_champion: as `judge_gates`.
        weight, structure: as `estimate`.
    """

    task: str
    y: NDArray[Any]
    gates: Sequence[Gate] = ()
    slice_gates: Sequence[SliceGate] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)
    confidence: float = 0.95
    resamples: int = 2000
    without_champion: Literal["bootstrap", "fail"] = "bootstrap"
    weight: NDArray[Any] | None = None
    structure: Structure | None = None

    @property
    def n(self) -> int:
        return int(self.y.shape[0])

    @property
    def metrics(self) -> list[str]:
        """The metrics that the gates on the whole holdout name."""
        return list(dict.fromkeys(gate.metric for gate in self.gates))

    def judge(self, candidate: Predictions, champion: Predictions | None) -> Judged:
        """Judges one candidate by every gate, as `evaluate` would."""
        try:
            results = estimate(
                self.task,
                self.metrics,
                self.y,
                candidate,
                champion,
                **self.common,
            )
            found = [
                s for by in dict.fromkeys(g.by for g in self.slice_gates) for s in self._slices(by, candidate, champion)
            ]
        except InputError as error:
            return Judged(Status.ERROR, refused=error.what)
        checks = judge_gates(
            self.gates,
            results,
            slice_gates=self.slice_gates,
            slice_results=found,
            without_champion=self.without_champion,
        )
        return Judged(conclude(checks), tuple(checks), tuple(results))

    def _slices(self, by: str, candidate: Predictions, champion: Predictions | None) -> list[Any]:
        asked = [gate for gate in self.slice_gates if gate.by == by]
        return by_values(
            self.task,
            list(dict.fromkeys(gate.metric for gate in asked)),
            self.y,
            candidate,
            champion,
            by=by,
            column=self.columns[by],
            min_rows=min(gate.min_rows for gate in asked),
            **self.common,
        )

    @property
    def common(self) -> dict[str, Any]:
        """What `estimate` and `by_values` are both told."""
        told: dict[str, Any] = {"confidence": self.confidence, "resamples": self.resamples}
        if self.weight is not None:
            told["sample_weight"] = self.weight
        if self.structure is not None:
            told["structure"] = self.structure
        return told

    def resampled(self, rng: np.random.Generator) -> tuple[GateSet, NDArray[np.intp]]:
        """The same gates over another holdout like this one, and its rows in this one's numbers.

        What is drawn with replacement is what is independent: rows, or whole groups where `structure` has them.
        """
        unit = self.units
        if unit is None:
            rows = rng.integers(0, self.n, self.n)
            return self.at(rows), rows
        units = int(unit.max()) + 1
        order = np.argsort(unit, kind="stable")
        ends = np.cumsum(np.bincount(unit, minlength=units))
        members = [order[(ends[u - 1] if u else 0) : ends[u]] for u in rng.integers(0, units, units)]
        rows = np.concatenate(members)
        # A group that is drawn twice is two groups of the new holdout.
        drawn = np.repeat(np.arange(units), [len(m) for m in members])
        at = self.at(rows)
        assert at.structure is not None
        return replace(at, structure=replace(at.structure, group=drawn, time=None)), rows

    @property
    def units(self) -> NDArray[np.intp] | None:
        """(n,) numbers of the groups of rows that are not independent; None where each row stands alone."""
        return None if self.structure is None else find_units(self.task, self.structure, self.n)[0]

    def at(self, rows: NDArray[np.intp]) -> GateSet:
        """The same gates over some rows, which may repeat."""
        return replace(
            self,
            y=self.y[rows],
            columns={name: np.asarray(values)[rows] for name, values in self.columns.items()},
            weight=None if self.weight is None else np.asarray(self.weight)[rows],
            structure=None if self.structure is None else self.structure.take(rows),
        )


def rows_of(predictions: Predictions, rows: NDArray[np.intp]) -> Predictions:
    """The answers to some rows, which may repeat."""
    return take(predictions, rows)
