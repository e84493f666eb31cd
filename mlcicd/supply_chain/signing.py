"""Signatures as DSSE envelopes: made with a private key in a PEM file, verified offline with a public one.

Format: https://github.com/secure-systems-lab/dsse (protocol.md, envelope.md). The key id is that of securesystemslib,
so that its verifier and others take our envelopes as they are.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlcicd.core.errors import ConfigError, InputError

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_ENVELOPE = 16 << 20


@dataclass(frozen=True)
class PublicKey:
    """A key that signatures are verified with. `signer` is who it belongs to, by the policy."""

    keyid: str
    key: Any
    signer: str = ""


def read_private_key(pem: str, *, where: str) -> Any:
    """An Ed25519 or ECDSA P-256 private key from its PEM text.

    Raises:
        ConfigError: it is not one, is protected by a password, or `cryptography` is not installed.
    """
    _needs_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # What the library says may hold parts of the key.
        raise ConfigError(
            "this is not a private key that can be read",
            where=where,
            remedy="make one with `openssl genpkey -algorithm ed25519`; keys with a password are not taken",
        ) from None
    _scheme(key.public_key(), where)
    return key


def read_public_key(pem: str, *, where: str, signer: str = "") -> PublicKey:
    """A public key from its PEM text.

    Raises:
        ConfigError: it is not one.
    """
    _needs_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(
            "this is not a public key that can be read",
            where=where,
            remedy="make it from the private key with `openssl pkey -in KEY -pubout`",
        ) from None
    return PublicKey(_keyid(key, where), key, signer)


def public_key_of(private_key: Any) -> PublicKey:
    """The public half of a private key, by whose id its signatures are found."""
    return PublicKey(_keyid(private_key.public_key(), "the signing key"), private_key.public_key(), "")


def sign(payload: bytes, private_key: Any) -> bytes:
    """The envelope of a payload, as the one sequence of bytes that :func:`verify` takes."""
    keyid = _keyid(private_key.public_key(), "the signing key")
    message = _pae(PAYLOAD_TYPE, payload)
    if _scheme(private_key.public_key(), "the signing key")[0] == "ed25519":
        signature = private_key.sign(message)
    else:
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.hashes import SHA256

        signature = private_key.sign(message, ECDSA(SHA256()))
    return serialised(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": keyid, "sig": base64.b64encode(signature).decode()}],
        }
    )


def verify(envelope: bytes, keys: Mapping[str, PublicKey]) -> tuple[bytes, PublicKey]:
    """The payload of an envelope, and the key that signed it.

    Args:
        keys: by key id.

    Raises:
        InputError: it is not an envelope as :func:`sign` writes them, byte for byte; no key that is trusted signed
            it; or the signature is about something else.
    """
    document = _parsed(envelope)
    payload, signatures = _decoded(document["payload"]), document["signatures"]
    if document["payloadType"] != PAYLOAD_TYPE:
        raise bad_signature("it holds something else than an in-toto statement")
    unknown = []
    for entry in signatures:
        key = keys.get(entry["keyid"])
        if key is None:
            unknown.append(entry["keyid"][:16])
            continue
        _check(key, _decoded(entry["sig"]), _pae(PAYLOAD_TYPE, payload))
        return payload, key
    raise bad_signature(f"no trusted key signed it (it is signed by {', '.join(unknown) or 'nobody'})")


def _check(key: PublicKey, signature: bytes, message: bytes) -> None:
    from cryptography.exceptions import InvalidSignature

    try:
        if _scheme(key.key, key.keyid)[0] == "ed25519":
            key.key.verify(signature, message)
        else:
            from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
            from cryptography.hazmat.primitives.hashes import SHA256

            key.key.verify(signature, message, ECDSA(SHA256()))
    except InvalidSignature:
        raise bad_signature("its signature is not of this content") from None


def _parsed(envelope: bytes) -> dict[str, Any]:
    if len(envelope) > MAX_ENVELOPE:
        raise bad_signature("it is larger than an envelope ever is")
    try:
        document = json.loads(envelope)
    except (ValueError, RecursionError):
        raise bad_signature("it is not JSON") from None
    shape = isinstance(document, dict) and set(document) == {"payload", "payloadType", "signatures"}
    entries = document["signatures"] if shape else None
    if not (
        isinstance(entries, list)
        and all(isinstance(e, dict) and set(e) == {"keyid", "sig"} for e in entries)
        and all(isinstance(v, str) for e in entries for v in e.values())
        and all(isinstance(document[k], str) for k in ("payload", "payloadType"))
    ):
        raise bad_signature("it does not have the fields of an envelope")
    # One content has one form: otherwise bytes could change without anybody noticing.
    if serialised(document) != envelope:
        raise bad_signature("it was changed after it was written")
    result: dict[str, Any] = document
    return result


def _decoded(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise bad_signature("a field is not base64") from None
    if base64.b64encode(data).decode() != text:
        raise bad_signature("it was changed after it was written")
    return data


def serialised(document: dict[str, Any]) -> bytes:
    """The one form that a signed document is stored in."""
    return (json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n").encode()


def _pae(payload_type: str, payload: bytes) -> bytes:
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _scheme(key: Any, where: str) -> tuple[str, str]:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if isinstance(key, Ed25519PublicKey):
        return "ed25519", "ed25519"
    if isinstance(key, EllipticCurvePublicKey) and key.curve.name == "secp256r1":
        return "ecdsa", "ecdsa-sha2-nistp256"
    raise ConfigError(
        "keys of this kind are not taken", where=where, remedy="use Ed25519 (`openssl genpkey -algorithm ed25519`)"
    )


def _keyid(key: Any, where: str) -> str:
    """securesystemslib's default key id: the SHA-256 of the key's canonical JSON."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    keytype, scheme = _scheme(key, where)
    if keytype == "ed25519":
        public = key.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
    else:
        public = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    # Canonical JSON (OLPC) escapes only quotes and backslashes; a PEM text's line ends stay as they are.
    text = f'{{"keytype":"{keytype}","keyval":{{"public":"{public}"}},"scheme":"{scheme}"}}'
    return hashlib.sha256(text.encode()).hexdigest()


def bad_signature(why: str) -> InputError:
    """What is raised for a signature that does not hold."""
    return InputError(
        f"the signature does not hold: {why}",
        remedy="get the envelope, model and verdicts again from the registry; if it stays so, somebody changed them",
    )


def _needs_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise ConfigError(
            "signatures need the package cryptography", remedy="install mlcicd with its extra: `mlcicd[sign]`"
        ) from None
