"""Rules of other tools as a schema: files that those tools wrote, and what the imported rules then find.

tests/data/rules: suite.json was written by Great Expectations 1.24, pandera.yaml by Pandera 0.35, schema.pbtxt by
tensorflow-metadata 1.21; dbt.yml has the form of dbt 1.10's documentation.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from mlcicd.cli import cli
from mlcicd.core.errors import ConfigError, InputError, MlcicdError
from mlcicd.core.verdict import CheckStatus
from mlcicd.data.checks import run_checks
from mlcicd.data.imports import import_schema
from mlcicd.data.imports.tfdv import parse
from mlcicd.data.schema import load_schema, parse_schema
from mlcicd.data.source import open_source

RULES = Path(__file__).with_name("rules")
GOOD: dict[str, dict[str, Any]] = {
    "suite.json": {
        "id": list(range(1, 13)),
        "age": [None, *[1.0 + 5 * i for i in range(11)]],
        "kind": ["a", "b", None] * 4,
        "code": ["AB1", "AB22", None] * 4,
        "high": [2.0] * 12,
        "low": [1.0, None] * 6,
        "x": [1] * 12,
    },
    "pandera.yaml": {
        "id": [1, 2, 3],
        "age": [0.0, 120.0, None],
        "score": [0.0, 0.999, None],
        "kind": ["a", "b", "a"],
        "code": ["AB1", "XY22z", "ZZ9"],
        "mail": ["x@y", "x", "xx"],
        "when": pa.array([0, 1, 2], pa.timestamp("us")),
        "ok": [True, False, True],
        "cat": ["u", "v", "w"],
    },
    "schema.pbtxt": {"id": list(range(40)), "kind": [None, "a", *["b"] * 37, "other"]},
    "dbt.yml": {"id": [1, 2], "kind": ["a", None], "age": [0.5, None], "low": [1, None], "high": [1, 3]},
}
# A change of one column, and the check that must then fail.
BAD: list[tuple[str, str, list[Any], str]] = [
    ("suite.json", "id", [1] * 12, "id.unique"),
    ("suite.json", "id", [None, *range(11)], "id.nulls"),
    ("suite.json", "age", [None, None, *[1.0] * 10], "age.nulls"),
    ("suite.json", "age", [120.0, *[1.0] * 11], "rule.age < 120.0"),
    ("suite.json", "kind", ["c"] * 12, "kind.in"),
    ("suite.json", "code", ["a1"] * 12, "code.pattern"),
    ("suite.json", "code", ["ABCDEFGHIJ"] * 12, "code.length"),
    ("suite.json", "high", [0.5] * 12, "rule.high >= low"),
    ("suite.json", "x", ["1"] * 12, "x.type"),
    ("pandera.yaml", "id", [0, 1, 2], "rule.id > 0"),
    ("pandera.yaml", "age", [99.0, 1.0, 2.0], "rule.age is not 99"),
    ("pandera.yaml", "age", [-1.0, 1.0, 2.0], "age.range"),
    ("pandera.yaml", "score", [1.0, 0.5, 0.5], "rule.score < 1"),
    ("pandera.yaml", "kind", ["a", "b", None], "kind.nulls"),
    ("pandera.yaml", "code", ["1AB1", "AB1", "AB1"], "code.pattern"),
    ("schema.pbtxt", "id", [101, *range(39)], "id.range"),
    ("schema.pbtxt", "kind", [*["other"] * 3, *["a"] * 37], "kind.in"),
    ("dbt.yml", "age", [0.0, 1.0], "rule.age > 0"),
    ("dbt.yml", "high", [0, 3], "rule.high >= low"),
    ("dbt.yml", "kind", ["x", "a"], "kind.in"),
]


def failures(folder: Path, rules: str, table: dict[str, Any]) -> list[str]:
    schema = parse_schema(import_schema(RULES / rules, model="people" if rules == "dbt.yml" else ""))
    pq.write_table(pa.table(table), folder / "t.parquet")
    report = run_checks(open_source(folder / "t.parquet"), schema)
    return [check.name.removeprefix("train.") for check in report if check.status is CheckStatus.FAILED]


@pytest.mark.parametrize("rules", GOOD)
def test_a_table_that_obeys_there_obeys_here(tmp_path: Path, rules: str) -> None:
    assert failures(tmp_path, rules, GOOD[rules]) == []


@pytest.mark.parametrize(("rules", "column", "values", "name"), BAD, ids=[f"{r}-{n}" for r, _, _, n in BAD])
def test_a_table_that_does_not_is_caught(tmp_path: Path, rules: str, column: str, values: Any, name: str) -> None:
    assert name in failures(tmp_path, rules, {**GOOD[rules], column: values})


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("suite.json", "expect_column_mean_to_be_between: column='age', min_value=20.0, max_value=50.0"),
        ("pandera.yaml", "columns that match 'x.*': a pattern of names"),
        ("schema.pbtxt", "flag: not_in_environment"),
        ("dbt.yml", "kind: relationships to kinds, field kind: say its file with --table kinds=FILE"),
    ],
)
def test_what_has_no_counterpart_is_said(rules: str, said: str) -> None:
    text = import_schema(RULES / rules, model="people" if rules == "dbt.yml" else "")
    assert f"#   {said}\n" in text


def test_a_suite_of_version_0(tmp_path: Path) -> None:
    path = tmp_path / "suite.json"
    kwargs = {"column": "x", "min_value": 1, "max_value": None}
    expectation = {"expectation_type": "expect_column_values_to_be_between", "kwargs": kwargs, "meta": {}}
    path.write_text(json.dumps({"expectation_suite_name": "s", "expectations": [expectation]}))
    assert parse_schema(import_schema(path)).columns["x"].min == 1


def test_a_condition_on_rows_is_never_taken_for_all_rows(tmp_path: Path) -> None:
    path = tmp_path / "suite.json"
    kwargs = {"column": "x", "min_value": 1, "row_condition": "kind=='a'"}
    other = {"type": "expect_column_to_exist", "kwargs": {"column": "x"}}
    expectation = {"type": "expect_column_values_to_be_between", "kwargs": kwargs}
    path.write_text(json.dumps({"expectations": [expectation, other]}))
    text = import_schema(path)
    assert parse_schema(text).columns["x"].min is None
    assert "where kind=='a'" in text


def test_hostile_names_stay_names(tmp_path: Path) -> None:
    """A line break in a name must not end the comment, a quote not the SQL."""
    name = 'x" OR 1=1 --\nversion: 2\ncolumns: {}'
    path = tmp_path / "suite.json"
    kinds = ["expect_column_values_to_be_between", "expect_unknown"]
    kwargs = {"column": name, "min_value": 0, "strict_min": True}
    path.write_text(json.dumps({"expectations": [{"type": kind, "kwargs": kwargs} for kind in kinds]}))
    schema = parse_schema(import_schema(path))
    assert list(schema.columns) == [name]
    pq.write_table(pa.table({name: [1.0, -1.0]}), tmp_path / "t.parquet")
    failed = [c for c in run_checks(open_source(tmp_path / "t.parquet"), schema) if c.status is CheckStatus.FAILED]
    assert len(failed) == 1


def test_rules_of_one_name_stay_apart_and_the_same_one_is_one(tmp_path: Path) -> None:
    path = tmp_path / "suite.json"

    def above(value: float, mostly: float) -> dict[str, Any]:
        kwargs = {"column": "x", "min_value": value, "strict_min": True, "mostly": mostly}
        return {"type": "expect_column_values_to_be_between", "kwargs": kwargs}

    path.write_text(json.dumps({"expectations": [above(1, 1.0), above(1, 1.0), above(1, 0.9), above(1, 0.8)]}))
    names = [rule.name for rule in parse_schema(import_schema(path)).rules]
    assert names == ["x > 1", "x > 1 (2)", "x > 1 (3)"]


def test_rules_that_contradict_each_other_are_said_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "suite.json"
    rules = [
        {"type": "expect_column_values_to_be_of_type", "kwargs": {"column": "x", "type_": "str"}},
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "x", "min_value": 5, "max_value": 1}},
    ]
    path.write_text(json.dumps({"expectations": rules}))
    text = import_schema(path)
    assert "#   x: type 'string'" in text
    assert parse_schema(text).columns["x"].type is None


def test_every_cut_of_a_pbtxt_is_an_error_or_a_schema(tmp_path: Path) -> None:
    whole = (RULES / "schema.pbtxt").read_bytes()
    path = tmp_path / "schema.pbtxt"
    outcomes = set()
    for end in range(0, len(whole), 3):
        path.write_bytes(whole[:end])
        try:
            parse_schema(import_schema(path))
            outcomes.add("schema")
        except MlcicdError as error:
            assert isinstance(error, InputError), error
            outcomes.add("error")
    assert outcomes == {"schema", "error"}


def test_the_text_format_itself() -> None:
    text = """# a comment
      a: 1 a: -2.5e3, b { c: 'x' "y\\n\\303\\251" } d < e: [TRUE, OTHER] >; f: 0x1F g: "caf\u00e9"
    """
    assert parse(text) == {
        "a": ["1", "-2.5e3"],
        "b": [{"c": ["xy\n\u00e9"]}],
        "d": [{"e": ["TRUE", "OTHER"]}],
        "f": ["0x1F"],
        "g": ["caf\u00e9"],
    }
    with pytest.raises(InputError, match="nested"):
        parse("a {" * 60 + "}" * 60)
    with pytest.raises(InputError, match="line 2"):
        parse("a: 1\n}")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.json", "[1]"),
        ("x.json", "{"),
        ("x.json", '{"expectations": [{"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "x"}}]}'),
        ("x.json", '{"expectations": []}'),
        ("x.json", '{"expectations": [{"type": "expect_table_row_count_to_equal", "kwargs": {"value": Infinity}}]}'),
        ("x.yaml", "models: [{name: m, tests: [{}]}]"),
        ("x.yaml", "a: 1"),
        ("x.yaml", "schema_type: dataframe"),
        ("x.pbtxt", ""),
    ],
)
def test_what_is_no_file_of_rules_is_an_error(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError):
        import_schema(tmp_path / name)


@pytest.mark.parametrize(
    ("to", "more"),
    [
        ("ref('kinds')", ""),
        ('{{ ref("kinds") }}', ""),
        ("ref('shop', 'kinds')", ""),
        ("ref('kinds', v=2)", ""),
        ("source('shop', 'kinds')", ", config: {severity: warn}"),
    ],
)
def test_relationships_are_foreign_keys_where_the_file_is_known(tmp_path: Path, to: str, more: str) -> None:
    path = tmp_path / "dbt.yml"
    written = f"relationships: {{arguments: {{to: {json.dumps(to)}, field: code}}{more}}}"
    path.write_text(f"models: [{{name: m, columns: [{{name: kind, data_tests: [{written}]}}]}}]")
    pq.write_table(pa.table({"code": ["a", "b"]}), tmp_path / "kinds.parquet")
    pq.write_table(pa.table({"kind": ["a", "c", None]}), tmp_path / "t.parquet")
    out = tmp_path / "schema.yaml"
    done = CliRunner().invoke(cli, ["data", "import", str(path), "--table", "kinds=kinds.parquet", "-o", str(out)])
    assert done.exit_code == 0, done.output
    found = run_checks(open_source(tmp_path / "t.parquet"), load_schema(out))
    (check,) = [check for check in found if "foreign_key" in check.name]
    assert (check.status, check.severity) == (CheckStatus.FAILED, "warn" if more else "fail")
    assert (check.details["violations"], check.details["checked"]) == (1, 2)
    conditional = path.read_text().replace("field: code", 'field: code, where: "x > 1"')
    path.write_text(conditional)
    text = import_schema(path, tables={"kinds": "kinds.parquet"})
    assert parse_schema(text).foreign_keys == []
    assert "#   kind: relationships" in text


def test_the_command(tmp_path: Path) -> None:
    out = tmp_path / "schema.yaml"
    done = CliRunner().invoke(cli, ["data", "import", str(RULES / "dbt.yml"), "--model", "people", "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert "id" in parse_schema(out.read_text()).columns
    again = CliRunner().invoke(cli, ["data", "import", str(RULES / "dbt.yml"), "--model", "people", "-o", str(out)])
    assert again.exit_code == 2
    with pytest.raises(ConfigError, match="did you mean 'people'"):
        import_schema(RULES / "dbt.yml", model="peopel")
    assert CliRunner().invoke(cli, ["data", "import", str(RULES / "dbt.yml")]).exit_code == 2
    assert CliRunner().invoke(cli, ["data", "import", str(tmp_path / "none.json")]).exit_code == 4
    assert CliRunner().invoke(cli, ["data", "import", str(RULES / "dbt.yml"), "--table", "kinds"]).exit_code == 2
