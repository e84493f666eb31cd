"""Tables in files, read by an embedded engine that can read nothing else.

A source is bound before anything of the user's is evaluated on it. From then on its connection may open the
source's own files and no others, can not change its settings, and holds at most `memory_limit` in memory
(larger work spills to a temporary directory).
"""

# ruff: noqa: S608  (identifiers go through `quote`, text through `literal`; values never become SQL)
from __future__ import annotations

import csv
import gzip
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlcicd.core.errors import ConfigError, DefectError, InputError
from mlcicd.data.files import Format, digest_files, format_of, matching_files, refuse_duplicates

if TYPE_CHECKING:
    import duckdb

# The column of a row's number where a table is given one.
ROW = "__mlcicd_row"
_DELIMITERS = (",", "\t", ";", "|")
_HEADER_LIMIT = 1 << 24


class RefusedHere(ConfigError):
    """What an engine elsewhere could not compute of the rows it has; which rule it was, the caller knows."""


def quote(name: str) -> str:
    """An SQL identifier, whatever characters the name holds."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """An SQL string literal."""
    return "'" + value.replace("'", "''") + "'"


@dataclass(frozen=True)
class Source:
    """A table in one file, or in several Parquet files of one schema.

    Attributes:
        path: what was asked for: a file, a directory of Parquet files, or a glob.
        format: how the files are encoded.
        files: the files themselves, sorted.
        columns: column name to engine type (`BIGINT`, `DOUBLE`, `VARCHAR`, `TIMESTAMP`, ...), in file order.
        memory_limit: the most memory the engine holds, in DuckDB's notation.
        threads: worker threads; None is one a core.
    """

    path: Path
    format: Format
    files: tuple[Path, ...]
    columns: Mapping[str, str]
    memory_limit: str
    threads: int | None
    delimiter: str = ","
    text_columns: frozenset[str] = field(default_factory=frozenset)

    @property
    def untyped(self) -> bool:
        """Whether the file holds text whose types were guessed (CSV and JSON lines)."""
        return self.format in ("csv", "jsonl")

    @property
    def distributed(self) -> bool:
        """Whether the rows are elsewhere, in no order: only aggregates come here, and samples (`row_numbers`)."""
        return False

    def refuses(self, condition: str) -> str:
        """Why a condition (our SQL) can not be counted on this source's engine; empty when it can."""
        return ""

    def joins_refused(self) -> str:
        """Why rows can not be held against those of a file; empty when they can."""
        return ""

    @property
    def numbered(self) -> str:
        """SQL of the table with the number of each row, from 1, in the order of the files, as `__mlcicd_row`."""
        return f"(SELECT *, row_number() OVER () AS {ROW} FROM data)"

    @property
    def registered(self) -> Any:
        """An object that the engine reads in the place of files; None where it reads these."""
        return _arrow_table(self) if self.format == "arrow" else None

    @cached_property
    def digest(self) -> str:
        """`sha256:` digest of the content: the file's bytes, or the relative paths and bytes of all files."""
        return digest_files(self.files)

    @cached_property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """A connection on which the table is the view `data`, and which can reach nothing else."""
        return connect({"data": self})

    @property
    def relation(self) -> duckdb.DuckDBPyRelation:
        """The table as a DuckDB relation."""
        return self.connection.table("data")

    @cached_property
    def rows(self) -> int:
        """How many rows there are. Raises InputError when the file can not be read to its end."""
        return int(self.fetch("SELECT count(*) FROM data")[0][0])

    def fetch(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Runs one statement on the table `data`.

        Raises:
            InputError: the file's content can not be read.
        """
        with reading(str(self.path)):
            rows: list[tuple[Any, ...]] = self.connection.execute(sql, list(parameters)).fetchall()
            return rows

    def as_text(self, columns: frozenset[str]) -> Source:
        """The same table with some columns read as the text in the file, not as a guessed type."""
        columns = columns.intersection(self.columns)
        if self.format != "csv" or columns == self.text_columns:
            return self
        types = {name: "VARCHAR" if name in columns else kind for name, kind in self.columns.items()}
        return replace(self, columns=types, text_columns=columns)

    def scan(self) -> str:
        """The SQL that reads the files."""
        files = "[" + ", ".join(literal(str(file)) for file in self.files) + "]"
        if self.format == "parquet":
            return f"read_parquet({files})"
        if self.format == "jsonl":
            columns = ", ".join(f"{literal(n)}: {literal(t)}" for n, t in self.columns.items())
            guess = f"columns = {{{columns}}}" if columns else "sample_size = -1"
            return f"read_json({files}, format = 'newline_delimited', records = true, {guess})"
        return (
            f"read_csv({files}, header = true, delim = {literal(self.delimiter)}, "
            f"quote = '\"', escape = '\"', skip = 0, comment = '', strict_mode = true, {self._csv_columns()})"
        )

    def _csv_columns(self) -> str:
        if not self.columns:
            return "sample_size = -1"
        columns = ", ".join(f"{literal(n)}: {literal(t)}" for n, t in self.columns.items())
        return f"auto_detect = false, columns = {{{columns}}}"


def open_source(path: Path, *, memory_limit: str = "1GB", threads: int | None = None) -> Source:
    """Binds a table.

    Types of CSV and JSON lines are guessed from every row, not from a sample: a value that is no number in
    row ten million makes the column text, which a schema then reports with that value.

    Args:
        path: `.parquet`, `.csv`, `.tsv`, `.jsonl` (each also `.gz` but for Parquet), `.arrow` (with pyarrow
            installed), a directory of Parquet files, or a glob of Parquet files.

    Raises:
        InputError: missing, empty, truncated, wrongly encoded, no header, duplicate columns, unknown suffix.
    """
    files = matching_files(path)
    file_format = format_of(files[0])
    if any(format_of(file) != file_format for file in files):
        raise InputError("files of different formats", where=str(path), remedy="name files of one format")
    for file in files:
        if file.stat().st_size == 0:
            raise InputError(
                "the file is empty (0 bytes)",
                where=str(file),
                remedy="write the data again, or name another file",
            )
    source = Source(path, file_format, files, {}, memory_limit, threads)
    if file_format == "parquet":
        refuse_duplicates(_parquet_names(source), files[0])
    elif file_format == "csv":
        header, delimiter = _csv_header(files[0])
        refuse_duplicates(header, files[0])
        source = replace(source, delimiter=delimiter)
    with closing(connect({"data": source})) as connection, reading(str(path)):
        described = connection.execute("DESCRIBE data").fetchall()
    columns = {str(row[0]): str(row[1]) for row in described}
    if not columns:
        raise InputError("there are no columns", where=str(path))
    return replace(source, columns=columns)


def connect(sources: Mapping[str, Source]) -> duckdb.DuckDBPyConnection:
    """A connection with one view a source, locked so that nothing else can be read and nothing written."""
    import duckdb

    first = next(iter(sources.values()))
    config: dict[str, Any] = {
        "memory_limit": first.memory_limit,
        # DuckDB makes it when it spills, and takes it away with the connection.
        "temp_directory": str(Path(tempfile.gettempdir()) / f"mlcicd-{uuid.uuid4().hex}"),
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    if first.threads is not None:
        config["threads"] = first.threads
    connection = duckdb.connect(config=config)
    # A pandas column of objects is what all of its values are, not what each so-manieth is.
    connection.execute("SET GLOBAL pandas_analyze_sample = 2147483647")
    connection.execute("SET TimeZone = 'UTC'")
    # Parquet's minimum and maximum leave NaN out. Believing them, the optimizer answers "no" for every NaN that is
    # asked for, and none is ever seen.
    connection.execute("SET disabled_optimizers = 'statistics_propagation'")
    allowed = [str(file) for source in sources.values() for file in source.files]
    connection.execute(f"SET allowed_paths = [{', '.join(literal(path) for path in allowed)}]")
    for name, source in sources.items():
        if (registered := source.registered) is not None:
            connection.register(name, registered)
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    for name, source in sources.items():
        if source.format != "arrow":
            with reading(str(source.path)):
                connection.execute(f"CREATE TEMP VIEW {quote(name)} AS SELECT * FROM {source.scan()}")
    return connection


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Turns the engine's complaints about the bytes into errors a user can act on."""
    import duckdb

    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise InputError(
            "the data does not fit into the memory limit",
            where=where,
            why=_first_lines(error),
            remedy="raise the memory limit, or free space for spilling",
        ) from error
    except (duckdb.InternalException, duckdb.CatalogException, duckdb.ParserException) as error:
        raise DefectError("a query of ours was wrong", where=where, why=_first_lines(error)) from error
    except duckdb.Error as error:
        text = _first_lines(error)
        raise InputError(_complaint(text), where=where, why=text, remedy=_remedy(text)) from error


def _first_lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(lines[:3])[:400]


def _complaint(text: str) -> str:
    lower = text.lower()
    if "unicode" in lower or "utf-8" in lower:
        return "the file is not UTF-8"
    if "magic bytes" in lower or "too small" in lower or "parquet" in lower:
        return "this is not a whole Parquet file"
    return "the file can not be read"


def _remedy(text: str) -> str:
    if "utf" in text.lower():
        return "write it as UTF-8 (iconv -f LATIN1 -t UTF-8), or as Parquet"
    return "write the file again; a broken download or an interrupted job leaves one like this"


def _parquet_names(source: Source) -> list[str]:
    """Top-level column names as they stand in the first file's footer."""
    file = literal(str(source.files[0]))
    with closing(connect({"data": source})) as connection, reading(str(source.files[0])):
        rows = connection.execute(f"SELECT name, num_children FROM parquet_schema({file})").fetchall()
    names: list[str] = []
    open_children = 0
    for name, children in rows[1:]:
        if open_children == 0:
            names.append(str(name))
        else:
            open_children -= 1
        open_children += int(children or 0)
    return names


def _csv_header(file: Path) -> tuple[list[str], str]:
    """The header's names and the delimiter that divides it into the most of them."""
    opener = gzip.open if file.name.lower().endswith(".gz") else open
    try:
        with opener(file, "rb") as stream:
            line = stream.readline(_HEADER_LIMIT)
            # A quoted name may hold a line break.
            while line.count(b'"') % 2 and len(line) < _HEADER_LIMIT and (more := stream.readline(_HEADER_LIMIT)):
                line += more
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("the file is not UTF-8", where=str(file), why=str(error), remedy=_remedy("utf")) from error
    except (OSError, EOFError) as error:
        raise InputError("the file can not be read", where=str(file), why=str(error)) from error
    if "\x00" in text:
        raise InputError(
            "the header holds NUL characters",
            where=f"{file}:1",
            why="The file is binary, or UTF-16 without a byte order mark.",
            remedy=_remedy("utf"),
        )
    if not text.strip():
        raise InputError(
            "the first line, where column names belong, is empty",
            where=f"{file}:1",
            remedy="write the names of the columns into the first line",
        )
    options = []
    for delimiter in _DELIMITERS:
        try:
            options.append((next(csv.reader([text], delimiter=delimiter, strict=True)), delimiter))
        except csv.Error:
            continue
    if not options:
        raise InputError("the header is not CSV", where=f"{file}:1", remedy="close the quotes in the first line")
    return max(options, key=lambda option: len(option[0]))


def _arrow_table(source: Source) -> Any:
    try:
        ipc = import_module("pyarrow.ipc")
    except ImportError:
        raise InputError(
            "Arrow files need pyarrow, which is not installed",
            where=str(source.path),
            remedy="pip install pyarrow, or write the data as Parquet",
        ) from None
    try:
        with source.files[0].open("rb") as file:
            table = ipc.open_file(file).read_all()
    except (OSError, ValueError) as error:
        raise InputError("this is not an Arrow file", where=str(source.path), why=str(error)) from error
    refuse_duplicates(table.schema.names, source.files[0])
    return table
