"""The checks that look beyond the schema, on Spark: the embedded engine's verdict on the same files."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlcicd.core.errors import ConfigError
from mlcicd.core.verdict import Check
from mlcicd.data.distinct import distinct_counts
from mlcicd.data.frames import open_frame
from mlcicd.data.label_quality import label_checks
from mlcicd.data.origins import origin_checks
from mlcicd.data.personal import personal_checks
from mlcicd.data.population import population_checks
from mlcicd.data.profile import profile
from mlcicd.data.row_numbers import bound
from mlcicd.data.row_sample import codes_for, row_sample
from mlcicd.data.serving_examples import Requests, serving_checks
from mlcicd.data.slices import by_value, slice_profiles
from mlcicd.data.source import Source, open_source, quote
from mlcicd.data.spark import SparkSource, open_spark, open_spark_frame
from mlcicd.data.spark_rows import fetched_rows

pytestmark = pytest.mark.slow

HOSTILE = 'x"; DROP `TABLE` data; -- :p ${y} ? .%'
INF, NAN = float("inf"), float("nan")
N = 3000


def table(seed: int, rows: int = N) -> pa.Table:
    """Rows with everything that engines disagree about, of two classes that the columns tell apart."""
    random = np.random.default_rng(seed)
    a = random.normal(size=rows).round(3)
    odd = [None, NAN, INF, -0.0, 1e300]
    label = [("no", "yes")[int(v > 0) ^ int(random.random() < 0.04)] for v in a]
    return pa.table(
        {
            "id": pa.array(range(rows), pa.int64()),
            "a": pa.array([*odd, *a[5:].tolist()], pa.float64()),
            "b": pa.array((a * seed + random.normal(size=rows) / 3).round(2).tolist(), pa.float64()),
            "s": pa.array([("AB", "é'", None, "c d")[i * i % 7 % 4] for i in range(rows)]),
            # Names that the queries use themselves.
            "c": pa.array([None if i % 10 == 0 else i % 7 - 3 for i in range(rows)], pa.int16()),
            "h": pa.array([bool(i % 3) for i in range(rows)]),
            HOSTILE: pa.array([f"user{i}@example.org" if i % 5 == 0 else f"'{i}\\" for i in range(rows)]),
            "z": pa.array([dt.datetime(2020, 1, 1 + i % 2, tzinfo=dt.UTC) for i in range(rows)]),
            "card": pa.array([4111111111111111 if i % 3 else i for i in range(rows)], pa.int64()),
            "empty": pa.array([None] * rows, pa.string()),
            "y": pa.array([None if i % 100 == 7 else text for i, text in enumerate(label)]),
        }
    )


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """The table in files whose names are written otherwise in an address, one of them without rows."""
    folder = tmp_path_factory.mktemp("spark") / "t ä%20"
    folder.mkdir()
    whole, start = table(1), 0
    for name, end in (("a b.parquet", 1100), ("ä.parquet", 1100), ("c%41#.parquet", N)):
        pq.write_table(whole.slice(start, end - start), folder / name, row_group_size=300)
        start = end
    return open_source(folder)


@pytest.fixture(scope="module")
def there(session: Any, here: Source) -> SparkSource:
    return open_spark(here.path, session=session)


def told(checks: list[Check]) -> list[dict[str, Any]]:
    return [check.model_dump(mode="json") for check in checks]


def test_a_row_has_the_same_number_on_both_engines(here: Source, there: SparkSource) -> None:
    limit = bound(200, N)
    some = fetched_rows(there, ["id", HOSTILE], limit)
    columns, chosen = (
        f"SELECT __mlcicd_row, id, {quote(HOSTILE)} FROM ",
        f" WHERE hash(__mlcicd_row) < {limit} ORDER BY 1",
    )
    rows = some.fetch(columns + some.numbered + chosen)
    assert rows == here.fetch(columns + here.numbered + chosen)
    assert some.rows == len(rows) and 150 < len(rows) < 400
    labelled = fetched_rows(there, ["a"], None, present="a")
    assert labelled.rows == N - 2 and set(labelled.columns) == {"__mlcicd_row", "a"}


def test_samples_and_slices_are_the_same_on_both_engines(here: Source, there: SparkSource) -> None:
    names = ["a", "s", "c", "h", HOSTILE, "empty", "y"]
    before = profile(open_frame(table(3)), names, target="y", sensitive=["s"])
    codes = codes_for(before.columns, before.sensitive)
    ours, spark = row_sample(here, codes, 1000), row_sample(there, codes, 1000)
    assert (ours.rows == spark.rows).all() and ours.rows.shape == (1000, len(codes)) and spark.total == N
    assert len(set(map(tuple, ours.rows.tolist()))) > 500
    small = replace(before, columns={"a": before.columns["a"]})
    cases: list[tuple[str, Any, dict[str, Any]]] = [
        ("s", before, {"hidden": True}),
        ("z", small, {}),
        (HOSTILE, small, {"names": ["'3\\", "'4\\"]}),
    ]
    for by, like, asked in cases:
        sides = [slice_profiles(one, by_value(by), like, **asked) for one in (here, there)]
        assert sides[0] == sides[1] and len(sides[0]) == 2, by


def test_different_values_are_counted_exactly_near_what_they_are_compared_with(
    here: Source, there: SparkSource
) -> None:
    for side in (here, there):
        assert distinct_counts(side, [HOSTILE, "s", "empty"], [0.9 * N]) == [N, 2, 0]


def test_population_is_the_same_on_both_engines(here: Source, there: SparkSource, tmp_path: Path) -> None:
    pq.write_table(table(2, 400), tmp_path / "people.parquet")
    (tmp_path / "groups.csv").write_text(
        "y,h,c,z,n\nyes,true,-3,2020-01-01 00:00:00+00,4\nno,false,1,2020-01-02 00:00:00+00,3\nno,,2,,2\n"
    )
    people, groups = (
        open_source(tmp_path / "people.parquet"),
        open_source(tmp_path / "groups.csv").as_text(frozenset("z")),
    )
    cases: list[dict[str, Any]] = [
        {"population": people, "max": 0.1, "columns": ["id", "a", "s", HOSTILE]},
        {"population": groups, "weight": "n", "max": 0.2},
    ]
    for asked in cases:
        sides = [told(population_checks(one, **asked)) for one in (here, there)]
        assert sides[0] == sides[1]
        assert {check["status"] for check in sides[0]} > {"failed"}


def test_sources_are_the_same_on_both_engines(here: Source, there: SparkSource) -> None:
    before = profile(open_frame(table(3)), sensitive=["s"]).columns
    for column, features in (("s", ["c", "a"]), (HOSTILE, ["s", "empty"])):
        asked: dict[str, Any] = {"target": "y", "features": [column, "y", *features], "max_rise": 0.01}
        asked["hidden"] = column == "s"
        sides = [told(origin_checks(one, column, before[column], **asked)) for one in (here, there)]
        assert sides[0] == sides[1], column
    assert sides[0][1]["details"]["rows"] > 1000


def test_personal_data_is_the_same_on_both_engines(here: Source, there: SparkSource) -> None:
    for sample in (500, N):
        sides = [told(personal_checks(one, sample=sample)) for one in (here, there)]
        assert sides[0] == sides[1]
        assert [check["name"] for check in sides[0]] == [f"personal.{HOSTILE}", "personal.card"]


def test_requests_are_held_against_the_same_shares(here: Source, there: SparkSource) -> None:
    features = [name for name in here.columns if name != "y"]
    values = {
        "a": [NAN, -1, 0.0, "0", INF, "x"],
        "s": ["?", "é'", None, "AB", 5, True],
        "c": [7, 2.5, "3", None, 10**400, True],
        "h": [True, "true", None, 1, [1], False],
        HOSTILE: ["'1\\", "a'?\0", None, "", "x", 1],
        "z": ["2020-01-01", "2020-01-01 00:00:00+00", None, "", "x", 5],
        "empty": [None, "", "x", "y", "z", 1],
        "id": [5, 5.0, "5", -1, None, True],
    }
    statuses = []
    for number in range(6):
        rows = [{name: each[number] for name, each in values.items()}] * 5
        sides = [told(serving_checks(one, features, Requests(rows=rows))) for one in (here, there)]
        assert sides[0] == sides[1], number
        statuses.append(sides[0][3]["reason"])
    assert all(statuses) and len(set(statuses)) == 6


@pytest.mark.parametrize("group", ["", "c"], ids=["alone", "in groups"])
def test_labels_are_the_same_on_both_engines(here: Source, there: SparkSource, group: str) -> None:
    features = ["a", "b", "s", "h", "z", HOSTILE, "empty"]
    asked: dict[str, Any] = {"max_share": 0.005, "sample": 1500, "group": group, "sensitive": ["s"]}
    sides = [told(label_checks(one, "y", features, **asked)) for one in (here, there)]
    assert sides[0] == sides[1]
    assert sides[0][0]["status"] == "failed" and sides[0][0]["details"]["examples"]
    skipped = [told(label_checks(one, HOSTILE, features, max_share=0.1)) for one in (here, there)]
    assert skipped[0] == skipped[1] and skipped[0][0]["status"] == "skipped"


def test_a_frame_has_no_row_numbers_and_leaves_no_view(session: Any, there: SparkSource) -> None:
    views = session.catalog.listTables("global_temp")
    bound_frame = open_spark_frame(session.sql("SELECT 1 AS a, 'x' AS b"))
    with pytest.raises(ConfigError, match="the rows of a DataFrame have no numbers"):
        personal_checks(bound_frame)
    assert session.catalog.listTables("global_temp") == views
