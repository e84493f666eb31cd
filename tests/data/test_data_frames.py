"""Frames in memory: the verdict of a frame is that of the same table in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlcicd.core.errors import InputError
from mlcicd.core.verdict import Check
from mlcicd.data.checks import run_checks
from mlcicd.data.frames import open_frame
from mlcicd.data.leakage import leakage_checks
from mlcicd.data.profile import profile
from mlcicd.data.schema import parse_schema
from mlcicd.data.source import open_source

HOSTILE = 'x"; DROP TABLE data; --'
TABLE = pa.table(
    {
        "id": [1, 2, 3, 3],
        "city": ["Ulm", None, "O'Hara \\' OR 1=1 --", "Bonn"],
        "price": [1.5, 2.5, None, 9.0],
        HOSTILE: [True, False, True, None],
    }
)
SCHEMA = parse_schema(
    """
version: 1
key: [id]
extra_columns: forbid
rules: [{name: cheap, expression: price < id * 2, where: city is not null}]
columns:
  id: {type: int, min: 2}
  city: {type: string, in: [Ulm, Bonn], nulls: 0.5}
  price: {type: float, max: 5, nulls: 0.25}
  'x"; DROP TABLE data; --': {type: bool, in: [true]}
"""
)


def told(checks: list[Check]) -> list[tuple[Any, ...]]:
    return [(c.name, c.status, c.observed, c.details.get("checked"), c.details.get("examples")) for c in checks]


@pytest.mark.parametrize(
    "frame",
    [
        TABLE,
        TABLE.to_batches()[0],
        TABLE.to_pandas(),
        pl.from_arrow(TABLE),
        pl.from_arrow(TABLE).lazy(),
    ],
    ids=["arrow", "batch", "pandas", "polars", "lazy"],
)
def test_a_frame_is_judged_as_the_file_with_its_rows(frame: Any, tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "t.parquet")
    file = open_source(tmp_path / "t.parquet")
    source = open_frame(frame)
    assert told(run_checks(source, SCHEMA)) == told(run_checks(file, SCHEMA))
    failed = {c.name for c in run_checks(source, SCHEMA) if c.status == "failed"}
    assert {"train.id.range", "train.city.in", "train.price.range", "train.key.unique", "train.rule.cheap"} <= failed
    assert profile(source).to_json() == profile(file).to_json()
    kept = [(c.name, c.status, c.observed) for c in leakage_checks(source, source, keys=["id"], target="price")]
    assert kept == [(c.name, c.status, c.observed) for c in leakage_checks(file, file, keys=["id"], target="price")]


def test_a_pandas_column_is_what_all_of_its_values_are() -> None:
    late = pd.DataFrame({"a": [*range(99_999), "one"], "b": pd.Series([None] * 99_999 + ["x"], dtype=object)})
    source = open_frame(late)
    assert dict(source.columns) == {"a": "VARCHAR", "b": "VARCHAR"}
    checks = {
        c.name: c for c in run_checks(source, parse_schema("version: 1\ncolumns: {a: {type: int}, b: {nulls: 1}}"))
    }
    assert checks["train.a.type"].status == "failed"
    assert checks["train.b.nulls"].details["violations"] == 99_999


def test_the_digest_is_that_of_names_types_values_and_their_order() -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    digest = open_frame(frame).digest
    assert digest == open_frame(frame.copy()).digest
    assert digest.startswith("sha256:")
    others = [
        frame.iloc[::-1],
        frame.rename(columns={"a": "c"}),
        frame.astype({"a": "float64"}),
        frame.assign(b=["x", None]),
        pd.DataFrame({"a": [1, 2], "b": ["x", "-"]}),
    ]
    assert len({digest, *(open_frame(other).digest for other in others)}) == 6


@pytest.mark.parametrize(
    ("frame", "what"),
    [
        (pd.DataFrame([[1, 2]], columns=["a", "A"]), "duplicate column"),
        (pd.DataFrame(), "no columns"),
        ({"a": [1]}, "no table that can be checked"),
        ("train.parquet", "no table that can be checked"),
    ],
)
def test_what_is_no_table_is_refused(frame: Any, what: str) -> None:
    with pytest.raises(InputError, match=what):
        open_frame(frame)


def test_a_frame_reaches_no_file(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with pytest.raises(InputError):
        open_frame(TABLE).fetch(f"SELECT * FROM read_csv('{tmp_path / 'secret.csv'}')")
