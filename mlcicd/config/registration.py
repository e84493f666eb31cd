"""What is written to the model registry."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mlcicd.config.base import Alias, Section


class Register(Section):
    """What is written to the model registry."""

    alias: Alias = Field("challenger", description="Alias of the newest accepted version.")
    champion_alias: Alias = Field("champion", description="Alias of the version in production.")
    previous_alias: Alias = Field("previous", description="Alias of the version to go back to.")
    inconclusive: Literal["refuse", "accept"] = Field("refuse", description="What an undecided gate means.")
    ungated: Literal["refuse", "accept"] = Field("refuse", description="What an evaluation without gates means.")
