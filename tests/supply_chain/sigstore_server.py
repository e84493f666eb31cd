"""A Sigstore on loopback: a CI host that gives identities, Fulcio, its certificate log, Rekor (v1), their trusted root.

It answers as the real ones do, so that the package `sigstore` signs and verifies with all of its checks: real
certificates of ten minutes with their timestamps of the certificate log (RFC 6962), a Merkle tree with inclusion
proofs, checkpoints and signed entry timestamps.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ISSUER = "https://token.actions.example"
IDENTITY = "https://github.com/owner/models/.github/workflows/cd.yml@refs/heads/main"
REPOSITORY = "https://github.com/owner/models"
REQUEST_TOKEN = "plant-request-token-5c31"
_SCT_LIST = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_FULCIO = "1.3.6.1.4.1.57264.1."
_SHA256 = ec.ECDSA(hashes.SHA256())


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def spki(key: Any) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _new_key() -> Any:
    return ec.generate_private_key(ec.SECP256R1())


class Log:
    """Rekor's log: leaves, and what is proven of them."""

    def __init__(self, origin: str) -> None:
        self.key = _new_key()
        self.id = hashlib.sha256(spki(self.key)).digest()
        self.origin = origin
        self.leaves: list[bytes] = []

    def add(self, body: bytes) -> dict[str, Any]:
        self.leaves.append(hashlib.sha256(b"\0" + body).digest())
        # Others write into the log, too, before the proof is made.
        index = len(self.leaves) - 1
        self.leaves += [hashlib.sha256(body[:n]).digest() for n in (1, 2)]
        size = len(self.leaves)
        root = self._root(self.leaves)
        note = f"{self.origin}\n{size}\n{b64(root)}\n"
        signature = b64(self.id[:4] + self.key.sign(note.encode(), _SHA256))
        entry: dict[str, Any] = {
            "body": b64(body),
            "integratedTime": int(time.time()),
            "logID": self.id.hex(),
            "logIndex": index,
        }
        promised = json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()
        entry["verification"] = {
            "signedEntryTimestamp": b64(self.key.sign(promised, _SHA256)),
            "inclusionProof": {
                "logIndex": index,
                "treeSize": size,
                "rootHash": root.hex(),
                "hashes": [part.hex() for part in self._path(index, self.leaves)],
                "checkpoint": f"{note}\n\u2014 {self.origin.split()[0]} {signature}\n",
            },
        }
        return entry

    def _root(self, leaves: list[bytes]) -> bytes:
        if len(leaves) == 1:
            return leaves[0]
        half = 1 << (len(leaves) - 1).bit_length() - 1
        return hashlib.sha256(b"\1" + self._root(leaves[:half]) + self._root(leaves[half:])).digest()

    def _path(self, index: int, leaves: list[bytes]) -> list[bytes]:
        if len(leaves) == 1:
            return []
        half = 1 << (len(leaves) - 1).bit_length() - 1
        if index < half:
            return [*self._path(index, leaves[:half]), self._root(leaves[half:])]
        return [*self._path(index - half, leaves[half:]), self._root(leaves[:half])]


class Authority:
    """Fulcio: certificates of ten minutes for who shows a token, and the log of certificates."""

    def __init__(self) -> None:
        self.key, self.log_key = _new_key(), _new_key()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "own sigstore")])
        now = datetime.now(UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=365))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def certify(self, public: Any, identity: str, issuer: str, valid: timedelta = timedelta(minutes=10)) -> list[str]:
        builder = self._leaf(public, identity, issuer, valid)
        # What the log signs is the certificate without its own signature in it.
        draft = builder.sign(self.key, hashes.SHA256()).tbs_certificate_bytes
        stamp = int(time.time() * 1000).to_bytes(8, "big")
        issuer_id = hashlib.sha256(spki(self.key)).digest()
        entry = b"\0\0" + stamp + b"\0\1" + issuer_id + len(draft).to_bytes(3, "big") + draft + b"\0\0"
        signature = self.log_key.sign(entry, _SHA256)
        log_id = hashlib.sha256(spki(self.log_key)).digest()
        sct = b"\0" + log_id + stamp + b"\0\0" + b"\4\3" + len(signature).to_bytes(2, "big") + signature
        listed = len(sct).to_bytes(2, "big") + sct
        listed = len(listed).to_bytes(2, "big") + listed
        extension = x509.UnrecognizedExtension(_SCT_LIST, asn1.encode_der(listed))
        leaf = builder.add_extension(extension, critical=False).sign(self.key, hashes.SHA256())
        return [cert.public_bytes(Encoding.PEM).decode() for cert in (leaf, self.certificate)]

    def _leaf(self, public: Any, identity: str, issuer: str, valid: timedelta) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.certificate.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(seconds=5))
            .not_valid_after(now + valid)
            .add_extension(_usage("digital_signature"), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)]), critical=True)
        )
        named = {"1": issuer.encode(), "8": asn1.encode_der(issuer), "12": asn1.encode_der(REPOSITORY)}
        for number, value in named.items():
            builder = builder.add_extension(
                x509.UnrecognizedExtension(x509.ObjectIdentifier(_FULCIO + number), value), critical=False
            )
        return builder


def _usage(*names: str) -> x509.KeyUsage:
    every = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: name in names for name in every})


@dataclass
class Sigstore:
    """What the services know, have seen, and do wrong. `fault` is the path that answers with an error."""

    url: str
    authority: Authority = field(default_factory=Authority)
    log: Log = field(default_factory=lambda: Log("rekor.example - 1"))
    host_key: Any = field(default_factory=_new_key)
    identity: str = IDENTITY
    issuer: str = ISSUER
    seen: list[str] = field(default_factory=list)
    fault: str = ""

    def environment(self) -> dict[str, str]:
        """What GitHub gives a job with `id-token: write`."""
        return {
            "GITHUB_ACTIONS": "true",
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.url}/token?api-version=2",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": REQUEST_TOKEN,
        }

    def trusted_root(self) -> str:
        since = {"start": "2020-01-01T00:00:00Z"}

        def log(key: Any) -> dict[str, Any]:
            kept = {"rawBytes": b64(spki(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": since}
            key_id = b64(hashlib.sha256(spki(key)).digest())
            return {
                "baseUrl": self.url,
                "hashAlgorithm": "SHA2_256",
                "publicKey": kept,
                "logId": {"keyId": key_id},
            }

        chain = [{"rawBytes": b64(self.authority.certificate.public_bytes(Encoding.DER))}]
        authority = {
            "subject": {"organization": "example", "commonName": "own sigstore"},
            "uri": self.url,
            "certChain": {"certificates": chain},
            "validFor": since,
        }
        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
                "tlogs": [log(self.log.key)],
                "certificateAuthorities": [authority],
                "ctlogs": [log(self.authority.log_key)],
                "timestampAuthorities": [],
            }
        )

    def token(self, audience: str) -> dict[str, str]:
        now = int(time.time())
        claims = {"iss": self.issuer, "sub": "repo:owner/models:ref:refs/heads/main", "aud": audience}
        claims |= {"iat": now, "nbf": now - 5, "exp": now + 300, "job_workflow_ref": self.identity}
        return {"value": jwt.encode(claims, self.host_key, algorithm="ES256")}

    def certificate(self, token: str, request: dict[str, Any]) -> dict[str, Any]:
        claims = jwt.decode(token, self.host_key.public_key(), algorithms=["ES256"], audience="sigstore")
        asked = x509.load_pem_x509_csr(base64.b64decode(request["certificateSigningRequest"]))
        assert asked.is_signature_valid
        chain = self.authority.certify(asked.public_key(), claims["job_workflow_ref"], claims["iss"])
        return {"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}}

    def entry(self, proposed: dict[str, Any]) -> dict[str, Any]:
        assert proposed["kind"] == "dsse"
        content = proposed["spec"]["proposedContent"]
        envelope = json.loads(content["envelope"])
        body = {
            "apiVersion": "0.0.1",
            "kind": "dsse",
            "spec": {
                "envelopeHash": _hash(content["envelope"].encode()),
                "payloadHash": _hash(base64.b64decode(envelope["payload"])),
                "signatures": [
                    {"signature": part["sig"], "verifier": who}
                    for part, who in zip(envelope["signatures"], content["verifiers"], strict=True)
                ],
            },
        }
        return {"24296fb24b8ad77a": self.log.add(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())}


def _hash(data: bytes) -> dict[str, str]:
    return {"algorithm": "sha256", "value": hashlib.sha256(data).hexdigest()}


class _Handler(BaseHTTPRequestHandler):
    sigstore: Sigstore

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.sigstore.seen.append(parts.path)
        if self.headers["Authorization"] != f"bearer {REQUEST_TOKEN}" or self.sigstore.fault == parts.path:
            self._answer(403, {"message": "not you"})
        else:
            self._answer(200, self.sigstore.token(parse_qs(parts.query)["audience"][0]))

    def do_POST(self) -> None:
        self.sigstore.seen.append(self.path)
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.sigstore.fault == self.path:
            self._answer(503, {"code": 503, "message": "the log is being repaired"})
        elif self.path == "/api/v2/signingCert":
            token = self.headers["Authorization"].removeprefix("Bearer ")
            self._answer(201, self.sigstore.certificate(token, given))
        else:
            self._answer(201, self.sigstore.entry(given))

    def _answer(self, code: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def running_sigstore() -> Iterator[Sigstore]:
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    handler.sigstore = Sigstore(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield handler.sigstore
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
