"""Golden rows: what a model answers in the user's interpreter, with the request that asks a server the same."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlcicd.core.progress import SILENT, Progress
from mlcicd.evaluation.problem import Array
from mlcicd.evaluation.scoring import RUNNER, in_models_process, model_file, must_have_written, read_scored


@dataclass(frozen=True)
class Golden:
    """`body` is a request of MLflow's scoring protocol with n rows; `answer`, (n,) or (n, k), what they get."""

    body: dict[str, Any]
    answer: Array


def golden_rows(
    model: Path,
    rows: Path,
    *,
    target: str,
    ignore: Sequence[str],
    python: str,
    environ: Mapping[str, str],
    cwd: Path,
    timeout: float,
    progress: Progress = SILENT,
) -> Golden:
    """Asks a model by the runner that evaluates it, and keeps the values it was given.

    Args:
        rows: a file with the rows, without the target.
        timeout: seconds.

    Raises:
        CommandFailed: the model could not be loaded, or failed.
        InputError: the rows do not fit the model, or have values that a request does not carry.
    """
    found = model_file(model)
    with tempfile.TemporaryDirectory(prefix="mlcicd-golden-") as temporary:
        out, figures, request = (Path(temporary, name) for name in ("out.npz", "figures.json", "request.json"))
        command = [python, str(RUNNER), "--kind", found.kind, "--model", str(found.path), "--data", str(rows)]
        command += ["--target", target, "--out", str(out), "--figures", str(figures), "--request", str(request)]
        for column in ignore:
            command += ["--ignore", column]
        done = in_models_process(
            command, python=python, environ=environ, cwd=cwd, timeout=timeout,
            what="asking the model for golden rows", progress=progress,
        )  # fmt: skip
        must_have_written(out, done, "model", found)
        return Golden(json.loads(request.read_text(encoding="utf-8")), read_scored(out, figures).answer)
