"""Predictions of a model on a data set, computed in the user's interpreter and kept by content."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlcicd.core.digests import digest_file, digest_json
from mlcicd.core.errors import CommandFailed, InputError
from mlcicd.core.process import run_child, user_environment
from mlcicd.core.progress import SILENT, Progress

RUNNER = Path(__file__).with_name("score_runner.py")


@dataclass(frozen=True)
class Scored:
    """What a model answered: `answer` of shape (n,) or (n, k), and the runner's figures.

    `figures` holds `load_seconds`, `score_seconds`, `latencies_ms` (one row at a time), `peak_bytes`, `classes` (the
    order of the score columns, or None) and `features` (the columns that the model was given).
    """

    answer: np.ndarray[Any, Any]
    figures: Mapping[str, Any]
    cached: bool = False


def score(
    model: Path,
    questions: Path,
    *,
    model_digest: str,
    data_digest: str,
    target: str,
    ignore: Sequence[str],
    python: str,
    environ: Mapping[str, str],
    cache: Path,
    cwd: Path,
    timeout: float,
    what: str,
    progress: Progress = SILENT,
) -> Scored:
    """Scores rows with `model`, or takes what the same bytes answered before.

    The model's process gets neither the labels nor what gives access to the registry.

    Args:
        questions: the rows, without the target.
        data_digest: of the data set that the rows are from.
        what: `candidate` or `champion`, for messages.
        timeout: seconds.

    Raises:
        CommandFailed: the model could not be loaded, or failed while it predicted.
        InputError: the data can not be scored with this model (columns missing, unknown format).
    """
    key = digest_json([model_digest, data_digest, target, sorted(ignore), digest_file(RUNNER)]).replace(":", "-")
    kept = cache / f"{key}.npz"
    figures_file = cache / f"{key}.json"
    if kept.is_file() and figures_file.is_file():
        try:
            return _read(kept, figures_file, cached=True)
        except (OSError, ValueError, KeyError):
            kept.unlink(missing_ok=True)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".score-") as temporary:
        out, figures = Path(temporary, "out.npz"), Path(temporary, "figures.json")
        command = [python, str(RUNNER), "--model", str(model), "--data", str(questions), "--target", target]
        command += ["--out", str(out), "--figures", str(figures)]
        for column in ignore:
            command += ["--ignore", column]
        done = run_child(
            command,
            cwd=cwd,
            env=user_environment(_without_registry(environ), python, {"PYTHONDONTWRITEBYTECODE": "1"}),
            timeout=timeout,
            what=f"scoring the {what}",
            progress=progress,
        )
        if done.returncode != 0 or not out.is_file():
            raise _failure(what, model, done.returncode, done.tail)
        scored = _read(out, figures, cached=False)
        # Figures first: the pair counts from the moment the predictions are there.
        figures.replace(figures_file)
        out.replace(kept)
    return scored


def _without_registry(environ: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in environ.items() if not key.startswith("MLFLOW_TRACKING_")}


def _read(out: Path, figures: Path, *, cached: bool) -> Scored:
    with np.load(out, allow_pickle=False) as arrays:
        answer = arrays["answer"]
    return Scored(answer, json.loads(figures.read_text(encoding="utf-8")), cached)


def _failure(what: str, model: Path, returncode: int, tail: Sequence[str]) -> CommandFailed | InputError:
    said = next((line.removeprefix("score: ") for line in reversed(tail) if line.startswith("score: ")), "")
    if said and returncode == 4:
        return InputError(said, where=f"the {what}", remedy="see the training code, or data.ignore in mlcicd.yaml")
    ending = f"killed by signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
    return CommandFailed(
        f"the {what} could not be scored ({ending})" + (f": {said}" if said else ""),
        where=str(model),
        why="" if tail else "It printed nothing.",
        log=tail[-15:],
        remedy="load the model and predict a few rows of the holdout by hand",
    )
