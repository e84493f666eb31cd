"""The artifact repository on what others run: a WebDAV server, S3 as moto serves it, a folder."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mlcicd.artifacts import MANIFEST, Store, fetch, manifest_of, open_store, put, verify
from mlcicd.core.errors import ConfigError, InputError, MlcicdError, ServiceError

pytestmark = pytest.mark.slow

FACTS = {"model": "tiny"}


@contextmanager
def served(app: Any) -> Iterator[str]:
    """A WSGI application on loopback, in a thread."""

    from werkzeug.serving import WSGIRequestHandler, make_server
    from werkzeug.wsgi import get_input_stream

    class Quiet(WSGIRequestHandler):
        disable_nagle_algorithm = True

        def log(self, *_: object) -> None:
            pass

    def bounded(environ: Any, start: Any) -> Any:
        # wsgidav reads a request until it ends; with this server it ends where the client says.
        environ["wsgi.input"] = get_input_stream(environ)
        return app(environ, start)

    server = make_server("127.0.0.1", 0, bounded, threaded=True, request_handler=Quiet)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def webdav(folder: Path) -> Iterator[tuple[Store, Path]]:
    from wsgidav.wsgidav_app import WsgiDAVApp

    kept = folder / "dav"
    kept.mkdir()
    users = {"/": {"ci": {"password": "plant-dav-77"}}}
    app = WsgiDAVApp(
        {
            "provider_mapping": {"/": str(kept)},
            "simple_dc": {"user_mapping": users},
            "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
            "logging": {"enable": False},
            "verbose": 0,
        }
    )
    with served(app) as url:
        yield open_store(f"{url}/models", credentials="ci:plant-dav-77"), kept


@contextmanager
def s3(folder: Path) -> Iterator[tuple[Store, Path]]:
    from moto.server import DomainDispatcherApplication, create_backend_app

    # As in a job: what the machine knows of AWS must not matter.
    with served(DomainDispatcherApplication(create_backend_app)) as url:
        secrets = '{"key": "plant-key", "secret": "plant-s3-secret"}'
        options = {"endpoint_url": url, "client_kwargs": {"region_name": "us-east-1"}, "skip_instance_cache": True}
        store = open_store("s3://bucket/models", credentials=secrets, options=options)
        store._fs.call_s3("create_bucket", Bucket="bucket")  # type: ignore[attr-defined]
        yield store, folder


@contextmanager
def local(folder: Path) -> Iterator[tuple[Store, Path]]:
    yield open_store((folder / "kept").as_uri()), folder / "kept"


STORES = {"webdav": webdav, "s3": s3, "local": local}


@pytest.fixture(params=list(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    with STORES[request.param](tmp_path) as (opened, _):
        yield opened


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    contents = {"model/MLmodel": b"flavors: {}\n", "model/empty": b"", "model/data/w\u00e9 #1.bin": os.urandom(3 << 20)}
    made = {}
    for name, content in contents.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        made[name] = path
    return made


def test_whole_once_and_never_replaced(store: Store, files: dict[str, Path], tmp_path: Path) -> None:
    first = put(store, "tiny", files, FACTS)
    assert (first.sent, first.kept) == (4, 0)
    assert put(store, "tiny", files, FACTS).sent == 0
    assert len(verify(store, "tiny", first.digest).files) == 3
    target = tmp_path / "fetched"
    fetch(store, "tiny", first.digest, target)
    assert all((target / name).read_bytes() == path.read_bytes() for name, path in files.items())
    # What somebody has changed there is found, and is not written over.
    (tmp_path / "other").write_bytes(b"flavorZ: {}\n")
    store.put(f"{first.address}/model/MLmodel", tmp_path / "other", new=False)
    with pytest.raises(InputError, match="not the one of the manifest"):
        verify(store, "tiny", first.digest)
    with pytest.raises(ServiceError, match="something else stands"):
        put(store, "tiny", files, FACTS)
    with pytest.raises(InputError):
        fetch(store, "tiny", first.digest, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_an_upload_that_ended_half_way_goes_on(store: Store, files: dict[str, Path], tmp_path: Path) -> None:
    manifest = manifest_of(files, FACTS)
    address = f"tiny/{manifest.digest.rpartition(':')[2]}"
    half = tmp_path / "half"
    half.write_bytes(files["model/data/w\u00e9 #1.bin"].read_bytes()[: 1 << 20])
    store.put(f"{address}/model/MLmodel", files["model/MLmodel"], new=True)
    store.put(f"{address}/model/data/w\u00e9 #1.bin", half, new=True)
    with pytest.raises(InputError, match="did not end"):
        verify(store, "tiny", manifest.digest)
    done = put(store, "tiny", files, FACTS)
    assert (done.sent, done.kept) == (3, 1)
    verify(store, "tiny", manifest.digest)


def test_two_at_once_put_one(store: Store, files: dict[str, Path]) -> None:
    failures = []

    def run() -> None:
        try:
            put(store, "tiny", files, FACTS)
        except MlcicdError as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    verify(store, "tiny", manifest_of(files, FACTS).digest)


def test_a_folder_keeps_nothing_of_an_upload_that_failed(files: dict[str, Path], tmp_path: Path) -> None:
    with local(tmp_path) as (store, kept):
        store._sleep = lambda s: None  # type: ignore[attr-defined]
        stored = put(store, "tiny", files, FACTS)
        (kept / stored.address / MANIFEST).unlink()
        (kept / stored.address / MANIFEST).mkdir()
        with pytest.raises(ServiceError, match="could not read from"):
            put(store, "tiny", files, FACTS)
        assert not list(kept.rglob("*.part"))


def test_wrong_credentials_are_told_without_them(tmp_path: Path) -> None:
    with webdav(tmp_path) as (right, _):
        store = open_store(right.shown, credentials="ci:plant-wrong-55")
        with pytest.raises(ServiceError, match="401") as caught:
            put(store, "tiny", {}, FACTS)
        assert "plant" not in f"{caught.value.one_line()}{caught.value.detail()}"
        assert "credentials_env" in caught.value.remedy


@pytest.mark.parametrize(
    ("url", "more"),
    [
        ("nothing://bucket/x", {}),
        ("s3://bucket", {"credentials": "plant-not-json"}),
        ("s3://bucket", {"credentials": "[1]"}),
        ("https://h/x", {"options": {"a": 1}}),
    ],
)
def test_what_can_not_be_opened_is_said_at_once(url: str, more: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(url, **more)
    assert "plant" not in f"{caught.value.one_line()}{caught.value.detail()}"
