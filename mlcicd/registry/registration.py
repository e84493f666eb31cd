"""Registration that happens once: the same content never becomes two versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mlcicd.core.errors import ServiceError, redact
from mlcicd.registry.journal import next_epoch
from mlcicd.registry.lock import Fenced, Lease, held
from mlcicd.registry.numbering import SEMVER, SIGNATURE, Numbering, next_semver, semver_of
from mlcicd.registry.recovery import Aliases, mend
from mlcicd.registry.tracking import TAG, RegisteredVersion, Registry

# Of a version that somebody has used, for anything: such a one is never deleted.
_USED = (f"{TAG}promoted_at", f"{TAG}rolled_back_at", f"{TAG}canary", f"{TAG}deployed.", f"{TAG}rollout.")


def register_once(
    registry: Registry,
    name: str,
    run_id: str,
    tags: Mapping[str, str],
    *,
    alias: str,
    aliases: Aliases,
    numbering: Numbering | None = None,
) -> tuple[RegisteredVersion, bool]:
    """Registers a run's model under the model's lock, or finds the version that has the same content already.

    A call that MLflow's client, or a proxy, has repeated because its answer was lost makes a second version: it is
    deleted here, by this command or by the next one.

    Args:
        tags: the lineage; `mlcicd.content` of it says which registrations are the same. A version that exists is given
            the new tags, in their order.
        alias: given to the version, unless a newer one has it.
        aliases: of the champion and the previous one; what dead commands have left is mended first.
        numbering: of the semantic version that a new version gets, and one that has none yet; of none by default.

    Returns:
        The version, and whether it was made now.

    Raises:
        ServiceError: the lock is held by another, or was lost; or the registry does not answer.
        ConfigError: the semantic version that is wanted is another version's.
    """
    registry.create_model(name, {})
    try:
        return _register(registry, name, run_id, tags, alias, aliases, numbering)
    except Fenced:
        # Our version may have been made late, beside another's of the same content: under a new lock it is found.
        return _register(registry, name, run_id, tags, alias, aliases, numbering)


def _register(
    registry: Registry,
    name: str,
    run_id: str,
    tags: Mapping[str, str],
    alias: str,
    aliases: Aliases,
    numbering: Numbering | None,
) -> tuple[RegisteredVersion, bool]:
    model = registry.model(name)
    at_least = next_epoch(model.tags) if model else 1
    with held(registry, name, "register", lease_s=registry.lease_s, at_least=at_least) as lease:
        mend(registry, name, aliases, lease)
        same = _of_content(registry, name, tags[f"{TAG}content"])
        made = not same
        tags = {**tags, **_number(registry, name, same, numbering)}
        if made:
            lease.ensure()
            registry.create_version(name, run_id, tags)
            same = _of_content(registry, name, tags[f"{TAG}content"])
            if not same:
                raise ServiceError(
                    f"the version of {name!r} that was made is not there",
                    where=redact(registry.uri),
                    remedy="run the same command again",
                )
        _delete_spare(registry, name, same, lease)
        version = same[0]
        if not made:
            lease.ensure()
            registry.tag_version(name, version.version, tags)
        current = registry.version_at(name, alias)
        if current is None or int(current.version) < int(version.version):
            lease.ensure()
            registry.set_alias(name, alias, version.version)
        lease.ensure()
    return replace(version, tags={**version.tags, **tags}), made


def _number(
    registry: Registry, name: str, same: Sequence[RegisteredVersion], numbering: Numbering | None
) -> dict[str, str]:
    """The tags of a version's number. It is made under the lock and with the version, so that no two get the same."""
    if numbering is None or (same and semver_of(same[0])):
        return {}
    others = [v for v in registry.versions(name) if v not in same]
    return {SEMVER: next_semver(others, numbering), SIGNATURE: numbering.signature}


def _of_content(registry: Registry, name: str, content: str) -> list[RegisteredVersion]:
    return [v for v in registry.versions(name) if v.content == content]


def _delete_spare(registry: Registry, name: str, same: Sequence[RegisteredVersion], lease: Lease) -> None:
    """Deletes the later versions of one content, where nobody has used them."""
    for spare in same[1:]:
        used = any(tag.startswith(_USED) for tag in spare.tags)
        # The search of versions does not always tell of aliases: the version itself does.
        if not used and not registry.version(name, spare.version).aliases:
            lease.ensure()
            registry.delete_version(name, spare.version)
