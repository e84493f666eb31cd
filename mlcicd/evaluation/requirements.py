"""What a gate can require, and the rules by which `gates.judge_gates` decides it.

Three states. Let the interval be the two-sided one of the gate's confidence (0.95: each end errs at most
2.5 %).

*Absolute gates* (`min`, `max`). `passed`: the whole interval is on the good side. `failed`: the point
estimate is on the wrong side. `inconclusive`: the estimate is on the good side and the interval reaches
over the threshold. The two sides are not treated alike on purpose. The threshold is a requirement, and the
candidate carries the burden of proof: a reader of "observed 0.68, required >= 0.70" expects `failed` and
nothing else, and more rows would more likely than not confirm it. A candidate that lies exactly at its
threshold therefore fails half of the time, and one that is better by more than its interval's half-width
almost never does.

*Gates against the champion* (`vs_champion`). The difference candidate - champion is turned so that more is
better. Non-inferiority with margin m: `passed`: the interval's lower end is above -m; `failed`: its upper
end is below -m (it is shown to be worse by more than m); `inconclusive` otherwise. Superiority by m: the
same with +m in place of -m, and an upper end at +m fails, too. Here the champion is as uncertain as the
candidate, and noise must not fail an honest candidate: one that equals the champion fails a non-inferiority
gate at most 2.5 % of the time. Models that answer every row alike are not inferior at any margin, 0
included.

*Slice gates* are many tests. The verdict fails if any slice fails, so a slice fails only if it is on the
wrong side after Holm's step-down correction over the family of all slices of all slice gates. The verdict
passes only if every slice passes, which is an intersection-union test (Berger, Technometrics 24, 1982):
each slice at its own unadjusted level is enough. A slice that is neither is inconclusive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlcicd.core.errors import ConfigError
from mlcicd.core.verdict import Severity


@dataclass(frozen=True)
class VsChampion:
    """What is required of the difference to the champion.

    Attributes:
        margin: >= 0, in the metric's unit. Non-inferiority: how much worse the candidate may be.
            Superiority: how much better it must at least be.
        superiority: whether it must be better, instead of not worse.
    """

    margin: float = 0.0
    superiority: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.margin) and self.margin >= 0):
            raise ConfigError(
                f"the margin {self.margin} of vs_champion is not a number >= 0",
                why="It is how much worse the candidate may be (superiority: how much better it must be).",
                remedy="e.g. margin: 0.005",
            )

    @property
    def threshold(self) -> float:
        """What the oriented difference has to exceed."""
        return self.margin if self.superiority else -self.margin

    @property
    def words(self) -> str:
        if self.superiority:
            return f"better than the champion by more than {self.margin:g}"
        return f"not worse than the champion by more than {self.margin:g}"


def _check_bounds(who: str, low: float | None, high: float | None, vs: VsChampion | None) -> None:
    for bound in (low, high):
        if bound is not None and not math.isfinite(bound):
            raise ConfigError(f"the threshold of the gate on {who} is {bound}", remedy="give a finite number")
    if low is None and high is None and vs is None:
        raise ConfigError(f"the gate on {who} requires nothing", remedy="give min, max or vs_champion")
    if low is not None and high is not None and low > high:
        raise ConfigError(f"the gate on {who} has min {low:g} above max {high:g}", remedy="swap them")


def _bounds_words(low: float | None, high: float | None) -> str:
    return " and ".join(f"{sign} {bound:g}" for sign, bound in ((">=", low), ("<=", high)) if bound is not None)


@dataclass(frozen=True)
class Gate:
    """A requirement on one metric over the whole holdout: any of `min`, `max` and `vs_champion`."""

    metric: str
    min: float | None = None
    max: float | None = None
    vs_champion: VsChampion | None = None
    severity: Severity = Severity.FAIL

    def __post_init__(self) -> None:
        _check_bounds(self.metric, self.min, self.max, self.vs_champion)

    @property
    def words(self) -> str:
        """The absolute requirement."""
        return _bounds_words(self.min, self.max)


@dataclass(frozen=True)
class SliceGate:
    """A requirement on one metric in every slice of a column.

    Attributes:
        by: the column.
        min_rows: slices with fewer rows are not judged.
        values: the slices that must be there, with `min_rows` rows; a missing or smaller one fails. Empty:
            all that have enough rows, and at least one must.
    """

    by: str
    metric: str
    min: float | None = None
    max: float | None = None
    vs_champion: VsChampion | None = None
    min_rows: int = 100
    values: tuple[str, ...] = ()
    severity: Severity = Severity.FAIL

    def __post_init__(self) -> None:
        _check_bounds(f"{self.metric} by {self.by}", self.min, self.max, self.vs_champion)
        if self.min_rows < 1:
            raise ConfigError(f"min_rows of the slices by {self.by} is {self.min_rows}", remedy="at least 1")

    @property
    def words(self) -> str:
        """The absolute requirement."""
        return _bounds_words(self.min, self.max)
