"""What the configuration asks of the servers, and the token that requests to them carry."""

from __future__ import annotations

import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from certificates import Authority

from mlcicd.config import load_project
from mlcicd.core.errors import ConfigError
from mlcicd.serving.replay import replay
from mlcicd.stages.canary_traffic import as_caller
from mlcicd.stages.places import place, token

BASE = """\
version: 1
model: {name: toy, task: binary}
data: {train: t.parquet, holdout: h.parquet, target: y}
train: {run: python t.py}
"""


def _project(tmp_path: Path, deploy: str, **environ: str):
    (tmp_path / "mlcicd.yaml").write_text(f"{BASE}deploy:\n  {deploy}\n")
    return load_project(tmp_path, environ={"HOME": str(tmp_path), **environ})


def test_the_log_and_the_token_reach_the_servers(tmp_path):
    project = _project(tmp_path, "token_env: TOY_TOKEN\n  inference_log: {sample: 0.5, redact: [ssn]}", TOY_TOKEN="s3")
    settings = place(project, "").target._settings
    assert settings.token_env == "TOY_TOKEN"
    assert settings.inference_log == {"sample": 0.5, "redact": ["ssn"], "max_mb": 100.0, "keep": 5}
    assert token(project) == "s3"


def test_nothing_is_asked_of_a_target_when_nothing_is_configured(tmp_path):
    project = _project(tmp_path, "mode: delivery")
    assert place(project, "").target._settings.inference_log is None
    assert token(project) == ""


def test_a_token_that_is_not_there_is_named_with_its_line(tmp_path):
    with pytest.raises(ConfigError, match="TOY_TOKEN is not set") as told:
        token(_project(tmp_path, "token_env: TOY_TOKEN"))
    assert told.value.line == 6


@pytest.mark.parametrize("wrong", ["inference_log: {sample: 2}", "inference_log: {redacted: [a]}", "token_env: a b"])
def test_what_makes_no_sense_is_refused(tmp_path, wrong):
    with pytest.raises(ConfigError, match="deploy"):
        _project(tmp_path, wrong)


ELSEWHERE = {
    "kubernetes": "{namespace: models, image: i, gateway: g}",
    "mlflow": "{uri: 'sagemaker:/eu-west-1'}",
}


def _environments(target: str, options: str) -> str:
    return f"environments: {{prod: {{target: {target}, strategy: direct, options: {options}}}}}"


@pytest.mark.parametrize("target", sorted(ELSEWHERE))
@pytest.mark.parametrize("asked", ["token_env: TOY_TOKEN", "inference_log: {redact: [ssn]}"])
def test_a_target_that_can_not_ask_for_a_token_or_redact_says_so(tmp_path, target, asked):
    elsewhere = _environments(target, ELSEWHERE[target])
    key = asked.partition(":")[0]
    with pytest.raises(ConfigError, match=f"the target '{target}' can not do what deploy.{key} asks for") as told:
        place(_project(tmp_path, f"{elsewhere}\n  {asked}"), "")
    assert told.value.line == 7


TLS = "{certificate: tls/server.crt, key: /etc/server.key, client_ca: tls/ca.crt}"


def test_certificates_reach_the_target_by_their_paths_and_one_without_them_says_so(tmp_path):
    project = _project(tmp_path, f"environments: {{prod: {{target: local, tls: {TLS}}}}}")
    root = project.root
    files = {"certificate": f"{root}/tls/server.crt", "key": "/etc/server.key", "client_ca": f"{root}/tls/ca.crt"}
    assert place(project, "").target._endpoint.tls == files
    options = ELSEWHERE["mlflow"]
    with pytest.raises(ConfigError, match=r"can not do what deploy\.environments\.prod\.tls"):
        place(_project(tmp_path, f"environments: {{prod: {{target: mlflow, options: {options}, tls: {TLS}}}}}"), "")


def test_our_own_traffic_shows_a_certificate_and_trusts_the_endpoints_alone(tmp_path):
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    for name in ("server", "caller"):
        authority.issue(name)
    named = "certificate: server.crt, key: server.key, client_ca: ca.crt"
    project = _project(tmp_path, f"environments: {{prod: {{tls: {{{named}}}}}}}")
    with pytest.raises(ConfigError, match="can not call an endpoint") as told:
        as_caller(project, place(project, ""))
    assert told.value.line == 6
    named += ", client_certificate: caller.crt, client_key: caller.key"
    project = _project(tmp_path, f"environments: {{prod: {{tls: {{{named}}}}}}}")
    caller = as_caller(project, place(project, ""))
    assert caller is not None

    def answers(certificate, key):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(authority.certificate)
        context.verify_mode = ssl.CERT_REQUIRED

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"]))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None
        thread = threading.Thread(target=lambda: server.serve_forever(0.02), daemon=True)
        thread.start()
        try:
            url = f"https://127.0.0.1:{server.server_port}"
            return replay(url, [b"{}"], rate_per_s=100, count=3, concurrency=1, tls=caller, timeout_s=20)
        finally:
            server.shutdown()
            server.server_close()
            thread.join(10)

    assert answers(tmp_path / "server.crt", tmp_path / "server.key").ok == 3
    # A certificate of the same authority is not the endpoint's, nor is a stranger's.
    assert answers(*authority.issue("neighbour")).failures == {"SSLCertVerificationError": 3}
    assert answers(*other.issue("stranger")).failures == {"SSLCertVerificationError": 3}


def test_a_targets_names_are_made_of_the_models(tmp_path):
    assert place(_project(tmp_path, _environments("mlflow", ELSEWHERE["mlflow"])), "").target._name == "toy--prod"


@pytest.mark.parametrize(
    ("target", "option"),
    [("local", "token_env: OTHER"), ("mlflow", "model: x"), ("kubernetes", "root: /"), ("kubernetes", "environ: {}")],
)
def test_an_option_can_not_take_the_place_of_what_the_project_says(tmp_path, target, option):
    options = ELSEWHERE.get(target, "{}").replace("{", f"{{{option}, ", 1)
    with pytest.raises(ConfigError, match=f"not an option of a target: {option.partition(':')[0]}") as told:
        place(_project(tmp_path, _environments(target, options)), "")
    assert told.value.line == 6
