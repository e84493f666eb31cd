"""Shadow traffic with the real Envoy: copies reach the canary, its answers reach nobody, and both are counted apart."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from mlcicd.config.canary import Canary, Shadow
from mlcicd.core.errors import ConfigError, ServiceError
from mlcicd.serving.replay import replay
from mlcicd.stages.canary_shadow import shadow
from mlcicd.targets import processes
from mlcicd.targets.base import Mirroring, ModelVersion
from mlcicd.targets.state import DeployedVersion, Desired

pytestmark = [pytest.mark.slow, pytest.mark.alone]
BODY = json.dumps({"dataframe_records": [{"x": 1.0}]}).encode()


def ask(url, count, body=BODY):
    return replay(url, [body], rate_per_s=5000, count=count, concurrency=2)


def copies(target, version, least):
    """The counters of the copies once there are `least`: nobody waits for them, so they may still be on their way."""
    for _ in range(100):
        counted = target.mirror_counters()[version]
        if counted.requests >= least:
            return counted
        time.sleep(0.05)
    raise AssertionError(f"{counted.requests} copies instead of {least}")


@pytest.fixture
def beside(make_target, version):
    target = make_target()
    target.deploy(version("1"))
    target.promote("1")
    target.deploy(version("2"))
    return target


def test_copies_are_answered_by_the_canary_and_seen_by_nobody(beside):
    assert isinstance(beside, Mirroring)
    assert beside.mirror_counters() == {}
    url = beside.status().url
    beside.set_mirror("2", 1.0)
    before = beside.counters()
    result = ask(url, 200)
    assert (result.ok, result.by_version()) == (200, {"1": 200})
    assert copies(beside, "2", 200).requests == 200
    after = beside.counters()
    assert after["1"].requests - before["1"].requests == 200
    assert after["2"].requests == 0, "copies are not the canary's own requests"

    # A part of them: Binomial(1000, 0.2) is outside these bounds once in 10^9.
    beside.set_mirror("2", 0.2)
    assert ask(url, 1000).by_version() == {"1": 1000}
    assert 325 - 200 <= copies(beside, "2", 325).requests - 200 <= 280

    beside.set_mirror("2", 0.0)
    ended = beside.mirror_counters()["2"].requests
    assert ask(url, 100).by_version() == {"1": 100}
    assert beside.mirror_counters()["2"].requests == ended


def test_a_canary_that_only_fails_is_counted_and_no_client_notices(beside):
    url = beside.status().url
    beside.set_mirror("2", 1.0)
    dead = next(p for p in beside.status().processes if p.version == "2")
    os.kill(dead.pid, signal.SIGKILL)
    result = ask(url, 100)
    assert (result.ok, result.by_version()) == (100, {"1": 100})
    counted = copies(beside, "2", 100)
    assert counted.errors_5xx == counted.requests == 100
    beside.reconcile()
    assert ask(url, 50).ok == 50
    healed = copies(beside, "2", 150)
    assert healed.errors_5xx == 100


def test_traffic_ends_the_mirror_and_so_does_the_canarys_end(beside, version):
    url = beside.status().url
    beside.set_mirror("2", 1.0)
    ask(url, 20)
    copies(beside, "2", 20)
    beside.set_share("2", 1.0)
    assert ask(url, 50).by_version() == {"2": 50}
    assert beside.mirror_counters()["2"].requests == 20
    with pytest.raises(ServiceError, match="traffic itself"):
        beside.set_mirror("2", 0.5)
    beside.set_share("2", 0.0)
    beside.set_mirror("2", 1.0)
    ask(url, 5)
    assert copies(beside, "2", 25).requests == 25
    beside.abort()
    assert beside.mirror_counters() == {}
    beside.deploy(version("2"))
    beside.set_mirror("2", 1.0)
    assert beside.mirror_counters()["2"].requests == 0
    beside.promote("2")
    assert beside.mirror_counters() == {}
    assert ask(url, 20).by_version() == {"2": 20}


def test_what_can_not_be_mirrored_is_refused(make_target, version):
    target = make_target()
    target.deploy(version("1"))
    with pytest.raises(ServiceError, match="nothing is live"):
        target.set_mirror("1", 0.5)
    target.promote("1")
    with pytest.raises(ServiceError, match="not deployed here as a canary"):
        target.set_mirror("1", 0.5)
    for fraction in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            target.set_mirror("1", fraction)


def test_a_state_of_before_has_no_mirror():
    held = {v: DeployedVersion(name="m", version=v, digest="", python="", generation=1) for v in "12"}
    desired = Desired(environment="e", versions=held, live="1", canary="2", mirror=0.5)
    assert desired.having(share=0.0).mirror == 0.5
    assert desired.having(canary=None).mirror is None
    text = Desired(environment="e").model_dump(exclude={"mirror"})
    assert Desired.model_validate(text).mirror is None


SHADOW = Canary.model_validate(
    {
        "window": "300ms",
        "min_requests": 20,
        "metrics": [{"name": "errors"}],
        "shadow": {"duration": "4s", "percent": 50},
    }
)


@contextmanager
def load(url):
    """Users' requests while the block runs."""
    stop, results = threading.Event(), []
    sending = {"rate_per_s": 150, "duration_s": 60, "concurrency": 2, "stop": stop}
    thread = threading.Thread(target=lambda: results.append(replay(url, [BODY], **sending)))
    thread.start()
    try:
        yield results
    finally:
        stop.set()
        thread.join()


def test_the_judge_finds_a_broken_challenger_before_any_user_does(beside, models, tmp_path):
    broken = tmp_path / "broken-now-and-then"
    shutil.copytree(models / "scripted-3", broken)
    script = broken / "placeholder.py"
    fails = "if int(time.time() * 1000) % 3 == 0:\n            raise ValueError('broken')\n        return model_input"
    script.write_text(script.read_text().replace("return model_input", fails))
    lines = []
    with load(beside.status().url) as users:
        good = shadow(beside, SHADOW, "1", "2", say=lines.append)
        beside.deploy(ModelVersion("toy", "3", broken, "", sys.executable))
        bad = shadow(beside, SHADOW, "1", "3")
    assert (good.action, good.errors) == ("continue", 0), good.reason
    assert 20 <= good.requests < sum(w.champion.requests for w in good.windows)
    assert "copies" in lines[0]
    assert bad.action == "rollback", bad.reason
    assert bad.reason.startswith("in the shadow: errors")
    assert bad.errors > 0
    assert users[0].ok == users[0].sent
    assert set(users[0].by_version()) == {"1"}
    assert beside.status().share == 0.0


def test_a_shadow_in_which_nothing_was_asked_shows_nothing(beside):
    ended = shadow(beside, SHADOW.model_copy(update={"shadow": Shadow(duration="700ms", percent=50)}), "1", "2")
    assert (ended.action, ended.requests) == ("inconclusive", 0)
    assert shadow(beside, Canary(), "1", "2") is None
    with pytest.raises(ConfigError, match="can not mirror"):
        shadow(object(), SHADOW, "1", "2")


SHADOW_FOREVER = """
import sys
from pathlib import Path
from mlcicd.config.canary import Canary
from mlcicd.stages.canary_shadow import shadow
from mlcicd.targets import processes
from mlcicd.targets.local import LocalTarget

settings = Canary.model_validate({"window": "200ms", "metrics": [{"name": "errors"}], "no_data_timeout": "1h",
                                  "shadow": {"duration": "1h", "percent": 100}})
target = LocalTarget("staging", Path(sys.argv[1]))
shadow(target, settings, "1", "2", say=lambda line: print(line, flush=True), lease_s=2.0)
"""


def test_a_shadow_that_is_killed_ends_by_itself(beside, tmp_path):
    folder = tmp_path / "state"

    def mirror():
        return Desired.model_validate_json((folder / "desired.json").read_bytes()).mirror

    with load(beside.status().url) as users:
        child = subprocess.Popen([sys.executable, "-c", SHADOW_FOREVER, str(folder)], stdout=subprocess.PIPE, text=True)
        try:
            # Longer than the lease: while somebody looks it stays on.
            lines = [child.stdout.readline() for _ in range(15)]
            assert lines[-1].startswith("shadow window"), lines
            copies(beside, "2", 50)
            assert mirror() == 1.0
        finally:
            child.kill()
            child.wait()
            child.stdout.close()
        deadline = time.monotonic() + 60
        while mirror():
            assert time.monotonic() < deadline, "nobody has ended it"
            time.sleep(0.1)
        beside.reconcile()
        time.sleep(0.5)
        ended = beside.mirror_counters()["2"].requests
        time.sleep(0.5)
        assert beside.mirror_counters()["2"].requests == ended
    assert users[0].ok == users[0].sent
    assert set(users[0].by_version()) == {"1"}
    status = beside.status()
    assert (status.live, status.canary, status.share) == ("1", "2", 0.0)
    marker = folder / "run" / "watchdog.json"
    deadline = time.monotonic() + 30
    while any(path == marker for path in processes.with_argument(folder / "run").values()):
        assert time.monotonic() < deadline, "the watchdog has nothing left to watch"
        time.sleep(0.1)
