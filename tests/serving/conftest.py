"""Model folders and servers that are started as users start them: by path, in another process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

HERE = Path(__file__).parent
SERVER = HERE.parent.parent / "mlcicd" / "serving" / "server"


@dataclass
class Running:
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def post(self, body: object, path: str = "/invocations", **kwargs: object) -> requests.Response:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        with requests.Session() as session:
            return session.post(self.url + path, data=data, timeout=30, headers=headers | kwargs.pop("headers", {}))

    def get(self, path: str) -> requests.Response:
        with requests.Session() as session:
            return session.get(self.url + path, timeout=30)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    subprocess.run([sys.executable, str(HERE / "make_models.py"), str(folder)], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Running]]:
    """Starts a server on a model folder; waits until it is ready unless told not to."""
    started: list[Running] = []

    def _launch(model: Path, *options: str, ready: bool = True) -> Running:
        folder = tmp_path_factory.mktemp("server")
        run_file, log = folder / "run.json", folder / "log"
        command = [sys.executable, str(SERVER), "--model", str(model), "--name", "toy", "--version", "7"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, "--run-file", str(run_file), *options], stdout=output, stderr=output, cwd=folder
            )
        running = Running("", process, log)
        started.append(running)
        deadline = time.monotonic() + 120
        while not run_file.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if run_file.exists():
            running.url = f"http://127.0.0.1:{json.loads(run_file.read_text())['port']}"
        while ready and running.get("/ready").status_code != 200 and time.monotonic() < deadline:
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        return running

    yield _launch
    for running in started:
        if running.process.poll() is None:
            running.process.terminate()
    for running in started:
        try:
            running.process.wait(20)
        except subprocess.TimeoutExpired:
            running.process.kill()
            running.process.wait(20)
