"""The process: binds, loads, serves, drains."""

from __future__ import annotations

import asyncio
import faulthandler
import json
import logging
import math
import os
import signal
import socket
import ssl
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .application import Application
from .memory import resident_mb
from .options import Options, parse_options
from .tls import tls_context

if TYPE_CHECKING:
    import uvicorn

EXIT_LOAD_FAILED = 3
EXIT_ADDRESS_IN_USE = 4
EXIT_NO_TOKEN = 5
EXIT_NO_TLS = 6
EXIT_TOO_LARGE = 7

_MEMORY_LOOK_S = 0.5

_Asgi = Callable[..., Awaitable[None]]

log = logging.getLogger("mlcicd.server")


def bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio turns Nagle's delay off for what is accepted: 40 ms an answer
    # otherwise.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    # From here on connections wait instead of being refused, so that the port can be announced.
    listener.listen(2048)
    return listener


def announce(run_file: Path, port: int) -> None:
    """Says which process listens where; whole or not there."""
    temporary = run_file.with_name(f".{run_file.name}.{os.getpid()}")
    temporary.write_text(json.dumps({"pid": os.getpid(), "port": port}))
    temporary.replace(run_file)


async def serve(options: Options, token: str) -> int:
    """Binds, answers liveness while the model loads, serves until SIGTERM or SIGINT, drains. The exit
    status."""
    import uvicorn

    try:
        tls = tls_context(options)
    except OSError as error:
        log.error("%s, %s, or %s: %s", options.tls_certificate, options.tls_key, options.tls_client_ca, error)
        return EXIT_NO_TLS
    try:
        listeners = [bind(options.host, options.port)]
        if options.probe_port is not None:
            listeners.append(bind(options.host, options.probe_port))
    except OSError as error:
        ports = [port for port in (options.port, options.probe_port) if port is not None]
        log.error("can not listen on %s port %s: %s", options.host, " or ".join(map(str, ports)), error.strerror)
        return EXIT_ADDRESS_IN_USE
    application = Application(options, token)
    servers = [uvicorn.Server(_config(application, options, tls))]
    if options.probe_port is not None:
        servers.append(uvicorn.Server(_config(application.probe, options, None)))
    for server in servers:
        # uvicorn's own handlers would raise the signal again at the end, and turn a clean stop into a failed one.
        server.capture_signals = _no_signals
    loop = asyncio.get_running_loop()

    def end() -> None:
        for server in servers:
            server.should_exit = True

    def drain() -> None:
        application.draining = True
        loop.call_later(options.drain_s, end)

    for stop in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(stop, drain)
    too_large = False

    def grown(_: object) -> None:
        nonlocal too_large
        too_large = True
        drain()

    watching = None if options.max_memory_mb is None else asyncio.ensure_future(_grown(options.max_memory_mb))
    if watching is not None:
        watching.add_done_callback(grown)

    pairs = zip(servers, listeners)  # noqa: B905  (as many; the user's Python may be 3.9)
    serving: asyncio.Future[Any] = asyncio.gather(*(server.serve(sockets=[listener]) for server, listener in pairs))
    loading: asyncio.Future[Any] = asyncio.ensure_future(application.load())
    if options.run_file is not None:
        announce(options.run_file, listeners[0].getsockname()[1])
    await asyncio.wait({serving, loading}, return_when=asyncio.FIRST_COMPLETED)
    status = 0
    failure = loading.exception() if loading.done() else None
    if failure is not None:
        traceback.print_exception(type(failure), failure, failure.__traceback__)
        log.error("the model failed to load: %s: %s", type(failure).__name__, failure)
        status = EXIT_LOAD_FAILED
        end()
    await serving
    application.close()
    return EXIT_TOO_LARGE if too_large and not status else status


async def _grown(limit_mb: float) -> None:
    """Comes back when the process holds more memory than it may."""
    if resident_mb() is None:
        log.warning("this system does not tell how much memory a process holds now: it is not bounded")
    while (used := resident_mb()) is None or used <= limit_mb:
        await asyncio.sleep(_MEMORY_LOOK_S)
    log.error("%.0f MiB of memory, more than the %g allowed: ends after the requests in flight", used, limit_mb)


def _config(
    application: Callable[..., Awaitable[None]], options: Options, tls: ssl.SSLContext | None
) -> uvicorn.Config:
    import uvicorn

    config = uvicorn.Config(
        application,
        interface="asgi3",
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, math.ceil(options.timeout_s)),
    )
    # What uvicorn imports late, it imports now, not while the model's thread imports, too.
    config.load()
    config.ssl = tls
    return config


class _no_signals:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    os.environ["_MLFLOW_IS_IN_SERVING_ENVIRONMENT"] = "true"
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    options = parse_options(sys.argv[1:])
    # `kill -USR1` prints where every thread is: what a model that does not get ready waits for.
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    # Taken out of the environment, so that the model's code and its children do not have it.
    token = os.environ.pop(options.token_env, "") if options.token_env else ""
    if options.token_env and not token:
        log.error("the environment variable %s, which is to hold the token, is empty", options.token_env)
        sys.exit(EXIT_NO_TOKEN)
    status = asyncio.run(serve(options, token))
    sys.stdout.flush()
    sys.stderr.flush()
    # A model's own threads must not keep a drained server alive.
    os._exit(status)
