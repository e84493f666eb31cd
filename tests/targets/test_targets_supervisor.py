"""What dies comes back without a command, and no command waits for it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from mlcicd.core.errors import ConfigError, InputError
from mlcicd.serving.replay import replay
from mlcicd.targets import local, processes, supervisor
from mlcicd.targets.beside import Beside
from mlcicd.targets.local import LocalTarget
from mlcicd.targets.local_world import LocalWorld
from mlcicd.targets.processes import Process
from mlcicd.targets.state import DeployedVersion, Desired, Part, StateFolder
from mlcicd.targets.supervisor import Deaths, Patience

PROGRAM = Path(__file__).parent / "fault_deploy.py"


def _wait(condition, seconds: float = 60.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)
    return found


def _kill(process) -> None:
    os.kill(process.pid, signal.SIGKILL)


def _supervisors(folder) -> list[processes.Process]:
    marker = folder / "run" / "supervisor.json"
    return [process for process, path in processes.with_argument(folder / "run").items() if path == marker]


def _answers(url: str, body: bytes = b'{"dataframe_records": [{"x": 1.0}]}') -> bool:
    request = urllib.request.Request(f"{url}/invocations", body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status == 200
    except (OSError, urllib.error.URLError):
        return False


@pytest.mark.slow
@pytest.mark.alone
def test_what_was_killed_comes_back_without_a_command(make_target, version, tmp_path):
    target = make_target(supervise=True)
    target.deploy(version("1"))
    target.promote("1")
    folder = tmp_path / "state"
    (supervisor,) = _supervisors(folder)
    url = target.status().url
    assert _answers(url)
    before = {process.pid for process in target.status().processes}
    for process in target.status().processes:
        _kill(process)
    _wait(lambda: target.status().healthy and _answers(url))
    after = target.status()
    assert not before & {process.pid for process in after.processes}
    assert (after.live, after.url) == ("1", url)
    # A command starts one that has died itself, and no second one.
    _kill(supervisor)
    target.deploy(version("2"))
    target.set_share("2", 0.5)
    assert len(_supervisors(folder)) == 1
    target.stop()
    assert processes.with_argument(folder / "run") == {}
    log = (folder / "logs" / "supervisor.log").read_text()
    assert "server 1 of version 1" in log and " ended; started again" in log
    assert "version 2" not in log, "what a command starts is no death"


@pytest.mark.slow
@pytest.mark.alone
def test_a_rollback_does_not_wait_for_a_canary_that_dies_again_and_again(make_target, version, tmp_path):
    target = make_target(supervise=True, ready_timeout_s=300.0)
    target.deploy(version("1"))
    target.promote("1")
    target.deploy(version("2"))
    target.promote("2")
    # From now on version 2 loads for longer than this test takes.
    folder = tmp_path / "state"
    (model,) = (folder / "models").glob("version_2-*")
    script = model / "placeholder.py"
    script.write_text(script.read_text() + "\nimport time\ntime.sleep(600)\n")
    (dead,) = (p for p in target.status().processes if p.role == "server" and p.version == "2")
    _kill(dead)

    def loading() -> bool:
        return any(p.version == "2" and p.alive and p.pid != dead.pid for p in target.status().processes)

    _wait(loading)
    assert target.rollback() == "1"
    assert _answers(target.status().url)
    assert target.status().live == "1"


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell how much memory there is")
@pytest.mark.parametrize(("x", "bound_mb"), [(-5, 600.0), (-6, None)], ids=["leaks", "exits after ten requests"])
def test_a_model_that_does_not_last_is_started_again_and_the_other_server_answers(
    make_target, version, tmp_path, x, bound_mb
):
    target = make_target(supervise=True, replicas=2, max_memory_mb=bound_mb)
    target.deploy(version("1"))
    target.promote("1")
    folder = tmp_path / "state"
    body = json.dumps({"dataframe_records": [{"x": float(x)}]}).encode()
    log = folder / "logs" / "supervisor.log"
    sent = lost = 0
    while not (log.exists() and "ended; started again" in log.read_text()):
        result = replay(target.status().url, [body], rate_per_s=5, count=1)
        sent, lost = sent + 1, lost + result.sent - result.ok
        assert sent < 200
        time.sleep(0.1)
    # Of what dies, the request that it died of; what leaks as fast as this may end in both servers together.
    assert lost <= 1
    _wait(lambda: target.status().healthy)
    said = "".join(file.read_text() for file in (folder / "logs").glob("server-*.log"))
    # Whichever the router has asked more often.
    assert any(f"more than the {allowed} allowed" in said for allowed in (540, 600)) == bool(bound_mb)


@pytest.mark.slow
@pytest.mark.alone
def test_no_kill_under_load_leaves_anything_wrong():
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--every", "25", "--rounds", "2"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "left running: 0; broken: 0" in done.stdout


def test_what_dies_at_once_is_waited_for_longer_and_longer_and_forgiven_later():
    patience = Patience()
    now, waits = 0.0, []
    for _ in range(9):
        waits.append(patience.wait_s(now))
        now += waits[-1] + 1.0
    assert waits == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert patience.wait_s(now + 600.0) == 0.0


ALIVE = Process(1, "long ago")
ONE, OTHER = (Part(f"server {number} of version 1", "1") for number in (1, 2))
CANARY, ROUTER = Part("server 1 of version 2", "2"), Part("the router", None)


def _waits(deaths: Deaths, dead: Part, also: tuple[Part, ...] = (), *, start: float = 0.0) -> list[float]:
    """How long a process waits to be started again, which dies anew nine times, each time right after its start."""
    now, waits = start, []
    for _ in range(9):
        died = now
        wanted = {part: None if part in (dead, *also) else ALIVE for part in (ONE, OTHER, CANARY, ROUTER)}
        while not deaths.see(wanted, "1", now):
            now += 0.5
        waits.append(now - died)
        deaths.again()
        assert not deaths.see(dict.fromkeys(wanted, ALIVE), "1", now)
        now += 1.0
    return waits


def test_each_process_has_its_own_wait():
    deaths = Deaths()
    growing = [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert _waits(deaths, CANARY) == growing
    # What the canary does keeps no other waiting, and nor does one server the other.
    assert _waits(deaths, ONE, start=200.0) == growing
    assert _waits(deaths, OTHER, start=400.0)[0] == 0.0


def test_the_last_one_that_answers_is_hardly_waited_for():
    short = [0.0, 1.0, *[2.0] * 7]
    assert _waits(Deaths(), ROUTER) == short
    assert _waits(Deaths(), ONE, (OTHER,)) == short


def test_a_death_that_is_due_does_not_wait_for_one_that_is_not():
    deaths = Deaths()
    for now in range(0, 40, 8):
        deaths.see({CANARY: None, ONE: ALIVE}, "1", float(now))
        deaths.again()
    assert not deaths.see({CANARY: None, ONE: ALIVE}, "1", 41.0)
    assert deaths.see({CANARY: None, ONE: None}, "1", 41.5)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_where_the_kernel_does_not_tell_the_wait_is_no_spin(monkeypatch, number):
    def refuse(pid):
        raise OSError(number, os.strerror(number))

    slept: list[float] = []
    monkeypatch.setattr(os, "pidfd_open", refuse, raising=False)
    monkeypatch.setattr(time, "sleep", slept.append)
    me = processes.identify(os.getpid())
    assert me is not None
    processes.wait_any([me], timeout_s=0.5)
    assert slept == [0.5]


def test_who_has_ended_is_not_waited_for(monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    processes.wait_any([processes.Process(ended.pid, "1")], timeout_s=60.0)
    assert slept == []


class _Enough(BaseException):
    pass


@pytest.mark.parametrize("changed", [False, True])
def test_nothing_is_healed_by_options_that_a_command_has_changed_since(monkeypatch, tmp_path, changed):
    folder = StateFolder(tmp_path)
    folder.run.mkdir()
    deployed = DeployedVersion(name="toy", version="1", digest="", python="", generation=1)
    folder.write(Desired(environment="staging", port=1, versions={"1": deployed}, live="1"))
    marker = folder.run / "supervisor.json"

    def tell(threads: int) -> None:
        marker.write_text(json.dumps({"release": "", "target": {"environment": "staging", "threads": threads}}))

    tell(1)
    healed: list[int] = []
    monkeypatch.setattr(LocalTarget, "wanted", lambda self: {ROUTER: None})
    monkeypatch.setattr(LocalWorld, "converge", lambda self, *_: healed.append(self._settings.threads))
    see = Deaths.see

    def meanwhile(*arguments) -> bool:
        if changed:
            tell(2)
        return see(*arguments)

    monkeypatch.setattr(Deaths, "see", meanwhile)

    def enough(*_, **__):
        raise _Enough

    monkeypatch.setattr(processes, "wait_any", enough)
    monkeypatch.setattr(sys, "argv", ["supervisor", str(marker)])
    with pytest.raises(_Enough):
        supervisor.main()
    assert healed == ([] if changed else [1])


def test_a_command_that_can_not_begin_leaves_the_supervisor_it_sent_aside(monkeypatch, tmp_path):
    folder = StateFolder(tmp_path)
    folder.run.mkdir()
    told = {"release": "1", "target": {"environment": "staging"}}
    (folder.run / "supervisor.json").write_text(json.dumps(told))
    started: list[object] = []
    monkeypatch.setattr(local, "is_locked", lambda path: True)
    monkeypatch.setattr(Beside, "start", lambda self, told: started.append(told))
    folder.write(Desired(environment="production"))
    with pytest.raises(ConfigError, match="belongs to the environment 'production'"):
        LocalTarget("staging", tmp_path).reconcile()
    assert started == [told]
    folder.desired.write_text("{}{")
    with pytest.raises(InputError, match="state can not be read"):
        LocalTarget("staging", tmp_path).reconcile()
    assert started == [told, told]


def test_a_process_beside_gets_another_token_by_being_started_anew(monkeypatch, tmp_path):
    folder = StateFolder(tmp_path)
    running: list[processes.Process] = []
    given: list[str] = []

    def spawn(argv, *, env, log):
        running.append(processes.Process(1, ""))
        given.append(env.get("TOY_TOKEN", ""))

    monkeypatch.setattr(processes, "spawn", spawn)
    monkeypatch.setattr(processes, "stop", lambda stopped, *, grace_s: running.clear())
    monkeypatch.setattr(Beside, "running", lambda self: list(running))
    beside = Beside(folder, "supervisor")
    told = {"target": {"environment": "staging", "token_env": "TOY_TOKEN"}}
    for value in ("first-9f31", "first-9f31", "", "second-77ab", "second-77ab"):
        monkeypatch.setenv("TOY_TOKEN", value)
        beside.start(told)
        assert len(running) == 1
    assert given == ["first-9f31", "second-77ab"], "who has no token leaves it the one it has"
    running.clear()
    for value in ("", "second-77ab"):
        monkeypatch.setenv("TOY_TOKEN", value)
        beside.start(told)
    assert given[2:] == ["", "second-77ab"], "what was started without one gets it later"
    written = beside.marker.read_text()
    assert "9f31" not in written and "77ab" not in written
    assert json.loads(written)["target"] == told["target"]
