"""Leakage against slow readings, and inference against its own checks."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from mlcicd.core.errors import ConfigError, InputError
from mlcicd.core.verdict import Check
from mlcicd.data.checks import run_checks
from mlcicd.data.infer import infer_schema
from mlcicd.data.leakage import LeakageLimits, leakage_checks
from mlcicd.data.schema import parse_schema
from mlcicd.data.separability import category_auc, numeric_auc
from mlcicd.data.source import Source, open_source


def table(path: Path, columns: dict[str, Any]) -> Source:
    pq.write_table(pa.table(columns), path)
    return open_source(path)


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name.removeprefix("leakage."): check for check in checks}


ROW = st.tuples(st.none() | st.integers(0, 6), st.sampled_from("ab"), st.integers(0, 9))


@settings(deadline=None, max_examples=40)
@given(train=st.lists(ROW, min_size=1, max_size=15), holdout=st.lists(ROW, min_size=1, max_size=15))
def test_overlaps_and_order_agree_with_python(
    tmp_path_factory: pytest.TempPathFactory, train: list[Any], holdout: list[Any]
) -> None:
    folder = tmp_path_factory.mktemp("l")
    sources = [
        table(
            folder / f"{name}.parquet",
            {
                "k": pa.array([r[0] for r in rows], pa.int64()),
                "v": [r[1] for r in rows],
                "t": [datetime(2024, 1, 1) + timedelta(days=r[2]) for r in rows],
            },
        )
        for name, rows in (("train", train), ("holdout", holdout))
    ]
    limits = LeakageLimits(row_overlap=0.0)
    checks = by_name(leakage_checks(*sources, keys=["k"], time="t", limits=limits))
    known = {k for k, _, _ in train if k is not None}
    keyed = [k for k, _, _ in holdout if k is not None]
    shared = sum(k in known for k in keyed)
    assert checks["keys"].status == ("failed" if shared or not keyed else "passed")
    assert not keyed or checks["keys"].observed == shared
    rows = {r[1:] for r in train}
    assert checks["row_overlap"].details["rows"] == sum(r[1:] in rows for r in holdout)
    last = max(t for _, _, t in train)
    late = sum(t <= last for _, _, t in holdout)
    assert checks["time"].details["holdout_rows_before"] == late
    assert checks["time"].status == ("failed" if late else "passed")


def test_tables_of_different_formats_are_compared_by_value(tmp_path: Path) -> None:
    train = table(tmp_path / "a.parquet", {"k": [1, 2], "x": ["u", "v"]})
    (tmp_path / "b.csv").write_text("k,x\n2,v\n3,w\n")
    checks = by_name(leakage_checks(train, open_source(tmp_path / "b.csv"), keys=["k"]))
    assert checks["keys"].observed == 1
    (tmp_path / "c.csv").write_text("k,x\n2,v\nodd,w\n")  # the key is text here
    assert by_name(leakage_checks(train, open_source(tmp_path / "c.csv"), keys=["k"]))["keys"].observed == 1


@settings(deadline=None, max_examples=60)
@given(
    pairs=st.lists(st.tuples(st.integers(-20, 20).map(float), st.booleans()), min_size=2, max_size=80).filter(
        lambda pairs: len({flag for _, flag in pairs}) == 2
    )
)
def test_auc_of_ordered_values_agrees_with_sklearn(pairs: list[tuple[float, bool]]) -> None:
    p: dict[float, int] = {}
    n: dict[float, int] = {}
    for value, flag in pairs:
        side = p if flag else n
        side[value] = side.get(value, 0) + 1
    exact = roc_auc_score([flag for _, flag in pairs], [value for value, _ in pairs])
    got = numeric_auc(p, n)
    assert got >= max(exact, 1 - exact) - 1e-12
    if len(pairs) < 40:  # too few for bins in the order of their rates
        assert got == pytest.approx(max(exact, 1 - exact))


def test_rare_labels_do_not_look_separable() -> None:
    random = np.random.default_rng(1)
    flags = random.random(200_000) < 0.001
    values = random.integers(0, 3000, 200_000)
    p, n = (
        dict(zip(*(x.tolist() for x in np.unique(values[m], return_counts=True)), strict=True)) for m in (flags, ~flags)
    )
    assert numeric_auc(p, n) < 0.7
    assert category_auc({str(k): v for k, v in p.items()}, {str(k): v for k, v in n.items()}) < 0.7


def labelled(rows: int = 5000, seed: int = 1) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    label = random.random(rows) < 0.2
    return {
        "honest": random.normal(label * 1.0, 1),
        "monotone": label + random.normal(0, 0.1, rows),
        "folded": np.where(label, random.choice([-5.0, 5.0], rows), 0) + random.normal(0, 0.1, rows),
        "gaps": pa.array(random.normal(0, 1, rows), mask=label),
        "word": np.where(label, "late", random.choice(["on time", "early"], rows)),
        "plain": random.choice(["a", "b", "c"], rows),
        "text": [f"row {i}" for i in range(rows)],
        "label": label,
    }


def test_features_that_know_the_label_are_named(tmp_path: Path) -> None:
    train, holdout = (table(tmp_path / f"{seed}.parquet", labelled(seed=seed)) for seed in (1, 2))
    checks = leakage_checks(train, holdout, target="label")
    leaks = {c.details["column"] for c in checks if c.name.startswith("leakage.target.")}
    assert leaks == {"monotone", "folded", "gaps", "word"}
    clean = by_name(leakage_checks(train, holdout, target="label", features=["honest", "plain", "text"]))
    assert clean["target"].status == "passed"
    assert clean["target"].details["not_examined"] == ["text"]
    assert "'honest'" in clean["target"].reason
    unseen = by_name(leakage_checks(train, holdout, target="label", features=["text"]))
    assert unseen["target"].status == "inconclusive"


def test_numeric_and_many_class_targets(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    price = random.lognormal(0, 1, 4000)
    kind = random.choice(["x", "y", "z"], 4000)
    columns = {"copy": price * 3, "other": random.normal(0, 1, 4000), "code": np.where(kind == "x", 1, 0)}
    source = table(tmp_path / "a.parquet", columns | {"price": price, "kind": kind})
    for target, leak in (("price", "copy"), ("kind", "code")):
        names = [c.name for c in leakage_checks(source, source, target=target) if c.status == "failed"]
        assert f"leakage.target.{leak}" in names
        assert "leakage.target.other" not in names
    constant = table(tmp_path / "c.parquet", {"x": [1, 2], "y": [1, 1]})
    assert by_name(leakage_checks(constant, constant, target="y"))["target"].status == "failed"


def test_conflicting_labels_and_balance(tmp_path: Path) -> None:
    train = table(tmp_path / "a.parquet", {"x": [1, 1, 2, 3], "y": ["a", "b", "a", "a"]})
    holdout = table(tmp_path / "b.parquet", {"x": [7] * 4, "y": ["a", "a", "a", "z"]})
    checks = by_name(leakage_checks(train, holdout, target="y"))
    assert (checks["conflicts"].details["rows"], checks["conflicts"].status) == (2, "failed")
    assert checks["conflicts"].severity == "warn"
    assert (checks["balance"].status, checks["balance"].severity) == ("failed", "fail")
    assert checks["balance"].details["new_classes"] == ["z"]
    many = {"x": list(range(1000)), "y": [i % 10 == 0 for i in range(1000)]}
    other = {"x": list(range(1000)), "y": [i % 2 == 0 for i in range(1000)]}
    a, b = table(tmp_path / "c.parquet", many), table(tmp_path / "d.parquet", other)
    moved = by_name(leakage_checks(a, b, target="y"))["balance"]
    assert (moved.status, moved.observed) == ("failed", pytest.approx(0.4))


def test_empty_tables_and_unknown_columns(tmp_path: Path) -> None:
    full = table(tmp_path / "a.parquet", {"x": [1]})
    empty = table(tmp_path / "b.parquet", {"x": pa.array([], pa.int64())})
    assert [c.status for c in leakage_checks(full, empty)] == ["failed"]
    for option in ({"keys": ["y"]}, {"time": "y"}, {"target": "y"}, {"features": ["y"]}):
        with pytest.raises(ConfigError, match="'y'"):
            leakage_checks(full, full, **option)


def test_time_of_every_kind_and_of_none(tmp_path: Path) -> None:
    def order(a: list[Any], b: list[Any]) -> str:
        pair = [table(tmp_path / f"{i}.parquet", {"t": side}) for i, side in enumerate((a, b))]
        return str(by_name(leakage_checks(*pair, time="t"))["time"].status.value)

    assert order([1, 2], [3]) == "passed"
    assert order(["2024-01-01"], ["2024-01-02 10:00:00"]) == "passed"
    assert order(["2024-01-03"], ["2024-01-02"]) == "failed"
    assert order([1.0, math.nan], [3.0]) == "failed"
    assert order([1, None], [3]) == "failed"
    assert order(["x"], ["y"]) == "failed"


CELLS = {
    "f": st.none() | st.floats(width=64),
    "i": st.none() | st.integers(-(2**62), 2**62),
    "s": st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6),
    "b": st.none() | st.booleans(),
    "t": st.none() | st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1)),
}
TYPES = {"f": pa.float64(), "i": pa.int64(), "s": pa.string(), "b": pa.bool_(), "t": pa.timestamp("us")}


@settings(deadline=None, max_examples=25)
@given(data=st.data(), rows=st.integers(1, 60), repeat=st.sampled_from([1, 30]))
def test_a_table_passes_the_schema_inferred_from_it(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, rows: int, repeat: int
) -> None:
    columns = {
        name: pa.array(data.draw(st.lists(cells, min_size=rows, max_size=rows)) * repeat, TYPES[name])
        for name, cells in CELLS.items()
    }
    source = table(tmp_path_factory.mktemp("i") / "a.parquet", columns)
    text = infer_schema(source)
    failed = [c for c in run_checks(source, parse_schema(text)) if c.status not in ("passed", "skipped")]
    assert failed == [], text


def test_inference_finds_keys_categories_and_bounds(tmp_path: Path) -> None:
    rows = 1000
    columns = {
        "flight": [f"F{i}" for i in range(rows)],
        "carrier": [["AA", "DL", "UA"][i % 3] for i in range(rows)],
        "delay": [float(i % 50 - 10) for i in range(rows)],
        "part": [i % 50 for i in range(rows)],
    }
    schema = parse_schema(infer_schema(table(tmp_path / "a.parquet", columns)))
    assert schema.key == ["flight"]
    assert sorted(map(str, schema.columns["carrier"].members or [])) == ["AA", "DL", "UA"]
    low, high = schema.columns["delay"].min, schema.columns["delay"].max
    assert isinstance(low, int | float)
    assert isinstance(high, int | float)
    assert -20 < low < -10 < 39 < high < 50
    pair = {"day": [i // 50 for i in range(rows)], "slot": [i % 50 for i in range(rows)], "v": [0.5] * rows}
    assert sorted(parse_schema(infer_schema(table(tmp_path / "b.parquet", pair))).key) == ["day", "slot"]
    worse = table(tmp_path / "c.parquet", columns | {"carrier": ["XX", *columns["carrier"][1:]]})
    failed = [c.name for c in run_checks(worse, schema) if c.status == "failed"]
    assert failed == ["train.carrier.in"]


def test_inference_on_csv_and_on_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "n,empty,zip,when\n" + "".join(f"{i},,0{i % 7},2024-01-0{i % 9 + 1}\n" for i in range(90))
    )
    source = open_source(tmp_path / "a.csv")
    schema = parse_schema(infer_schema(source))
    assert [c for c in run_checks(source, schema) if c.status == "failed"] == []
    assert schema.columns["zip"].type == "string"
    assert schema.columns["when"].type == "date"
    (tmp_path / "b.csv").write_text("a,b\n")
    with pytest.raises(InputError, match="nothing to infer"):
        infer_schema(open_source(tmp_path / "b.csv"))
