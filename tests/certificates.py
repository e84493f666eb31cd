"""Certificates that are made for one test run, as PEM files."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_OTHER_USES = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign")
_NO_USES = dict.fromkeys((*_OTHER_USES, "encipher_only", "decipher_only", "digital_signature"), False)


class Authority:
    """Signs certificates; its own stands in `NAME.crt`."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder, self._name = folder, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._signed(name, self._name, self._key, days=1, itself=True)

    def issue(self, name: str, *, days: float = 1, password: bytes = b"") -> tuple[Path, Path]:
        """Files of a certificate for 127.0.0.1 that ends in `days` (negative: it has ended), and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._signed(name, subject, key, days=days, itself=False)
        cipher = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        private = self._folder / f"{name}.key"
        private.write_bytes(key.private_bytes(encoding, form, cipher))
        return certificate, private

    def _signed(
        self, name: str, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, days: float, itself: bool
    ) -> Path:
        now = datetime.datetime.now(datetime.UTC)
        signer = self._key.public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=9))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=itself, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
        )
        if itself:
            builder = builder.add_extension(x509.KeyUsage(key_cert_sign=True, **_NO_USES), critical=True)
        else:
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        file = self._folder / f"{name}.crt"
        file.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return file
