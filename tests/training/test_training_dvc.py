"""DVC's records are read as DVC writes them, and a lock that is out of date is found without DVC and without data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mlcicd.core.errors import InputError
from mlcicd.training.dvc_hash import dvc_md5
from mlcicd.training.dvc_pipeline import read_pipeline, stale
from mlcicd.training.dvc_records import read_records


def staleness(root: Path) -> dict[str, list[str]]:
    pipeline = read_pipeline(root)
    return stale(pipeline, pipeline.relevant(["train.csv", "model"]))


def swap(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("path", ["data/raw", "train.csv", "model"])
def test_digests_are_those_of_dvc(with_data: Path, path: str) -> None:
    recorded = read_records(with_data).outputs[path]
    assert dvc_md5(with_data / path, root=with_data) == recorded.md5


def test_digest_is_the_same_with_and_without_the_data(with_data: Path, pipeline: Path) -> None:
    for path in ("data/raw", "train.csv", "data/raw/deep/two.csv"):
        known = read_records(pipeline).digest(path)
        assert known.startswith("md5:")
        assert read_records(with_data).digest(path) == known
    (with_data / "data" / "raw" / "deep" / "two.csv").write_text("3,1\n")
    assert not read_records(with_data).digest("data/raw").startswith("md5:")
    assert not read_records(with_data).digest("data/raw/deep/two.csv").startswith("md5:")
    assert read_records(with_data).digest("data/raw/one.csv").startswith("md5:")


def test_legacy_digest_of_text_has_the_line_ends_of_unix(tmp_path: Path) -> None:
    (tmp_path / "dos").write_bytes(b"a\r\nb\rc\r\n")
    (tmp_path / "unix").write_bytes(b"a\nb\rc\n")
    (tmp_path / "binary").write_bytes(b"\0a\r\n")
    dos = dvc_md5(tmp_path / "dos", root=tmp_path, legacy=True)
    assert dos == dvc_md5(tmp_path / "unix", root=tmp_path) != dvc_md5(tmp_path / "dos", root=tmp_path)
    plain = dvc_md5(tmp_path / "binary", root=tmp_path)
    assert dvc_md5(tmp_path / "binary", root=tmp_path, legacy=True) == plain


def test_fresh_lock(with_data: Path, pipeline: Path) -> None:
    assert staleness(pipeline) == {}
    assert staleness(with_data) == {}


@pytest.mark.parametrize(
    ("file", "old", "new", "stage", "reason"),
    [
        ("prepare.py", "sorted", "list", "prepare", "prepare.py changed"),
        ("params.yaml", "rows: 2", "rows: 3", "prepare", "rows in params.yaml changed"),
        ("params.yaml", "rows: 2\n", "", "prepare", "rows in params.yaml changed"),
        ("dvc.yaml", "cmd: python train.py", "cmd: python train.py --fast", "train", "its command changed"),
        (
            "dvc.yaml",
            "[train.py, train.csv]",
            "[train.py, train.csv, params.yaml]",
            "train",
            "it now reads params.yaml",
        ),
        ("dvc.yaml", "[rows, rate]", "[rows, rate, other]", "prepare", "it now reads other of params.yaml"),
        ("dvc.yaml", "outs: [model]", "outs: [model, more]", "train", "it now makes more"),
        ("data/raw.dvc", "md5: ", "md5: 00", "prepare", "data/raw.dvc names other content of data/raw"),
    ],
)
@pytest.mark.parametrize("here", [True, False])
def test_stale_lock_is_found_and_named(
    with_data: Path, pipeline: Path, here: bool, file: str, old: str, new: str, stage: str, reason: str
) -> None:
    root = with_data if here else pipeline
    swap(root / file, old, new)
    found = staleness(root)
    assert list(found) == [stage]
    assert any(text.startswith(reason) for text in found[stage]), found


def test_data_that_changed_here_makes_the_lock_stale(with_data: Path) -> None:
    (with_data / "data" / "raw" / "three.csv").write_text("3,1\n")
    assert staleness(with_data) == {"prepare": ["data/raw changed"]}


def test_what_dvc_ignores_changes_nothing(with_data: Path) -> None:
    (with_data / "data" / "raw" / "more.tmp").write_text("x")
    assert staleness(with_data) == {}


def test_agrees_with_dvc(with_data: Path, dvc: Callable[..., str]) -> None:
    import json

    swap(with_data / "params.yaml", "rate: 1e-3", "rate: 0.001")
    assert json.loads(dvc(with_data, "status", "--json", "--with-deps", "train")) == staleness(with_data) == {}
    swap(with_data / "params.yaml", "rate: 0.001", "rate: 0.002")
    swap(with_data / "train.py", "trained", "done")
    assert set(json.loads(dvc(with_data, "status", "--json", "--with-deps", "train"))) == set(staleness(with_data))


def test_stages_that_have_not_run(pipeline: Path) -> None:
    (pipeline / "dvc.lock").unlink()
    found = staleness(pipeline)
    assert set(found) == {"prepare", "train"}
    assert "does not know it" in found["train"][0]


def test_an_unrelated_stage_is_no_finding(pipeline: Path) -> None:
    swap(pipeline / "dvc.yaml", 'print()"', 'print(1)"')
    assert staleness(pipeline) == {}


def test_templated_stages_are_read_from_the_lock(pipeline: Path) -> None:
    swap(pipeline / "dvc.yaml", "cmd: python prepare.py", "cmd: python ${program}")
    assert staleness(pipeline) == {}
    swap(pipeline / "prepare.py", "sorted", "list")
    assert staleness(pipeline) == {"prepare": ["prepare.py changed"]}


def test_frozen_stages_are_left_alone(pipeline: Path) -> None:
    swap(pipeline / "dvc.yaml", "cmd: python prepare.py", "frozen: true\n    cmd: python other.py")
    assert staleness(pipeline) == {}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        *((file, text) for file in ("dvc.yaml", "dvc.lock", "data/raw.dvc") for text in ("[1]", "a: [", "\x00")),
        *((file, text) for file in ("dvc.yaml", "dvc.lock") for text in ("stages: [1]", "stages: {train: 1}")),
        ("dvc.lock", "stages: {train: {outs: 3}}"),
        ("dvc.lock", "stages: {train: {deps: [1]}}"),
        ("data/raw.dvc", "outs: [1]"),
    ],
)
def test_damaged_records_are_an_input_error(pipeline: Path, file: str, text: str) -> None:
    (pipeline / file).write_text(text)
    with pytest.raises(InputError) as caught:
        staleness(pipeline)
    assert file in caught.value.where


@pytest.mark.parametrize("path", ["a" * 5000, "a" * 300, "a\\0b"])
def test_what_is_no_path_is_an_input_error(pipeline: Path, path: str) -> None:
    swap(pipeline / "dvc.yaml", "cmd: python prepare.py", f'cmd: python prepare.py\n    metrics: ["{path}"]')
    with pytest.raises(InputError, match="no path"):
        staleness(pipeline)


def test_a_colon_in_a_name_is_part_of_it(pipeline: Path) -> None:
    for file in ("dvc.yaml", "dvc.lock"):
        swap(pipeline / file, "  train:\n", '  "x:train":\n')
    assert staleness(pipeline) == {}
