"""The bars that benchmarks/data.py holds its measurements against; they were set for ten million rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# The largest difference from scipy's value, or from the same definition over all values.
AGREEMENT = {"ks": 1e-4, "wasserstein": 1e-5, "js": 5e-5, "psi": 1e-5}
# Of ours: measurement, its floor, how many times as much CPU at most.
FLOORS = (
    ("rules", "decode every column once", 3.0),
    ("rules, CSV", "decode every column once, CSV", 3.0),
    ("drift, two files", "decode the drift columns of both", 4.0),
    ("drift, stored profile", "drift, two files", 0.6),
)
MEMORY_MIB = {"rules": 1024, "rules, CSV": 1024, "drift, two files": 300}
# Of peers: how many times our wall clock, and our peak of memory, at least.
PEERS = {
    "Great Expectations, pandas": ("rules", 12.0, 4.0),
    "Pointblank, polars": ("rules", 2.5, 0.0),
    "Pandera, polars": ("rules", 2.0, 4.0),
    "Evidently, Jensen-Shannon": ("drift, two files", 150.0, 0.0),
    "Evidently, Wasserstein": ("drift, two files", 150.0, 0.0),
}


def judged(measured: dict[str, dict[str, Any]], patience: float, stopped: list[str]) -> Iterator[str]:
    """One line a bar: held or missed, with the figures; `stopped` are the peers that ran out of patience (seconds)."""
    for name, floor, most in FLOORS:
        if name in measured and floor in measured:
            ratios = {unit: measured[name][unit] / measured[floor][unit] for unit in ("cpu", "wall")}
            figures = f"{ratios['cpu']:.2f} x (wall {ratios['wall']:.2f})"
            yield _line(f"{name}: CPU at most {most:g} x {floor}", ratios["cpu"] <= most, figures)
    for name, mib in MEMORY_MIB.items():
        if name in measured:
            got = measured[name]["mib"]
            yield _line(f"{name}: memory at most {mib} MiB", got <= mib, f"{got:.0f} MiB")
    for name, (ours, wall, memory) in PEERS.items():
        yield from _beside(name, ours, wall, memory, measured, patience, stopped)
    exact = (measured.get("exact distances, scipy") or {}).get("answer") or {}
    for way in ("two files", "stored profile"):
        for metric, (apart, column) in sorted(exact.get(way, {}).items()):
            limit = AGREEMENT[metric]
            yield _line(f"{metric} from {way}: exact to {limit:g}", apart <= limit, f"{apart:.1e} ({column})")


def _beside(
    name: str,
    ours: str,
    wall: float,
    memory: float,
    measured: dict[str, dict[str, Any]],
    patience: float,
    stopped: list[str],
) -> Iterator[str]:
    bar = f"{name}: at least {wall:g} x our wall clock"
    if name in stopped and ours in measured:
        least = patience / measured[ours]["wall"]
        told = f"stopped after {patience:g} s, which is {least:.1f} x"
        yield _line(bar, True, told) if least >= wall else f"  open    {bar}: {told}"
    if name not in measured or ours not in measured:
        return
    ratios = {unit: measured[name][unit] / measured[ours][unit] for unit in ("wall", "cpu", "mib")}
    figures = f"{ratios['wall']:.1f} x (CPU {ratios['cpu']:.1f} x)"
    yield _line(bar, ratios["wall"] >= wall, figures)
    if memory:
        yield _line(f"{name}: at least {memory:g} x our memory", ratios["mib"] >= memory, f"{ratios['mib']:.1f} x")


def _line(bar: str, held: bool, figures: str) -> str:
    return f"  {'held' if held else 'MISSED':7} {bar}: {figures}"
