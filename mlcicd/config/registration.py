"""What is written to the model registry."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from mlcicd.config.base import Alias, Duration, Section, seconds


class Register(Section):
    """What is written to the model registry."""

    alias: Alias = Field("challenger", description="Alias of the newest accepted version.")
    champion_alias: Alias = Field("champion", description="Alias of the version in production.")
    previous_alias: Alias = Field("previous", description="Alias of the version to go back to.")
    lock_lease: Duration = Field(
        "8s",
        description="How long the lock of a model outlives its holder's last sign of life; a slow server wants more.",
    )
    inconclusive: Literal["refuse", "accept"] = Field("refuse", description="What an undecided gate means.")
    ungated: Literal["refuse", "accept"] = Field("refuse", description="What an evaluation without gates means.")
    git_tags: bool = Field(
        False, description="Also make git tags in GTO's form: `name@v3` at register, `name#champion#7` at a promotion."
    )

    @field_validator("lock_lease")
    @classmethod
    def _long_enough(cls, value: str) -> str:
        if not 0.1 <= seconds(value) <= 3600:
            raise ValueError("a lease is between 100ms and 1h")
        return value
