"""Tables that are larger than memory, read and written in pieces, in the user's own interpreter.

Beside `batch_runner.py`, which is run by its path; imports nothing of mlcicd. The pieces have the types that pandas
would give the whole table: whether a column is whole numbers, or has empty cells, is not decided piece by piece.
"""

# mypy: ignore-errors
# Runs in the user's interpreter, whatever its version: plain Python without annotations.

import gzip
import importlib
import io
import sys
from pathlib import Path


class Unreadable(Exception):
    """The table can not be read or written; the message says why and what to do."""


def pyarrow(module):
    try:
        return importlib.import_module(f"pyarrow.{module}")
    except ImportError:
        raise Unreadable(
            f"{sys.executable} can not import pyarrow, which Parquet needs: install it there, or use CSV"
        ) from None


def open_table(plan):
    kind = ParquetTable if plan["format"] == "parquet" else CsvTable
    return kind(plan["files"], plan["delimiter"], plan["batch_rows"])


class CsvTable:
    """One CSV file; `batches` reads it by pandas, with the types of all its rows."""

    def __init__(self, files, delimiter, size):
        import pandas as pd

        self.files, self.delimiter, self.size = files, delimiter, size
        self.columns = [str(name) for name in pd.read_csv(files[0], sep=delimiter, nrows=0).columns]
        self._types = None

    def batches(self, wanted):
        """Tables of `size` rows with the wanted columns, or all when None."""
        if self._types is None:
            self._types = self._types_of_all(wanted)
        yield from self._read(wanted, dtype=self._types)

    def keys(self, wanted, typed):
        """The wanted columns, as the text that stands in the file; `typed`: whole numbers where nothing is lost."""
        whole = self._whole_numbers(wanted) if typed else set()
        for piece in self._read(wanted, dtype=str, keep_default_na=False):
            yield {name: piece[name].to_numpy(dtype="int64" if name in whole else object) for name in wanted}

    def _whole_numbers(self, wanted):
        """The columns whose every cell is a whole number as Python would write it: 7, and not 007."""
        found = set(wanted)
        for piece in self._read(wanted, dtype=str, keep_default_na=False):
            found = {name for name in found if piece[name].str.fullmatch(r"0|-?[1-9][0-9]{0,17}").all()}
        return found

    def _read(self, wanted, **options):
        import pandas as pd

        for file in self.files:
            with pd.read_csv(file, sep=self.delimiter, usecols=wanted, chunksize=self.size, **options) as pieces:
                yield from pieces

    def _types_of_all(self, wanted):
        seen = {}
        for piece in self._read(wanted):
            for name in piece.columns:
                seen.setdefault(name, set()).add(kind_of(piece[name]))
        return {name: whole_type(name, kinds) for name, kinds in seen.items()}


def kind_of(column):
    """What a piece of a column is: empty, bool, bool with gaps, int, float or text."""
    from pandas.api.types import infer_dtype

    if column.isna().all():
        return "empty"
    kind = getattr(column.dtype, "kind", "O")
    if kind in "biuf":
        return {"b": "bool", "f": "float"}.get(kind, "int")
    return "bool with gaps" if infer_dtype(column, skipna=True) == "boolean" else "text"


def whole_type(name, kinds):
    """The type of a column whose pieces are of these kinds, as pandas would have it for all rows at once."""
    if "text" in kinds:
        return "str"
    if kinds <= {"int"}:
        return "int64"
    if kinds <= {"bool"}:
        return "bool"
    if kinds <= {"int", "float", "empty"}:
        return "float64"
    if kinds <= {"bool", "bool with gaps", "empty"}:
        raise Unreadable(f"the column {name!r} is true or false with empty cells: fill them, or write Parquet")
    return "str"


class ParquetTable:
    """Parquet files of one schema, in their order."""

    def __init__(self, files, _delimiter, size):
        self._parquet = pyarrow("parquet")
        self.files, self.size = files, size
        self.columns = list(self._open(files[0]).schema_arrow.names)
        self._gaps = None

    def extent(self):
        """The number of pieces and of rows."""
        rows = [self._open(file).metadata.num_rows for file in self.files]
        return sum(self._pieces(count) for count in rows), sum(rows)

    def _pieces(self, rows):
        return -(-rows // self.size)

    def batches(self, wanted, first=0, last=None):
        """Tables of at most `size` rows with the wanted columns, or all when None: the pieces from `first` on, up to
        `last` exclusive, in all files."""
        if self._gaps is None:
            self._gaps = self._columns_with_gaps(wanted)
        for piece in self._read(wanted, first, last):
            table = piece.to_pandas()
            change = {}
            for name in table.columns:
                if name in self._gaps:
                    # A piece without gaps is of whole numbers, where the whole column is not.
                    kind = getattr(table[name].dtype, "kind", "O")
                    change.update({name: "float64"} if kind in "iu" else {name: object} if kind == "b" else {})
            yield table.astype(change) if change else table

    def keys(self, wanted, typed):
        """The wanted columns, with the types of the file."""
        for piece in self._read(wanted):
            yield {name: piece.column(name) for name in wanted}

    def _open(self, file):
        # Without buffers of whole row groups: these may be as large as the file.
        return self._parquet.ParquetFile(file, pre_buffer=False, buffer_size=1 << 18)

    def _read(self, wanted, first=0, last=None):
        """Tables of exactly `size` rows, but for the last of a file."""
        before = 0
        for file in self.files:
            with self._open(file) as opened:
                pieces = self._pieces(opened.metadata.num_rows)
                begin, end = max(first - before, 0), pieces if last is None else min(last - before, pieces)
                before += pieces
                if begin < end:
                    yield from self._read_file(opened, wanted, begin, end)

    def _read_file(self, opened, wanted, begin, end):
        """The pieces of one file from `begin` on, up to `end` exclusive; row groups before them are not read."""
        import pyarrow as pa

        skip, groups = begin * self.size, list(range(opened.metadata.num_row_groups))
        while groups and skip >= opened.metadata.row_group(groups[0]).num_rows:
            skip -= opened.metadata.row_group(groups.pop(0)).num_rows
        waiting, rows, left = [], 0, end - begin
        for batch in opened.iter_batches(batch_size=self.size, row_groups=groups, columns=wanted):
            kept = batch.slice(min(skip, batch.num_rows))
            skip -= batch.num_rows - kept.num_rows
            waiting.append(pa.Table.from_batches([kept]))
            rows += kept.num_rows
            while rows >= self.size:
                joined = pa.concat_tables(waiting)
                yield joined.slice(0, self.size)
                waiting, rows, left = [joined.slice(self.size)], rows - self.size, left - 1
                if not left:
                    return
        if rows:
            yield pa.concat_tables(waiting)

    def _columns_with_gaps(self, wanted):
        """Columns of whole numbers or of true and false that have an empty cell anywhere."""
        found = set()
        for file in self.files:
            with self._open(file) as opened:
                schema = opened.schema_arrow
                names = [
                    field.name
                    for field in schema
                    if (wanted is None or field.name in wanted)
                    and (str(field.type).startswith(("int", "uint")) or str(field.type) == "bool")
                ]
                for name in names:
                    if name not in found and gaps_in(opened, name):
                        found.add(name)
        return found


def gaps_in(opened, name):
    """Whether a column has empty cells: by the file's own counts, else by reading it."""
    metadata = opened.metadata
    paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    if name in paths:
        number = paths.index(name)
        counts = []
        for group in range(metadata.num_row_groups):
            statistics = metadata.row_group(group).column(number).statistics
            counts.append(statistics.null_count if statistics is not None and statistics.has_null_count else None)
        if None not in counts:
            return any(counts)
    return any(batch.column(0).null_count for batch in opened.iter_batches(columns=[name]))


def open_writer(path, name, metadata):
    """A writer of pieces for a file that is to be called `name`; `metadata` (text by name) goes into Parquet files."""
    return ParquetWriter(path, metadata) if name.endswith((".parquet", ".pq")) else CsvWriter(path, name)


class CsvWriter:
    def __init__(self, path, name):
        self._separator = "\t" if name.endswith((".tsv", ".tsv.gz")) else ","
        self._file = Path(path).open("wb")  # noqa: SIM115  (closed by `close`)
        # Without a name and a time: the same rows are the same bytes.
        self._packed = gzip.GzipFile("", "wb", fileobj=self._file, mtime=0) if name.endswith(".gz") else None
        self._text = io.TextIOWrapper(self._packed or self._file, encoding="utf-8", newline="")
        self._first = True

    def write(self, columns):
        import pandas as pd

        values = {n: v.to_pandas() if hasattr(v, "to_pandas") else v for n, v in columns.items()}
        pd.DataFrame(values).to_csv(self._text, sep=self._separator, index=False, header=self._first)
        self._first = False

    def close(self):
        self._text.flush()
        self._text.detach()
        if self._packed is not None:
            self._packed.close()
        self._file.close()


class ParquetWriter:
    def __init__(self, path, metadata):
        self._parquet, self._path, self._writer = pyarrow("parquet"), path, None
        self._metadata = {key.encode(): value.encode() for key, value in metadata.items()}

    def write(self, columns):
        import pyarrow as pa

        table = pa.table({name: plain_array(values) for name, values in columns.items()})
        if self._writer is None:
            self._writer = self._parquet.ParquetWriter(
                self._path, table.schema.with_metadata(self._metadata), compression="zstd"
            )
        self._writer.write_table(table.replace_schema_metadata(self._metadata).cast(self._writer.schema))

    def close(self):
        if self._writer is not None:
            self._writer.close()


def plain_array(values):
    import pyarrow as pa

    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        # Categories may differ from piece to piece; their values do not.
        return values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values
    return pa.array(values.astype(object) if values.dtype.kind == "U" else values)
