"""The local target with the real Envoy, real model servers and real requests."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from mlcicd.core.digests import digest_tree
from mlcicd.core.errors import CommandFailed, ConfigError, InputError, ServiceError
from mlcicd.serving.replay import replay
from mlcicd.targets import processes
from mlcicd.targets.local import LocalTarget

pytestmark = [pytest.mark.slow, pytest.mark.alone]
BODY = json.dumps({"dataframe_records": [{"x": 1.0}]}).encode()


def _ask(url, body=BODY):
    with requests.Session() as session:
        return session.post(f"{url}/invocations", data=body, headers={"content-type": "application/json"}, timeout=30)


def _shares(url, count=400, **headers):
    result = replay(url, [BODY], rate_per_s=5000, count=count, concurrency=2)
    assert result.ok == count, result
    return result.by_version()


def _of(status, version):
    return next(p for p in status.processes if p.version == version)


def _leftovers(folder):
    return processes.with_argument(folder / "state" / "run")


@contextmanager
def _load(url, rate=150):
    """Requests from four connections while the block runs; the result is complete when it has ended."""
    stop = threading.Event()
    results = []

    def _send():
        results.append(replay(url, [BODY], rate_per_s=rate, duration_s=60, concurrency=4, stop=stop))

    thread = threading.Thread(target=_send)
    thread.start()
    try:
        yield results
    finally:
        stop.set()
        thread.join()


def _until_it_has_answered(target, version, requests=5):
    """A share is a chance: on a busy machine a version may be gone before the first request reaches it."""
    deadline = time.monotonic() + 30
    while target.counters()[version].requests < requests:
        assert time.monotonic() < deadline, f"version {version} has a share and got no request"
        time.sleep(0.02)


def test_a_version_goes_from_deployed_to_canary_to_live_and_back(make_target, version, tmp_path):
    target = make_target()
    own = target.deploy(version("1"))
    assert _ask(own).json() == {"predictions": [2.0]}
    url = target.status().url
    refused = _ask(url)
    assert (refused.status_code, refused.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    target.promote("1")
    assert _shares(url, 40) == {"1": 40}

    # Deployed beside it: reachable by its own address, no traffic.
    assert _ask(target.deploy(version("2"))).headers["x-mlcicd-version"] == "2"
    assert _shares(url, 100) == {"1": 100}
    assert (target.status().live, target.status().canary) == ("1", "2")

    target.set_share("2", 0.3)
    shares = _shares(url, 1000)
    # Binomial(1000, 0.3): outside these bounds once in 10^9.
    assert 215 <= shares["2"] <= 390, shares
    target.set_share("2", 0.0)
    assert _shares(url, 100) == {"1": 100}
    target.set_share("2", 1.0)
    assert _shares(url, 100) == {"2": 100}

    target.promote("2")
    target.promote("2")
    status = target.status()
    assert (status.live, status.canary, status.previous, status.share) == ("2", None, "1", 0.0)
    assert status.healthy
    assert _shares(url, 100) == {"2": 100}

    assert target.rollback() == "1"
    assert _shares(url, 100) == {"1": 100}
    assert target.rollback() == "1", "a repeated rollback must not bring the bad version back"
    status = target.status()
    assert (status.live, status.previous, len(status.processes)) == ("1", None, 2)

    target.stop()
    assert _leftovers(tmp_path) == {}
    assert target.status().processes == ()
    assert list((tmp_path / "state" / "run").glob("server*")) == []
    with pytest.raises(requests.ConnectionError):
        _ask(url)


def test_the_routers_counters_are_those_of_each_version(make_target, version):
    target = make_target()
    target.deploy(version("1"))
    target.promote("1")
    target.deploy(version("2"))
    target.set_share("2", 0.5)
    url = target.status().url
    before = target.counters()
    assert (before["1"].requests, before["2"].requests) == (0, 0)
    bad = [BODY, b"{}", json.dumps({"dataframe_records": [{"x": -1.0, "word": "w"}]}).encode()]
    result = replay(url, bad, rate_per_s=5000, count=300, concurrency=2)
    assert result.sent == 300 and result.failures == {}
    deadline = time.monotonic() + 10
    while sum(sum(c.counts) for c in target.counters().values()) < 300 and time.monotonic() < deadline:
        time.sleep(0.1)  # histograms are merged a few times a second
    for name, counted in target.counters().items():
        seen = {status: n for (status, v), n in result.answers.items() if v == name}
        assert counted.requests == sum(seen.values())
        assert (counted.errors_4xx, counted.errors_5xx) == (seen[400], seen[500])
        assert len(counted.counts) == len(counted.edges_ms)
        assert counted.edges_ms[-1] == float("inf") and list(counted.edges_ms) == sorted(counted.edges_ms)
        assert sum(counted.counts) == counted.requests
        assert counted.sum_ms > 0
        assert counted.epoch == before[name].epoch
    # A new router counts from nothing, and says so.
    os.kill(_of(target.status(), "").pid, signal.SIGKILL)
    with pytest.raises(ServiceError):
        target.counters()
    target.reconcile()
    assert target.counters()["1"].epoch != before["1"].epoch
    assert target.counters()["1"].requests == 0


def test_switching_under_load_loses_no_request(make_target, version):
    target = make_target()
    target.deploy(version("1"))
    target.promote("1")
    with _load(target.status().url) as results:
        target.deploy(version("2"))
        for step in range(1, 21):
            target.set_share("2", step / 20)
        target.promote("2")
        target.rollback()
        target.deploy(version("3"))
        target.set_share("3", 0.5)
        _until_it_has_answered(target, "3")
        target.abort()
        target.deploy(version("2"))
        target.promote("2")
    (result,) = results
    assert result.sent > 300
    assert {status for status, _ in result.answers} == {200}, result
    assert set(result.by_version()) == {"1", "2", "3"}


def test_with_two_replicas_a_killed_server_costs_no_request_and_is_replaced(make_target, version):
    target = make_target(replicas=2)
    target.deploy(version("1"))
    target.promote("1")
    url = target.status().url
    with _load(url) as results:
        time.sleep(0.5)
        dead = target.status().processes[0]
        os.kill(dead.pid, signal.SIGKILL)
        time.sleep(1.0)
        assert not target.status().healthy
        target.reconcile()
        assert target.status().healthy
    (result,) = results
    assert {status for status, _ in result.answers} == {200}, result
    assert target.status().processes[0].pid != dead.pid


def test_what_was_killed_comes_back_with_the_next_call(make_target, version, tmp_path):
    target = make_target()
    target.deploy(version("1"))
    target.promote("1")
    target.deploy(version("2"))
    target.set_share("2", 0.5)
    before = target.status()
    for process in before.processes:
        os.kill(process.pid, signal.SIGKILL)
    # Another process of another CI job finds everything by the folder alone.
    later = make_target()
    assert not later.status().healthy
    later.reconcile()
    after = later.status()
    assert after.healthy
    assert (after.live, after.canary, after.share, after.url) == ("1", "2", 0.5, before.url)
    assert set(_shares(after.url)) == {"1", "2"}
    assert len(_leftovers(tmp_path)) == 3


def test_a_canary_that_dies_is_charged_for_it_and_the_live_version_is_not(make_target, version):
    target = make_target()
    target.deploy(version("1"))
    target.promote("1")
    target.deploy(version("2"))
    target.set_share("2", 0.5)
    os.kill(_of(target.status(), "2").pid, signal.SIGKILL)
    result = replay(target.status().url, [BODY], rate_per_s=500, count=100, concurrency=2)
    assert result.answers[(200, "1")] > 0
    assert result.answers[(503, "2")] > 0
    assert result.sent == result.answers[(200, "1")] + result.answers[(503, "2")]
    counted = target.counters()
    assert counted["2"].errors_5xx == result.answers[(503, "2")]
    assert counted["1"].errors_5xx == 0


def test_a_model_that_can_not_be_loaded_leaves_the_live_one_alone(make_target, version, tmp_path):
    target = make_target()
    target.deploy(version("1"))
    target.promote("1")
    with pytest.raises(CommandFailed) as caught:
        target.deploy(version("9", "broken"))
    assert "the weights are not where they should be" in caught.value.why
    status = target.status()
    assert (status.live, status.canary, status.healthy) == ("1", None, True)
    assert len(_leftovers(tmp_path)) == 2
    assert _shares(status.url, 20) == {"1": 20}
    assert len(list((tmp_path / "state" / "models").iterdir())) == 1


def test_a_model_that_loads_for_too_long_is_given_up(make_target, version, tmp_path):
    target = make_target(ready_timeout_s=8.0)
    with pytest.raises(ServiceError, match="was not ready after 8 s") as caught:
        target.deploy(version("9", "slow-start"))
    assert "most recent call first" in caught.value.why, "the reason shows where the model waits"
    assert _leftovers(tmp_path) == {}


def test_a_deployer_killed_at_any_moment_leaves_what_the_next_call_puts_right(make_target, version, tmp_path):
    target = make_target()
    target.deploy(version("1"))
    target.promote("1")
    url = target.status().url
    code = (
        "import sys; from pathlib import Path\n"
        "from mlcicd.targets import ModelVersion\n"
        "from mlcicd.targets.local import LocalTarget\n"
        "t = LocalTarget('staging', Path(sys.argv[1])); v = sys.argv[3]\n"
        "t.deploy(ModelVersion('toy', v, Path(sys.argv[2]), '', sys.executable))\n"
        "t.set_share(v, 0.2); t.promote(v)\n"
    )
    for attempt, delay in enumerate((0.4, 0.7, 1.0, 1.6)):
        number = "2" if attempt % 2 == 0 else "3"
        model = version(number).path
        with _load(url, rate=80) as results:
            deployer = subprocess.Popen(
                [sys.executable, "-c", code, str(tmp_path / "state"), str(model), number],
                cwd=Path(__file__).parent.parent.parent,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            time.sleep(delay)
            deployer.kill()
            deployer.wait()
            target.abort()
        (result,) = results
        assert {status for status, _ in result.answers} == {200}, (delay, result)
        status = target.status()
        assert status.healthy and status.canary is None, (delay, status)
        wanted = {p.pid for p in status.processes}
        assert {p.pid for p in _leftovers(tmp_path)} == wanted, delay
        assert _shares(url, 40) == {status.live: 40}


def test_sticky_requests_stay_with_their_version_while_the_share_grows(make_target, version):
    target = make_target(sticky_header="x-user")
    target.deploy(version("1"))
    target.promote("1")
    target.deploy(version("2"))
    url = target.status().url

    def _canary_users():
        with requests.Session() as session:
            return {
                user
                for user in range(200)
                if session.post(
                    f"{url}/invocations",
                    data=BODY,
                    headers={"content-type": "application/json", "x-user": str(user)},
                    timeout=30,
                ).headers["x-mlcicd-version"]
                == "2"
            }

    groups = []
    for share in (0.1, 0.5, 0.5, 0.9):
        target.set_share("2", share)
        groups.append(_canary_users())
    assert groups[0] < groups[1] == groups[2] < groups[3]
    assert 5 <= len(groups[0]) <= 40 and 70 <= len(groups[1]) <= 130


def test_a_taken_port_is_named_and_nothing_stays_behind(make_target, version, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        target = make_target(port=port)
        with pytest.raises(ServiceError, match=f"port {port} "):
            target.deploy(version("1"))
        assert _leftovers(tmp_path) == {}
    assert target.deploy(version("1"))
    assert target.status().url.endswith(f":{port}")


def test_only_verified_bytes_are_deployed(make_target, version, tmp_path):
    target = make_target()
    good = version("1")
    with pytest.raises(InputError, match="not the model that was registered"):
        target.deploy(replace(good, digest="sha256:" + "0" * 64))
    assert list((tmp_path / "state" / "models").iterdir()) == []
    target.deploy(replace(good, digest=digest_tree(good.path)))
    with pytest.raises(InputError, match="already deployed here as another model"):
        target.deploy(version("1", "scripted-2"))
    with pytest.raises(InputError):
        target.deploy(replace(good, version="5", path=tmp_path / "nothing"))
    with pytest.raises(ServiceError):
        target.deploy(replace(version("2"), python=str(tmp_path / "no-python")))
    assert (target.status().canary, target.status().healthy) == ("1", True)


def test_calls_out_of_order_are_refused(make_target, version):
    target = make_target()
    for call in (lambda: target.promote("1"), lambda: target.set_share("1", 0.1), target.rollback):
        with pytest.raises(ServiceError):
            call()
    target.abort()
    target.stop()
    target.deploy(version("1"))
    with pytest.raises(ServiceError, match="nothing is live"):
        target.set_share("1", 0.1)
    target.promote("1")
    with pytest.raises(ServiceError, match="no previous"):
        target.rollback()
    for share in (float("nan"), -0.1, 1.1, float("inf")):
        with pytest.raises(ConfigError):
            target.set_share("1", share)
    with pytest.raises(ServiceError, match="not deployed here as a canary"):
        target.set_share("1", 0.1)
    target.deploy(version("2"))
    target.set_share("2", 0.1)
    with pytest.raises(ServiceError, match="version 2 is a canary with"):
        target.deploy(version("3"))
    with pytest.raises(ConfigError):
        target.deploy(replace(version("3"), version="../3"))
    assert (target.status().live, target.status().canary, target.status().share) == ("1", "2", 0.1)


def test_a_folder_belongs_to_one_environment(make_target, version, tmp_path):
    make_target().deploy(version("1"))
    with pytest.raises(ConfigError, match="'staging'"):
        LocalTarget("production", tmp_path / "state").status()
