"""What the judge answers: an action, one sentence, and the evidence metric by metric."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from mlcicd.rollout.spec import Breach


class Action(StrEnum):
    """What the rollout should do next."""

    CONTINUE = "continue"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    HOLD = "hold"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class MetricEvidence:
    """What is known about one metric, guard or the sample ratio.

    Args:
        kind: `metric`, `guard`, `sample_ratio`, or `watch` (a metric's outcomes after the promotion).
        log_e: natural logarithm of the e-value now; `peak_log_e` of the highest so far, which is what counts.
        e_value: exp(log_e), at most the largest float.
        threshold: the e-value at which it alarms.
        log_e_promote, threshold_promote: the same for promotion; None where it gates nothing.
        n_champion, n_canary: trials counted.
        observed: what was seen, by arm (rates; p50 and p95; means; shares).
        breached: the alarm has been reached, and stays so.
        promotable: promotion's evidence has been reached, and stays so; None where it gates nothing.
        on_breach: what a breach does.
    """

    name: str
    kind: str
    log_e: float
    peak_log_e: float
    e_value: float
    threshold: float
    log_e_promote: float | None
    threshold_promote: float | None
    n_champion: int
    n_canary: int
    observed: dict[str, float]
    breached: bool
    promotable: bool | None
    on_breach: Breach


@dataclass(frozen=True, slots=True)
class Decision:
    """The judge's answer after a window.

    Args:
        action: what to do.
        reason: one plain sentence.
        metrics: the evidence, metric by metric.
        t: of the window it was made after; None before the first.
        windows: windows consumed so far.
        step_ready: the present traffic step has seen enough windows, with nothing alarming: the next may be
            taken.
    """

    action: Action
    reason: str
    metrics: tuple[MetricEvidence, ...]
    t: float | None
    windows: int
    step_ready: bool

    @property
    def final(self) -> bool:
        """Nothing that comes later changes it."""
        return self.action in (Action.ROLLBACK, Action.INCONCLUSIVE)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; a number that is not finite is a string, as in a verdict."""
        value: dict[str, Any] = _finite_or_text(asdict(self))
        value["action"] = self.action.value
        return value


def breach_sentence(item: MetricEvidence) -> str:
    """Why this metric alarmed, with what was seen."""
    seen = ", ".join(f"{name} {value:.4g}" for name, value in item.observed.items())
    what = {
        "metric": f"{item.name}: the canary differs from the champion by more than is tolerated",
        "guard": f"{item.name}: the canary is beyond its limit",
        "watch": f"{item.name}: the outcomes are worse than the champion's were before",
        "sample_ratio": "the canary does not get the share of traffic it was meant to get",
    }[item.kind]
    return f"{what} ({seen}; e-value {exp(item.peak_log_e):.3g} reached {item.threshold:.3g})"


def exp(value: float) -> float:
    """exp, held at the largest float: an e-value too large to write down is still a number in JSON."""
    return math.exp(min(value, 709.0))


def _finite_or_text(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite_or_text(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite_or_text(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value
