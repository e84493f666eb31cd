"""The process: binds, loads, serves, drains."""

from __future__ import annotations

import asyncio
import faulthandler
import functools
import json
import logging
import math
import os
import signal
import socket
import sys
import traceback
from pathlib import Path

from .application import Application
from .options import Options, parse_options

EXIT_LOAD_FAILED = 3
EXIT_ADDRESS_IN_USE = 4
EXIT_NO_TOKEN = 5

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
        listener = bind(options.host, options.port)
    except OSError as error:
        log.error("can not listen on %s port %d: %s", options.host, options.port, error.strerror)
        return EXIT_ADDRESS_IN_USE
    application = Application(options, token)
    config = uvicorn.Config(
        application,
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, math.ceil(options.timeout_s)),
    )
    # What uvicorn imports late, it imports now, not while the model's thread imports, too.
    config.load()
    server = uvicorn.Server(config)
    loop = asyncio.get_running_loop()

    def drain() -> None:
        application.draining = True
        loop.call_later(options.drain_s, functools.partial(setattr, server, "should_exit", True))

    # uvicorn's own handlers would raise the signal again at the end, and turn a clean stop into a failed one.
    server.capture_signals = _no_signals
    for stop in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(stop, drain)

    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    loading = asyncio.ensure_future(application.load())
    if options.run_file is not None:
        announce(options.run_file, listener.getsockname()[1])
    await asyncio.wait({serving, loading}, return_when=asyncio.FIRST_COMPLETED)
    status = 0
    failure = loading.exception() if loading.done() else None
    if failure is not None:
        traceback.print_exception(type(failure), failure, failure.__traceback__)
        log.error("the model failed to load: %s: %s", type(failure).__name__, failure)
        status = EXIT_LOAD_FAILED
        server.should_exit = True
    await serving
    application.close()
    return status


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
