"""Our model server beside `mlflow models serve`, MLServer and BentoML, on the same scikit-learn model.

    python benchmarks/serve.py [--seconds 5] [--rounds 3] [--only ours,mlflow]

Each peer is installed into a virtual environment of its own below `.venv-bench-serve`; one that can not be
installed or does not answer is named and left out. Ours runs in the interpreter of `mlflow models serve`, so both
import the same libraries. One process and one prediction thread each, one row a request, over loopback. The
rounds of the servers alternate. CPU is of the server's process and its children, from /proc (Linux). Prints a table and
ratios to `mlflow models serve`, asserts nothing.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import re
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VENVS = ROOT / ".venv-bench-serve"
PACKAGES = {
    "mlflow": ("mlflow>=3.13", "scikit-learn"),
    "mlserver": ("mlserver", "mlserver-mlflow", "setuptools<81"),
    "bentoml": ("bentoml", "mlflow-skinny>=3.13", "scikit-learn", "pandas"),
}
CONNECTIONS = 8
FEATURES = 20
READY_S = 180.0

SAVE = f"""
import sys
import mlflow.sklearn, numpy as np, pandas as pd
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression
rng = np.random.default_rng(0)
features = pd.DataFrame(rng.normal(size=(1000, {FEATURES})), columns=[f"f{{i}}" for i in range({FEATURES})])
labels = (features.sum(axis=1) > 0).astype("int64")
model = LogisticRegression().fit(features, labels)
mlflow.sklearn.save_model(model, sys.argv[1], signature=infer_signature(features, model.predict(features)),
                          serialization_format="cloudpickle", pip_requirements=["scikit-learn"])
"""
IMPORT_ALONE = "import sys, mlflow.pyfunc; mlflow.pyfunc.load_model(sys.argv[1])"
BENTO = """
import bentoml, mlflow.pyfunc, os, pandas as pd

@bentoml.service(workers=1, metrics={"enabled": True})
class Toy:
    def __init__(self):
        self.model = mlflow.pyfunc.load_model(os.environ["BENCH_MODEL"])

    @bentoml.api
    def predict(self, dataframe_split: dict) -> dict:
        frame = pd.DataFrame(dataframe_split["data"], columns=dataframe_split["columns"])
        return {"predictions": self.model.predict(frame).tolist()}
"""


@dataclass
class Server:
    """One server under test, and what was measured of it."""

    name: str
    argv: list[str]
    port: int
    path: str = "/invocations"
    cwd: Path = ROOT
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    start_s: float = 0.0
    start_cpu_s: float = 0.0
    memory_mb: float = 0.0
    rate: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    load_cpu_ms: list[float] = field(default_factory=list)
    errors: int = 0


def venv(name: str) -> str:
    """The interpreter of a peer's environment, made once.

    Raises:
        subprocess.CalledProcessError: it can not be installed.
    """
    python = VENVS / name / "bin" / "python"
    done = VENVS / name / ".installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENVS / name)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PACKAGES[name]], check=True, capture_output=True)
        done.touch()
    return str(python)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def servers(model: Path, folder: Path, pythons: dict[str, str]) -> list[Server]:
    made = []
    port = free_port()
    mlflow = pythons["mlflow"]
    here = str(ROOT / "mlcicd" / "serving" / "server")
    ours = [mlflow, here, "--model", str(model), "--name", "toy", "--version", "1", "--port", str(port)]
    made.append(Server("ours", ours, port))
    made.append(Server("ours, batching off", [*ours[:-1], str(off := free_port()), "--batching", "off"], off))
    port = free_port()
    serve = [mlflow, "-m", "mlflow", "models", "serve", "-m", str(model), "-p", str(port), "--env-manager", "local"]
    # It looks for uvicorn on the path.
    path = os.pathsep.join([str(Path(mlflow).parent), os.environ.get("PATH", "")])
    made.append(Server("mlflow models serve", [*serve, "--workers", "1"], port, env={"PATH": path}))
    if "mlserver" in pythons:
        port = free_port()
        home = folder / "mlserver"
        home.mkdir()
        ports = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
        (home / "settings.json").write_text(json.dumps({"host": "127.0.0.1", "parallel_workers": 0, **ports}))
        implementation = {"name": "toy", "implementation": "mlserver_mlflow.MLflowRuntime"}
        (home / "model-settings.json").write_text(json.dumps({**implementation, "parameters": {"uri": str(model)}}))
        command = str(Path(pythons["mlserver"]).with_name("mlserver"))
        made.append(Server("MLServer", [command, "start", str(home)], port, cwd=home))
    if "bentoml" in pythons:
        port = free_port()
        home = folder / "bento"
        home.mkdir()
        (home / "service.py").write_text(BENTO)
        command = [pythons["bentoml"], "-m", "bentoml", "serve", "service:Toy", "--host", "127.0.0.1"]
        env = {"BENCH_MODEL": str(model), "BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": str(home / "home")}
        made.append(Server("BentoML", [*command, "--port", str(port)], port, path="/predict", cwd=home, env=env))
    return made


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += parents.get(found[-1], [])
    return found


def cpu_s(pid: int) -> float:
    """CPU seconds of a process tree, with those of its children that ended."""
    ticks = 0
    for process in tree(pid):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    """Proportional set size of a process tree."""
    total = 0
    for process in tree(pid):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1000


def ask(connection: http.client.HTTPConnection, path: str, body: bytes) -> tuple[int, bytes]:
    connection.request("POST", path, body, {"content-type": "application/json"})
    response = connection.getresponse()
    return response.status, response.read()


def start(server: Server, body: bytes, log: Path) -> bool:
    """Starts it and waits for the first good answer; whether there was one."""
    env = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    started = time.perf_counter()
    with log.open("wb") as output:
        server.process = subprocess.Popen(
            server.argv,
            cwd=server.cwd,
            env={**os.environ, **env, **server.env},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    while time.perf_counter() - started < READY_S and server.process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        try:
            if ask(connection, server.path, body)[0] == 200:
                server.start_s = time.perf_counter() - started
                server.start_cpu_s = cpu_s(server.process.pid)
                return True
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    return False


def stop(server: Server) -> None:
    """Ends the server's own session."""
    if server.process is None:
        return
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.process.pid, how)
            server.process.wait(15)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


class Connection:
    """One connection of the load: a request, its answer, the next request."""

    def __init__(self, port: int, request: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = request
        self._answer = b""
        self._asked = 0.0

    def ask(self) -> None:
        self._answer, self._asked = b"", time.perf_counter()
        self.socket.sendall(self._request)

    def read(self) -> tuple[float, bool] | None:
        """Milliseconds to the whole answer, and whether it was 200; None as long as some of it is to come."""
        part = self.socket.recv(65536)
        if not part:
            raise ConnectionError("the server closed the connection")
        self._answer += part
        head, ended, body = self._answer.partition(b"\r\n\r\n")
        if not ended:
            return None
        length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
        if length is None or len(body) < int(length[1]):
            return None
        return (time.perf_counter() - self._asked) * 1000, head.startswith(b"HTTP/1.1 200 ")


def load(port: int, path: str, body: bytes, seconds: float) -> dict[str, Any]:
    """Asks as fast as the connections allow, from one thread; runs in a process of its own."""
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    answers: list[tuple[float, bool]] = []
    with selectors.DefaultSelector() as selector:
        connections = [Connection(port, request) for _ in range(CONNECTIONS)]
        began, cpu = time.perf_counter(), time.process_time()
        for connection in connections:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.ask()
        while selector.get_map():
            for key, _ in selector.select(60):
                answer = key.data.read()
                if answer is None:
                    continue
                answers.append(answer)
                if time.perf_counter() - began < seconds:
                    key.data.ask()
                else:
                    selector.unregister(key.data.socket)
                    key.data.socket.close()
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
    cuts = statistics.quantiles([latency for latency, _ in answers], n=100)
    return {
        "n": len(answers),
        "rate": len(answers) / took,
        "p50": cuts[49],
        "p99": cuts[98],
        "errors": sum(not good for _, good in answers),
        "own_cpu_ms": cpu * 1000 / len(answers),
    }


def measure(server: Server, body: bytes, seconds: float) -> None:
    assert server.process is not None
    before = cpu_s(server.process.pid)
    argv = [sys.executable, __file__, "--load", str(server.port), server.path, str(seconds)]
    done = subprocess.run(argv, input=body, capture_output=True, check=True)
    seen = json.loads(done.stdout)
    server.cpu_ms.append((cpu_s(server.process.pid) - before) * 1000 / seen["n"])
    server.rate.append(seen["rate"])
    server.p50_ms.append(seen["p50"])
    server.p99_ms.append(seen["p99"])
    server.load_cpu_ms.append(seen["own_cpu_ms"])
    server.errors += seen["errors"]
    server.memory_mb = memory_mb(server.process.pid)


def loading_alone(python: str, model: Path) -> tuple[float, float]:
    """Seconds and CPU seconds to import MLflow's pyfunc and load the model, in a process of its own."""
    before, started = os.times(), time.perf_counter()
    subprocess.run([python, "-c", IMPORT_ALONE, str(model)], check=True, capture_output=True)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - started, cpu


def table(measured: list[Server], alone: tuple[float, float]) -> None:
    med = statistics.median
    print(f"\n{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| server | first good answer, s (CPU s) | requests/s | p50 / p99 ms | CPU a request, ms | memory MB |")
    print("|---|---|---|---|---|---|")
    for s in measured:
        print(
            f"| {s.name} | {s.start_s:.1f} ({s.start_cpu_s:.1f}) | {med(s.rate):.0f} "
            f"| {med(s.p50_ms):.1f} / {med(s.p99_ms):.1f} | {med(s.cpu_ms):.2f} | {s.memory_mb:.0f} |"
        )
        if s.errors:
            print(f"  {s.name}: {s.errors} answers were not 200")
    print(f"\nLoading the model alone: {alone[0]:.1f} s ({alone[1]:.1f} CPU s)")
    print(f"The load itself: {med([ms for s in measured for ms in s.load_cpu_ms]):.2f} ms of CPU a request")
    by_name = {s.name: s for s in measured}
    base = by_name.get("mlflow models serve")
    for s in measured:
        if base is None or s is base:
            continue
        rates = med([a / b for a, b in zip(s.rate, base.rate, strict=True)])
        cpus = med([b / a for a, b in zip(s.cpu_ms, base.cpu_ms, strict=True)])
        print(
            f"{s.name}: {rates:.1f} x mlflow's requests/s, 1/{cpus:.1f} of its CPU a request, p99 "
            f"{med(s.p99_ms) / med(base.p50_ms):.2f} x its p50, {s.memory_mb / base.memory_mb:.2f} x its memory, "
            f"ready after {s.start_cpu_s / alone[1]:.2f} x the CPU of loading the model alone"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=5.0, help="of load, a round and server")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="peers to install and measure, by comma; all of them when empty")
    parser.add_argument("--load", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        port, path, seconds = options.load
        print(json.dumps(load(int(port), path, sys.stdin.buffer.read(), float(seconds))))
        return
    pythons = {}
    for name in PACKAGES:
        if name != "mlflow" and options.only and name not in options.only.split(","):
            continue
        try:
            pythons[name] = venv(name)
        except subprocess.CalledProcessError as error:
            print(f"{name} could not be installed: {(error.stderr or b'').decode()[-300:]}")
    names = [f"f{i}" for i in range(FEATURES)]
    body = json.dumps({"dataframe_split": {"columns": names, "data": [[0.1 * i for i in range(FEATURES)]]}}).encode()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = folder / "model"
        subprocess.run([pythons["mlflow"], "-c", SAVE, str(model)], check=True, capture_output=True)
        alone = loading_alone(pythons["mlflow"], model)  # the first fills the disk's cache
        alone = loading_alone(pythons["mlflow"], model)
        measured = []
        made = servers(model, folder, pythons)
        try:
            for server in made:
                log = folder / f"{server.port}.log"
                if start(server, body, log):
                    measured.append(server)
                else:
                    print(f"{server.name} gave no good answer:\n{log.read_text()[-600:]}")
            for _ in range(options.rounds):
                for server in measured:
                    measure(server, body, options.seconds)
        finally:
            for server in made:
                stop(server)
        table(measured, alone)


if __name__ == "__main__":
    main()
