"""Where a data set comes from: a path of the project, a remote file, or a table of a database."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from mlcicd.config.base import Duration, Section

SNAPSHOTS = ".mlcicd/data"
"""Where data sets that are not files of the project are kept as such, relative to the project."""

_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class DataSet(Section):
    """One data set: a path, a remote file (`s3://`, `https://` and what else fsspec knows), or a database's table.

    In the file a path or the address of a remote file is written as it is, without a mapping.
    """

    path: str = Field(
        "", description="A file or folder of the project, or a remote file's address; the text alone means this."
    )
    table: str = Field("", description="A table or view of the database.")
    namespace: str = Field("", description="The table's schema within the database; the database's default when empty.")
    url: str = Field(
        "", description="The database's SQLAlchemy URL, where it holds no password (`sqlite:///data/flights.db`)."
    )
    url_env: str = Field("", description="Environment variable that holds the database's SQLAlchemy URL.")
    order_by: list[str] = Field(
        default_factory=list,
        description="Columns to order the table's rows by; without, an unchanged table may have another digest.",
    )

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"path": value}
        if not isinstance(value, dict | DataSet):
            raise ValueError("expected a path, or a mapping with `table`")
        return value

    @model_validator(mode="after")
    def _one_place(self) -> DataSet:
        if self.table:
            if self.path:
                raise ValueError("a data set is a path or a table, not both")
            if bool(self.url) == bool(self.url_env):
                raise ValueError("a table needs one of url and url_env: the database it is in")
            if _holds_a_password(self.url):
                raise ValueError("a password does not belong into this file: keep the URL in a variable (url_env)")
        elif self.url or self.url_env or self.namespace or self.order_by:
            raise ValueError("url, url_env, namespace and order_by belong to a table")
        elif "path" in self.model_fields_set and _holds_a_password(self.path):
            raise ValueError("a password does not belong into an address: give it to fsspec by environment variables")
        return self

    @property
    def is_remote(self) -> bool:
        """Whether it is a remote file, or a folder or glob of such."""
        return bool(_REMOTE.match(self.path))

    @property
    def is_brought(self) -> bool:
        """Whether a snapshot of it has to be made before it can be read."""
        return bool(self.table) or self.is_remote

    @property
    def shown(self) -> str:
        """What it is, for messages: never a user, a password or a signature."""
        if self.table:
            name = f"{self.namespace}.{self.table}" if self.namespace else self.table
            return f"table {name}"
        return without_secrets(self.path) if self.is_remote else self.path

    def local(self, kind: str) -> str:
        """Where it is read from: its path, or its snapshot's, relative to the project."""
        if not self.is_brought:
            return self.path
        if self.table:
            return f"{SNAPSHOTS}/{kind}.parquet"
        name = PurePosixPath(urlsplit(self.path).path).name
        if self.path.endswith("/") or set("*?[") & set(self.path.partition("?")[0]):
            return f"{SNAPSHOTS}/{kind}"  # a folder
        suffixes = PurePosixPath(name).suffixes
        return f"{SNAPSHOTS}/{kind}{''.join(suffixes[-2:] if suffixes[-1:] == ['.gz'] else suffixes[-1:]).lower()}"

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        mapping = handler.resolve_ref_schema(handler(core))
        return {"anyOf": [dict(mapping), {"type": "string"}], "description": mapping.get("description", "")}


class Spark(Section):
    """The Spark session that `engine: spark` makes, where none is active."""

    master: str = Field("", description="`local[4]`, `spark://host:7077`, `yarn`; what Spark's own configuration says.")
    options: dict[str, str] = Field(default_factory=dict, description="Spark's settings, by their names.")


class Database(Section):
    """How the databases of `engine: database` are asked."""

    timeout: Duration = Field("1h", description="The longest that one statement may take.")


def without_secrets(address: str) -> str:
    """An address without user, password and query."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _holds_a_password(address: str) -> bool:
    try:
        return bool(_REMOTE.match(address)) and urlsplit(address).password is not None
    except ValueError:
        return False
