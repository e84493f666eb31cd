"""Builds the image of a version for real, runs it, and asks it: `python tools/container_trial.py FOLDER`.

For a machine without a registry: the base image is made here, of Debian's packages (debootstrap), and podman's storage
stays in FOLDER. Needs root, podman, runc, debootstrap, and mirrors of Debian and PyPI; says what is missing. A
debootstrap that was only unpacked is found by DEBOOTSTRAP (its program) and DEBOOTSTRAP_DIR (its scripts).

What it shows: the image is built from what `mlcicd container write` writes, runs as nobody with a read-only root and no
capability, answers /health, /ready and /invocations, asks for client certificates where it is told to, refuses other
bytes, and ends with status 0.
"""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from importlib.metadata import version as installed
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
BASE = "localhost/mlcicd-trial-base:1"
# numpy, scipy and scikit-learn need the first two; pip needs the third.
PACKAGES = "python3,python3-venv,python-is-python3,libstdc++6,libgomp1,ca-certificates"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
NEEDED = ("mlflow-skinny", "numpy", "pandas", "scikit-learn", "skops", "uvicorn")
# Raising a limit is not permitted inside of a sandbox; lowering it is.
LIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")


def run(*argv: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Runs a program; ends with its own words where it fails."""
    done = subprocess.run([str(part) for part in argv], text=True, capture_output=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise SystemExit(
            f"{' '.join(str(part) for part in argv[:9])} ... ended with {done.returncode}:\n{done.stderr[-3000:]}"
        )
    return done  # type: ignore[no-any-return]


def missing() -> str:
    """What stops it; empty when nothing does."""
    programs = ("podman", "runc", os.environ.get("DEBOOTSTRAP", "debootstrap"))
    absent = [name for name in programs if shutil.which(name) is None]
    if os.getuid() != 0:
        return "it needs root: debootstrap makes device files, and containers are run without a user's name space"
    return f"not installed: {', '.join(absent)}" if absent else ""


def podman(folder: Path) -> list[str]:
    own = ["--root", str(folder / "storage"), "--runroot", str(folder / "runroot")]
    return ["podman", "--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--runtime", str(shutil.which("runc")), *own]


def make_base(folder: Path, engine: Sequence[str]) -> None:
    system = folder / "system"
    if not (system / "usr/bin/python").exists():
        program, mirror = os.environ.get("DEBOOTSTRAP", "debootstrap"), "http://deb.debian.org/debian"
        run("sh", str(shutil.which(program)), "--variant=minbase", f"--include={PACKAGES}", "bookworm", system, mirror)
        # Behind a proxy that signs, pip in it trusts whom this machine trusts: not for others to use.
        shutil.copyfile(AUTHORITIES, system / AUTHORITIES.relative_to("/"))
    archive = folder / "system.tar"
    run("tar", "-C", system, "--exclude=./dev/*", "--exclude=./var/cache/apt/*", "-cf", archive, ".")
    run(*engine, "import", archive, BASE)
    archive.unlink()


def make_context(folder: Path) -> Path:
    import mlflow.sklearn
    import pandas as pd
    from sklearn.linear_model import LinearRegression

    from mlcicd.targets.base import ModelVersion
    from mlcicd.targets.container import write_context

    for old in ("model", "context"):
        shutil.rmtree(folder / old, ignore_errors=True)
    rows = pd.DataFrame({"a": [0.0, 1.0, 2.0, 5.0], "b": [1.0, 0.0, 4.0, 2.0]})
    model = LinearRegression().fit(rows, 2 * rows.a + rows.b)
    pinned = [f"{name}=={installed(name)}" for name in NEEDED]
    mlflow.sklearn.save_model(model, folder / "model", input_example=rows, pip_requirements=pinned)
    made = write_context(
        ModelVersion("trial", "1", folder / "model", "", sys.executable), folder / "context", base=BASE
    )
    return made.folder


def ask(url: str, body: object = None, context: ssl.SSLContext | None = None) -> tuple[int, str]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=20, context=context) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


class Running:
    """The image as a container on loopback, with no more rights than its compose file gives."""

    def __init__(self, engine: Sequence[str], *options: str, arguments: Sequence[str]) -> None:
        self._engine = engine
        rights = ("--read-only", "--tmpfs=/tmp", "--cap-drop=all", "--security-opt=no-new-privileges", "--network=host")
        argv = [
            *engine,
            "run",
            "--detach",
            *rights,
            *LIMITS,
            *options,
            "localhost/trial:1",
            "--host=127.0.0.1",
            *arguments,
        ]
        self._id = run(*argv).stdout.strip()

    def wait(self, url: str) -> None:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            try:
                if ask(url)[0] == 200:
                    return
            except OSError:
                pass
            if run(*self._engine, "inspect", self._id, "--format={{.State.Running}}").stdout.strip() != "true":
                break
            time.sleep(0.5)
        raise SystemExit(f"the container is not ready:\n{run(*self._engine, 'logs', self._id).stderr[-3000:]}")

    def user(self) -> str:
        return run(*self._engine, "top", self._id, "huser").stdout.split()[-1]

    def ended(self, *, asked: bool) -> int:
        """Its exit status, after it was asked to end (SIGTERM), or has ended by itself; then it is gone."""
        run(*self._engine, "stop", "--time=60", self._id) if asked else run(*self._engine, "wait", self._id)
        status = run(*self._engine, "inspect", self._id, "--format={{.State.ExitCode}}").stdout
        run(*self._engine, "rm", "--force", self._id)
        return int(status)


def trial(folder: Path) -> None:
    from certificates import Authority

    from mlcicd.targets.servers import free_port

    engine = podman(folder)
    make_base(folder, engine)
    context = make_context(folder)
    run(
        *engine,
        "build",
        "--isolation=chroot",
        "--network=host",
        "--format=docker",
        *LIMITS[:1],
        "--tag=localhost/trial:1",
        context,
    )
    size = run(*engine, "image", "inspect", "localhost/trial:1", "--format={{.Size}}").stdout.strip()
    print(f"built: {int(size) / 1e6:.0f} MB, of which the base is Debian with Python")
    body, port = {"dataframe_records": [{"a": 3.0, "b": 1.0}]}, free_port("127.0.0.1")
    url = f"http://127.0.0.1:{port}"
    container = Running(engine, arguments=[f"--port={port}"])
    container.wait(f"{url}/ready")
    for path, sent in (("/health", None), ("/ready", None), ("/invocations", body)):
        print(path, *ask(url + path, sent))
    print(f"runs as user {container.user()}; asked to end, it ended with {container.ended(asked=True)}")

    (tls := folder / "tls").mkdir(exist_ok=True)
    authority = Authority(tls)
    for file in (*authority.issue("server"), *authority.issue("client")):
        file.chmod(0o644)
    probe = free_port("127.0.0.1")
    files = ["--tls-certificate=/tls/server.crt", "--tls-key=/tls/server.key", "--tls-client-ca=/tls/ca.crt"]
    mounted = (f"--volume={tls}:/tls:ro", f"--env=MLCICD_PROBE_PORT={probe}")
    container = Running(engine, *mounted, arguments=[f"--port={port}", *files])
    container.wait(f"http://127.0.0.1:{probe}/ready")
    caller = ssl.create_default_context(cafile=str(tls / "ca.crt"))
    try:
        print("without a certificate:", *ask(f"https://127.0.0.1:{port}/invocations", body, caller))
    except OSError as error:
        print(f"without a certificate: {error}")
    caller.load_cert_chain(tls / "client.crt", tls / "client.key")
    print("with one:", *ask(f"https://127.0.0.1:{port}/invocations", body, caller))
    print(f"ended with {container.ended(asked=True)}")
    container = Running(engine, "--env=MLCICD_MODEL_DIGEST=sha256:00", arguments=[f"--port={port}"])
    print(f"asked to serve other bytes, it ended with {container.ended(asked=False)}")


if __name__ == "__main__":
    stopped = missing()
    if stopped or len(sys.argv) != 2:
        raise SystemExit(stopped or __doc__)
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    trial(Path(sys.argv[1]).resolve())
