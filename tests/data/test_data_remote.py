"""Remote files: fetched whole or not at all, again only when they have changed, without a secret in any message."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from mlcicd.core.errors import InputError, MlcicdError, ServiceError
from mlcicd.data.remote import fetch
from mlcicd.data.source import open_source


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def test_a_file_comes_once_and_again_when_it_has_changed(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pipe("/bucket/t.csv", b"a\n1\n")
    target = tmp_path / "train.csv"
    version = fetch("memory://bucket/t.csv", target, shown="t")
    assert target.read_bytes() == b"a\n1\n"
    target.write_bytes(b"kept")
    assert fetch("memory://bucket/t.csv", target, shown="t", known=version) == version
    assert target.read_bytes() == b"kept"
    memory.pipe("/bucket/t.csv", b"a\n2\n")
    assert fetch("memory://bucket/t.csv", target, shown="t", known=version) != version
    assert target.read_bytes() == b"a\n2\n"


def test_a_folder_or_a_glob_is_its_parquet_files(memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name in ("m=1/a.parquet", "m=2/a.parquet", "b.parquet"):
        with memory.open(f"/lake/t/{name}", "wb") as file:
            pq.write_table(pa.table({"x": [1, 2]}), file)
    memory.pipe("/lake/t/_SUCCESS", b"")
    fetch("memory://lake/t/", tmp_path / "train", shown="t")
    assert open_source(tmp_path / "train").rows == 6
    memory.rm("/lake/t/b.parquet")
    fetch("memory://lake/t/", tmp_path / "train", shown="t")
    assert open_source(tmp_path / "train").rows == 4
    fetch("memory://lake/t/m=*/a.parquet", tmp_path / "holdout", shown="t")
    assert open_source(tmp_path / "holdout").rows == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["holdout", "train"]


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("memory://nowhere/t.csv", "nothing is there"),
        ("memory://empty/", "no Parquet files"),
        ("nosuch://bucket/t.csv", "does not know such an address"),
        ("abfs://bucket/t.csv", "package that is not installed"),
    ],
)
def test_what_can_not_be_fetched(memory: fsspec.AbstractFileSystem, tmp_path: Path, address: str, what: str) -> None:
    memory.makedirs("/empty", exist_ok=True)
    with pytest.raises(InputError, match=what):
        fetch(address, tmp_path / "out", shown="it")
    assert not list(tmp_path.iterdir())


class _Handler(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if "cut" in self.path:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"a\n1\n")
        elif "forbidden" in self.path:
            self.send_error(403)
        else:
            super().do_GET()

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "t.csv").write_text("a,b\n1,x\n")
    handler = partial(_Handler, directory=str(tmp_path / "www"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.mark.slow
def test_http(server: str, tmp_path: Path) -> None:
    target = tmp_path / "train.csv"
    fetch(f"{server}/t.csv", target, shown="t")
    assert open_source(target).rows == 1
    # Its server tells no ETag: what can not be known to be unchanged is fetched again.
    (tmp_path / "www" / "t.csv").write_text("a,b\n1,x\n2,y\n")
    version = fetch(f"{server}/t.csv", target, shown="t")
    assert open_source(target).rows == 2
    for name, kind in (("cut.csv", ServiceError), ("forbidden.csv", InputError), ("none.csv", InputError)):
        with pytest.raises(kind) as caught:
            fetch(f"{server}/{name}?X-Signature=hunter22", target, shown=name, known=version)
        assert "hunter22" not in f"{caught.value} {caught.value.detail()}"
        assert isinstance(caught.value, MlcicdError)
        assert open_source(target).rows == 2
