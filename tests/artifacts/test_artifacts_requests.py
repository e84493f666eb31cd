"""What is asked of a store, request by request: folders, waits, what is told of answers that do not come."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from mlcicd.artifacts.fsspec_store import FsspecStore
from mlcicd.artifacts.http_store import HttpStore
from mlcicd.core.errors import ConfigError, ServiceError, learn_secret

from .artifact_server import Kept, artifact_server

ROOT = "/repository/models/"
PATH = "tiny/ab cd/x.bin"


@pytest.fixture
def server() -> Iterator[Kept]:
    with artifact_server() as kept:
        yield kept


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "source"
    file.write_bytes(b"weights")
    return file


def _waiting(server: Kept) -> tuple[HttpStore, list[float]]:
    waits: list[float] = []
    return HttpStore(server.url, sleep=waits.append), waits


@pytest.mark.parametrize("status", ["404", "409"])
def test_where_folders_are_missing_they_are_made_from_the_top(server: Kept, source: Path, status: str) -> None:
    server.faults[1] = status
    store, waits = _waiting(server)
    store.put(PATH, source, new=True)
    assert server.asked("MKCOL") == [ROOT, f"{ROOT}tiny/", f"{ROOT}tiny/ab%20cd/"]
    assert server.asked("PUT") == [f"{ROOT}tiny/ab%20cd/x.bin"] * 2
    assert server.files == {f"{ROOT}tiny/ab%20cd/x.bin": b"weights"} and waits == []


def test_where_no_folder_may_be_made_the_first_refusal_is_told(server: Kept, source: Path) -> None:
    server.faults.update({1: "409", 2: "403"})
    store, _ = _waiting(server)
    with pytest.raises(ServiceError, match=r"refused it \(409\)"):
        store.put(PATH, source, new=True)
    assert (server.asked("MKCOL"), len(server.asked("PUT"))) == ([ROOT], 1)


def _nothing() -> Any:
    return lambda chunk: None


def test_the_longer_of_what_the_server_says_and_the_own_pause_is_waited(server: Kept) -> None:
    server.faults.update({1: "503 7", 2: "429 1", 3: "500"})
    store, waits = _waiting(server)
    assert store.get("x", _nothing) is False
    assert waits == [7.0, 2.0, 4.0]


def test_a_time_to_come_again_is_a_wait_and_one_that_is_over_is_none(server: Kept) -> None:
    server.faults.update(
        {1: f"503 {formatdate(time.time() + 60, usegmt=True)}", 2: "503 Sat, 01 Jan 2000 00:00:00 GMT"}
    )
    server.faults[3] = "503 soon"
    store, waits = _waiting(server)
    assert store.get("x", _nothing) is False
    assert 30 <= waits[0] <= 61
    assert waits[1:] == [2.0, 4.0]


def test_a_wait_beyond_patience_is_told_and_not_waited(server: Kept) -> None:
    server.always = "503 500"
    store, waits = _waiting(server)
    with pytest.raises(ServiceError, match="it answered 503") as told:
        store.get("x", _nothing)
    assert told.value.why == "Tried 1 times; the next try would be 500 s later." and waits == []


def test_an_answer_that_does_not_come_is_told_without_what_the_library_says(server: Kept) -> None:
    server.always = "cut"
    store, waits = _waiting(server)
    with pytest.raises(ServiceError, match=r"did not do it: no answer \(ConnectionError\)") as told:
        store.get("x", _nothing)
    assert told.value.where == f"GET {server.url}/x"
    assert told.value.why == "Tried 5 times; the next try would be 16 s later." and waits == [1.0, 2.0, 4.0, 8.0]
    # The library's own text would show a proxy's address, and its password.
    assert told.value.__cause__ is None and told.value.__suppress_context__


class _Stubborn(MemoryFileSystem):
    """Fails so many times, keeps what it was opened with, and has no folders to make where it is an object store."""

    store: dict[str, Any] = {}  # noqa: RUF012  (fsspec's own name)
    pseudo_dirs = [""]  # noqa: RUF012
    cachable = False
    failures = 0
    made: list[str]
    opened: dict[str, Any]

    def __init__(self, *args: Any, failures: int = 0, **options: Any) -> None:
        super().__init__(*args, **options)
        self.failures, self.opened, self.made = failures, options, []

    def _open(self, *args: Any, **options: Any) -> Any:
        if self.failures:
            self.failures -= 1
            raise OSError("GET https://host/x?signature=plant-signed-12345 failed\nand more")
        return super()._open(*args, **options)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self.made.append(path)
        super().makedirs(path, exist_ok=exist_ok)


class _Objects(_Stubborn):
    protocol = ("stubborn-objects", "gs")


def _stubborn(scheme: str = "stubborn", **options: Any) -> tuple[FsspecStore, list[float]]:
    fsspec.register_implementation("stubborn", _Stubborn, clobber=True)
    fsspec.register_implementation("stubborn-objects", _Objects, clobber=True)
    waits: list[float] = []
    return FsspecStore(f"{scheme}://models", options, sleep=waits.append), waits


def test_listings_are_not_kept_unless_that_is_asked_for() -> None:
    assert _stubborn()[0]._fs.opened["use_listings_cache"] is False
    assert _stubborn(use_listings_cache=True)[0]._fs.opened["use_listings_cache"] is True


def test_a_file_system_that_fails_is_asked_three_times(source: Path) -> None:
    store, waits = _stubborn(failures=2)
    read: list[bytes] = []
    store._fs.store.clear()
    store.put("x", source, new=True)
    assert waits == [1.0, 2.0]
    assert store.get("x", lambda: read.append) is True and read == [b"weights"]
    assert store.get("y", lambda: read.append) is False and waits == [1.0, 2.0]


def test_what_a_file_system_says_is_told_without_secrets() -> None:
    learn_secret("plant-signed-12345")
    store, waits = _stubborn(failures=3)
    with pytest.raises(ServiceError) as told:
        store.get("x", _nothing)
    assert waits == [1.0, 2.0]
    assert told.value.what == "could not read from the artifact repository"
    assert "plant-signed" not in str(told.value) and "and more" not in str(told.value)
    assert told.value.why.startswith("OSError: GET https://host/x?signature=")
    assert told.value.__cause__ is None and told.value.__suppress_context__


def test_options_that_are_refused_are_told_without_what_they_are() -> None:
    with pytest.raises(ConfigError, match="can not be opened") as told:
        FsspecStore("no-such-system://models", {"password": "plant-option-9876"})
    assert "plant-option" not in str(told.value)
    assert told.value.__cause__ is None and told.value.__suppress_context__


def test_folders_are_made_where_there_are_folders(source: Path) -> None:
    for scheme, made in (("stubborn", True), ("stubborn-objects", False)):
        store, _ = _stubborn(scheme)
        store.put("a/x", source, new=True)
        # The file system in memory makes some by itself, under another name.
        assert (f"{scheme}://models/a" in store._fs.made) == made, scheme


def test_a_folder_gets_a_file_beside_its_place_and_then_in_it(source: Path, tmp_path: Path) -> None:
    store = FsspecStore(f"file://{tmp_path}/models", {}, sleep=lambda s: None)
    sent, written = store._fs.put_file, []

    def put_file(local: str, remote: str) -> None:
        written.append(Path(remote))
        sent(local, remote)
        assert not (tmp_path / "models/a/x").exists()

    store._fs.put_file = put_file
    try:
        store.put("a/x", source, new=True)
    finally:
        del store._fs.put_file
    (beside,) = written
    assert beside.parent == tmp_path / "models/a" and beside.name.startswith(".") and beside.suffix == ".part"
    assert [path.name for path in (tmp_path / "models/a").iterdir()] == ["x"]
    assert (tmp_path / "models/a/x").read_bytes() == b"weights"
