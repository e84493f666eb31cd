"""What every section of the configuration is made of."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, StringConstraints

Alias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
Duration = Annotated[str, StringConstraints(pattern=r"^\d+(\.\d+)?\s*(ms|s|m|h|d)$")]

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(duration: str) -> float:
    """Seconds in a duration such as `500ms`, `10s`, `5m`, `6h` or `7d`."""
    number = duration.rstrip("msdh ")
    return float(number) * _SECONDS[duration[len(number) :].strip()]


def service_address(value: str) -> str:
    """An address that tokens may be sent to.

    Raises:
        ValueError: it is not `https://HOST`, nor `http://` on this machine; or it has a user, query or fragment in it.
    """
    try:
        parts = urlsplit(value)
        host = parts.hostname or ""
    except ValueError:
        raise ValueError("this is not an address") from None
    if not host or parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError("an address is https://HOST, with no user, password, query or fragment in it")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_this_machine(host)):
        raise ValueError("an address that tokens are sent to begins with https:// (http:// on this machine only)")
    return value


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)
