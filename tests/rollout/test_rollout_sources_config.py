"""From `mlcicd.yaml` to a source of windows and to who is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_server import Fake, served

from mlcicd.config import Project, load_project
from mlcicd.core.errors import ConfigError, ServiceError
from mlcicd.rollout.notify import Notification
from mlcicd.rollout.sources.file import FileSource
from mlcicd.rollout.sources.router import RouterSource
from mlcicd.stages.canary_sources import source_of, teller

BASE = """
version: 1
model: {name: m, task: binary}
data: {train: t.csv, holdout: h.csv, target: y}
train: {run: "true"}
"""
ROLLBACK = Notification("rollback", "m", "2", "production")


def project(tmp_path: Path, canary: str, **environ: str) -> Project:
    (tmp_path / "mlcicd.yaml").write_text(f"{BASE}canary: {canary}\n")
    return load_project(tmp_path, environ=environ)


def source(at: Project) -> object:
    return source_of(at, champion="1", canary="2", share_at=lambda _t: 0.1, counters=dict)


def test_each_source_is_made_of_its_section(tmp_path: Path) -> None:
    assert isinstance(source(project(tmp_path, "{}")), RouterSource)
    assert isinstance(source(project(tmp_path, "{source: file, windows: w.csv}")), FileSource)
    for canary, message in (
        ("{source: prometheus}", "needs a section `prometheus`"),
        ("{source: file}", "needs `windows`"),
        ("{source: graphite}", "canary.source"),
        ("{source: prometheus, prometheus: {url: 'http://p', preset: nginx}}", "canary.prometheus.preset"),
        ("{source: prometheus, prometheus: {url: 'http://p', token_env: 'a b'}}", "canary.prometheus.token_env"),
        ("{webhook: {url_env: 'https://hooks.example/s3cret'}}", "canary.webhook.url_env"),
        ("{shadow: {percent: 0}}", "canary.shadow.percent"),
    ):
        with pytest.raises(ConfigError, match=message):
            project(tmp_path, canary)


def test_every_key_of_prometheus_reaches_its_queries(tmp_path: Path) -> None:
    fake = Fake()
    fake.growth = {"seen_total": [({}, 10.0)], "bad_total": [({}, 1.0)], "slow_bucket": [({"le": "0.1"}, 9.0)]}
    fake.growth["slow_bucket"].append(({"le": "+Inf"}, 10.0))
    fake.growth |= {"shown": [({}, 10.0)], "taken": [({}, 2.0)]}
    with served(fake.handler()) as address:
        canary = f"""
  source: prometheus
  window: 20s
  prometheus:
    url: http://{address}/prometheus/
    selector: 'pod=~"m-$version-.*"'
    token_env: TOKEN
    timeout: 2s
    settle: 40s
    fresh: 25s
    queries:
      requests: 'seen_total{{$selector}}[$fresh]'
      errors: 'bad_total{{$selector}}'
      latency: 'slow_bucket{{$selector}}'
      latency_unit: s
      rates: {{clicked: {{n: 'shown{{$selector}}', x: 'taken{{$selector}}'}}}}"""
        made = source_of(
            project(tmp_path, canary, TOKEN="abc"), champion="1", canary="2", share_at=lambda _t: 0.1, counters=None
        )
        windows = made.read(1000.0, 1099.0)
    [window] = windows
    assert (window.t, window.canary.requests, window.canary.errors) == (1020.0, 200, 20)
    assert window.canary.rates == {"clicked": (200, 40)}
    assert window.canary.latency_ms is not None
    assert window.canary.latency_ms.edges == (100.0,)
    assert {headers["authorization"] for headers in fake.headers} == {"Bearer abc"}
    assert 'seen_total{pod=~"m-2-.*"}[25000ms]' in {asked["query"] for asked in fake.asked}
    with pytest.raises(ServiceError, match="TOKEN is not set"):
        source(load_project(tmp_path, environ={}))


def test_a_job_without_the_webhooks_secret_says_so_and_goes_on(tmp_path: Path) -> None:
    assert teller(project(tmp_path, "{}"))(ROLLBACK) == ""
    hook = "{webhook: {url_env: HOOK}}"
    assert "HOOK (canary.webhook.url_env) is not set" in teller(project(tmp_path, hook))(ROLLBACK)
    told = teller(project(tmp_path, hook, HOOK="s3cret-no-url"))(ROLLBACK)
    assert "not an http(s) URL" in told
    assert "s3cret" not in told
