"""Labels that are probably wrong: planted ones are found, and what is only hard to tell is left alone."""

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

from mlcicd.core.errors import ConfigError
from mlcicd.core.verdict import Check, CheckStatus
from mlcicd.data.confidence import suspicion
from mlcicd.data.label_quality import label_checks
from mlcicd.data.source import Source, open_source

ROWS = 1500


def table(path: Path, columns: dict[str, Any]) -> Source:
    pq.write_table(pa.table(columns), path)
    return open_source(path)


def looked_at(source: Source, **options: Any) -> Check:
    features = [name for name in source.columns if name not in ("y", "id")]
    (check,) = label_checks(source, "y", features, **{"max_share": 0.025, **options})
    return check


def numbers(seed: int, rows: int = ROWS) -> tuple[np.random.Generator, dict[str, Any]]:
    random = np.random.default_rng(seed)
    return random, {f"x{i}": random.normal(size=rows) for i in range(4)}


def test_planted_labels_are_found_and_shown(tmp_path: Path) -> None:
    random, columns = numbers(1)
    wrong = random.random(ROWS) < 0.06
    label = np.where((columns["x0"] + columns["x1"] > 0) ^ wrong, "late", "on time")
    source = table(tmp_path / "t.parquet", {"id": np.arange(ROWS), **columns, "y": label})
    check = looked_at(source, sensitive=["x1"])
    assert check.status is CheckStatus.FAILED
    assert check.severity == "warn"
    assert check.interval is not None
    assert 0.025 < check.interval[0] < wrong.mean() * 1.05
    assert check.details["checked"] == ROWS
    assert check.details["rows"] > 0.6 * wrong.sum()
    assert "labelled 'late' look like 'on time'" in check.reason
    shown = check.details["examples"]
    assert len(shown) == 5
    assert all(wrong[example["row"] - 1] for example in shown)
    for example in shown:
        given = label[example["row"] - 1]
        assert example["values"]["y"] == given != example["likely"]
        assert example["values"]["x1"] == "(redacted)"
        assert float(example["values"]["x0"]) == columns["x0"][example["row"] - 1]
        assert example["probability"] < 0.15
    assert [e["probability"] for e in shown] == sorted(e["probability"] for e in shown)
    hidden = looked_at(source, sensitive=["y"], sample=600)
    assert hidden.details["checked"] == 600
    assert "late" not in hidden.model_dump_json()


@pytest.mark.parametrize(("strength", "shift"), [(0.0, 0.0), (1.0, 0.0), (2.0, -3.0), (3.0, 0.0), (10.0, 0.0)])
def test_what_is_only_hard_to_tell_is_left_alone(tmp_path: Path, strength: float, shift: float) -> None:
    random, columns = numbers(2)
    chance = 1 / (1 + np.exp(-(strength * columns["x0"] + shift)))
    check = looked_at(table(tmp_path / "t.parquet", {**columns, "y": random.random(ROWS) < chance}))
    assert check.status in (CheckStatus.PASSED, CheckStatus.INCONCLUSIVE), check
    assert check.observed is not None
    assert float(check.observed) < 0.035


def test_columns_of_every_kind_with_their_worst_values(tmp_path: Path) -> None:
    random, columns = numbers(3)
    wrong = random.random(ROWS) < 0.08
    kind = random.integers(0, 3, ROWS)
    label = np.where(wrong, random.integers(0, 3, ROWS), kind)
    columns |= {
        'a "word"; --': pa.array([None if i % 9 == 0 else f"kind {k}" for i, k in enumerate(kind)]),
        "unique": [f"row {i}" for i in range(ROWS)],
        "broken": [(math.nan, math.inf, -math.inf, 1.0)[i % 4] for i in range(ROWS)],
        "when": [datetime(2024, 1, 1) + timedelta(hours=int(k)) for k in kind],
        "flag": pa.array([None if i % 5 == 0 else bool(k) for i, k in enumerate(kind)]),
        "nested": [[1]] * ROWS,
        "empty": pa.array([None] * ROWS, pa.float64()),
    }
    source = table(tmp_path / "t.parquet", {**columns, "y": pa.array(label, pa.float64(), mask=kind > 3)})
    check = looked_at(source)
    assert check.status is CheckStatus.FAILED
    assert check.details["rows"] == pytest.approx((label != kind).sum(), rel=0.25)


def test_copies_of_a_row_do_not_vouch_for_its_label(tmp_path: Path) -> None:
    random, columns = numbers(4, 500)
    wrong = random.random(500) < 0.06
    label = (columns["x0"] > 0) ^ wrong
    # Each copy has the wrong label, too, and differs only in the column of the group.
    group = np.tile(np.arange(500), 4)
    copies = {name: np.tile(values, 4) for name, values in columns.items()} | {"y": np.tile(label, 4)}
    check = looked_at(table(tmp_path / "t.parquet", copies))
    assert check.details["rows"] > 0.6 * 4 * wrong.sum()
    copies["x0"] = copies["x0"] + random.normal(0, 1e-9, 2000)
    grouped = table(tmp_path / "g.parquet", {**copies, "g": group})
    assert looked_at(grouped, group="g").details["rows"] > 0.6 * 4 * wrong.sum()
    with pytest.raises(ConfigError, match="did you mean 'g'"):
        looked_at(grouped, group="gg")


@pytest.mark.parametrize(
    ("label", "why"),
    [
        ([i / 7 for i in range(300)], "more than 20 different values"),
        ([[i % 2] for i in range(300)], "a list is no class"),
        ([1] * 300, "too few labelled rows of two classes"),
        ([i % 2 for i in range(100)], "too few labelled rows"),
        ([None if i % 2 else "a" for i in range(300)], "too few labelled rows"),
        (["rare" if i < 9 else "a" for i in range(300)], "too few labelled rows of two classes"),
    ],
    ids=["numbers", "lists", "one class", "few rows", "missing", "a rare class"],
)
def test_what_has_no_classes_is_skipped_and_says_why(tmp_path: Path, label: list[Any], why: str) -> None:
    check = looked_at(table(tmp_path / "t.parquet", {"x": list(range(len(label))), "y": label}))
    assert check.status is CheckStatus.SKIPPED
    assert why in check.reason


def test_without_features_it_is_skipped(tmp_path: Path) -> None:
    check = looked_at(table(tmp_path / "t.parquet", {"x": [[1]] * 300, "y": [0, 1] * 150}))
    assert (check.status, check.reason) == (CheckStatus.SKIPPED, "there are no features that trees can read")


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 2), st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(0, 20)), st.booleans()
        ),
        min_size=1,
        max_size=20,
    )
)
def test_suspicion_agrees_with_the_rule_said_plainly(rows: list[tuple[int, tuple[int, int, int], bool]]) -> None:
    chances = [[0.0] * 3 if unseen else [c / sum(parts) for c in parts] for _, parts, unseen in rows]
    labels = [label for label, _, _ in rows]
    usual = {}
    for j in range(3):
        own = [p[j] for p, label in zip(chances, labels, strict=True) if label == j and p[j] > 0]
        usual[j] = math.fsum(own) / len(own) if own else 1.0
    found = suspicion(np.array(chances), np.array(labels))
    for i, (p, label) in enumerate(zip(chances, labels, strict=True)):
        reached = [j for j in range(3) if p[j] > 0 and p[j] >= usual[j] - 1e-12]
        likely = max(reached, key=lambda j: (p[j], -j)) if reached else label
        close = any(abs(p[j] - usual[j]) < 1e-9 for j in range(3))
        if close or abs(p[label] - 0.15 * usual[label]) < 1e-9:
            continue  # where rounding decides
        assert found.judged[i] == (p[label] > 0)
        expected = p[label] > 0 and likely != label and p[label] < 0.15 * usual[label]
        assert found.suspicious[i] == expected
        assert found.likely[i] == (likely if expected else label)


def test_few_labels_among_many_rows_are_read_in_full(tmp_path: Path) -> None:
    random, columns = numbers(3, rows=20_000)
    label = np.where(columns["x0"] > 0, "a", "b").astype(object)
    label[random.random(20_000) > 0.05] = None
    check = looked_at(table(tmp_path / "t.parquet", {**columns, "y": pa.array(label)}), sample=500)
    assert check.details["checked"] == 500
