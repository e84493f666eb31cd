"""A connection to an MLflow tracking server, and its errors turned into ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from mlcicd.core.errors import InputError, MlcicdError, ServiceError, redact

# Tags of ours on runs, versions and registered models start so; nothing else does.
TAG = "mlcicd."
# For an answer of status 200 that is not the server's own, as of a proxy or a portal.
AGAIN = "run the same command again; if it stays so, look at what stands between here and the server"
_MAX_TAG = 4900
_NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


class Connection:
    """One tracking server.

    Args:
        uri: MLflow tracking URI: a database, or the server's URL.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri

    @cached_property
    def _client(self) -> Any:
        import mlflow

        self._reachable()
        return mlflow.MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def _reachable(self) -> None:
        """Asks once, so that an absent server is one clear line now and not minutes of retries."""
        if not self.uri.startswith(("http://", "https://")):
            return
        import requests

        try:
            requests.get(self.uri.rstrip("/") + "/health", timeout=10, allow_redirects=False)
        except requests.RequestException as error:
            raise ServiceError(
                "the tracking server can not be reached",
                where=redact(self.uri),
                why=str(error.__class__.__name__),
                remedy="check tracking.uri (or MLFLOW_TRACKING_URI) and that the server runs",
            ) from error

    @contextmanager
    def _talking(self, purpose: str) -> Iterator[None]:
        """Turns what MLflow, its database driver and its HTTP client raise into one kind of error."""
        try:
            yield
        except (MlcicdError, KeyboardInterrupt):
            raise
        except Exception as error:
            if not _of_the_server(error):
                raise
            raise ServiceError(
                f"the registry could not {purpose}",
                where=redact(self.uri),
                why=redact(_first_line(error)),
                remedy="check tracking.uri, that the server or the database's folder is there, and your permission; "
                "then run the same command again",
            ) from error


def not_there(error: BaseException) -> bool:
    """Whether MLflow says that what was asked for does not exist. The SQL store calls an alias that it does not know
    an invalid parameter."""
    return getattr(error, "error_code", "") in _NOT_THERE


def tag_value(value: str) -> str:
    """A value within MLflow's limit for tags, without the NUL that PostgreSQL refuses and the half characters that no
    database takes."""
    value = value.replace("\0", "�").encode("utf-8", "replace").decode("utf-8")
    return value if len(value) <= _MAX_TAG else value[: _MAX_TAG - 1] + "…"


def quoted(value: str) -> str:
    """A value inside single quotes of MLflow's search language, which has no escape for them."""
    if "'" in value:
        raise InputError(f"a search value can not contain a quote: {value!r}")
    return value


def _of_the_server(error: Exception) -> bool:
    import requests
    from google.protobuf.json_format import ParseError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    # ValueError is JSON that is none: a page of a proxy, sent with status 200. MLflow's own checks of what we send
    # raise MlflowException, so that no defect of ours hides here.
    return isinstance(
        error, MlflowException | SQLAlchemyError | requests.RequestException | OSError | ParseError | ValueError
    )


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or error.__class__.__name__
    return text.splitlines()[0][:500]
