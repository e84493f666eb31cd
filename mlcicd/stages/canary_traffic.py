"""Traffic of a canary where there is none of users: recorded requests, sent through the router."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

from mlcicd.config import FILE_NAME, Project, seconds
from mlcicd.config.canary import Canary
from mlcicd.core.errors import ConfigError, InputError
from mlcicd.serving.replay import read_bodies, replay
from mlcicd.stages.common import prepare_data
from mlcicd.stages.places import Place, token
from mlcicd.stages.record import Record


@contextmanager
def traffic(record: Record, where: Place, settings: Canary, url: str, *, first: int = 0) -> Iterator[None]:
    """Replays recorded requests in their order while the block runs, where the configuration asks for it.

    Args:
        url: of the environment's router.
        first: the request to begin with; counted on from the first one again after the last.

    Raises:
        ConfigError: callers must show a certificate, and the configuration has none for us.
        InputError: the requests or the certificate can not be read.
    """
    if settings.traffic is None:
        yield
        return
    prepare_data(record, settings.traffic.requests)
    path = record.project.path(settings.traffic.requests, ("canary", "traffic", "requests"))
    recorded = read_bodies(path)
    first %= len(recorded)
    bodies = [*recorded[first:], *recorded[:first]]
    stop = Event()
    limit, rate, secret = seconds(settings.max_duration) + 60, settings.traffic.rate, token(record.project)
    tls = as_caller(record.project, where)
    counts: list[Any] = []
    thread = Thread(
        target=lambda: counts.append(
            replay(url, bodies, rate_per_s=rate, duration_s=limit, stop=stop, token=secret, tls=tls)
        ),
        daemon=True,
    )
    record.progress.step(f"replaying {len(bodies):,} recorded requests at {settings.traffic.rate:g} a second")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)


def as_caller(project: Project, where: Place) -> ssl.SSLContext | None:
    """What the router of an environment is called with: our certificate, and trust in its own and in no other.

    Its name is not compared: it is called by its loopback address, which no certificate needs to hold.
    """
    files = where.settings.tls
    if files is None:
        return None
    if files.client_ca and not (files.client_certificate and files.client_key):
        key = ("deploy", "environments", where.name, "tls")
        raise ConfigError(
            "canary.traffic can not call an endpoint that asks for certificates",
            file=FILE_NAME,
            line=project.document.line(key),
            remedy="set client_certificate and client_key beside client_ca, of a certificate that it signed",
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    named = [files.certificate, files.client_certificate, files.client_key]
    certificate, own, key_file = (str(project.root / path) for path in named)
    try:
        context.load_verify_locations(certificate)
        if files.client_certificate:
            context.load_cert_chain(own, key_file or None, password="")
    except OSError as error:
        raise InputError(
            "the certificates that canary.traffic needs can not be read",
            where=", ".join(path for path in named if path),
            why=error.strerror or str(error),
        ) from error
    return context
