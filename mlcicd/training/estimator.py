"""A training without a training script: an estimator by its name."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlcicd.core.digests import digest_file
from mlcicd.training.command import Job

RUNNER = Path(__file__).with_name("estimator_runner.py")
# The runner's exit codes and the start of its lines.
USAGE, INPUT = 2, 4
SAYS = "train: "


@contextmanager
def estimator_job(
    *,
    python: str,
    estimator: str,
    params: Mapping[str, Any],
    task: str,
    data: str,
    target: str,
    ignore: Sequence[str],
    time: str,
    seed: int,
    artifact: str,
    validate: bool,
    environment: Mapping[str, str],
) -> Iterator[Job]:
    """The job that fits an estimator on a table and saves it; it can be run while the block lasts.

    Args:
        time: column whose latest rows are the validation split; empty for a drawn one.
        validate: measure on a validation split of the training data, and fit on all of it afterwards.
    """
    with tempfile.TemporaryDirectory(prefix="mlcicd-estimator-") as temporary:
        spec = Path(temporary, "spec.json")
        wanted = about(estimator, params, task, target, ignore) | {
            "data": data,
            "time": time,
            "seed": seed,
            "artifact": artifact,
            "validate": validate,
        }
        spec.write_text(json.dumps(wanted, default=str), encoding="utf-8")
        yield Job(
            [python, str(RUNNER), str(spec)],
            estimator,
            environment=environment,
            remedy="see the last lines, and train.params or the data",
        )


def about(estimator: str, params: Mapping[str, Any], task: str, target: str, ignore: Sequence[str]) -> dict[str, Any]:
    """What such a training depends on beside the data."""
    return {
        "estimator": estimator,
        "params": dict(params),
        "task": task,
        "target": target,
        "ignore": sorted(ignore),
        "runner": digest_file(RUNNER),
    }


def objection(tail: Sequence[str]) -> str:
    """What the runner said in its last words, without its prefix; empty when it said nothing."""
    return next((line.removeprefix(SAYS) for line in reversed(tail) if line.startswith(SAYS)), "")
