"""mlcicd init: writes what is missing, overwrites nothing unasked."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mlcicd.config import load_project
from mlcicd.core.errors import ConfigError, InputError
from mlcicd.scaffold import WORKFLOWS, scaffold


def test_writes_workflows_and_a_configuration_that_loads(repository: Path) -> None:
    written = scaffold(repository, force=False)
    assert written == [*(f".github/workflows/{name}" for name in WORKFLOWS), "mlcicd.yaml", ".gitignore"]
    assert load_project(repository, environ={}).config.model.name == "my-model"
    for name in WORKFLOWS:
        text = (repository / ".github" / "workflows" / name).read_text()
        assert "$default-branch" not in text
        yaml.safe_load(text)


def test_again_changes_nothing(repository: Path) -> None:
    scaffold(repository, force=False)
    assert scaffold(repository, force=False) == []


def test_refuses_to_overwrite_all_or_nothing(repository: Path) -> None:
    scaffold(repository, force=False)
    mine = repository / ".github" / "workflows" / WORKFLOWS[0]
    mine.write_text("name: mine\n")
    (repository / ".github" / "workflows" / WORKFLOWS[1]).unlink()
    with pytest.raises(ConfigError, match=WORKFLOWS[0]):
        scaffold(repository, force=False)
    assert mine.read_text() == "name: mine\n"
    assert not (repository / ".github" / "workflows" / WORKFLOWS[1]).exists()
    assert len(scaffold(repository, force=True)) == 2
    assert mine.read_text() != "name: mine\n"


def test_force_never_overwrites_the_configuration(repository: Path) -> None:
    for name in ("mlcicd.yaml", ".gitignore"):
        (repository / name).write_text("version: 1\n")
    scaffold(repository, force=True)
    for name in ("mlcicd.yaml", ".gitignore"):
        assert (repository / name).read_text() == "version: 1\n"


def test_project_in_a_folder_of_the_repository(repository: Path) -> None:
    folder = repository / "models" / "late"
    folder.mkdir(parents=True)
    scaffold(folder, force=False)
    text = (repository / ".github" / "workflows" / WORKFLOWS[0]).read_text()
    assert "MLCICD_DIRECTORY: models/late\n" in text
    assert (folder / "mlcicd.yaml").is_file()


def test_other_refs(repository: Path) -> None:
    scaffold(repository, force=False, uses="me/fork@v2")
    text = (repository / ".github" / "workflows" / WORKFLOWS[0]).read_text()
    assert "uses: me/fork/actions/train@v2" in text
    assert "mlcicd/mlcicd" not in text
    cd = (repository / ".github" / "workflows" / WORKFLOWS[1]).read_text()
    assert "uses: me/fork@v2" in cd


@pytest.mark.parametrize("uses", ["nonsense", "a/b", "a/b@", "a/b@x y", "a/b@x\nrun: evil"])
def test_refs_that_are_none(repository: Path, uses: str) -> None:
    with pytest.raises(ConfigError):
        scaffold(repository, force=False, uses=uses)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        scaffold(tmp_path / "none", force=False)
