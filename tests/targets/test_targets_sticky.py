"""A user sees one version: the split by the value of a header or of the application's own cookie."""

from __future__ import annotations

import json

import pytest
import requests

from mlcicd.core.errors import ConfigError
from mlcicd.targets.local import LocalTarget

BODY = json.dumps({"dataframe_records": [{"x": 1.0}]}).encode()
USERS = range(150)


def versions(url, headers_of):
    """Which users the canary answers. No cookie that an answer sets would be sent with the next."""
    with requests.Session() as session:
        session.cookies.set_policy(_no_cookies())
        found = {}
        for user in USERS:
            headers = {"content-type": "application/json", **headers_of(user)}
            answer = session.post(f"{url}/invocations", data=BODY, headers=headers, timeout=30)
            assert answer.status_code == 200
            assert "set-cookie" not in answer.headers
            found[user] = answer.headers["x-mlcicd-version"]
        return {user for user, version in found.items() if version == "2"}


def _no_cookies():
    from http.cookiejar import DefaultCookiePolicy

    return DefaultCookiePolicy(allowed_domains=[])


@pytest.mark.slow
@pytest.mark.alone
def test_who_saw_the_canary_stays_with_it_while_its_share_grows(make_target, version):
    target = make_target(sticky_cookie="session", sticky_header="x-user")
    target.deploy(version("1"))
    target.promote("1")
    target.deploy(version("2"))
    url = target.status().url

    def by_cookie(user):
        return {"cookie": f"theme=dark; session={user}-session"}

    def by_header(user):
        # The header goes first: another session of the same user, on another device, sees the same version.
        return {"x-user": f"user {user}", "cookie": f"session={user * 7919}"}

    cookies, headers = [], []
    for share in (0.1, 0.5, 0.5, 0.9):
        target.set_share("2", share)
        cookies.append(versions(url, by_cookie))
        headers.append(versions(url, by_header))
    for groups in (cookies, headers):
        assert groups[0] < groups[1] == groups[2] < groups[3]
        # Binomial(150, 0.5) is outside these bounds once in 10^6; the hash is the same in every run.
        assert 45 <= len(groups[1]) <= 105
    assert versions(url, lambda user: {"x-user": f"user {user}"}) == headers[3]
    # Without either a request goes anywhere, as if nothing were sticky.
    target.set_share("2", 0.5)
    assert 45 <= len(versions(url, lambda _user: {})) <= 105


@pytest.mark.parametrize("option", ["sticky_header", "sticky_cookie"])
@pytest.mark.parametrize("name", ["two words", "a;b", "a\n", "ü", "x" * 101])
def test_a_name_that_is_none_is_refused(tmp_path, option, name):
    with pytest.raises(ConfigError, match="not the name of a"):
        LocalTarget("staging", tmp_path, **{option: name})
