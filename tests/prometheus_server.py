"""A real Prometheus server for a test, an exporter it can scrape, and a stand-in that fails on demand."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit


def program(name: str) -> str:
    found = shutil.which(name)
    assert found, f"{name} is missing: apt-get install {' '.join(Path('tools/apt-packages.txt').read_text().split())}"
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def prometheus(folder: Path, *, scrape: Sequence[str] = (), data: Path | None = None) -> Iterator[str]:
    """The URL of a server with the blocks in `data`, which scrapes the addresses in `scrape` every 100 ms."""
    port = free_port()
    config = folder / "prometheus.yml"
    target = f"[{{job_name: test, static_configs: [{{targets: {json.dumps(list(scrape))}}}]}}]" if scrape else "[]"
    config.write_text(f"global: {{scrape_interval: 100ms, scrape_timeout: 100ms}}\nscrape_configs: {target}\n")
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={data or folder / 'data'}",
                "--storage.tsdb.retention.time=100y",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(f"{url}/-/ready", b"", process, log)
        if scrape:
            _wait(f"{url}/api/v1/query?query=sum(up)", b'"%d"]' % len(scrape), process, log)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(url: str, wanted: bytes, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                if wanted in response.read():
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"Prometheus was not ready: {log.read_text()[-2000:]}")


def history(folder: Path, samples: dict[str, dict[float, float]]) -> Path:
    """A data folder that holds these samples: series to value by time in seconds."""
    # A family's samples stand together in the text format.
    series = sorted(samples, key=lambda name: name.partition("{")[0])
    lines = [f"{name} {value} {at:.3f}" for name in series for at, value in sorted(samples[name].items())]
    text = folder / "history.txt"
    text.write_text("\n".join([*lines, "# EOF", ""]))
    data = folder / "data"
    made = [program("promtool"), "tsdb", "create-blocks-from", "openmetrics", str(text), str(data)]
    done = subprocess.run(made, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return data


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """host:port of a server with this handler."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=lambda: server.serve_forever(0.02), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class Exporter:
    """Counters by series, as `/metrics` shows them."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self.down = False

    def handler(self) -> type[BaseHTTPRequestHandler]:
        exporter = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = "".join(f"{name} {value:g}\n" for name, value in exporter.values.items()).encode()
                self.send_response(500 if exporter.down else 200)
                self.send_header("content-type", "text/plain; version=0.0.4")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


class Fake:
    """Answers like Prometheus after the answers in `faults` have been given, one a request.

    A fault is (status, body, headers); a status of 0 closes the connection in the middle of the body, and one of -1
    sends the body a byte at a time.
    """

    def __init__(self) -> None:
        self.faults: list[tuple[int, bytes, dict[str, str]]] = []
        self.asked: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        # Growth a second and labels of the series, by a word of the query.
        self.growth: dict[str, list[tuple[dict[str, str], float]]] = {}

    def answer(self, query: dict[str, str]) -> bytes:
        start, end, step = (float(query[key]) for key in ("start", "end", "step"))
        result: list[dict[str, Any]] = []
        for word, series in self.growth.items():
            if word in query["query"]:
                times = [start + i * step for i in range(round((end - start) / step) + 1)]
                result += [{"metric": m, "values": [[t, str(round(t * rate))] for t in times]} for m, rate in series]
        return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}).encode()

    def handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
                fake.asked.append(query)
                fake.headers.append({k.lower(): v for k, v in self.headers.items()})
                status, body, headers = fake.faults.pop(0) if fake.faults else (200, fake.answer(query), {})
                self.send_response(status if status > 0 else 200)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body) + (status == 0)))
                self.end_headers()
                try:
                    if status >= 0:
                        self.wfile.write(body)
                    else:
                        for byte in body:
                            self.wfile.write(bytes([byte]))
                            time.sleep(0.02)
                except OSError:
                    return

            def log_message(self, *_: object) -> None:
                pass

        return Handler
