"""What a set of gates catches: made-up bad models judged by it, and how small a loss it notices."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlcicd.core.verdict import CheckStatus, Status
from mlcicd.evaluation import saboteurs
from mlcicd.evaluation.gate_set import GateSet, Judged
from mlcicd.evaluation.metrics import get_metric
from mlcicd.evaluation.predictions import Predictions
from mlcicd.evaluation.slices import codes_of

Kind = Literal["identical", "saboteur", "slice"]

# Strengths of noise, each about 1.4 times the one before: from what no holdout shows to what nobody could miss.
STRENGTHS = tuple(round(0.03 * math.sqrt(2) ** k, 4) for k in range(15))
REPEATS = 5
# A loss counts as caught from the strength on at which at least four of five draws fail.
CAUGHT = 0.8
_SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)


@dataclass(frozen=True)
class Trial:
    """One made-up model before the gates.

    Attributes:
        name, what: what it is called, and what it stands for.
        kind: `identical` ought to pass, all others ought to be caught.
        column: of a `slice` trial, the column of the slice.
    """

    name: str
    what: str
    kind: Kind
    judged: Judged
    column: str = ""


@dataclass(frozen=True)
class Rung:
    """Draws of noise of one strength.

    Attributes:
        loss: metric to mean loss against the reference, oriented so that more is worse.
        failed, inconclusive: shares of the draws.
        gates: gate to the share of the draws that it failed.
    """

    strength: float
    loss: dict[str, float]
    failed: float
    inconclusive: float
    gates: dict[str, float]


def trials(gates: GateSet, reference: Predictions, *, seed: int = 0, slices: Sequence[str] = ()) -> Iterator[Trial]:
    """Judges the reference itself, and models made bad out of it, against it.

    Args:
        gates: judged with `reference` as the champion.
        slices: columns (of `gates.columns`) to make a model worse in, one slice of each, beside those of slice gates.
    """

    def judged(name: str, what: str, kind: Kind, answers: Predictions, column: str = "") -> Trial:
        return Trial(name, what, kind, gates.judge(answers, reference), column)

    rng = np.random.default_rng([seed, 1])
    yield judged("identical", "the same model again", "identical", reference)
    dealt = saboteurs.shuffled(reference, rng)
    yield judged("label-shuffled", "its answers tell nothing of the labels", "saboteur", dealt)
    flat = saboteurs.constant(reference, gates.y, gates.task)
    yield judged("constant", "the same answer for every row", "saboteur", flat)
    everywhere = saboteurs.missing(reference, np.arange(gates.n))
    yield judged("NaN everywhere", "no answer to any row", "saboteur", everywhere)
    yield judged("NaN in one row", "no answer to one row", "saboteur", saboteurs.missing(reference, np.array([0])))
    yield judged("truncated", "answers to half of the rows", "saboteur", saboteurs.truncated(reference))
    for column in dict.fromkeys([*(g.by for g in gates.slice_gates), *slices]):
        for value, rows in _chosen_slices(gates, column):
            answers = _worse_in(gates, reference, rows, rng)
            what = "worthless in this slice, and so much better elsewhere that the whole does not show it"
            yield judged(f"worse for {column}={value}", what, "slice", answers, column)


def ladder(
    gates: GateSet, reference: Predictions, *, seed: int = 0, strengths: Sequence[float] = STRENGTHS
) -> list[Rung]:
    """The reference with more and more noise, judged against it; ends once everything fails twice."""
    rungs: list[Rung] = []
    spread = errors_spread(gates, reference)
    for strength in strengths:
        rng = np.random.default_rng([seed, 2, round(strength * 10_000)])
        found = [
            gates.judge(saboteurs.noisy(reference, strength, rng, spread=spread), reference) for _ in range(REPEATS)
        ]
        rungs.append(_rung(gates, strength, found))
        if len(rungs) > 1 and all(r.failed == 1 for r in rungs[-2:]):
            break
    return rungs


def smallest_caught(rungs: Sequence[Rung], gate: str = "") -> Rung | None:
    """The rung from which on noise fails (by this gate, or by any); None when it never does."""
    found = None
    for rung in reversed(rungs):
        if (rung.gates.get(gate, 0.0) if gate else rung.failed) < CAUGHT:
            break
        found = rung
    return found


def largest_passed(rungs: Sequence[Rung]) -> Rung | None:
    """The last rung at which a draw passed every gate; None when even the faintest noise did not pass."""
    return next((r for r in reversed(rungs) if r.failed + r.inconclusive < 1), None)


def gate_names(found: Sequence[Trial], rungs: Sequence[Rung]) -> list[str]:
    """Every enforcing gate that judged anything, a slice gate without the values of its slices."""
    seen = [without_value(f"{c.name} ({c.slice})" if c.slice else c.name) for t in found for c in t.judged.checks]
    return list(dict.fromkeys([*seen, *(without_value(name) for rung in rungs for name in rung.gates)]))


def without_value(gate: str) -> str:
    """`roc_auc (origin=EWR)` as `roc_auc by origin`."""
    name, _, slice_ = gate.partition(" (")
    return f"{name} by {slice_.partition('=')[0]}" if slice_ else name


def _rung(gates: GateSet, strength: float, found: Sequence[Judged]) -> Rung:
    loss = {}
    for metric in gates.metrics:
        seen = [r.difference for j in found if (r := j.result(metric)) is not None and r.difference is not None]
        direction = 1.0 if get_metric(metric, gates.task).direction == "lower" else -1.0
        loss[metric] = direction * math.fsum(seen) / len(seen) if seen else math.nan
    names = [name for j in found for name in {*j.named(CheckStatus.FAILED)}]
    return Rung(
        strength,
        loss,
        sum(j.status in (Status.FAILED, Status.ERROR) for j in found) / len(found),
        sum(j.status is Status.INCONCLUSIVE for j in found) / len(found),
        {name: names.count(name) / len(found) for name in dict.fromkeys(names)},
    )


def errors_spread(gates: GateSet, reference: Predictions) -> float:
    """Standard deviation of the errors of predicted values; 0 where answers are no values of the target."""
    if gates.task not in ("regression", "forecast"):
        return 0.0
    given = np.asarray(reference.labels if reference.labels is not None else reference.scores, dtype=np.float64)
    # Of predicted quantiles, the middle one.
    said = given[:, given.shape[1] // 2] if given.ndim == 2 else given
    found = float(np.std(np.asarray(gates.y, dtype=np.float64) - said))
    # A perfect model has no errors to measure noise by: then its answers' own spread.
    return found if found > 0 else float(np.std(said)) or 1.0


def _chosen_slices(gates: GateSet, column: str) -> list[tuple[str, NDArray[np.intp]]]:
    """The largest and the smallest slice that the gates of a column judge."""
    smallest = min((g.min_rows for g in gates.slice_gates if g.by == column), default=100)
    names, codes = codes_of(column, gates.columns[column], gates.n)
    counts = np.bincount(codes, minlength=len(names))
    # A slice that is nearly everything can not be made up for elsewhere.
    large = [i for i in np.argsort(-counts, kind="stable") if smallest <= counts[i] <= 0.75 * gates.n]
    return [(names[i], np.flatnonzero(codes == i)) for i in dict.fromkeys([*large[:1], *large[-1:]])]


def _worse_in(gates: GateSet, reference: Predictions, rows: NDArray[Any], rng: np.random.Generator) -> Predictions:
    """Dealt out again in `rows`, and sharpened elsewhere until no metric of the whole is behind the reference."""
    bad = saboteurs.shuffled(reference, rng, rows)
    rest = np.setdiff1d(np.arange(gates.n), rows)
    whole = replace(gates, slice_gates=(), resamples=100)
    better = bad
    for share in _SHARES:
        better = saboteurs.sharpened(bad, gates.y, share, np.random.default_rng([int(rows[0]), 3]), rest)
        results = whole.judge(better, reference).results
        if all(_not_behind(r.direction, r.difference) for r in results):
            break
    return better


def _not_behind(direction: str, difference: float | None) -> bool:
    return difference is None or (difference >= 0 if direction == "higher" else difference <= 0)
