"""Rules against a slow, obvious reading of the same rules in Python."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcicd.core.errors import ConfigError
from mlcicd.core.verdict import Check, Status, conclude
from mlcicd.data.checks import run_checks
from mlcicd.data.schema import parse_schema
from mlcicd.data.source import Source, open_source


@pytest.fixture
def make(tmp_path: Path) -> Any:
    def write(**columns: Any) -> Source:
        pq.write_table(pa.table(columns), tmp_path / "t.parquet")
        return open_source(tmp_path / "t.parquet")

    return write


def check(source: Source, schema: str, name: str, **options: Any) -> Check:
    found = {c.name: c for c in run_checks(source, parse_schema("version: 1\n" + schema), name="t", **options)}
    return found[f"t.{name}"]


FLOATS = st.lists(st.none() | st.floats(width=64), max_size=30)


def is_missing(value: float | None) -> bool:
    return value is None or math.isnan(value)


@settings(deadline=None, max_examples=40)
@given(
    values=FLOATS,
    low=st.floats(-100, 100),
    span=st.floats(0, 100),
    mostly=st.sampled_from([1.0, 0.9, 0.5, 0.001]),
    nulls=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
def test_nulls_and_range_agree_with_python(
    tmp_path_factory: pytest.TempPathFactory,
    values: list[float | None],
    low: float,
    span: float,
    mostly: float,
    nulls: float,
) -> None:
    path = tmp_path_factory.mktemp("r") / "t.parquet"
    pq.write_table(pa.table({"x": pa.array(values, pa.float64())}), path)
    schema = f"columns: {{x: {{min: {low!r}, max: {low + span!r}, mostly: {mostly}, nulls: {nulls}}}}}"
    source = open_source(path)
    missing = sum(is_missing(v) for v in values)
    got = check(source, schema, "x.nulls")
    assert got.details["violations"] == missing
    assert got.status == (
        "skipped" if not values else "passed" if missing <= round(nulls * 10) * len(values) / 10 else "failed"
    )
    present = [v for v in values if v is not None]
    bad = sum(not (math.isfinite(v) and low <= v <= low + span) for v in present)
    got = check(source, schema, "x.range")
    assert (got.details["violations"], got.details["checked"]) == (bad, len(present))
    allowed = bad * 1000 <= round((1 - mostly) * 1000) * len(present)
    assert got.status == ("skipped" if not present else "passed" if allowed else "failed")


@settings(deadline=None, max_examples=40)
@given(values=st.lists(st.none() | st.sampled_from(["a", "b", "", "'", "é", "ab1", "x\ny"]), max_size=25))
def test_members_pattern_length_and_uniqueness_agree_with_python(
    tmp_path_factory: pytest.TempPathFactory, values: list[str | None]
) -> None:
    path = tmp_path_factory.mktemp("m") / "t.parquet"
    pq.write_table(pa.table({"s": pa.array(values, pa.string())}), path)
    schema = (
        "columns: {s: {in: [a, \"'\", é], pattern: '[a-z]+[0-9]?', length: {min: 1, max: 2}, unique: true, nulls: 1}}"
    )
    source = open_source(path)
    present = [v for v in values if v is not None]
    expected = {
        "s.in": sum(v not in ("a", "'", "é") for v in present),
        "s.pattern": sum(re.fullmatch("[a-z]+[0-9]?", v) is None for v in present),
        "s.length": sum(not 1 <= len(v) <= 2 for v in present),
    }
    for name, count in expected.items():
        assert check(source, schema, name).details["violations"] == count, name
    unique = check(source, schema, "s.unique")
    assert unique.details["excess_rows"] == len(present) - len(set(present))
    repeated = {v for v in present if present.count(v) > 1}
    assert {e["values"]["s"] for e in unique.details.get("examples", [])} <= repeated


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(
        st.tuples(st.none() | st.integers(-3, 3), st.none() | st.integers(-3, 3), st.booleans()),
        min_size=1,
        max_size=25,
    )
)
def test_expressions_and_keys_agree_with_python(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int | None, int | None, bool]]
) -> None:
    path = tmp_path_factory.mktemp("e") / "t.parquet"
    a, b, c = (list(column) for column in zip(*rows, strict=True))
    pq.write_table(pa.table({"a": pa.array(a, pa.int64()), "b": pa.array(b, pa.int64()), "c": c}), path)
    source = open_source(path)
    schema = "key: [a, b]\nrules: [{name: r, expression: a >= b, where: c}, {name: d, expression: a % b = 0}]"
    looked_at = [(x, y) for x, y, flag in rows if flag]
    bad = sum(x is None or y is None or not x >= y for x, y in looked_at)
    got = check(source, schema, "rule.r")
    assert (got.details["checked"], got.details["violations"]) == (len(looked_at), bad)
    assert got.status == ("inconclusive" if not looked_at else "failed" if bad else "passed")
    remainder = sum(x is None or y is None or y == 0 or x % y != 0 for x, y, _ in rows)
    assert check(source, schema, "rule.d").details["violations"] == remainder
    whole = [(x, y) for x, y, _ in rows if x is not None and y is not None]
    assert check(source, schema, "key.unique").details["excess_rows"] == len(whole) - len(set(whole))
    assert check(source, schema, "key.nulls").details["violations"] == len(rows) - len(whole)


@pytest.mark.parametrize("bound", ["min", "max"])
def test_nan_and_infinity_violate_a_range_of_one_side(make: Any, bound: str) -> None:
    source = make(x=[0.0, math.nan, math.inf, -math.inf])
    assert check(source, f"columns: {{x: {{{bound}: 0}}}}", "x.range").details["violations"] == 3


def test_mostly_is_exact_at_its_border(make: Any) -> None:
    source = make(x=[1.0] * 9 + [100.0])
    assert check(source, "columns: {x: {max: 1, mostly: 0.9}}", "x.range").status == "passed"
    assert check(source, "columns: {x: {max: 1, mostly: 0.900001}}", "x.range").status == "failed"


def test_failed_check_says_what_where_and_shows_the_first_rows(make: Any) -> None:
    source = make(id=list(range(100)), x=[float(i) for i in range(100)])
    got = check(source, "key: [id]\ncolumns: {x: {max: 89}}", "x.range")
    assert got.reason.startswith("10 of 100 (10.0000%) are values outside the range")
    assert got.details["examples"] == [{"row": i + 1, "values": {"id": str(i), "x": f"{i}.0"}} for i in range(90, 95)]
    assert (got.details["min"], got.details["max"]) == ("0.0", "99.0")
    assert got.remedy


def test_sensitive_values_appear_nowhere(make: Any) -> None:
    source = make(ssn=["123-45-6789", "123-45-6789", "x"], pay=[1.0, 2.0, 987654.0])
    schema = (
        "key: [ssn]\ncolumns: {ssn: {pattern: '[0-9-]+', sensitive: true, unique: true}, "
        "pay: {max: 10, sensitive: true}}"
    )
    checks = run_checks(source, parse_schema("version: 1\n" + schema))
    assert conclude(checks) is Status.FAILED
    text = str([c.model_dump() for c in checks])
    assert "6789" not in text
    assert "987654" not in text
    assert "(redacted)" in text


def test_long_cells_are_cut(make: Any) -> None:
    got = check(make(s=["x" * 5_000_000]), "columns: {s: {length: {max: 10}}}", "s.length")
    assert got.status == "failed"
    assert len(str(got.model_dump())) < 1000


@pytest.mark.parametrize(
    ("column", "declared", "status"),
    [
        ([1, 2], "int", "passed"),
        ([1, 2], "float", "failed"),
        ([1, 2], "number", "passed"),
        ([1.5], "int", "failed"),
        (["a"], "string", "passed"),
        (["1"], "int", "failed"),
        ([True], "bool", "passed"),
        ([datetime(2024, 1, 1)], "timestamp", "passed"),
        ([[1]], "list", "passed"),
        ([{"a": 1}], "struct", "passed"),
        ([b"x"], "binary", "passed"),
    ],
)
def test_types_of_typed_files(make: Any, column: list[Any], declared: str, status: str) -> None:
    assert check(make(x=column), f"columns: {{x: {{type: {declared}}}}}", "x.type").status == status


@pytest.mark.parametrize(
    ("cells", "declared", "violations"),
    [
        ("1 x 2.5", "int", 2),
        ("1 2 3.0", "int", 0),
        ("1 2 3", "float", 0),
        ("1 2 x", "float", 1),
        ("01 02 3", "string", 0),
        ("0 1 1", "bool", 0),
        ("0 1 2", "bool", 1),
        ("2024-01-01 2024-13-01 x", "date", 2),
    ],
)
def test_types_of_text_files(tmp_path: Path, cells: str, declared: str, violations: int) -> None:
    (tmp_path / "t.csv").write_text("x\n" + cells.replace(" ", "\n") + "\n")
    got = check(open_source(tmp_path / "t.csv"), f"columns: {{x: {{type: {declared}}}}}", "x.type")
    assert got.details.get("violations", 0) == violations
    assert got.status == ("failed" if violations else "passed")


def test_leading_zeros_survive_in_string_columns(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("zip\n12345\n54321\n")
    got = check(open_source(tmp_path / "t.csv"), "columns: {zip: {type: string, pattern: '[0-9]{5}'}}", "zip.pattern")
    assert got.status == "passed"


def test_columns_missing_and_extra(make: Any) -> None:
    source = make(carrier=["a"], other=[1])
    schema = "extra_columns: {}\ncolumns: {{carier: {{}}, late: {{required: false}}}}"
    got = check(source, schema.format("warn"), "carier.present")
    assert (got.status, "did you mean 'carrier'" in got.reason) == ("failed", True)
    extra = check(source, schema.format("warn"), "extra_columns")
    assert (extra.status, extra.severity) == ("failed", "warn")
    assert check(source, schema.format("forbid"), "extra_columns").severity == "fail"
    names = [c.name for c in run_checks(source, parse_schema("version: 1\n" + schema.format("allow")))]
    assert names == ["train.rows", "train.carier.present"]


def test_bounds_of_another_kind_fail(make: Any) -> None:
    assert check(make(x=["a"]), "columns: {x: {min: 1}}", "x.range").status == "failed"
    assert check(make(x=[1]), "columns: {x: {min: 2024-01-01}}", "x.range").status == "failed"
    times = make(x=[datetime(2024, 1, 1), datetime(2025, 1, 1)])
    assert check(times, "columns: {x: {min: 2024-01-01, max: 2024-06-01}}", "x.range").details["violations"] == 1


def test_row_counts(make: Any) -> None:
    source = make(x=[1, 2, 3])
    assert check(source, "rows: {min: 3, max: 3}", "rows").status == "passed"
    assert check(source, "rows: {min: 4}", "rows").status == "failed"
    assert check(source, "rows: {max: 2}", "rows").status == "failed"


def test_freshness(make: Any) -> None:
    now = datetime(2024, 6, 10, tzinfo=UTC)
    schema = "freshness: {column: t, max_age: 2d}"
    for age, status in ((1, "passed"), (2, "passed"), (3, "failed"), (-1, "passed"), (-400, "failed")):
        source = make(t=[now - timedelta(days=900), now - timedelta(days=age)])
        assert check(source, schema, "freshness", now=now).status == status, age
    assert check(make(t=pa.array([None], pa.timestamp("us"))), schema, "freshness", now=now).status == "failed"
    assert check(make(t=["2024-06-09T12:00:00", "soon"]), schema, "freshness", now=now).status == "failed"
    assert check(make(t=["2024-06-09T12:00:00"]), schema, "freshness", now=now).status == "passed"


@pytest.mark.parametrize(
    "expression",
    [
        "(SELECT 1) = 1",
        "EXISTS (FROM data)",
        "x > 0; DROP VIEW data",
        "x > 0) FROM data WHERE (x > 0",
        "x > 0), (x > 1",
        "sum(x) > 0",
        "row_number() OVER () > 1",
        "x > (SELECT max(x) FROM read_csv('/etc/passwd'))",
        "x IN (SELECT 1)",
        "read_text('/etc/passwd') IS NOT NULL",
        "random() > 0.5",
        "sleep_ms(1000) IS NULL",
        "current_setting('home_directory') = ''",
        "x = $1",
        "COLUMNS('*') > 0",
        "* > 0",
        "x + 1",
        "x > 'a'::DATE",
        "nosuchfunction(x)",
        "x >",
        "",
        "--",
    ],
)
def test_expressions_that_are_no_conditions_are_refused(make: Any, expression: str) -> None:
    with pytest.raises(ConfigError) as caught:
        schema = parse_schema(f"version: 1\nrules:\n  - name: r\n    expression: {expression!r}\n", file="s.yaml")
        run_checks(make(x=[1]), schema)
    assert caught.value.where == "s.yaml:4"


@pytest.mark.parametrize(
    "expression",
    [
        "x > 0 -- a comment",
        "lower(s) LIKE 'a%'",
        "x BETWEEN 0 AND 5 AND s IN ('a', 'b')",
        "CASE WHEN x > 0 THEN s = 'a' ELSE false END",
        "len(list_filter([x, 0], lambda v: v > 0)) = 1",
        "x::VARCHAR = '1'",
        "coalesce(x, 0) = 1 AND NOT isnan(x::DOUBLE)",
        "t < current_date",
        "date_diff('day', t, DATE '2024-01-03') = 2",
        '"X" = 1',
        "regexp_matches(s, '^a$')",
    ],
)
def test_expressions_that_are_conditions_are_run(make: Any, expression: str) -> None:
    source = make(x=[1], s=["a"], t=[datetime(2024, 1, 1).date()])
    schema = parse_schema(f"version: 1\nrules:\n  - {{name: r, expression: {expression!r}}}\n")
    assert [c.status for c in run_checks(source, schema)] == ["passed", "passed"]


def test_errors_in_rows_are_violations_not_crashes(make: Any) -> None:
    got = check(make(s=["1", "x", "3"]), "rules: [{name: r, expression: 's::INT > 0'}]", "rule.r")
    assert (got.status, got.details["violations"]) == ("failed", 1)
    assert got.details["examples"] == [{"row": 2, "values": {"s": "x"}}]


def test_rules_about_absent_columns(make: Any) -> None:
    source = make(x=[1])
    got = check(source, "columns: {y: {}}\nrules: [{name: r, expression: y > x}]", "rule.r")
    assert (got.status, "'y'" in got.reason) == ("failed", True)
    with pytest.raises(ConfigError, match="neither the data nor the schema"):
        check(source, "rules: [{name: r, expression: z > x}]", "rule.r")
    assert check(source, "key: [nope]", "key").status == "failed"
    with pytest.raises(ConfigError, match="freshness"):
        check(source, "freshness: {column: nope, max_age: 1d}", "freshness")


def test_bad_pattern_names_its_line(make: Any) -> None:
    schema = parse_schema("version: 1\ncolumns:\n  s:\n    pattern: '(['\n", file="s.yaml")
    with pytest.raises(ConfigError) as caught:
        run_checks(make(s=["a"]), schema)
    assert caught.value.where == "s.yaml:4"


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("version: 1\ncolumns:\n  a: {nullz: 1}\n", 3, "did you mean 'nulls'"),
        ("version: 1\ncolumnz: {}\n", 2, "did you mean 'columns'"),
        ("version: 2\n", 1, "version"),
        ("columns: {}\n", 1, "version is missing"),
        ("version: 1\nrules:\n  - name: r\n", 3, "rules.0.expression is missing"),
        ("version: 1\ncolumns:\n  a:\n    nulls: 1.5\n", 4, "columns.a.nulls"),
        ("version: 1\ncolumns:\n  a:\n    min: 5\n    max: 1\n", 3, "min is greater than max"),
        ("version: 1\ncolumns:\n  a:\n    min: [1]\n", 4, "expected a number or a date"),
        ("version: 1\ncolumns:\n  a: {}\n  a: {}\n", 4, "is here twice"),
        ("version: 1\ncolumns:\n  a: {\n", 4, "not valid YAML"),
        ("- 1\n", 1, "must be a mapping"),
        ("version: 1\nfreshness: {column: t, max_age: soon}\n", 2, "expected a duration"),
        ("version: 1\ncolumns:\n  a: {type: string, min: 1}\n", 3, "has no min and max"),
        ("version: 1\nrows: {min: 2, max: 1}\n", 2, "min is greater than max"),
    ],
)
def test_schema_errors_name_line_and_nearest_key(text: str, line: int, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_schema(text, file="schema.yaml")
    assert what in caught.value.what
    assert caught.value.where == f"schema.yaml:{line}"


def test_nan_in_parquet_is_seen_though_its_statistics_leave_it_out(tmp_path: Path) -> None:
    """Parquet's minimum and maximum know nothing of NaN, and an engine that believes them finds none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    for values in ([0.0, math.nan], [1.0, 2.0, math.nan], [math.nan, 3.0]):
        pq.write_table(pa.table({"x": pa.array(values, pa.float64())}), path)
        schema = parse_schema("version: 1\ncolumns:\n  x: {type: float, min: 0, max: 10}\n")
        failed = {c.name for c in run_checks(open_source(path), schema) if c.status == "failed"}
        assert {"train.x.nulls", "train.x.range"} <= failed, values
