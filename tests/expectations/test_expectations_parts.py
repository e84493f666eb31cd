"""The Brier score's parts, changed rows, violations, signatures, sketches and wear, each by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcicd.core.errors import InputError
from mlcicd.core.verdict import CheckStatus
from mlcicd.data.perturbed import Edit, Sample, Variant
from mlcicd.data.row_sketch import RowSketch, row_sketch
from mlcicd.data.source import open_source
from mlcicd.evaluation.behaviour import Drop, changed, judge_drop, judge_share, metric_drop, moved
from mlcicd.evaluation.brier import calibration_parts
from mlcicd.evaluation.predictions import Predictions
from mlcicd.evaluation.signature_change import Signature, compare, read_signature
from mlcicd.evaluation.wear import worn_confidence

# --- the Brier score's parts


def test_parts_of_a_calibrated_model_have_no_bias_and_their_intervals_hold() -> None:
    """True reliability 0, resolution 1/12 for p uniform; uncorrected reliability would be about 15 * 0.167 / n."""
    reliabilities, resolutions, covered = [], [], 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        p = rng.random(600)
        parts = calibration_parts(rng.random(600) < p, p, resamples=400)
        reliabilities.append(parts.reliability.estimate)
        resolutions.append(parts.resolution.estimate)
        low, high = parts.resolution.interval(0.95)
        covered += low <= 1 / 12 <= high
    uncorrected = 15 * (1 / 6) / 600
    assert np.mean(reliabilities) < 0.5 * uncorrected  # not 0, because it is cut there
    # Bins lose what varies inside them: 1/12/15^2.
    assert np.mean(resolutions) == pytest.approx(1 / 12, abs=0.002)
    assert 0.92 <= covered / 300 <= 0.98


def test_parts_add_up_to_the_brier_score() -> None:
    rng = np.random.default_rng(3)
    p = rng.random(200_000)
    y = rng.random(200_000) < np.clip(0.3 + 0.5 * p, 0, 1)
    parts = calibration_parts(y, p)
    whole = parts.reliability.estimate - parts.resolution.estimate + parts.uncertainty
    assert whole == pytest.approx(float(np.mean((p - y) ** 2)), abs=0.003)
    assert parts.reliability.interval(0.95)[0] > 0.01


@pytest.mark.parametrize("score", [0.0, 0.5, 1.0])
def test_constant_scores_have_no_resolution(score: float) -> None:
    y = np.arange(100) % 2 == 0
    assert calibration_parts(y, np.full(100, score)).resolution.interval(0.95) == (0.0, 0.0)


# --- changed rows


def written(path: Path, variants: list[Variant], folder: Path, rows: list[int] | None = None) -> list[dict[str, Any]]:
    import pandas as pd

    source = open_source(path)
    with (
        Sample(source, "y", list(range(source.rows)) if rows is None else rows) as sample,
        sample.written(variants, folder) as file,
    ):
        read = pd.read_parquet if file.suffix == ".parquet" else pd.read_csv
        records: list[dict[str, Any]] = read(file).to_dict("records")
        return records


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A table with names and values that want to be SQL."""
    import pandas as pd

    n = 400
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "whole": rng.integers(0, 50, n),
            'real "x"; --': rng.normal(10, 2, n),
            "text'": rng.choice(["a'b", "c;d", "e"], n),
            "flag": rng.random(n) < 0.5,
            "when": pd.date_range("2026-01-01", periods=n, freq="h"),
            "y": rng.integers(0, 2, n),
        }
    )
    frame.to_parquet(tmp_path / "odd.parquet")
    return tmp_path / "odd.parquet"


def test_rows_keep_their_order_types_and_lose_the_target(odd: Path, tmp_path: Path) -> None:
    import pandas as pd

    rows = [0, 7, 8, 399]
    plain = written(odd, [Variant("plain")], tmp_path / "w", rows)
    assert plain == pd.read_parquet(odd).drop(columns="y").iloc[rows].to_dict("records")
    assert not list((tmp_path / "w").iterdir())


def test_noise_has_the_size_that_was_asked_for_and_stays_in_range(odd: Path, tmp_path: Path) -> None:
    name = 'real "x"; --'
    variants = [Variant("plain"), Variant("v", {name: Edit("noise", 0.1), "whole": Edit("noise", 1.0)})]
    both = written(odd, variants, tmp_path / "w")
    plain, noisy = both[:400], both[400:]
    moved_by = np.array([b[name] - a[name] for a, b in zip(plain, noisy, strict=True)])
    spread = np.std([a[name] for a in plain])
    assert np.std(moved_by) == pytest.approx(0.1 * spread, rel=0.15)
    assert all(isinstance(row["whole"], int) and 0 <= row["whole"] <= 49 for row in noisy)
    assert [r["text'"] for r in plain] == [r["text'"] for r in noisy]
    again = written(odd, variants, tmp_path / "w")
    assert again == both


def test_holes_swaps_and_given_rows(odd: Path, tmp_path: Path) -> None:
    variants = [
        Variant("holes", {"flag": Edit("missing", 0.3)}),
        Variant("swap", {"text'": Edit("swap", 1.0)}),
        Variant("one", given={"text'": "'); DROP TABLE sample; --", "whole": None}),
    ]
    rows = written(odd, variants, tmp_path / "w")
    assert len(rows) == 801
    assert 80 < sum(row["flag"] is None for row in rows[:400]) < 160
    before = [r["text'"] for r in written(odd, [Variant("plain")], tmp_path / "w")]
    after = [r["text'"] for r in rows[400:800]]
    assert 0.4 < np.mean([a != b for a, b in zip(before, after, strict=True)]) < 0.9
    assert set(after) == set(before)
    one = rows[800]
    assert one["text'"] == "'); DROP TABLE sample; --"
    assert np.isnan(one["whole"])
    assert 9 < one['real "x"; --'] < 11


def test_a_csv_stays_a_csv(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,g,y\n1,x,0\n2,,1\n,z,0\n")
    rows = written(tmp_path / "t.csv", [Variant("v", {"a": Edit("add", 2)})], tmp_path / "w")
    assert [row["a"] for row in rows[:2]] == [3, 4]
    assert np.isnan(rows[2]["a"])


# --- violations and drops


def test_what_is_not_a_number_violates() -> None:
    before = np.array([0.1, 0.2, 0.3])
    found = changed(before, np.array([0.1, np.nan, 0.35]), 0.1)
    assert (found.k, found.row) == (1, 1)
    assert moved(before, np.array([0.1, 0.25, 0.1]), "not_lower", 0.05).k == 1
    assert moved(before, np.array([0.1, 0.25, 0.1]), "not_higher", 0.04).k == 1


@pytest.mark.parametrize(
    ("k", "n", "allowed", "status"),
    [
        (0, 10, 0.0, CheckStatus.PASSED),
        (1, 10_000, 0.0, CheckStatus.FAILED),
        (0, 10, 0.05, CheckStatus.INCONCLUSIVE),
        (0, 1000, 0.05, CheckStatus.PASSED),
        (60, 1000, 0.05, CheckStatus.FAILED),
    ],
)
def test_shares_of_violations(k: int, n: int, allowed: float, status: CheckStatus) -> None:
    size = np.where(np.arange(n) < k, 1.0, 0.0)
    assert judge_share(changed(np.zeros(n), size, 0.5), allowed, 0.95)[0] is status


def test_drops_have_three_states_and_no_value_is_a_failure() -> None:
    def drop(low: float, value: float, high: float) -> Drop:
        return Drop(value, (low, high), 0.9, 0.9 - value, "higher")

    assert judge_drop(drop(0.0, 0.01, 0.02), 0.03) is CheckStatus.PASSED
    assert judge_drop(drop(0.02, 0.025, 0.04), 0.03) is CheckStatus.INCONCLUSIVE
    assert judge_drop(drop(0.04, 0.05, 0.06), 0.03) is CheckStatus.FAILED
    assert judge_drop(drop(0.0, 0.0, 0.0), 0.0) is CheckStatus.PASSED
    y = np.tile([0, 1], 50)
    scores = np.linspace(0, 1, 100)
    broken = np.where(np.arange(100) == 3, np.nan, scores)
    found = metric_drop("binary", "roc_auc", y, Predictions(scores=scores), Predictions(scores=broken), confidence=0.95)
    assert judge_drop(found, 1.0) is CheckStatus.FAILED
    assert "not finite" in found.reason


def test_a_drop_is_a_loss_whichever_way_the_metric_goes() -> None:
    rng = np.random.default_rng(1)
    y = rng.normal(size=500)
    good, bad = Predictions(labels=y + rng.normal(0, 0.1, 500)), Predictions(labels=y + rng.normal(0, 0.5, 500))
    for metric in ("mae", "r2"):
        found = metric_drop("regression", metric, y, good, bad, confidence=0.95)
        assert found.value > 0
        assert found.interval is not None
        assert found.interval[0] < found.value < found.interval[1]


# --- signatures


def signature(inputs: Any, outputs: Any = None) -> Signature:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        text = {"signature": {"inputs": json.dumps(inputs), "outputs": json.dumps(outputs or []), "params": None}}
        Path(folder, "MLmodel").write_text(json.dumps(text))
        return read_signature(Path(folder))


def column(name: str, kind: str = "double", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, "required": True, **more}


A, B = column("a"), column("b", "string")
OUT = [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 2]}}]
OUT3 = [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 3]}}]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ([A, B], [A], "the input 'b' is gone"),
        ([A, B], [A, column("c", "string")], "renamed?"),
        ([A, B], [A, column("b", "long")], "the input 'b' was string and is long"),
        ([A], [A, B], "new and required"),
        ([column("a", required=False)], [A], "was optional and is required"),
        ([column("a", "double")], [column("a", "float")], "was double and is float"),
    ],
)
def test_what_breaks_callers_is_named(old: list[Any], new: list[Any], words: str) -> None:
    changes = compare(signature(old, OUT), signature(new, OUT))
    assert len(changes.breaking) == 1
    assert words in changes.breaking[0]


@pytest.mark.parametrize(
    "new",
    [[A, B], [B, A], [A, B, column("c", required=False)], [column("a", required=False), B]],
)
def test_what_breaks_nobody_passes(new: list[Any]) -> None:
    assert compare(signature([A, B], OUT), signature(new, OUT)).breaking == ()
    assert compare(signature([column("n", "integer")]), signature([column("n", "long")])).breaking == ()


def test_other_outputs_break() -> None:
    assert "shape [-1, 2]" in compare(signature([A], OUT), signature([A], OUT3)).breaking[0]
    assert compare(signature([A], OUT), Signature(inputs=signature([A]).inputs)).breaking
    assert compare(signature([A], OUT), Signature()).breaking


@pytest.mark.parametrize(
    "text", ["signature: [1]", "signature: {inputs: '[3]'}", "signature: {inputs: '{'}", "- x", "{"]
)
def test_a_signature_that_can_not_be_read_is_an_input_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "MLmodel").write_text(text)
    with pytest.raises(InputError):
        read_signature(tmp_path)


# --- sketches of rows


@settings(max_examples=30, deadline=None)
@given(train=st.integers(50, 400), holdout=st.integers(50, 400), shared=st.integers(0, 50), kept=st.integers(10, 600))
def test_shared_rows_are_counted_among_those_in_reach(
    tmp_path_factory: pytest.TempPathFactory, train: int, holdout: int, shared: int, kept: int
) -> None:
    folder = tmp_path_factory.mktemp("sketch")
    first = [f"{i},t{i}" for i in range(train)]
    second = first[:shared] + [f"{i},h{i}" for i in range(holdout)]
    (folder / "a.csv").write_text("\n".join(["n,s", *first]) + "\n")
    (folder / "b.csv").write_text("\n".join(["n,s", *second]) + "\n")
    sketch = row_sketch(open_source(folder / "a.csv"), ["n", "s"], kept)
    again = RowSketch.from_json(json.loads(json.dumps(sketch.to_json())))
    found = again.shared_with(open_source(folder / "b.csv"))
    assert found.shared <= min(shared, found.looked)
    if kept >= train:
        assert (found.looked, found.shared) == (len(second), shared)
    halves = [RowSketch(sketch.columns, 0, sketch.below, part) for part in np.array_split(sketch.digests, 2)]
    assert np.array_equal(halves[0].merge(halves[1]).digests, sketch.digests)


def test_the_same_values_in_another_format_are_the_same_rows(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"n": [1, 2, 3], "x": [0.5, -0.0, 2.0], "s": ["a", "", None]})
    frame.to_parquet(tmp_path / "a.parquet")
    frame.astype({"n": "float32"}).to_parquet(tmp_path / "b.parquet")
    sketch = row_sketch(open_source(tmp_path / "a.parquet"), ["n", "s", "x"])
    assert sketch.shared_with(open_source(tmp_path / "b.parquet")).shared == 3
    assert len(sketch.digests) == 3


def test_a_sketch_does_not_grow_with_the_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n\n" + "\n".join(map(str, range(50_000))) + "\n")
    sketch = row_sketch(open_source(tmp_path / "a.csv"), ["n"])
    assert len(json.dumps(sketch.to_json())) < 200_000
    found = sketch.shared_with(open_source(tmp_path / "a.csv"))
    assert found.looked == found.shared == 16_384


# --- wear


def test_all_looks_together_err_no_more_than_the_budget_would() -> None:
    assert worn_confidence(0.95, 100, 100) == 0.95
    for judged in (101, 1000, 10**9):
        stricter = worn_confidence(0.95, judged, 100)
        assert 0.95 < stricter < 1
        assert judged > 10**6 or judged * (1 - stricter) <= 100 * 0.05 + 1e-9


def test_sampled_rows_are_the_ones_of_these_numbers_in_a_large_file(tmp_path: Path) -> None:
    import pandas as pd

    pd.DataFrame({"i": np.arange(400_000), "y": 0}).to_parquet(tmp_path / "t.parquet", row_group_size=20_000)
    rows = [0, 19_999, 20_000, 123_456, 399_999]
    found = written(tmp_path / "t.parquet", [Variant("plain")], tmp_path / "w", rows)
    assert [row["i"] for row in found] == rows
