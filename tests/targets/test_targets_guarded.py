"""A local target whose servers ask for a token and write an inference log."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request

import pytest

from mlcicd.core.errors import ConfigError, ServiceError
from mlcicd.core.verdict import CheckStatus
from mlcicd.serving.replay import replay
from mlcicd.serving.smoke import SmokeRequest, run_smoke

TOKEN = "correct-horse"
BODY = {"dataframe_records": [{"x": 1.0, "word": "hush"}]}
LOG = {"sample": 1.0, "redact": ["word"], "max_mb": 1.0, "keep": 1}


def _ask(url, headers):
    asked = urllib.request.Request(f"{url}/invocations", json.dumps(BODY).encode(), headers)
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers


@pytest.mark.slow
def test_the_token_and_the_log_hold_behind_the_router(make_target, version, monkeypatch, tmp_path):
    monkeypatch.setenv("TOY_TOKEN", TOKEN)
    target = make_target(inference_log=LOG, token_env="TOY_TOKEN")
    own = target.deploy(version("1"))
    target.promote("1")
    url = target.status().url
    assert _ask(url, {"content-type": "application/json"})[0] == 401
    status, headers = _ask(url, {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"})
    assert status == 200
    asked = [SmokeRequest("one", BODY)]
    assert run_smoke(own, asked)[0].status is CheckStatus.FAILED
    assert run_smoke(own, asked, token=TOKEN)[0].status is CheckStatus.PASSED
    bodies = [json.dumps(BODY).encode()]
    assert replay(own, bodies, rate_per_s=50, count=2).answers == {(401, "1"): 2}
    assert replay(own, bodies, rate_per_s=50, count=2, token=TOKEN).answers == {(200, "1"): 2}
    # The router, too, leaves the id of the request in the answer: labels are joined by it.
    (log,) = (tmp_path / "state" / "logs").glob("inference-*.jsonl")
    deadline = time.monotonic() + 60
    while headers["x-request-id"] not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "hush" not in log.read_text()
    written = [file for file in (tmp_path / "state").rglob("*") if file.is_file() and "models" not in file.parts]
    assert all(TOKEN.encode() not in file.read_bytes() for file in written)


def test_a_token_that_is_not_set_starts_no_server(make_target, version, monkeypatch):
    monkeypatch.delenv("TOY_TOKEN", raising=False)
    with pytest.raises(ServiceError, match="TOY_TOKEN is not set"):
        make_target(token_env="TOY_TOKEN").deploy(version("1"))


@pytest.mark.parametrize("options", [{"batching": "maybe"}, {"inference_log": {"samples": 1}}, {"max_pending": 0}])
def test_options_that_make_no_sense_are_named(make_target, options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        make_target(**options)
