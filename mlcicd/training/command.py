"""Running the training command and taking what it made."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlcicd.core.digests import digest_tree
from mlcicd.core.errors import CommandFailed
from mlcicd.core.process import Completed, run_child, shell_command, user_environment
from mlcicd.core.progress import SILENT, Progress
from mlcicd.core.yaml_lines import read_yaml

_PARAM_NAME = re.compile(r"[^\w ./-]")


@dataclass(frozen=True)
class TrainingRun:
    """A finished training: where the model is, its digest, and what it cost."""

    model: Path
    digest: str
    completed: Completed


def run_training(
    root: Path,
    *,
    command: str,
    artifact: str,
    python: str,
    environ: Mapping[str, str],
    tracking: Mapping[str, str],
    seed: int,
    timeout: float,
    progress: Progress = SILENT,
) -> TrainingRun:
    """Runs the command in the user's environment and checks that it wrote an MLflow model directory.

    What the last training left at `artifact` is moved away first, so that a command that writes nothing can not pass
    off an old model as a new one; when the command fails, it is put back.

    Args:
        tracking: `MLFLOW_TRACKING_URI` and `MLFLOW_RUN_ID`, so that the user's own `mlflow.log_*` lands in this run.
        timeout: seconds.

    Raises:
        CommandFailed: it failed, or it left no model.
    """
    target = root / artifact
    kept = target.with_name(f".{target.name}.before")
    # DVC restores an unchanged output itself, and looks at what is there to know whether it must.
    by_dvc = command.split()[:1] == ["dvc"]
    if kept.exists() and not target.exists():
        kept.rename(target)
    if target.exists() and not by_dvc:
        shutil.rmtree(kept, ignore_errors=True)
        target.rename(kept)
    env = user_environment(
        environ,
        python,
        {
            **tracking,
            "MLCICD_SEED": str(seed),
            "PYTHONHASHSEED": str(seed),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
    )
    try:
        done = run_child(shell_command(command), cwd=root, env=env, timeout=timeout, what="training", progress=progress)
        if done.returncode != 0:
            raise CommandFailed(
                f"the training command {_ending(done.returncode)}",
                where=command,
                why="" if done.tail else "It printed nothing.",
                log=done.tail[-15:],
                remedy="run the command by hand in the project's folder, and mend it",
            )
        if not (target / "MLmodel").is_file():
            raise CommandFailed(
                f"the training command ended well, and left no MLflow model at {artifact}",
                where=command,
                remedy="save it there with mlflow.<flavour>.save_model, or correct train.artifact",
            )
    except BaseException:
        if kept.exists():
            shutil.rmtree(target, ignore_errors=True)
            kept.rename(target)
        raise
    shutil.rmtree(kept, ignore_errors=True)
    # Bytecode depends on paths and times: it is not part of a model.
    for folder in sorted(target.rglob("__pycache__")):
        shutil.rmtree(folder)
    return TrainingRun(target, digest_tree(target), done)


def read_params(path: Path) -> dict[str, str]:
    """Parameters of a YAML or JSON file as flat `a.b: value` pairs, for the run's record.

    Characters that MLflow does not take in a name become underscores.

    Raises:
        InputError: it can not be read.
        ConfigError: it is not YAML (JSON is) with a mapping at the top.
    """
    data = read_yaml(path, file=path.name, environ={}, interpolate=False).data
    flat: dict[str, str] = {}

    def walk(prefix: str, value: object) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), item)
        else:
            flat[_PARAM_NAME.sub("_", prefix)] = json.dumps(value) if isinstance(value, list) else str(value)

    walk("", data)
    return flat


def _ending(returncode: int) -> str:
    if returncode < 0:
        return f"was killed by signal {-returncode}" + (" (out of memory?)" if returncode == -9 else "")
    return f"ended with exit code {returncode}"
