"""What a training depends on, and nothing else, changes its fingerprint."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mlcicd.core.errors import InputError
from mlcicd.training import fingerprint
from mlcicd.training.dvc_records import read_records


def make(root: Path, **changes: object):
    settings = {
        "command": "python train.py",
        "code": ["*.py"],
        "lock": ["requirements*.txt"],
        "params": "params.yaml",
        "data": ["data.csv"],
        "python": sys.executable,
        "seed": 0,
    }
    return fingerprint(root, **(settings | changes))  # type: ignore[arg-type]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("1")
    (tmp_path / "requirements.txt").write_text("a==1")
    (tmp_path / "params.yaml").write_text("x: 1")
    (tmp_path / "data.csv").write_text("a\n1\n")
    return tmp_path


@pytest.mark.parametrize(
    ("file", "part"),
    [("train.py", "code"), ("requirements.txt", "lock"), ("params.yaml", "params"), ("data.csv", "data")],
)
def test_each_part_counts_and_is_named(root: Path, file: str, part: str) -> None:
    before = make(root)
    (root / file).write_text("changed")
    after = make(root)
    assert after.digest != before.digest
    assert after.changed_from(before.parts) == [part]


def test_command_and_seed_count(root: Path) -> None:
    assert make(root, seed=1).digest != make(root).digest
    assert make(root, command="python train.py --fast").digest != make(root).digest


def test_other_files_do_not_count(root: Path) -> None:
    before = make(root)
    (root / "README.md").write_text("words")
    (root / "train.py").touch()
    assert make(root).digest == before.digest


def test_a_renamed_file_counts(root: Path) -> None:
    before = make(root)
    (root / "train.py").rename(root / "other.py")
    assert make(root).digest != before.digest


def test_files_that_changed_are_named(root: Path) -> None:
    (root / "clean.py").write_text("1")
    before = make(root)
    assert make(root).changes_since(before.parts, before.files) == []
    (root / "train.py").write_text("2")
    (root / "clean.py").unlink()
    (root / "features.py").write_text("1")
    (root / "params.yaml").write_text("x: 2")
    after = make(root)
    assert after.changes_since(before.parts, before.files) == [
        "code (clean.py gone, features.py new, train.py)",
        "params",
    ]
    # A verdict from before files were kept names the parts alone.
    assert after.changes_since(before.parts, {}) == ["code", "params"]
    for number in range(7):
        (root / f"new{number}.py").write_text("")
    assert make(root).changes_since(before.parts, before.files)[0].endswith("new1.py new, new2.py new and 5 more)")


def test_data_that_is_not_here_is_known_by_dvc(root: Path) -> None:
    (root / "data.csv").unlink()
    with pytest.raises(InputError, match="DVC has no record"):
        make(root)
    (root / "data.csv.dvc").write_text("outs:\n- md5: 0123\n  path: data.csv\n")
    assert make(root).digest
    (root / "data.csv.dvc").unlink()
    (root / "dvc.lock").write_text("stages:\n  prepare:\n    outs:\n    - {path: data.csv, md5: 0123}\n")
    assert read_records(root).digest("data.csv") == "md5:0123"


@pytest.mark.parametrize("text", ["[1]", "a: [", "\x00"])
def test_damaged_dvc_record(root: Path, text: str) -> None:
    (root / "dvc.lock").write_text(text)
    with pytest.raises(InputError, match="DVC record"):
        make(root)


def test_an_interpreter_that_does_not_run(root: Path) -> None:
    with pytest.raises(InputError, match="does not run"):
        make(root, python="/no/such/python")


def test_the_code_digest_is_of_all_but_the_data(root: Path) -> None:
    before = make(root).code_digest
    (root / "data.csv").write_text("a\n2\n")
    assert make(root).code_digest == before
    for file in ("train.py", "requirements.txt", "params.yaml"):
        (root / file).write_text("x: 2")
        now = make(root).code_digest
        assert now != before
        before = now
    assert make(root, seed=1).code_digest != before


PIPELINE = """\
stages:
  prepare: {cmd: python prepare.py, deps: [prepare.py], params: [rows], outs: [data.csv, holdout.csv]}
  train: {cmd: python train.py, deps: [train.py, data.csv, holdout.csv], params: [rate], outs: [model]}
"""


def test_of_a_training_by_dvc_what_makes_the_data_is_data(root: Path) -> None:
    (root / "dvc.yaml").write_text(PIPELINE)
    (root / "prepare.py").write_text("1")
    (root / "params.yaml").write_text("rows: 1\nrate: 1\n")

    def digest() -> str:
        return make(root, command="dvc repro train", makes=["model"], by_dvc=True).code_digest

    before = digest()
    (root / "params.yaml").write_text("rows: 2\nrate: 1\n")
    (root / "prepare.py").write_text("2")
    (root / "data.csv").write_text("a\n2\n")
    (root / "holdout.csv").write_text("a\n3\n")
    assert digest() == before
    (root / "params.yaml").write_text("rows: 2\nrate: 2\n")
    assert digest() != before
    before = digest()
    (root / "train.py").write_text("2")
    assert digest() != before
    assert make(root, command="dvc repro train", makes=["model"], by_dvc=True, seed=2).code_digest != digest()
