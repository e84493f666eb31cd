"""Running a training and taking what it made."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlcicd.core.digests import digest_tree
from mlcicd.core.errors import CommandFailed, InputError
from mlcicd.core.model_format import find_model
from mlcicd.core.process import Completed, run_child, user_environment
from mlcicd.core.progress import SILENT, Progress
from mlcicd.core.yaml_lines import read_yaml

METER = Path(__file__).with_name("meter.py")
_PARAM_NAME = re.compile(r"[^\w ./-]")
_LAST_LINES = 15
# Of a line in a verdict: a program may print a megabyte without an end of line.
_LAST_CHARACTERS = 500
# What a shell reports for a command that signal 9 ended; on a CI machine that is mostly the want of memory.
_KILLED = 137


class TrainingFailed(CommandFailed):
    """The training command ended with an exit code of its own, `returncode` (negative: that signal)."""

    returncode = 0


@dataclass(frozen=True)
class Job:
    """What is run: its arguments, how a person calls it, and what it is given beside the project's own environment.

    `by_dvc`: DVC restores an unchanged output itself, and looks at what is there to know whether it must.
    """

    argv: Sequence[str]
    shown: str
    by_dvc: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    remedy: str = "run the command by hand in the project's folder, and mend it"


@dataclass(frozen=True)
class TrainingRun:
    """A finished training: where the model is, its digest, what it cost, and what it left running (and was ended)."""

    model: Path
    digest: str
    completed: Completed
    leftovers: tuple[str, ...] = ()


def run_training(
    root: Path,
    *,
    job: Job,
    artifact: str,
    python: str,
    environ: Mapping[str, str],
    tracking: Mapping[str, str],
    seed: int,
    timeout: float,
    interrupted: bool = False,
    progress: Progress = SILENT,
) -> TrainingRun:
    """Runs the job in the user's environment and checks that it wrote an MLflow model directory.

    What the last training left at `artifact` is moved away first, so that a command that writes nothing can not pass
    off an old model as a new one; when the command fails, it is put back.

    Args:
        tracking: `MLFLOW_TRACKING_URI` and `MLFLOW_RUN_ID`, so that the user's own `mlflow.log_*` lands in this run.
        timeout: seconds.
        interrupted: the last training here was killed; what it left of a model is removed.

    Raises:
        CommandFailed: it failed, or it left no model.
        InputError: something that is no model stands where the model is to be.
    """
    target = root / artifact
    kept = target.with_name(f".{target.name}.before")
    _clear(target, kept, artifact, by_dvc=job.by_dvc, interrupted=interrupted)
    env = user_environment(
        environ,
        python,
        {
            **tracking,
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            **job.environment,
            "MLCICD_SEED": str(seed),
            "PYTHONHASHSEED": str(seed),
        },
    )
    try:
        done, leftovers = _metered(job, root, env, timeout, progress)
        if done.returncode != 0:
            error = TrainingFailed(
                f"the training command {_ending(done.returncode)}",
                where=job.shown,
                why="" if done.tail else "It printed nothing.",
                log=_last(done.tail),
                remedy=job.remedy,
            )
            error.returncode = done.returncode
            raise error
        _check_model(target, artifact, job, done.tail)
    except BaseException:
        if kept.exists():
            _remove(target)
            kept.rename(target)
        raise
    _remove(kept)
    # Bytecode depends on paths and times: it is not part of a model.
    for folder in sorted(target.rglob("__pycache__")):
        shutil.rmtree(folder)
    return TrainingRun(target, digest_tree(target), done, leftovers)


def read_params(path: Path) -> dict[str, str]:
    """Parameters of a YAML or JSON file as flat `a.b: value` pairs, for the run's record.

    Raises:
        InputError: it can not be read.
        ConfigError: it is not YAML (JSON is) with a mapping at the top.
    """
    return flat_params(read_yaml(path, file=path.name, environ={}, interpolate=False).data)


def flat_params(params: Mapping[str, Any]) -> dict[str, str]:
    """Nested parameters as flat `a.b: value` pairs; characters that MLflow takes in no name become underscores."""
    flat: dict[str, str] = {}

    def walk(prefix: str, value: object) -> None:
        if isinstance(value, Mapping):
            for key, item in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), item)
        else:
            flat[_PARAM_NAME.sub("_", prefix)] = json.dumps(value) if isinstance(value, list) else str(value)

    walk("", params)
    return flat


def _clear(target: Path, kept: Path, artifact: str, *, by_dvc: bool, interrupted: bool) -> None:
    """Moves the last model away. A training that was killed left the model before it at `kept`, and half of one."""
    if kept.exists():
        _remove(target)
        kept.rename(target)
    if target.is_symlink() and not by_dvc:
        raise InputError(
            f"{artifact} is a symbolic link, and a model is written there",
            where=str(target),
            why="What it names may be changed without a trace here.",
            remedy="remove the link, or name another folder under train.artifact",
        )
    if not target.exists() or by_dvc:
        return
    if not _is_model(target):
        if not interrupted and (target.is_file() or any(target.iterdir())):
            raise InputError(
                f"{artifact} is no model, and a model is to be written there",
                where=str(target),
                why="It was left as it is: what stands there may be yours.",
                remedy="correct train.artifact, or remove it",
            )
        _remove(target)
        return
    target.rename(kept)


def _metered(
    job: Job, root: Path, env: Mapping[str, str], timeout: float, progress: Progress
) -> tuple[Completed, tuple[str, ...]]:
    """Runs the job under the meter: its figures are those of the whole tree of processes, which ends with it."""
    with tempfile.TemporaryDirectory(prefix="mlcicd-train-") as temporary:
        figures = Path(temporary, "figures.json")
        done = run_child(
            [sys.executable, "-I", "-S", str(METER), str(figures), *job.argv],
            cwd=root,
            env=env,
            timeout=timeout,
            what="training",
            progress=progress,
        )
        try:
            known = json.loads(figures.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return done, ()
    return (
        replace(done, **{key: known[key] for key in ("wall_seconds", "cpu_seconds", "peak_bytes")}),
        tuple(known["leftovers"]),
    )


def _check_model(target: Path, artifact: str, job: Job, tail: Sequence[str]) -> None:
    if target.is_symlink() and not job.by_dvc:
        raise CommandFailed(
            f"the training command left a symbolic link at {artifact}, not a model",
            where=job.shown,
            why="What it names may be changed without a trace here.",
            remedy="save the model itself there",
        )
    if not _is_model(target):
        raise CommandFailed(
            f"the training command ended well, and left no MLflow model at {artifact}",
            where=job.shown,
            log=_last(tail),
            remedy="save it there with mlflow.<flavour>.save_model (or as one file of a kind that `evaluate` knows, "
            "alone in that folder), or correct train.artifact",
        )


def _last(lines: Sequence[str]) -> list[str]:
    return [line if len(line) <= _LAST_CHARACTERS else f"{line[:_LAST_CHARACTERS]}…" for line in lines[-_LAST_LINES:]]


def _is_model(folder: Path) -> bool:
    """Whether a folder is a model: one that MLflow saved, or one file of a kind that can be scored, alone."""
    if (folder / "MLmodel").is_file():
        return True
    if not folder.is_dir() or len(list(folder.iterdir())) != 1:
        return False
    try:
        find_model(folder)
    except InputError:
        return False
    return True


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _ending(returncode: int) -> str:
    if returncode < 0:
        return f"was killed by signal {-returncode}" + (" (out of memory?)" if returncode == -9 else "")
    return f"ended with exit code {returncode}" + (" (killed: out of memory?)" if returncode == _KILLED else "")
