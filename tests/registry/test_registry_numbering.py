"""Semantic versions: the next one, given once, and to one version alone, also when several register at once."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

import pytest

from mlcicd.core.errors import ConfigError
from mlcicd.registry import RegisteredVersion, Registry
from mlcicd.registry.numbering import SEMVER, SIGNATURE, Numbering, next_semver, semver_of
from mlcicd.registry.recovery import Aliases
from mlcicd.registry.registration import register_once

from .conftest import NAME, registry_at

ALIASES = Aliases("champion", "previous")


def versions(*numbers: tuple[str, str]) -> list[RegisteredVersion]:
    return [RegisteredVersion("m", str(n), "", "", {SEMVER: v, SIGNATURE: s}) for n, (v, s) in enumerate(numbers, 1)]


@pytest.mark.parametrize(
    ("known", "signature", "expected"),
    [
        ([], "a", "v1.0.0"),
        ([("v1.0.0", "a")], "a", "v1.1.0"),
        ([("v1.0.0", "a")], "b", "v2.0.0"),
        ([("v1.9.0", "a"), ("v1.10.3", "a")], "a", "v1.11.0"),
        ([("v2.0.0", "b"), ("v1.0.0", "a")], "a", "v3.0.0"),
        (
            [("", ""), ("v1.0", "a"), ("v01.0.0", "a"), ("v9.0.0\n", "a"), ("v9.0.0-rc", "a"), ("v\u0663.0.0", "a")],
            "a",
            "v1.0.0",
        ),
        ([("v1.0.0", "")], "", "v1.1.0"),
    ],
)
def test_the_next_one(known: list[tuple[str, str]], signature: str, expected: str) -> None:
    assert next_semver(versions(*known), Numbering(signature)) == expected


def test_the_wanted_one_is_taken_once() -> None:
    assert next_semver(versions(("v1.0.0", "a")), Numbering("a", "v1.5.0")) == "v1.5.0"
    with pytest.raises(ConfigError, match=r"v1\.0\.0 is version 1"):
        next_semver(versions(("v1.0.0", "a")), Numbering("b", "v1.0.0"))


@pytest.mark.parametrize(("highest", "signature"), [("v999999999.0.0", "b"), ("v1.999999999.0", "a")])
def test_after_the_highest_of_all_comes_none(highest: str, signature: str) -> None:
    known = versions(("v1.0.0", "a"), (highest, "a"))
    with pytest.raises(ConfigError, match=rf"{highest} of version 2 of 'm'"):
        next_semver(known, Numbering(signature))
    assert next_semver(known, Numbering(signature, "v1.5.0")) == "v1.5.0"


def register(registry: Registry, content: str, numbering: Numbering) -> tuple[str, bool]:
    tags = {"mlcicd.content": content, "mlcicd.model_digest": ""}
    version, made = register_once(
        registry,
        NAME,
        registry.version(NAME, "1").run_id,
        tags,
        alias="challenger",
        aliases=ALIASES,
        numbering=numbering,
    )
    assert registry.version(NAME, version.version).tags[SEMVER] == semver_of(version)
    return semver_of(version), made


def test_it_stays_when_it_is_registered_again(registry: Registry) -> None:
    assert register(registry, "a", Numbering("s")) == ("v1.0.0", True)
    assert register(registry, "b", Numbering("s")) == ("v1.1.0", True)
    assert register(registry, "a", Numbering("other", "v7.0.0")) == ("v1.0.0", False)
    # One that was registered before there were any gets one now.
    assert register(registry, "2", Numbering("other")) == ("v2.0.0", False)
    with pytest.raises(ConfigError):
        register(registry, "c", Numbering("s", "v1.1.0"))
    assert len(registry.versions(NAME)) == 6


def test_several_at_once_get_one_each(registry: Registry, tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []

    def run(content: str) -> None:
        told.append((content, register(registry_at(tmp_path, lease_s=60), content, Numbering("s"))[0]))

    threads = [Thread(target=run, args=(content,)) for content in ("x", "y", "z", "x")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(set(number for _, number in told)) == ["v1.0.0", "v1.1.0", "v1.2.0"]
    assert len({number for content, number in told if content == "x"}) == 1
