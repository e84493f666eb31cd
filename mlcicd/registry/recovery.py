"""Mending what a dead, or late, command has left behind: the aliases are brought back to what the journal says.

`recover` is the first step of every command that writes to the registry. Where nothing is to be mended it costs one
read and takes no lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mlcicd.core.errors import InputError
from mlcicd.core.verdict import now
from mlcicd.registry.journal import ABANDONED, DONE, Entry, entries, next_epoch
from mlcicd.registry.lock import Lease, held
from mlcicd.registry.models import RegisteredModel
from mlcicd.registry.tracking import TAG, RegisteredVersion, Registry

ROLLED_BACK = f"{TAG}rolled_back_at"
_ROLLED_BACK_WHY = f"{TAG}rolled_back_because"


@dataclass(frozen=True)
class Aliases:
    """The names of the two aliases that a move is about."""

    champion: str
    previous: str


@dataclass(frozen=True)
class Mending:
    """What the journal asks for. An alias of None stays as it is; an empty one goes away.

    Args:
        outcomes: how open entries ended.
        champion, previous: the versions that the aliases must name.
        said: the same for people.
    """

    outcomes: tuple[tuple[Entry, str], ...] = ()
    champion: str | None = None
    previous: str | None = None
    said: tuple[str, ...] = ()


def mending(journal: Sequence[Entry], champion: str, previous: str) -> Mending:
    """Compares the journal with the aliases.

    - An open entry whose switch has happened is done, and one whose switch has not is abandoned.
    - A champion that an abandoned entry wanted was set by a write that came late. When a newer move was done since,
      that one counts; else the late one is as good as done: the champion before it is the one that it was begun from.
    - `previous` is what the last done move left, or, where the last one was abandoned, what it found.

    A champion that no entry explains was set by a person with MLflow's own means, and stays.

    Args:
        journal: oldest first.
        champion, previous: what the aliases name now, empty for nothing.
    """
    said: list[str] = []
    settled: dict[int, Entry] = {}
    done_before = max((e.epoch for e in journal if e.outcome == DONE), default=0)
    for entry in journal:
        outcome = entry.outcome
        if not outcome:
            outcome = DONE if entry.epoch > done_before and champion == entry.after else ABANDONED
            said.append(f"{_what(entry)} had been begun, and was {'finished' if outcome == DONE else 'taken back'}")
        settled[entry.epoch] = replace(entry, outcome=outcome)
    last = max((e for e in settled.values() if e.outcome == DONE), key=lambda e: e.epoch, default=None)
    wanted: str | None = None
    if last is None or champion != last.after:
        late = [e for e in settled.values() if e.outcome == ABANDONED and e.after == champion]
        if late and (last is None or late[-1].epoch > last.epoch):
            last = replace(late[-1], outcome=DONE)
            settled[last.epoch] = last
            said.append(f"{_what(last)} had arrived late, and stands")
        elif late and last is not None:
            wanted = last.after
            said.append(f"{_what(late[-1])} had arrived after version {last.after}, and was taken back")
    outcomes = tuple((settled[e.epoch], settled[e.epoch].outcome) for e in journal if settled[e.epoch] != e)
    behind = _previous(list(settled.values()), last, wanted or champion)
    if behind is not None and behind != previous:
        said.append(f"the version to go back to is {behind or 'none'} again")
    else:
        behind = None
    return Mending(outcomes, wanted, behind, tuple(said))


def recover(registry: Registry, name: str, *, champion_alias: str, previous_alias: str) -> list[str]:
    """Finishes or takes back what earlier commands have left undone; says what it did, or nothing.

    Raises:
        ServiceError: the registry does not answer, or the lock is held by another for long.
    """
    aliases = Aliases(champion_alias, previous_alias)
    seen = registry.model(name)
    if seen is None or in_order(seen, aliases):
        return []
    with held(registry, name, "recover", lease_s=registry.lease_s, at_least=next_epoch(seen.tags)) as lease:
        return mend(registry, name, aliases, lease)


def in_order(seen: RegisteredModel, aliases: Aliases) -> bool:
    """Whether the journal asks for nothing."""
    return mending(entries(seen.tags), *_now(seen, aliases)) == Mending()


def mend(registry: Registry, name: str, aliases: Aliases, lease: Lease) -> list[str]:
    """The same for who holds the lock already."""
    seen = registry.model(name)
    if seen is None:
        return []
    wanted = mending(entries(seen.tags), *_now(seen, aliases))
    if wanted == Mending():
        return []
    # The champion first: it is what users get. The outcomes last: until they are written, all of this is done again.
    if wanted.champion is not None:
        _set(registry, name, aliases.champion, wanted.champion, lease)
    if wanted.previous is not None:
        _set(registry, name, aliases.previous, wanted.previous, lease)
    for entry, outcome in wanted.outcomes:
        lease.ensure()
        if outcome == DONE:
            finish(registry, name, entry)
        else:
            registry.tag_model(name, entry.outcome_tags(ABANDONED))
    return list(wanted.said)


def finish(registry: Registry, name: str, entry: Entry) -> None:
    """Marks the versions of a move that has happened, and then writes its outcome."""
    at = entry.at or now().isoformat(timespec="seconds")
    if entry.operation == "rollback" and entry.before:
        _tag(registry, name, entry.before, {ROLLED_BACK: at, _ROLLED_BACK_WHY: entry.reason})
    elif entry.operation == "promote":
        _tag(registry, name, entry.after, {f"{TAG}promoted_at": at, f"{TAG}promoted_because": entry.reason})
    registry.tag_model(name, entry.outcome_tags(DONE))


def _previous(journal: Sequence[Entry], last: Entry | None, champion: str) -> str | None:
    """What `previous` must name; None where the journal does not know."""
    if last is not None and last.after == champion:
        return last.previous_after
    abandoned = [e for e in journal if e.outcome == ABANDONED and (last is None or e.epoch > last.epoch)]
    if abandoned and abandoned[0].before == champion:
        return abandoned[0].previous_before
    return None


def _now(seen: RegisteredModel, aliases: Aliases) -> tuple[str, str]:
    return seen.aliases.get(aliases.champion, ""), seen.aliases.get(aliases.previous, "")


def _set(registry: Registry, name: str, alias: str, version: str, lease: Lease) -> None:
    lease.ensure()
    if not version:
        registry.delete_alias(name, alias)
    elif _found(registry, name, version) is not None:
        registry.set_alias(name, alias, version)


def _found(registry: Registry, name: str, version: str) -> RegisteredVersion | None:
    """A version, or None: a person may have deleted it, and nothing must be stuck for that."""
    try:
        return registry.version(name, version)
    except InputError:
        return None


def _tag(registry: Registry, name: str, version: str, tags: dict[str, str]) -> None:
    """Tags a version that is there. Promoted anew, with evidence, it is a version to go back to again."""
    known = _found(registry, name, version)
    if known is None:
        return
    registry.tag_version(name, version, tags)
    for key in (ROLLED_BACK, _ROLLED_BACK_WHY):
        if key in known.tags and key not in tags:
            registry.untag_version(name, version, key)


def _what(entry: Entry) -> str:
    verb = "the rollback to" if entry.operation == "rollback" else "the promotion of"
    return f"{verb} version {entry.after}"
