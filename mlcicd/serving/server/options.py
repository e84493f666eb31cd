"""The command line of the server."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """What the server was started with; the help of `parse_options` says what each is."""

    model: Path
    name: str
    version: str
    host: str
    port: int
    run_file: Path | None
    threads: int
    batching: str
    max_body_bytes: int
    max_pending: int
    timeout_s: float
    drain_s: float
    max_memory_mb: float | None
    token_env: str
    tls_certificate: Path | None
    tls_key: Path | None
    tls_client_ca: Path | None
    probe_port: int | None
    inference_log: Path | None
    log_sample: float
    log_redact: list[str]
    log_max_mb: float
    log_keep: int


def parse_options(arguments: list[str]) -> Options:
    parser = argparse.ArgumentParser(prog="server", description="Serves one MLflow model over HTTP.")
    parser.add_argument("--model", type=Path, required=True, help="the MLflow model directory")
    parser.add_argument("--name", required=True, help="the registered model's name")
    parser.add_argument("--version", required=True, help="the version, sent back as x-mlcicd-version")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--run-file", type=Path, help='where to write {"pid", "port"} once it listens')
    parser.add_argument("--threads", type=_count, default=1, help="predictions at a time")
    parser.add_argument(
        "--batching",
        choices=("auto", "on", "off"),
        default="auto",
        help="predict requests that wait together; auto: for flavours whose rows are known to be independent",
    )
    parser.add_argument("--max-body-bytes", type=_count, default=16 << 20)
    parser.add_argument("--max-pending", type=_count, default=256, help="requests waiting or running; above it 503")
    parser.add_argument("--timeout-s", type=_positive, default=30.0, help="to send a body, and for one prediction")
    parser.add_argument("--drain-s", type=float, default=0.0, help="seconds between not ready and not listening")
    parser.add_argument(
        "--max-memory-mb",
        type=_positive,
        help="resident memory (MiB) at which it ends, after the requests in flight, so that it can be started anew",
    )
    parser.add_argument(
        "--token-env",
        default="",
        help="the environment variable that holds the token callers must send as `Authorization: Bearer TOKEN`",
    )
    tls = parser.add_argument_group("TLS")
    tls.add_argument("--tls-certificate", type=Path, help="PEM file of the server's certificate and its chain")
    tls.add_argument("--tls-key", type=Path, help="PEM file of its private key, without a password")
    tls.add_argument("--tls-client-ca", type=Path, help="PEM file; callers need a certificate that one of these signed")
    tls.add_argument(
        "--probe-port", type=int, help="also answer health and readiness there, and nothing else, over HTTP"
    )
    logged = parser.add_argument_group("inference log")
    logged.add_argument("--inference-log", type=Path, help="JSON-lines file of requests and answers")
    logged.add_argument("--log-sample", type=_share, default=1.0, help="the part of the requests that is written")
    logged.add_argument("--log-redact", action="append", default=[], help="a column that is never written; repeatable")
    logged.add_argument("--log-max-mb", type=_positive, default=100.0, help="the size at which a file is put aside")
    logged.add_argument("--log-keep", type=int, default=5, help="files kept beside the current one")
    given = parser.parse_args(arguments)
    if (given.tls_certificate is None) != (given.tls_key is None):
        parser.error("--tls-certificate and --tls-key go together")
    if given.tls_client_ca is not None and given.tls_certificate is None:
        parser.error("--tls-client-ca needs --tls-certificate and --tls-key")
    return Options(**vars(given))


def _positive(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to 1")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return value
