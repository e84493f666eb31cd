"""Models as ONNX: what they answer beside what they were made from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlcicd.core.digests import digest_tree
from mlcicd.core.errors import CommandFailed, InputError
from mlcicd.evaluation.export import agreement, export_onnx
from mlcicd.evaluation.scoring import Scored, score

MAKE = """\
import warnings; warnings.simplefilter("ignore")
import joblib, lightgbm, numpy as np, pandas as pd, xgboost
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression, LinearRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

draw = np.random.default_rng(4)
table = pd.DataFrame(draw.normal(size=(400, 3)), columns=["a", "b-c", "X"])
y = (table["a"] + 0.3 * draw.normal(size=400) > 0).astype(int)
words = table.assign(word=np.where(table["a"] > 0.1, "warm", "cold"))
words.assign(id=range(400)).to_parquet("rows.parquet")
table.assign(id=range(400)).to_parquet("numbers.parquet")
joblib.dump(LogisticRegression().fit(table, np.where(y, "late", "on time")), "logistic.joblib")
joblib.dump(LinearRegression().fit(table, 40 * table["X"]), "linear.joblib")
chosen = make_column_transformer((OneHotEncoder(), ["word"]), (StandardScaler(), ["a", "X"]))
joblib.dump(make_pipeline(chosen, LogisticRegression()).fit(words, y), "pipeline.joblib")
joblib.dump(MLPClassifier((128, 128), max_iter=20, random_state=0).fit(table, y), "network.joblib")
quiet = {"objective": "binary", "verbose": -1, "num_threads": 1}
lightgbm.train(quiet, lightgbm.Dataset(table, y), 10).save_model("light.txt")
lightgbm.train(quiet, lightgbm.Dataset(words.astype({"word": "category"}), y), 10).save_model("words.txt")
xgboost.XGBClassifier(n_estimators=5, n_jobs=1).fit(table, y).save_model("trees.json")
joblib.dump(len, "function.joblib")
"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("export")
    subprocess.run([sys.executable, "-c", MAKE], cwd=made, check=True, capture_output=True)
    return made


def common(folder: Path) -> dict[str, object]:
    return {
        "target": "y",
        "ignore": ["id"],
        "python": sys.executable,
        "environ": dict(os.environ),
        "cwd": folder,
        "timeout": 300,
    }


def convert(folder: Path, name: str, out: Path, *, rows: str = "numbers.parquet", quantize: bool = False) -> object:
    metadata = {"mlcicd.version": "7"}
    return export_onnx(folder / name, folder / rows, out, quantize=quantize, metadata=metadata, **common(folder))  # type: ignore[arg-type]


def ask(folder: Path, model: Path, rows: str, cache: Path) -> Scored:
    return score(
        model,
        folder / rows,
        model_digest=digest_tree(model),
        data_digest=rows,
        cache=cache,
        what="model",
        **common(folder),  # type: ignore[arg-type]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("logistic.joblib", "numbers.parquet"),
        ("linear.joblib", "numbers.parquet"),
        ("pipeline.joblib", "rows.parquet"),
        ("light.txt", "numbers.parquet"),
        ("trees.json", "numbers.parquet"),
    ],
)
def test_an_export_answers_as_the_original(folder: Path, tmp_path: Path, name: str, rows: str) -> None:
    """Columns whose names have a dash, or are the converter's own; text; classes that are words; boosters."""
    out = tmp_path / "model.onnx"
    classes = convert(folder, name, out, rows=rows)
    assert classes == {"logistic.joblib": ["late", "on time"], "pipeline.joblib": [0, 1]}.get(name)
    original, exported = (ask(folder, m, rows, tmp_path / "cache") for m in (folder / name, out))
    assert exported.figures["features"][:3] == ["a", "b-c", "X"]
    found = agreement(original.answer, exported.answer, classes, 1e-4)  # type: ignore[arg-type]
    assert (found.problem, bool(found.agrees.all())) == ("", True), found.largest
    assert found.largest < 1e-4


@pytest.mark.slow
def test_quantized(folder: Path, tmp_path: Path) -> None:
    whole, small = tmp_path / "whole.onnx", tmp_path / "small.onnx"
    convert(folder, "network.joblib", whole)
    convert(folder, "network.joblib", small, quantize=True)
    assert small.stat().st_size < 0.5 * whole.stat().st_size
    answers = [ask(folder, m, "numbers.parquet", tmp_path / "cache").answer for m in (whole, small)]
    found = agreement(answers[0], answers[1], [0, 1], 1e-6)
    assert 0 < found.largest < 0.1, "it is another model, and not a far one"
    with pytest.raises(InputError, match="nothing in this model can be quantized"):
        convert(folder, "logistic.joblib", small, quantize=True)


@pytest.mark.slow
def test_what_can_not_be_converted_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises((InputError, CommandFailed), match="can not be converted to ONNX"):
        convert(folder, "function.joblib", tmp_path / "model.onnx")
    with pytest.raises(InputError, match="'word' is text"):
        convert(folder, "words.txt", tmp_path / "model.onnx", rows="rows.parquet")
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize(
    ("original", "exported", "classes", "agrees"),
    [
        ([1.0, 100.0, 3.0], [1.0005, 100.05, 3.5], None, [True, True, False]),
        (["a", "b"], [[0.9, 0.1], [0.6, 0.4]], ["a", "b"], [True, False]),
        ([0, 1], [[0.5, 0.5], [0.4, 0.6]], [0, 1], [False, True]),
        ([0.2, 0.7], [[0.8, 0.2], [0.2, 0.8]], [0, 1], [True, False]),
        ([[0.5001, 0.4999]], [[0.4999, 0.5001]], ["a", "b"], [False]),
        ([[0.5001, 0.4999]], [[0.4999, 0.5001]], None, [True]),
        ([float("nan")], [float("nan")], None, [False]),
        (["a"], [["a", "b"]], None, [False]),
        ([1.0, 2.0], [1.0], None, [False, False]),
    ],
)
def test_rows_that_agree(original: list, exported: list, classes: list | None, agrees: list[bool]) -> None:
    assert agreement(np.array(original), np.array(exported), classes, 1e-3).agrees.tolist() == agrees
