"""What is written to the model registry."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from mlcicd.config.base import Alias, Duration, Section, seconds


class Artifacts(Section):
    """An artifact repository, which `register` also puts the model's files and its evidence into."""

    url: str = Field(
        "",
        description="Where: `https://...` (Nexus raw, Artifactory generic, WebDAV), or an address of fsspec's, such as "
        "`s3://bucket/models`; a path is one in the project. Nothing is put anywhere when empty.",
    )
    credentials_env: str = Field(
        "",
        pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$",
        description="Variable that holds the credentials: for http(s) `user:password` or a token; else a JSON object "
        "of the file system's options. One that begins with `MLCICD_PRIVATE` is kept from the training code.",
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Options of fsspec's file system that are no secrets, such as `endpoint_url`.",
    )
    deploy_from: bool = Field(
        False, description="`deploy`, `canary` and `rollback` fetch the model from here, and not from the registry."
    )

    @field_validator("url")
    @classmethod
    def _without_secrets(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
        except ValueError:
            raise ValueError("this is not an address") from None
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise ValueError("an address has no user, password, query or fragment in it: use credentials_env")
        return value


class Register(Section):
    """What is written to the model registry."""

    alias: Alias = Field("challenger", description="Alias of the newest accepted version.")
    champion_alias: Alias = Field("champion", description="Alias of the version in production.")
    previous_alias: Alias = Field("previous", description="Alias of the version to go back to.")
    lock_lease: Duration = Field(
        "6s",
        description="How long the lock of a model outlives its holder's last sign of life; a slow server wants more.",
    )
    inconclusive: Literal["refuse", "accept"] = Field("refuse", description="What an undecided gate means.")
    ungated: Literal["refuse", "accept"] = Field("refuse", description="What an evaluation without gates means.")
    version: str = Field(
        "",
        pattern=r"^(v(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8}))?$",
        description="Semantic version of the next new version, such as `v2.0.0`. When empty, the next minor one, or "
        "the next major one when the model's signature has changed.",
    )
    git_tags: bool = Field(
        False,
        description="Also make git tags in GTO's form: `name@v1.2.0` at register, `name#production#3` at a deployment.",
    )

    artifacts: Artifacts = Field(
        default_factory=Artifacts,
        description="An artifact repository, which `register` also puts the model's files and its evidence into.",
    )

    @field_validator("lock_lease")
    @classmethod
    def _long_enough(cls, value: str) -> str:
        if not 0.1 <= seconds(value) <= 3600:
            raise ValueError("a lease is between 100ms and 1h")
        return value
