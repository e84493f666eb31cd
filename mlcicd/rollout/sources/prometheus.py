"""Windows from counters that Prometheus has scraped, also those of the past.

Counters are read at both ends of each window and subtracted here, series by series: `increase()` extrapolates, and
loses what happens between its ranges. So the counts are whole, neighbouring windows count nothing twice and lose
nothing, and the evidence does not depend on how often a job looks. What was not scraped is missing, never zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from string import Template
from typing import Any

from mlcicd.core.errors import ConfigError, InputError, ServiceError
from mlcicd.rollout.sources.base import SourceContext
from mlcicd.rollout.sources.prometheus_api import PrometheusApi, Series
from mlcicd.rollout.windows import Arm, Histogram, Window

# Windows in one answer; a source that has been asked nothing for long catches up in several reads.
_MOST_WINDOWS = 1000
# A single series may be gone for this many points before the first window and is still the same series.
_POINTS_BEFORE = 30


@dataclass(frozen=True)
class Queries:
    """PromQL templates for counters, one arm at a time.

    `$selector` stands for the label matchers of the arm, `$version` for its version, `$fresh` for the longest age of
    a sample. Each is to give counters as they are (series that only grow), not rates: the differences are taken here.

    Args:
        requests: requests answered.
        errors: failed requests. It must give a series also while nothing has failed (hence the `or 0 * ...` of the
            defaults): without one, nobody can tell "no error" from "not measured".
        latency: buckets of a histogram, with the label `le`; empty: none.
        latency_ms_per_unit: milliseconds per unit of `le` (1000 for seconds).
        scores: likewise, of predictions.
        rates: further rates by name: the query of the trials and that of the events.
    """

    requests: str
    errors: str
    latency: str = ""
    latency_ms_per_unit: float = 1.0
    scores: str = ""
    rates: Mapping[str, tuple[str, str]] = field(default_factory=dict)


# The metrics' own names, per exporter, and the matchers that pick one version.
PRESETS: dict[str, tuple[str, Queries]] = {
    "envoy": (
        'envoy_cluster_name="$version"',
        Queries(
            requests="last_over_time(envoy_cluster_upstream_rq_completed{$selector}[$fresh])",
            errors='last_over_time(envoy_cluster_upstream_rq_xx{$selector,envoy_response_code_class="5"}[$fresh])'
            " or 0 * last_over_time(envoy_cluster_upstream_rq_completed{$selector}[$fresh])",
            latency="last_over_time(envoy_cluster_upstream_rq_time_bucket{$selector}[$fresh])",
        ),
    ),
    "istio": (
        'reporter="destination",destination_version="$version"',
        Queries(
            requests="last_over_time(istio_requests_total{$selector}[$fresh])",
            errors='last_over_time(istio_requests_total{$selector,response_code=~"5.."}[$fresh])'
            " or 0 * last_over_time(istio_requests_total{$selector}[$fresh])",
            latency="last_over_time(istio_request_duration_milliseconds_bucket{$selector}[$fresh])",
        ),
    ),
    "mlcicd": (
        'version="$version"',
        Queries(
            requests="last_over_time(mlcicd_requests_total{$selector}[$fresh])",
            errors='last_over_time(mlcicd_requests_total{$selector,code=~"5.."}[$fresh])'
            " or 0 * last_over_time(mlcicd_requests_total{$selector}[$fresh])",
            latency="last_over_time(mlcicd_request_seconds_bucket{$selector}[$fresh])",
            latency_ms_per_unit=1000.0,
            scores="last_over_time(mlcicd_prediction_score_bucket{$selector}[$fresh])",
        ),
    ),
}


def render(template: str, *, selector: str, version: str, fresh_s: float) -> str:
    """A template as PromQL. The version is escaped as in a PromQL string.

    Raises:
        ConfigError: the template has a placeholder that there is not.
    """
    escaped = version.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    try:
        matchers = Template(selector).substitute(version=escaped)
        return Template(template).substitute(
            selector=matchers, version=escaped, fresh=f"{max(1, math.ceil(fresh_s * 1000))}ms"
        )
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"a query's placeholder is unknown: {error}",
            where="canary.prometheus",
            why=f"The template is: {template}",
            remedy="use $selector, $version and $fresh; write a dollar sign as $$",
        ) from error


class PrometheusSource:
    """Windows on a fixed grid that begins where the traffic share was set.

    Args:
        api: the server.
        queries: the templates.
        selector: template of the label matchers of one version, with `$version`.
        champion, canary: the versions.
        window_s: a window's length, at least the scrape interval; twice that is better.
        share_at: the intended share at a time.
        settle_s: a window is read this long after its end, when its last samples have arrived.
        fresh_s: the longest age of a sample at a window's end; older is missing.
    """

    def __init__(
        self,
        api: PrometheusApi,
        queries: Queries,
        *,
        selector: str,
        champion: str,
        canary: str,
        window_s: float,
        share_at: Callable[[float], float],
        settle_s: float = 15.0,
        fresh_s: float = 20.0,
    ) -> None:
        self._api = api
        self._queries = queries
        self._versions = {
            version: {"selector": selector, "version": version, "fresh_s": fresh_s} for version in (champion, canary)
        }
        self._arms = (champion, canary)
        # Milliseconds are all that the query's times have.
        self._window_s = round(window_s, 3)
        if self._window_s <= 0:
            raise ConfigError("a window of Prometheus' counters lasts at least a millisecond", where="canary.window")
        self._share_at = share_at
        self._settle_s = settle_s
        # Where the grids begin; a grid ends where the next begins.
        self._origins: list[float] = []

    def read(self, since: float | None, until: float) -> list[Window]:
        closed = until - self._settle_s
        if not self._origins:
            # Never told when the share was set: the grid is that of the last window, or ends with one closed now.
            self._origins = [_milliseconds(closed - self._window_s if since is None else since)]
        windows: list[Window] = []
        for at, origin in enumerate(self._origins):
            end = self._origins[at + 1] if at + 1 < len(self._origins) else math.inf
            first = 0 if since is None else max(0, math.floor((since - origin) / self._window_s + 1e-6) + 1)
            count = math.floor((min(closed, end) - origin) / self._window_s + 1e-6) - first
            count = min(count, _MOST_WINDOWS - len(windows))
            if count > 0:
                windows += self._grid(origin + first * self._window_s, count)
        self._forget(since)
        return windows

    def restart(self, now: float) -> None:
        self._origins.append(_milliseconds(now))

    def state(self) -> dict[str, Any]:
        return {"origins": list(self._origins)}

    def restore(self, state: Mapping[str, Any]) -> None:
        if not state:
            return
        origins = state.get("origins")
        if not isinstance(origins, list) or not all(isinstance(origin, int | float) for origin in origins):
            raise InputError("the Prometheus source's last state is damaged")
        self._origins = sorted(float(origin) for origin in origins)

    def _forget(self, since: float | None) -> None:
        """Grids of which every window has been consumed are not needed again."""
        while len(self._origins) > 1 and since is not None and self._origins[1] - self._window_s <= since:
            self._origins.pop(0)

    def _grid(self, start: float, count: int) -> list[Window]:
        champion, canary = (_ArmCounts(self, version, start, count) for version in self._arms)
        found = []
        for i in range(count):
            t = round(start + i * self._window_s, 3)
            share = self._share_at(t)
            if share != self._share_at(t + self._window_s - 0.001):
                continue
            arms = champion.window(i), canary.window(i)
            if arms[0] is not None and arms[1] is not None:
                found.append(Window(t=t, champion=arms[0], canary=arms[1], share=share))
        return found

    def ask(self, version: str, template: str, start: float, count: int) -> list[Series]:
        """The series of one query at the `count + 1` ends of windows, after `_POINTS_BEFORE` points before them."""
        query = render(template, **self._versions[version])  # type: ignore[arg-type]
        begin = start - _POINTS_BEFORE * self._window_s
        return self._api.query_range(query, begin, self._window_s, _POINTS_BEFORE + count + 1)

    @property
    def queries(self) -> Queries:
        return self._queries


class _ArmCounts:
    """What one version's queries give for a stretch of windows."""

    def __init__(self, source: PrometheusSource, version: str, start: float, count: int) -> None:
        queries = source.queries

        def ask(template: str) -> _Counter:
            return _Counter(source.ask(version, template, start, count), template)

        self._requests, self._errors = ask(queries.requests), ask(queries.errors)
        self._latency = ask(queries.latency) if queries.latency else None
        self._scores = ask(queries.scores) if queries.scores else None
        self._rates = {name: (ask(n), ask(x)) for name, (n, x) in queries.rates.items()}
        self._ms = queries.latency_ms_per_unit

    def window(self, i: int) -> Arm | None:
        """The arm in window `i`, or None where requests or errors are not known."""
        requests, errors = self._requests.total(i), self._errors.total(i)
        if requests is None or errors is None:
            return None
        rates = {}
        for name, (trials, events) in self._rates.items():
            n, x = trials.total(i), events.total(i)
            if n is not None and x is not None:
                rates[name] = (n, min(n, x))
        return Arm(
            requests=requests,
            # Two series may be of two moments: an error may be there before its request.
            errors=min(requests, errors),
            latency_ms=self._latency.histogram(i, self._ms) if self._latency else None,
            scores=self._scores.histogram(i, 1.0) if self._scores else None,
            rates=rates,
        )


class _Counter:
    """Growth of a family of counters from one end of a window to the other."""

    def __init__(self, series: list[Series], template: str) -> None:
        self._series = series
        self._template = template
        self._present = {index for one in series for index in one.values}

    def total(self, i: int) -> int | None:
        """Sum over the series, or None where the family is not known at both ends."""
        if not self._known(i):
            return None
        return self._whole(sum(self._growth(one, i) for one in self._series))

    def histogram(self, i: int, scale: float) -> Histogram | None:
        """Counts by bin, or None where they are not known, or torn (buckets that do not add up)."""
        if not self._known(i):
            return None
        cumulative: dict[float, float] = {}
        for one in self._series:
            edge = _edge(one.label("le"), self._template)
            cumulative[edge] = cumulative.get(edge, 0.0) + self._growth(one, i)
        edges = sorted(cumulative)
        if len(edges) < 2 or edges[-1] != math.inf:
            raise InputError(
                'a histogram\'s query gives no bucket with le="+Inf", or no other',
                where="canary.prometheus.queries",
                why=f"The template is: {self._template}",
                remedy="give the `_bucket` series, and aggregate them, if at all, `by (le)`",
            )
        running = [self._whole(cumulative[edge]) for edge in edges]
        counts = tuple(count - before for count, before in zip(running, [0, *running[:-1]], strict=True))
        if min(counts) < 0:
            return None
        return Histogram(tuple(edge * scale for edge in edges[:-1]), counts)

    def _known(self, i: int) -> bool:
        return {i + _POINTS_BEFORE, i + _POINTS_BEFORE + 1} <= self._present

    def _growth(self, one: Series, i: int) -> float:
        """What one series grew by. One that begins while others of its family are there begins with its first event;
        one that was away grows from where it was; one that is smaller than before was reset to zero."""
        after = one.values.get(i + _POINTS_BEFORE + 1)
        if after is None:
            return 0.0
        earlier = [index for index in one.values if index <= i + _POINTS_BEFORE]
        before = one.values[max(earlier)] if earlier else 0.0
        return after - before if after >= before else after

    def _whole(self, value: float) -> int:
        if abs(value - round(value)) > 1e-6 * max(1.0, abs(value)) or value < 0:
            raise InputError(
                f"a query gives {value:g} events, which is no count",
                where="canary.prometheus.queries",
                why=f"The template is: {self._template}",
                remedy="give the counters themselves, not rate() or increase() of them",
            )
        return round(value)


def _edge(le: str, template: str) -> float:
    try:
        edge = float(le)
    except ValueError:
        edge = math.nan
    if math.isnan(edge):
        raise InputError(
            f"a histogram's series has the label le={le!r}, which is no number",
            where="canary.prometheus.queries",
            why=f"The template is: {template}",
            remedy="give the `_bucket` series",
        )
    return edge


def _milliseconds(t: float) -> float:
    """Up to the next millisecond, so that a grid never begins before the share was set."""
    return math.ceil(t * 1000) / 1000


def make(context: SourceContext) -> PrometheusSource:
    """The source named `prometheus`. Settings: those of `canary.prometheus`.

    Raises:
        ConfigError: no URL, an unknown preset, an environment variable that is not set.
    """
    settings = context.settings
    if not settings.get("url"):
        raise ConfigError("the address of Prometheus is not given", where="canary.prometheus.url")
    preset = str(settings.get("preset") or "envoy")
    if preset not in PRESETS:
        raise ConfigError(
            f"there are no queries named {preset!r}",
            where="canary.prometheus.preset",
            remedy=f"choose one of {', '.join(PRESETS)}, and override single queries under `queries`",
        )
    variable = str(settings.get("token_env") or "")
    token = context.environ.get(variable, "") if variable else ""
    if variable and not token:
        raise ServiceError(
            f"the environment variable {variable} is not set",
            where="canary.prometheus.token_env",
            remedy="give it to the job that judges the canary, as a secret",
        )
    selector, queries = PRESETS[preset]
    return PrometheusSource(
        PrometheusApi(str(settings["url"]), token=token, timeout_s=float(settings.get("timeout_s", 10.0))),
        _overridden(queries, settings.get("queries") or {}),
        selector=str(settings.get("selector") or selector),
        champion=context.champion,
        canary=context.canary,
        window_s=context.window_s,
        share_at=context.share_at,
        settle_s=float(settings.get("settle_s", 15.0)),
        fresh_s=float(settings.get("fresh_s") or max(20.0, 1.5 * context.window_s)),
    )


def _overridden(base: Queries, own: Mapping[str, Any]) -> Queries:
    per_unit = 1000.0 if own.get("latency_unit") == "s" else 1.0
    return Queries(
        requests=own.get("requests") or base.requests,
        errors=own.get("errors") or base.errors,
        latency=own.get("latency") or base.latency,
        latency_ms_per_unit=per_unit if own.get("latency") else base.latency_ms_per_unit,
        scores=own.get("scores") or base.scores,
        rates={name: (str(pair["n"]), str(pair["x"])) for name, pair in (own.get("rates") or {}).items()},
    )
