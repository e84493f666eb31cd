"""What a model costs to run: latency of one row, size, load time, memory, as measured in its own process."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlcicd.core.verdict import Check, CheckStatus, Severity

NAMES = (
    "latency_p50_ms",
    "latency_p95_ms",
    "latency_p99_ms",
    "load_seconds",
    "model_size_mb",
    "peak_memory_mb",
)


@dataclass(frozen=True)
class Measured:
    """A measured cost, with its interval where it is a quantile of a sample."""

    value: float
    interval: tuple[float, float] | None = None


def measure(figures: Mapping[str, Any], model: Path, *, confidence: float) -> dict[str, Measured]:
    """Budget values of a scored model.

    Args:
        figures: the scoring runner's: `latencies_ms`, `load_seconds`, `peak_bytes`.
        model: the model directory, whose files are summed, or its file; NaN where there is none.
    """
    latencies = np.sort(np.asarray(figures["latencies_ms"], dtype=float))
    result = {f"latency_p{round(q * 100)}_ms": _quantile(latencies, q, confidence) for q in (0.50, 0.95, 0.99)}
    result["load_seconds"] = Measured(float(figures["load_seconds"]))
    result["model_size_mb"] = Measured(_bytes(model) / 1e6)
    result["peak_memory_mb"] = Measured(figures["peak_bytes"] / 1e6)
    return result


def _bytes(model: Path) -> float:
    if not model.exists():
        return math.nan
    files = [model] if model.is_file() else [f for f in model.rglob("*") if f.is_file()]
    return float(sum(f.stat().st_size for f in files))


def budget_check(
    name: str,
    candidate: Mapping[str, Measured],
    champion: Mapping[str, Measured] | None,
    *,
    maximum: float,
    severity: Severity,
) -> Check:
    """Whether a cost is within its budget. The measured value decides; its interval is shown."""
    seen = candidate[name]
    required = f"<= {maximum:g}"
    reference = champion[name].value if champion else None
    shown = Check(
        name=name,
        status=CheckStatus.PASSED,
        observed=seen.value,
        interval=seen.interval,
        reference=reference,
        required=required,
        severity=severity,
    )
    if seen.value <= maximum:
        return shown
    # NaN compares false, and lands here: a cost that could not be measured is not within its budget.
    why = "could not be measured" if math.isnan(seen.value) else f"is {seen.value:.3g}, over its budget of {maximum:g}"
    return shown.model_copy(
        update={
            "status": CheckStatus.FAILED,
            "reason": f"{name} {why}",
            "remedy": "make the model smaller or its preprocessing cheaper, or raise the budget in a reviewed commit",
        }
    )


def _quantile(ordered: Sequence[float] | np.ndarray[Any, Any], q: float, confidence: float) -> Measured:
    """A sample quantile with its order-statistic interval (binomial, normal approximation of the ranks)."""
    n = len(ordered)
    if n == 0:
        return Measured(math.nan)
    from statistics import NormalDist

    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    spread = z * math.sqrt(n * q * (1 - q))
    low = max(0, math.floor(n * q - spread))
    high = min(n - 1, math.ceil(n * q + spread))
    return Measured(float(np.quantile(ordered, q)), (float(ordered[low]), float(ordered[high])))
