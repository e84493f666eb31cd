"""Servers that run are given other settings under load, and no request is lost."""

from __future__ import annotations

import json
import threading

import pytest

from mlcicd.core.errors import ServiceError
from mlcicd.serving.replay import replay
from mlcicd.targets import processes
from mlcicd.targets.servers import free_port

BODY = json.dumps({"dataframe_records": [{"x": 1.0, "word": "hush"}]}).encode()
LOG = {"sample": 1.0, "redact": [], "max_mb": 1.0, "keep": 1}


def _statuses(url, token):
    return {status for status, _ in replay(url, [BODY], rate_per_s=500, count=10, concurrency=1, token=token).answers}


@pytest.mark.slow
@pytest.mark.alone
def test_a_rotated_token_and_a_redacted_column_reach_servers_that_run(make_target, version, monkeypatch, tmp_path):
    monkeypatch.setenv("TOY_TOKEN", "first")
    before = make_target(token_env="TOY_TOKEN", inference_log=LOG)
    before.deploy(version("1"))
    before.promote("1")
    before.deploy(version("2"))
    before.set_share("2", 0.5)
    url, old = before.status().url, {process.pid for process in before.status().processes if process.role == "server"}
    assert _statuses(url, "first") == {200} and before.status().notices == ()

    monkeypatch.setenv("TOY_TOKEN", "second")
    after = make_target(token_env="TOY_TOKEN", inference_log={**LOG, "redact": ["word"]})
    (notice,) = after.status().notices
    assert "version 1, 2" in notice and "mlcicd reload" in notice
    # An ordinary command leaves what runs as it is: a rollback must not wait for models to load.
    after.reconcile()
    assert {process.pid for process in after.status().processes if process.role == "server"} == old

    stop, results = threading.Event(), []
    # A caller that knows one token is let in by servers of that one, and told so by the others: 401, and an answer.
    load = threading.Thread(
        target=lambda: results.append(
            replay(url, [BODY], rate_per_s=100, duration_s=120, concurrency=4, stop=stop, token="first")
        )
    )
    load.start()
    try:
        after.reload()
        counted = after.counters()
    finally:
        stop.set()
        load.join()
    (sent,) = results
    assert not sent.failures and {status for status, _ in sent.answers} <= {200, 401}, sent
    assert _statuses(url, "first") == {401} and _statuses(url, "second") == {200}
    status = after.status()
    assert status.healthy and status.notices == () and (status.live, status.canary, status.share) == ("1", "2", 0.5)
    new = {process.pid for process in status.processes if process.role == "server"}
    assert len(new) == 2 and not new & old
    running = {
        process.pid
        for process, path in processes.with_argument(tmp_path / "state" / "run").items()
        if path.name.startswith("server-")
    }
    assert running == new
    # The router's counters go on: a canary's judge must not take the change for a new version.
    assert all(after.counters()[name].requests >= counted[name].requests > 0 for name in ("1", "2"))
    assert {c.epoch for c in after.counters().values()} == {c.epoch for c in before.counters().values()}
    logs = (tmp_path / "state" / "logs").glob("inference-*-0-1.jsonl")
    assert all("hush" not in file.read_text() for file in logs)


@pytest.mark.slow
def test_what_can_not_be_started_anew_leaves_what_runs(make_target, version, monkeypatch, tmp_path):
    target = make_target()
    target.reload()
    assert target.status().processes == ()
    target.deploy(version("1"))
    target.promote("1")
    url = target.status().url
    monkeypatch.delenv("TOY_TOKEN", raising=False)
    with pytest.raises(ServiceError, match="TOY_TOKEN is not set"):
        make_target(token_env="TOY_TOKEN").reload()
    assert _statuses(url, "") == {200} and target.status().healthy

    # Another port is told, is where the router goes with reload, and is not where any other command takes it.
    port = free_port("127.0.0.1")
    moved = make_target(port=port)
    (notice,) = moved.status().notices
    assert f"and not on {port}" in notice and moved.status().url == url
    moved.reconcile()
    assert _statuses(url, "") == {200}
    moved.reload()
    assert moved.status().url == f"http://127.0.0.1:{port}" and moved.status().notices == ()
    assert _statuses(moved.status().url, "") == {200}
    assert target.status().url == moved.status().url
