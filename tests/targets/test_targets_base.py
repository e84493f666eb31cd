"""Finding targets, and the router's files, without starting anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from mlcicd.core.errors import ConfigError, ServiceError
from mlcicd.targets import Target, load_target, processes, router, target_names
from mlcicd.targets.local import LocalTarget


def test_the_local_target_is_found_and_keeps_the_protocol(tmp_path):
    assert load_target("local") is LocalTarget
    assert "local" in target_names()
    assert isinstance(LocalTarget("staging", tmp_path), Target)


def test_an_unknown_target_names_the_known_ones():
    with pytest.raises(ConfigError) as caught:
        load_target("kubernets")
    assert "local" in caught.value.why


@pytest.mark.parametrize("options", [{"replicas": 0}, {"ready_timeout_s": float("nan")}, {"port": 70000}])
def test_numbers_that_make_no_sense_are_refused(tmp_path, options):
    with pytest.raises(ConfigError):
        LocalTarget("staging", tmp_path, **options)


def test_cluster_names_are_one_to_one_and_hold_no_dots():
    versions = ["1", "1.0", "1_0", "1-0", "1_2e_0", "1.2e.0", "v1", "1+a"]
    names = [router.cluster_name(version) for version in versions]
    assert len(set(names)) == len(versions)
    assert not any("." in name for name in names)


def _weights(tmp_path, live, canary, share):
    files = router.RouterFiles(tmp_path)
    files.write_routes(router.RouterSettings("127.0.0.1", 1), live, canary, share)
    (configuration,) = json.loads(files.routes.read_text())["resources"]
    (route,) = configuration["virtual_hosts"][0]["routes"]
    if "direct_response" in route:
        return route["direct_response"]["status"]
    return [(c["name"], c["weight"]) for c in route["route"]["weighted_clusters"]["clusters"]]


def test_weights_add_up_and_zero_means_absent(tmp_path):
    one, two = router.cluster_name("1"), router.cluster_name("2")
    assert _weights(tmp_path, None, None, 0.0) == 503
    assert _weights(tmp_path, None, "2", 0.5) == 503
    assert _weights(tmp_path, "1", None, 0.0) == [(one, 1_000_000)]
    assert _weights(tmp_path, "1", "2", 0.0) == [(one, 1_000_000)]
    assert _weights(tmp_path, "1", "2", 0.01) == [(two, 10_000), (one, 990_000)]
    assert _weights(tmp_path, "1", "2", 1.0) == [(two, 1_000_000)]


def test_what_was_written_can_be_read_back(tmp_path):
    files = router.RouterFiles(tmp_path)
    assert files.ports() == {}
    files.write_clusters({"1.0": [4001, 4002], "2": [4003]})
    assert files.ports() == {"1.0": [4001, 4002], "2": [4003]}


def test_a_long_folder_gets_a_short_private_socket(tmp_path):
    long = tmp_path / ("x" * 60) / ("y" * 60)
    socket = router.admin_socket(long)
    assert len(os.fsencode(socket)) <= 103
    assert socket.parent.stat().st_mode & 0o077 == 0
    assert socket != router.admin_socket(long / "z")


def test_without_the_package_the_one_on_the_path_serves_and_else_the_remedy_is_named(monkeypatch, tmp_path):
    import importlib.metadata

    def _absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", _absent)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServiceError) as caught:
        router.find_envoy()
    assert "pip install 'mlcicd[router]'" in caught.value.remedy
    (tmp_path / "envoy").touch(mode=0o755)
    assert router.find_envoy() == tmp_path / "envoy"


def test_a_process_is_not_taken_for_another_one_with_its_id():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        mine = processes.identify(child.pid)
        assert mine is not None and mine.alive()
        stranger = processes.Process(child.pid, "1")
        assert not stranger.alive()
        processes.stop([stranger], grace_s=0.1)
        time.sleep(0.1)
        assert mine.alive(), "a process with another start time must not be ended"
        assert not processes.Process(child.pid, "").alive()
    finally:
        child.kill()
        child.wait()


def test_a_detached_process_has_no_token_of_ours_and_is_ended_when_it_does_not_listen(tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_TOKEN", "hush")
    monkeypatch.setenv("RUNNER_TRACKING_ID", "job")
    log = tmp_path / "log"
    code = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(sorted(os.environ), os.getsid(0) == os.getpid(), flush=True); time.sleep(60)"
    )
    argv = [sys.executable, "-c", code, str(tmp_path / "mark")]
    process = processes.spawn(argv, env=processes.plain_environment(), log=log)
    deadline = time.monotonic() + 20
    while not log.read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert processes.with_argument(tmp_path) == {process: tmp_path / "mark"}
    processes.stop([process], grace_s=0.2)
    assert not process.alive()
    assert processes.with_argument(tmp_path) == {}
    text = log.read_text()
    assert "PATH" in text and "True" in text
    assert "GITHUB_TOKEN" not in text and "RUNNER_TRACKING_ID" not in text
