"""How far a metric moves when nothing but the seed of the training changes.

An interval over the rows of the holdout tells how well these rows tell two models apart. It does not know that the same
code, trained once more, would have made another model. Several trainings that differ in the seed alone tell that.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from mlcicd.evaluation.uncertainty import student_quantile


@dataclass(frozen=True)
class SeedNoise:
    """A metric over trainings that differ in the seed alone.

    Attributes:
        values: one a training, in the metric's unit.
        spread: their standard deviation.
        band: half the width that the difference of two such trainings stays within, at the confidence asked for.
    """

    values: tuple[float, ...]
    spread: float
    band: float

    def holds(self, difference: float) -> bool:
        return abs(difference) <= self.band


def seed_noise(values: Sequence[float], confidence: float = 0.95) -> SeedNoise | None:
    """The spread of a metric over trainings, and the band of the difference of two of them.

    Candidate and champion are one training each, so their difference varies by sqrt(2) times the spread; that of a few
    trainings is known roughly, which Student's quantile of their number less one allows for (a prediction interval).

    Returns:
        None with fewer than two values, or where one is not finite.
    """
    if len(values) < 2 or not all(math.isfinite(v) for v in values):
        return None
    spread = statistics.stdev(values)
    reach = student_quantile((1 + confidence) / 2, len(values) - 1)
    return SeedNoise(tuple(values), spread, reach * math.sqrt(2) * spread)
