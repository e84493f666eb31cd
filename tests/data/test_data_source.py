"""Opening tables: what is hostile is either read correctly or refused with an error that says what to do."""

from __future__ import annotations

import gzip
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcicd.core.errors import ExitCode, InputError, MlcicdError
from mlcicd.data.checks import run_checks
from mlcicd.data.infer import infer_schema
from mlcicd.data.schema import parse_schema
from mlcicd.data.source import open_source, quote


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def parquet(path: Path, **columns: list[object]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_columns_types_and_rows_of_each_format(tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2], "b": ["x", "y"]})
    pq.write_table(table, tmp_path / "t.parquet")
    with pa.OSFile(str(tmp_path / "t.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    write(tmp_path / "t.csv", "a,b\n1,x\n2,y\n")
    write(tmp_path / "t.tsv", "a\tb\n1\tx\n2\ty\n")
    write(tmp_path / "t.csv.gz", gzip.compress(b"a,b\n1,x\n2,y\n"))
    write(tmp_path / "t.jsonl", '{"a": 1, "b": "x"}\n{"a": 2, "b": "y"}\n')
    for name in ("t.parquet", "t.arrow", "t.csv", "t.tsv", "t.csv.gz", "t.jsonl"):
        source = open_source(tmp_path / name)
        assert dict(source.columns) == {"a": "BIGINT", "b": "VARCHAR"}, name
        assert source.rows == 2, name
        assert source.relation.fetchall() == [(1, "x"), (2, "y")], name
        assert source.digest.startswith("sha256:"), name


def test_directories_and_globs_are_one_table(tmp_path: Path) -> None:
    (tmp_path / "month=1").mkdir()
    parquet(tmp_path / "month=1" / "a.parquet", x=[1, 2])
    parquet(tmp_path / "b.parquet", x=[3])
    assert open_source(tmp_path).rows == 3
    assert open_source(tmp_path / "*.parquet").rows == 1
    before = open_source(tmp_path).digest
    parquet(tmp_path / "b.parquet", x=[4])
    assert open_source(tmp_path).digest != before


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.csv", b"", "empty (0 bytes)"),
        ("a.parquet", b"", "empty (0 bytes)"),
        ("a.csv", b"\n\n1,2\n", "the first line"),
        ("a.csv", b"a,a\n1,2\n", "duplicate column 'a'"),
        ("a.csv", b"a,A\n1,2\n", "duplicate column 'a'"),
        ("a.csv", b"a,b\n1,\xff\xfe\n", "not UTF-8"),
        ("a.csv", "a,b\n1,é\n".encode("utf-16"), "not UTF-8"),
        ("a.csv", "a,b\n1,é\n".encode("utf-16-le"), "NUL"),
        ("a.csv.gz", b"a,b\n1,2\n", "can not be read"),
        ("a.jsonl", b'{"a": 1}\nnot json\n', "can not be read"),
        ("a.jsonl", b'{"a": 1, "a": 2}\n', "can not be read"),
        ("a.arrow", b"garbage", "not an Arrow file"),
        ("a.xlsx", b"PK", "unknown kind of file"),
    ],
)
def test_broken_files_are_named_and_explained(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(InputError) as caught:
        open_source(path).fetch("SELECT * FROM data")
    assert what in caught.value.what
    assert name in caught.value.where
    assert caught.value.remedy or caught.value.why
    assert caught.value.exit_code is ExitCode.INPUT


def test_ragged_and_unclosed_csv_is_refused(tmp_path: Path) -> None:
    for content in ("a,b\n1,2,3\n", "a,b\n1\n2,3\n", 'a,b\n1,"open\n2,3\n'):
        path = write(tmp_path / "a.csv", content)
        with pytest.raises(InputError):
            open_source(path).fetch("SELECT * FROM data")


def test_missing_file_and_directory(tmp_path: Path) -> None:
    for path in (tmp_path / "no.parquet", tmp_path / "*.parquet", tmp_path):
        with pytest.raises(InputError):
            open_source(path)


def test_duplicate_parquet_columns_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    pq.write_table(table, tmp_path / "d.parquet")
    with pytest.raises(InputError, match="duplicate column 'a'"):
        open_source(tmp_path / "d.parquet")
    nested = pa.table({"a": [{"x": 1}], "b": [{"x": 2}], "c": [[1, 2]]})  # inner names may repeat
    pq.write_table(nested, tmp_path / "n.parquet")
    assert list(open_source(tmp_path / "n.parquet").columns) == ["a", "b", "c"]


@pytest.mark.parametrize("tenth", range(10))
def test_parquet_truncated_anywhere_is_refused(tmp_path: Path, tenth: int) -> None:
    whole = parquet(tmp_path / "w.parquet", x=list(range(5000)), y=[f"v{i}" for i in range(5000)]).read_bytes()
    path = write(tmp_path / "cut.parquet", whole[: len(whole) * tenth // 10])
    with pytest.raises(InputError):
        open_source(path)


@pytest.mark.parametrize("tenth", range(1, 10))
def test_parquet_damaged_anywhere_never_crashes(tmp_path: Path, tenth: int) -> None:
    raw = bytearray(parquet(tmp_path / "w.parquet", x=list(range(5000))).read_bytes())
    at = len(raw) * tenth // 10
    raw[at : at + 40] = b"\xff" * len(raw[at : at + 40])
    path = write(tmp_path / "cut.parquet", bytes(raw))
    try:
        open_source(path).fetch("SELECT sum(x) FROM data")
    except MlcicdError as error:
        assert error.exit_code is ExitCode.INPUT


def test_byte_order_mark_and_odd_cells_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b'\xef\xbb\xbfa,b\n1,=cmd()|x\n2,"two\nlines"\n3,nul\x00nul\n')
    source = open_source(path)
    assert list(source.columns) == ["a", "b"]
    assert [row[1] for row in source.relation.fetchall()] == ["=cmd()|x", "two\nlines", "nul\x00nul"]


def test_header_only_is_a_table_without_rows(tmp_path: Path) -> None:
    source = open_source(write(tmp_path / "a.csv", "a,b\n"))
    assert (list(source.columns), source.rows) == (["a", "b"], 0)
    checks = run_checks(source, parse_schema("version: 1\ncolumns: {a: {type: int, min: 0}, b: {unique: true}}"))
    failed = [check for check in checks if check.status == "failed"]
    assert [check.name for check in failed] == ["train.rows"]
    assert not [check for check in checks if check.status == "passed" and "range" in check.name]


def test_a_late_odd_value_makes_the_column_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "a\n" + "\n".join(str(i) for i in range(60_000)) + "\nx\n")
    assert open_source(path).columns == {"a": "VARCHAR"}


def test_wide_table(tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(2000)]
    pq.write_table(pa.table({name: [1.0, 2.0, 3.0] for name in names}), tmp_path / "w.parquet")
    source = open_source(tmp_path / "w.parquet")
    schema = parse_schema("version: 1\ncolumns:\n" + "".join(f"  {n}: {{type: float, max: 2}}\n" for n in names))
    checks = run_checks(source, schema)
    assert sum(check.status == "failed" for check in checks) == 2000
    assert all(check.details["violations"] == 1 for check in checks if check.status == "failed")


def test_the_connection_reads_its_own_files_and_nothing_else(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.csv", "token\nhunter2\n")
    source = open_source(parquet(tmp_path / "a.parquet", x=[1]))
    for sql in (
        f"SELECT * FROM read_csv('{secret}')",
        f"SELECT * FROM read_text('{secret}')",
        f"SELECT * FROM '{secret}'",
        f"COPY data TO '{tmp_path / 'out.csv'}'",
        f"ATTACH '{tmp_path / 'x.db'}'",
        "SET enable_external_access = true",
        "SET memory_limit = '1TB'",
        "LOAD httpfs",
    ):
        with pytest.raises(duckdb.Error):
            source.connection.execute(sql).fetchall()
    assert source.connection.execute("SELECT * FROM data").fetchall() == [(1,)]
    assert not (tmp_path / "out.csv").exists()


def test_larger_than_its_memory_spills_and_stays_right(tmp_path: Path) -> None:
    path = tmp_path / "big.parquet"
    with duckdb.connect() as con:
        con.execute(
            f"COPY (SELECT 'a rather long key to group by ' || (i % 400000) AS k FROM range(800000) t(i)) TO '{path}'"
        )
    source = open_source(path, memory_limit="60MB", threads=1)
    checks = run_checks(source, parse_schema("version: 1\ncolumns: {k: {unique: true}}"))
    unique = next(check for check in checks if check.name == "train.k.unique")
    assert unique.details["excess_rows"] == 400_000


HOSTILE = st.text(
    alphabet=st.one_of(
        st.sampled_from("\"'`;-/*(){}[]$#@\\ \t,|x1é"), st.characters(codec="utf-8", exclude_characters="\0")
    ),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=40)
@given(name=HOSTILE, value=HOSTILE)
def test_names_and_values_are_never_sql(tmp_path_factory: pytest.TempPathFactory, name: str, value: str) -> None:
    path = tmp_path_factory.mktemp("hostile") / "a.parquet"
    pq.write_table(pa.table({name: [value] * 30}), path)
    source = open_source(path)
    assert list(source.columns) == [name]
    schema = parse_schema(infer_schema(source))
    checks = run_checks(source, schema, name="t")
    assert [check.reason for check in checks if check.status == "failed"] == []
    assert source.fetch(f"SELECT {quote(name)} FROM data LIMIT 1") == [(value,)]


@pytest.mark.parametrize("name", ['x"; DROP VIEW data; --', "'); SELECT 1; --", "select", "a.b", "__mlcicd_row"])
def test_failing_rows_of_hostile_columns_are_shown(tmp_path: Path, name: str) -> None:
    pq.write_table(pa.table({name: [1, 2]}), tmp_path / "a.parquet")
    schema = (
        parse_schema("version: 1\ncolumns:\n  ? " + repr(name).replace("\\", "") + "\n  : {max: 1}\n")
        if ("'" not in name)
        else parse_schema(f'version: 1\ncolumns:\n  "{name}": {{max: 1}}\n')
    )
    check = next(c for c in run_checks(open_source(tmp_path / "a.parquet"), schema) if c.name.endswith("range"))
    assert check.details["examples"] == [{"row": 2, "values": {name: "2"}}]
