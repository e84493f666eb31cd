"""The GitHub client against a server that fails in all the ways servers do."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import requests
from fake_forge import BOT, Fault, Forge, forge

from mlcicd.ci.github_api import GitHubClient, PermissionDenied
from mlcicd.core.errors import ConfigError, MlcicdError, ServiceError

TOKEN = "ghs_0123456789abcdefSECRET"
MARKER = "<!-- mlcicd:report -->"
NOW = 1_773_480_600  # the server's Date header, in seconds since the epoch


@pytest.fixture
def server() -> Iterator[Forge]:
    with forge() as state:
        yield state


class Waits(list[float]):
    """Stands in for sleep."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
def client(server: Forge, waits: Waits) -> Iterator[GitHubClient]:
    with requests.Session() as session:
        session.trust_env = False
        yield GitHubClient("me/flights", token=TOKEN, api_url=server.url, session=session, sleep=waits)


def message(status: int, text: str, **headers: str) -> Fault:
    return Fault(status, json.dumps({"message": text}).encode(), {k.replace("_", "-"): v for k, v in headers.items()})


def ours(server: Forge) -> list[str]:
    return [c["body"] for c in server.comments if c["user"] == BOT and c["body"].startswith(MARKER)]


def test_it_creates_the_comment_then_updates_it_in_place(server: Forge, client: GitHubClient) -> None:
    first = client.upsert_comment(7, MARKER, "one")
    second = client.upsert_comment(7, MARKER, "two")
    assert first == second == server.comments[0]["html_url"]
    assert ours(server) == [f"{MARKER}\ntwo"]
    assert server.methods() == ["GET", "POST", "GET", "GET", "PATCH"]


def test_each_request_is_as_github_documents_it(server: Forge, client: GitHubClient) -> None:
    client.upsert_comment(7, MARKER, "one")
    get, post = server.seen[0], server.seen[1]
    assert get.path == post.path == "/repos/me/flights/issues/7/comments"
    assert get.query == {"per_page": ["100"], "page": ["1"]}
    assert post.body == {"body": f"{MARKER}\none"}
    for seen in server.seen:
        assert seen.headers["authorization"] == f"Bearer {TOKEN}"
        assert seen.headers["accept"] == "application/vnd.github+json"
        assert seen.headers["x-github-api-version"] == "2022-11-28"


def test_it_is_found_behind_hundreds_of_others(server: Forge, client: GitHubClient) -> None:
    for i in range(250):
        server.add(f"comment {i}", {"login": "someone", "type": "User"})
    server.add(f"{MARKER}\nold")
    client.upsert_comment(7, MARKER, "new")
    assert ours(server) == [f"{MARKER}\nnew"]
    assert len(server.comments) == 251


def test_a_persons_comment_with_our_marker_is_left_alone(server: Forge, client: GitHubClient) -> None:
    server.add(f"{MARKER}\nmine!", {"login": "mallory", "type": "User"})
    server.add(f"see {MARKER}")
    client.upsert_comment(7, MARKER, "new")
    assert [c["body"] for c in server.comments] == [f"{MARKER}\nmine!", f"see {MARKER}", f"{MARKER}\nnew"]


def test_a_personal_token_finds_its_own_comment(server: Forge, client: GitHubClient) -> None:
    server.login = {"login": "ann", "type": "User"}
    server.add(f"{MARKER}\nold", {"login": "ann", "type": "User"})
    client.upsert_comment(7, MARKER, "new")
    assert [c["body"] for c in server.comments] == [f"{MARKER}\nnew"]


def test_two_runs_at_once_leave_one_comment(server: Forge, client: GitHubClient) -> None:
    def other_was_first() -> None:
        server.after_create = None
        other = server.add(f"{MARKER}\nof the other run")
        other["id"] = 500

    server.after_create = other_was_first
    client.upsert_comment(7, MARKER, "new")
    assert ours(server) == [f"{MARKER}\nnew"]
    assert server.comments[0]["id"] == 500


def test_an_answer_lost_after_the_comment_was_made_makes_no_second(server: Forge, client: GitHubClient) -> None:
    server.fail("POST", Fault(drop=True, act=True))
    client.upsert_comment(7, MARKER, "new")
    assert ours(server) == [f"{MARKER}\nnew"]
    assert server.methods().count("POST") == 1


def test_502_after_the_comment_was_made_makes_no_second(server: Forge, client: GitHubClient) -> None:
    server.fail("POST", Fault(502, act=True))
    client.upsert_comment(7, MARKER, "new")
    assert ours(server) == [f"{MARKER}\nnew"]


def test_a_comment_that_was_not_made_is_tried_again_but_not_for_ever(server: Forge, client: GitHubClient) -> None:
    server.fail("POST", Fault(500), Fault(500))
    client.upsert_comment(7, MARKER, "new")
    assert len(ours(server)) == 1
    server.comments.clear()
    server.fail("POST", *[Fault(drop=True)] * 9)
    with pytest.raises(ServiceError, match="did not say"):
        client.upsert_comment(7, MARKER, "new")


def test_a_broken_connection_and_5xx_are_tried_again_with_backoff(
    server: Forge, client: GitHubClient, waits: Waits
) -> None:
    server.fail("GET", Fault(drop=True), Fault(503), Fault(500))
    client.upsert_comment(7, MARKER, "new")
    assert waits == [1, 2, 4]


@pytest.mark.parametrize(
    ("fault", "wait"),
    [
        (message(429, "slow down", retry_after="7"), 7),
        (message(403, "You have exceeded a secondary rate limit", retry_after="30"), 30),
        (message(403, "You have exceeded a secondary rate limit"), 60),
        (message(429, "slow down"), 60),
        (message(429, "slow down", retry_after="Sat, 14 Mar 2026 09:30:20 GMT"), 20),
        (message(429, "slow down", retry_after="Sat, 14 Mar 2020 09:30:20 GMT"), 0),
        (message(429, "slow down", retry_after="soon"), 60),
        (
            message(403, "API rate limit exceeded", x_ratelimit_remaining="0", x_ratelimit_reset=str(NOW + 40)),
            41,
        ),
        (message(503, "", retry_after="3"), 3),
    ],
)
def test_it_waits_as_told_by_the_servers_clock(
    server: Forge, client: GitHubClient, waits: Waits, fault: Fault, wait: float
) -> None:
    server.fail("GET", fault)
    client.upsert_comment(7, MARKER, "new")
    assert waits == [wait]
    assert len(ours(server)) == 1


def test_a_rate_limit_on_post_is_safe_to_try_again(server: Forge, client: GitHubClient, waits: Waits) -> None:
    server.fail("POST", message(429, "slow down", retry_after="2"))
    client.upsert_comment(7, MARKER, "new")
    assert waits == [2]
    assert len(ours(server)) == 1


@pytest.mark.parametrize("after", ["3600", "99999999999999", str(121)])
def test_it_does_not_wait_longer_than_it_may(server: Forge, client: GitHubClient, waits: Waits, after: str) -> None:
    server.fail("GET", message(429, "slow down", retry_after=after))
    with pytest.raises(ServiceError, match="429 slow down"):
        client.upsert_comment(7, MARKER, "new")
    assert waits == []


def test_all_waits_together_are_bounded(server: Forge, client: GitHubClient, waits: Waits) -> None:
    server.fail("GET", *[message(429, "slow down", retry_after="50")] * 9)
    with pytest.raises(ServiceError):
        client.upsert_comment(7, MARKER, "new")
    assert waits == [50, 50]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_forks_token_names_the_permission(server: Forge, client: GitHubClient, waits: Waits, method: str) -> None:
    server.fail(method, message(403, "Resource not accessible by integration"))
    with pytest.raises(PermissionDenied) as raised:
        client.upsert_comment(7, MARKER, "new")
    assert raised.value.permission == "pull-requests: write"
    assert raised.value.exit_code == 5
    assert waits == []


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (message(401, "Bad credentials"), "new one"),
        (message(404, "Not Found"), "repository"),
        (message(422, "Validation Failed"), ""),
        (message(410, "Issues are disabled"), ""),
        (Fault(400, b"<html>nginx</html>"), ""),
    ],
)
def test_a_refusal_is_not_tried_again(
    server: Forge, client: GitHubClient, waits: Waits, fault: Fault, says: str
) -> None:
    server.fail("GET", fault)
    with pytest.raises(ServiceError) as raised:
        client.upsert_comment(7, MARKER, "new")
    assert says in raised.value.remedy
    assert str(fault.status) in raised.value.what
    assert server.methods() == ["GET"]
    assert waits == []


@pytest.mark.parametrize(
    "body",
    [
        b"<html><body>Sign in</body></html>",
        b"",
        b"{",
        b"\xff\xfe",
        b"{}",
        b"null",
        b'"text"',
        b"[1, 2]",
        b'[{"id": "x"}]',
        b"[" * 100_000,
    ],
)
def test_a_200_that_is_not_what_was_asked_for_is_an_error(server: Forge, client: GitHubClient, body: bytes) -> None:
    server.fail("GET", Fault(200, body))
    with pytest.raises(ServiceError):
        client.upsert_comment(7, MARKER, "new")
    assert server.comments == []


def test_an_endless_answer_is_refused(server: Forge, client: GitHubClient) -> None:
    server.fail("GET", Fault(200, b" " * (17 << 20)))
    with pytest.raises(ServiceError, match="larger"):
        client.upsert_comment(7, MARKER, "new")


def test_a_redirect_is_followed_on_the_same_host_only(server: Forge, client: GitHubClient) -> None:
    moved = "/repositories/5/issues/7/comments?per_page=100&page=1"
    server.fail("GET", Fault(301, b"", {"location": moved}))
    client.upsert_comment(7, MARKER, "new")
    assert server.seen[1].path == "/repositories/5/issues/7/comments"
    with forge() as elsewhere:
        server.fail("GET", Fault(302, b"", {"location": f"{elsewhere.url}/steal"}))
        with pytest.raises(ServiceError, match="another host"):
            client.upsert_comment(7, MARKER, "new")
        assert elsewhere.seen == []


def test_a_circle_of_redirects_ends(server: Forge, client: GitHubClient) -> None:
    server.fail("GET", *[Fault(302, b"", {"location": "/again?per_page=1&page=1"})] * 50)
    with pytest.raises(ServiceError, match="without end"):
        client.upsert_comment(7, MARKER, "new")


def test_a_server_that_is_not_there_is_one_clear_error(waits: Waits) -> None:
    with forge() as gone:
        url = gone.url
    with requests.Session() as session:
        session.trust_env = False
        lonely = GitHubClient("me/flights", token=TOKEN, api_url=url, session=session, sleep=waits)
        with pytest.raises(ServiceError, match="no answer") as raised:
            lonely.upsert_comment(7, MARKER, "new")
    assert url in raised.value.where
    assert waits == [1, 2, 4, 8]


def test_the_token_is_in_no_message(server: Forge, client: GitHubClient) -> None:
    for fault in (
        message(403, f"token {TOKEN} is bad"),
        message(422, f"{TOKEN}"),
        message(429, f"{TOKEN}", retry_after="999"),
        Fault(200, TOKEN.encode()),
        Fault(302, b"", {"location": f"http://{TOKEN}.example/"}),
    ):
        server.fail("GET", fault)
        with pytest.raises(MlcicdError) as raised:
            client.upsert_comment(7, MARKER, "new")
        error = raised.value
        assert TOKEN not in f"{error} {error.what} {error.where} {error.why} {error.remedy}"


@pytest.mark.parametrize("token", ["", "a b", "a\nx-evil: 1", "é"])
def test_a_token_that_is_none_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(ConfigError) as raised:
        GitHubClient("me/flights", token=token)
    assert not token or token not in str(raised.value)


@pytest.mark.parametrize("repository", ["", "flights", "a/b/c", "../x", "me/..", "me/fl?x=1", "me/fl\n"])
def test_a_repository_that_is_none_is_refused(repository: str) -> None:
    with pytest.raises(ConfigError):
        GitHubClient(repository, token=TOKEN)


def test_a_netrc_does_not_replace_the_token(
    server: Forge, waits: Waits, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path_factory.mktemp("home") / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with requests.Session() as session:
        client = GitHubClient("me/flights", token=TOKEN, api_url=server.url, session=session, sleep=waits)
        client.upsert_comment(7, MARKER, "x")
    assert {s.headers["authorization"] for s in server.seen} == {f"Bearer {TOKEN}"}
