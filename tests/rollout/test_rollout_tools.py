"""replay, forecast and simulate, from the command line, and the webhook."""

from __future__ import annotations

import json
import math
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from prometheus_server import free_port, served

from mlcicd.cli import cli
from mlcicd.core.errors import ConfigError
from mlcicd.rollout import Judge, JudgeSpec, MetricSpec, Window
from mlcicd.rollout.forecast import Step, forecast
from mlcicd.rollout.notify import EVENTS, Notification, Webhook
from mlcicd.rollout.replay import replay
from mlcicd.rollout.simulate import Stream, windows

CONFIG = """
canary:
  steps: [5, 25, 50]
  min_windows: 3
  metrics: [{name: errors}]
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["canary", *map(str, arguments)])


def answer(*arguments: object, code: int) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == code, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlcicd.yaml").write_text(CONFIG)
    return tmp_path


def record(path: Path, recorded: list[Window]) -> Path:
    path.write_text("".join(json.dumps(window.to_json()) + "\n" for window in recorded))
    return path


def stream(folder: Path, count: int = 60, **options: Any) -> Path:
    options.setdefault("steps", (0.05, 0.25, 0.5))
    return record(folder / "windows.jsonl", list(windows(Stream(**options), count, seed=3)))


# --- replay


def test_a_bad_canary_is_rolled_back_at_the_window_the_judge_says(folder: Path) -> None:
    path = stream(folder, canary_error_ratio=5.0)
    found = answer("replay", "--windows", path, code=1)
    assert found["decision"] == "rollback"
    assert found["window"] == found["windows"] == len(found["trace"]) < found["recorded"] == 60
    assert found["e_values"]["errors"] >= next(m["threshold"] for m in found["metrics"] if m["name"] == "errors")

    judge = Judge(JudgeSpec(**spec_of_config()))
    decision = judge.decision()
    for line in path.read_text().splitlines():
        decision = judge.update(Window.from_json(json.loads(line)))
        if decision.final:
            break
    assert (decision.windows, decision.t, decision.reason) == (found["window"], found["t"], found["reason"])
    assert {m.name: m.e_value for m in decision.metrics} == found["e_values"]


def spec_of_config() -> dict[str, Any]:
    return {
        "metrics": (MetricSpec("errors", margin=2.0, floor=0.005),),
        "min_windows": 3,
        "min_requests": 200,
        "step_windows": 3,
        "max_duration_s": 3600.0,
    }


def test_an_equal_canary_is_promoted_at_the_last_step_only(folder: Path) -> None:
    found = answer("replay", "--windows", stream(folder, 180), code=0)
    assert found["decision"] == "promote"
    assert found["trace"][-1]["share"] == 0.5
    assert found["window"] == len(found["trace"]) > 120
    at_one_share = answer("replay", "--windows", stream(folder, 180, steps=(0.25,)), code=0)
    assert at_one_share["window"] < 60
    assert answer("replay", "--windows", stream(folder, 180, steps=(0.25,)), "--to-the-end", code=0)["windows"] == 180


def test_windows_that_decide_nothing_are_exit_code_three(folder: Path) -> None:
    found = answer("replay", "--windows", stream(folder, 4), code=3)
    assert found["decision"] == "continue"
    ended = stream(folder, 400, requests_per_minute=30.0)
    found = answer("replay", "--windows", ended, code=3)
    assert found["decision"] == "inconclusive"
    assert found["t"] == 3600


def test_what_a_person_reads_names_window_reason_and_every_metric(folder: Path) -> None:
    result = run("replay", "--windows", stream(folder, canary_error_ratio=5.0, rates={"clicked": (0.3, 0.3)}))
    assert result.exit_code == 1
    assert "rollback at window " in result.output
    assert "differs from the champion by more than is tolerated" in result.output
    for word in ("errors", "sample_ratio", "e-value", "not judged since canary.metrics does not name it: clicked"):
        assert word in result.output


def test_without_a_configuration_what_was_recorded_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = answer("replay", "--windows", stream(tmp_path, 180), code=0)
    assert set(found["e_values"]) == {"errors", "sample_ratio"}
    assert "not judged" in found["notes"][0]
    found = answer("replay", "--windows", stream(tmp_path, 60, latency=True, latency_factor=2.0), code=1)
    assert "latency" in found["e_values"]
    assert found["notes"] == []


def test_a_metric_that_was_asked_for_and_not_recorded_does_not_pass(folder: Path) -> None:
    config = folder / "other.yaml"
    config.write_text("canary: {metrics: [{name: errors}, {name: latency, type: histogram}], steps: [5, 25, 50]}")
    found = answer("replay", "--windows", stream(folder, 180), "--config", config, code=1)
    assert "latency: no data" in found["reason"]


def test_a_table_is_replayed_as_json_lines_are(folder: Path) -> None:
    path = stream(folder, canary_error_ratio=5.0)
    columns = ["t", "share", "champion.requests", "champion.errors", "canary.requests", "canary.errors"]
    rows = [columns]
    for line in path.read_text().splitlines():
        one = json.loads(line)
        arms = [one[arm][key] for arm in ("champion", "canary") for key in ("requests", "errors")]
        rows.append([str(value) for value in (one["t"], one["share"], *arms)])
    table = folder / "windows.csv"
    table.write_text("\n".join(",".join(row) for row in rows) + "\n")
    assert answer("replay", "--windows", table, code=1) == answer("replay", "--windows", path, code=1)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("replay", "--windows", "nowhere.jsonl"), 4, "can not read the windows"),
        (("replay", "--windows", "empty.jsonl"), 4, "no window to judge"),
        (("replay", "--windows", "empty.jsonl", "--config", "nowhere.yaml"), 2, "nowhere.yaml"),
        (
            ("replay", "--windows", "empty.jsonl", "--config", "wrong.yaml"),
            2,
            "wrong.yaml:1: unknown key",
        ),
        (("replay", "--windows", "empty.jsonl", "--profile", "x"), 2, "no profile 'x'"),
        (("forecast",), 2, "traffic is not known"),
        (("forecast", "--requests-per-minute", "0", "--error-rate", "0.1"), 2, "must be more than 0, not 0"),
        (("forecast", "--requests-per-minute", "100"), 2, "--error-rate"),
        (("forecast", "--requests-per-minute", "100", "--error-rate", "1.5"), 2, "between 0 and 1"),
        (("forecast", "--requests-per-minute", "100", "--rate", "errors:0.1"), 2, "NAME=RATE"),
        (("simulate", "--requests-per-minute", "100", "--error-rate", "nan"), 2, "between 0 and 1"),
    ],
)
def test_what_can_not_be_answered_is_said(folder: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    (folder / "empty.jsonl").write_text("\n")
    (folder / "wrong.yaml").write_text("canary: {alhpa: 0.05}\n")
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert message in result.output


def test_options_before_the_subcommand_count(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stream(folder, 180)
    named, before = answer("replay", "--windows", path, code=0), ("--working-directory", "..", "--json")
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert json.loads(run(*before, "replay", "--windows", path).stdout) == named
    (folder / "mlcicd.yaml").write_text(f"{CONFIG}\nprofiles: {{strict: {{canary: {{steps: [1, 60]}}}}}}\n")
    strict = json.loads(run(*before, "--profile", "strict", "replay", "--windows", path).stdout)
    assert strict == json.loads(
        run("replay", "--windows", path, "--config", "../mlcicd.yaml", "--profile", "strict", "--json").stdout
    )


# --- forecast and simulate


def test_a_forecast_is_about_what_simulated_rollouts_take(folder: Path) -> None:
    known = ("--requests-per-minute", 3000, "--error-rate", 0.005)
    told = answer("forecast", *known, code=0)["forecasts"]
    drawn = answer("simulate", *known, "--runs", 30, code=0)["scenarios"]
    minutes = {item["canary"].partition(" (")[0]: item["minutes"][1] for item in drawn}
    for item in told:
        name = {("promote", 1.0): "equal", ("harm", 2.0): "errors x 2", ("harm", 5.0): "errors x 5"}.get(
            (item["question"], item["effect"])
        )
        if name:
            # The window and the step in which it falls come on top of the expectation.
            assert 0.6 * item["minutes"] <= minutes[name] <= 1.5 * item["minutes"] + 0.5, name
    assert drawn[0]["rolled_back"] == 0.0
    assert drawn[0]["rolled_back_interval"][0] == 0.0 < drawn[0]["rolled_back_interval"][1] < 0.15


def test_simulations_of_one_seed_are_the_same(folder: Path) -> None:
    known = ("simulate", "--requests-per-minute", 3000, "--error-rate", 0.02, "--runs", 5)
    assert run(*known).output == run(*known).output != run(*known, "--seed", 1).output


def test_what_can_not_be_decided_in_time_is_named(folder: Path) -> None:
    found = answer("forecast", "--requests-per-minute", 20, "--error-rate", 0.02, code=3)
    assert found["undecidable"] == ["errors"]
    assert found["minutes_to_promote"] is None
    assert (
        "In 1h the margin of errors can not be decided"
        in run("forecast", "--requests-per-minute", 20, "--error-rate", 0.02).output
    )


def test_a_rate_below_the_floor_is_promoted_soon_and_never_harmful(folder: Path) -> None:
    found = answer("forecast", "--requests-per-minute", 3000, "--error-rate", 0.00001, code=0)
    harm = {item["effect"]: item for item in found["forecasts"] if item["question"] == "harm"}
    assert {item["minutes"] for item in harm.values()} == {None}
    assert found["minutes_to_promote"] < 10
    without = JudgeSpec(metrics=(MetricSpec("errors", margin=2.0),))
    never = forecast(without, requests_per_minute=3000, steps=[Step(0.1, 1)], rates={"errors": 0.00001})
    assert next(item.minutes for item in never if item.question == "promote") > 1000


def test_recorded_windows_tell_what_is_known_of_the_champion(folder: Path) -> None:
    path = stream(folder, 120, champion_error=0.01, latency=True, even=True)
    found = answer("forecast", "--windows", path, code=0)
    assert found["requests_per_minute"] == pytest.approx(3000)
    assert found["rates"]["errors"] == pytest.approx(0.01, rel=0.1)
    quiet = stream(folder, 10, champion_error=0.0, even=True)
    assert 0 < answer("forecast", "--windows", quiet, code=0)["rates"]["errors"] < 0.001


def test_every_further_rate_has_a_scenario(folder: Path) -> None:
    (folder / "mlcicd.yaml").write_text(
        "canary: {min_windows: 3, metrics: [{name: clicked, direction: higher, margin: 1.3}]}"
    )
    known = ("--requests-per-minute", 3000, "--rate", "clicked=0.3")
    drawn = answer("simulate", *known, "--runs", 5, code=0)["scenarios"]
    assert [(item["canary"], item["rolled_back"]) for item in drawn] == [("equal", 0.0), ("clicked 0.3 -> 0.2", 1.0)]


def test_the_watch_after_a_promotion_is_played(folder: Path) -> None:
    (folder / "mlcicd.yaml").write_text(
        "canary:\n  max_duration: 2h\n  window: 1m\n  watch: 1h\n  labels: outcomes.jsonl\n"
        "  metrics: [{name: errors}, {name: missed, label_delay: 5m}]\n"
    )
    known = ("--requests-per-minute", 3000, "--error-rate", 0.005, "--rate", "missed=0.05")
    drawn = {item["canary"]: item for item in answer("simulate", *known, "--runs", 5, code=0)["scenarios"]}
    later = drawn["missed 0.05 -> 0.075 once promoted"]
    assert (drawn["equal"]["promoted"], drawn["equal"]["withdrawn"]) == (1.0, 0.0)
    assert (later["promoted"], later["withdrawn"]) == (1.0, 1.0)
    assert drawn["errors x 10 (0.05)"]["withdrawn"] == 0.0
    assert "taken back later" in run("simulate", *known, "--runs", 1).output


def test_replay_takes_promotion_only_where_a_rollout_would() -> None:
    spec = JudgeSpec(**spec_of_config())
    recorded = list(windows(Stream(steps=(0.25, 0.5)), 180, seed=3))
    early, late = replay(spec, recorded), replay(spec, recorded, last_share=0.5)
    assert early.at_window < 90 < late.at_window
    assert late.trace[-1].share == 0.5


# --- the webhook


class Receiver:
    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.status = 200
        self.wait = threading.Event()
        self.wait.set()

    def handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                if not receiver.wait.is_set():
                    receiver.wait.wait(10)
                    return
                self.send_response(receiver.status)
                self.send_header("location", "http://127.0.0.1:1/")
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def receiver() -> Iterator[tuple[Receiver, str]]:
    receiver = Receiver()
    with served(receiver.handler()) as address:
        yield receiver, f"http://{address}/services/T0/s3cret"
        receiver.wait.set()


ROLLBACK = Notification("rollback", "delays", "7", "production", "errors: 5 % of requests", "https://ci.example/run/1")


def test_a_message_is_slacks(receiver: tuple[Receiver, str]) -> None:
    told, url = receiver
    assert Webhook(url).tell(ROLLBACK) == ""
    assert told.bodies == [
        {"text": "delays version 7 in production: rolled back\nerrors: 5 % of requests\nhttps://ci.example/run/1"}
    ]


def test_only_what_was_asked_for_is_told(receiver: tuple[Receiver, str]) -> None:
    told, url = receiver
    hook = Webhook(url, events=["promote"])
    for event in EVENTS:
        assert hook.tell(Notification(event, "m", "1", "e")) == ""
    assert [body["text"] for body in told.bodies] == ["m version 1 in e: promoted"]


def test_names_and_reasons_are_neither_markup_nor_secrets() -> None:
    sentence = "<!channel> *look* \x1b[31m\n\n& http://user:hunter2@host/ token=abcdef " + "x" * 9000
    text = Notification("hold", "<@U1>", "1", "e", sentence).text()
    assert "<" not in text
    assert "hunter2" not in text
    assert "abcdef" not in text
    assert "\x1b" not in text
    assert text.count("\n") == 1
    assert len(text) <= 3000


@pytest.mark.parametrize("status", [302, 400, 404, 410, 500])
def test_a_refusal_is_a_sentence_without_the_address(receiver: tuple[Receiver, str], status: int) -> None:
    told, url = receiver
    told.status = status
    assert Webhook(url).tell(ROLLBACK) == f"the webhook answered with HTTP status {status}"
    assert len(told.bodies) == 1


def test_a_webhook_that_hangs_or_is_not_there_costs_its_timeout_at_most(receiver: tuple[Receiver, str]) -> None:
    told, url = receiver
    told.wait.clear()
    began = time.monotonic()
    why = Webhook(url, timeout_s=0.3).tell(ROLLBACK)
    assert time.monotonic() - began < 5
    assert "did not answer within 0.3 s" in why or "can not be reached" in why
    why = Webhook(f"http://127.0.0.1:{free_port()}/services/s3cret", timeout_s=2).tell(ROLLBACK)
    assert why == "the webhook can not be reached (ConnectionError)"


def test_an_answer_that_drips_does_not_hold_a_rollout_up() -> None:
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                for byte in b"HTTP/1.1 200 OK\r\nx-a: " + b"a" * 1000:
                    if done.wait(0.05):
                        return
                    connection.send(bytes([byte]))

        thread = threading.Thread(target=drip)
        thread.start()
        began = time.monotonic()
        why = Webhook(f"http://127.0.0.1:{listener.getsockname()[1]}/", timeout_s=0.4).tell(ROLLBACK)
        took = time.monotonic() - began
        done.set()
        thread.join(10)
    assert why == "the webhook did not answer within 0.4 s"
    assert took < 20


def test_an_address_that_is_none_is_refused_without_being_shown() -> None:
    for url in ("", "ftp://host/s3cret", "s3cret"):
        with pytest.raises(ConfigError) as caught:
            Webhook(url)
        assert "s3cret" not in str(caught.value)


def test_no_number_in_a_document_is_missing_its_meaning(folder: Path) -> None:
    result = run("forecast", "--requests-per-minute", 20, "--error-rate", 0.02, "--json")
    assert not any(word in result.stdout for word in ("NaN", "Infinity"))
    assert math.isfinite(json.loads(result.stdout)["requests_per_minute"])
