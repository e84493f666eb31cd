"""What a Prometheus server, or what stands before it, can do wrong: late or an error, never a wrong count."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from prometheus_server import Fake, free_port, served

from mlcicd.core.errors import ConfigError, InputError, ServiceError
from mlcicd.rollout.sources import SourceContext, make_source
from mlcicd.rollout.sources.prometheus import PrometheusSource, Queries, render
from mlcicd.rollout.sources.prometheus_api import PrometheusApi

T0 = 1_700_000_000.0
QUERIES = Queries(requests="req{$selector}[$fresh]", errors="err{$selector}[$fresh]")


@pytest.fixture
def fake() -> Fake:
    fake = Fake()
    fake.growth = {'req{v="1"}': [({}, 90.0)], 'req{v="2"}': [({}, 10.0)], "err{": [({}, 0.5)]}
    return fake


@pytest.fixture
def waited() -> list[float]:
    return []


@pytest.fixture
def source(fake: Fake, waited: list[float]) -> Iterator[PrometheusSource]:
    with served(fake.handler()) as address:
        api = PrometheusApi(f"http://{address}", token="s3cret-t0ken", timeout_s=0.5, sleep=waited.append)
        yield PrometheusSource(
            api,
            QUERIES,
            selector='v="$version"',
            champion="1",
            canary="2",
            window_s=10.0,
            share_at=lambda _t: 0.1,
            settle_s=0.0,
        )


def test_without_faults_windows_are_counted(source: PrometheusSource, fake: Fake, waited: list[float]) -> None:
    windows = source.read(T0, T0 + 30)
    assert [(w.champion.requests, w.canary.requests, w.canary.errors) for w in windows] == [(900, 100, 5)] * 2
    assert waited == []
    assert {headers["authorization"] for headers in fake.headers} == {"Bearer s3cret-t0ken"}


@pytest.mark.parametrize(
    "fault",
    [
        (500, b"oops", {}),
        (503, b'{"status":"error","errorType":"timeout"}', {}),
        (429, b"slow down", {}),
        (200, b'{"status":"success","data":{"resultType":"mat', {}),
        (200, b"<html>Please log in</html>", {}),
        (0, b'{"status":"success"', {}),
        (-1, b" " * 200, {}),
    ],
)
def test_what_may_pass_is_asked_again(
    source: PrometheusSource, fake: Fake, waited: list[float], fault: tuple[int, bytes, dict[str, str]]
) -> None:
    fake.faults = [fault, fault]
    assert [w.canary.requests for w in source.read(T0, T0 + 20)] == [100]
    assert waited == [0.5, 1.0]


def test_what_does_not_pass_ends_after_a_few_attempts_and_the_windows_are_read_later(
    source: PrometheusSource, fake: Fake, waited: list[float]
) -> None:
    kept = source.state()
    fake.faults = [(502, b"bad gateway", {"retry-after": "3"})] * 4
    with pytest.raises(ServiceError, match="4 attempts") as caught:
        source.read(T0, T0 + 20)
    assert waited == [3.0, 3.0, 3.0]
    assert len(fake.asked) == 4
    assert "s3cret" not in str(caught.value) + caught.value.detail()
    source.restore(kept)
    assert [w.t for w in source.read(T0, T0 + 30)] == [T0 + 10, T0 + 20]


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ((400, b'{"status":"error","error":"parse error"}', {}), ConfigError, "parse error"),
        ((422, b'{"status":"error","error":"too many samples"}', {}), ConfigError, "too many samples"),
        ((401, b"who are you", {}), ServiceError, "refuses access"),
        ((403, b"", {}), ServiceError, "refuses access"),
        ((302, b"", {"location": "http://elsewhere.invalid/"}), ServiceError, "HTTP status 302"),
        ((404, b"not found", {}), ServiceError, "HTTP status 404"),
        ((200, b'{"status":"error","error":"x"}', {}), ServiceError, "HTTP status 200"),
        ((200, b"[]", {}), ServiceError, "HTTP status 200"),
        ((200, b'{"status":"success","data":{"resultType":"vector","result":[]}}', {}), ServiceError, "not that of"),
        ((200, b'{"status":"success","data":{"resultType":"matrix","result":[{}]}}', {}), ServiceError, "not that of"),
        (
            (
                200,
                b'{"status":"success","warnings":["store a is gone"],"data":{"resultType":"matrix","result":[]}}',
                {},
            ),
            ServiceError,
            "a part of the data",
        ),
    ],
)
def test_what_will_not_pass_is_said_at_once(
    source: PrometheusSource,
    fake: Fake,
    waited: list[float],
    fault: tuple[int, bytes, dict[str, str]],
    kind: type[Exception],
    message: str,
) -> None:
    fake.faults = [fault]
    with pytest.raises(kind, match=message):
        source.read(T0, T0 + 20)
    assert waited == []


def test_remarks_on_a_query_are_no_gap(source: PrometheusSource, fake: Fake) -> None:
    body = b'{"status":"success","warnings":["PromQL info: metric might not be a counter"],"data":'
    fake.faults = [(200, body + b'{"resultType":"matrix","result":[]}}', {})]
    assert source.read(T0, T0 + 20) == []


def test_an_answer_without_end_is_cut(source: PrometheusSource, fake: Fake) -> None:
    fake.faults = [(200, b"[" * ((32 << 20) + 70_000), {})]
    with pytest.raises(ServiceError, match="longer than 32 MiB"):
        source.read(T0, T0 + 20)


def test_nobody_listens() -> None:
    api = PrometheusApi(f"http://127.0.0.1:{free_port()}", timeout_s=0.5, sleep=lambda _s: None)
    with pytest.raises(ServiceError, match="4 attempts"):
        api.query_range("up", T0, 10.0, 2)


def test_buckets_that_do_not_add_up_are_missing_not_negative(fake: Fake) -> None:
    torn = [({"le": "10"}, 9.0), ({"le": "20"}, 5.0), ({"le": "+Inf"}, 10.0)]
    fake.growth["lat{"] = torn
    with served(fake.handler()) as address:
        source = PrometheusSource(
            PrometheusApi(f"http://{address}"),
            Queries(QUERIES.requests, QUERIES.errors, latency="lat{$selector}"),
            selector='v="$version"',
            champion="1",
            canary="2",
            window_s=10.0,
            share_at=lambda _t: 0.1,
            settle_s=0.0,
        )
        [window] = source.read(T0, T0 + 20)
        assert window.canary.latency_ms is None
        torn[1] = ({"le": "20"}, 9.5)
        [window] = source.read(T0, T0 + 20)
        assert window.canary.latency_ms is not None
        assert window.canary.latency_ms.counts == (90, 5, 5)
        torn[1] = ({"le": "wide"}, 9.5)
        with pytest.raises(InputError, match="no number"):
            source.read(T0, T0 + 20)


def test_a_long_absence_is_made_good_in_bounded_pieces(source: PrometheusSource, fake: Fake) -> None:
    since, read = T0, []
    for _ in range(5):
        read = source.read(since, T0 + 20_005)
        if not read:
            break
        assert len(read) <= 1000
        since = read[-1].t
    assert read == []
    assert since == T0 + 19_990


def test_versions_can_not_leave_their_quotes() -> None:
    rendered = render("a{$selector}[$fresh]", selector='v="$version"', version='x"} or b{c="\\', fresh_s=0.5)
    assert rendered == 'a{v="x\\"} or b{c=\\"\\\\"}[500ms]'
    with pytest.raises(ConfigError, match="placeholder"):
        render("a{$selctor}", selector="", version="1", fresh_s=1)
    assert render("a{b=~'c$$'}", selector="", version="1", fresh_s=1) == "a{b=~'c$'}"


def context(**settings: object) -> SourceContext:
    return SourceContext("1", "2", 10.0, lambda _t: 0.1, settings=settings, environ={"TOKEN": "abc"})


def test_what_is_configured_wrong_is_named() -> None:
    with pytest.raises(ConfigError, match="no metric source named 'graphite'"):
        make_source("graphite", context())
    with pytest.raises(ConfigError, match="address of Prometheus is not given"):
        make_source("prometheus", context())
    with pytest.raises(ConfigError, match=r"not an http\(s\) URL"):
        make_source("prometheus", context(url="file:///etc/passwd"))
    with pytest.raises(ConfigError, match="no queries named 'nginx'"):
        make_source("prometheus", context(url="http://localhost", preset="nginx"))
    with pytest.raises(ServiceError, match="MISSING is not set"):
        make_source("prometheus", context(url="http://localhost", token_env="MISSING"))
    with pytest.raises(ConfigError, match="no counters"):
        make_source("router", context())
    with pytest.raises(ConfigError, match="not named"):
        make_source("file", context())
    with pytest.raises(ConfigError, match="longer than 0"):
        SourceContext("1", "2", 0.0, lambda _t: 0.1)


def test_the_token_comes_from_the_environment(fake: Fake) -> None:
    with served(fake.handler()) as address:
        made = make_source("prometheus", context(url=f"http://{address}", token_env="TOKEN", settle_s=0.0))
        made.read(time.time() - 20, time.time())
    assert {headers["authorization"] for headers in fake.headers} == {"Bearer abc"}


def test_a_damaged_state_is_refused() -> None:
    made = make_source("prometheus", context(url="http://localhost"))
    with pytest.raises(InputError, match="damaged"):
        made.restore({"origins": ["yesterday"]})
