"""The cells of `train.matrix` that a call of `train` is about."""

from __future__ import annotations

from mlcicd.config import FILE_NAME, Project
from mlcicd.core.errors import ConfigError
from mlcicd.core.yaml_lines import nearest
from mlcicd.stages.train_data import by_dvc
from mlcicd.training.matrix import Cell, cells, github_matrix


def matrix_json(project: Project) -> str:
    """`train.matrix` as JSON for `strategy.matrix` of a GitHub job.

    Raises:
        ConfigError: there is no matrix.
    """
    _need_matrix(project, "--matrix")
    return github_matrix(project.config.train.matrix)


def wanted_cells(project: Project, *, select: str, choose: bool) -> list[Cell]:
    """The selected cell, or all of them; of a project without a matrix, the one empty cell.

    Raises:
        ConfigError: there is no such cell or no matrix, or its values would not reach the training.
    """
    every = cells(project.config.train.matrix)
    if choose or select:
        _need_matrix(project, "--choose" if choose else "--select")
    if choose and select:
        raise ConfigError("--choose and --select exclude each other", remedy="choose after all cells are trained")
    _check_cells_differ(project)
    if not select:
        return every
    chosen = [cell for cell in every if cell.key == select]
    if not chosen:
        raise ConfigError(
            f"train.matrix has no cell {select!r}{nearest(select, [cell.key for cell in every])}",
            file=FILE_NAME,
            line=project.document.line(("train", "matrix")),
            remedy="`mlcicd train --matrix` prints the cells",
        )
    return chosen


def _need_matrix(project: Project, option: str) -> None:
    if not project.config.train.matrix:
        raise ConfigError(
            f"{option} needs train.matrix, and there is none",
            file=FILE_NAME,
            line=project.document.line(("train",)),
            remedy="add it, such as `matrix: {seed: [0, 1, 2]}` with `choose_by`",
        )


def _check_cells_differ(project: Project) -> None:
    """DVC does not see the variables of a cell: it would give each cell the first one's model."""
    settings = project.config.train
    if settings.matrix and by_dvc(project) and "MLCICD_" not in settings.run:
        raise ConfigError(
            f"`{settings.run}` would make the same model for every cell of train.matrix",
            file=FILE_NAME,
            line=project.document.line(("train", "run")),
            why="DVC takes a stage for done when its command, files and parameters are; it does not look at variables.",
            remedy="hand the values on: `dvc exp run -S train.depth=$MLCICD_PARAM_DEPTH`",
        )
