"""Approvals in a real registry: the newest word counts, whatever the clocks of those who say it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from mlcicd.core.errors import ServiceError
from mlcicd.registry import Origin, Registry
from mlcicd.registry import approvals as module
from mlcicd.registry.approvals import Approval, Standing, record_approval, standing_approval

from .conftest import NAME

DIGEST = "sha256:" + "a" * 64
NOW = datetime.now(UTC)


@pytest.fixture
def known(registry: Registry) -> Registry:
    registry.tag_version(NAME, "1", {"mlcicd.model_digest": DIGEST, "mlcicd.evidence_digest": "e"})
    return registry


def decide(registry: Registry, *, revoke: bool = False) -> Approval:
    version = registry.version(NAME, "1")
    return record_approval(registry, version, "live", reason="r", origin=Origin("ann", ""), revoke=revoke)


def stands(registry: Registry) -> Standing:
    return standing_approval(registry.version(NAME, "1"), "live")


def write(registry: Registry, decision: str, at: str, *, digest: str = DIGEST) -> None:
    """A decision as another machine would leave it."""
    document = vars(Approval(decision, "live", "eve", "r", "", at, digest, "e"))
    registry.tag_version(NAME, "1", {f"mlcicd.approval.live.{decision}-{len(at)}": json.dumps(document)})


def test_the_last_word_counts_also_after_one_from_a_clock_ahead(
    known: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "now", lambda: NOW + timedelta(hours=3))
    decide(known)
    monkeypatch.setattr(module, "now", lambda: NOW)
    assert stands(known).approval is not None
    decide(known, revoke=True)
    assert (stands(known).approval, stands(known).revoked) == (None, True)
    decide(known)
    assert (stands(known).approval is not None, stands(known).revoked) == (True, False)
    dates = [a.at for a in module.approvals_of(known.version(NAME, "1").tags)]
    assert len(set(dates)) == 3 and dates == sorted(dates)


@pytest.mark.parametrize(
    "at", [(NOW + timedelta(days=40)).isoformat(), "9999-12-31T23:59:59.999999+00:00"], ids=["40 days", "year 9999"]
)
def test_an_approval_from_the_future_is_none_now_nor_after_it_was_taken_back(
    known: Registry, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(known, "approve", at)
    assert stands(known) == Standing(None, False, "the date of the approval on this version is in the future, or none")
    decide(known, revoke=True)
    monkeypatch.setattr(module, "now", lambda: datetime.fromisoformat(at) - timedelta(days=1))
    assert stands(known).revoked, "its day has come"


@pytest.mark.parametrize("at", ["", "yesterday", "2026-01-01T00:00:00", "0001-01-01T00:00:00+23:00"])
def test_without_a_date_it_approves_nothing_and_takes_back_all_the_same(known: Registry, at: str) -> None:
    write(known, "approve", at)
    assert stands(known).approval is None
    decide(known)
    assert stands(known).approval is not None, "it is in nobody's way"
    write(known, "revoke", at)
    assert stands(known).revoked
    before = known.version(NAME, "1").tags
    with pytest.raises(ServiceError, match="not approved"):
        decide(known)
    assert known.version(NAME, "1").tags == before, "what does not hold is not left to hold later"


def test_an_approval_of_another_model_does_not_undo_what_was_taken_back(known: Registry) -> None:
    decide(known, revoke=True)
    write(known, "approve", (NOW + timedelta(hours=1)).isoformat(), digest="sha256:" + "b" * 64)
    assert stands(known).revoked


def test_taking_back_that_another_approval_outlasts_is_an_error(
    known: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide(known)
    tag = Registry.tag_version

    def raced(self: Registry, name: str, version: str, tags: dict[str, str]) -> None:
        tag(self, name, version, tags)
        monkeypatch.undo()
        write(self, "approve", (NOW + timedelta(hours=1)).isoformat())

    monkeypatch.setattr(Registry, "tag_version", raced)
    with pytest.raises(ServiceError, match="approved for live all the same"):
        decide(known, revoke=True)
