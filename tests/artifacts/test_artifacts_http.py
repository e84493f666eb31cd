"""The artifact repository over plain HTTP: whole or not there, resumed, never replaced; against a server that errs."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlcicd.artifacts import MANIFEST, fetch, manifest_of, put, verify
from mlcicd.artifacts.http_store import HttpStore
from mlcicd.artifacts.stores import open_store
from mlcicd.core.errors import ConfigError, InputError, MlcicdError, ServiceError, redact

from .artifact_server import Kept, artifact_server

pytestmark = pytest.mark.slow

FACTS = {"model": "tiny"}


@pytest.fixture
def server() -> Iterator[Kept]:
    with artifact_server() as kept:
        yield kept


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Three files: text, none, and one longer than a chunk; a name that an URL must quote."""
    contents = {
        "model/MLmodel": b"flavors: {}\n",
        "model/empty": b"",
        "model/data/w\u00e9 #1?.bin": bytes(range(256)) * 8192,
    }
    made = {}
    for name, content in contents.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        made[name] = path
    return made


def store_at(server: Kept, credentials: str = "", waits: list[float] | None = None) -> HttpStore:
    return HttpStore(server.url, credentials, sleep=(waits if waits is not None else []).append)


def put_all(server: Kept, files: dict[str, Path], **options: object) -> object:
    return put(store_at(server, **options), "tiny", files, FACTS, sleep=lambda s: None)  # type: ignore[arg-type]


def whole(server: Kept, files: dict[str, Path], tmp_path: Path) -> None:
    """What is there is fetched and is the same, byte for byte."""
    digest = manifest_of(files, FACTS).digest
    verify(store_at(server), "tiny", digest)
    target = tmp_path / "fetched"
    fetch(store_at(server), "tiny", digest, target)
    assert {p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()} == set(files)
    assert all((target / name).read_bytes() == path.read_bytes() for name, path in files.items())


def test_put_once_and_whole(server: Kept, files: dict[str, Path], tmp_path: Path) -> None:
    first = put_all(server, files)
    assert (first.sent, first.kept) == (4, 0)
    assert server.asked("PUT")[-1].endswith(MANIFEST)
    again = put_all(server, files)
    assert (again.sent, again.kept, again.digest) == (0, 4, first.digest)
    assert len(server.asked("PUT")) == 4
    whole(server, files, tmp_path)


FAULTS = ["500", "503 2", "429 3", "cut", "reply lost", "closed mid-body", "half"]


@pytest.mark.parametrize("overwrites", [True, False])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_each_request_is_got_over(
    fault: str, overwrites: bool, files: dict[str, Path], tmp_path: Path
) -> None:
    with artifact_server() as clean:
        put_all(clean, files)
        requests = len(clean.seen)
    for number in range(1, requests + 1):
        with artifact_server() as server:
            server.overwrites = overwrites
            server.faults = {number: fault}
            if fault == "closed mid-body" and not overwrites:
                # A server that keeps a half and lets nobody replace it: an error, and never taken for whole.
                try:
                    put_all(server, files)
                except ServiceError:
                    assert not any(path.endswith(MANIFEST) and _same(server, path, files) for path in server.files)
                    continue
            else:
                put_all(server, files)
            whole(server, files, tmp_path / str(number))


def _same(server: Kept, path: str, files: dict[str, Path]) -> bool:
    return server.files[path] == manifest_of(files, FACTS).document


@pytest.mark.parametrize(
    ("fault", "said"), [("403", "403"), ("401", "401"), ("404", "404"), ("413", "413"), ("500", "500")]
)
def test_a_refusal_at_each_request_is_an_error_and_then_goes_on(
    fault: str, said: str, files: dict[str, Path], tmp_path: Path
) -> None:
    """A server that fails for good from some request on, is mended, and is asked again."""
    with artifact_server() as clean:
        put_all(clean, files)
        puts = [number for number, (method, _, _) in enumerate(clean.seen, 1) if method == "PUT"]
    for number in puts:
        with artifact_server() as server:
            server.faults = {n: fault for n in range(number, number + 40)}
            with pytest.raises(ServiceError, match=said):
                put_all(server, files)
            with pytest.raises(InputError, match="did not end"):
                server.faults = {}
                verify(store_at(server), "tiny", manifest_of(files, FACTS).digest)
            sent = len(server.files)
            assert put_all(server, files).kept == sent
            whole(server, files, tmp_path / str(number))


def test_retry_after_is_waited_for_and_not_for_ever(server: Kept, files: dict[str, Path]) -> None:
    waits: list[float] = []
    server.faults = {2: "429 7"}
    put_all(server, files, waits=waits)
    assert waits == [7.0]
    server.always = "429 9999"
    with pytest.raises(ServiceError, match="429"):
        put_all(server, files, waits=waits)
    assert waits == [7.0]
    # All waits of a request together, not each for itself.
    server.always = "503 50"
    with pytest.raises(ServiceError, match="503"):
        put_all(server, files, waits=waits)
    assert waits == [7.0, 50.0, 50.0]


def test_what_was_put_meanwhile_is_not_written_over(server: Kept, files: dict[str, Path]) -> None:
    """The server refuses, and that is no error: what is there is compared next."""
    store, source = store_at(server), files["model/MLmodel"]
    store.put("tiny/a", source, new=True)
    server.files["/repository/models/tiny/a"] = b"of another upload"
    store.put("tiny/a", source, new=True)
    assert server.files["/repository/models/tiny/a"] == b"of another upload"
    store.put("tiny/a", source, new=False)
    assert server.files["/repository/models/tiny/a"] == source.read_bytes()


def test_what_is_gone_is_not_there_and_bytes_are_asked_for_as_they_are(server: Kept) -> None:
    server.always = "410"
    assert store_at(server).get("tiny/a", lambda: lambda chunk: None) is False
    ((_, _, headers),) = server.seen
    assert headers["accept-encoding"] == "identity"


def test_names_that_an_address_would_cut_short_are_kept_apart(server: Kept, tmp_path: Path) -> None:
    made = {name: tmp_path / str(number) for number, name in enumerate(["a", "a#1", "a#2", "a?1", "a%231", "a b"])}
    for name, path in made.items():
        path.write_text(name)
    put_all(server, made)
    whole(server, made, tmp_path)


@pytest.mark.parametrize("what", ["changed", "longer", "page"])
def test_something_else_is_never_replaced(what: str, server: Kept, files: dict[str, Path]) -> None:
    put_all(server, files)
    path = next(p for p in server.files if p.endswith("MLmodel"))
    before = {"changed": b"flavorZ: {}\n", "longer": b"flavors: {}\n\n", "page": b"<!doctype html>"}[what]
    server.files[path] = before
    with pytest.raises(ServiceError, match="something else stands"):
        put_all(server, files)
    assert server.files[path] == before
    with pytest.raises(InputError, match="not the one of the manifest"):
        verify(store_at(server), "tiny", manifest_of(files, FACTS).digest)


def test_a_sign_in_page_with_200_is_not_a_repository(server: Kept, files: dict[str, Path]) -> None:
    server.always = "html"
    with pytest.raises(ServiceError, match="something else stands"):
        put_all(server, files)
    with pytest.raises(InputError, match="not the one of this address"):
        verify(store_at(server), "tiny", "sha256:" + "0" * 64)


def test_hostile_manifests_are_refused(server: Kept, tmp_path: Path) -> None:
    """Of the right digest, since a version's tags may be forged, too."""
    import json

    from mlcicd.core.digests import digest_bytes

    def document(path: str) -> bytes:
        files = {path: {"sha256": "0" * 64, "size": 1}}
        return (
            json.dumps({"format": "mlcicd-artifacts-1", "facts": {}, "files": files}, sort_keys=True, indent=1) + "\n"
        ).encode()

    paths = ["../evil", "/evil", "a/../../evil", "a//b", "a\\b", "C:/evil", "a\nb", ".", "a/./b", ""]
    for data in [*map(document, paths), b"[]", b"{}", b"[" * 100_000, b'{"files": {"a": 1}}', b"\xff"]:
        digest = digest_bytes(data)
        server.files[f"/repository/models/tiny/{digest.rpartition(':')[2]}/{MANIFEST}"] = data
        with pytest.raises(InputError, match="not a manifest"):
            fetch(store_at(server), "tiny", digest, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "evil").exists()


def test_credentials_go_to_the_server_and_nowhere_else(server: Kept, files: dict[str, Path]) -> None:
    secret = "plant-user-x:plant-6b1f00d5"
    put_all(server, files, credentials=secret)
    assert all(headers["authorization"].startswith("Basic ") for _, _, headers in server.seen)
    put_all(server, files, credentials="plant-token-9f")
    assert server.seen[-1][2]["authorization"] == "Bearer plant-token-9f"
    with artifact_server() as other:
        server.seen.clear()
        server.always = f"302 {other.url}/"
        for act in (
            lambda: put_all(server, files, credentials=secret),
            lambda: verify(store_at(server, secret), "tiny", "sha256:" + "0" * 64),
        ):
            with pytest.raises(MlcicdError) as caught:
                act()
            told = f"{caught.value.one_line()}\n{caught.value.detail()}"
            assert "plant" not in told
            assert "another server" in told
        assert other.seen == []
    user, password = secret.split(":")
    encoded = base64.b64encode(secret.encode()).decode()
    assert redact(f"{user} sent {password} as {encoded}.") == f"{user} sent *** as ***."
    with pytest.raises(ConfigError):
        HttpStore(server.url, "a\nb")


@pytest.mark.parametrize(
    "host", ["nexus.example.invalid", "192.0.2.7:8081", "127.0.0.1.example.invalid", "[2001:db8::1]"]
)
def test_credentials_do_not_go_in_the_clear(host: str) -> None:
    with pytest.raises(ConfigError, match="plain HTTP") as caught:
        open_store(f"http://{host}/models", credentials="ann:plant-77c1")
    assert "plant" not in caught.value.one_line() + caught.value.detail()
    open_store(f"http://{host}/models")
    open_store(f"https://{host}/models", credentials="ann:plant-77c1")
    for here in ("127.0.0.1:8081", "[::1]", "localhost"):
        open_store(f"http://{here}/models", credentials="ann:plant-77c1")


def test_killed_at_every_request_it_goes_on(files: dict[str, Path], tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    with artifact_server() as clean:
        put_all(clean, files)
        requests = len(clean.seen)
    for number in range(1, requests + 1):
        with artifact_server() as server:
            store = store_at(server)
            send, count = store._exchange, 0

            def dying(*arguments: object, at: int = number, send: object = send, **more: object) -> object:
                nonlocal count
                count += 1
                answer = send(*arguments, **more)  # type: ignore[operator]
                if count == at:
                    raise Killed
                return answer

            store._exchange = dying  # type: ignore[method-assign]
            with pytest.raises(Killed):
                put(store, "tiny", files, FACTS)
            before = len(server.asked("PUT"))
            put_all(server, files)
            # Nothing was sent twice.
            assert sorted(server.asked("PUT")) == sorted(set(server.asked("PUT"))), before
            whole(server, files, tmp_path / str(number))
