"""Credentials, and the client's way with a server that does not answer as it should."""

from __future__ import annotations

import base64
import datetime
import gc
import ipaddress
import json
import ssl
import stat
import sys
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from kube_server import TOKEN, FakeCluster, _handler, kubeconfig, served

from mlcicd.core.errors import ConfigError, MlcicdError, ServiceError
from mlcicd.targets.kubernetes.api import Api, Refused
from mlcicd.targets.kubernetes.credentials import find_access

PATH = "/api/v1/namespaces/ml/configmaps"
MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}}


@pytest.fixture
def cluster():
    return FakeCluster()


@pytest.fixture
def url(cluster):
    with served(cluster) as address:
        yield address


def _api(tmp_path, url, **user):
    slept = []
    api = Api(find_access(kubeconfig(tmp_path, url, **user), "", {}), sleep=slept.append, timeout_s=5.0)
    return api, slept


def test_waiting_goes_by_what_the_server_asks_for(cluster, url, tmp_path):
    faults = iter(["429", "503", None])
    cluster.faults = lambda *_: next(faults)
    api, slept = _api(tmp_path, url)
    assert api.create(PATH, MAP)["data"] == {"k": "v"}
    assert slept == [0.0, 0.5], "Retry-After: 0, then twice the first pause"


def test_a_slow_server_is_given_up(cluster, url, tmp_path):
    cluster.faults = lambda number, *_: "slow1.5" if number < 3 else None
    api = Api(find_access(kubeconfig(tmp_path, url), "", {}), sleep=lambda _s: None, timeout_s=0.3, attempts=2)
    with pytest.raises(ServiceError, match="no answer that could be used") as caught:
        api.get(PATH)
    assert "Timeout" in caught.value.why


def test_a_no_is_final_and_says_what_the_server_said(cluster, url, tmp_path):
    api, slept = _api(tmp_path, url)
    api.create(PATH, MAP)
    with pytest.raises(Refused) as caught:
        api.create(PATH, MAP)
    assert (caught.value.status, caught.value.reason, slept) == (409, "AlreadyExists", [])
    assert api.get(f"{PATH}/none") is None
    with pytest.raises(ServiceError, match="does not know Widget"):
        api.path("v1", "Widget", "ml")
    with pytest.raises(ServiceError, match="does not know Gadget"):
        api.path("example.com/v1", "Gadget", "ml")


def test_an_object_that_changed_is_not_deleted(cluster, url, tmp_path):
    api, _ = _api(tmp_path, url)
    old = api.create(PATH, MAP)
    api.replace(f"{PATH}/a", {**old, "data": {"k": "w"}})
    with pytest.raises(Refused, match="409"):
        api.delete(f"{PATH}/a", old)
    api.delete(f"{PATH}/a", api.get(f"{PATH}/a"))
    api.delete(f"{PATH}/a", old)
    assert cluster.objects == {}


def test_a_token_file_is_read_each_time(cluster, url, tmp_path):
    (tmp_path / "token").write_text(TOKEN + "\n")
    api, _ = _api(tmp_path, url, tokenFile="token")
    api.get(PATH)
    (tmp_path / "token").write_text("another-token")
    with pytest.raises(Refused, match="401"):
        api.get(PATH)


def test_a_credential_plugin_is_asked_again_when_its_token_is_refused(cluster, url, tmp_path):
    script = tmp_path / "plugin.py"
    script.write_text(
        "import json, os, pathlib, sys\n"
        "info = json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
        "mark = pathlib.Path(sys.argv[1]); token = sys.argv[2] if mark.exists() else 'expired-token'\n"
        "mark.touch()\n"
        "print(json.dumps({'apiVersion': info['apiVersion'], 'kind': 'ExecCredential', 'status': {'token': token}}))\n"
    )
    command = {"command": sys.executable, "args": [str(script), str(tmp_path / "mark"), TOKEN]}
    api, _ = _api(tmp_path, url, exec={"apiVersion": "client.authentication.k8s.io/v1", **command})
    assert api.get(PATH)["kind"] == "ConfigMapList"
    assert cluster.authorizations == {"Bearer expired-token", f"Bearer {TOKEN}"}


@pytest.mark.parametrize(
    "code", ["import sys; print('password=hush', file=sys.stderr); sys.exit(3)", "print('not json')", "print('{}')"]
)
def test_a_credential_plugin_that_fails_is_told_without_its_secrets(url, tmp_path, code):
    api, _ = _api(tmp_path, url, exec={"command": sys.executable, "args": ["-c", code]})
    with pytest.raises(ServiceError, match="credential plug-in") as caught:
        api.get(PATH)
    assert "hush" not in caught.value.detail()


def _document(tmp_path, url, **changes):
    path = kubeconfig(tmp_path, url)
    document = json.loads(path.read_text())
    document["clusters"][0]["cluster"].update(changes.pop("cluster", {}))
    document.update(changes)
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cluster": {"insecure-skip-tls-verify": True}}, "not to verify"),
        ({"cluster": {"server": "http://10.0.0.1:8080"}}, "not an https URL"),
        ({"cluster": {"server": "ftp://127.0.0.1"}}, "not an https URL"),
        ({"cluster": {"certificate-authority-data": "%%%"}}, "not base64"),
        ({"current-context": "other"}, "the context that is asked for"),
        ({"contexts": 3}, "the context that is asked for"),
        ({"users": [{"name": "ci", "user": {"username": "a", "password": "hush-hush"}}]}, "no way into a cluster"),
    ],
)
def test_a_kubeconfig_that_is_not_safe_or_not_one_is_refused(tmp_path, changes, said):
    with pytest.raises(ConfigError) as caught:
        find_access(_document(tmp_path, "https://127.0.0.1:1", **changes), "", {})
    assert said in caught.value.one_line()
    assert TOKEN not in caught.value.detail() and "hush" not in caught.value.detail()


def test_where_credentials_come_from(tmp_path):
    with pytest.raises(ConfigError, match="no credentials"):
        find_access(None, "", {"HOME": str(tmp_path)})
    path = kubeconfig(tmp_path, "https://127.0.0.1:1")
    for environ in ({"KUBECONFIG": f"/nonexistent:{path}"}, {"HOME": str(tmp_path)}):
        (tmp_path / ".kube").mkdir(exist_ok=True)
        (tmp_path / ".kube" / "config").write_text(path.read_text())
        assert find_access(None, "", environ).server == "https://127.0.0.1:1"
    broken = tmp_path / "broken"
    broken.write_text("{")
    with pytest.raises(ConfigError):
        find_access(broken, "", {})


# --- TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A certificate authority, and certificates of a server (127.0.0.1) and a client, as files."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    folder = tmp_path_factory.mktemp("tls")
    now = datetime.datetime.now(datetime.UTC)

    def made(name, signer, *names):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer, signing = signer or (subject, key)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
        )
        if signer is None:
            others = ["content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign"]
            others += ["encipher_only", "decipher_only", "digital_signature"]
            usage = dict.fromkeys(others, False)
            builder = builder.add_extension(x509.KeyUsage(key_cert_sign=True, **usage), critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(list(names)), critical=False)
        certificate = builder.sign(signing, hashes.SHA256())
        (folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / f"{name}.key").write_bytes(private)
        return subject, key

    root = made("ca", None)
    made("server", root, x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    made("named", root, x509.DNSName("cluster.internal"))
    made("client", root)
    made("stranger", None)
    return folder


@pytest.fixture
def secure(cluster, authority, request):
    """An API server that wants a client certificate, at https."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    name = getattr(request, "param", "server")
    context.load_cert_chain(authority / f"{name}.crt", authority / f"{name}.key")
    context.load_verify_locations(authority / "ca.crt")
    context.verify_mode = ssl.CERT_OPTIONAL
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(cluster))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None
    thread = threading.Thread(target=lambda: server.serve_forever(0.02), daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(10)


def _trusting(tmp_path, url, authority, ca="ca", **cluster):
    data = base64.b64encode((authority / f"{ca}.crt").read_bytes()).decode()
    return _document(tmp_path, url, cluster={"certificate-authority-data": data, **cluster})


def test_the_clusters_certificate_is_verified(cluster, secure, tmp_path, authority, monkeypatch):
    assert Api(find_access(_trusting(tmp_path, secure, authority), "", {})).get(PATH)["kind"] == "ConfigMapList"
    # Neither the system's authorities nor a variable of the environment take its place.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority / "ca.crt"))
    with pytest.raises(ServiceError, match="can not be verified"):
        Api(find_access(_trusting(tmp_path, secure, authority, "stranger"), "", {})).get(PATH)
    assert cluster.authorizations == {f"Bearer {TOKEN}"}, "the token was sent once, to the one that was verified"


@pytest.mark.parametrize("secure", ["named"], indirect=True)
def test_a_server_may_have_another_name_than_its_address(cluster, secure, tmp_path, authority):
    with pytest.raises(ServiceError, match="can not be verified"):
        Api(find_access(_trusting(tmp_path, secure, authority), "", {})).get(PATH)
    named = _trusting(tmp_path, secure, authority, **{"tls-server-name": "cluster.internal"})
    assert Api(find_access(named, "", {})).get(PATH)["kind"] == "ConfigMapList"


def test_a_client_certificate_is_kept_in_files_that_are_ours_alone(secure, tmp_path, authority):
    path = _trusting(tmp_path, secure, authority)
    document = json.loads(path.read_text())
    user = {"token": TOKEN}
    for key, name in (("client-certificate-data", "client.crt"), ("client-key-data", "client.key")):
        user[key] = base64.b64encode((authority / name).read_bytes()).decode()
    document["users"] = [{"name": "ci", "user": user}]
    path.write_text(json.dumps(document))
    access = find_access(path, "", {})
    assert Api(access).get(PATH)["kind"] == "ConfigMapList"
    files = [Path(name) for name in access.certificate]
    assert all(stat.S_IMODE(f.stat().st_mode) == 0o600 and f.parent.stat().st_mode & 0o077 == 0 for f in files)
    del access
    gc.collect()
    assert not any(f.exists() for f in files)


def test_a_netrc_is_not_asked(cluster, url, tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    _api(tmp_path, url)[0].get(PATH)
    assert cluster.authorizations == {f"Bearer {TOKEN}"}


def test_no_error_holds_the_token(cluster, url, tmp_path):
    api, _ = _api(tmp_path, url)
    for fault in ("500", "html", "close", "401", "403", "302"):
        cluster.faults = lambda *_, fault=fault: fault
        with pytest.raises(MlcicdError) as caught:
            api.get(PATH)
        assert TOKEN not in caught.value.one_line() + caught.value.detail() + repr(caught.value)
