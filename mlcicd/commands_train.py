"""`mlcicd train --matrix`: the cells of `train.matrix`, for a GitHub job; it is no stage, and leaves no verdict."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from mlcicd.cli import cli
from mlcicd.commands_shared import plainly

_train = cli.commands["train"]
_run_stage = _train.callback


def _matrix_or_stage(matrix: bool, **options: Any) -> None:
    assert _run_stage is not None
    if matrix:
        _print_matrix(options["working_directory"], options["profile"])
    else:
        _run_stage(**options)


@plainly
def _print_matrix(working_directory: Path, profile: str) -> None:
    from mlcicd.ci import detect_host
    from mlcicd.config import load_project
    from mlcicd.stages.train_cells import matrix_json

    text = matrix_json(load_project(working_directory, profile=profile))
    host = detect_host(os.environ)
    if host.name != "plain":
        host.outputs({"matrix": text})
    click.echo(text)


_train.params.append(
    click.Option(
        ["--matrix"],
        is_flag=True,
        default=False,
        envvar="MLCICD_INPUT_MATRIX",
        help="Train nothing: print the cells of train.matrix as JSON for `strategy.matrix` of a GitHub job.",
    )
)
_train.callback = _matrix_or_stage
