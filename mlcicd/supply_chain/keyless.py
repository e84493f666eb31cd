"""Keyless signatures: a key that lives for minutes, its certificate issued by Sigstore's Fulcio for the identity of the
CI job (OIDC), the signature written into Rekor's log. Verified offline, by a trusted root from a file.

Format: Sigstore bundle (https://docs.sigstore.dev/about/bundle/) over a DSSE envelope. The package `sigstore` signs and
verifies; ours is who is asked for, where the root comes from, and that a bundle has one form only.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any
from urllib.parse import quote

from mlcicd.core.errors import ConfigError, MlcicdError, ServiceError, learn_secret
from mlcicd.supply_chain.signing import MAX_ENVELOPE, PAYLOAD_TYPE, bad_signature, serialised

# OIDs of Fulcio's certificates: https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md
_ISSUER, _ISSUER_AS_TEXT = "1.3.6.1.4.1.57264.1.8", "1.3.6.1.4.1.57264.1.1"
_REPOSITORY = "1.3.6.1.4.1.57264.1.12"
_PRODUCTION = "https://tuf-repo-cdn.sigstore.dev"
# Certificate, log and timestamp, each some seconds on a bad day; the package itself waits for ever.
_SECONDS = 180.0


@dataclass(frozen=True)
class Identity:
    """Whom a certificate was issued for: its subject's name, and who vouched for that. `signer` is what the policy
    calls it.

    Args:
        repository: address of the repository whose workflow ran. A reusable workflow has one name, whoever calls it.
    """

    identity: str
    issuer: str
    signer: str = ""
    repository: str = ""

    def __str__(self) -> str:
        of = f" in {self.repository}" if self.repository else ""
        return f"{self.identity}{of} (by {self.issuer})"

    def covers(self, found: Identity) -> bool:
        """Whether a certificate's identity is this one; of any repository where this names none."""
        same = (self.identity, self.issuer) == (found.identity, found.issuer)
        return same and self.repository in ("", found.repository)


@dataclass(frozen=True)
class Services:
    """Addresses of a Sigstore of one's own; the public one where `fulcio` is empty."""

    fulcio: str = ""
    rekor: str = ""
    rekor_api: int = 1
    timestamps: str = ""


@dataclass(frozen=True)
class Root:
    """A trusted root: the certificates and keys by which the services of a Sigstore are known."""

    content: bytes
    trusted: Any


def read_root(content: bytes, *, where: str) -> Root:
    """A trusted root from its JSON text, as `trusted_root.json` of a Sigstore has it.

    Raises:
        ConfigError: it is none, or the package sigstore is not installed.
    """
    _needs_sigstore()
    from sigstore.models import TrustedRoot

    try:
        # It reads files only.
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            file.write(content)
            file.flush()
            trusted = TrustedRoot.from_file(file.name)
            trusted.get_fulcio_certs()
    except Exception as error:
        raise ConfigError(
            "this is not a trusted root that can be read",
            where=where,
            why=f"{type(error).__name__}: {error}",
            remedy="take trusted_root.json of your Sigstore as it is served",
        ) from error
    return Root(content, trusted)


def embedded_root() -> Root:
    """The public Sigstore's root, as the installed package has it. Not the package's cache in the home folder, which
    it does not prove when it is offline: whoever can write there could sign as anybody.

    Raises:
        ConfigError: the package is not installed, or keeps it elsewhere.
    """
    _needs_sigstore()
    place = resources.files("sigstore._store").joinpath(quote(_PRODUCTION, safe=""), "trusted_root.json")
    try:
        content = place.read_bytes()
    except OSError:
        raise ConfigError(
            "the installed package sigstore brings no trusted root",
            remedy="pin one in the policy: `sigstore: {trusted_root: FILE}`",
        ) from None
    return read_root(content, where="sigstore's trusted_root.json")


def sign_keyless(payload: bytes, services: Services, root: Root) -> bytes:
    """The bundle of an in-toto statement, signed as the identity that the CI host gives this job.

    Raises:
        ConfigError: the package is not installed, or the job has no identity.
        ServiceError: a service refused, failed, or did not answer.
    """
    _needs_sigstore()
    token = _ambient_token()

    def signed() -> str:
        from sigstore.dsse import Statement
        from sigstore.models import ClientTrustConfig
        from sigstore.sign import SigningContext

        trust = (
            ClientTrustConfig.from_json(_trust(services, root)) if services.fulcio else ClientTrustConfig.production()
        )
        with SigningContext.from_trust_config(trust).signer(token) as signer:
            text: str = signer.sign_dsse(Statement(payload)).to_json()
            return text

    return serialised(json.loads(_in_time(signed)))


def verify_keyless(bundle: bytes, identities: Sequence[Identity], root: Root) -> tuple[bytes, Identity]:
    """The payload of a bundle, and which of the identities signed it. No network is used.

    Raises:
        InputError: it is not a bundle as :func:`sign_keyless` writes them, byte for byte; somebody else signed it; or
            certificate, log entry or signature do not hold by this root.
    """
    return _verified(bundle, root, _Asked(identities))


def signed_by(bundle: bytes, root: Root) -> tuple[bytes, Identity]:
    """The payload of a bundle that holds, and whoever signed it: not whether they may.

    Raises:
        InputError: as :func:`verify_keyless`.
    """
    return _verified(bundle, root, _Asked(None))


class _Asked:
    """Who may have signed, as sigstore asks a policy: with a certificate that it has proven."""

    def __init__(self, identities: Sequence[Identity] | None) -> None:
        self._identities = identities
        self.found: Identity | None = None

    def verify(self, cert: Any) -> None:
        found = _identity_of(cert)
        if self._identities is None:
            self.found = found
            return
        self.found = next((asked for asked in self._identities if asked.covers(found)), None)
        if self.found is None:
            raise bad_signature(f"no trusted identity signed it (it is signed by {found})")


def _identity_of(cert: Any) -> Identity:
    """What a certificate of Fulcio says of its subject and of who vouched for it.

    Raises:
        InputError: it does not name one of each.
    """
    from cryptography.hazmat import asn1
    from cryptography.x509 import SubjectAlternativeName

    names = {str(name.value) for name in cert.extensions.get_extension_for_class(SubjectAlternativeName).value}
    held = {extension.oid.dotted_string: extension.value for extension in cert.extensions}
    issuers = {held[_ISSUER_AS_TEXT].value.decode()} if _ISSUER_AS_TEXT in held else set()
    issuers |= {asn1.decode_der(str, held[_ISSUER].value)} if _ISSUER in held else set()
    if len(names) != 1 or len(issuers) != 1:
        raise bad_signature("its certificate does not name one identity and one issuer")
    repository = asn1.decode_der(str, held[_REPOSITORY].value) if _REPOSITORY in held else ""
    return Identity(names.pop(), issuers.pop(), repository=repository)


def _verified(bundle: bytes, root: Root, asked: _Asked) -> tuple[bytes, Identity]:
    _needs_sigstore()
    from sigstore.models import Bundle
    from sigstore.verify import Verifier

    document = _parsed(bundle)
    try:
        read = Bundle.from_json(bundle)
        # What is not read is not proven, and base64 has more than one text for the same bytes.
        if not _within(document, json.loads(read.to_json())):
            raise bad_signature("it was changed after it was written, or has fields of another format")
        kind, payload = Verifier(trusted_root=root.trusted).verify_dsse(read, asked)
    except MlcicdError:
        raise
    except Exception as error:
        # Whatever a bundle makes the libraries raise, it is not proven.
        raise bad_signature(f"{type(error).__name__}: {error}"[:500]) from error
    if kind != PAYLOAD_TYPE or asked.found is None:
        raise bad_signature("it holds something else than an in-toto statement")
    _unsigned(document)
    return payload, asked.found


def _unsigned(document: Mapping[str, Any]) -> None:
    """Looks at what is unsigned, and not read by sigstore: a name of the key; and how large the log is and who it is,
    which stand there twice. What witnesses have signed beside the log is not asked for, and not looked at.

    Raises:
        InputError: it is not what is signed.
    """
    if any(signature.get("keyid") for signature in document["dsseEnvelope"]["signatures"]):
        raise bad_signature("it names a key, which nothing vouches for")
    (entry,) = document["verificationMaterial"]["tlogEntries"]
    proof = entry["inclusionProof"]
    note, _, signatures = proof["checkpoint"]["envelope"].partition("\n\n")
    origin, size = note.split("\n")[:2]
    if size != str(proof["treeSize"]) or not signatures.startswith(f"\u2014 {origin.split(' ')[0]} "):
        raise bad_signature("the log is not the one that its checkpoint was signed for")


def _parsed(bundle: bytes) -> dict[str, Any]:
    if len(bundle) > MAX_ENVELOPE:
        raise bad_signature("it is larger than a bundle ever is")
    try:
        document = json.loads(bundle)
    except (ValueError, RecursionError):
        raise bad_signature("it is not JSON") from None
    if not isinstance(document, dict) or serialised(document) != bundle:
        raise bad_signature("it was changed after it was written")
    return document


def _within(given: Any, read: Any) -> bool:
    """Whether all that is given was read, and read as it is written."""
    if isinstance(given, dict):
        return isinstance(read, dict) and all(key in read and _within(value, read[key]) for key, value in given.items())
    if isinstance(given, list):
        return isinstance(read, list) and len(given) == len(read) and all(map(_within, given, read))
    return bool(given == read)


def _trust(services: Services, root: Root) -> str:
    """sigstore's client configuration for services of one's own."""

    def at(url: str, version: int) -> list[dict[str, Any]]:
        valid = {"start": "2020-01-01T00:00:00Z"}
        service = {"url": url.rstrip("/"), "majorApiVersion": version, "validFor": valid, "operator": "own"}
        return [service] if url else []

    signing = {
        "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
        "caUrls": at(services.fulcio, 1),
        "rekorTlogUrls": at(services.rekor, services.rekor_api),
        "rekorTlogConfig": {"selector": "ANY"},
        "tsaUrls": at(services.timestamps, 1),
        "tsaConfig": {"selector": "ANY"},
    }
    return json.dumps(
        {
            "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
            "trustedRoot": json.loads(root.content),
            "signingConfig": signing,
        }
    )


def _ambient_token() -> Any:
    """The identity that the CI host gives this job.

    Raises:
        ConfigError: it gives none.
        ServiceError: it should, and failed.
    """
    from sigstore.oidc import IdentityError, IdentityToken, detect_credential

    remedy = (
        "on GitHub, let the job's `permissions` write `id-token` (a pull request from a fork never may); on GitLab, "
        "give it SIGSTORE_ID_TOKEN among `id_tokens`; elsewhere, sign with a key file (supply_chain.key)"
    )
    on_github = bool(os.environ.get("GITHUB_ACTIONS"))
    if on_github and not os.environ.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN"):
        raise ConfigError("this job may not ask for an identity, which a keyless signature needs", remedy=remedy)
    try:
        raw = detect_credential()
        if raw:
            learn_secret(raw)
            return IdentityToken(raw)
    except IdentityError as error:
        raise ServiceError("the CI host gave no identity that can be used", why=str(error), remedy=remedy) from error
    raise ConfigError("there is no identity here, which a keyless signature needs", remedy=remedy)


def _in_time(call: Callable[[], str]) -> str:
    """Runs what talks to the services, for so long and no longer.

    Raises:
        ServiceError: it failed, or was not done in time.
    """
    results: list[str] = []
    failures: list[Exception] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="sigstore", daemon=True)
    thread.start()
    thread.join(_SECONDS)
    if results:
        return results[0]
    said = f"no answer within {_SECONDS:.0f} s"
    if failures:
        # The package's own errors are often empty: the reason is in what they were raised from.
        causes = [error for error in (failures[0], failures[0].__cause__) if error is not None and str(error)]
        said = "; ".join(str(error) for error in causes) or type(failures[0]).__name__
    raise ServiceError(
        "Sigstore did not sign",
        why=said[:1000],
        remedy="run `mlcicd register` again; where it stays so, look at supply_chain.sigstore and the trusted root",
    ) from (failures[0] if failures else None)


def _needs_sigstore() -> None:
    try:
        import sigstore  # noqa: F401
    except ImportError:
        raise ConfigError(
            "keyless signatures need the package sigstore", remedy="install mlcicd with its extra: `mlcicd[sigstore]`"
        ) from None
