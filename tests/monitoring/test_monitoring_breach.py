"""The breach rule against a slow reading of it, and its borders."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcicd.core.errors import ConfigError, InputError
from mlcicd.monitoring.breach import BreachRule, judge_breach

START = datetime(2024, 1, 1, tzinfo=UTC)


def record(flags: list[Any], *, acted: set[int] = frozenset()) -> list[dict[str, Any]]:  # type: ignore[assignment]
    return [
        {"time": (START + timedelta(hours=i)).isoformat(), "breached": flag, "acted": i in acted}
        for i, flag in enumerate(flags)
    ]


@settings(deadline=None)
@given(
    flags=st.lists(st.booleans() | st.none(), max_size=12),
    windows=st.integers(1, 6),
    violations=st.integers(1, 6),
    order=st.randoms(),
)
def test_counts_the_last_windows_in_any_order(
    flags: list[bool | None], windows: int, violations: int, order: Any
) -> None:
    violations = min(violations, windows)
    history = record(flags)
    order.shuffle(history)
    got = judge_breach(history, BreachRule(windows, violations), now=START + timedelta(days=9))
    bad = [flag is not False for flag in flags[-windows:]]
    assert (got.violations, got.windows) == (sum(bad), len(bad))
    assert got.breached is (sum(bad) >= violations)


def test_cooldown_and_what_was_acted_on() -> None:
    rule = BreachRule(5, 2, timedelta(hours=10))
    history = record([True, True, True, True, True], acted={1})
    held = judge_breach(history, rule, now=START + timedelta(hours=5))
    assert (held.breached, held.violations, held.until) == (False, 3, START + timedelta(hours=11))
    assert "cooldown" in held.reason
    assert judge_breach(history, rule, now=START + timedelta(hours=11)).breached
    acted_on = judge_breach(history[:2], rule, now=START + timedelta(days=3))
    assert (acted_on.breached, acted_on.windows) == (False, 0)


def test_measured_again_counts_once_and_the_future_not_at_all() -> None:
    again = [*record([True, True]), {"time": START, "breached": False}]
    assert judge_breach(again, BreachRule(5, 2), now=START + timedelta(days=1)).violations == 1
    assert judge_breach(record([True, True]), BreachRule(5, 2), now=START).violations == 1
    assert not judge_breach([], BreachRule(), now=START).breached


def test_nonsense_is_refused() -> None:
    for bad in ((0, 0), (2, 3), (5, 0)):
        with pytest.raises(ConfigError):
            BreachRule(*bad)
    with pytest.raises(ConfigError):
        BreachRule(cooldown=timedelta(days=-1))
    for entry in ({}, {"time": "noon"}, {"time": 3}):
        with pytest.raises(InputError):
            judge_breach([entry], BreachRule(), now=START)
