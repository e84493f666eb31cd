"""The certificate of an endpoint, and whose certificates its callers must have.

The router takes certificate and key from one file of the state folder, which is replaced whole: a certificate never
meets another one's key, a rotated one is in force without a restart, and a key that a CI job wrote for itself may go
with the job.
"""

from __future__ import annotations

import json
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlcicd.core.errors import ConfigError, InputError

SERVER, CLIENTS = "server", "clients"
_API = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"


@dataclass(frozen=True)
class Tls:
    """PEM texts: the server's certificate with its chain, its private key, and the authorities of the callers'
    certificates; empty where callers need none."""

    certificate: str
    key: str
    client_ca: str = ""

    def __repr__(self) -> str:
        return f"Tls(client_ca={bool(self.client_ca)})"


def read_tls(files: Mapping[str, str]) -> Tls:
    """Reads and checks the files of a configuration.

    Args:
        files: paths by `certificate`, `key` and, where callers need a certificate, `client_ca`.

    Raises:
        ConfigError: another name, or one is missing.
        InputError: a file can not be read, is not PEM, has a password, or the key is not the certificate's.
    """
    unknown = set(files) - {"certificate", "key", "client_ca"}
    if unknown or not files.get("certificate") or not files.get("key"):
        raise ConfigError(
            "tls takes certificate, key and client_ca, each the path of a PEM file",
            why=f"Given: {', '.join(sorted(name for name in files if files[name])) or 'nothing'}.",
        )
    made = Tls(**{name: _text(name, Path(path)) for name, path in files.items() if path})
    _check(made, files)
    return made


def _text(name: str, path: Path) -> str:
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror or str(error) if isinstance(error, OSError) else "It is not PEM, which is text."
        raise InputError(f"tls.{name} can not be read", where=str(path), why=why) from error
    if not text:
        # A secret that is not set: without authorities everybody would be let in.
        raise InputError(f"tls.{name} is an empty file", where=str(path), remedy="write PEM there, or leave it out")
    return text


def _check(made: Tls, files: Mapping[str, str]) -> None:
    """As the router will read them: what has just been read, not what may have been written there meanwhile."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory(prefix="mlcicd-tls-") as private:
        pair = Path(private, "pair.pem")
        pair.write_text(f"{made.certificate}\n{made.key}", encoding="ascii")
        try:
            # With an empty password, so that a key that has one is an error and no prompt.
            context.load_cert_chain(pair, password="")
        except ssl.SSLError as error:
            raise InputError(
                "tls.certificate and tls.key are no pair of a certificate and its private key",
                where=f"{files['certificate']}, {files['key']}",
                why=error.reason or str(error),
                remedy="give PEM files: the certificate with its chain, and the key that belongs to it, without a "
                "password",
            ) from error
    if made.client_ca:
        try:
            context.load_verify_locations(cadata=made.client_ca)
        except ssl.SSLError as error:
            raise InputError(
                "tls.client_ca holds no certificate", where=files["client_ca"], why=error.reason or str(error)
            ) from error


def secrets(tls: Tls) -> dict[str, dict[str, Any]]:
    """The resources of Envoy's secret discovery for an endpoint, by name; each goes into a file of its own."""
    pair = {
        "certificate_chain": {"inline_string": tls.certificate},
        "private_key": {"inline_string": tls.key},
    }
    found: dict[str, dict[str, Any]] = {SERVER: {"@type": f"{_API}.Secret", "name": SERVER, "tls_certificate": pair}}
    if tls.client_ca:
        trusted = {"trusted_ca": {"inline_string": tls.client_ca}}
        found[CLIENTS] = {"@type": f"{_API}.Secret", "name": CLIENTS, "validation_context": trusted}
    return found


def held(server: str, clients: str) -> Tls | None:
    """What :func:`secrets` was made of, from the texts of the files; None where there is no certificate."""
    if not server:
        return None
    pair = json.loads(server)["resources"][0]["tls_certificate"]
    certificate, key = (pair[part]["inline_string"] for part in ("certificate_chain", "private_key"))
    if not clients:
        return Tls(certificate, key)
    trusted = json.loads(clients)["resources"][0]["validation_context"]["trusted_ca"]
    return Tls(certificate, key, trusted["inline_string"])


def downstream(server: Path, clients: Path | None) -> dict[str, Any]:
    """The transport socket of a listener whose secrets are in these files; None: callers need no certificate."""
    common: dict[str, Any] = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_certificate_sds_secret_configs": [_secret(SERVER, server)],
    }
    if clients is not None:
        common["validation_context_sds_secret_config"] = _secret(CLIENTS, clients)
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_API}.DownstreamTlsContext",
            "common_tls_context": common,
            "require_client_certificate": clients is not None,
        },
    }


def _secret(name: str, path: Path) -> dict[str, Any]:
    source = {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}
    return {"name": name, "sds_config": source}
