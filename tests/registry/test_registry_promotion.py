"""Promotion as a transaction, on a real registry. Deaths at every point: tests/fault."""

from __future__ import annotations

import json

import pytest

from mlcicd.core.errors import InputError, ServiceError
from mlcicd.registry import Origin, Registry, promote, recover, restore_previous
from mlcicd.registry.journal import ABANDONED, DONE, Entry, entries, next_epoch, outdated
from mlcicd.registry.promotion import ROLLED_BACK

from .conftest import NAME

ALIASES = {"champion_alias": "champion", "previous_alias": "previous"}


def aliases(registry: Registry) -> dict[str, str]:
    model = registry.model(NAME)
    assert model is not None
    return dict(model.aliases)


def journal(registry: Registry) -> list[Entry]:
    model = registry.model(NAME)
    assert model is not None
    return entries(model.tags)


def go(registry: Registry, version: str, expected: str | None, reason: str = "test") -> bool:
    return promote(registry, NAME, version, expected_champion=expected, reason=reason, **ALIASES).changed


def begun(registry: Registry, epoch: int, before: str, after: str, previous: str) -> None:
    """What a promotion has written when it dies after its intent."""
    entry = Entry(epoch, "promote", before, after, previous, before or previous)
    registry.tag_model(NAME, entry.intent_tags())


def test_champion_becomes_previous(registry: Registry) -> None:
    assert go(registry, "1", "")
    assert aliases(registry) == {"champion": "1"}
    assert go(registry, "2", "1")
    assert aliases(registry) == {"champion": "2", "previous": "1"}


def test_again_changes_nothing(registry: Registry) -> None:
    go(registry, "1", "")
    assert not go(registry, "1", "")
    assert len(journal(registry)) == 1


def test_another_champion_than_the_evidence_knows(registry: Registry) -> None:
    go(registry, "3", "")
    with pytest.raises(ServiceError, match="measured against version 1") as caught:
        go(registry, "2", "1")
    assert "evaluate again" in caught.value.remedy
    assert aliases(registry) == {"champion": "3"}
    assert len(journal(registry)) == 1


@pytest.mark.parametrize("name", [NAME, "nothing"])
def test_no_such_version(registry: Registry, name: str) -> None:
    with pytest.raises(InputError):
        promote(registry, name, "9", expected_champion=None, reason="", **ALIASES)
    assert registry.find_models("mlcicd-lock--nothing") == []


def test_history_says_who_when_why_and_on_what(registry: Registry) -> None:
    registry.tag_version(NAME, "1", {"mlcicd.evidence_digest": "sha256:e"})
    hostile = "it's \0 better\n::error::x {{7*7}} " + "é" * 5000
    origin = Origin("somebody", "https://user:secret@host/run/1")
    promote(registry, NAME, "1", expected_champion="", reason=hostile, origin=origin, **ALIASES)
    (entry,) = journal(registry)
    assert (entry.operation, entry.after, entry.outcome, entry.who) == ("promote", "1", DONE, "somebody")
    assert entry.reason.startswith("it's better ::error::x {{7*7}} é")
    assert len(entry.reason) <= 500
    assert "secret" not in entry.run
    assert entry.evidence_digest == "sha256:e"
    assert entry.at


def test_back_and_the_bad_one_is_kept(registry: Registry) -> None:
    go(registry, "1", "")
    go(registry, "2", "1")
    assert restore_previous(registry, NAME, reason="worse", **ALIASES).champion.version == "1"
    assert aliases(registry) == {"champion": "1", "previous": "2"}
    assert registry.version(NAME, "2").tags["mlcicd.rolled_back_because"] == "worse"


def test_back_twice_does_not_bring_the_bad_one_back(registry: Registry) -> None:
    go(registry, "1", "")
    go(registry, "2", "1")
    restore_previous(registry, NAME, reason="worse", **ALIASES)
    assert not restore_previous(registry, NAME, reason="worse", **ALIASES).changed
    assert aliases(registry)["champion"] == "1"


def test_back_twice_by_the_journal_where_the_tag_of_the_bad_one_is_lost(registry: Registry) -> None:
    go(registry, "1", "")
    go(registry, "2", "1")
    restore_previous(registry, NAME, reason="worse", **ALIASES)
    registry.untag_version(NAME, "2", ROLLED_BACK)
    again = restore_previous(registry, NAME, reason="worse", **ALIASES)
    assert (again.changed, again.champion.version) == (False, "1")
    assert aliases(registry) == {"champion": "1", "previous": "2"}


def test_promoted_anew_a_version_can_be_gone_back_to_again(registry: Registry) -> None:
    go(registry, "1", "")
    go(registry, "2", "1")
    restore_previous(registry, NAME, reason="worse", **ALIASES)
    go(registry, "2", "1")
    go(registry, "3", "2")
    assert restore_previous(registry, NAME, reason="", **ALIASES).champion.version == "2"


def test_nothing_to_go_back_to(registry: Registry) -> None:
    go(registry, "1", "")
    with pytest.raises(InputError, match="no previous version"):
        restore_previous(registry, NAME, reason="", **ALIASES)


def test_one_small_model_is_what_the_lock_leaves(registry: Registry) -> None:
    for version, expected in (("1", ""), ("2", "1"), ("3", "2")):
        go(registry, version, expected)
    (left,) = registry.find_models("mlcicd-lock--")
    assert left.name == f"mlcicd-lock--{NAME}--00000003"


# --- recovery


def test_in_order_nothing_is_written(registry: Registry) -> None:
    go(registry, "1", "")
    before = registry.model(NAME)
    assert recover(registry, NAME, **ALIASES) == []
    assert registry.model(NAME) == before
    assert recover(registry, "nothing", **ALIASES) == []


def test_a_switch_that_did_not_happen_is_taken_back(registry: Registry) -> None:
    go(registry, "1", "")
    go(registry, "2", "1")
    begun(registry, 3, "2", "3", "1")
    registry.set_alias(NAME, "previous", "2")
    said = recover(registry, NAME, **ALIASES)
    assert "taken back" in said[0]
    assert aliases(registry) == {"champion": "2", "previous": "1"}
    assert journal(registry)[-1].outcome == ABANDONED


def test_a_switch_that_happened_is_finished(registry: Registry) -> None:
    go(registry, "1", "")
    begun(registry, 2, "1", "2", "")
    registry.set_alias(NAME, "champion", "2")
    recover(registry, NAME, **ALIASES)
    assert aliases(registry) == {"champion": "2", "previous": "1"}
    assert journal(registry)[-1].outcome == DONE
    assert "mlcicd.promoted_at" in registry.version(NAME, "2").tags


def test_the_late_write_of_a_fenced_promotion_loses_against_a_newer_one(registry: Registry) -> None:
    go(registry, "1", "")
    begun(registry, 2, "1", "2", "")
    go(registry, "3", "1")
    registry.set_alias(NAME, "champion", "2")
    registry.set_alias(NAME, "previous", "3")
    assert any("arrived after" in said for said in recover(registry, NAME, **ALIASES))
    assert aliases(registry) == {"champion": "3", "previous": "1"}
    assert recover(registry, NAME, **ALIASES) == []


def test_the_late_write_after_which_nothing_was_promoted_stands(registry: Registry) -> None:
    go(registry, "1", "")
    begun(registry, 2, "1", "2", "")
    recover(registry, NAME, **ALIASES)
    registry.set_alias(NAME, "champion", "2")
    recover(registry, NAME, **ALIASES)
    assert aliases(registry) == {"champion": "2", "previous": "1"}
    assert recover(registry, NAME, **ALIASES) == []


def test_what_a_person_sets_by_hand_stays(registry: Registry) -> None:
    go(registry, "1", "")
    go(registry, "2", "1")
    registry.set_alias(NAME, "champion", "4")
    assert recover(registry, NAME, **ALIASES) == []
    go(registry, "3", "4")
    assert aliases(registry) == {"champion": "3", "previous": "4"}


def test_a_deleted_version_holds_nobody_up(registry: Registry) -> None:
    go(registry, "1", "")
    go(registry, "2", "1")
    registry.delete_version(NAME, "1")
    go(registry, "3", "2")
    assert aliases(registry) == {"champion": "3", "previous": "2"}


@pytest.mark.parametrize("text", ["", "[]", "{", '"x"', "{}", json.dumps({"operation": 1})])
def test_what_is_no_entry_is_passed_over(text: str) -> None:
    assert entries({"mlcicd.journal.00000001": text, "mlcicd.journal.x": "{}"}) == []


def test_the_journal_does_not_grow_for_ever() -> None:
    tags: dict[str, str] = {}
    for epoch in range(1, 206):
        entry = Entry(epoch, "promote", str(epoch), str(epoch + 1), "", str(epoch))
        tags |= entry.intent_tags() | (entry.outcome_tags(DONE) if epoch != 2 else {})
    gone = outdated(tags)
    assert sorted({int(key[-8:]) for key in gone}) == [1, 3, 4, 5]
    assert len(entries({k: v for k, v in tags.items() if k not in gone})) == 201


def test_the_journal_says_where_a_lost_lock_goes_on(registry: Registry) -> None:
    go(registry, "1", "")
    go(registry, "2", "1")
    for lock in registry.find_models("mlcicd-lock--"):
        registry.delete_model(lock.name)
    go(registry, "3", "2")
    assert [entry.epoch for entry in journal(registry)] == [1, 2, 3]
    model = registry.model(NAME)
    assert model is not None
    assert next_epoch(model.tags) == 4
