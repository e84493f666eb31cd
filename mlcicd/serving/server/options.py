"""The command line of the server."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    model: Path
    name: str
    version: str
    host: str
    port: int
    run_file: Path | None
    threads: int
    max_body_bytes: int
    max_pending: int
    timeout_s: float
    drain_s: float


def parse_options(arguments: list[str]) -> Options:
    parser = argparse.ArgumentParser(prog="server.py", description="Serves one MLflow model over HTTP.")
    parser.add_argument("--model", type=Path, required=True, help="the MLflow model directory")
    parser.add_argument("--name", required=True, help="the registered model's name")
    parser.add_argument("--version", required=True, help="the version, sent back as x-mlcicd-version")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--run-file", type=Path, help='where to write {"pid", "port"} once it listens')
    parser.add_argument("--threads", type=int, default=1, help="predictions at a time")
    parser.add_argument("--max-body-bytes", type=int, default=16 << 20)
    parser.add_argument("--max-pending", type=int, default=256, help="requests waiting or running; above it 503")
    parser.add_argument("--timeout-s", type=float, default=30.0, help="for one prediction; after it 504")
    parser.add_argument("--drain-s", type=float, default=0.0, help="seconds between not ready and not listening")
    return Options(**vars(parser.parse_args(arguments)))
