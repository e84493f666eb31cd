"""Models of every kind that is accepted, made by the real libraries, scored in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlcicd.core.digests import digest_tree
from mlcicd.core.errors import CommandFailed, InputError
from mlcicd.core.model_format import find_model
from mlcicd.evaluation import scoring
from mlcicd.evaluation.scoring import Scored, score

pytestmark = pytest.mark.slow

RUNNER = Path(scoring.__file__).with_name("score_runner.py")
MAKE = Path(__file__).with_name("make_models.py")
FILES = {
    "logistic": "logistic.joblib",
    "linear": "linear.pkl",
    "forest": "forest.skops",
    "boosted": "boosted.skops",
    "tensor": "tensor.onnx",
    "maps": "maps.onnx",
    "light": "light.txt",
    "trees_json": "trees_json.json",
    "trees_ubj": "trees_ubj.ubj",
    "own:chance": "own:chance",
    "own:doubled": "own:doubled",
}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    subprocess.run([sys.executable, str(MAKE), str(folder)], check=True, capture_output=True)
    return folder


def ask(models: Path, name: str, cache: Path, *, ignore: tuple[str, ...] = ("id",), python: str = "") -> Scored:
    path = models / name
    return score(
        path,
        models / "rows.parquet",
        model_digest=digest_tree(path) if path.exists() else "sha256:none",
        data_digest="sha256:rows",
        target="y",
        ignore=ignore,
        python=python or sys.executable,
        environ=dict(os.environ),
        cache=cache,
        cwd=models,
        timeout=300,
        what="candidate",
    )


@pytest.mark.parametrize("name", FILES)
def test_it_answers_as_its_own_library_does(models: Path, tmp_path: Path, name: str) -> None:
    expected = np.load(models / "answers.npz")[name]
    scored = ask(models, FILES[name], tmp_path)
    assert scored.answer.shape == expected.shape
    assert np.allclose(scored.answer, expected, atol=1e-5)
    if name in ("logistic", "forest", "maps"):
        assert scored.figures["classes"] == [0, 1]
    # A function may ask anything; of all others the answer is known now.
    assert ask(models, FILES[name], tmp_path).cached is (":" not in name)


def test_a_truncated_booster_ends_its_own_process_and_not_ours(models: Path, tmp_path: Path) -> None:
    text = (models / "light.txt").read_bytes()
    endings = []
    for share in (0.2, 0.5, 0.8):
        cut = tmp_path / f"cut{share}.txt"
        cut.write_bytes(text[: int(len(text) * share)])
        with pytest.raises(CommandFailed) as caught:
            ask(models, str(cut), tmp_path / "cache")
        endings.append(caught.value.one_line())
        assert "LightGBM booster, could not be scored" in endings[-1]
        assert not list((tmp_path / "cache").glob("[!.]*"))


@pytest.mark.parametrize("name", ["logistic.joblib", "forest.skops", "tensor.onnx", "trees_ubj.ubj"])
def test_a_truncated_file_of_any_kind_is_said_to_be_bad(models: Path, tmp_path: Path, name: str) -> None:
    cut = tmp_path / name
    cut.write_bytes((models / name).read_bytes()[:300])
    with pytest.raises((CommandFailed, InputError)) as caught:
        ask(models, str(cut), tmp_path / "cache")
    assert name in caught.value.where or "candidate" in caught.value.where


def test_a_missing_library_is_named(models: Path, tmp_path: Path) -> None:
    """An interpreter of the same packages, but for one."""
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "lightgbm.py").write_text("raise ModuleNotFoundError(\"No module named 'lightgbm'\", name='lightgbm')\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={blocked} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with pytest.raises(InputError, match="can not import lightgbm: install lightgbm there"):
        ask(models, "light.txt", tmp_path / "cache", python=str(python))


def test_a_column_too_many_for_a_model_without_names(models: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="takes 2 columns without names, and the data has 3"):
        ask(models, "tensor.onnx", tmp_path, ignore=())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere:chance", "there is no module 'nowhere'"),
        ("own:missing", "own has no 'missing'"),
        ("own:number", "own:number is a int, and no function"),
    ],
)
def test_a_function_that_is_none(models: Path, tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        ask(models, name, tmp_path)


def test_what_is_no_model_is_said_before_anything_runs(models: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("tree of life\n")
    (tmp_path / "data.json").write_text('{"a": 1}')
    (tmp_path / "two").mkdir()
    for suffix in ("onnx", "skops"):
        (tmp_path / "two" / f"m.{suffix}").write_bytes(b"x")
    for name, said in {
        "notes.txt": "kind that is known",
        "data.json": "kind that is known",
        "two": "2 files that could be the model",
        "nowhere": "there is no model here",
    }.items():
        with pytest.raises(InputError, match=said):
            find_model(tmp_path / name)
    (tmp_path / "two" / "m.onnx").unlink()
    assert find_model(tmp_path / "two").kind == "skops"


def test_whole_numbers_of_a_csv_are_doubles_to_a_signature_of_doubles(tmp_path: Path) -> None:
    """MLflow advises signatures of doubles, and refuses the integers that a CSV then holds."""
    import mlflow.sklearn
    import pandas as pd
    from mlflow.models import infer_signature
    from sklearn.linear_model import LogisticRegression

    table = pd.DataFrame({"age": [20.0, 30.0, 40.0, 50.0], "income": [1.5, 2.5, 3.5, 4.5]})
    model = LogisticRegression().fit(table, [0, 1, 0, 1])
    signature = infer_signature(table, model.predict_proba(table))
    mlflow.sklearn.save_model(model, tmp_path / "model", signature=signature, pyfunc_predict_fn="predict_proba")
    (tmp_path / "rows.csv").write_text("age,income,y\n20,1.5,0\n30,2.5,1\n")
    command = [sys.executable, str(RUNNER), "--kind", "mlflow", "--model", str(tmp_path / "model"), "--target", "y"]
    command += [
        "--data",
        str(tmp_path / "rows.csv"),
        "--out",
        str(tmp_path / "a.npz"),
        "--figures",
        str(tmp_path / "f"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answer = np.load(tmp_path / "a.npz")["answer"]
    assert np.allclose(answer, model.predict_proba(table.iloc[:2]))
