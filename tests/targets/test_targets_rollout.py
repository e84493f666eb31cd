"""A rollout over the real local target: killed where it hurts, and left alone for too long."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from rollout_driver import controller

from mlcicd.core.errors import ConfigError
from mlcicd.serving.replay import replay
from mlcicd.targets import processes

pytestmark = [pytest.mark.slow, pytest.mark.alone]
DRIVER = Path(__file__).with_name("rollout_driver.py")
BODY = json.dumps({"dataframe_records": [{"x": 1.0}]}).encode()


@contextmanager
def _load(url, rate=150):
    stop, results = threading.Event(), []
    thread = threading.Thread(
        target=lambda: results.append(replay(url, [BODY], rate_per_s=rate, duration_s=300, concurrency=4, stop=stop))
    )
    thread.start()
    try:
        yield results
    finally:
        stop.set()
        thread.join()


def _drive(folder, name="", number=0):
    return subprocess.run(
        [sys.executable, str(DRIVER), str(folder), name, str(number)],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def _wait(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def _watchdogs(target_folder):
    marker = target_folder / "run" / "watchdog.json"
    return [p for p, path in processes.with_argument(target_folder / "run").items() if path == marker]


def test_killed_between_intent_weight_and_evidence_it_goes_on_and_no_request_is_lost(make_target, version, tmp_path):
    """`desired.json` is the target's intent, `routes.json` the router's weights, `ledger.json` the registry."""
    target = make_target()
    target.deploy(version("1"))
    target.promote("1")
    target.deploy(version("2", "scripted-2"))
    folder = tmp_path / "state"
    with _load(target.status().url) as results:
        points = [("desired.json", 1), ("rollout.json", 3), ("routes.json", 1), ("rollout.json", 6), ("ledger.json", 1)]
        died = []
        for name, number in points:
            done = _drive(folder, name, number)
            died.append(done.returncode)
            status = target.status()
            assert status.live == ("2" if name == "ledger.json" else "1"), (name, status)
            assert status.healthy
        done = _drive(folder)
    assert done.returncode == 0, done.stderr
    assert died == [-signal.SIGKILL] * len(points)
    said = json.loads(done.stdout)
    assert said["outcome"] == "promote", said
    assert json.loads((folder / "ledger.json").read_text()) == {"champion": "2"}
    assert (target.status().live, target.status().canary) == ("2", None)
    assert {answer for answer, _ in results[0].answers} == {200}, results[0]
    assert _watchdogs(folder) == []


def test_traffic_that_nobody_looks_after_goes_back_to_the_champion(make_target, version, tmp_path):
    target, folder = make_target(), tmp_path / "state"
    target.deploy(version("1"))
    target.promote("1")
    target.deploy(version("2"))
    rollout = controller(folder, max_unattended_s=2.0)
    rollout.start()
    (watchdog,) = _watchdogs(folder)
    with _load(target.status().url, rate=50) as results:
        for _ in range(5):
            time.sleep(0.8)
            rollout.step()
            assert target.status().share >= 0.2, "it is attended"
        assert _watchdogs(folder) == [watchdog], "one is enough"
        _wait(lambda: target.status().share == 0)
        _wait(lambda: not watchdog.alive())
    assert {answer for answer, _ in results[0].answers} == {200}
    assert (target.status().live, target.status().canary) == ("1", "2")
    assert replay(target.status().url, [BODY], rate_per_s=2000, count=60).by_version() == {"1": 60}
    # Whoever looks again finds out, and goes on.
    outcome = rollout.step()
    assert any("nobody had looked in time" in note for note in outcome.notes)
    assert target.status().share >= 0.2
    assert len(_watchdogs(folder)) == 1


def test_the_watchdog_ends_with_its_purpose(make_target, version, tmp_path):
    target, folder = make_target(), tmp_path / "state"
    with pytest.raises(ConfigError):
        target.attend(0)
    target.deploy(version("1"))
    target.promote("1")
    target.deploy(version("2"))
    for ending in (lambda: target.set_share("2", 0.0), target.abort, target.stop):
        if target.status().canary is None:
            target.deploy(version("2"))
        target.attend(300.0)
        target.set_share("2", 0.5)
        assert len(_watchdogs(folder)) == 1
        ending()
        assert _watchdogs(folder) == []
        assert not (folder / "run" / "watchdog.json").exists()
