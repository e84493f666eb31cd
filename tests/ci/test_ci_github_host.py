"""The GitHub host: whatever a value holds, the runner reads back that value and nothing else."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hostile_values import hostile
from runner_model import read_log, read_outputs

from mlcicd.ci import Annotation, CIHost, detect_host
from mlcicd.ci.github import GitHubHost
from mlcicd.ci.github_api import GitHubClient, PermissionDenied
from mlcicd.ci.gitlab import GitLabHost
from mlcicd.ci.plain import PlainHost
from mlcicd.core.errors import DefectError, ServiceError


class Step:
    """One step of a job: its files, its environment, what it prints."""

    def __init__(self, folder: Path, event: Mapping[str, Any] | None = None, **environ: str) -> None:
        self.output = folder / "output"
        self.summary = folder / "summary"
        self.printed = io.StringIO()
        (folder / "event.json").write_text(json.dumps(event or {}))
        self.environ = {
            "GITHUB_ACTIONS": "true",
            "GITHUB_OUTPUT": str(self.output),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "GITHUB_EVENT_PATH": str(folder / "event.json"),
            "GITHUB_REPOSITORY": "me/flights",
            **environ,
        }

    def host(self, client: Any = None) -> GitHubHost:
        return GitHubHost(self.environ, stream=self.printed, client=client)

    def outputs(self) -> list[tuple[str, str]]:
        return read_outputs(self.output.read_bytes().decode())


@pytest.fixture
def step(tmp_path: Path) -> Step:
    return Step(tmp_path)


def written(value: str) -> str:
    """The value as it can be written at all: a lone surrogate has no encoding."""
    return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in value)


def test_twenty_thousand_hostile_outputs_come_back_as_they_were(tmp_path: Path) -> None:
    rng = random.Random(1)
    for batch in range(200):
        folder = tmp_path / str(batch)
        folder.mkdir()
        one = Step(folder)
        values = {f"output-{i}": hostile(rng) for i in range(100)}
        one.host().outputs(values)
        assert one.outputs() == [(name, written(value)) for name, value in values.items()]


def test_outputs_follow_what_another_program_left_without_a_line_end(step: Step) -> None:
    step.output.write_text("before=1")
    step.host().outputs({"status": "passed"})
    assert step.outputs() == [("before", "1"), ("status", "passed")]


def test_two_calls_use_two_delimiters(step: Step) -> None:
    host = step.host()
    host.outputs({"a": "x"})
    host.outputs({"a": "x"})
    delimiters = {line.partition("<<")[2] for line in step.output.read_text().splitlines() if "<<" in line}
    assert len(delimiters) == 2


@pytest.mark.parametrize("name", ["", "a b", "a=b", "a<<b", "1a", "a\nb", "é"])
def test_a_name_that_is_none_is_a_defect(step: Step, name: str) -> None:
    with pytest.raises(DefectError):
        step.host().outputs({name: "x"})


def test_an_output_too_long_is_left_empty_with_a_warning(step: Step) -> None:
    step.host().outputs({"big": "x" * 200_000, "small": "y"})
    assert step.outputs() == [("big", ""), ("small", "y")]
    assert [c.name for c in read_log(step.printed.getvalue()).commands] == ["warning"]


@pytest.mark.parametrize("variable", ["GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"])
def test_a_file_that_can_not_be_written_is_an_error(tmp_path: Path, variable: str) -> None:
    one = Step(tmp_path, **{variable: str(tmp_path / "missing" / "file")})
    with pytest.raises(ServiceError):
        one.host().outputs({"a": "b"}) if variable == "GITHUB_OUTPUT" else one.host().summary("x")


def test_a_runner_that_gives_no_output_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="GITHUB_OUTPUT"):
        Step(tmp_path, GITHUB_OUTPUT="").host().outputs({"a": "b"})


def test_hostile_annotations_come_back_as_they_were(tmp_path: Path) -> None:
    rng = random.Random(2)
    one = Step(tmp_path)
    for _ in range(4_000):
        one.printed = io.StringIO()
        title, message, file = hostile(rng), hostile(rng), hostile(rng)
        one.host().annotate("error", f"t{title}.", message, file=f"f{file}", line=3)
        log = read_log(one.printed.getvalue())
        assert [c.name for c in log.commands] == ["error"]
        assert log.text == [""]
        command = log.commands[0]
        assert set(command.properties) == {"title", "file", "line"}
        assert command.properties["line"] == "3"
        assert command.properties["file"] == written(f"f{file}".replace("\\", "/"))
        assert command.data == written(message)


def test_hostile_log_lines_titles_and_masks_are_no_commands(tmp_path: Path) -> None:
    rng = random.Random(3)
    one = Step(tmp_path)
    for _ in range(4_000):
        one.printed = io.StringIO()
        host = one.host()
        host.log([hostile(rng), f"  {hostile(rng)}"])
        assert read_log(one.printed.getvalue()).commands == []
        with host.group(hostile(rng)):
            pass
        assert [c.name for c in read_log(one.printed.getvalue()).commands] == ["group", "endgroup"]
        secret = hostile(rng)
        host.mask(secret)
        masked = [c.data for c in read_log(one.printed.getvalue()).commands if c.name == "add-mask"]
        assert masked == [written(line) for line in secret.splitlines() if line.strip()]


def test_nothing_a_child_prints_is_a_command(step: Step) -> None:
    host = step.host()
    rng = random.Random(4)
    with host.stop_commands():
        for _ in range(500):
            step.printed.write(hostile(rng))
    host.annotate("notice", "after", "still works")
    assert [(c.name, c.data) for c in read_log(step.printed.getvalue()).commands] == [("notice", "still works")]


def test_commands_work_again_when_the_block_fails(step: Step) -> None:
    host = step.host()

    def fail() -> None:
        with host.stop_commands(), host.group("x"):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    host.annotate("notice", "after", "still works")
    assert read_log(step.printed.getvalue()).commands[-1].data == "still works"


def test_more_than_ten_annotations_become_ten_that_count_the_rest(step: Step) -> None:
    host = step.host()
    host.annotate_all(
        [Annotation("warning", "W", "w")] + [Annotation("error", f"E{i}", f"message {i}") for i in range(25)]
    )
    log = read_log(step.printed.getvalue())
    errors = [c for c in log.commands if c.name == "error"]
    assert [c.properties["title"] for c in errors] == [*[f"E{i}" for i in range(9)], "16 more of this kind"]
    assert "E24: message 24" in errors[-1].data
    assert [c.name for c in log.commands][-1] == "warning"
    assert any("E24" in line for line in log.text)
    host.annotate("error", "later", "message")
    log = read_log(step.printed.getvalue())
    assert len([c for c in log.commands if c.name == "error"]) == 10
    assert any("later" in line for line in log.text)


def test_summaries_stay_below_the_limit_and_are_closed(step: Step) -> None:
    host = step.host()
    block = "<details><summary>x</summary>\n\n" + "é" * 999 + "\n" + "line of text\n" * 9_000 + "\n</details>\n"
    for _ in range(12):
        host.summary(block)
    text = step.summary.read_bytes().decode()
    assert 850 * 1024 < len(text.encode()) <= 900 * 1024
    assert text.count("<details>") == text.count("</details>")
    assert "cut here" in text
    assert host.summary_room() is not None
    assert host.summary_room() >= 0  # type: ignore[operator]


def test_a_summary_starts_on_its_own_line(step: Step) -> None:
    step.summary.write_text("of another step")
    step.host().summary("## ours")
    assert step.summary.read_text() == "of another step\n## ours\n"


def test_without_a_summary_file_there_is_nothing_to_write(tmp_path: Path) -> None:
    one = Step(tmp_path, GITHUB_STEP_SUMMARY="")
    one.host().summary("x")
    assert one.host().summary_room() is None


@pytest.mark.parametrize(
    ("event", "ref", "number"),
    [
        ({"pull_request": {"number": 7}}, "", 7),
        ({}, "refs/pull/12/merge", 12),
        ({"pull_request": None}, "refs/heads/main", None),
        ({"pull_request": "x"}, "", None),
        ({}, "refs/pull/x/merge", None),
    ],
)
def test_the_pull_request(tmp_path: Path, event: dict[str, Any], ref: str, number: int | None) -> None:
    host = Step(tmp_path, event, GITHUB_REF=ref).host()
    assert host.pull_request() == number
    assert host.is_pull_request() is (number is not None)


class Client:
    """Stands in for the API client: records, or refuses."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls: list[tuple[int, str, str]] = []

    def upsert_comment(self, number: int, marker: str, body: str) -> str:
        self.calls.append((number, marker, body))
        if self.error:
            raise self.error
        return "https://github.example/comment/1"


PULL = {"pull_request": {"number": 7, "head": {"repo": {"full_name": "me/flights"}}}}
FORK = {"pull_request": {"number": 7, "head": {"repo": {"full_name": "you/flights"}}}}
DENIED = PermissionDenied("refused (403)", permission="pull-requests: write", where="x")


def test_a_comment_is_posted_under_its_marker(tmp_path: Path) -> None:
    client = Client()
    result = Step(tmp_path, PULL).host(client).comment("text", key="My --> key")
    assert result.posted
    assert result.url == "https://github.example/comment/1"
    assert client.calls == [(7, "<!-- mlcicd:my-----key -->", "text")]


@pytest.mark.parametrize("event", [PULL, FORK])
def test_a_token_that_may_not_write_sends_the_text_to_the_summary(tmp_path: Path, event: dict[str, Any]) -> None:
    one = Step(tmp_path, event)
    result = one.host(Client(DENIED)).comment("## the text")
    assert not result.posted
    assert "`pull-requests: write`" in result.reason
    assert ("from a fork" in result.reason) is (event is FORK)
    assert "## the text" in one.summary.read_text()
    warning = read_log(one.printed.getvalue()).commands[0]
    assert (warning.name, warning.data) == ("warning", result.reason)


def test_no_token_sends_the_text_to_the_summary(tmp_path: Path) -> None:
    one = Step(tmp_path, PULL)
    result = one.host().comment("## the text")
    assert not result.posted
    assert "no token" in result.reason
    assert "## the text" in one.summary.read_text()


def test_a_defect_in_the_client_is_not_swallowed(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        Step(tmp_path, PULL).host(Client(KeyError("x"))).comment("text")


def test_outside_of_a_pull_request_nothing_is_posted(step: Step) -> None:
    client = Client()
    result = step.host(client).comment("text")
    assert (result.posted, client.calls) == (False, [])


def test_an_oversized_comment_is_cut_below_the_limit(tmp_path: Path) -> None:
    client = Client()
    Step(tmp_path, PULL).host(client).comment("a line\n" * 40_000)
    assert len(client.calls[0][2].encode()) <= 65_000


def test_detection() -> None:
    assert isinstance(detect_host({"GITHUB_ACTIONS": "true"}), GitHubHost)
    assert isinstance(detect_host({"GITLAB_CI": "true"}), GitLabHost)
    assert isinstance(detect_host({}), PlainHost)
    assert isinstance(detect_host({"GITHUB_ACTIONS": "false"}), PlainHost)
    hosts: list[CIHost] = [
        detect_host({}),
        detect_host({"GITHUB_ACTIONS": "true"}),
        detect_host({"GITLAB_CI": "true"}),
    ]
    assert [h.name for h in hosts] == ["plain", "github", "gitlab"]


def test_the_client_of_a_step_uses_its_server_and_token() -> None:
    environ = {
        "GITHUB_REPOSITORY": "me/flights",
        "GITHUB_TOKEN": "t\n",
        "GITHUB_API_URL": "https://ghes.example/api/v3",
    }
    client = GitHubClient.from_environ(environ)
    assert client._http._base == "https://ghes.example/api/v3"
