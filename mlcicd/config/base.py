"""What every section of the configuration is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

Alias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
Duration = Annotated[str, StringConstraints(pattern=r"^\d+(\.\d+)?\s*(ms|s|m|h|d)$")]

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(duration: str) -> float:
    """Seconds in a duration such as `500ms`, `10s`, `5m`, `6h` or `7d`."""
    number = duration.rstrip("msdh ")
    return float(number) * _SECONDS[duration[len(number) :].strip()]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)
