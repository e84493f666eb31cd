"""Moving the champion alias forward, and back.

The order of the writes is the guarantee: `previous` is set before `champion` moves, and the alias `champion` is one
write, so that a death at any instruction leaves either the old champion or the new one, and never no way back.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlcicd.core.errors import InputError, ServiceError
from mlcicd.core.verdict import now
from mlcicd.registry.tracking import TAG, RegisteredVersion, Registry

ROLLED_BACK = f"{TAG}rolled_back_at"


@dataclass(frozen=True)
class Promotion:
    """What a move of the champion alias did. `before` is None when there was no champion."""

    champion: RegisteredVersion
    before: RegisteredVersion | None
    changed: bool


def promote(
    registry: Registry,
    name: str,
    version: str,
    *,
    champion_alias: str,
    previous_alias: str,
    expected_champion: str | None,
    reason: str,
) -> Promotion:
    """Makes a version the champion, and the champion before it `previous`.

    Args:
        expected_champion: the version that the evidence was measured against, empty for none; None to not ask.
        reason: recorded on the version.

    Raises:
        ServiceError: the champion is another one than the evidence was measured against.
        InputError: no such version.
    """
    new = registry.version(name, version)
    before = registry.version_at(name, champion_alias)
    if before and before.version == version:
        return Promotion(new, before, changed=False)
    current = before.version if before else ""
    if expected_champion is not None and current != expected_champion:
        raise ServiceError(
            f"the champion is version {current or 'none'}, and the evidence was measured against "
            f"version {expected_champion or 'none'}",
            why="Somebody promoted another model in between.",
            remedy="evaluate again against the champion of now",
        )
    if before:
        registry.set_alias(name, previous_alias, before.version)
    registry.set_alias(name, champion_alias, version)
    _still(registry, name, champion_alias, version)
    registry.tag_version(name, version, {f"{TAG}promoted_at": now().isoformat(), f"{TAG}promoted_because": reason})
    return Promotion(new, before, changed=True)


def restore_previous(
    registry: Registry, name: str, *, champion_alias: str, previous_alias: str, reason: str
) -> Promotion:
    """Makes `previous` the champion again; the version taken back becomes `previous`, so that nothing is lost.

    Raises:
        InputError: there is no previous version.
    """
    previous = registry.version_at(name, previous_alias)
    if previous is None:
        raise InputError(
            f"there is no previous version of {name!r} to go back to",
            why=f"No version carries the alias {previous_alias!r}: nothing was promoted over another one yet.",
        )
    before = registry.version_at(name, champion_alias)
    if before and before.version == previous.version:
        return Promotion(previous, before, changed=False)
    if before:
        # First, so that a death right after it does not leave the bad version unmarked.
        registry.tag_version(
            name,
            before.version,
            {ROLLED_BACK: now().isoformat(), f"{TAG}rolled_back_because": reason},
        )
    registry.set_alias(name, champion_alias, previous.version)
    if before:
        registry.set_alias(name, previous_alias, before.version)
    return Promotion(previous, before, changed=True)


def _still(registry: Registry, name: str, champion_alias: str, version: str) -> None:
    """Reads the alias back: of two promotions at once, one lost, and must not report that it won."""
    seen = registry.version_at(name, champion_alias)
    if seen is None or seen.version != version:
        raise ServiceError(
            f"another promotion came in between: the champion is version {seen.version if seen else 'none'}",
            remedy="evaluate again against the champion of now",
        )
