"""Signatures of what `register` stores, made with a key file or keyless, and what is asked of them again before a
version is promoted or deployed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlcicd.config import FILE_NAME, Project
from mlcicd.core.errors import ConfigError, InputError
from mlcicd.core.verdict import Check, CheckStatus, Severity
from mlcicd.registry import RegisteredVersion, Registry
from mlcicd.registry.tracking import TAG, checked_digest
from mlcicd.stages.common import evidence_folder
from mlcicd.stages.record import Record
from mlcicd.stages.supply import rules_of
from mlcicd.supply_chain.keyless import (
    Identity,
    Root,
    Services,
    embedded_root,
    read_root,
    sign_keyless,
    signed_by,
    verify_keyless,
)
from mlcicd.supply_chain.policy import read_named
from mlcicd.supply_chain.provenance import check_statement
from mlcicd.supply_chain.signing import PublicKey, public_key_of, read_private_key, read_public_key, sign, verify

KEY_VARIABLE = "MLCICD_PRIVATE_KEY"
BOM, CARD, CONTROLS = "bom.cdx.json", "model-card.md", "controls.json"
# Documents that a signature speaks for, and the two kinds of signature.
SIGNED = ("validate-data.json", "train.json", "evaluate.json", BOM, CARD, CONTROLS)
ENVELOPE, BUNDLE = "provenance.dsse.json", "provenance.sigstore.json"


@dataclass(frozen=True)
class Signers:
    """Whom the policy trusts: keys by their id, and keyless identities with the root that proves them."""

    keys: Mapping[str, PublicKey]
    identities: tuple[Identity, ...]
    root: Callable[[], Root]

    def __bool__(self) -> bool:
        return bool(self.keys or self.identities)

    def kinds(self) -> Iterator[tuple[str, Callable[[bytes], tuple[bytes, str]]]]:
        """The kinds of signature that can be trusted: the file's name, and what gives payload and signer of it."""
        if self.keys:
            yield ENVELOPE, self._by_key
        if self.identities:
            yield BUNDLE, self._by_identity

    def _by_key(self, envelope: bytes) -> tuple[bytes, str]:
        payload, key = verify(envelope, self.keys)
        return payload, key.signer or key.keyid[:16]

    def _by_identity(self, bundle: bytes) -> tuple[bytes, str]:
        payload, identity = verify_keyless(bundle, self.identities, self.root())
        return payload, identity.signer or str(identity)


def signers_of(project: Project) -> Signers:
    """The signers of the policy.

    Raises:
        ConfigError: a key can not be read, or is not committed where the policy is.
    """
    rules, shown = rules_of(project), project.config.supply_chain.policy
    keys, identities = {}, []
    for signer in rules.policy.signers:
        if signer.identity:
            identities.append(Identity(signer.identity, signer.issuer, signer.name, signer.repository))
            continue
        pem = signer.key
        if not pem.lstrip().startswith("-----BEGIN"):
            what = f"the key of the signer {signer.name!r}"
            pem = read_named(rules, project.root, pem, shown=shown, what=what).decode("utf-8", "replace")
        key = read_public_key(pem, where=shown, signer=signer.name)
        keys[key.keyid] = key
    return Signers(keys, tuple(identities), lambda: root_of(project))


def root_of(project: Project) -> Root:
    """What keyless signatures are proven by: the root that the policy names, else the public Sigstore's.

    Raises:
        ConfigError: it can not be read, or is not committed where the policy is; or sigstore is not installed.
    """
    rules, shown = rules_of(project), project.config.supply_chain.policy
    own = rules.policy.sigstore
    if own is not None:
        content = read_named(rules, project.root, own.trusted_root, shown=shown, what="the trusted root of Sigstore")
        return read_root(content, where=own.trusted_root)
    if project.config.supply_chain.sigstore.fulcio:
        raise ConfigError(
            "a Sigstore of your own is not known by the public one's root",
            file=FILE_NAME,
            line=project.document.line(("supply_chain", "sigstore")),
            remedy=f"name its root in {shown}: `sigstore: {{trusted_root: FILE}}`",
        )
    return embedded_root()


def private_key(project: Project) -> Any | None:
    """The key that `register` signs with; None when there is none.

    Raises:
        ConfigError: it is named and can not be used.
    """
    text = project.environ.get(KEY_VARIABLE, "")
    if text:
        return read_private_key(text, where=KEY_VARIABLE)
    named = project.config.supply_chain.key
    if not named:
        return None
    path = Path(named).expanduser()
    path = path if path.is_absolute() else project.root / path
    if not path.is_file():
        raise ConfigError(
            "supply_chain.key names a file that is not there",
            file=FILE_NAME,
            line=project.document.line(("supply_chain", "key")),
            remedy=f"make a key with `openssl genpkey -algorithm ed25519`, or give it in {KEY_VARIABLE}",
        )
    return read_private_key(path.read_text(encoding="utf-8", errors="replace"), where=named)


def signature_names(project: Project) -> list[str]:
    """The files of the signatures that `register` will make here."""
    names = [ENVELOPE] if private_key(project) is not None else []
    return [*names, BUNDLE] if project.config.supply_chain.sigstore.sign else names


def store_signatures(
    record: Record, registry: Registry, run_id: str, folder: str, payload: bytes, documents: int
) -> dict[str, str]:
    """Signs a statement with what is configured, and stores it beside the documents; nothing where nothing is.

    A signature that is there already, of the same statement, stays: no two are alike, and what is the same must stay
    the same.

    Returns:
        Name to text of each.

    Raises:
        ConfigError: the key can not be used, or the job has no identity.
        ServiceError: Sigstore did not sign.
    """
    key, made = private_key(record.project), {}
    if key is not None:
        before = registry.read_text(run_id, f"{folder}/{ENVELOPE}")
        made[ENVELOPE] = _kept(before, payload, key) or sign(payload, key).decode()
        said = f"{documents} documents signed"
        record.checks.append(Check(name="signature", status=CheckStatus.PASSED, observed=said))
    if record.project.config.supply_chain.sigstore.sign:
        before = registry.read_text(run_id, f"{folder}/{BUNDLE}")
        made[BUNDLE] = _keyless(record, before, payload, documents)
    for name, text in made.items():
        registry.log_text(run_id, text, f"{folder}/{name}")
    return made


def _kept(envelope: str | None, payload: bytes, key: Any) -> str:
    """An earlier envelope, where it is one of ours of the same content."""
    public = public_key_of(key)
    try:
        same = envelope is not None and verify(envelope.encode(), {public.keyid: public})[0] == payload
    except InputError:
        return ""
    return envelope or "" if same else ""


def _keyless(record: Record, before: str | None, payload: bytes, documents: int) -> str:
    """The bundle of a statement: the earlier one where it holds, else a new one, proven before it is stored."""
    project = record.project
    root, allowed = root_of(project), signers_of(project).identities
    bundle = before if before is not None and _holds(before, payload, allowed, root) else ""
    if not bundle:
        record.progress.step("signing with Sigstore")
        own = project.config.supply_chain.sigstore
        services = Services(own.fulcio, own.rekor, own.rekor_api, own.timestamps)
        bundle = sign_keyless(payload, services, root).decode()
    signed, identity = signed_by(bundle.encode(), root)
    if signed != payload:
        raise InputError("Sigstore signed something else", remedy="run `mlcicd register` again")
    record.checks.append(_whose(project, identity, allowed, documents))
    return bundle


def _holds(bundle: str, payload: bytes, allowed: tuple[Identity, ...], root: Root) -> bool:
    try:
        held = verify_keyless(bundle.encode(), allowed, root) if allowed else signed_by(bundle.encode(), root)
    except InputError:
        return False
    return held[0] == payload


def _whose(project: Project, identity: Identity, allowed: tuple[Identity, ...], documents: int) -> Check:
    """Who signed; a warning where the policy names identities, and this is none of them."""
    name, said = "keyless signature", f"{documents} documents signed by {identity}"
    if not allowed or any(asked.covers(identity) for asked in allowed):
        return Check(name=name, status=CheckStatus.PASSED, observed=said)
    return Check(
        name=name,
        status=CheckStatus.FAILED,
        severity=Severity.WARN,
        observed=said,
        required="an identity of the policy",
        reason=f"{identity} is no signer of the policy: `deploy` will not take this signature",
        remedy=f"register where the signer of the policy runs; or add this one to {project.config.supply_chain.policy}",
    )


def signature_checks(project: Project, registry: Registry, version: RegisteredVersion) -> list[Check]:
    """Whether a signer of the policy has signed a version and its evidence; nothing is asked without signers."""
    signers = signers_of(project)
    if not signers:
        return []
    name, required = f"signature of version {version.version}", "signed by a signer of the policy"
    try:
        signer, count = verify_version(registry, version, signers)
    except InputError as error:
        return [Check(name=name, status=CheckStatus.FAILED, required=required, reason=error.what, remedy=error.remedy)]
    said = f"by {signer}, {count} subjects"
    return [Check(name=name, status=CheckStatus.PASSED, observed=said, required=required)]


def verify_version(registry: Registry, version: RegisteredVersion, signers: Signers) -> tuple[str, int]:
    """The signer of a version, and how many subjects were signed. Its model's bytes are proven when they are fetched.

    Raises:
        InputError: none of them has signed it, or the signature does not hold.
    """
    digest = version.tags.get(f"{TAG}evidence_digest", "")
    if not checked_digest(digest) or not version.run_id:
        raise InputError("it has no evidence that could be signed", remedy="register the model with `mlcicd register`")
    folder = evidence_folder(digest)

    def stored(name: str) -> bytes | None:
        text = registry.read_text(version.run_id, f"{folder}/{name}")
        return None if text is None else text.encode()

    documents = {name: content for name in SIGNED if (content := stored(name)) is not None}
    return verify_signatures(stored, documents, signers, model=None, tree=version.digest, name=version.name)


def verify_signatures(
    stored: Callable[[str], bytes | None],
    documents: Mapping[str, bytes],
    signers: Signers,
    *,
    model: Path | None,
    tree: str,
    name: str = "",
) -> tuple[str, int]:
    """The signer of a model and its documents, and how many subjects were signed; one signature that holds is enough.

    Args:
        stored: the bytes of a signature by its file's name; None where there is no such file.
        documents: name to bytes of all that stands beside it.
        model: the model's folder; None when only its digest is at hand.
        tree: the digest that the registry knows the model by; empty to take the folder's own.
        name: the registered model; any when empty.

    Raises:
        InputError: none of them has signed it, or the signature does not hold.
    """
    refused: list[InputError] = []
    for file, verified in signers.kinds():
        content = stored(file)
        if content is None:
            continue
        try:
            payload, signer = verified(content)
            return signer, check_statement(payload, model=model, tree=tree, documents=documents, name=name)
        except InputError as error:
            refused.append(error)
    if refused:
        raise refused[0]
    asked = " or ".join(name for name, _ in signers.kinds())
    raise InputError(
        f"it is not signed (there is no {asked})",
        remedy=f"give `register` a key (supply_chain.key or {KEY_VARIABLE}) or supply_chain.sigstore, as the policy "
        "asks, and register again",
    )
