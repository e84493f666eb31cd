"""Approvals: what a person has said of a version for an environment, as tags on the version.

Each is a tag of its own, never written over; the newest one decides. It is about one model and one evaluation, by their
digests: tags that are copied to another version approve nothing there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from mlcicd.core.errors import redact
from mlcicd.core.verdict import now
from mlcicd.registry.connection import TAG
from mlcicd.registry.promotion import Origin
from mlcicd.registry.tracking import RegisteredVersion, Registry

_APPROVAL = f"{TAG}approval."
_LONGEST_TEXT = 500
_EVIDENCE = f"{TAG}evidence_digest"


@dataclass(frozen=True)
class Approval:
    """One decision.

    Attributes:
        decision: `approve`, or `revoke`, which takes an earlier approval back.
        environment: where the version may go.
        who, run, reason: a person or account, the address of the workflow run, and why.
        at: when, ISO 8601 in UTC, by the clock of the machine that recorded it.
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


def record_approval(
    registry: Registry, version: RegisteredVersion, environment: str, *, reason: str, origin: Origin, revoke: bool
) -> Approval:
    """Writes a decision about a version and its evidence into the registry.

    Raises:
        ServiceError: the registry does not answer.
    """
    made = Approval(
        decision="revoke" if revoke else "approve",
        environment=environment,
        who=redact(origin.who)[:_LONGEST_TEXT],
        reason=redact(" ".join(reason.split()))[:_LONGEST_TEXT],
        run=redact(origin.run)[:_LONGEST_TEXT],
        at=now().isoformat(),
        model_digest=version.digest,
        evidence_digest=version.tags.get(_EVIDENCE, ""),
    )
    stamp = made.at.replace(":", "").replace("+0000", "Z")
    document = json.dumps(asdict(made), ensure_ascii=False, sort_keys=True)
    registry.tag_version(version.name, version.version, {f"{_APPROVAL}{environment}.{stamp}": document})
    return made


def approvals_of(tags: Mapping[str, str]) -> list[Approval]:
    """The decisions on a version's tags, oldest first. What is none of ours is passed over."""
    found = [_approval(text) for key, text in tags.items() if key.startswith(_APPROVAL)]
    return sorted((a for a in found if a is not None), key=lambda a: a.at)


def standing_approval(version: RegisteredVersion, environment: str) -> tuple[Approval | None, str]:
    """The approval that holds for a version in an environment; else None, and why there is none."""
    decisions = [a for a in approvals_of(version.tags) if a.environment == environment]
    if not decisions:
        return None, "nobody has"
    last = decisions[-1]
    if last.decision == "revoke":
        return None, f"{last.who or 'somebody'} has taken the approval back: {last.reason}"
    if not version.digest or last.model_digest != version.digest:
        return None, "the approval on this version is of another model"
    if last.evidence_digest != version.tags.get(_EVIDENCE, ""):
        return None, "it was registered with other evidence since it was approved"
    return last, ""


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
