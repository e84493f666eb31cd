"""Approvals: what a person has said of a version for an environment, as tags on the version.

Each is a tag of its own, never written over; the newest one decides. It is about one model and one evaluation, by their
digests: tags that are copied to another version approve nothing there.

Clocks of different machines do not agree, so a decision is dated after all those that its machine could see. One whose
date can not be believed approves nothing, and takes back all the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta

from mlcicd.core.errors import ServiceError, redact
from mlcicd.core.verdict import now
from mlcicd.registry.connection import TAG
from mlcicd.registry.promotion import Origin
from mlcicd.registry.tracking import RegisteredVersion, Registry

_APPROVAL = f"{TAG}approval."
_LONGEST_TEXT = 500
_EVIDENCE = f"{TAG}evidence_digest"
# How far a clock may be ahead of ours.
_FUTURE = timedelta(days=1)
_STEP = timedelta(microseconds=1)
_LAST = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Approval:
    """One decision.

    Attributes:
        decision: `approve`, or `revoke`, which takes an earlier approval back.
        environment: where the version may go.
        who, run, reason: a person or account, the address of the workflow run, and why.
        at: when, ISO 8601 in UTC, by the clock of the machine that recorded it; later than all earlier decisions.
        model_digest, evidence_digest: what was decided about.
    """

    decision: str
    environment: str
    who: str
    reason: str
    run: str
    at: str
    model_digest: str
    evidence_digest: str


@dataclass(frozen=True)
class Standing:
    """What holds for a version in an environment.

    Attributes:
        approval: the approval that holds; None when there is none.
        revoked: an approval was taken back and none was recorded since: nobody else's word counts.
        why: why there is none; empty when there is one.
    """

    approval: Approval | None
    revoked: bool
    why: str


def record_approval(
    registry: Registry, version: RegisteredVersion, environment: str, *, reason: str, origin: Origin, revoke: bool
) -> Approval:
    """Writes a decision about a version and its evidence into the registry, dated after all that are there.

    Raises:
        ServiceError: the registry does not answer; or the decision does not hold, because of another one that was
            recorded at the same time, or one that is dated in the future.
    """
    known = registry.version(version.name, version.version).tags
    made = Approval(
        decision="revoke" if revoke else "approve",
        environment=environment,
        who=redact(origin.who)[:_LONGEST_TEXT],
        reason=redact(" ".join(reason.split()))[:_LONGEST_TEXT],
        run=redact(origin.run)[:_LONGEST_TEXT],
        at=_next(environment, known, revoke=revoke).isoformat(timespec="microseconds"),
        model_digest=version.digest,
        evidence_digest=version.tags.get(_EVIDENCE, ""),
    )
    stamp = made.at.replace(":", "").replace("+0000", "Z")
    document = json.dumps(asdict(made), ensure_ascii=False, sort_keys=True)
    key = f"{_APPROVAL}{environment}.{stamp}"
    while key in known:
        key += "-"
    # Also before: what does not hold now could hold later, when its date is no more in the future.
    _check_it_holds(made, replace(version, tags={**known, key: document}))
    registry.tag_version(version.name, version.version, {key: document})
    _check_it_holds(made, registry.version(version.name, version.version))
    return made


def _check_it_holds(made: Approval, version: RegisteredVersion) -> None:
    stands = standing_approval(version, made.environment)
    if stands.revoked if made.decision == "revoke" else stands.approval is not None:
        return
    raise ServiceError(
        f"version {version.version} is "
        + (f"not approved: {stands.why}" if stands.why else f"approved for {made.environment} all the same"),
        where=f"{version.name} version {version.version}",
        why="Somebody else decided at the same time, or a decision is dated in the future.",
        remedy="see `mlcicd history`, delete the tag that should not count from the version, and run this again",
    )


def _next(environment: str, tags: Mapping[str, str], *, revoke: bool) -> datetime:
    """A date for a new decision: now, or just after the last one that it has to outlast."""
    found = [a for a in approvals_of(tags) if a.environment == environment]
    # An approval that is dated in the future counts for nothing now, and would one day.
    dates = [_when(a) for a in found if revoke or a.decision == "revoke" or _is_dated(a)]
    last = max((date for date in dates if date is not None), default=None)
    if last is None:
        return now()
    return max(now(), last + _STEP if last < _LAST else last)


def approvals_of(tags: Mapping[str, str]) -> list[Approval]:
    """The decisions on a version's tags, oldest first. What is none of ours is passed over."""
    found = [_approval(text) for key, text in tags.items() if key.startswith(_APPROVAL)]
    # Of two at once the one that takes back counts, as does one without a date that can be read.
    return sorted((a for a in found if a is not None), key=lambda a: (_when(a) or _LAST, a.decision == "revoke"))


def standing_approval(version: RegisteredVersion, environment: str) -> Standing:
    """What holds for a version in an environment: an approval, one taken back, or nothing."""
    decisions = [a for a in approvals_of(version.tags) if a.environment == environment]
    if not decisions:
        return Standing(None, False, "nobody has")
    ours = [a for a in decisions if a.decision == "revoke" or (_is_about(a, version) and _is_dated(a))]
    if not ours and not any(_is_about(a, version) for a in decisions):
        return Standing(None, False, "the approval on this version is of another model")
    if not ours:
        return Standing(None, False, "the date of the approval on this version is in the future, or none")
    last = ours[-1]
    if last.decision == "revoke":
        return Standing(None, True, f"{last.who or 'somebody'} has taken the approval back: {last.reason}")
    if last.evidence_digest != version.tags.get(_EVIDENCE, ""):
        return Standing(None, False, "it was registered with other evidence since it was approved")
    return Standing(last, False, "")


def _is_about(approval: Approval, version: RegisteredVersion) -> bool:
    return bool(version.digest) and approval.model_digest == version.digest


def _is_dated(approval: Approval) -> bool:
    """Whether the date can be believed."""
    date = _when(approval)
    return date is not None and date <= now() + _FUTURE


def _when(approval: Approval) -> datetime | None:
    """The date of a decision in UTC; None when it is no such."""
    try:
        date = datetime.fromisoformat(approval.at)
        return None if date.tzinfo is None else date.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _approval(text: str) -> Approval | None:
    try:
        document = json.loads(text)
    except ValueError:
        return None
    names = {field.name for field in fields(Approval)}
    if not isinstance(document, dict) or set(document) != names:
        return None
    if not all(isinstance(value, str) for value in document.values()):
        return None
    # Whoever writes the tag writes to the terminal of whoever reads the history.
    shown = {key: "".join(c if c.isprintable() else " " for c in text) for key, text in document.items()}
    return Approval(**shown) if shown["decision"] in ("approve", "revoke") else None
