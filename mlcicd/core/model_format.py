"""What kind of model a file or a directory is, told from its name and first bytes; nothing of it is loaded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlcicd.core.errors import InputError

Kind = Literal["mlflow", "skops", "joblib", "onnx", "lightgbm", "xgboost", "callable"]

WORDS: dict[str, str] = {
    "mlflow": "an MLflow model",
    "skops": "a skops file",
    "joblib": "a pickled object",
    "onnx": "an ONNX model",
    "lightgbm": "a LightGBM booster",
    "xgboost": "an XGBoost booster",
    "callable": "a function of the project",
}
ACCEPTED = (
    "an MLflow model directory, or a file: .skops, .joblib, .pkl, .onnx, LightGBM text (.txt, .lgb), "
    "XGBoost (.json, .ubj); or module:function"
)
_SUFFIXES: dict[str, Kind] = {
    ".skops": "skops",
    ".joblib": "joblib",
    ".pkl": "joblib",
    ".pickle": "joblib",
    ".onnx": "onnx",
    ".ubj": "xgboost",
}
# Names that say nothing for sure: the first bytes decide.
_UNSURE = (".txt", ".lgb", ".lgbm", ".json", ".model", ".bst", ".xgb")
_CALLABLE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_HEAD = 4096


@dataclass(frozen=True)
class ModelFile:
    """A model on disk: `path` is the MLflow directory, or the one file that is the model."""

    kind: Kind
    path: Path

    @property
    def words(self) -> str:
        return WORDS[self.kind]


def is_callable_name(text: str) -> bool:
    """Whether a text has the form `module:function`."""
    return _CALLABLE.fullmatch(text) is not None


def find_model(path: Path) -> ModelFile:
    """The model at a path: a directory that MLflow saved, one file, or a directory with one such file in it.

    Raises:
        InputError: nothing is there, or it is none of these, or there is more than one.
    """
    if path.is_file():
        kind = _kind_of(path)
        if kind is None:
            raise InputError(
                f"this is not a model of a kind that is known ({path.suffix or 'no suffix'})",
                where=str(path),
                remedy=f"give {ACCEPTED}",
            )
        return ModelFile(kind, path)
    if not path.is_dir():
        raise InputError("there is no model here", where=str(path), remedy=f"give {ACCEPTED}")
    if (path / "MLmodel").is_file():
        return ModelFile("mlflow", path)
    found = [(kind, file) for file in sorted(path.iterdir()) if file.is_file() and (kind := _kind_of(file))]
    if len(found) == 1:
        return ModelFile(*found[0])
    names = ", ".join(file.name for _, file in found[:5])
    raise InputError(
        f"this directory has {len(found)} files that could be the model ({names})"
        if found
        else "this is not a model directory: it has no MLmodel file, and no file of a kind that is known",
        where=str(path),
        remedy=f"name the file, or give {ACCEPTED}",
    )


def _kind_of(file: Path) -> Kind | None:
    name = file.name.lower().removesuffix(".gz").removesuffix(".xz").removesuffix(".bz2")
    for suffix, kind in _SUFFIXES.items():
        if name.endswith(suffix):
            return kind
    if not name.endswith(_UNSURE):
        return None
    try:
        with file.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError as error:
        raise InputError(f"can not read it ({error.strerror})", where=str(file)) from error
    if head.startswith(b"tree\n") or head.startswith(b"tree\r\n"):
        return "lightgbm"
    # JSON, and the binary JSON that XGBoost writes, both open an object whose first key is the learner.
    if head.lstrip()[:1] == b"{" and b"learner" in head:
        return "xgboost"
    return None
