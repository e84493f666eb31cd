"""What an artifact repository must be able to do, and which program speaks to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from mlcicd.core.errors import ConfigError

Sink = Callable[[bytes], object]


class Stop(Exception):
    """A sink has seen enough; the rest need not be read."""


class Store(Protocol):
    """A place for files, below one address. It keeps bytes, and is not trusted with anything else."""

    shown: str

    def get(self, path: str, begin: Callable[[], Sink]) -> bool:
        """Reads a file into a sink, a new one for each attempt; False when there is no such file.

        Raises:
            ServiceError: the store does not answer, or does not permit it.
        """

    def put(self, path: str, source: Path, *, new: bool) -> None:
        """Sends a file.

        Args:
            new: nothing is there yet: a store that can refuses when that has changed since.

        Raises:
            ServiceError: it was not taken, or nobody knows whether it was.
        """


def open_store(url: str, *, credentials: str = "", options: Mapping[str, Any] | None = None) -> Store:
    """The store at an address.

    Args:
        url: `https://...` is spoken to with PUT and GET (Nexus raw, Artifactory generic, WebDAV); any other scheme is
            one of fsspec's.
        credentials: for HTTP `user:password` or a token; for others a JSON object of the file system's options.
        options: what else the file system is told; not for HTTP.

    Raises:
        ConfigError: the address, credentials or options can not be used.
    """
    if urlsplit(url).scheme in ("http", "https"):
        from mlcicd.artifacts.http_store import HttpStore

        if options:
            raise ConfigError("register.artifacts.options are for other addresses than http(s) ones")
        return HttpStore(url, credentials)
    from mlcicd.artifacts.fsspec_store import FsspecStore

    return FsspecStore(url, {**(options or {}), **_secret_options(credentials)})


def _secret_options(credentials: str) -> dict[str, Any]:
    if not credentials:
        return {}
    try:
        document = json.loads(credentials)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ConfigError(
            "the credentials of the artifact repository are not a JSON object",
            why="For this kind of address they are options of fsspec's file system.",
            remedy='give the variable that register.artifacts.credentials_env names as {"key": "...", "secret": "..."}',
        )
    return document
