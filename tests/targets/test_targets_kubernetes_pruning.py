"""What templates no longer give is removed: shown before, after the traffic has left it, and nobody else's object."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from kube_server import KINDS
from kube_world import NAME, World, model_version, service, world

from mlcicd.core.errors import InputError, ServiceError
from mlcicd.targets.kubernetes.api import Api

pytestmark = pytest.mark.slow
MONITOR = """\
apiVersion: v1
kind: Secret
metadata: {name: {{ %s | tojson }}}
"""


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made
        assert made.cluster.lost == []


def _templates(kube: World, **files: str) -> None:
    """The project's own templates are these, by name without its ending."""
    folder = kube.folder / "own"
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for name, text in files.items():
        (folder / f"{name.replace('_', '-')}.yaml.j2").write_text(text)


def _with_extras(kube: World) -> None:
    """Version 1 is live, with an object of a kind that no template of the package has; so has the model."""
    _templates(kube, model_extra=MONITOR % "name", version_extra=MONITOR % "versioned")
    target = kube.target(templates="own")
    target.deploy(model_version("1"))
    target.promote("1")
    assert {f"Secret/{NAME}", f"Secret/{service('1')}"} <= set(kube.cluster.kinds())


def test_a_kind_that_no_template_gives_any_more_is_removed_and_shown_before(kube):
    _with_extras(kube)
    kube.cluster.put("/api/v1", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "theirs"}})
    labels = kube.cluster.objects[f"/api/v1/namespaces/ml/secrets/{NAME}"]["metadata"]["labels"]
    alike = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "labelled-alike", "labels": labels}}
    kube.cluster.put("/api/v1", alike)
    _templates(kube)

    before = kube.cluster.picture()
    lines = kube.target(templates="own").plan(model_version("2"))
    assert f"--- Secret/{NAME} (cluster)" in lines and f"+++ Secret/{NAME} (to remove)" in lines
    assert not any("theirs" in line or "labelled-alike" in line for line in lines)
    assert kube.cluster.picture() == before, "a plan changes nothing"

    kube.target(templates="own").deploy(model_version("2"))
    left = {name for name in kube.cluster.kinds() if name.startswith("Secret/")}
    # Version 1 was not applied again: its objects are as they were when it was.
    assert left == {"Secret/theirs", "Secret/labelled-alike", f"Secret/{service('1')}"}
    kube.target(templates="own").reconcile()
    assert not any(service("1") in name for name in kube.cluster.kinds() if name.startswith("Secret/"))
    kube.target(templates="own").stop()
    assert kube.cluster.kinds() == ["Secret/labelled-alike", "Secret/theirs"]


def test_stop_removes_what_the_templates_of_now_do_not_know(kube):
    _with_extras(kube)
    _templates(kube)
    kube.target(templates="own").stop()
    assert kube.cluster.kinds() == []


def test_an_extra_that_comes_back_is_kept(kube):
    _with_extras(kube)
    _templates(kube)
    kube.target(templates="own").deploy(model_version("2"))
    _templates(kube, model_extra=MONITOR % "name")
    kube.target(templates="own").reconcile()
    assert f"Secret/{NAME}" in kube.cluster.kinds()


def test_another_version_of_the_same_kind_is_the_same_object(kube, monkeypatch):
    """The cluster serves both versions, as an API server does: each lists what was applied as the other."""
    plural = {"HorizontalPodAutoscaler": "horizontalpodautoscalers"}
    monkeypatch.setitem(KINDS, "/apis/autoscaling/v1", plural)
    monkeypatch.setitem(KINDS, "/apis/autoscaling/v2", plural)
    handle = kube.cluster.handle
    monkeypatch.setattr(
        kube.cluster,
        "handle",
        lambda m, path, q, b: handle(m, path.replace("/autoscaling/v1/n", "/autoscaling/v2/n"), q, b),
    )
    extra = MONITOR.replace("Secret", "HorizontalPodAutoscaler")
    _templates(kube, model_extra=extra.replace("v1", "autoscaling/v1") % "name")
    kube.target(templates="own").deploy(model_version("1"))
    kube.target(templates="own").promote("1")
    name = f"HorizontalPodAutoscaler/{NAME}"
    _templates(kube, model_extra=extra.replace("v1", "autoscaling/v2") % "name")
    assert not any("to remove" in line for line in kube.target(templates="own").plan(model_version("2")))
    kube.target(templates="own").deploy(model_version("2"))
    assert name in kube.cluster.kinds()
    # What no version of it gives any more still goes.
    _templates(kube)
    kube.target(templates="own").deploy(model_version("2"))
    assert name not in kube.cluster.kinds()


def test_a_kind_that_the_cluster_has_forgotten_is_no_obstacle(kube, monkeypatch):
    _with_extras(kube)
    _templates(kube)
    for path in [path for path in kube.cluster.objects if "/secrets/" in path]:
        del kube.cluster.objects[path]
    monkeypatch.setitem(KINDS, "/api/v1", {k: v for k, v in KINDS["/api/v1"].items() if k != "Secret"})
    kube.target(templates="own").deploy(model_version("2"))
    kube.target(templates="own").stop()
    assert kube.cluster.kinds() == []


def _forbid(kube: World, *methods: str) -> None:
    kube.cluster.faults = lambda _n, method, path: "403" if "/secrets" in path and method in methods else None


def test_a_kind_of_the_past_needs_no_permission_once_nothing_of_it_is_left(kube):
    _with_extras(kube)
    _templates(kube)
    kube.target(templates="own").deploy(model_version("2"))
    kube.target(templates="own").reconcile()
    _forbid(kube, "GET", "DELETE")
    kube.target(templates="own").set_share("2", 0.25)
    kube.target(templates="own").promote("2")
    assert kube.cluster.weights() == {service("2"): 100}
    kube.target(templates="own").stop()
    assert kube.cluster.kinds() == []


def test_a_clean_up_that_fails_gives_a_bad_canary_no_traffic_again(kube):
    _with_extras(kube)
    target = kube.target(templates="own")
    target.deploy(model_version("2"))
    target.set_share("2", 0.25)
    _forbid(kube, "DELETE")
    _templates(kube)
    with pytest.raises(ServiceError, match="could not be removed"):
        kube.target(templates="own").reconcile()
    with pytest.raises(ServiceError, match="could not be removed"):
        kube.target(templates="own").set_share("2", 0.0)
    assert kube.cluster.weights().get(service("2"), 0) == 0
    assert kube.target().status().share == 0
    # One that fails to get more is where it was, as its caller is promised.
    with pytest.raises(ServiceError, match="could not be removed"):
        kube.target(templates="own").promote("2")
    assert kube.target().status().live == "1"
    _forbid(kube)
    kube.target(templates="own").promote("2")
    assert not any(name.startswith("Secret/") for name in kube.cluster.kinds())


def test_an_inventory_that_can_not_be_read_stops_before_anything_is_removed(kube):
    _with_extras(kube)
    kube.cluster.objects[f"/api/v1/namespaces/ml/configmaps/{NAME}"]["data"]["inventory.json"] = "["
    before = json.dumps(sorted(kube.cluster.objects))
    with pytest.raises(InputError, match="inventory"):
        kube.target().reconcile()
    assert json.dumps(sorted(kube.cluster.objects)) == before


def _live_and_canary(kube: World, kind: str) -> None:
    target = kube.target(kind=kind)
    target.deploy(model_version("1"))
    target.promote("1")
    target.deploy(model_version("2"))
    target.set_share("2", 0.25)


@pytest.mark.parametrize(("before", "after"), [("gateway", "kserve"), ("kserve", "gateway")])
def test_another_kind_takes_over_without_a_request_lost(kube, before, after):
    """The new workloads serve before the route names them, and the old ones are removed after it."""
    _live_and_canary(kube, before)
    old = {name for name in kube.cluster.kinds() if "--v" in name}
    kube.target(kind=after).reconcile()
    suffix = "-predictor" if after == "kserve" else ""
    assert kube.cluster.weights() == {service("2") + suffix: 25, service("1") + suffix: 75}
    made = {name for name in kube.cluster.kinds() if "--v" in name}
    kinds = {name.partition("/")[0] for name in made}
    own = {"InferenceService"} if after == "kserve" else {"Deployment", "PodDisruptionBudget"}
    assert kinds == {*own, "Service"} and not any(name in made for name in old)
    kube.target(kind=after).promote("2")
    kube.target(kind=after).rollback()
    assert kube.cluster.weights() == {service("1") + suffix: 100}
    kube.target(kind=after).stop()
    assert kube.cluster.kinds() == []


def test_a_kind_that_does_not_get_ready_leaves_the_old_one_serving(kube):
    _live_and_canary(kube, "gateway")
    weights, objects = kube.cluster.weights(), set(kube.cluster.kinds())
    kube.cluster.stuck = {"registry.example.com/ml/toy:1-11111111"}
    with pytest.raises(ServiceError, match="not ready"):
        kube.target(kind="kserve", ready_timeout_s=0.3).reconcile()
    assert kube.cluster.weights() == weights and objects <= set(kube.cluster.kinds())
    # Back to what it was, and what was begun is removed.
    kube.cluster.stuck = set()
    kube.target(kind="gateway").reconcile()
    assert set(kube.cluster.kinds()) == objects and kube.cluster.weights() == weights


def test_killed_after_a_write_of_a_switch_and_run_again_it_ends_where_it_would_have(tmp_path, monkeypatch):
    left = {"writes": -1}
    send = Api._send

    class Killed(BaseException):
        pass

    def counted(self, method, path, params, body, content, *, renewed):
        answer = send(self, method, path, params, body, content, renewed=renewed)
        left["writes"] -= method != "GET"
        if left["writes"] == 0:
            raise Killed
        return answer

    monkeypatch.setattr(Api, "_send", counted)
    kills = 0
    with world(tmp_path) as kube:
        _live_and_canary(kube, "gateway")
        start = json.dumps([kube.cluster.objects, kube.cluster.applied])
        kube.target(kind="kserve").deploy(model_version("2"))
        wanted, weights = kube.cluster.picture(), kube.cluster.weights()
        assert not any(name.startswith("Deployment/") for name in kube.cluster.kinds())
        for number in itertools.count(1, 3):
            kube.cluster.objects, kube.cluster.applied = json.loads(start)
            left["writes"] = number
            try:
                kube.target(kind="kserve").deploy(model_version("2"))
                break
            except Killed:
                kills += 1
            left["writes"] = -1
            kube.target(kind="kserve").deploy(model_version("2"))
            assert kube.cluster.picture() == wanted, number
            assert kube.cluster.weights() == weights
        assert kube.cluster.lost == []
    assert kills >= 4


@pytest.mark.parametrize("fault", ["409", "lost"])
def test_each_request_of_a_switch_may_fail_once(tmp_path, fault):
    with world(tmp_path) as kube:
        _live_and_canary(kube, "gateway")
        failed: set[str] = set()

        def once(_number: int, method: str, path: str) -> str | None:
            if (fault == "409" and method != "DELETE") or f"{method} {path}" in failed:
                return None
            failed.add(f"{method} {path}")
            return fault

        kube.cluster.faults = once
        kube.target(kind="kserve").reconcile()
        assert failed and kube.cluster.lost == []
        assert not any(name.startswith(("Deployment/", "PodDisruptionBudget/")) for name in kube.cluster.kinds())
        assert kube.cluster.weights() == {f"{service('2')}-predictor": 25, f"{service('1')}-predictor": 75}
