"""Files are whole or not there, and digests mean content."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from mlcicd.core.digests import digest_file, digest_json, digest_tree
from mlcicd.core.errors import ExitCode, InputError, ServiceError, redact
from mlcicd.core.files import write_atomic


def test_write_replaces_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file"
    write_atomic(path, "old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")

    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    owner = os if call == "fsync" else Path
    monkeypatch.setattr(owner, call, full)
    with pytest.raises(ServiceError, match="No space left") as caught:
        write_atomic(path, "new")
    monkeypatch.undo()
    assert caught.value.exit_code == ExitCode.SERVICE
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_tree_digest_is_paths_and_contents(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for root in (one, two):
        (root / "sub").mkdir(parents=True)
        (root / "sub" / "a").write_text("1")
        (root / "b").write_text("2")
    assert digest_tree(one) == digest_tree(two)
    (two / "__pycache__").mkdir()
    (two / "__pycache__" / "x.pyc").write_text("what is executed counts")
    assert digest_tree(one) != digest_tree(two)
    (two / "__pycache__" / "x.pyc").unlink()
    assert digest_tree(one) == digest_tree(two)
    (two / "b").write_text("3")
    assert digest_tree(one) != digest_tree(two)
    (two / "b").write_text("2")
    (two / "b").rename(two / "c")
    assert digest_tree(one) != digest_tree(two)


@pytest.mark.parametrize("what", ["file", "folder", "nothing"])
def test_tree_digest_refuses_links(tmp_path: Path, what: str) -> None:
    (tmp_path / "file").write_text("s")
    (tmp_path / "folder").mkdir()
    root = tmp_path / "model"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / what)
    with pytest.raises(InputError, match="symbolic link"):
        digest_tree(root)


def test_digest_of_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        digest_tree(tmp_path / "none")
    with pytest.raises(InputError):
        digest_file(tmp_path / "none")


def test_json_digest_ignores_order() -> None:
    assert digest_json({"a": 1, "b": [2]}) == digest_json({"b": [2], "a": 1})
    assert digest_json({"a": 1}) != digest_json({"a": 2})


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("could not reach https://me:s3cr3t@host/x?y=1", "s3cr3t"),
        ("postgresql://u:p4ss@db:5432/mlflow refused", "p4ss"),
        ("Authorization: Bearer abc.def", "abc.def"),
        ("token=ghp_0123456789", "ghp_0123456789"),
        ("AWS: access_key=AKIA42, region=x", "AKIA42"),
        ("password: hunter2", "hunter2"),
        ("MLFLOW_TRACKING_TOKEN=s3cr3t-t0ken", "s3cr3t-t0ken"),
        ("https://ghp_tokentoken@git.example/x", "ghp_tokentoken"),
        ('{"password": "hunter2"}', "hunter2"),
    ],
)
def test_secrets_do_not_survive_in_errors(text: str, secret: str) -> None:
    assert secret not in redact(text)
    assert secret not in str(ServiceError(text, where=text, why=text, remedy=text).__dict__)


def test_values_of_secret_variables_are_taken_out_wherever_they_stand() -> None:
    from mlcicd.core.errors import learn_secrets

    learn_secrets({"MY_API_KEY": "zq81-plain-looking", "HOME": "/home/somebody", "SHORT_TOKEN": "abc"})
    assert redact("it said zq81-plain-looking!") == "it said ***!"
    assert redact("/home/somebody abc") == "/home/somebody abc"


def test_plain_text_survives_redaction() -> None:
    text = "mlcicd.yaml:3: no metric 'roc'; see https://example.org/docs?a=b#c"
    assert redact(text) == text


@pytest.mark.parametrize("part", ["a", "token", "a.b+", "-", "://", "a://", "token=", "x:", "é"])
def test_redaction_of_a_long_word_takes_time_in_proportion(part: str) -> None:
    """A training that prints a megabyte without a space must not stop the job."""

    def cost(repeats: int) -> float:
        began = time.process_time()
        redact(part * repeats)
        return time.process_time() - began

    cost(100)
    short, long = (min(cost(n) for _ in range(3)) for n in (20_000, 160_000))
    # Eight times the text: in proportion 8, quadratic 64. What is too quick to measure is no danger.
    assert long < 24 * max(short, 0.002)
