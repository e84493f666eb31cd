"""When a monitor's record calls for action: so many bad windows among the last few, and not again too soon.

One bad window is often noise, and a retraining takes longer than a window; hence the count, and the cooldown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from mlcicd.core.errors import ConfigError, InputError


@dataclass(frozen=True)
class BreachRule:
    """`violations` bad windows among the last `windows`; after an action, none for `cooldown`.

    Raises:
        ConfigError: the rule could never, or would always, be met.
    """

    windows: int = 5
    violations: int = 2
    cooldown: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        if self.windows < 1 or not 1 <= self.violations <= self.windows:
            raise ConfigError(
                f"{self.violations} violations in {self.windows} windows is no rule",
                remedy="let 1 <= violations <= windows",
            )
        if self.cooldown < timedelta(0):
            raise ConfigError("the cooldown is negative")


@dataclass(frozen=True)
class Breach:
    """Whether to act, why, and over what.

    Attributes:
        breached: the rule is met and no cooldown is running.
        reason: one sentence for the report.
        violations: bad windows among those looked at.
        windows: how many were looked at.
        until: the end of the cooldown, when that is what holds the action back.
    """

    breached: bool
    reason: str
    violations: int
    windows: int
    until: datetime | None = None


def judge_breach(history: Iterable[Mapping[str, Any]], rule: BreachRule, *, now: datetime) -> Breach:
    """Decides whether a monitor's record calls for action.

    Args:
        history: one mapping a window, in any order: `time` (datetime or ISO 8601 text; taken as UTC without a
            zone), `breached` (bool; anything else is a window that could not be measured, which counts as
            bad), and `acted` (true where an action followed, which starts the cooldown). Of two entries of
            one time the later
            in the list counts: a window that was measured again.
        now: the current time.

    Raises:
        InputError: an entry has no readable time.
    """
    current = _moment(now)
    entries: dict[datetime, Mapping[str, Any]] = {}
    acted: list[datetime] = []
    for entry in history:
        time = _moment(entry.get("time"))
        entries[time] = entry
        if entry.get("acted") is True:
            acted.append(time)
    # What led to the last action has been acted on: only later windows speak for another.
    since = max(acted, default=None)
    times = [time for time in sorted(entries) if time <= current and (since is None or time > since)]
    recent = [entries[time] for time in times[-rule.windows :]]
    unmeasured = sum(not isinstance(entry.get("breached"), bool) for entry in recent)
    bad = sum(entry.get("breached") is True for entry in recent) + unmeasured
    words = f"{bad} of the last {len(recent)} windows violated ({rule.violations} of {rule.windows} are too many)"
    if unmeasured:
        words += f", {unmeasured} of them because nothing could be measured"
    if bad < rule.violations:
        return Breach(False, words if recent else "there are no windows yet", bad, len(recent))
    if since is not None and current < since + rule.cooldown:
        until = since + rule.cooldown
        return Breach(False, f"{words}, but the cooldown runs until {until.isoformat()}", bad, len(recent), until)
    return Breach(True, words, bad, len(recent))


def _moment(value: object) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise InputError(f"the monitor's record holds a time that is none: {value!r}") from None
    if not isinstance(value, datetime):
        raise InputError(
            "an entry of the monitor's record has no time", remedy="restore the record, or begin a new one"
        )
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
