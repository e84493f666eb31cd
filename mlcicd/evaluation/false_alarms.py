"""How often gates stop a model that they should not: on holdouts drawn anew from this one.

Two questions, since they have two answers. *Against itself*: the champion again, on another holdout of the same kind.
It answers alike on every row, so comparisons pass by definition, and only the absolute thresholds can fail. *Equal
models*: two models that differ row by row as two given ones do, and are worth the same, because a coin decides for each
row which of the two answers belongs to whom. This is what a retraining with another seed looks like.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from mlcicd.core.verdict import CheckStatus, Status
from mlcicd.evaluation.gate_set import GateSet, Judged, rows_of
from mlcicd.evaluation.predictions import Predictions
from mlcicd.evaluation.proportions import Share
from mlcicd.evaluation.saboteurs import exchanged, noisy, on_scale_of
from mlcicd.evaluation.uncertainty import Interval

# Rows judged in all, by default: some ten seconds of one core for a gate on ROC AUC.
_WORK = 2_000_000
_LEAST, _MOST = 40, 200


@dataclass(frozen=True)
class Alarms:
    """Outcomes of resampled holdouts.

    Attributes:
        failed, inconclusive: how many of the draws ended so.
        failed_by, inconclusive_by: gate to the number of draws that it ended so in.
    """

    draws: int
    failed: int
    inconclusive: int
    failed_by: Mapping[str, int] = field(default_factory=dict)
    inconclusive_by: Mapping[str, int] = field(default_factory=dict)

    @property
    def failed_share(self) -> Share:
        return Share(self.failed, self.draws)

    @property
    def blocked_share(self) -> Share:
        return Share(self.failed + self.inconclusive, self.draws)

    def interval(self) -> Interval:
        """Wilson's 95 % interval of the share that failed."""
        return self.failed_share.interval(0.95)


def enough_draws(rows: int, asked: int = 0) -> int:
    """How many draws to make: those asked for, else 40 to 200, the fewer the larger the holdout."""
    return asked or max(_LEAST, min(_MOST, _WORK // max(rows, 1)))


def against_itself(gates: GateSet, champion: Predictions, *, draws: int, seed: int = 0) -> Alarms:
    """The champion against itself on resampled holdouts."""

    def one(rng: np.random.Generator) -> Judged:
        at, rows = gates.resampled(rng)
        answers = rows_of(champion, rows)
        return at.judge(answers, answers)

    return _count(one, draws, [seed, 11])


def equal_models(gates: GateSet, first: Predictions, second: Predictions, *, draws: int, seed: int = 0) -> Alarms:
    """Two models of equal worth that differ as these two do, on resampled holdouts.

    Raises:
        ValueError: the two answer in different forms.
    """

    second = comparable(gates, first, second)

    def one(rng: np.random.Generator) -> Judged:
        # The coins come after the draw: a row that is drawn twice is two rows, each with a coin of its own.
        at, rows = gates.resampled(rng)
        candidate, champion = exchanged(rows_of(first, rows), rows_of(second, rows), rng, at.units)
        return at.judge(candidate, champion)

    return _count(one, draws, [seed, 12])


def comparable(gates: GateSet, first: Predictions, second: Predictions) -> Predictions:
    """The second model as it is exchanged with the first: scores on the first one's scale, values as they are."""
    return on_scale_of(second, first) if gates.task in ("binary", "ranking") else second


def twins(reference: Predictions, *, strength: float, spread: float = 0.0, seed: int = 0) -> tuple[Predictions, ...]:
    """Two models that differ from the reference by independent noise: a stand-in where there is only one model."""
    rng = np.random.default_rng([seed, 13])
    return noisy(reference, strength, rng, spread=spread), noisy(reference, strength, rng, spread=spread)


def _count(one: Callable[[np.random.Generator], Judged], draws: int, seed: list[int]) -> Alarms:
    failed_by: Counter[str] = Counter()
    unsure_by: Counter[str] = Counter()
    failed = unsure = 0
    for draw in range(draws):
        judged = one(np.random.default_rng([*seed, draw]))
        failed += judged.status in (Status.FAILED, Status.ERROR)
        unsure += judged.status is Status.INCONCLUSIVE
        failed_by.update(judged.named(CheckStatus.FAILED) or ([judged.refused] if judged.refused else []))
        unsure_by.update(judged.named(CheckStatus.INCONCLUSIVE))
    return Alarms(draws, failed, unsure, dict(failed_by.most_common()), dict(unsure_by.most_common()))
