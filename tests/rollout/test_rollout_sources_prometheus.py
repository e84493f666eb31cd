"""Windows out of a real Prometheus server: exact counts, what is missing, and what was reset."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_server import Exporter, history, prometheus, served

from mlcicd.core.errors import ConfigError, InputError
from mlcicd.rollout.sources import SourceContext, make_source
from mlcicd.rollout.sources.base import Source
from mlcicd.rollout.windows import Histogram

T0 = 1_700_000_000.0
EDGES = ("10", "50", "+Inf")


def source(url: str, *, champion: str = "1", canary: str = "2", window_s: float = 10.0, **settings: object) -> Source:
    share_at: Callable[[float], float] = settings.pop("share_at", lambda _t: 0.1)  # type: ignore[assignment]
    return make_source(
        "prometheus",
        SourceContext(champion, canary, window_s, share_at, settings={"url": url, "settle_s": 0.0, **settings}),
    )


def envoy(version: str, metric: str, **labels: str) -> str:
    more = "".join(f',{name}="{value}"' for name, value in labels.items())
    return f'envoy_cluster_upstream_{metric}{{envoy_cluster_name="{version}"{more}}}'


def recorded() -> dict[str, dict[float, float]]:
    """Twenty minutes, sampled every 5 s. Growth a second by series; what is odd is said at its place."""
    times = [T0 + 5 * i for i in range(240)]
    samples: dict[str, dict[float, float]] = {}

    def count(series: str, rate: float, *, base: float = 0, skip: Callable[[float], bool] = lambda _t: False) -> None:
        samples[series] = {t: base + round(rate * (t - T0)) for t in times if not skip(t)}

    for version, rate in (("1", 90.0), ("2", 10.0)):
        count(envoy(version, "rq_completed"), rate, base=1_000_000)
        for edge, part in zip(EDGES, (0.5, 0.9, 1.0), strict=True):
            count(envoy(version, "rq_time_bucket", le=edge), rate * part, base=500)
    # The champion has never had an error; the canary's series of errors begins with its first, 100 s in.
    count(envoy("2", "rq_xx", envoy_response_code_class="5"), 0.2, base=-20, skip=lambda t: t <= T0 + 100)
    # `reset`: the process is restarted at 302 s, and counts from nothing.
    completed = envoy("reset", "rq_completed")
    samples[completed] = {t: round(10 * (t - T0 - (302 if t > T0 + 302 else 0))) for t in times}
    # `gap`: not scraped from 300 to 400 s.
    count(envoy("gap", "rq_completed"), 10.0, skip=lambda t: T0 + 300 < t < T0 + 400)
    # `nan`: no number from 300 to 400 s.
    count(envoy("nan", "rq_completed"), 10.0)
    for t in times:
        if T0 + 300 < t < T0 + 400:
            samples[envoy("nan", "rq_completed")][t] = float("nan")
    # `pods`: a second process comes at 302 s.
    count(envoy("pods", "rq_completed", pod="a"), 10.0)
    samples[envoy("pods", "rq_completed", pod="b")] = {t: round(5 * (t - T0 - 300)) for t in times if t > T0 + 302}
    count('mlcicd_requests_total{version="7",code="200"}', 10.0)
    count('mlcicd_requests_total{version="7",code="500"}', 1.0)
    count('kpi_n{version="1"}', 9.0)
    count('kpi_n{version="2"}', 1.0)
    count('kpi_x{version="1"}', 0.9)
    count('kpi_x{version="2"}', 0.2)
    for edge, part in zip(("0.01", "0.05", "+Inf"), (0.5, 0.9, 1.0), strict=True):
        count(f'mlcicd_request_seconds_bucket{{version="7",le="{edge}"}}', 10 * part)
    for edge, part in zip(("0.25", "0.75", "+Inf"), (0.2, 0.9, 1.0), strict=True):
        count(f'mlcicd_prediction_score_bucket{{version="7",le="{edge}"}}', 10 * part)
    istio = 'reporter="destination",destination_version="8"'
    count(f'istio_requests_total{{{istio},response_code="200"}}', 10.0)
    count(f'istio_requests_total{{{istio},response_code="503"}}', 0.5)
    count(f'istio_requests_total{{{istio.replace("destination", "source", 1)},response_code="503"}}', 5.0)
    for edge, part in zip(EDGES, (0.5, 0.9, 1.0), strict=True):
        count(f'istio_request_duration_milliseconds_bucket{{{istio},le="{edge}"}}', 10 * part)
    samples['level{version="1"}'] = {t: 0.25 + (t - T0) / 7 for t in times}
    return samples


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("prometheus")
    with prometheus(folder, data=history(folder, recorded())) as url:
        yield url


def test_counts_are_whole_and_contiguous_windows_lose_nothing(server: str) -> None:
    windows = source(server).read(T0 + 190, T0 + 600)
    assert [w.t for w in windows] == [T0 + 200 + 10 * i for i in range(40)]
    assert {(w.champion.requests, w.canary.requests) for w in windows} == {(900, 100)}
    assert {w.champion.errors for w in windows} == {0}
    assert {w.canary.errors for w in windows} == {2}
    latency = windows[0].canary.latency_ms
    assert latency is not None
    assert latency.edges == (10.0, 50.0)
    assert latency.counts == (50, 40, 10)


def test_a_series_that_begins_with_its_first_error_counts_it(server: str) -> None:
    first = source(server).read(T0 + 80, T0 + 121)
    assert [(w.t - T0, w.canary.errors) for w in first] == [(90, 0), (100, 2), (110, 2)]


def test_reading_often_gives_what_reading_once_gives(server: str) -> None:
    once = source(server).read(T0 + 190, T0 + 600)
    often, since, kept = [], T0 + 190, {}
    for until in (T0 + 203, T0 + 220, T0 + 221, T0 + 347, T0 + 600):
        again = source(server)
        again.restore(kept)
        often += again.read(since, until)
        kept, since = again.state(), often[-1].t if often else since
    assert often == once


def test_what_was_not_scraped_is_missing_and_what_is_no_number_too(server: str) -> None:
    for canary in ("gap", "nan"):
        windows = source(server, canary=canary, queries=ONLY_REQUESTS).read(T0 + 190, T0 + 600)
        starts = {w.t - T0 for w in windows}
        # The last sample before the gap is at 300 s and counts as fresh for 20 s.
        assert not starts & {320, 330, 340, 350, 360, 370, 380}
        assert {310 - 20, 400} <= starts
        assert sum(w.canary.requests for w in windows) <= 10 * 10 * len(starts)
        assert all(w.canary.requests == 100 for w in windows if w.t - T0 not in (300, 310))


ONLY_REQUESTS = {
    "requests": "last_over_time(envoy_cluster_upstream_rq_completed{$selector}[$fresh])",
    "errors": "0 * last_over_time(envoy_cluster_upstream_rq_completed{$selector}[$fresh])",
    "latency": "last_over_time(envoy_cluster_upstream_rq_completed{$selector,le!=''}[$fresh])",
}


def test_a_restarted_process_counts_from_zero(server: str) -> None:
    windows = source(server, canary="reset", queries=ONLY_REQUESTS).read(T0 + 280, T0 + 330)
    assert [(w.t - T0, w.canary.requests) for w in windows] == [(290, 100), (300, 80), (310, 100), (320, 100)]


def test_a_further_process_is_added(server: str) -> None:
    windows = source(server, canary="pods", queries=ONLY_REQUESTS).read(T0 + 280, T0 + 330)
    assert [w.canary.requests for w in windows] == [100, 150, 150, 150]


def test_a_version_that_prometheus_does_not_know_gives_no_window(server: str) -> None:
    assert source(server, canary="nowhere").read(T0 + 190, T0 + 600) == []


def test_errors_that_nobody_measures_are_not_no_errors(server: str) -> None:
    queries = {**ONLY_REQUESTS, "errors": "mispelt_errors_total{$selector}"}
    assert source(server, queries=queries).read(T0 + 190, T0 + 600) == []


def test_the_metrics_of_our_own_server_and_a_rate_by_name(server: str) -> None:
    rates = {"kpi": {"n": 'kpi_n{version="$version"}', "x": 'kpi_x{version="$version"}'}}
    [window] = source(server, queries={"rates": rates}).read(T0 + 190, T0 + 210)
    assert (window.champion.rates["kpi"], window.canary.rates["kpi"]) == ((90, 9), (10, 2))
    [own] = source(server, preset="mlcicd", champion="7", canary="7").read(T0 + 190, T0 + 210)
    assert (own.canary.requests, own.canary.errors) == (110, 10)
    assert own.canary.latency_ms == Histogram((10.0, 50.0), (50, 40, 10))
    assert own.canary.scores == Histogram((0.25, 0.75), (20, 70, 10))


def test_the_metrics_of_istio(server: str) -> None:
    [mesh] = source(server, preset="istio", champion="8", canary="8").read(T0 + 190, T0 + 210)
    assert (mesh.canary.requests, mesh.canary.errors) == (105, 5)
    assert mesh.canary.latency_ms == Histogram((10.0, 50.0), (50, 40, 10))


def test_the_label_that_names_a_version_can_be_chosen(server: str) -> None:
    def chosen(pattern: str) -> Source:
        selector = f'envoy_cluster_name=~"{pattern}"'
        return source(server, champion="po", canary="re", selector=selector, queries=ONLY_REQUESTS)

    assert chosen("${version}").read(T0 + 190, T0 + 210) == []
    [window] = chosen("${version}.*").read(T0 + 190, T0 + 210)
    assert (window.champion.requests, window.canary.requests) == (100, 100)


def test_a_window_in_which_the_share_changed_is_left_out(server: str) -> None:
    changed = source(server, share_at=lambda t: 0.1 if t < T0 + 233 else 0.25)
    windows = changed.read(T0 + 190, T0 + 260)
    assert [(w.t - T0, w.share) for w in windows] == [(200, 0.1), (210, 0.1), (220, 0.1), (240, 0.25), (250, 0.25)]


def test_the_grid_begins_again_where_the_share_was_set(server: str) -> None:
    stepped = source(server, share_at=lambda t: 0.1 if t < T0 + 233 else 0.25)
    stepped.restart(T0 + 200)
    assert [w.t - T0 for w in stepped.read(None, T0 + 212)] == [200]
    stepped.restart(T0 + 233)
    windows = stepped.read(T0 + 200, T0 + 260)
    assert [(w.t - T0, w.share) for w in windows] == [(210, 0.1), (220, 0.1), (233, 0.25), (243, 0.25)]
    again = source(server, share_at=lambda t: 0.25)
    again.restore(stepped.state())
    assert [w.t - T0 for w in again.read(T0 + 243, T0 + 275)] == [253, 263]


def test_a_query_that_is_no_promql_is_the_configurations_error(server: str) -> None:
    with pytest.raises(ConfigError, match="does not take the query"):
        source(server, queries={**ONLY_REQUESTS, "requests": "sum(((("}).read(T0, T0 + 30)


def test_rates_instead_of_counters_are_refused(server: str) -> None:
    queries = {**ONLY_REQUESTS, "requests": 'level{version="1"}', "errors": '0 * level{version="1"}'}
    with pytest.raises(InputError, match="which is no count"):
        source(server, queries=queries).read(T0 + 190, T0 + 210)


def test_buckets_without_the_last_one_are_refused(server: str) -> None:
    bad = {"latency": 'envoy_cluster_upstream_rq_time_bucket{$selector,le!="+Inf"}'}
    with pytest.raises(InputError, match=r"\+Inf"):
        source(server, queries=bad).read(T0 + 190, T0 + 210)


def test_a_live_exporter_is_counted_to_the_last_request(tmp_path: Path) -> None:
    exporter = Exporter()
    truth = {"1": 0, "2": 0}

    def add(version: str, n: int, errors: int = 0) -> None:
        truth[version] += n
        for name, value in (("rq_completed", n), ("rq_xx", errors)):
            labels = {"envoy_response_code_class": "5"} if name == "rq_xx" else {}
            series = envoy(version, name, **labels)
            exporter.values[series] = exporter.values.get(series, 0) + value
        for edge in EDGES:
            series = envoy(version, "rq_time_bucket", le=edge)
            exporter.values[series] = exporter.values.get(series, 0) + (n if edge == "+Inf" else 0)

    add("1", 0)
    add("2", 0)
    with served(exporter.handler()) as address, prometheus(tmp_path, scrape=[address]) as url:
        live = source(url, window_s=0.5, settle_s=0.5)
        time.sleep(1.5)
        start = time.time()
        live.restart(start)
        for i in range(20):
            add("1", 9)
            add("2", 1, errors=int(i % 10 == 0))
            time.sleep(0.1)
        time.sleep(1.5)
        windows = live.read(None, time.time())
        assert len(windows) >= 4
        assert all(w.t >= start for w in windows)
        assert sum(w.champion.requests for w in windows) == truth["1"] == 180
        assert sum(w.canary.requests for w in windows) == truth["2"] == 20
        assert sum(w.canary.errors for w in windows) == 2
        assert sum(w.canary.latency_ms.total for w in windows if w.canary.latency_ms) == 20
        since = windows[-1].t
        exporter.down = True
        time.sleep(1.0)
        fresh = source(url, window_s=0.5, settle_s=0.0, fresh_s=0.3)
        fresh.restore(live.state())
        later = fresh.read(since, time.time())
        assert all(w.t < time.time() - 0.7 for w in later)
