"""Whole simulated rollouts of a configuration: how often each kind of canary is promoted and taken back."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

from mlcicd.config import seconds
from mlcicd.config.canary import Canary
from mlcicd.rollout import JudgeSpec, MetricSpec
from mlcicd.rollout.simulate import OperatingCharacteristics, Stream, simulate
from mlcicd.stages.canary_ground import judge_spec
from mlcicd.stages.canary_text import count, minutes, plain, table
from mlcicd.stages.canary_tools import Answer, Known

_Z = 1.959963984540054


def operating_characteristics(settings: Canary, known: Known, *, runs: int, seed: int) -> Answer:
    """How whole simulated rollouts of this configuration end: equal canaries and worse ones; the same seed gives the
    same answer."""
    spec, unplayed = _playable(judge_spec(settings), known)
    window_s = seconds(settings.window)
    most = math.ceil(seconds(settings.max_duration) / window_s) + 2
    watched = spec.longest_delay_s > 0
    head = ("canary", "promoted", "rolled back", "undecided", "requests", "errors", "minutes")
    rows = [(*head, "taken back later") if watched else head]
    document: dict[str, Any] = {"runs": runs, "seed": seed, "scenarios": []}
    for at, (name, stream) in enumerate(_scenarios(spec, settings, known)):
        found = simulate(spec, stream, runs=runs, seed=seed + at, max_windows=most)
        undecided = found.inconclusive + found.undecided
        low, high = _wilson(found.rolled_back, runs)
        row = (
            name,
            f"{found.promoted:.1%}",
            f"{found.rolled_back:.1%} ({low:.1%} to {high:.1%})",
            f"{undecided:.1%}",
            count(found.canary_requests[0]),
            count(found.canary_errors[0]),
            minutes(found.minutes[0]),
        )
        rows.append((*row, f"{found.withdrawn:.1%}") if watched else row)
        document["scenarios"].append({"canary": name, "rolled_back_interval": [low, high], **_characteristics(found)})
    lines = (
        f"{runs} simulated rollouts each, seed {seed}; {known.requests_per_minute:,.0f} requests a minute; medians of "
        "the canary's requests and errors and of the minutes until it was decided.",
        *table(rows),
        f"An equal canary may be rolled back with probability {settings.alpha:g} at most; in brackets 95 % intervals.",
        *(["Taken back later: promoted, and then taken back for the outcomes of its predictions."] if watched else []),
        *(f"Not played, since nothing is known of it: {name}." for name in unplayed),
    )
    return Answer(lines, document)


def _playable(spec: JudgeSpec, known: Known) -> tuple[JudgeSpec, list[str]]:
    """The spec without what simulated traffic can not hold: one never seen would never be passed."""
    kept: list[MetricSpec] = []
    missing: list[MetricSpec] = []
    for metric in spec.metrics:
        drawn = metric.type == "histogram" or metric.source in known.rates
        (kept if drawn else missing).append(metric)
    guards = [guard for guard in spec.guards if guard.quantile is not None or guard.source in known.rates]
    dropped = [guard.name for guard in spec.guards if guard not in guards]
    return replace(spec, metrics=tuple(kept), guards=tuple(guards)), [*(m.name for m in missing), *dropped]


def _scenarios(spec: JudgeSpec, settings: Canary, known: Known) -> list[tuple[str, Stream]]:
    errors = known.rates.get("errors", 0.0)
    others = {name: (rate, rate) for name, rate in known.rates.items() if name != "errors"}
    equal = Stream(
        requests_per_minute=known.requests_per_minute,
        window_s=seconds(settings.window),
        steps=tuple(percent / 100 for percent in settings.steps),
        champion_error=errors,
        latency=any(part.source == "latency" for part in spec.parts),
        scores=any(part.source == "scores" for part in spec.parts),
        rates=others,
    )
    found = [("equal", equal)]
    for ratio in (2.0, 5.0, 10.0):
        if errors * ratio <= 1 and any(metric.source == "errors" for metric in spec.metrics):
            found.append((f"errors x {ratio:g} ({errors * ratio:.3g})", replace(equal, canary_error_ratio=ratio)))
    if equal.latency:
        found += [(f"latency x {factor:g}", replace(equal, latency_factor=factor)) for factor in (1.5, 2.0)]
    for metric in spec.metrics:
        if metric.source in others:
            rate = others[metric.source][0]
            worse = min(1.5 * rate, 1.0) if metric.sense == "lower" else rate / 1.5
            changed = {**others, metric.source: (rate, worse)}
            found.append((f"{metric.name} {rate:.3g} -> {worse:.3g}", replace(equal, rates=changed)))
            if metric.label_delay_s > 0:
                later = replace(equal, later_rates={metric.source: worse})
                found.append((f"{metric.name} {rate:.3g} -> {worse:.3g} once promoted", later))
    return found


def _wilson(share: float, runs: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Wilson 1927)."""
    centre = (share + _Z**2 / (2 * runs)) / (1 + _Z**2 / runs)
    half = _Z / (1 + _Z**2 / runs) * math.sqrt(share * (1 - share) / runs + _Z**2 / (4 * runs**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def _characteristics(found: OperatingCharacteristics) -> dict[str, Any]:
    document: dict[str, Any] = plain(asdict(found))
    return document
