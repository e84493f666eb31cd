"""A way back to what served well depends on no file and on no other server; what fails leaves what served."""

from __future__ import annotations

import shutil

import pytest
from certificates import Authority

from mlcicd.core.errors import CommandFailed, InputError, ServiceError
from mlcicd.targets import processes
from mlcicd.targets.base import ModelVersion
from mlcicd.targets.local import LocalTarget
from mlcicd.targets.local_router import LocalRouter
from mlcicd.targets.servers import Servers, ServerSettings
from mlcicd.targets.state import DeployedVersion, Desired, StateFolder
from mlcicd.targets.tls import Tls

ABSENT = {"certificate": "/absent.crt", "key": "/absent.key"}
IN_FORCE = Tls("CERTIFICATE", "KEY")


def _held(version):
    return DeployedVersion(name="toy", version=version, digest="d", python="p", generation=int(version))


class Machine:
    """What a target asks of servers and of a router, written down; `broken` versions do not start."""

    def __init__(self, monkeypatch, folder):
        self.folder, self.certificates, self.broken = StateFolder(folder), IN_FORCE, ()
        self.routes, self.starts, self.stopped, self.router_fails = [], [], [], []
        monkeypatch.setattr(Servers, "ensure", lambda _, versions: self._ensure(versions))
        monkeypatch.setattr(Servers, "stop", lambda _, slots: self.stopped.extend(slots))
        monkeypatch.setattr(Servers, "stop_except", lambda _, slots: None)
        monkeypatch.setattr(LocalRouter, "tls", lambda _: self.certificates)
        monkeypatch.setattr(LocalRouter, "forget_others", lambda *_, **__: None)
        monkeypatch.setattr(LocalRouter, "converge", self._route)
        self.write(live="2", previous="1")

    def write(self, **roles):
        self.folder.models.mkdir(parents=True, exist_ok=True)
        held = {role: _held(role) for role in roles.values() if isinstance(role, str)}
        self.folder.write(Desired(environment="e", port=12345, versions=held, **roles))

    def target(self, tls=None):
        return LocalTarget("e", self.folder.root, supervise=False, tls=tls)

    def now(self):
        return self.folder.read("e", 0)

    def _ensure(self, versions):
        self.starts.append(versions)
        failures = {v.version: ServiceError("no memory") for v in versions if (v.version, v.launch) in self.broken}
        return {v.version: [1] for v in versions if v.version not in failures}, failures

    def _route(self, settings, ports, *, live, canary, share, mirror):
        self.certificates = settings.tls
        self.routes.append((live, canary, share, mirror, settings.tls))
        if self.router_fails:
            raise self.router_fails.pop()


@pytest.fixture
def machine(monkeypatch, tmp_path):
    return Machine(monkeypatch, tmp_path / "state")


def test_a_rollback_without_the_files_of_the_certificates_moves_the_traffic(machine):
    target = machine.target(ABSENT)
    (notice,) = target.status().notices
    assert "tls.certificate can not be read" in notice and "keeps the certificates" in notice
    assert target.rollback() == "1"
    assert machine.routes == [("1", None, 0.0, 0.0, IN_FORCE)]
    assert (machine.now().live, machine.now().rolled_back) == ("1", True)
    assert target.rollback() == "1", "repeated, it changes nothing"


@pytest.mark.parametrize(
    "back",
    [LocalTarget.abort, lambda target: target.set_share("3", 0.0), lambda target: target.set_mirror("3", 0.0)],
    ids=["abort", "no share", "no mirror"],
)
def test_a_canary_is_taken_back_without_the_files_of_the_certificates(machine, back):
    machine.write(live="2", canary="3", share=0.25)
    back(machine.target(ABSENT))
    ((live, _, share, _, tls),) = machine.routes
    assert (live, tls) == ("2", IN_FORCE) and share == machine.now().share


@pytest.mark.parametrize(
    "forward",
    [
        lambda target: target.set_share("3", 0.5),
        lambda target: target.set_mirror("3", 0.5),
        lambda target: target.promote("3"),
        LocalTarget.reload,
        lambda target: target.deploy(ModelVersion("toy", "4", target._folder.root, "", "p")),
    ],
    ids=["share", "mirror", "promote", "reload", "deploy"],
)
def test_what_goes_forward_without_the_files_of_the_certificates_does_nothing(machine, forward):
    machine.write(live="2", canary="3")
    before = machine.now()
    with pytest.raises(InputError, match=r"tls\.certificate can not be read"):
        forward(machine.target(ABSENT))
    assert machine.now() == before and machine.routes == [] and machine.starts == []
    assert list(machine.folder.models.iterdir()) == []


@pytest.mark.parametrize("version", ["1", "2"], ids=["previous", "live"])
def test_a_reload_whose_servers_do_not_start_leaves_the_router_alone(machine, version):
    machine.broken = {(version, 1)}
    before = machine.now()
    with pytest.raises(ServiceError, match="no memory"):
        machine.target().reload()
    assert machine.routes == [], "it would lose its certificates"
    assert machine.now() == before
    assert {slot.deployed.launch for slot in machine.stopped} == {1} and len(machine.stopped) == 2


def test_a_reload_that_the_router_refuses_gives_it_back_the_certificates_it_had(machine, tmp_path):
    certificate, key = Authority(tmp_path).issue("server")
    machine.router_fails = [ServiceError("the port is in use")]
    before = machine.now()
    with pytest.raises(ServiceError, match="the port is in use"):
        machine.target({"certificate": str(certificate), "key": str(key)}).reload()
    assert machine.certificates == IN_FORCE and len(machine.routes) == 2 and machine.now() == before


class Replicas(Servers):
    """Two servers of each version, of which the second does not start."""

    def process(self, slot):
        return processes.Process(1, "first") if slot.replica == 0 else None

    def _start(self, slot):
        raise ServiceError("the environment variable TOY_TOKEN is not set")

    def ready(self, slot):
        return slot.replica == 0

    def port(self, slot):
        return 1234 if slot.replica == 0 else None


def test_a_replica_that_does_not_start_takes_none_beside_it_away(monkeypatch, tmp_path):
    stopped = []
    monkeypatch.setattr(processes, "stop", lambda found, grace_s: stopped.extend(found))
    ports, failures = Replicas(StateFolder(tmp_path), ServerSettings(2, ready_timeout_s=5.0)).ensure([_held("1")])
    assert stopped == [] and ports == {"1": [1234]} and list(failures) == ["1"]


def test_a_rollback_goes_to_the_servers_that_the_version_has(machine, monkeypatch):
    failure = ServiceError("no memory for the second")
    monkeypatch.setattr(Servers, "ensure", lambda _, versions: ({v.version: [1] for v in versions}, {"1": failure}))
    with pytest.raises(ServiceError, match="no memory for the second"):
        machine.target().rollback()
    assert [(live, share) for live, _, share, *_ in machine.routes] == [("1", 0.0)] and machine.now().live == "1"


def test_a_canary_that_lacks_a_server_gets_no_traffic(machine, monkeypatch):
    machine.write(live="2", canary="3", share=0.25)
    failure = ServiceError("no memory for the second")
    monkeypatch.setattr(Servers, "ensure", lambda _, versions: ({v.version: [1] for v in versions}, {"3": failure}))
    with pytest.raises(ServiceError, match="no memory for the second"):
        machine.target().reconcile()
    assert [route[:3] for route in machine.routes] == [("2", None, 0.0)]


# Before what the model itself does: the second server of a version ends while the file is there.
FUSSY = """
import os, sys
if "-1.json" in " ".join(sys.argv) and os.path.exists({full!r}):
    raise MemoryError("no room for a second")
"""


@pytest.mark.slow
def test_real_servers_outlive_those_that_can_not_be_started_beside_them(make_target, version, tmp_path):
    full = tmp_path / "full"

    def fussy(number):
        model = tmp_path / f"fussy-{number}"
        shutil.copytree(version("1").path, model)
        script = model / "placeholder.py"
        script.write_text(FUSSY.format(full=str(full)) + script.read_text())
        return ModelVersion("toy", number, model, "", version("1").python)

    def running():
        found = processes.with_argument(tmp_path / "state" / "run")
        return {process.pid for process, path in found.items() if path.name.startswith("server-")}

    target = make_target(replicas=2)
    target.deploy(fussy("1"))
    target.promote("1")
    first, second = (process for process in target.status().processes if process.role == "server")
    full.touch()
    with pytest.raises(CommandFailed, match="version 2 ended before it was ready"):
        target.deploy(fussy("2"))
    assert running() == {first.pid, second.pid}, "nothing of a version that was not deployed stays"
    processes.stop([p for p in processes.with_argument(tmp_path / "state" / "run") if p.pid == second.pid], grace_s=5)
    with pytest.raises(CommandFailed, match="version 1 ended before it was ready"):
        target.reconcile()
    assert running() == {first.pid} and target.counters().keys() == {"1"}
