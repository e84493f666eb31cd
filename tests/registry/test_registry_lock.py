"""The lock of a model: one holder, a lease that runs out, a token that fences."""

from __future__ import annotations

import json
import threading
import time

import pytest

from mlcicd.core.errors import ServiceError
from mlcicd.registry import Registry
from mlcicd.registry import lock as lock_module
from mlcicd.registry.journal import epoch_number, next_epoch, reached
from mlcicd.registry.lock import Fenced, Lease, held

from .conftest import NAME

SHORT = 0.4


def dead_holder(registry: Registry, *, lease_s: float = SHORT, at: int = 1) -> None:
    """What a process leaves behind that was killed while it held the lock."""
    name = f"mlcicd-lock--{NAME}--{at:08d}"
    registry.create_model(name, {"mlcicd.owner": "dead", "mlcicd.beat": "0", "mlcicd.lease_s": str(lease_s)})


def test_each_holder_has_a_higher_token(registry: Registry) -> None:
    tokens = []
    for _ in range(3):
        with held(registry, NAME, "test", lease_s=SHORT) as lease:
            lease.ensure()
            tokens.append(lease.epoch)
    assert tokens == [1, 2, 3]


def test_who_waits_is_told_for_what(registry: Registry) -> None:
    with (
        held(registry, NAME, "promote version 7", lease_s=60),
        pytest.raises(ServiceError, match="promote version 7") as caught,
        held(registry, NAME, "another", lease_s=60, wait_s=0.1),
    ):
        pass
    assert caught.value.remedy


def test_a_dead_holder_is_taken_over_without_anybodys_help(registry: Registry) -> None:
    dead_holder(registry)
    began = time.monotonic()
    with held(registry, NAME, "test", lease_s=SHORT) as lease:
        assert lease.epoch == 2
    assert time.monotonic() - began >= SHORT


def test_an_error_in_the_block_releases(registry: Registry) -> None:
    with pytest.raises(ZeroDivisionError), held(registry, NAME, "test", lease_s=60):
        raise ZeroDivisionError
    with held(registry, NAME, "test", lease_s=60, wait_s=5):
        pass


@pytest.mark.parametrize("cleaned", [True, False])
def test_a_stale_holder_is_told_so(registry: Registry, cleaned: bool) -> None:
    with held(registry, NAME, "stale", lease_s=60) as lease:
        dead_holder(registry, at=lease.epoch + 1)
        if cleaned:
            registry.delete_model(f"mlcicd-lock--{NAME}--{lease.epoch:08d}")
        with pytest.raises(Fenced, match="was lost"):
            lease.ensure()


def test_a_token_that_was_free_because_it_is_old_is_not_taken(registry: Registry) -> None:
    dead_holder(registry, at=9, lease_s=60)
    stale = Lease(registry, NAME, 5, "me", 60, lock_module._clock())
    assert lock_module._take(registry, stale, "test") is None
    assert [m.name for m in registry.find_models("mlcicd-lock--")] == [f"mlcicd-lock--{NAME}--00000009"]


def test_a_long_block_keeps_its_lease(registry: Registry) -> None:
    """The clock of who waits sees signs of life for as long as the holder lives."""
    with held(registry, NAME, "long", lease_s=2) as lease:
        with pytest.raises(ServiceError, match="held by somebody"), held(registry, NAME, "x", lease_s=2, wait_s=5):
            pass
        lease.ensure()


@pytest.mark.parametrize("text", ["", "nan", "inf", "-1", "for ever", "1e99"])
def test_a_hostile_lease_does_not_lock_for_ever(text: str) -> None:
    assert 0 <= lock_module._lease_of(text) <= 3600


def test_the_lock_of_one_model_is_not_that_of_another(registry: Registry) -> None:
    with held(registry, "a", "x", lease_s=60), held(registry, "a--00000001", "y", lease_s=60, wait_s=5) as other:
        assert other.epoch == 1
    with held(registry, "a_b", "x", lease_s=60), held(registry, "axb", "y", lease_s=60, wait_s=5) as other:
        assert other.epoch == 1


def test_only_one_of_several_holds_it_at_a_time(registry: Registry) -> None:
    inside, most, tokens = 0, 0, []
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        with held(registry, NAME, "race", lease_s=60) as lease:
            with guard:
                inside += 1
                most = max(most, inside)
                tokens.append(lease.epoch)
            time.sleep(0.02)
            with guard:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert sorted(tokens) == tokens
    assert len(set(tokens)) == 6


@pytest.mark.parametrize("at", [99_999_999, 100_000_000, 10**14])
def test_an_epoch_that_nobody_can_have_reached_locks_nothing(registry: Registry, at: int) -> None:
    dead_holder(registry, lease_s=60, at=at)
    for _ in range(2):
        with held(registry, NAME, "test", lease_s=60, wait_s=5) as lease:
            lease.ensure()
            assert lease.epoch < at


def test_the_lock_goes_on_beyond_eight_digits(registry: Registry) -> None:
    for epoch in (99_999_999, 100_000_000, 100_000_001):
        with held(registry, NAME, "test", lease_s=60, at_least=epoch, wait_s=5) as lease:
            lease.ensure()
            assert lease.epoch == epoch


@pytest.mark.parametrize("number", ["99999999", "100000000", "9" * 30])
def test_a_journal_entry_out_of_reach_wedges_no_writer(registry: Registry, number: str) -> None:
    entry = json.dumps({"operation": "promote", "before": "", "after": ""})
    registry.tag_model(NAME, {f"mlcicd.journal.{number}": entry, f"mlcicd.outcome.{number}": "abandoned"})
    model = registry.model(NAME)
    assert model is not None
    assert next_epoch(model.tags) == 1
    with held(registry, NAME, "test", lease_s=60, at_least=next_epoch(model.tags), wait_s=5) as lease:
        lease.ensure()


def test_the_journal_goes_on_beyond_eight_digits() -> None:
    assert reached([1, 900_000, 1_800_000, 99_999_999]) == {1, 900_000, 1_800_000}
    assert reached([100_000_000, 100_000_001], 99_999_999) == {100_000_000, 100_000_001}
    assert epoch_number("100000000") == 100_000_000
    assert epoch_number("000000001") is None


def test_a_server_slower_than_the_lease_is_an_error_and_no_endless_loop(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlcicd.registry import lock

    with lock.held(registry, NAME, "test", lease_s=5.0) as lease:
        lease._stop.set()
        lease.ensure()
        now = lock._clock()

        def later() -> float:
            nonlocal now
            now += 4.0
            return now

        with monkeypatch.context() as slow:
            slow.setattr(lock, "_clock", later)
            with pytest.raises(ServiceError, match="too slowly") as caught:
                lease.ensure()
        assert "lock_lease" in caught.value.remedy
