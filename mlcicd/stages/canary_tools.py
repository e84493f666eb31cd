"""What can be asked of a canary's judge without a canary: over recorded windows, over simulated traffic, beforehand."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mlcicd.config import seconds
from mlcicd.config.canary import Canary
from mlcicd.config.load import validate
from mlcicd.core.errors import ConfigError, ExitCode, InputError
from mlcicd.core.yaml_lines import read_yaml
from mlcicd.rollout import Action, Histogram, JudgeSpec, Window
from mlcicd.rollout.forecast import Step, forecast
from mlcicd.rollout.labels import Cohort, read_cohorts, read_promotion
from mlcicd.rollout.replay import replay
from mlcicd.rollout.sources.file import read_file
from mlcicd.stages.canary_ground import judge_spec
from mlcicd.stages.canary_text import count, minutes, plain, table

_REPLAY_EXIT = {Action.PROMOTE: ExitCode.PASSED, Action.ROLLBACK: ExitCode.GATE_FAILED}


@dataclass(frozen=True)
class Answer:
    """What a command prints: lines for a person, a document for a program, and its exit code."""

    lines: tuple[str, ...]
    document: dict[str, Any]
    exit_code: ExitCode = ExitCode.PASSED


@dataclass(frozen=True)
class Known:
    """What is known of the champion and its traffic before a canary.

    Args:
        requests_per_minute: of both arms together.
        rates: the champion's rates by metric name (`errors`, ...).
        latency, scores: its latencies and predictions, or None.
    """

    requests_per_minute: float
    rates: Mapping[str, float]
    latency: Histogram | None = None
    scores: Histogram | None = None


class _CanaryOnly(BaseModel):
    """The part of `mlcicd.yaml` that decides."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    canary: Canary = Field(default_factory=Canary)


def canary_settings(config: Path | None, profile: str = "", environ: Mapping[str, str] | None = None) -> Canary:
    """The section `canary` of a configuration file; the defaults without one. The rest of it may be missing.

    Raises:
        ConfigError: there is no such file or profile, or the section is wrong.
    """
    if config is None:
        return Canary()
    document = read_yaml(config, file=config.name, environ=os.environ if environ is None else environ)
    data = dict(document.data)
    if profile:
        override = (data.get("profiles") or {}).get(profile)
        if override is None:
            raise ConfigError(f"there is no profile {profile!r}", file=config.name)
        data["canary"] = _merged(data.get("canary"), override.get("canary") or {})
    if data.get("canary") is None:
        data.pop("canary", None)
    return validate(_CanaryOnly, data, document).canary


def replay_windows(path: Path, settings: Canary, *, labels: Path | None = None, to_the_end: bool = False) -> Answer:
    """The judge over recorded windows: what it would have decided, when, and on what evidence.

    Late outcomes are those of `labels`, or else of the file itself.

    Exit codes: 0 promote, 1 rollback, 3 anything that leaves it undecided.

    Raises:
        InputError: the file can not be read, holds no window, or one that can not be judged.
    """
    windows = list(read_file(path))
    settings, notes = _fitting(settings, windows)
    spec, window_s = judge_spec(settings), seconds(settings.window)
    result = replay(
        spec,
        windows,
        stop_at_promote=not to_the_end,
        last_share=_last_share(settings, windows),
        cohorts=_outcomes(spec, path, labels, window_s),
        window_s=window_s,
        promoted_at=None if path.suffix.lower() == ".csv" else read_promotion(path),
    )
    decision = result.decision
    metrics = decision.to_json()["metrics"]
    document = {
        "decision": decision.action.value,
        "reason": decision.reason,
        "window": result.at_window,
        "t": result.at_t,
        "windows": result.windows,
        "recorded": len(windows),
        "canary_requests": result.canary_requests,
        "canary_errors": result.canary_errors,
        "e_values": {item["name"]: item["e_value"] for item in metrics},
        "metrics": metrics,
        "trace": result.to_json()["trace"],
        "notes": notes,
    }
    head = (
        f"{decision.action} at window {result.at_window} of {len(windows)} (t={result.at_t:g}): {decision.reason}",
        f"The canary had answered {result.canary_requests:,} requests; {result.canary_errors:,} of them failed.",
    )
    rows = [("metric", "champion", "canary", "e-value", "alarms at", "promotion", "needs")]
    for item in decision.metrics:
        promote = "" if item.log_e_promote is None or item.threshold_promote is None else _e(item.log_e_promote)
        needs = "" if item.threshold_promote is None else f"{item.threshold_promote:.4g}"
        counts = f"{item.n_champion:,}", f"{item.n_canary:,}"
        rows.append((item.name, *counts, f"{item.e_value:.4g}", f"{item.threshold:.4g}", promote, needs))
    code = _REPLAY_EXIT.get(decision.action, ExitCode.INCONCLUSIVE)
    return Answer((*head, *table(rows), *(f"Note: {note}" for note in notes)), document, code)


def known_champion(
    settings: Canary,
    *,
    windows: Path | None,
    requests_per_minute: float | None,
    rates: Mapping[str, float],
) -> Known:
    """What is known of the champion: as recorded, and what is said by hand instead.

    Raises:
        ConfigError: an option is missing, or its value is impossible.
        InputError: what was recorded does not tell the traffic, or the rate of a metric.
    """
    # What is not known is missing on the command line, unless a file was named that should tell it.
    missing = ConfigError if windows is None else InputError
    recorded = list(read_file(windows)) if windows is not None else []
    traffic = requests_per_minute if requests_per_minute is not None else _traffic(recorded)
    if requests_per_minute is not None and not (math.isfinite(requests_per_minute) and requests_per_minute > 0):
        raise ConfigError(f"--requests-per-minute must be more than 0, not {requests_per_minute:g}")
    if traffic is None or not (math.isfinite(traffic) and traffic > 0):
        raise missing(
            "the traffic is not known",
            remedy="give --requests-per-minute, or --windows with recorded windows (two at least)",
        )
    found = dict(rates)
    for metric in settings.metrics:
        if metric.type == "rate" and metric.name not in found:
            rate = _recorded_rate(metric.name, recorded)
            if rate is None:
                option = "--error-rate" if metric.name == "errors" else f"--rate {metric.name}="
                raise missing(
                    f"the champion's rate of {metric.name!r} is not known",
                    remedy=f"give {option}, or --windows with recorded windows",
                )
            found[metric.name] = rate
    for name, rate in found.items():
        if not 0 < rate < 1:
            wrong = ConfigError if name in rates else InputError
            raise wrong(f"the champion's rate of {name!r} must be between 0 and 1, not {rate}")
    return Known(traffic, found, _recorded("latency_ms", recorded), _recorded("scores", recorded))


def forecast_decisions(settings: Canary, known: Known) -> Answer:
    """How many requests and minutes each decision will need, and what can not be decided in `max_duration`.

    Exit code 3 when a canary that equals its champion can not be promoted in that time.
    """
    spec = judge_spec(settings)
    least = settings.min_windows * seconds(settings.window) / 60
    steps = [Step(percent / 100, least) for percent in settings.steps]
    latency = known.latency if known.latency is not None else _typical_latency()
    found = forecast(
        spec,
        requests_per_minute=known.requests_per_minute,
        steps=steps,
        rates=known.rates,
        histograms={"latency": latency, **({} if known.scores is None else {"scores": known.scores})},
    )
    metrics = {metric.name: metric for metric in spec.metrics}
    rows = [("metric", "question", "canary requests", "minutes", "in time")]
    for item in found:
        metric = metrics[item.metric]
        tolerated = item.effect <= metric.tolerance or known.rates.get(item.metric, 1) * item.effect <= metric.floor
        in_time = "yes" if item.decidable else "tolerated" if item.question == "harm" and tolerated else "NO"
        asked = "promote an equal one" if item.question == "promote" else f"roll back at {item.effect:g} times"
        rows.append((item.metric, asked, count(item.canary_requests), minutes(item.minutes), in_time))
    gates = [item for item in found if item.question == "promote"]
    open_gates = [item.metric for item in gates if not item.decidable]
    limit, whole = settings.max_duration, least * len(steps)
    longest = max([item.minutes for item in gates] + [whole])
    shares = ", ".join(f"{percent:g}" for percent in settings.steps)
    lines = [
        f"{known.requests_per_minute:,.0f} requests a minute; steps {shares} %, at least {minutes(least)} min each; "
        f"alpha {settings.alpha:g}, beta {settings.beta:g}; at most {limit}.",
        *table(rows),
    ]
    if not gates:
        lines.append("No metric has a promotion margin: nothing could ever decide for promotion.")
    elif open_gates:
        lines.append(
            f"In {limit} the margin of {', '.join(open_gates)} can not be decided: widen it, give the canary more "
            "traffic, raise max_duration, or set a floor."
        )
    else:
        lines.append(f"An equal canary is promoted after about {minutes(longest)} min.")
    if known.latency is None and any(metric.type == "histogram" for metric in spec.metrics):
        lines.append("Latencies are taken as log-normal with sigma 0.5; give --windows for your own.")
    for late in (metric for metric in spec.metrics if metric.label_delay_s > 0):
        lines.append(
            f"{late.name}: {minutes(late.label_delay_s / 60)} of its minutes are the wait until outcomes mature; after "
            f"a promotion they are watched for {minutes((spec.watch_s + late.label_delay_s) / 60)} min more."
        )
    unknown = [metric.name for metric in spec.metrics if metric.type == "rate" and metric.name not in known.rates]
    if unknown:
        lines.append(f"Not forecast, for want of the champion's rate: {', '.join(unknown)}.")
    document = {
        "requests_per_minute": known.requests_per_minute,
        "rates": dict(known.rates),
        "forecasts": [plain(asdict(item)) for item in found],
        "undecidable": open_gates,
        "minutes_to_promote": plain(longest) if gates and not open_gates else None,
    }
    code = ExitCode.PASSED if gates and not open_gates else ExitCode.INCONCLUSIVE
    return Answer(tuple(lines), document, code)


def _merged(base: Any, override: Any) -> Any:
    if isinstance(base, dict) and isinstance(override, dict):
        return {**base, **{key: _merged(base.get(key), value) for key, value in override.items()}}
    return override


def _outcomes(spec: JudgeSpec, windows: Path, labels: Path | None, window_s: float) -> list[Cohort]:
    if spec.longest_delay_s == 0 or (labels is None and windows.suffix.lower() == ".csv"):
        return []
    return read_cohorts(labels or windows, window_s)


def _fitting(settings: Canary, windows: Sequence[Window]) -> tuple[Canary, list[str]]:
    """The settings, with the default metrics narrowed to what was recorded; metrics that were asked for stay."""
    notes = []
    has_latency = any(w.champion.latency_ms is not None or w.canary.latency_ms is not None for w in windows)
    if "metrics" not in settings.model_fields_set and not has_latency:
        metrics = [metric for metric in settings.metrics if metric.name != "latency"]
        settings = settings.model_copy(update={"metrics": metrics})
        notes.append("no window holds latencies, and the configuration does not ask for them: they are not judged")
    judged = {name for metric in settings.metrics for name in (metric.name, *metric.rate_names)}
    judged |= {guard.metric for guard in settings.guards}
    unjudged = sorted({name for w in windows for name in (*w.champion.rates, *w.canary.rates)} - judged)
    if unjudged:
        notes.append(f"recorded, and not judged since canary.metrics does not name it: {', '.join(unjudged)}")
    return settings, notes


def _last_share(settings: Canary, windows: Sequence[Window]) -> float:
    """The share from which a rollout would promote: the plan's last step, if these are windows of that plan."""
    recorded = max((window.share for window in windows), default=0.0)
    planned = [percent / 100 for percent in settings.steps]
    of_the_plan = all(any(math.isclose(w.share, s) for s in planned) for w in windows if w.share > 0)
    several = len({window.share for window in windows if window.share > 0}) > 1
    return planned[-1] if of_the_plan and several else recorded


def _traffic(windows: Sequence[Window]) -> float | None:
    if len(windows) < 2:
        return None
    # The last window's length is not recorded: it counts neither way.
    requests = sum(w.champion.requests + w.canary.requests for w in windows[:-1])
    return 60 * requests / (windows[-1].t - windows[0].t)


def _recorded_rate(name: str, windows: Sequence[Window]) -> float | None:
    if name == "errors":
        pairs = [(w.champion.requests, w.champion.errors) for w in windows]
    else:
        pairs = [w.champion.rates[name] for w in windows if name in w.champion.rates]
    trials, events = sum(n for n, _ in pairs), sum(x for _, x in pairs)
    if trials == 0:
        return None
    # None seen is not none ever: half an event.
    return min(max(events, 0.5), trials - 0.5) / trials


def _recorded(name: str, windows: Sequence[Window]) -> Histogram | None:
    """The champion's histogram of that name over all windows; None when none was recorded."""
    total: Histogram | None = None
    for window in windows:
        one: Histogram | None = getattr(window.champion, name)
        if one is None:
            continue
        if total is not None and total.edges != one.edges:
            raise InputError(f"the recorded {name} have different bins", where=f"t={window.t:g}")
        counts = one.counts if total is None else tuple(a + b for a, b in zip(total.counts, one.counts, strict=True))
        total = Histogram(one.edges, counts)
    return total if total is not None and total.total > 0 else None


def _typical_latency() -> Histogram:
    from statistics import NormalDist

    levels = [i / 20 for i in range(1, 20)] + [0.975, 0.99, 0.995, 0.999]
    edges = tuple(math.exp(4 + 0.5 * NormalDist().inv_cdf(level)) for level in levels)
    counts = [round(100_000 * (b - a)) for a, b in zip([0.0, *levels], [*levels, 1.0], strict=True)]
    return Histogram(edges, tuple(counts))


def _e(log_e: float) -> str:
    return f"{math.exp(min(log_e, 709.0)):.4g}"
