"""A rollout over HTTPRoute weights, judged by counts that a real Prometheus has scraped."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kube_world import World, model_version, service, world
from prometheus_server import Exporter, prometheus
from prometheus_server import served as serving

from mlcicd.rollout import JudgeSpec, MetricSpec
from mlcicd.rollout.controller import Controller
from mlcicd.rollout.sources import SourceContext, make_source
from mlcicd.rollout.state import Phase, Plan
from mlcicd.rollout.store import FileCell, Store
from mlcicd.stages.canary_ground import TargetTraffic

pytestmark = pytest.mark.slow
WINDOW_S = 0.5


class Ledger:
    """Instead of the registry."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def promoted(self, version: str) -> None:
        self.said.append(("promoted", version))

    def taken_back(self, version: str, outcome: str, _reason: str) -> None:
        self.said.append((outcome, version))


@contextmanager
def _users(kube: World, exporter: Exporter, failing: dict[str, float]) -> Iterator[None]:
    """Requests, each to a version by the route's weights of that moment, counted as the model server counts them."""
    draw, stop = random.Random(7), threading.Event()
    for version in ("1", "2"):
        for code in ("200", "500"):
            exporter.values[f'mlcicd_requests_total{{version="{version}",code="{code}"}}'] = 0

    def send() -> None:
        while not stop.is_set():
            weights = kube.cluster.weights()
            for name in draw.choices(list(weights), list(weights.values()), k=10):
                version = name.rpartition("--v")[2]
                code = "500" if draw.random() < failing.get(version, 0.0) else "200"
                exporter.values[f'mlcicd_requests_total{{version="{version}",code="{code}"}}'] += 1
            time.sleep(0.01)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _rollout(kube: World, url: str, ledger: Ledger, folder: Path) -> Controller:
    spec = JudgeSpec(
        metrics=(MetricSpec("errors", margin=3.0, floor=0.02),),
        alpha=0.05,
        beta=0.1,
        min_windows=2,
        step_windows=2,
        min_requests=50,
    )
    settings = {"url": url, "preset": "mlcicd", "settle_s": 0.5, "fresh_s": 5.0}
    return Controller(
        Plan("2", "1", "", spec, (0.2, 0.5), WINDOW_S, 600.0),
        Store(FileCell(folder / "rollout.json")),
        TargetTraffic(kube.target()),
        lambda share_at: make_source("prometheus", SourceContext("1", "2", WINDOW_S, share_at, settings=settings)),
        ledger,
    )


@pytest.mark.parametrize(("failing", "ends"), [({}, "promoted"), ({"2": 0.4}, "rollback")])
def test_weights_walk_up_to_promotion_and_back_to_nothing_on_harm(tmp_path, failing, ends):
    ledger, exporter = Ledger(), Exporter()
    with world(tmp_path) as kube, serving(exporter.handler()) as scraped:
        target = kube.target()
        target.deploy(model_version("1"))
        target.promote("1")
        target.deploy(model_version("2"))
        with _users(kube, exporter, failing), prometheus(tmp_path, scrape=[scraped]) as url:
            _rollout(kube, url, ledger, tmp_path).start()
            for _ in range(120):
                # A new one each time, as a scheduled job would make it.
                if _rollout(kube, url, ledger, tmp_path).step().state.phase is Phase.DONE:
                    break
                time.sleep(WINDOW_S)
        assert ledger.said == [(ends, "2")]
        assert kube.cluster.lost == []
        first, second = service("1"), service("2")
        if ends == "promoted":
            walked = [s for i, s in enumerate(kube.cluster.shares) if i == 0 or s != kube.cluster.shares[i - 1]]
            assert walked == [{first: 100}, {second: 20, first: 80}, {second: 50, first: 50}, {second: 100}]
            assert kube.target().status().previous == "1"
        else:
            assert kube.cluster.weights() == {first: 100}
            assert not any("v2" in name for name in kube.cluster.kinds())
