"""Where the cluster is and who we are there: a kubeconfig, or the pod's own service account.

Only what is verified is used: a cluster whose certificate is not to be checked is refused, and plain HTTP is for this
machine alone (`kubectl proxy`). Tokens are learnt as secrets, so that no message shows one.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import os
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlcicd.core.errors import ConfigError, ServiceError, learn_secrets

_IN_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_EXEC_TIMEOUT_S = 60
_REMEDY = "name the file as `kubeconfig` in the target's options, or in $KUBECONFIG"


@dataclass
class Access:
    """How to talk to one API server.

    Attributes:
        server: its URL, without a slash at the end.
        verify: file of the certificate authority; True: the system's.
        certificate: files of a client certificate and its key, if that is who we are.
        server_name: whose name the certificate must have, where it is not the URL's.
    """

    server: str
    verify: str | bool = True
    certificate: tuple[str, str] | None = None
    server_name: str = ""
    _token: str = ""
    _token_file: Path | None = None
    _command: Mapping[str, Any] | None = None

    def token(self, *, renewed: bool = False) -> str:
        """The bearer token of this moment; empty when there is none.

        Args:
            renewed: the last one was refused: ask the command for another.

        Raises:
            ServiceError: its file can not be read, or its command fails.
        """
        if self._token_file is not None:
            # Read again each time: the kubelet replaces it while we run.
            try:
                self._token = self._token_file.read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ServiceError("the cluster's token can not be read", where=str(self._token_file)) from error
        elif self._command is not None and (renewed or not self._token):
            self._token = _ask(self._command, self.server)
        if not all(33 <= ord(c) <= 126 for c in self._token):
            raise ServiceError("the cluster's token holds characters that no token has")
        learn_secrets({"CLUSTER_TOKEN": self._token})
        return self._token


def find_access(kubeconfig: Path | None, context: str, environ: Mapping[str, str]) -> Access:
    """The credentials to use.

    Args:
        kubeconfig: the file that was configured; None: the first of $KUBECONFIG, then `~/.kube/config`, then those
            of the pod we run in.
        context: a context of the file; its current one when empty.
        environ: the environment variables.

    Raises:
        ConfigError: there are none, or they are not understood.
    """
    file = kubeconfig or _default_file(environ)
    if file is not None:
        return _from_file(file, context)
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT", "443")
    if host and (_IN_POD / "token").is_file():
        host = f"[{host}]" if ":" in host else host
        return Access(f"https://{host}:{port}", str(_IN_POD / "ca.crt"), _token_file=_IN_POD / "token")
    raise ConfigError("there are no credentials for a cluster", remedy=_REMEDY)


def _default_file(environ: Mapping[str, str]) -> Path | None:
    named = [Path(part) for part in environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    for file in [*named, Path(environ.get("HOME", "/nonexistent"), ".kube", "config")]:
        if file.is_file():
            return file
    return None


def _from_file(file: Path, context: str) -> Access:
    import yaml

    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
        context = context or document["current-context"]
        chosen = _named(document, "contexts", "context", context)
        cluster = _named(document, "clusters", "cluster", chosen["cluster"])
        user = _named(document, "users", "user", chosen["user"]) if chosen.get("user") else {}
        server = str(cluster["server"]).rstrip("/")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the kubeconfig can not be read", where=str(file), why=str(error), remedy=_REMEDY) from error
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        # A parser's message may quote the file, which holds secrets.
        raise ConfigError(
            "this is not a kubeconfig with the context that is asked for",
            where=str(file),
            why=f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else type(error).__name__,
            remedy="look at `kubectl config get-contexts`",
        ) from error
    _check_server(server, file, cluster)
    access = Access(server, server_name=str(cluster.get("tls-server-name") or ""))
    access.verify = _file_of(access, cluster, "certificate-authority", file) or True
    certificate = _file_of(access, user, "client-certificate", file), _file_of(access, user, "client-key", file)
    if all(certificate):
        access.certificate = certificate
    access._token = str(user.get("token") or "")
    if user.get("tokenFile"):
        access._token_file = file.parent / user["tokenFile"]
    elif isinstance(user.get("exec"), dict):
        access._command = user["exec"]
    if user.get("username") or user.get("auth-provider"):
        raise ConfigError(
            "a password, or an auth-provider, is no way into a cluster any more",
            where=str(file),
            remedy="use a token, a client certificate or an exec plug-in",
        )
    return access


def _named(document: Mapping[str, Any], section: str, key: str, name: str) -> dict[str, Any]:
    for entry in document[section]:
        if entry["name"] == name:
            found: dict[str, Any] = entry[key]
            return found
    raise KeyError(f"{section}: {name}")


def _check_server(server: str, file: Path, cluster: Mapping[str, Any]) -> None:
    parts = urlsplit(server)
    if cluster.get("insecure-skip-tls-verify"):
        raise ConfigError(
            "the kubeconfig says not to verify the cluster's certificate",
            where=str(file),
            why="Whoever sits in between would get the token, and with it the cluster.",
            remedy="give the cluster's certificate-authority-data instead",
        )
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme != "http" or not _is_this_machine(parts.hostname or ""):
        raise ConfigError(
            "the cluster's address is not an https URL",
            where=str(file),
            why="Plain HTTP is for this machine alone, such as `kubectl proxy`.",
        )


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _file_of(access: Access, section: Mapping[str, Any], key: str, kubeconfig: Path) -> str:
    """The path that a key names, or of a private file with what its `-data` holds; empty when there is neither."""
    data = section.get(f"{key}-data")
    if not data:
        return str(kubeconfig.parent / section[key]) if section.get(key) else ""
    try:
        content = base64.b64decode(str(data), validate=True)
    except binascii.Error as error:
        raise ConfigError(f"{key}-data is not base64", where=str(kubeconfig)) from error
    # Python's TLS takes files only. The folder is ours alone, and goes with us.
    folder = tempfile.mkdtemp(prefix="mlcicd-")
    weakref.finalize(access, shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder, key)
    path.touch(mode=0o600)
    path.write_bytes(content)
    return str(path)


def _ask(command: Mapping[str, Any], server: str) -> str:
    """The token that a credential plug-in prints (client.authentication.k8s.io)."""
    from mlcicd.core.errors import redact

    api = str(command.get("apiVersion") or "client.authentication.k8s.io/v1")
    request = {"apiVersion": api, "kind": "ExecCredential", "spec": {"interactive": False}}
    own = {str(pair["name"]): str(pair["value"]) for pair in command.get("env") or []}
    argv = [str(command.get("command") or ""), *map(str, command.get("args") or [])]
    try:
        done = subprocess.run(
            argv,
            env={**os.environ, **own, "KUBERNETES_EXEC_INFO": json.dumps(request)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_EXEC_TIMEOUT_S,
            check=False,
        )
        token = str(json.loads(done.stdout)["status"]["token"]) if done.returncode == 0 else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServiceError(f"the credential plug-in {argv[0]!r} does not run", where=server, why=str(error)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ServiceError(f"the credential plug-in {argv[0]!r} gave no token", where=server) from error
    if not token:
        said = redact(done.stderr[-2000:].decode("utf-8", "replace")).strip().splitlines()
        raise ServiceError(
            f"the credential plug-in {argv[0]!r} failed",
            where=server,
            why=f"exit code {done.returncode}",
            log=said[-5:],
        )
    return token
