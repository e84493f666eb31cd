"""The target `mlflow`, over a plug-in that stands in for a service, and that fails at any of its calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_mlflow_plugin import Gone
from mlflow.deployments.interface import plugin_store

from mlcicd.core.digests import digest_tree
from mlcicd.core.errors import ConfigError, InputError, MlcicdError, ServiceError
from mlcicd.core.verdict import CheckStatus
from mlcicd.serving.parity import compare_answers
from mlcicd.targets.base import ModelVersion, Target
from mlcicd.targets.mlflow_plugin import MlflowTarget


class World:
    """A service in a file, and the models of three versions."""

    def __init__(self, root: Path) -> None:
        self.root, self.file = root, root / "service.json"
        self.file.write_text('{"deployments": {"anothers": {"factor": 9.0}}}')
        self.targets: list[MlflowTarget] = []

    def target(self, environment: str = "prod", *, state: str = "state", **options: object) -> MlflowTarget:
        """As each command makes its own."""
        settings = {"model": "toy", "name": "flights", "config": {"instances": 2}, **options}
        made = MlflowTarget(environment, self.root / state, uri=f"fake:{self.file}", **settings)  # type: ignore[arg-type]
        self.targets.append(made)
        return made

    def version(self, number: int) -> ModelVersion:
        path = self.root / f"model-{number}"
        path.mkdir(exist_ok=True)
        (path / "factor").write_text(str(number))
        return ModelVersion("flights", str(number), path, digest_tree(path), "python")

    def served(self) -> dict[str, float]:
        """By deployment, which version it has; the one that is not ours must stay."""
        found = {name: d["factor"] for name, d in json.loads(self.file.read_text())["deployments"].items()}
        assert found.pop("anothers") == 9.0
        return found

    def set(self, **settings: object) -> None:
        self.file.write_text(json.dumps({**json.loads(self.file.read_text()), **settings}))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    plugin_store.register("fake", "fake_mlflow_plugin")
    made = World(tmp_path)
    yield made
    made.set(fail_at=None)
    for target in made.targets:
        target.stop()
    plugin_store.registry.pop("fake")


def test_a_version_is_tested_promoted_and_taken_back(world: World) -> None:
    target = world.target()
    assert isinstance(target, Target)
    url = target.deploy(world.version(1))
    assert world.served() == {"flights--v1": 1.0}
    body = {"dataframe_split": {"columns": ["x"], "data": [[1.0], [2.5]]}}
    assert compare_answers(url, body, np.array([1.0, 2.5]), tolerance=0.0).status is CheckStatus.PASSED
    assert compare_answers(url, body, np.array([1.0, 2.6]), tolerance=0.0).status is CheckStatus.FAILED
    wrong = {"dataframe_split": {"columns": ["z"], "data": [[1.0]]}}
    assert "answered 400" in compare_answers(url, wrong, np.array([1.0]), tolerance=0.0).reason
    target.promote("1")
    assert world.served() == {"flights": 1.0}
    assert json.loads(world.file.read_text())["deployments"]["flights"]["config"] == {"instances": 2}

    target = world.target()
    target.deploy(world.version(2))
    assert world.served() == {"flights": 1.0, "flights--v2": 2.0}
    status = target.status()
    assert (status.live, status.canary, status.healthy) == ("1", "2", True)
    target.abort()
    assert world.served() == {"flights": 1.0}
    for _ in range(2):
        target.deploy(world.version(2))
        target.promote("2")
        assert world.served() == {"flights": 2.0}
    for _ in range(2):
        # From its own copy: what was deployed from is gone, as a cleaned checkout's cache is.
        (world.root / "model-1" / "factor").unlink(missing_ok=True)
        assert world.target().rollback() == "1"
        assert world.served() == {"flights": 1.0}
    assert len(list((world.root / "state" / "models").iterdir())) == 1, "copies that no version needs are gone"
    target.stop()
    assert world.served() == {}
    assert target.status().live is None


def forward(world: World) -> None:
    target = world.target()
    target.deploy(world.version(2))
    target.promote("2")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("call", range(3))
def test_whatever_fails_the_next_call_ends_right(world: World, call: int, after: bool, dies: bool) -> None:
    """Create, update and delete: each fails before or after its work, with an error or the death of the process."""
    first = world.target()
    first.deploy(world.version(1))
    first.promote("1")
    world.set(fail_at=call, fail_after=after, dies=dies)
    with pytest.raises(Gone if dies else ServiceError):
        forward(world)
    assert world.served()["flights"] in (1.0, 2.0)
    forward(world)
    assert world.served() == {"flights": 2.0}
    assert world.target().rollback() == "1"
    assert world.served() == {"flights": 1.0}


@pytest.mark.parametrize("after", [False, True])
def test_what_was_begun_is_removed_by_abort(world: World, after: bool) -> None:
    world.set(fail_at=0, fail_after=after, dies=True)
    with pytest.raises(Gone):
        world.target().deploy(world.version(1))
    world.target().abort()
    assert world.served() == {}
    world.set(fail_at=0, fail_after=after, dies=False)
    with pytest.raises(ServiceError, match="could not create flights--v1"):
        world.target().deploy(world.version(1))
    assert world.served() == {}, "a version that did not come up is taken away at once"


def test_a_list_that_is_one_page_of_many_hides_nothing(world: World) -> None:
    world.set(page=1)
    target = world.target()
    target.deploy(world.version(1))
    target.promote("1")
    assert target.status().healthy
    target.deploy(world.version(2))
    target.promote("2")
    assert world.served() == {"flights": 2.0}
    with pytest.raises(ServiceError, match="flights is there that mlcicd did not make here"):
        other = world.target(state="elsewhere")
        other.deploy(world.version(1))
        other.promote("1")
    other.abort()
    target.stop()
    assert world.served() == {}


def test_what_was_not_made_here_is_neither_overwritten_nor_removed(world: World) -> None:
    others = {"anothers": {"factor": 9.0}, "flights": {"factor": 8.0}, "flights--v2": {"factor": 7.0}}
    world.set(deployments=others)
    target = world.target()
    target.deploy(world.version(1))
    with pytest.raises(ServiceError, match="a deployment flights is there that mlcicd did not make here") as told:
        target.promote("1")
    assert "environments.prod.options.name" in told.value.remedy
    assert (target.status().live, target.status().canary) == (None, "1"), "what was refused is not wanted later"
    with pytest.raises(ServiceError, match="a deployment flights--v2 is there"):
        target.deploy(world.version(2))
    world.target().stop()
    assert world.served() == {"flights": 8.0, "flights--v2": 7.0}
    target = world.target(adopt=True)
    target.deploy(world.version(1))
    target.promote("1")
    assert world.served() == {"flights": 1.0, "flights--v2": 7.0}
    target.stop()
    assert world.served() == {"flights--v2": 7.0}


def test_no_two_environments_or_models_have_one_name(world: World) -> None:
    shared = [("toy", "prod"), ("toy", "prod-1"), ("toy", "prod--v1"), ("toy-prod", "1"), ("other", "prod")]
    for model, environment in shared:
        target = world.target(environment, state=f"{model}@{environment}", model=model, name="")
        target.deploy(world.version(1))
        target.promote("1")
        target.deploy(world.version(2))
    served = world.served()
    assert sorted(served.values()) == [1.0] * len(shared) + [2.0] * len(shared)
    assert {"toy--prod", "toy--prod--v2", "toy--prod-1"} < set(served)


def test_what_is_wanted_while_the_service_is_away_is_done_later(world: World) -> None:
    world.target().deploy(world.version(1))
    content = world.file.read_text()
    world.file.write_text("")
    with pytest.raises(ServiceError, match="could not list"):
        world.target().abort()
    world.file.write_text(content)
    world.target().reconcile()
    assert world.served() == {}


def test_what_can_not_be_done_is_said(world: World) -> None:
    target = world.target()
    target.set_share("1", 0.0)
    cases: list[tuple[type[MlcicdError], str, object]] = [
        (ConfigError, "shares no traffic", lambda: target.set_share("1", 0.1)),
        (ServiceError, "version 1 is not deployed", lambda: target.promote("1")),
        (ServiceError, "no previous version", target.rollback),
        (
            ConfigError,
            "no mlflow.deployments plug-in",
            MlflowTarget("p", world.root, model="m", uri="nobody:x").reconcile,
        ),
        (ConfigError, "can not be a deployment's name", lambda: world.target(name="a b")),
    ]
    changed = world.version(1)
    (changed.path / "factor").write_text("5")
    cases.append((InputError, "not the one that was registered", lambda: target.deploy(changed)))
    for error, words, call in cases:
        with pytest.raises(error, match=words):
            call()  # type: ignore[operator]
    assert world.served() == {}
    target.deploy(world.version(1))
    other = world.version(1).path / "more"
    other.write_text("bytes")
    with pytest.raises(InputError, match="with other bytes"):
        target.deploy(ModelVersion("flights", "1", other.parent, digest_tree(other.parent), "python"))
    other.unlink()
    (world.root / "state" / "mlflow.json").write_text("{}{")
    with pytest.raises(InputError, match="state can not be read"):
        target.status()
    (world.root / "state" / "mlflow.json").unlink()
