"""The model servers of a real target, scraped by a real Prometheus: windows count each request that users sent."""

from __future__ import annotations

import json
import time

import pytest
from prometheus_server import prometheus

from mlcicd.rollout.sources import SourceContext, make_source
from mlcicd.serving.replay import replay

pytestmark = [pytest.mark.slow, pytest.mark.alone]
BODY = json.dumps({"dataframe_records": [{"x": 1.0}]}).encode()
FAILS = json.dumps({"dataframe_records": [{"x": -1.0, "word": "a"}]}).encode()


def test_prometheus_counts_what_the_router_sent(make_target, version, tmp_path):
    target = make_target()
    target.deploy(version("1"))
    target.promote("1")
    target.deploy(version("2"))
    target.set_share("2", 0.5)
    status = target.status()
    addresses = [f"127.0.0.1:{p.port}" for p in status.processes if p.role == "server"]
    with prometheus(tmp_path, scrape=addresses) as url:
        context = SourceContext(
            "1", "2", 0.5, lambda _t: 0.5, settings={"url": url, "preset": "mlcicd", "settle_s": 1.0}
        )
        # A counter is there from a server's first request on.
        replay(status.url, [BODY], rate_per_s=500, count=40)
        time.sleep(1.5)
        before, source = target.counters(), make_source("prometheus", context)
        source.restart(time.time())
        sent = replay(status.url, [BODY, BODY, BODY, FAILS], rate_per_s=200, count=400, concurrency=2)
        time.sleep(2.0)
        windows, after = source.read(None, time.time()), target.counters()
    assert sent.sent == 400
    assert sum(w.champion.requests + w.canary.requests for w in windows) == 400
    for arm, name in (("champion", "1"), ("canary", "2")):
        arms = [getattr(w, arm) for w in windows]
        assert sum(a.requests for a in arms) == after[name].requests - before[name].requests > 100
        assert sum(a.errors for a in arms) == after[name].errors_5xx - before[name].errors_5xx > 20
        assert sum(a.latency_ms.total for a in arms) == sum(a.requests for a in arms)
