"""The same rules on Spark: the verdict of DuckDB, check for check, or an error that names what can not run."""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlcicd.core.errors import ConfigError, InputError
from mlcicd.core.verdict import Check
from mlcicd.data.checks import run_checks
from mlcicd.data.frames import open_frame
from mlcicd.data.java_patterns import java_pattern
from mlcicd.data.leakage import LeakageLimits, leakage_checks
from mlcicd.data.profile import profile
from mlcicd.data.schema import TableSchema, load_schema, parse_schema
from mlcicd.data.source import open_source
from mlcicd.data.spark import SparkSource, open_spark, open_spark_frame

pytestmark = pytest.mark.slow

HOSTILE = 'x"; DROP `TABLE` data; -- :p ${y} .%'
INF, NAN = float("inf"), float("nan")


@pytest.fixture(scope="session")
def source(session: Any, tmp_path_factory: pytest.TempPathFactory) -> SparkSource:
    """The table below on Spark."""
    path = tmp_path_factory.mktemp("spark") / "t.parquet"
    pq.write_table(table(), path, row_group_size=40)
    return open_spark(path, session=session)


def table() -> pa.Table:
    """Every kind of column, with every value that engines disagree about, in all combinations of a few."""
    floats = [0.0, -0.0, 1.5, -1.5, 1e300, INF, -INF, NAN, None]
    texts = ["AB1", "ab1", "AB1\n", "Ä", "", " a ", "a'\\' OR 1=1 --", "%x_", None]
    whole = [0, 1, -7, 2**31 - 1, 2**63 - 1, -(2**63), None]
    rows = list(itertools.islice(zip(itertools.cycle(floats), itertools.cycle(whole), strict=False), 126))
    n = range(len(rows))
    return pa.table(
        {
            "id": pa.array([*n[:-2], 5, None], pa.int64()),
            "f": pa.array([f for f, _ in rows], pa.float64()),
            "r": pa.array([None if f is None else f % 7 if abs(f) < 9 else 0.1 for f, _ in rows], pa.float32()),
            "i": pa.array([w for _, w in rows], pa.int64()),
            "k": pa.array([i % 5 * 8000 for i in n], pa.int16()),
            "s": pa.array([texts[i % 8 if i % 11 else 8] for i in n]),
            HOSTILE: pa.array([texts[i * 5 % 9] for i in n]),
            "b": pa.array([(True, False, None)[i % 3] for i in n]),
            "d": pa.array([None if i % 9 == 0 else dt.date(2020, 1, 1) + dt.timedelta(i) for i in n]),
            "t": pa.array(
                [None if i % 8 == 0 else dt.datetime(2020, 1, 1, i % 24, i % 60) for i in n], pa.timestamp("us")
            ),
            "z": pa.array([dt.datetime(2020, 1, 1, tzinfo=dt.UTC) + dt.timedelta(hours=i) for i in n]),
            "m": pa.array([None if i % 10 == 0 else Decimal(i - 40) / 4 for i in n], pa.decimal128(10, 2)),
            "l": pa.array([None if i % 6 == 0 else [1] * (i % 4) for i in n], pa.list_(pa.int64())),
        }
    )


COLUMNS = """
version: 1
key: [id]
rows: {min: 10, max: 100}
extra_columns: warn
freshness: {column: z, max_age: 7d}
columns:
  id: {type: int, unique: true, min: 3, max: 90}
  f: {type: float, min: -1.5, max: 10, nulls: 0.2}
  r: {type: float, min: 0.5, in: [0.1, 1.5], mostly: 0.5, nulls: 1}
  i: {type: int, in: [0, 1, 9223372036854775807], nulls: 0.5, severity: warn}
  k: {type: string}
  s: {type: string, pattern: "[A-Z]{2}\\\\d|.",
      length: {min: 1, max: 3}, nulls: 0.01, in: [AB1, Ä, "a'\\\\' OR 1=1 --"]}
  'x"; DROP `TABLE` data; -- :p ${y} .%':
    {type: string, sensitive: true, unique: true, pattern: "(?i)ab1|(?i)ä", nulls: 0.5}
  b: {type: bool, in: [true], nulls: 0.5}
  d: {type: date, min: 2020-01-15, max: 2020-03-01, nulls: 0.2}
  t: {type: timestamp, min: 2020-01-01 06:00:00, nulls: 1, unique: true}
  z: {type: timestamp, min: 2020-01-02T00:00:00Z}
  m: {type: decimal, min: -5, max: 10.25, nulls: 0.2}
  l: {type: list, length: {min: 1, max: 2}, nulls: 1}
  gone: {type: int}
  maybe: {required: false}
rules:
"""
EXPRESSIONS = [
    "f > 1",
    "f <> 1.5 or f is null",
    "not isnan(f)",
    "isfinite(f) and f between -2 and 2",
    "f / 0 > 3",
    "i / 2 >= 0.5",
    "f / k <= 1",
    "i + 1 > i",
    "i - 1 < i",
    "i * i <> 4",
    "k + k >= 0",
    "k * k > 5",
    "-i >= 0 or abs(i) > 5",
    "i % 3 = 1",
    "i % k = 0",
    "m + 1 > i",
    "m * 2 < 3.5",
    "m / 2 = 1.25",
    "i in (0, 1, -7) or i is null",
    "cast(r as double) > 0.1",
    "s like 'A%' or s like '%_1'",
    "not (s like '%\n%')",
    "s || 'x' = 'AB1x' or length(s) > 2",
    "trim(s) = 'a'",
    "starts_with(s, 'A') or contains(s, '1')",
    "suffix(s, '--')",
    "lower(s) = 'ab1'",
    "s = 'a''\\'' OR 1=1 --'",
    "s in ('%x_', 'Ä')",
    "s > 'B'",
    "s is distinct from 'AB1'",
    "coalesce(s, 'none') <> 'none'",
    "nullif(s, '') is not null",
    "greatest(f, i) > 2",
    "least(f, 1) < 1",
    "b or not b",
    "b is not true",
    "case when b then f > 0 when not b then i > 0 else true end",
    "d > '2020-02-01'",
    "d >= date '2020-02-01' and t < timestamp '2020-01-01 12:00:00'",
    "t >= d",
    "year(d) = 2020 and month(d) = 2",
    "extract(hour from t) > 11",
    "regexp_full_match(s, 'AB\\d')",
    "regexp_full_match(s, '[^a-z]+')",
    "cast(i as int) > 0",
    "cast(i as varchar) = '-7' or cast(b as varchar) = 'true'",
    "length(l) = 1",
    '"x""; DROP `TABLE` data; -- :p ${y} .%" = \'AB1\'',
    "1 = 2",
]


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def schema() -> TableSchema:
    lines = []
    for number, expression in enumerate(EXPRESSIONS):
        written = expression.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        lines.append(f'  - {{name: r{number}, expression: "{written}"}}')
        lines.append(f'  - {{name: w{number}, expression: "i > 0", where: "{written}", mostly: 0.3, severity: warn}}')
    return parse_schema(COLUMNS + "\n".join(lines))


def told(checks: list[Check]) -> dict[str, tuple[Any, ...]]:
    kept = ("violations", "checked", "distinct", "excess_rows")
    return {c.name: (c.status, c.severity, c.observed, *(c.details.get(key) for key in kept)) for c in checks}


def test_every_rule_counts_the_same_on_both_engines(source: SparkSource) -> None:
    now = dt.datetime(2020, 1, 8, tzinfo=dt.UTC)
    here = run_checks(open_source(source.path), schema(), now=now)
    there = run_checks(source, schema(), now=now)
    assert told(there) == told(here)
    assert len(here) > 2 * len(EXPRESSIONS) + 40
    counted = [c for c in here if c.details.get("checked")]
    assert sum(0 < c.details["violations"] < c.details["checked"] for c in counted if "violations" in c.details) > 80
    for check in there:
        if check.details.get("violations"):
            shown = check.details.get("examples", [])
            assert check.status != "failed" or shown, check.name
            assert all(value in ("(redacted)", None) for e in shown for k, value in e["values"].items() if k == HOSTILE)


def test_a_profile_counts_the_same_on_both_engines(source: SparkSource) -> None:
    here, there = profile(open_source(source.path), sensitive=["s"]), profile(source, sensitive=["s"])
    assert there.columns.keys() == here.columns.keys()
    for name, column in here.columns.items():
        other = there.columns[name]
        # Numbers of 2^63 cancel each other: what is left is known to the rounding of the largest.
        largest = max(abs(column.low or 0.0), abs(column.high or 0.0), 1.0)
        for ours, spark in ((column.mean, other.mean), (column.deviation, other.deviation)):
            assert spark == (None if ours is None else pytest.approx(ours, rel=1e-9, abs=1e-16 * largest)), name
        assert replace(other, mean=None, deviation=None) == replace(column, mean=None, deviation=None), name
    assert {column.kind for column in here.columns.values()} == {"numeric", "category", "time", "other"}


@pytest.fixture(scope="session")
def holdout(session: Any, tmp_path_factory: pytest.TempPathFactory) -> SparkSource:
    """Every third row of the table, and some of its rows with another value somewhere."""
    path = tmp_path_factory.mktemp("spark") / "h.parquet"
    whole = table()
    numbers = list(range(0, whole.num_rows, 3))
    changed = whole.take(numbers).to_pydict()
    changed["i"] = [value if n % 2 else 4711 for n, value in enumerate(changed["i"])]
    changed["t"] = [value and value + dt.timedelta(days=n % 3) for n, value in enumerate(changed["t"])]
    rows = pa.concat_tables([whole.take(numbers), pa.table(changed, schema=whole.schema)])
    pq.write_table(rows, path)
    return open_spark(path, session=session)


@pytest.mark.parametrize(
    ("target", "inputs", "time", "keys"),
    [
        ("b", ["f", "i", HOSTILE, "d"], "t", ["i", "s"]),
        ("f", ["r", "s"], "d", ["id"]),
        ("s", ["k", "l"], "m", ["s", "f", "m"]),
        ("m", ["id", "b"], "f", ["f"]),
    ],
    ids=["of flags", "of few floats", "of texts", "of many numbers"],
)
def test_leakage_is_the_same_on_both_engines(
    source: SparkSource, holdout: SparkSource, target: str, inputs: list[str], time: str, keys: list[str]
) -> None:
    asked: dict[str, Any] = {"keys": keys, "time": time, "target": target, "features": inputs}
    asked["limits"] = LeakageLimits(row_overlap=0.1, auc=0.8, conflicts=0.5)
    here = leakage_checks(open_source(source.path), open_source(holdout.path), **asked)
    there = leakage_checks(source, holdout, **asked)
    assert [(c.name, c.status, c.severity) for c in there] == [(c.name, c.status, c.severity) for c in here]
    for ours, spark in zip(here, there, strict=True):
        # The median of a label of many numbers is an estimate, by each engine in its own way.
        slack = {"abs": 0.03} if target == "m" and "target" in ours.name else {"rel": 1e-9}
        same = ours.observed if isinstance(ours.observed, str) else pytest.approx(ours.observed, nan_ok=True, **slack)
        assert spark.observed == same, ours
        assert "target" in ours.name or spark.details == ours.details
    counted = {c.name: c for c in here}
    assert counted["leakage.keys"].details["holdout_rows"] > 0
    assert 0 < counted["leakage.row_overlap"].details["rows"] < holdout.rows


def test_rows_are_the_same_only_where_each_value_is(session: Any) -> None:
    def frame(rows: str, columns: str = "a, b") -> SparkSource:
        return open_spark_frame(session.sql(f"SELECT * FROM VALUES {rows} AS t({columns})"))

    nan = "double('NaN')"
    one = frame(f"(NULL, 1, 0D), (2, NULL, {nan}), (3, 3, NULL)", "a, b, f")
    other = frame(f"(1, NULL, 0D), (NULL, 1, double('-0.0')), (2, NULL, {nan}), (3, 3, 0D)", "a, b, f")
    overlap = {c.name: c for c in leakage_checks(one, other)}["leakage.row_overlap"]
    assert overlap.details["rows"] == 2
    text = frame("('1', 'x'), ('03', 'y')")
    number = frame("(1, 'x'), (3, 'z')")
    assert {c.name: c.observed for c in leakage_checks(text, number, keys=["a"])}["leakage.keys"] == 1.0
    for odd in ("(1D, 'x')", "(map('k', 1), 'x')"):
        with pytest.raises(ConfigError, match=r"data.checks.leakage can not run on Spark: 'a'"):
            leakage_checks(text, frame(odd), keys=["a"])
    with pytest.raises(ConfigError, match="the time 'b' is int and string"):
        leakage_checks(one, number, time="b")
    with pytest.raises(ConfigError, match="not can not be compared"):
        leakage_checks(one, open_frame(pa.table({"a": [1], "b": [1], "f": [1.0]})))


def test_foreign_keys_are_the_same_on_both_engines(source: SparkSource, holdout: SparkSource, tmp_path: Path) -> None:
    kinds = table().slice(0, 60).rename_columns([f"{name}_" for name in table().schema.names])
    pq.write_table(kinds.take([n for n in range(60) if n % 4]), tmp_path / "other.parquet")
    rules = ["[id, s]", "[f]", "[z]", "[i]"]
    written = [
        f"{{columns: {r}, file: other.parquet, key: {r.replace(',', '_,').replace(']', '_]')}, mostly: 0.9}}"
        for r in rules
    ]
    written.append("{columns: [k], file: other.parquet, key: [i_]}")
    path = tmp_path / "schema.yaml"
    path.write_text(f"version: 1\ncolumns: {{s: {{sensitive: true}}}}\nforeign_keys: [{', '.join(written)}]")
    here, there = (
        [c for c in run_checks(one, load_schema(path)) if "foreign" in c.name]
        for one in (open_source(holdout.path), holdout)
    )
    assert [(c.name, c.status, c.observed) for c in there] == [(c.name, c.status, c.observed) for c in here]
    for ours, spark in zip(here, there, strict=True):
        assert ours.details["checked"] == spark.details["checked"] > 0
        shown = [[row["rows"] for row in check.details.get("examples", [])] for check in (ours, spark)]
        assert shown[0] == shown[1]
    assert sum(c.details["violations"] > 0 for c in here) >= 3
    assert there[0].details["examples"][0]["values"]["s"] == "(redacted)"
    path.write_text("version: 1\nforeign_keys: [{columns: [k], file: other.parquet, key: [s_]}]")
    with pytest.raises(ConfigError, match="'k' is SMALLINT, and 's_' of other"):
        run_checks(source, load_schema(path))


def test_an_existing_session_keeps_its_settings_and_views(session: Any, tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1, 2, 3], "q": ["x", "y", None]}), tmp_path / "t.parquet")
    session.conf.set("spark.sql.ansi.enabled", "true")
    session.range(1).createOrReplaceTempView("data")
    frame = session.read.parquet(str(tmp_path / "t.parquet")).where("a > 1")
    rules = parse_schema("version: 1\nkey: [a]\ncolumns: {a: {type: int, max: 2}, q: {nulls: 0.1}}")
    found = {c.name: c.status for c in run_checks(open_spark_frame(frame), rules)}
    assert found["train.a.range"] == "failed"
    assert found["train.key.unique"] == "passed"
    assert session.conf.get("spark.sql.ansi.enabled") == "true"
    assert session.sql("SELECT count(*) FROM data").collect()[0][0] == 1


@pytest.mark.parametrize(
    ("expression", "what"),
    [
        ("list_contains(l, 1)", "list_contains|array_contains"),
        ("round(f) = 1", r"round\(\)"),
        ("sqrt(f) > 1", r"sqrt\(\)"),
        ("cast(s as int) > 0", "cast from string to int"),
        ("cast(f as int) > 0", "cast from float to int"),
        ("r > 0.1", "32-bit float"),
        ("f // 2 = 1", "IntDiv|Floor|intdiv|floor"),
        ("d + interval 1 day > d", "Anonymous|to_days|arithmetic|interval|toDays"),
        ("regexp_full_match(s, '[[:alpha:]]+')", "read differently"),
        ("s like s", "LIKE with a pattern"),
        ("epoch(z) % 2 = 0", "not whole"),
    ],
)
def test_what_can_not_run_is_an_error_that_names_the_rule(source: SparkSource, expression: str, what: str) -> None:
    text = f'version: 1\nrules: [{{name: fine, expression: "i > 0"}}, {{name: odd, expression: "{expression}"}}]'
    with pytest.raises(ConfigError, match=rf"rule\.odd can not run on this engine: .*({what})"):
        run_checks(source, parse_schema(text))


def test_text_files_and_broken_files_are_refused(session: Any, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a\n1\n")
    with pytest.raises(InputError, match="Parquet"):
        open_spark(tmp_path / "t.csv", session=session)
    pq.write_table(table(), tmp_path / "t.parquet")
    whole = (tmp_path / "t.parquet").read_bytes()
    for part in (0.3, 0.9):
        (tmp_path / "cut.parquet").write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(InputError):
            run_checks(open_spark(tmp_path / "cut.parquet", session=session), parse_schema("version: 1"))


@pytest.mark.parametrize(
    "pattern",
    [
        "[[:alpha:]]",
        "[a&&b]",
        "[a[b]]",
        r"\pL",
        r"\Qa\E",
        r"\v",
        r"\C",
        "(?U)a+",
        "(?P<n>a)",
        "a++",
        "[]a]",
        "(?m)^a",
        "\\x41",
    ],
)
def test_patterns_that_java_reads_differently_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="read differently"):
        java_pattern(pattern)
