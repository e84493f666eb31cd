"""Moving the champion alias forward, and back, as a transaction.

Under the model's lock (:mod:`mlcicd.registry.lock`) the order of the writes is the guarantee:

1. the intent, in the journal (:mod:`mlcicd.registry.journal`);
2. `previous`;
3. `champion`, the one switch;
4. the tags of the versions, and the outcome in the journal.

A death before 3 has moved nothing, and recovery takes 2 back; a death after it has moved the champion, and recovery
does the rest (:mod:`mlcicd.registry.recovery`).

MLflow can not refuse the write of an alias whose sender has lost the lock in the meantime. So a holder proves right
before the switch that it holds the lock for a good while yet, reads the switch back, and proves it again before it
says that it has promoted; a write that arrives late all the same is overwritten by who sees it: the holder of the
newer lock when it reads back, the late one itself, or the recovery of the next command.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from mlcicd.core.errors import InputError, ServiceError, redact
from mlcicd.core.verdict import now
from mlcicd.registry.journal import DONE, Entry, entries, next_epoch, outdated
from mlcicd.registry.lock import Fenced, Lease, held
from mlcicd.registry.recovery import ROLLED_BACK, Aliases, finish, in_order, mend, recover
from mlcicd.registry.tracking import TAG, RegisteredVersion, Registry

__all__ = ["ROLLED_BACK", "Origin", "Overtaken", "Promotion", "promote", "restore_previous"]

# Late writes of fenced holders that are overwritten before one gives up.
_SWITCHES = 5


class Overtaken(ServiceError):
    """The champion is another one than the evidence was measured against: nothing was moved, nor will be."""


@dataclass(frozen=True)
class Origin:
    """Who moves the champion, and from where: a person or account, and the address of the workflow run."""

    who: str = ""
    run: str = ""


@dataclass(frozen=True)
class Promotion:
    """What a move of the champion alias did. `before` is None when there was no champion."""

    champion: RegisteredVersion
    before: RegisteredVersion | None
    changed: bool


@dataclass(frozen=True)
class _Plan:
    """A move as it is planned under the lock: the versions it is about, and its entry of the journal."""

    new: RegisteredVersion
    before: RegisteredVersion | None
    entry: Entry | None


_Planner = Callable[[Lease], _Plan]


def promote(
    registry: Registry,
    name: str,
    version: str,
    *,
    champion_alias: str,
    previous_alias: str,
    expected_champion: str | None,
    reason: str,
    origin: Origin | None = None,
) -> Promotion:
    """Makes a version the champion, and the champion before it `previous`.

    Args:
        expected_champion: the version that the evidence was measured against, empty for none; None to not ask.
        reason: recorded in the journal and on the version.
        origin: who does it; recorded, too.

    Raises:
        Overtaken: the champion is another one than the evidence was measured against.
        ServiceError: the lock was lost or is held by another, or the registry does not answer. What was begun is then
            undone or finished by the next command.
        InputError: no such version.
    """
    aliases = Aliases(champion_alias, previous_alias)

    def plan(lease: Lease) -> _Plan:
        new = registry.version(name, version)
        before = registry.version_at(name, champion_alias)
        current = before.version if before else ""
        if current == version:
            return _Plan(new, before, None)
        _compare(current, expected_champion)
        previous = _named(registry, name, previous_alias)
        entry = _entry("promote", lease, before, new, reason, origin)
        return _Plan(new, before, _with_previous(entry, previous, after=current or previous))

    def refuse(champion: str) -> None:
        if champion != version:
            _compare(champion, expected_champion)

    return _move(registry, name, f"promote version {version}", aliases, plan, refuse=refuse)


def restore_previous(
    registry: Registry,
    name: str,
    *,
    champion_alias: str,
    previous_alias: str,
    reason: str,
    origin: Origin | None = None,
) -> Promotion:
    """Makes `previous` the champion again; the version taken back becomes `previous`, so that nothing is lost.

    Nothing changes when `previous` is a version that was taken back itself: the rollback has been done.

    Raises:
        InputError: there is no previous version.
        ServiceError: the lock was lost or is held by another, or the registry does not answer.
    """
    aliases = Aliases(champion_alias, previous_alias)

    def plan(lease: Lease) -> _Plan:
        previous = registry.version_at(name, previous_alias)
        if previous is None:
            raise InputError(
                f"there is no previous version of {name!r} to go back to",
                why=f"No version carries the alias {previous_alias!r}: nothing was promoted over another one yet.",
            )
        before = registry.version_at(name, champion_alias)
        if before and before.version == previous.version:
            return _Plan(previous, before, None)
        if before and (ROLLED_BACK in previous.tags or _taken_back(registry, name, previous.version)):
            # It was taken back itself. A rollback that is run again ends here, and not on the bad version.
            return _Plan(before, before, None)
        entry = _entry("rollback", lease, before, previous, reason, origin)
        after = before.version if before else previous.version
        return _Plan(previous, before, _with_previous(entry, previous.version, after=after))

    return _move(registry, name, "roll back", aliases, plan)


def _compare(champion: str, expected: str | None) -> None:
    """The comparison of compare-and-swap, made under the lock: nobody moves the champion after it."""
    if expected is not None and champion != expected:
        raise Overtaken(
            f"the champion is version {champion or 'none'}, and the evidence was measured against "
            f"version {expected or 'none'}",
            why="Somebody promoted another model in between.",
            remedy="evaluate again against the champion of now",
        )


def _move(
    registry: Registry,
    name: str,
    purpose: str,
    aliases: Aliases,
    plan: _Planner,
    *,
    refuse: Callable[[str], None] = lambda champion: None,
) -> Promotion:
    model = registry.model(name)
    if model is None:
        raise InputError(
            f"there is no registered model {name!r}",
            where=redact(registry.uri),
            remedy="run `mlcicd register` first",
        )
    at_least = next_epoch(model.tags)
    if in_order(model, aliases):
        # Those who come too late need not wait for the lock to hear it.
        refuse(model.aliases.get(aliases.champion, ""))
    planned: _Plan | None = None
    try:
        with held(registry, name, purpose, lease_s=registry.lease_s, at_least=at_least) as lease:
            mend(registry, name, aliases, lease)
            planned = plan(lease)
            if planned.entry is not None:
                _carry_out(registry, name, aliases, lease, planned.entry)
    except Fenced:
        # Our own write may have come late: mend that first, then say what became of it.
        recover(registry, name, champion_alias=aliases.champion, previous_alias=aliases.previous)
        if planned is None or planned.entry is None or not _was_done(registry, name, planned.entry.epoch):
            raise
    return Promotion(planned.new, planned.before, changed=planned.entry is not None)


def _carry_out(registry: Registry, name: str, aliases: Aliases, lease: Lease, entry: Entry) -> None:
    """Writes the intent, moves the aliases, proves the move, and writes its outcome."""
    lease.ensure()
    registry.tag_model(name, entry.intent_tags())
    for _attempt in range(_SWITCHES):
        seen = registry.model(name)
        if seen is None:
            break
        if entry.previous_after and seen.aliases.get(aliases.previous, "") != entry.previous_after:
            lease.ensure()
            registry.set_alias(name, aliases.previous, entry.previous_after)
        if seen.aliases.get(aliases.champion, "") != entry.after:
            lease.ensure()
            registry.set_alias(name, aliases.champion, entry.after)
        seen = registry.model(name)
        lease.ensure()
        if seen is not None and _holds(seen.aliases.get(aliases.champion), seen.aliases.get(aliases.previous), entry):
            finish(registry, name, entry)
            registry.untag_model(name, outdated(seen.tags))
            return
    raise ServiceError(
        f"the champion alias of {name!r} does not stay where it is set",
        where=redact(registry.uri),
        why="Something else than mlcicd writes it at the same time.",
        remedy="find what else moves this alias, then run the same command again",
    )


def _holds(champion: str | None, previous: str | None, entry: Entry) -> bool:
    return champion == entry.after and (previous or "") == entry.previous_after


def _entry(
    operation: str,
    lease: Lease,
    before: RegisteredVersion | None,
    after: RegisteredVersion,
    reason: str,
    origin: Origin | None,
) -> Entry:
    origin = origin or Origin()
    return Entry(
        epoch=lease.epoch,
        operation=operation,
        before=before.version if before else "",
        after=after.version,
        previous_before="",
        previous_after="",
        model_digest=after.digest,
        evidence_digest=after.tags.get(f"{TAG}evidence_digest", ""),
        reason=redact(reason),
        who=origin.who,
        run=redact(origin.run),
        # Finer than a second: `history` puts approvals between the moves.
        at=now().isoformat(timespec="microseconds"),
    )


def _with_previous(entry: Entry, before: str, *, after: str) -> Entry:
    return replace(entry, previous_before=before, previous_after=after)


def _named(registry: Registry, name: str, alias: str) -> str:
    version = registry.version_at(name, alias)
    return version.version if version else ""


def _taken_back(registry: Registry, name: str, version: str) -> bool:
    """Whether the journal's last move that a version was part of took it back. Its own tag may be missing: somebody
    removed it, or a proxy answered its writing without passing it on."""
    model = registry.model(name)
    moves = [] if model is None else [e for e in entries(model.tags) if e.outcome == DONE]
    last = next((e for e in reversed(moves) if version in (e.before, e.after)), None)
    return last is not None and last.operation == "rollback" and last.before == version


def _was_done(registry: Registry, name: str, epoch: int) -> bool:
    model = registry.model(name)
    return model is not None and any(e.epoch == epoch and e.outcome == DONE for e in entries(model.tags))
