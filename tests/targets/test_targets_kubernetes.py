"""The kubernetes target against a stand-in API server over real HTTP."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from kube_server import TOKEN
from kube_world import NAME, World, image, model_version, service, world

from mlcicd.core.errors import CommandFailed, ConfigError, InputError, MlcicdError, ServiceError
from mlcicd.targets import Target, load_target
from mlcicd.targets.base import Attended, Planning
from mlcicd.targets.kubernetes import KubernetesTarget
from mlcicd.targets.kubernetes.api import Api

pytestmark = pytest.mark.slow


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made
        assert made.cluster.lost == []


def _live_and_canary(kube: World, **options: Any) -> KubernetesTarget:
    target = kube.target(**options)
    target.deploy(model_version("1"))
    target.promote("1")
    target.deploy(model_version("2"))
    return target


def test_it_is_found_by_name_and_keeps_the_protocol(kube):
    assert load_target("kubernetes") is KubernetesTarget
    target = kube.target()
    assert isinstance(target, Target) and isinstance(target, Planning)
    # No process of ours is where the router is: the canary stage warns of that.
    assert not isinstance(target, Attended)


@pytest.mark.parametrize(
    ("kind", "suffix", "workload"), [("gateway", "", "Deployment"), ("kserve", "-predictor", "InferenceService")]
)
def test_a_version_goes_from_deployed_to_canary_to_live_and_back(kube, kind, suffix, workload):
    target = kube.target(kind=kind)
    target.deploy(model_version("1"))
    assert kube.cluster.weights() == {}, "deployed is not live"
    target.promote("1")
    one, two = service("1") + suffix, service("2") + suffix
    assert kube.cluster.weights() == {one: 100}

    target.deploy(model_version("2"))
    assert kube.cluster.weights() == {one: 100}
    target.set_share("2", 0.05)
    assert kube.cluster.weights() == {two: 5, one: 95}
    target.set_share("2", 0.125)
    assert kube.cluster.weights() == {two: 125, one: 875}
    target.set_share("2", 0.0)
    assert kube.cluster.weights() == {one: 100}
    target.set_share("2", 1.0)
    assert kube.cluster.weights() == {two: 100}

    target.promote("2")
    target.promote("2")
    status = kube.target(kind=kind).status()
    assert (status.live, status.canary, status.previous, status.share) == ("2", None, "1", 0.0)
    assert status.healthy and status.url == "http://scorer.example.com"
    assert f"{workload}/{service('1')}" in kube.cluster.kinds(), "the previous version stays warm"

    asked = len(kube.cluster.log)
    assert kube.target(kind=kind).rollback() == "1"
    first_write = [line for line in kube.cluster.log[asked:] if not line.startswith("GET")][:2]
    assert "configmaps" in first_write[0] and "httproutes" in first_write[1], "traffic goes before all else"
    assert kube.cluster.weights() == {one: 100}
    assert target.rollback() == "1", "a repeated rollback must not bring the bad version back"
    assert f"{workload}/{service('2')}" not in kube.cluster.kinds()

    target.stop()
    target.stop()
    assert kube.cluster.kinds() == []
    assert target.status().processes == () and target.status().url == ""


def test_a_repeated_call_changes_nothing(kube):
    target = _live_and_canary(kube)
    target.set_share("2", 0.25)
    before = json.dumps(kube.cluster.objects, sort_keys=True)
    for again in (kube.target(), target):
        again.deploy(model_version("2"))
        again.set_share("2", 0.25)
        again.promote("1")
        again.reconcile()
    assert json.dumps(kube.cluster.objects, sort_keys=True) == before
    assert target.plan(model_version("2")) == []


def test_the_smoke_test_reaches_a_version_through_the_api_server_and_nothing_else(kube):
    asked = []

    def answer(name: str, body: bytes) -> tuple[int, bytes]:
        asked.append((name, body))
        return (400, b'{"error_code": "BAD_REQUEST"}') if body == b"{}" else (200, b'{"predictions": [2.0]}')

    kube.cluster.answer = answer
    target = _live_and_canary(kube)
    url = target.deploy(model_version("2"))
    assert requests.post(f"{url}/invocations", data=b'{"x": 1}', timeout=20).json() == {"predictions": [2.0]}
    assert requests.post(f"{url}/invocations", data=b"{}", timeout=20).status_code == 400
    assert asked == [(service("2"), b'{"x": 1}'), (service("2"), b"{}")]
    for path in ("/%2e%2e/%2e%2e/secrets", "//../secrets", "/x/../../pods"):
        with requests.Session() as session:
            prepared = session.prepare_request(requests.Request("GET", url))
            prepared.url = url + path
            assert session.send(prepared, timeout=20).status_code == 400
    assert kube.target(own_url="http://{service}.{namespace}.svc").deploy(model_version("2")) == (
        f"http://{service('2')}.ml.svc"
    )


def test_a_model_that_can_not_be_loaded_is_taken_away_and_its_log_is_told(kube):
    target = kube.target()
    target.deploy(model_version("1"))
    target.promote("1")
    kube.cluster.crash[image("2")] = "Traceback\nModuleNotFoundError: No module named 'sklearn'\n"
    with pytest.raises(CommandFailed) as caught:
        target.deploy(model_version("2"))
    assert "exit code 3" in caught.value.why and "sklearn" in caught.value.log[-1]
    assert (target.status().live, target.status().canary) == ("1", None)
    assert f"Deployment/{service('2')}" not in kube.cluster.kinds()
    assert kube.cluster.weights() == {service("1"): 100}


@pytest.mark.parametrize("what", ["stuck", "unpullable"])
def test_a_version_that_does_not_get_ready_is_taken_away_and_why_is_told(kube, what):
    target = kube.target(ready_timeout_s=0.3)
    target.deploy(model_version("1"))
    target.promote("1")
    getattr(kube.cluster, what).add(image("2"))
    with pytest.raises(ServiceError, match="not ready after") as caught:
        target.deploy(model_version("2"))
    assert ("Back-off pulling" if what == "unpullable" else "0 of 2 pods") in caught.value.why
    assert f"Deployment/{service('2')}" not in kube.cluster.kinds()


@pytest.mark.parametrize("gateway", [False, "no listener admits this namespace"])
def test_a_route_that_the_gateway_refuses_leaves_the_traffic_where_it_was(kube, gateway):
    target = _live_and_canary(kube, route_timeout_s=0.2)
    target.set_share("2", 0.1)
    kube.cluster.gateway = gateway
    with pytest.raises(ServiceError, match="does not accept") as caught:
        target.set_share("2", 0.5)
    assert (gateway or "Nothing was said") in caught.value.why
    assert kube.cluster.weights() == {service("2"): 10, service("1"): 90}
    assert target.status().share == 0.1
    with pytest.raises(ServiceError):
        target.promote("2")
    assert target.status().live == "1"
    kube.cluster.gateway = True
    target.promote("2")
    assert kube.cluster.weights() == {service("2"): 100}


def test_what_is_in_the_way_or_makes_no_sense_is_refused(kube):
    target = kube.target()
    for call in (lambda: target.set_share("1", 0.1), lambda: target.promote("1"), target.rollback):
        with pytest.raises(ServiceError):
            call()
    assert kube.cluster.kinds() == []
    _live_and_canary(kube).set_share("2", 0.1)
    with pytest.raises(ServiceError, match="is a canary with"):
        target.deploy(model_version("3"))
    with pytest.raises(InputError, match="as another model"):
        target.deploy(model_version("2", "sha256:ffff"))
    with pytest.raises(ConfigError):
        target.set_share("2", float("nan"))
    with pytest.raises(ConfigError, match="image may be tagged"):
        target.deploy(model_version("1+a"))
    with pytest.raises(ConfigError, match=r"counts no requests"):
        target.counters()


def test_somebody_elses_object_is_left_alone(kube):
    theirs = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": service("1")}}
    spec = {"template": {"metadata": {"labels": {}}, "spec": {"containers": [{"name": "x", "image": "theirs"}]}}}
    kube.cluster.put("/apis/apps/v1", {**theirs, "spec": spec})
    with pytest.raises(ServiceError, match="not ours"):
        kube.target().deploy(model_version("1"))
    kept = kube.cluster.objects[f"/apis/apps/v1/namespaces/ml/deployments/{service('1')}"]
    assert kept["spec"]["template"]["spec"]["containers"][0]["image"] == "theirs"


def test_another_managers_field_is_a_conflict_unless_it_is_to_be_taken(kube):
    target = _live_and_canary(kube)
    route = {"apiVersion": "x", "kind": "HTTPRoute", "metadata": {"name": NAME}, "spec": {"hostnames": ["else.where"]}}
    kube.cluster.put("/apis/gateway.networking.k8s.io/v1", route, manager="argocd")
    with pytest.raises(ServiceError) as caught:
        target.set_share("2", 0.5)
    assert 'conflict with "argocd"' in caught.value.why and "force_conflicts" in caught.value.remedy
    kube.target(force_conflicts=True).set_share("2", 0.5)
    assert kube.cluster.weights() == {service("2"): 50, service("1"): 50}


def test_an_autoscalers_number_of_pods_is_left_to_it(kube):
    target = kube.target(replicas=None)
    target.deploy(model_version("1"))
    scaled = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": service("1")},
        "spec": {"replicas": 7},
    }
    kube.cluster.put("/apis/apps/v1", scaled, manager="hpa")
    target.reconcile()
    assert kube.cluster.objects[f"/apis/apps/v1/namespaces/ml/deployments/{service('1')}"]["spec"]["replicas"] == 7


def test_what_was_deleted_by_hand_is_there_again_after_reconcile(kube):
    target = _live_and_canary(kube)
    before = kube.cluster.picture()
    for path in list(kube.cluster.objects):
        if "configmaps" not in path and service("1") not in path:
            del kube.cluster.objects[path]
            kube.cluster.applied.pop(path, None)
    assert not target.status().healthy
    target.reconcile()
    assert kube.cluster.picture() == before
    assert target.status().healthy


# --- faults


@pytest.mark.parametrize("fault", ["409", "429", "500", "503", "close", "lost", "cut", "html"])
def test_each_request_may_fail_once(kube, fault):
    """Every third request fails; the two after it do not. 409 is for writes: somebody else was there first."""

    def faults(number: int, method: str, path: str) -> str | None:
        if fault == "409":
            return fault if number % 3 == 0 and (method == "PUT" or (method == "PATCH" and "route" in path)) else None
        return fault if number % 3 == 0 else None

    kube.cluster.faults = faults
    target = _live_and_canary(kube)
    target.set_share("2", 0.2)
    target.promote("2")
    assert kube.cluster.weights() == {service("2"): 100}
    assert target.rollback() == "1"
    target.stop()
    assert kube.cluster.kinds() == []


@pytest.mark.parametrize("fault", ["500", "html", "close", "429"])
def test_an_api_server_that_is_away_is_given_up_in_bounded_time(kube, fault):
    kube.cluster.faults = lambda *_: fault
    with pytest.raises(ServiceError) as caught:
        kube.target().status()
    assert TOKEN not in caught.value.one_line() + caught.value.detail()
    assert sum(kube.slept) <= 60 and len(kube.slept) == 5


class _Killed(BaseException):
    """The process ends here."""


_STEPS = {
    "deploy": lambda target: target.deploy(model_version("2")),
    "share": lambda target: target.set_share("2", 0.3),
    "promote": lambda target: target.promote("2"),
    "rollback": lambda target: target.rollback(),
    "redeploy": lambda target: target.deploy(model_version("3")),
    "abort": lambda target: target.abort(),
    "stop": lambda target: target.stop(),
}


def test_killed_after_any_write_and_run_again_it_ends_where_it_would_have(tmp_path, monkeypatch):
    """Each command, killed after its 1st, 2nd, ... write, and run again. All that a command leaves is in the cluster,
    so a death at any other moment leaves the same as one after the write before it."""
    left = {"writes": -1}
    send = Api._send

    def counted(self, method, path, params, body, content, *, renewed):
        answer = send(self, method, path, params, body, content, renewed=renewed)
        left["writes"] -= method != "GET"
        if left["writes"] == 0:
            raise _Killed
        return answer

    monkeypatch.setattr(Api, "_send", counted)
    kills = 0
    with world(tmp_path) as kube:
        target = kube.target()
        target.deploy(model_version("1"))
        target.promote("1")
        for name, step in _STEPS.items():
            start = json.dumps([kube.cluster.objects, kube.cluster.applied])
            step(kube.target())
            wanted, wanted_weights = kube.cluster.picture(), kube.cluster.weights()
            for number in itertools.count(1):
                kube.cluster.objects, kube.cluster.applied = json.loads(start)
                left["writes"] = number
                try:
                    step(kube.target())
                    break
                except _Killed:
                    kills += 1
                left["writes"] = -1
                step(kube.target())
                assert kube.cluster.picture() == wanted, (name, number)
                assert kube.cluster.weights() == wanted_weights
            left["writes"] = -1
        assert kube.cluster.lost == [], "no version got traffic that did not serve, and none with traffic was deleted"
    assert kills >= 25


def test_two_jobs_at_once_end_in_one_of_their_states(kube):
    """One deploys while another walks the shares; whatever the order, route and state agree."""
    _live_and_canary(kube)
    errors: list[MlcicdError] = []

    def walk(target: Any, shares: list[float]) -> None:
        for share in shares:
            try:
                target.set_share("2", share)
            except MlcicdError as error:
                errors.append(error)

    # Made one after the other: each writes the kubeconfig that it reads.
    jobs = [(kube.target(), shares) for shares in ([0.1, 0.2, 0.3] * 3, [0.5, 0.6, 0.7] * 3)]
    threads = [threading.Thread(target=walk, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    status = kube.target().status()
    assert kube.cluster.weights()[service("2")] == round(100 * status.share)
    assert status.share in (0.3, 0.7)


def test_an_overtaken_job_does_not_write_its_old_weights(kube):
    """While one job is between its state and its route, another promotes."""
    _live_and_canary(kube)
    done = threading.Event()

    def faults(_number: int, method: str, path: str) -> str | None:
        if method == "PATCH" and "httproutes" in path and not done.is_set():
            done.set()
            kube.target().promote("2")
        return None

    kube.cluster.faults = faults
    kube.target().set_share("2", 0.1)
    assert kube.cluster.weights() == {service("2"): 100}
    assert kube.target().status().live == "2"
    assert {service("2"): 10, service("1"): 90} not in kube.cluster.shares, "not for a moment, either"


def test_a_state_that_another_job_wrote_in_between_is_not_written_over(kube):
    """Between one job's look at the state and its writing, another promotes."""
    _live_and_canary(kube)
    done = threading.Event()

    def faults(_number: int, method: str, path: str) -> str | None:
        if method == "PUT" and "configmaps" in path and not done.is_set():
            done.set()
            kube.target().promote("2")
        return None

    kube.cluster.faults = faults
    with pytest.raises(ServiceError, match="not deployed here as a canary"):
        kube.target().set_share("2", 0.1)
    assert kube.target().status().live == "2"
    assert kube.cluster.weights() == {service("2"): 100}


def test_the_token_is_sent_and_in_no_message(kube, caplog):
    kube.target().deploy(model_version("1"))
    assert kube.cluster.authorizations == {f"Bearer {TOKEN}"}
    kube.cluster.faults = lambda *_: "500"
    with pytest.raises(ServiceError) as caught:
        kube.target().deploy(model_version("1"))
    assert TOKEN not in str(caught.value) + caught.value.detail() + caplog.text
