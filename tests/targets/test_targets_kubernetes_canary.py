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

from mlcicd.config.canary import Canary, CanaryMetric, Shadow
from mlcicd.core.errors import ConfigError, ServiceError
from mlcicd.rollout import Arm, JudgeSpec, MetricSpec, Window
from mlcicd.rollout.controller import Controller
from mlcicd.rollout.sources import SourceContext, make_source
from mlcicd.rollout.state import Phase, Plan
from mlcicd.rollout.store import FileCell, Store
from mlcicd.stages.canary_ground import TargetTraffic
from mlcicd.stages.canary_shadow import shadow
from mlcicd.targets.base import Mirroring
from mlcicd.targets.kubernetes import KubernetesTarget, manifests

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


def _copies(kube: World) -> list[object]:
    (route,) = [one for one in kube.cluster.objects.values() if one["kind"] == "HTTPRoute"]
    return [one["requestMirror"] for rule in route["spec"]["rules"] for one in rule.get("filters", [])]


def _waiting(kube: World) -> KubernetesTarget:
    target = kube.target()
    target.deploy(model_version("1"))
    target.promote("1")
    target.deploy(model_version("2"))
    return target


def test_a_mirror_copies_to_a_waiting_version_until_it_has_traffic(tmp_path):
    with world(tmp_path) as kube:
        target = _waiting(kube)
        assert isinstance(target, Mirroring)
        target.set_mirror("2", 0.2)
        backend = {"group": "", "kind": "Service", "name": service("2"), "port": 80}
        assert _copies(kube) == [{"backendRef": backend, "percent": 20}]
        assert kube.cluster.weights() == {service("1"): 100}
        kube.target().set_mirror("2", 0)
        assert _copies(kube) == []
        kube.target().set_mirror("2", 0.5)
        kube.target().set_share("2", 0.1)
        assert _copies(kube) == [] and kube.cluster.weights() == {service("2"): 10, service("1"): 90}
        with pytest.raises(ServiceError, match=r"has 10\.0% of the traffic"):
            kube.target().set_mirror("2", 0.2)
        with pytest.raises(ServiceError, match="not deployed here as a canary"):
            kube.target().set_mirror("1", 0.2)
        kube.target().set_mirror("9", 0)
        assert kube.cluster.lost == []


def test_a_cluster_that_would_copy_everything_copies_nothing(tmp_path):
    with world(tmp_path) as kube:
        target = _waiting(kube)
        kube.cluster.no_parts = True
        with pytest.raises(ServiceError, match="can not be copied") as caught:
            target.set_mirror("2", 0.2)
        assert "Gateway API 1.3" in caught.value.remedy and _copies(kube) == []
        target.set_mirror("2", 1.0)
        assert len(_copies(kube)) == 1
        target.abort()
        assert _copies(kube) == []


def test_a_mirror_of_the_projects_own_is_the_clusters_to_complete(tmp_path):
    with world(tmp_path) as kube:
        package = Path(manifests.__file__).with_name("templates") / "route.yaml.j2"
        theirs = "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: archive, port: 80}, percent: 5}}]"
        (tmp_path / "own").mkdir()
        (tmp_path / "own" / "route.yaml.j2").write_text(
            package.read_text().replace("backendRefs:", f"{theirs}\n      backendRefs:")
        )
        # What comes back is not what was sent, as with the defaults of a CRD.
        kube.cluster.no_parts = True
        target = kube.target(templates="own")
        target.deploy(model_version("1"))
        target.promote("1")
        assert kube.cluster.weights() == {service("1"): 100} and len(_copies(kube)) == 1


@pytest.mark.parametrize(("failing", "action"), [(0.0, "continue"), (0.5, "rollback")], ids=["good", "bad"])
def test_a_shadow_is_judged_by_the_counts_of_another_source(tmp_path, failing, action):
    """The copies are counted by whatever `canary.source` is: here windows that say how many there were."""

    class Counts:
        def __init__(self) -> None:
            self.t = 0.0
            self.asked: list[float] = []

        def read(self, _since: float | None, _until: float) -> list[Window]:
            self.t += 1
            self.asked.append(len(_copies(kube)))
            return [Window(t=self.t, champion=Arm(400, 1), canary=Arm(200, int(200 * failing)), share=0.33)]

        def restart(self, _now: float) -> None: ...

        def state(self) -> dict[str, object]:
            return {}

        def restore(self, _state: object) -> None: ...

    settings = Canary(shadow=Shadow(duration="2s", percent=50), window="100ms", metrics=[CanaryMetric(name="errors")])
    with world(tmp_path) as kube:
        target, counts = _waiting(kube), Counts()
        ended = shadow(target, settings, "1", "2", counted=lambda _share_at: counts)
        assert ended is not None and ended.action.value == action
        assert set(counts.asked) == {1} and _copies(kube) == []
        with pytest.raises(ConfigError, match="nobody counts"):
            shadow(target, settings, "1", "2")
