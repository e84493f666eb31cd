"""The GitLab host: dotenv outputs, sections, and the note on a merge request."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from fake_forge import Fault, Forge, forge
from hostile_values import hostile

from mlcicd.ci.gitlab import GitLabHost
from mlcicd.ci.gitlab_api import GitLabClient
from mlcicd.core.errors import DefectError, ServiceError

TOKEN = "glpat-0123456789SECRET"
ME = {"id": 9, "username": "project_bot"}
MARKER = "<!-- mlcicd:report -->"


def host(
    folder: Path, stream: io.StringIO | None = None, client: GitLabClient | None = None, **environ: str
) -> GitLabHost:
    return GitLabHost({"GITLAB_CI": "true", "CI_PROJECT_DIR": str(folder), **environ}, stream=stream, client=client)


def dotenv(folder: Path) -> dict[str, str]:
    """Keys and values as GitLab reads a dotenv report: one a line, space around them and quotes taken off."""
    pairs = {}
    for line in (folder / ".mlcicd" / "outputs.env").read_bytes().decode().splitlines():
        match = re.fullmatch(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", line)
        assert match, line
        assert match[1] not in pairs
        pairs[match[1]] = match[2]
    return pairs


@pytest.fixture
def server() -> Iterator[Forge]:
    with forge() as state:
        state.login = ME
        state.writer = ME
        yield state


@pytest.fixture
def client(server: Forge) -> Iterator[GitLabClient]:
    with requests.Session() as session:
        session.trust_env = False
        waits: list[float] = []
        yield GitLabClient("team/flights", token=TOKEN, api_url=server.url, session=session, sleep=waits.append)


def test_hostile_outputs_stay_one_line_each_under_our_names(tmp_path: Path) -> None:
    rng = random.Random(5)
    for i in range(1_000):
        folder = tmp_path / str(i)
        host(folder, io.StringIO()).outputs({"model-version": hostile(rng), "status": hostile(rng), "end": "7"})
        read = dotenv(folder)
        assert list(read) == ["MLCICD_MODEL_VERSION", "MLCICD_STATUS", "MLCICD_END"]
        assert read["MLCICD_END"] == "7"


def test_a_line_end_becomes_two_characters(tmp_path: Path) -> None:
    host(tmp_path).outputs({"reason": "one\r\ntwo\nthree"})
    assert dotenv(tmp_path) == {"MLCICD_REASON": "one\\ntwo\\nthree"}


def test_the_report_stays_below_what_gitlab_takes(tmp_path: Path) -> None:
    one = host(tmp_path, io.StringIO())
    one.outputs({"long": "x" * 4_000, "longer": "x" * 4_000})
    one.outputs({"last": "x" * 4_000})
    assert (tmp_path / ".mlcicd" / "outputs.env").stat().st_size < 5 * 1024
    assert dotenv(tmp_path)["MLCICD_LONGER"] == ""


def test_a_name_that_is_none_is_a_defect(tmp_path: Path) -> None:
    with pytest.raises(DefectError):
        host(tmp_path).outputs({"a=b": "x"})


def test_a_file_that_can_not_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".mlcicd").write_text("a file")
    with pytest.raises(ServiceError):
        host(tmp_path).outputs({"a": "b"})


def test_sections_are_opened_and_closed_by_one_name(tmp_path: Path) -> None:
    stream = io.StringIO()
    with host(tmp_path, stream).group("title \x1b[0Ksection_end:0:x\r"):
        stream.write("inside\n")
    marks = re.findall(r"section_(start|end):\d+:([\w]+)", stream.getvalue())
    assert [kind for kind, _ in marks] == ["start", "end"]
    assert len({name for _, name in marks}) == 1


def test_log_lines_hold_no_marks(tmp_path: Path) -> None:
    stream = io.StringIO()
    rng = random.Random(6)
    one = host(tmp_path, stream)
    for _ in range(500):
        one.log([hostile(rng)])
        one.annotate("error", hostile(rng), hostile(rng), file=hostile(rng))
    assert "section_start:" not in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_the_note_is_made_then_updated_in_place(tmp_path: Path, server: Forge, client: GitLabClient) -> None:
    one = host(tmp_path, io.StringIO(), client, CI_MERGE_REQUEST_IID="4")
    assert one.is_pull_request()
    assert one.comment("one").posted
    assert one.comment("two").posted
    assert [c["body"] for c in server.comments] == [f"{MARKER}\ntwo"]
    assert server.methods() == ["GET", "GET", "POST", "GET", "GET", "PUT"]
    assert {s.headers["private-token"] for s in server.seen} == {TOKEN}
    assert all("authorization" not in s.headers for s in server.seen)
    assert server.seen[1].path == "/projects/team%2Fflights/merge_requests/4/notes"


def test_anothers_note_with_our_marker_is_left_alone(server: Forge, client: GitLabClient) -> None:
    server.add(f"{MARKER}\nmine!", {"id": 5})
    client.upsert_note(4, MARKER, "new")
    assert [c["body"] for c in server.comments] == [f"{MARKER}\nmine!", f"{MARKER}\nnew"]


def test_an_answer_lost_makes_no_second_note(server: Forge, client: GitLabClient) -> None:
    server.fail("POST", Fault(drop=True, act=True))
    client.upsert_note(4, MARKER, "new")
    assert [c["body"] for c in server.comments] == [f"{MARKER}\nnew"]


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"[3]", b'[{"id": "x"}]'])
def test_a_200_that_is_not_what_was_asked_for_is_an_error(server: Forge, client: GitLabClient, body: bytes) -> None:
    server.fail("/projects/team%2Fflights/merge_requests/4/notes", Fault(200, body))
    with pytest.raises(ServiceError):
        client.upsert_note(4, MARKER, "new")


def test_a_refusal_sends_the_text_to_the_summary(tmp_path: Path, server: Forge, client: GitLabClient) -> None:
    server.fail("GET", Fault(401, b'{"message": "401 Unauthorized"}'))
    stream = io.StringIO()
    result = host(tmp_path, stream, client, CI_MERGE_REQUEST_IID="4").comment("## the text")
    assert not result.posted
    assert "401" in result.reason
    assert "## the text" in (tmp_path / ".mlcicd" / "summary.md").read_text()
    assert TOKEN not in stream.getvalue()


def test_without_a_token_the_reason_says_which(tmp_path: Path) -> None:
    result = host(tmp_path, io.StringIO(), CI_MERGE_REQUEST_IID="4").comment("x")
    assert not result.posted
    assert "GITLAB_TOKEN" in result.reason


def test_outside_of_a_merge_request_nothing_is_posted(tmp_path: Path) -> None:
    assert not host(tmp_path).comment("x").posted
    assert not (tmp_path / ".mlcicd").exists()
