"""Promotion: the order of its writes is the guarantee, so it is cut after each of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from mlcicd.core.errors import InputError, ServiceError
from mlcicd.registry import RegisteredVersion, promote, restore_previous


class Died(BaseException):
    """The process ended here."""


@dataclass
class FakeRegistry:
    """Versions and aliases in memory; dies before its write number `dies_at`."""

    versions: dict[str, RegisteredVersion]
    aliases: dict[str, str] = field(default_factory=dict)
    dies_at: int | None = None
    writes: int = 0

    def _write(self) -> None:
        if self.writes == self.dies_at:
            raise Died
        self.writes += 1

    def version(self, _name: str, version: str) -> RegisteredVersion:
        if version not in self.versions:
            raise InputError("no such version")
        return self.versions[version]

    def version_at(self, _name: str, alias: str) -> RegisteredVersion | None:
        return self.versions.get(self.aliases.get(alias, ""))

    def set_alias(self, _name: str, alias: str, version: str) -> None:
        self._write()
        self.aliases[alias] = version

    def tag_version(self, _name: str, version: str, tags: dict[str, str]) -> None:
        self._write()
        known = self.versions[version]
        self.versions[version] = replace(known, tags={**known.tags, **tags})


def registry(*, dies_at: int | None = None, **aliases: str) -> FakeRegistry:
    versions = {v: RegisteredVersion("m", v, f"run{v}", "") for v in ("1", "2", "3")}
    return FakeRegistry(versions, dict(aliases), dies_at)


ALIASES = {"champion_alias": "champion", "previous_alias": "previous", "reason": "test"}


def test_champion_becomes_previous() -> None:
    known = registry(champion="1")
    done = promote(known, "m", "2", expected_champion="1", **ALIASES)
    assert done.changed
    assert known.aliases == {"champion": "2", "previous": "1"}


def test_again_changes_nothing() -> None:
    known = registry(champion="2", previous="1")
    assert not promote(known, "m", "2", expected_champion="1", **ALIASES).changed
    assert known.aliases == {"champion": "2", "previous": "1"}
    assert known.writes == 0


def test_another_champion_than_the_evidence_knows() -> None:
    known = registry(champion="3")
    with pytest.raises(ServiceError, match="measured against version 1"):
        promote(known, "m", "2", expected_champion="1", **ALIASES)
    assert known.writes == 0


def test_first_champion() -> None:
    known = registry()
    promote(known, "m", "1", expected_champion="", **ALIASES)
    assert known.aliases == {"champion": "1"}


def test_no_such_version() -> None:
    with pytest.raises(InputError):
        promote(registry(champion="1"), "m", "9", expected_champion="1", **ALIASES)


@pytest.mark.parametrize("dies_at", range(3))
def test_killed_anywhere_and_run_again_ends_where_it_would_have(dies_at: int) -> None:
    known = registry(champion="1", dies_at=dies_at)
    with pytest.raises(Died):
        promote(known, "m", "2", expected_champion="1", **ALIASES)
    assert known.aliases["champion"] in ("1", "2")
    if known.aliases["champion"] == "2":
        assert known.aliases["previous"] == "1", "there would be no way back"
    known.dies_at = None
    promote(known, "m", "2", expected_champion="1", **ALIASES)
    assert known.aliases == {"champion": "2", "previous": "1"}


def test_back_and_the_bad_one_is_kept() -> None:
    known = registry(champion="2", previous="1")
    done = restore_previous(known, "m", **ALIASES)
    assert done.changed
    assert known.aliases == {"champion": "1", "previous": "2"}
    assert known.versions["2"].tags["mlcicd.rolled_back_because"] == "test"


def test_nothing_to_go_back_to() -> None:
    with pytest.raises(InputError, match="no previous version"):
        restore_previous(registry(champion="1"), "m", **ALIASES)


@pytest.mark.parametrize("dies_at", range(3))
def test_rollback_killed_anywhere_ends_on_the_good_version(dies_at: int) -> None:
    known = registry(champion="2", previous="1", dies_at=dies_at)
    with pytest.raises(Died):
        restore_previous(known, "m", **ALIASES)
    known.dies_at = None
    if known.aliases["champion"] == "2":
        restore_previous(known, "m", **ALIASES)
    assert known.aliases["champion"] == "1"
