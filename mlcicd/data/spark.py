"""Tables on Spark, checked by the same rules: compiled on an empty table of the same types, counted on Spark."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mlcicd.core.errors import ConfigError, DefectError, InputError, ServiceError
from mlcicd.data.elsewhere import Elsewhere
from mlcicd.data.files import digest_files, format_of, matching_files, refuse_duplicates
from mlcicd.data.spark_sql import to_spark
from mlcicd.data.translation import NotTranslated

_TYPES = {
    "tinyint": "TINYINT",
    "smallint": "SMALLINT",
    "int": "INTEGER",
    "bigint": "BIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "boolean": "BOOLEAN",
    "string": "VARCHAR",
    "date": "DATE",
    "timestamp": "TIMESTAMP WITH TIME ZONE",
    "timestamp_ntz": "TIMESTAMP",
    "binary": "BLOB",
}
# The session of ours shares the cluster with the user's, and none of these settings.
_SETTINGS = {
    # Errors of a row are no errors of the job: our SQL says itself what must be NULL.
    "spark.sql.ansi.enabled": "false",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.caseSensitive": "false",
    # A column may be called ${x}.
    "spark.sql.variable.substitute": "false",
}


@dataclass(frozen=True)
class SparkSource(Elsewhere):
    """A Spark DataFrame as a source."""

    frame: Any = field(default=None, compare=False, repr=False)

    @cached_property
    def digest(self) -> str:
        """The digest of its files. Raises InputError for a table that is not in files of ours."""
        if not self.files:
            raise InputError("a table on Spark has no digest of its content", where=str(self.path))
        return digest_files(self.files)

    def translated(self, sql: str) -> tuple[str, dict[str, str]]:
        return to_spark(sql, self.type_of)

    def fetch(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Runs one statement of ours on the table `data`; parameters are texts.

        Raises:
            ConfigError: something in it has no counterpart on Spark.
            InputError: the data can not be read.
            ServiceError: Spark failed.
        """
        try:
            text, values = to_spark(sql, self.type_of, [str(one) for one in parameters])
        except NotTranslated as error:
            raise ConfigError(f"this can not run on Spark: {error}", where=str(self.path), remedy=ELSEWHERE) from error
        with running(str(self.path)):
            return [tuple(row) for row in self.frame.sparkSession.sql(text, args=values).collect()]


def open_spark(
    path: Path, *, session: Any = None, master: str = "", options: Mapping[str, str] | None = None
) -> SparkSource:
    """Binds Parquet files to Spark.

    Args:
        path: a file, a directory or a glob, that every worker sees under this path.
        session: an existing session; else the active one, else one is made.
        master, options: Spark's, for a session that is made; what Spark's own configuration says when empty.

    Raises:
        InputError: nothing is there, it is not Parquet, or pyspark is not installed.
        ServiceError: Spark does not start.
    """
    files = matching_files(path)
    if any(format_of(file) != "parquet" for file in files):
        raise InputError(
            "on Spark, data sets are Parquet",
            where=str(path),
            why="The types of text files are guessed, by each engine in its own way.",
            remedy="write the data as Parquet, or use `engine: duckdb`",
        )
    own = _session_of_ours(session or _session(master, options or {}))
    with running(str(path)):
        reader = own.read.option("pathGlobFilter", "*.parquet")
        frame = reader.parquet(str(path.resolve())) if path.is_dir() else own.read.parquet(*map(str, files))
    return _bound(frame, path, files)


def open_spark_frame(frame: Any, *, name: str = "frame") -> SparkSource:
    """Binds a DataFrame of an existing session: a table, a view, or whatever else it was made from.

    Raises:
        InputError: no columns, or two columns of one name.
        ServiceError: Spark failed.
    """
    with running(name):
        refuse_duplicates(frame.columns, name)
        # In a session of ours: it has settings that the user's must not get.
        moved = moved_to(_session_of_ours(frame.sparkSession), frame)
    return _bound(moved, Path(name), ())


def moved_to(session: Any, frame: Any) -> Any:
    """The same DataFrame in another session of the same Spark, by a global view, which does not stay."""
    view = f"mlcicd_{uuid.uuid4().hex}"
    frame.createGlobalTempView(view)
    try:
        return session.table(f"global_temp.{view}")
    finally:
        frame.sparkSession.catalog.dropGlobalTempView(view)


def _bound(frame: Any, path: Path, files: tuple[Path, ...]) -> SparkSource:
    refuse_duplicates(frame.columns, path)
    if not frame.columns:
        raise InputError("there are no columns", where=str(path))
    columns = {name: _engine_type(kind) for name, kind in frame.dtypes}
    frame.createOrReplaceTempView("data")
    return SparkSource(path, "parquet", files, columns, "1GB", None, frame=frame)


def _engine_type(kind: str) -> str:
    """DuckDB's type for Spark's."""
    if kind.startswith("decimal"):
        return kind.upper()
    if kind.startswith("array<"):
        return f"{_engine_type(kind[len('array<') : -1])}[]"
    if kind.startswith(("struct<", "map<")):
        return "STRUCT(opaque VARCHAR)"
    return _TYPES.get(kind, "VARCHAR")


def _session_of_ours(session: Any) -> Any:
    own = session.newSession()
    for name, value in _SETTINGS.items():
        own.conf.set(name, value)
    return own


def _session(master: str, options: Mapping[str, str]) -> Any:
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise InputError(
            "pyspark is not installed", remedy="pip install 'mlcicd[spark]', of the version of your cluster"
        ) from None
    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    builder = SparkSession.builder.appName("mlcicd").config("spark.ui.showConsoleProgress", "false")
    if master:
        builder = builder.master(master)
    for name, value in options.items():
        builder = builder.config(name, value)
    with running("Spark"):
        return builder.getOrCreate()


@contextmanager
def running(where: str) -> Iterator[None]:
    """Turns what Spark raises into errors a user can act on."""
    from py4j.protocol import Py4JError
    from pyspark.errors import AnalysisException, PySparkException, PySparkRuntimeError

    try:
        yield
    except AnalysisException as error:
        raise DefectError("a query of ours was wrong on Spark", where=where, why=_first_line(error)) from error
    except PySparkRuntimeError as error:
        raise ServiceError(
            "Spark does not run",
            where=where,
            why=_first_line(error),
            remedy="install Java 17 or newer (JAVA_HOME), and check data.spark.master",
        ) from error
    except PySparkException as error:
        raise InputError("Spark can not read the data", where=where, why=_first_line(error)) from error
    except (Py4JError, OSError) as error:
        if "FAILED_READ_FILE" in str(error):
            raise InputError("Spark can not read the data", where=where, why=_first_line(error)) from error
        raise ServiceError("Spark failed", where=where, why=_first_line(error)) from error


def spark_name(name: str) -> str:
    """An identifier of Spark's SQL, whatever characters the name holds."""
    return "`" + name.replace("`", "``") + "`"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "error occurred while" not in line]
    return (lines or [type(error).__name__])[0][:300]


ELSEWHERE = "write it with what docs/data.md lists for Spark, or check this table with `engine: duckdb`"
