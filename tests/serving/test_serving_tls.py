"""TLS of the model server itself, as a container has it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from certificates import Authority

from mlcicd.targets.servers import free_port

SERVER = Path(__file__).parent.parent.parent / "mlcicd" / "serving" / "server"

BODY = {"dataframe_records": [{"x": 1.0}]}


def _command(models, *options):
    argv = [sys.executable, str(SERVER), "--model", str(models / "scripted-1"), "--name", "toy", "--version", "7"]
    return [*argv, *map(str, options)]


@pytest.mark.slow
def test_the_server_asks_for_certificates_and_its_probes_need_none(models, tmp_path):
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server")
    client = tuple(map(str, authority.issue("client")))
    stranger = tuple(map(str, Authority(tmp_path, "other").issue("stranger")))
    run_file, probe = tmp_path / "run.json", free_port("127.0.0.1")
    tls = ["--tls-certificate", certificate, "--tls-key", key, "--tls-client-ca", authority.certificate]
    argv = _command(models, "--run-file", run_file, "--probe-port", probe, *tls)
    process = subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120

        def ready():
            try:
                return requests.get(f"http://127.0.0.1:{probe}/ready", timeout=20).status_code == 200
            except requests.ConnectionError:
                return False

        while not ready():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        port = json.loads(run_file.read_text())["port"]

        def ask(cert=None):
            with requests.Session() as session:
                url = f"https://127.0.0.1:{port}/invocations"
                return session.post(url, json=BODY, cert=cert, verify=str(authority.certificate), timeout=60)

        answer = ask(client)
        assert answer.json() == {"predictions": [2.0]} and answer.headers["x-mlcicd-version"] == "7"
        for refused in (None, stranger):
            with pytest.raises(requests.ConnectionError):
                ask(refused)
        with pytest.raises(requests.ConnectionError):
            requests.get(f"http://127.0.0.1:{port}/ready", timeout=20)
        # The port without certificates says whether the server is well, and nothing of the model.
        for path in ("/invocations", "/metrics", "/openapi.json", "/v2/models/toy"):
            assert requests.get(f"http://127.0.0.1:{probe}{path}", timeout=20).status_code == 404
        assert requests.post(f"http://127.0.0.1:{probe}/invocations", json=BODY, timeout=20).status_code == 404
        assert ask(client).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    with socket.socket() as gone:
        assert gone.connect_ex(("127.0.0.1", probe)) != 0


def test_certificates_that_are_none_end_the_server_with_a_word(models, tmp_path):
    authority = Authority(tmp_path)
    certificate, _ = authority.issue("server")
    _, other = authority.issue("other")

    def ends(*options):
        done = subprocess.run(_command(models, *options), capture_output=True, text=True, timeout=120, check=False)
        return done.returncode, done.stderr

    status, said = ends("--tls-certificate", certificate, "--tls-key", other)
    assert status == 6 and str(other) in said and "Traceback" not in said
    assert ends("--tls-certificate", certificate)[0] == 2
    assert ends("--tls-client-ca", authority.certificate)[0] == 2
