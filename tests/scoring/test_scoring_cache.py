"""Predictions that are kept: whole, what they were, and not too many."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from mlcicd.evaluation import prediction_cache as cache

FIGURES = {"classes": ["a", "b"], "latencies_ms": [0.5]}
SECRET = bytes(range(32))


@pytest.mark.parametrize(
    "answer",
    [
        np.random.default_rng(0).random((500, 3)),
        np.random.default_rng(0).random(500).astype(np.float32),
        np.array([0.25, np.nan, np.inf, -np.inf, -0.0]),
        np.array([[np.nan, 1.0], [2.0, np.nan]]),
        np.arange(7),
        np.array(["", "é'\"", "nan", "None"]),
        np.array([True, False]),
        np.empty(0),
    ],
    ids=lambda a: f"{a.shape}{a.dtype}",
)
def test_what_is_read_is_what_was_written(tmp_path: Path, answer: np.ndarray) -> None:
    cache.write(tmp_path, "k", answer, FIGURES, SECRET)
    known = cache.read(tmp_path, "k", SECRET)
    assert known is not None
    assert known[1] == FIGURES
    assert known[0].dtype == answer.dtype
    assert known[0].shape == answer.shape
    if answer.dtype.kind == "f":
        assert np.array_equal(known[0], answer, equal_nan=True)
    else:
        assert (known[0] == answer).all()


@pytest.mark.parametrize("file", ["predictions.parquet", "entry.json"])
@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "gone", "another's"])
def test_what_was_changed_is_thrown_away(tmp_path: Path, file: str, how: str) -> None:
    cache.write(tmp_path, "k", np.arange(100.0), FIGURES, SECRET)
    path = tmp_path / "k" / file
    data = path.read_bytes()
    if how == "gone":
        path.unlink()
    elif how == "another's":
        cache.write(tmp_path, "other", np.arange(100.0)[::-1], {"classes": ["b", "a"]}, SECRET)
        path.write_bytes((tmp_path / "other" / file).read_bytes())
    else:
        middle = len(data) // 2
        flipped = data[:20] + bytes([data[20] ^ 1]) + data[21:]
        path.write_bytes({"flipped": flipped, "cut": data[:middle], "empty": b""}[how])
    assert cache.read(tmp_path, "k", SECRET) is None
    cache.write(tmp_path, "k", np.arange(3.0), FIGURES, SECRET)
    known = cache.read(tmp_path, "k", SECRET)
    assert known is not None
    assert known[0].tolist() == [0, 1, 2]


def test_a_writer_that_died_leaves_nothing_that_counts(tmp_path: Path) -> None:
    (tmp_path / ".new-dead").mkdir()
    (tmp_path / ".new-dead" / "predictions.parquet").write_bytes(b"PAR1")
    assert cache.read(tmp_path, "k", SECRET) is None
    cache.write(tmp_path, "k", np.arange(3.0), FIGURES, SECRET)
    assert cache.read(tmp_path, "k", SECRET) is not None


def test_two_writers_at_once_leave_one_whole_entry(tmp_path: Path) -> None:
    threads = [
        threading.Thread(target=cache.write, args=(tmp_path, "k", np.full(5000, float(i)), {"who": i}, SECRET))
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    known = cache.read(tmp_path, "k", SECRET)
    assert known is not None
    assert set(known[0].tolist()) == {float(known[1]["who"])}
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


def test_the_oldest_go_first_and_use_makes_young(tmp_path: Path) -> None:
    answer = np.random.default_rng(0).random(2000)
    for i in range(3):
        cache.write(tmp_path, f"k{i}", answer, FIGURES, SECRET)
        os.utime(tmp_path / f"k{i}", (1000 + i, 1000 + i))
    assert cache.read(tmp_path, "k0", SECRET) is not None
    size = sum(file.stat().st_size for file in (tmp_path / "k0").iterdir())
    cache.write(tmp_path, "k3", answer, FIGURES, SECRET, most_bytes=int(2.5 * size))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k0", "k3"]


def test_a_folder_that_can_not_be_written_costs_the_copy_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache.write(tmp_path / "file", "k", np.arange(3.0), FIGURES, SECRET)
    assert cache.read(tmp_path / "file", "k", SECRET) is None


@pytest.mark.parametrize("how", ["another secret", "another name"])
def test_what_was_written_without_the_secret_is_thrown_away(tmp_path: Path, how: str) -> None:
    cache.write(tmp_path, "k", np.arange(3.0), FIGURES, bytes(32) if how == "another secret" else SECRET)
    if how == "another name":
        (tmp_path / "k").rename(tmp_path / "other")
    assert cache.read(tmp_path, "other" if how == "another name" else "k", SECRET) is None


def test_the_secret_is_made_once_for_its_user_alone(tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path)}
    made = cache.secret(environ)
    assert made is not None
    assert cache.secret(environ) == made
    file = tmp_path / "mlcicd" / "cache.key"
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)
    assert cache.secret(environ) is None
    assert cache.secret({}) is None
    cache.write(tmp_path / "kept", "k", np.arange(3.0), FIGURES, None)
    assert not (tmp_path / "kept").exists()
