"""A real MLflow tracking server on a real PostgreSQL, both on this machine alone, for as long as a block runs."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def postgres() -> Iterator[str]:
    """Runs PostgreSQL in a temporary folder; gives its SQLAlchemy URL. It listens on a socket in that folder alone."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    if not programs:
        raise SystemExit("there is no PostgreSQL here: apt-get install postgresql (tools/apt-packages.txt)")
    folder = Path(tempfile.mkdtemp(prefix="mlcicd-pg-"))
    # PostgreSQL does not run as root.
    as_user = _unprivileged() if os.geteuid() == 0 else []
    if as_user:
        shutil.chown(folder, as_user[0].removeprefix("--reuid="))
    command = ["setpriv", *as_user, "--clear-groups", "--"] if as_user else []
    data = folder / "data"
    try:
        subprocess.run(
            [
                *command,
                str(programs[-1] / "initdb"),
                "-D",
                str(data),
                "-A",
                "trust",
                "-U",
                "mlflow",
                "-E",
                "UTF8",
                "-N",
            ],
            check=True,
            capture_output=True,
            cwd=folder,
        )
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [
                    *command, str(programs[-1] / "postgres"), "-D", str(data), "-k", str(folder),
                    "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=60",
                ],
                stdout=log,
                stderr=log,
                cwd=folder,
            )  # fmt: skip
        try:
            _wait_for(lambda: _accepts(programs[-1], folder), server, folder / "log")
            yield f"postgresql+psycopg2://mlflow@/postgres?host={folder}"
        finally:
            # Fast shutdown: sessions are ended.
            server.send_signal(signal.SIGINT)
            server.wait(60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def mlflow_server(store: str, folder: Path) -> Iterator[str]:
    """Runs an MLflow tracking server on a database; gives its URL."""
    port = free_port()
    environ = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "PYTHONWARNINGS": "ignore",
        # Its job runner wants a package that is not here, and would be started again for ever.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [
                sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--workers", "1",
                "--artifacts-destination", str(folder / "artifacts"), "--host", "127.0.0.1", "--port", str(port),
            ],
            stdout=log,
            stderr=log,
            env=environ,
            cwd=folder,
            start_new_session=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(lambda: _healthy(url), server, folder / "server.log")
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _unprivileged() -> list[str]:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            return [f"--reuid={name}", f"--regid={user.pw_gid}"]
    raise SystemExit("there is no user that PostgreSQL could run as")


def _accepts(programs: Path, folder: Path) -> bool:
    done = subprocess.run([programs / "pg_isready", "-q", "-h", folder, "-U", "mlflow"], check=False)
    return done.returncode == 0


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url + "/health", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def _wait_for(ready, process: subprocess.Popen, log: Path, seconds: float = 180) -> None:
    ends = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None or time.monotonic() > ends:
            raise SystemExit(f"{process.args[0]} did not start:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.1)
