"""TLS and client certificates in front of a local target, with the real Envoy."""

from __future__ import annotations

import json
import shutil
import ssl
from pathlib import Path

import pytest
import requests
from certificates import Authority

from mlcicd.core.errors import ConfigError, InputError
from mlcicd.targets import processes
from mlcicd.targets.local import LocalTarget
from mlcicd.targets.local_world import KEPT_TLS
from mlcicd.targets.state import StateFolder
from mlcicd.targets.tls import Tls, held, read_tls, secrets

BODY = {"dataframe_records": [{"x": 1.0}]}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


def _files(authority, name):
    certificate, key = authority.issue(name)
    return {"certificate": str(certificate), "key": str(key), "client_ca": str(authority.certificate)}


def _serial(target):
    """The serial number of the certificate that the endpoint shows."""
    from cryptography import x509

    port = int(target.status().url.rpartition(":")[2])
    return x509.load_pem_x509_certificate(ssl.get_server_certificate(("127.0.0.1", port)).encode()).serial_number


def _serial_of(file):
    from cryptography import x509

    return x509.load_pem_x509_certificate(Path(file).read_bytes()).serial_number


@pytest.mark.slow
def test_only_callers_with_a_certificate_of_the_authority_are_answered(make_target, version, authority, tmp_path):
    own = _files(authority, "server")
    target = make_target(tls=own)
    target.deploy(version("1"))
    target.promote("1")
    url = target.status().url
    assert url.startswith("https://127.0.0.1:")

    def ask(certificate=None, to=url):
        with requests.Session() as session:
            return session.post(
                f"{to}/invocations", json=BODY, cert=certificate, verify=str(authority.certificate), timeout=60
            )

    client = tuple(map(str, authority.issue("client")))
    assert ask(client).json() == {"predictions": [2.0]}
    stranger = Authority(tmp_path, "other").issue("stranger")
    ended = authority.issue("ended", days=-1)
    for refused in (None, tuple(map(str, stranger)), tuple(map(str, ended))):
        with pytest.raises((requests.exceptions.SSLError, requests.exceptions.ConnectionError)) as told:
            ask(refused)
        assert "alert" in str(told.value) or "eof" in str(told.value).lower() or "reset" in str(told.value).lower()
    with pytest.raises(requests.exceptions.ConnectionError):
        ask(client, to=url.replace("https", "http"))

    # Another certificate is in force with the next command, without a restart; what can not be one changes nothing.
    router = _router(tmp_path)
    assert _serial(target) == _serial_of(own["certificate"])
    fresh = _files(authority, "fresh")
    rotated = make_target(tls=fresh)
    rotated.reconcile()
    assert _serial(target) == _serial_of(fresh["certificate"])
    with pytest.raises(InputError, match="no pair"):
        make_target(tls={**fresh, "key": own["key"]}).reconcile()
    assert ask(client).status_code == 200 and _serial(target) == _serial_of(fresh["certificate"])
    assert _router(tmp_path) == router

    # Whoever mends it when the files of the job are gone goes by what was read of them.
    for file in fresh.values():
        if file != str(authority.certificate):
            Path(file).unlink()
    processes.stop([router], grace_s=5)
    kept = LocalTarget("staging", tmp_path / "state", supervise=False, tls=KEPT_TLS)
    kept.reconcile()
    assert ask(client).status_code == 200
    written = [file for file in (tmp_path / "state").rglob("*") if file.is_file() and file.name.startswith("tls-")]
    assert {file.stat().st_mode & 0o777 for file in written} == {0o600} and len(written) == 2
    kept.stop()
    assert not any(file.exists() for file in written), "a key stays behind"


def _router(tmp_path):
    from mlcicd.targets.local_router import LocalRouter

    found = LocalRouter(StateFolder(tmp_path / "state")).process()
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"key": "other.key"}, "no pair"),
        ({"key": "locked.key"}, "no pair"),
        ({"certificate": "absent.crt"}, "tls.certificate can not be read"),
        ({"client_ca": "server.key"}, "tls.client_ca holds no certificate"),
        ({"client_ca": "binary"}, "tls.client_ca can not be read"),
        ({"client_ca": "empty"}, "tls.client_ca is an empty file"),
    ],
    ids=["another key", "a password", "absent", "no authority", "no text", "empty"],
)
def test_certificates_that_are_none_are_named_before_anything_starts(make_target, tmp_path, change, said):
    authority = Authority(tmp_path)
    files = _files(authority, "server")
    authority.issue("other")
    authority.issue("locked", password=b"hidden")
    shutil.copyfile(tmp_path / "locked.crt", tmp_path / "of-locked.crt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").touch()
    with pytest.raises(InputError, match=said) as told:
        read_tls({**files, **{name: str(tmp_path / file) for name, file in change.items()}})
    assert "PRIVATE" not in told.value.detail()


@pytest.mark.parametrize("files", [{}, {"certificate": "a.crt"}, {"certificate": "a", "key": "b", "ca": "c"}], ids=str)
def test_names_that_make_no_sense_are_told(files):
    with pytest.raises(ConfigError, match="certificate, key and client_ca"):
        read_tls(files)


def test_what_was_written_is_read_again_and_shown_to_nobody():
    for tls in (Tls("CERTIFICATE", "hidden-key", "AUTHORITY"), Tls("CERTIFICATE", "hidden-key")):
        files = {name: json.dumps({"resources": [found]}) for name, found in secrets(tls).items()}
        assert held(files["server"], files.get("clients", "")) == tls
        assert "hidden-key" not in repr(tls)
    assert held("", "") is None
