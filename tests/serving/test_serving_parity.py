"""The server that runs, beside the model where it is evaluated."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlcicd.core.errors import InputError
from mlcicd.core.verdict import CheckStatus
from mlcicd.evaluation.golden import Golden, golden_rows
from mlcicd.serving.parity import compare_answers, difference_of


@pytest.mark.parametrize(
    ("answered", "expected", "difference"),
    [
        ({"predictions": [1.0, 2.0]}, np.array([1.0, 2.0]), 0.0),
        ({"predictions": [1.0, 200.0]}, np.array([1.0, 100.0]), 1.0),
        ({"predictions": [[0.25], [0.5]]}, np.array([0.25, 0.25]), 0.25),
        ({"predictions": [{"no": 0.5, "yes": 0.5}]}, np.array([[0.5, 0.5]]), 0.0),
        ({"predictions": {"score": [1]}}, np.array([1]), 0.0),
        ({"predictions": ["a", "b"]}, np.array(["a", "b"]), 0.0),
        ({"predictions": ["a", "c"]}, np.array(["a", "b"]), math.inf),
        ({"predictions": [None]}, np.array([1.0]), math.inf),
        ({"predictions": [math.nan]}, np.array([math.nan]), math.inf),
        ({"predictions": [1.0]}, np.array([1.0, 1.0]), math.inf),
        ({"predictions": [[1.0, 2.0], [1.0]]}, np.array([[1.0, 2.0], [1.0, 2.0]]), math.inf),
        ({"predictions": "text"}, np.array([1.0]), math.inf),
        ({"predictions": []}, np.array([]), math.inf),
        ({"error": "no"}, np.array([1.0]), math.inf),
    ],
)
def test_differences(answered: Any, expected: np.ndarray, difference: float) -> None:
    found, problem = difference_of(answered, expected)
    assert found == difference
    assert bool(problem) == math.isinf(difference)


def ask(model: Path, rows: pd.DataFrame, folder: Path) -> Golden:
    rows.to_parquet(folder / "rows.parquet")
    return golden_rows(
        model,
        folder / "rows.parquet",
        target="y",
        ignore=[],
        python=sys.executable,
        environ=dict(os.environ),
        cwd=folder,
        timeout=300,
    )


@pytest.mark.slow
def test_the_same_model_agrees_and_another_does_not(models: Path, launch: Callable[..., Any], tmp_path: Path) -> None:
    """Whole numbers where the signature wants doubles, and an empty cell among the words, in one row and by itself."""
    rows = pd.DataFrame({"x": range(30), "word": ["a", None, "c"] * 10})
    golden = ask(models / "scripted-1", rows, tmp_path)
    assert golden.body["dataframe_split"]["data"][:2] == [[0, "a"], [1, None]]
    assert golden.answer.tolist() == [x + 1.0 for x in range(30)]
    same = compare_answers(launch(models / "scripted-1").url, golden.body, golden.answer, tolerance=1e-9)
    assert (same.status, same.details["rows"], same.details["one_by_one"]) == (CheckStatus.PASSED, 30, 20), same
    other = compare_answers(launch(models / "scripted-2").url, golden.body, golden.answer, tolerance=1e-9)
    assert other.status is CheckStatus.FAILED
    assert (other.observed, "30 rows in one request: the answers differ by 1" in other.reason) == (1.0, True), other


@pytest.mark.slow
def test_a_server_that_errs_or_is_gone_does_not_pass(models: Path, launch: Callable[..., Any], tmp_path: Path) -> None:
    server = launch(models / "scripted-1")
    golden = ask(models / "scripted-1", pd.DataFrame({"x": [1.0, 2.0]}), tmp_path)
    raises = {"dataframe_split": {"columns": ["x"], "data": [[1.0], [-1.0]]}}
    check = compare_answers(server.url, raises, golden.answer, tolerance=1e9)
    # The model looks at the first row of a request alone: what it does to the second is seen one by one only.
    assert (check.status, check.reason.startswith("row 1 of them by itself: answered 500")) == (
        CheckStatus.FAILED,
        True,
    )
    nan = {"dataframe_split": {"columns": ["x"], "data": [[-2.0], [2.0]]}}
    assert compare_answers(server.url, nan, golden.answer, tolerance=1e9).status is CheckStatus.FAILED
    server.process.kill()
    server.process.wait()
    gone = compare_answers(server.url, golden.body, golden.answer, tolerance=1e9)
    assert (gone.status, "no answer" in gone.reason) == (CheckStatus.FAILED, True)
    with pytest.raises(InputError, match="binary or infinite"):
        ask(models / "scripted-1", pd.DataFrame({"x": [np.inf]}), tmp_path)
