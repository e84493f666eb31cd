"""A model comes out of the registry as it was recorded, or not at all."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from mlcicd.core.digests import digest_tree
from mlcicd.core.errors import InputError, ServiceError
from mlcicd.registry import Registry
from mlcicd.registry.models import _model
from mlcicd.registry.tracking import _version


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Registry, str, str]:
    """A registry, a run with a model, and the model's digest."""
    model = tmp_path / "model"
    (model / "data").mkdir(parents=True)
    (model / "MLmodel").write_text("flavors: {}\n")
    (model / "data" / "weights").write_bytes(b"\x00\x01" * 500)
    place = (tmp_path / "artifacts").as_uri()
    registry = Registry(f"sqlite:///{tmp_path / 'mlflow.db'}", experiment="tests", artifact_location=place)
    run_id = registry.start_run("tests", {})
    registry.log_model(run_id, model)
    return registry, run_id, digest_tree(model)


@pytest.mark.parametrize("cut", [1, 2])
def test_a_download_that_was_cut_short_is_asked_for_once_more(
    trained: tuple[Registry, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    registry, run_id, digest = trained
    whole, asked = registry._client.download_artifacts, []

    def download(run_id: str, path: str, folder: str) -> str:
        found = whole(run_id, path, folder)
        asked.append(path)
        if len(asked) <= cut:
            (Path(found) / "data" / "weights").unlink()
        return found

    monkeypatch.setattr(registry._client, "download_artifacts", download)
    cache = tmp_path / "cache"
    if cut == 1:
        assert digest_tree(registry.fetch_model(run_id, cache, digest=digest)) == digest
    else:
        with pytest.raises(InputError, match="not the one that was recorded") as error:
            registry.fetch_model(run_id, cache, digest=digest)
        assert error.value.remedy
    assert len(asked) == 2
    assert [path.name for path in cache.iterdir()] == ([digest.replace(":", "-")] if cut == 1 else [])


def test_an_empty_answer_says_what_to_do() -> None:
    empty = SimpleNamespace(name="", version="", tags={}, aliases={}, run_id="", source="")
    for read in (lambda: _version(empty), lambda: _model(empty, "m")):
        with pytest.raises(ServiceError, match="something else") as error:
            read()
        assert error.value.remedy
