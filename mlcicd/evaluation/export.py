"""A model as ONNX, and how far it agrees with what it was made from."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlcicd.core.progress import SILENT, Progress
from mlcicd.evaluation.problem import Array
from mlcicd.evaluation.scoring import in_models_process, model_file, must_have_written

RUNNER = Path(__file__).with_name("export_runner.py")


def export_onnx(
    model: Path,
    rows: Path,
    out: Path,
    *,
    quantize: bool,
    metadata: Mapping[str, str],
    target: str,
    ignore: Sequence[str],
    python: str,
    environ: Mapping[str, str],
    cwd: Path,
    timeout: float,
    progress: Progress = SILENT,
) -> list[Any] | None:
    """Converts a model in the user's interpreter; gives its classes, where it knows them.

    Args:
        rows: a table whose columns tell names and types of the inputs.
        metadata: text by name that goes into the file.
        timeout: seconds.

    Raises:
        InputError: the model is of a kind that can not be converted, or a package is missing.
        CommandFailed: the converter failed.
    """
    found = model_file(model)
    with tempfile.TemporaryDirectory(prefix="mlcicd-export-") as temporary:
        plan, report = Path(temporary, "plan.json"), Path(temporary, "report.json")
        wanted = {
            "kind": found.kind,
            "model": str(found.path),
            "data": str(rows),
            "target": target,
            "ignore": list(ignore),
            "quantize": quantize,
            "metadata": dict(metadata),
            "out": str(out),
            "report": str(report),
        }
        plan.write_text(json.dumps(wanted), encoding="utf-8")
        done = in_models_process(
            [python, str(RUNNER), str(plan)], python=python, environ=environ, cwd=cwd, timeout=timeout,
            what="the export", progress=progress,
        )  # fmt: skip
        must_have_written(report, done, "model to export", found)
        classes: list[Any] | None = json.loads(report.read_text(encoding="utf-8"))["classes"]
        return classes


@dataclass(frozen=True)
class Agreement:
    """`agrees`: (n,) whether each row has the same class, and numbers within the tolerance. `largest`: the largest
    difference of two numbers, relative where they are above 1; NaN where there are none to compare."""

    agrees: Array
    largest: float
    problem: str = ""


def agreement(original: Array, exported: Array, classes: Sequence[Any] | None, tolerance: float) -> Agreement:
    """Compares the answers of a model with those of its export, row by row.

    Args:
        original: (n,) labels, values or scores of the positive class; or (n, k) numbers.
        exported: (n,) or (n, k); probabilities where the model is a classifier.
        classes: of the exported columns.
    """
    nobody = np.zeros(len(original), dtype=bool)
    if exported.shape[:1] != original.shape[:1]:
        return Agreement(nobody, np.nan, f"{len(exported)} answers for {len(original)} rows")
    if original.ndim == 1 and exported.ndim == 2:
        if _labels(original, classes):
            codes = exported.argmax(axis=1) if exported.shape[1] > 2 else (exported[:, 1] >= 0.5).astype(int)
            return Agreement(original.astype(str) == np.asarray(classes).astype(str)[codes], np.nan)
        if exported.shape[1] == 2:
            # A score of the positive class beside the probabilities of both.
            exported = exported[:, 1]
    if exported.shape != original.shape:
        return Agreement(nobody, np.nan, f"shape {list(exported.shape)} for {list(original.shape)}")
    if original.dtype.kind not in "biuf":
        return Agreement(original.astype(str) == exported.astype(str), np.nan)
    a, b = exported.astype(np.float64), original.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    apart = np.where(finite, np.abs(a - b) / np.maximum(1.0, np.abs(b)), np.inf)
    agrees: Array = np.asarray(apart <= tolerance)
    if original.ndim == 2:
        same = a.argmax(axis=1) == b.argmax(axis=1) if classes is not None else np.ones(len(a), dtype=bool)
        agrees = np.asarray(agrees.all(axis=1) & same)
    return Agreement(agrees, float(apart.max()) if apart.size else np.nan)


def _labels(original: Array, classes: Sequence[Any] | None) -> bool:
    """Whether an answer of one value a row is a class each, and not a score."""
    return classes is not None and bool(np.isin(original.astype(str), np.asarray(classes).astype(str)).all())
