"""Predictions of a model on a data set, computed in the user's interpreter and kept by content."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from mlcicd.core.digests import digest_file, digest_json
from mlcicd.core.errors import CommandFailed, InputError
from mlcicd.core.model_format import ModelFile, find_model, is_callable_name
from mlcicd.core.process import Completed, run_child, user_environment
from mlcicd.core.progress import SILENT, Progress
from mlcicd.evaluation import prediction_cache

RUNNER = Path(__file__).with_name("score_runner.py")
LOADERS = Path(__file__).with_name("score_loaders.py")


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
    questions: Path | Callable[[], Path],
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
        model: a directory or a file; or a path that does not exist, whose last part is `module:function`.
        questions: the rows, without the target; a function that writes them is called only if they are needed.
        data_digest: of the data set that the rows are from.
        what: `candidate` or `champion`, for messages.
        timeout: seconds.

    Raises:
        CommandFailed: the model could not be loaded, or failed while it predicted.
        InputError: the data can not be scored with this model (columns missing, unknown format).
    """
    found = model_file(model)
    # A function may ask anything, a service even: what it answered once says nothing about now.
    keep = found.kind != "callable"
    key = _key(model_digest, data_digest, target, ignore, python)
    secret = prediction_cache.secret(environ) if keep else None
    known = prediction_cache.read(cache, key, secret)
    if known is not None:
        return Scored(*known, cached=True)
    rows = questions() if callable(questions) else questions
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".score-") as temporary:
        out, figures = Path(temporary, "out.npz"), Path(temporary, "figures.json")
        command = [python, str(RUNNER), "--kind", found.kind, "--model", _named(found)]
        command += ["--data", str(rows), "--target", target, "--out", str(out), "--figures", str(figures)]
        for column in ignore:
            command += ["--ignore", column]
        done = in_models_process(
            command, python=python, environ=environ, cwd=cwd, timeout=timeout, what=f"scoring the {what}",
            progress=progress,
        )  # fmt: skip
        must_have_written(out, done, what, found)
        scored = read_scored(out, figures)
    prediction_cache.write(cache, key, scored.answer, scored.figures, secret)
    return scored


def model_file(model: Path) -> ModelFile:
    """The model that is meant; `module:function` is the last part of a path that does not exist."""
    if is_callable_name(model.name) and not model.exists():
        return ModelFile("callable", model)
    return find_model(model)


def _named(model: ModelFile) -> str:
    return model.path.name if model.kind == "callable" else str(model.path)


def _key(model_digest: str, data_digest: str, target: str, ignore: Sequence[str], python: str) -> str:
    """What predictions depend on: model, rows, columns, our runner, and the packages of the user's interpreter."""
    runner = [digest_file(file) for file in (RUNNER, LOADERS)]
    named = [model_digest, data_digest, target, sorted(ignore), runner, packages_beside(python)]
    return digest_json(named).replace(":", "-")


def packages_beside(python: str) -> list[str]:
    """Names and versions of what is installed beside an interpreter, as its folders say; none where it has no own."""
    prefix = Path(python).parent.parent
    return sorted(found.name for found in prefix.glob("lib/python*/site-packages/*.dist-info"))


def in_models_process(
    command: Sequence[str], *, python: str, environ: Mapping[str, str], cwd: Path, timeout: float, what: str,
    progress: Progress = SILENT,
) -> Completed:  # fmt: skip
    """Runs what loads a model, in the user's interpreter, without what gives access to the registry.

    Args:
        timeout: seconds.
        what: is run, for messages.

    Raises:
        CommandFailed, InputError: as `run_child`.
    """
    return run_child(
        command,
        cwd=cwd,
        env=user_environment(without_registry(environ), python, {"PYTHONDONTWRITEBYTECODE": "1"}),
        timeout=timeout,
        what=what,
        progress=progress,
    )


def must_have_written(out: Path, done: Completed, what: str, model: ModelFile) -> None:
    """Raises what a runner's end is, unless it ended well and left its file."""
    if done.returncode != 0 or not out.is_file():
        raise failure(what, model, done.returncode, done.tail)


def without_registry(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a model's process: without what gives access to the registry."""
    return {key: value for key, value in environ.items() if not key.startswith("MLFLOW_TRACKING_")}


def read_scored(out: Path, figures: Path) -> Scored:
    """What the runner has written.

    Raises:
        CommandFailed: it can not be read.
    """
    try:
        with np.load(out, allow_pickle=False) as arrays:
            answer = arrays["answer"]
        return Scored(answer, json.loads(figures.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise CommandFailed("the model's process ended well, and left no predictions", why=str(error)) from error


def failure(what: str, model: ModelFile, returncode: int, tail: Sequence[str]) -> CommandFailed | InputError:
    """The error that a runner's end is, by its exit code and last lines."""
    said = next((line.removeprefix("score: ") for line in reversed(tail) if line.startswith("score: ")), "")
    if said and returncode == 4:
        return InputError(said, where=f"the {what}", remedy="see the training code, or data.ignore in mlcicd.yaml")
    crash = "its file may be cut short; " if returncode < 0 else ""
    ending = f"killed by signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
    return CommandFailed(
        f"the {what}, {model.words}, could not be scored ({ending})" + (f": {said}" if said else ""),
        where=_named(model),
        why="" if tail else "It printed nothing.",
        log=tail[-15:],
        remedy=f"{crash}load the model and predict a few rows of the holdout by hand",
    )
