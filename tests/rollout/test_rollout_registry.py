"""A promotion in a registry that fails in the midst of it: traffic and champion end at the same version."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from registry.conftest import registry_at
from rollout_world import World

from mlcicd.core.errors import ServiceError
from mlcicd.registry import Registry, promote, recover
from mlcicd.registry.journal import entries
from mlcicd.rollout.state import Phase
from mlcicd.stages.canary_ground import RegistryLedger

ALIASES = {"champion_alias": "champion", "previous_alias": "previous"}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return registry_at(tmp_path_factory.mktemp("registry"))


def _model(registry: Registry, name: str) -> None:
    """Versions 1, the champion, and 2, measured against it."""
    run = registry.start_run("tests", {})
    for number in ("1", "2"):
        registry.create_version(name, run, {"mlcicd.content": name + number, "mlcicd.model_digest": ""})
    registry.tag_version(name, "2", {"mlcicd.measured_against": "1"})
    promote(registry, name, "1", expected_champion=None, reason="the first", **ALIASES)


class _Failing:
    """A registry that fails at a write of a promotion, before or after it takes effect, and for a while after it."""

    def __init__(self, registry: Registry, write: str, *, before: bool) -> None:
        self._registry, self._write, self._before = registry, write, before
        self.down = 0

    def __getattr__(self, name: str):
        method = getattr(self._registry, name)
        return self._through(name, method) if callable(method) else method

    def _through(self, name: str, method):
        def call(*args):
            if self.down > 0:
                self.down -= 1
                raise ServiceError("the registry does not answer")
            if name == self._write and "2" in str(args[-1]):
                self._write, self.down = "", 3
                if not self._before:
                    method(*args)
                raise ServiceError("the registry does not answer")
            return method(*args)

        return call


@pytest.mark.parametrize(
    ("write", "before"),
    [("tag_model", False), ("set_alias", False), ("tag_version", True)],
    ids=["intended", "switched", "not-finished"],
)
def test_traffic_and_champion_end_at_the_same_version(registry, tmp_path: Path, write: str, before: bool) -> None:
    name = f"{write}-{before}"
    _model(registry, name)
    failing = _Failing(registry, write, before=before)
    rules = SimpleNamespace(**ALIASES)
    project = SimpleNamespace(config=SimpleNamespace(register_=rules), environ={})
    where = SimpleNamespace(name="production", production=True)
    world = World(tmp_path)
    world.ledger = RegistryLedger(project, failing, where, registry.version(name, "2"))
    with pytest.raises(ServiceError, match="does not answer"):
        world.run()
    for _ in range(10):
        if world.state().phase is Phase.DONE:
            break
        world.clock.pass_()
        try:
            world.controller().step()
        except ServiceError:
            continue
    # Whoever comes next finishes what is unfinished.
    recover(registry, name, **ALIASES)
    state = world.state()
    assert (state.phase, state.outcome, world.target.look().live) == (Phase.DONE, "rollback", "1")
    assert registry.version_at(name, "champion").version == "1"
    assert all(entry.outcome for entry in entries(registry.model(name).tags))
