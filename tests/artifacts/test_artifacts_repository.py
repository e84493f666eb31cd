"""What is asked of any store, without a server: attempts that begin anew, answers without an end, disks that forget."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from mlcicd.artifacts import MANIFEST, Manifest, fetch, manifest_of, put, repository, verify
from mlcicd.artifacts.manifest import LARGEST_MANIFEST, read_manifest
from mlcicd.artifacts.repository import address_of
from mlcicd.artifacts.stores import Sink, Stop
from mlcicd.core.digests import digest_bytes
from mlcicd.core.errors import InputError, ServiceError

CHUNK = 1 << 16


class Memory:
    """A store in memory that gives each file twice: a wrong half, as from a connection that breaks, and then all."""

    shown = "memory://models"

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.new: dict[str, bool] = {}
        self.given = 0
        self.endless = ""
        self.forgets = False

    def get(self, path: str, begin: Callable[[], Sink]) -> bool:
        if path not in self.files:
            return False
        content = self.files[path]
        with contextlib.suppress(Stop):
            begin()(b"\0" * (len(content) // 2))
        sink, self.given = begin(), 0
        with contextlib.suppress(Stop):
            sink(content)
            while self.endless and path.endswith(self.endless) and self.given < 4 * LARGEST_MANIFEST:
                self.given += CHUNK
                sink(b" " * CHUNK)
        return True

    def put(self, path: str, source: Path, *, new: bool) -> None:
        self.new[path] = new
        if not self.forgets:
            self.files[path] = source.read_bytes()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    made = {}
    for name, content in {"model/MLmodel": b"flavors: {}\n", "model/data.bin": bytes(range(256)) * 64}.items():
        made[name] = tmp_path / name.replace("/", "-")
        made[name].write_bytes(content)
    return made


def put_all(store: Memory, files: dict[str, Path], waits: list[float] | None = None) -> str:
    return put(store, "tiny", files, {}, sleep=(waits if waits is not None else []).append).digest


def test_each_attempt_begins_anew(files: dict[str, Path], tmp_path: Path) -> None:
    store = Memory()
    digest = put_all(store, files)
    verify(store, "tiny", digest)
    fetch(store, "tiny", digest, tmp_path / "fetched")
    assert all((tmp_path / "fetched" / name).read_bytes() == path.read_bytes() for name, path in files.items())
    before = dict(store.files)
    assert put(store, "tiny", files, {}).sent == 0
    assert store.files == before


def test_a_store_is_told_whether_something_is_there(files: dict[str, Path]) -> None:
    """Only what is not there is sent as new; the beginning of the very file is replaced."""
    store = Memory()
    begun = f"{address_of('tiny', manifest_of(files, {}).digest)}/model/data.bin"
    store.files[begun] = files["model/data.bin"].read_bytes()[:100]
    put_all(store, files)
    assert {path.rpartition("/")[2]: new for path, new in store.new.items()} == {
        "data.bin": False,
        "MLmodel": True,
        MANIFEST: True,
    }


def test_a_store_that_forgets_is_asked_again_later_and_later(files: dict[str, Path]) -> None:
    store, waits = Memory(), list[float]()
    store.forgets = True
    with pytest.raises(ServiceError, match="took a file and does not have it"):
        put_all(store, files, waits)
    assert waits == [1.0, 2.0]


@pytest.mark.parametrize("name", [MANIFEST, "data.bin"])
def test_an_answer_without_an_end_is_not_read_to_its_end(name: str, files: dict[str, Path]) -> None:
    store = Memory()
    digest = put_all(store, files)
    store.endless = name
    with pytest.raises(InputError):
        verify(store, "tiny", digest)
    assert 0 < store.given <= (LARGEST_MANIFEST if name == MANIFEST else 0) + 2 * CHUNK


def test_a_size_that_is_not_the_files_is_refused(files: dict[str, Path]) -> None:
    store = Memory()
    put_all(store, files)
    true = manifest_of(files, {})
    wrong = Manifest({name: (size + 1, digest) for name, (size, digest) in true.files.items()}, {})
    store.files = {
        path.replace(address_of("tiny", true.digest), address_of("tiny", wrong.digest)): content
        for path, content in store.files.items()
    }
    store.files[f"{address_of('tiny', wrong.digest)}/{MANIFEST}"] = wrong.document
    with pytest.raises(InputError, match="not the one of the manifest"):
        verify(store, "tiny", wrong.digest)


def test_a_folder_that_is_there_is_left(files: dict[str, Path], tmp_path: Path) -> None:
    """An empty one, too: somebody has made it for something else."""
    store, target = Memory(), tmp_path / "there"
    digest = put_all(store, files)
    target.mkdir()
    with pytest.raises(InputError, match="there already"):
        fetch(store, "tiny", digest, target)
    assert list(target.iterdir()) == []


def test_a_disk_that_keeps_something_else_is_found_out(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Memory()
    digest = put_all(store, files)
    monkeypatch.setattr(repository, "_rewinding", lambda file: lambda: lambda chunk: file.write(chunk[:1]))
    with pytest.raises(ServiceError, match="disk did not keep"):
        fetch(store, "tiny", digest, tmp_path / "target")
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(
    "name", ["../up", "/abs", "a//b", "./a", "a/..", "a\\b", "c:d", "a\nb", "a\0b", ""], ids=[str(n) for n in range(10)]
)
def test_names_that_mean_something_else_elsewhere(name: str, files: dict[str, Path]) -> None:
    """Neither sent, nor taken from a manifest that somebody else has written, whatever its digest."""
    store = Memory()
    with pytest.raises(InputError, match="can not keep a file of this name"):
        put(store, "tiny", {name: files["model/MLmodel"]}, {})
    assert store.files == {}
    hostile = Manifest({name: (12, "sha256:" + "0" * 64)}, {})
    with pytest.raises(InputError, match="not a manifest as mlcicd writes them"):
        read_manifest(hostile.document, hostile.digest, "there")


def test_a_manifest_has_one_form(files: dict[str, Path]) -> None:
    """Also one whose address is right: two forms of the same content would be two addresses of it."""
    document = manifest_of(files, {}).document
    for other in (document + b"\n", document.replace(b'"facts": {},', b'"facts": {}, "more": 1,')):
        assert other != document
        with pytest.raises(InputError, match="not a manifest as mlcicd writes them"):
            read_manifest(other, digest_bytes(other), "there")
