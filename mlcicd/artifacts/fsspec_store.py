"""A store behind fsspec: S3, Google Cloud Storage, Azure, SFTP, a folder, whatever has a file system there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from mlcicd.artifacts.stores import Sink, Stop
from mlcicd.core.errors import ConfigError, ServiceError, redact

_CHUNK = 1 << 20
_ATTEMPTS = 3
_PAUSE_S = 1.0


class FsspecStore:
    """A folder of a file system of fsspec's.

    Args:
        url: the folder, such as `s3://bucket/models`.
        options: of the file system; they may hold secrets, and are never shown.
        sleep: how to wait between two attempts, in seconds.

    Raises:
        ConfigError: there is no such file system, or it does not take the options.
    """

    def __init__(self, url: str, options: Mapping[str, Any], *, sleep: Callable[[float], object] = time.sleep) -> None:
        self.shown = redact(url.rstrip("/"))
        self._sleep = sleep
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise ConfigError(
                "this artifact repository needs the package fsspec", remedy="install `mlcicd[artifacts]`"
            ) from None
        try:
            # Listings that are kept would hide what another upload has just put there.
            self._fs, self._root = url_to_fs(url, **{"use_listings_cache": False, **options})
        except (ImportError, ValueError, TypeError) as error:
            raise ConfigError(
                "the artifact repository can not be opened",
                where=self.shown,
                why=_said(error),
                remedy="install fsspec's package for it (s3fs for s3://), or correct register.artifacts.options",
            ) from None
        self._local = "file" in self._protocols()

    def get(self, path: str, begin: Callable[[], Sink]) -> bool:
        def read() -> bool:
            sink = begin()
            try:
                with self._fs.open(self._at(path), "rb", cache_type="none") as file:
                    while chunk := file.read(_CHUNK):
                        sink(chunk)
            except FileNotFoundError:
                return False
            except Stop:
                pass
            return True

        return bool(self._tried("read from", path, read))

    def put(self, path: str, source: Path, *, new: bool) -> None:
        del new  # Few file systems can refuse; the address is made from the content, and it is read back.

        def send() -> None:
            target = self._at(path)
            folder = target.rpartition("/")[0]
            # Object stores have no folders, and may not permit to make a bucket.
            if self._local or not self._protocols() & {"s3", "s3a", "gs", "gcs", "abfs", "az"}:
                self._fs.makedirs(folder, exist_ok=True)
            if self._local:
                # Written beside it first: a folder does not take a file as a whole, as object stores do.
                beside = f"{folder}/.{uuid4().hex}.part"
                try:
                    self._fs.put_file(str(source), beside)
                    self._fs.mv(beside, target)
                finally:
                    if self._fs.exists(beside):
                        self._fs.rm_file(beside)
            else:
                self._fs.put_file(str(source), target)

        self._tried("write to", path, send)

    def _protocols(self) -> set[str]:
        names = self._fs.protocol
        return {names} if isinstance(names, str) else set(names)

    def _at(self, path: str) -> str:
        return f"{self._root.rstrip('/')}/{path}"

    def _tried(self, what: str, path: str, act: Callable[[], Any]) -> Any:
        for attempt in range(_ATTEMPTS):
            try:
                with self._answering(what, path):
                    return act()
            except ServiceError:
                if attempt + 1 == _ATTEMPTS:
                    raise
                self._sleep(_PAUSE_S * 2**attempt)
        return None

    @contextmanager
    def _answering(self, what: str, path: str) -> Iterator[None]:
        """Turns whatever the libraries below raise into one kind of error, without what they carry: it may be a URL
        with a signature, or the options."""
        try:
            yield
        except Exception as error:
            raise ServiceError(
                f"could not {what} the artifact repository",
                where=f"{self.shown}/{path}",
                why=_said(error),
                remedy="check register.artifacts and what its credentials permit; then run the same command again",
            ) from None


def _said(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return redact(f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__)
