"""A crossed training: the code of one training on the data of another, in a checkout of its own."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mlcicd.config import FILE_NAME, Project, load_project
from mlcicd.core.digests import digest_tree
from mlcicd.core.errors import ConfigError, InputError, MlcicdError
from mlcicd.core.files import alone
from mlcicd.core.git import commits_that_name, worktree
from mlcicd.core.process import user_environment
from mlcicd.data.revision import at_revision
from mlcicd.registry import Registry
from mlcicd.registry.tracking import TAG, checked_digest
from mlcicd.stages.record import Record
from mlcicd.stages.train_data import by_dvc
from mlcicd.stages.train_one import (
    CODE_DIGEST,
    DATA_DIGEST,
    DATA_RECORD,
    Bench,
    Trained,
    fingerprint_of,
    of_cell,
    recorded_params,
    train_now,
)
from mlcicd.training.dvc_pipeline import Stage, read_pipeline
from mlcicd.training.matrix import Cell, cells

_COMMITS = 3


@dataclass(frozen=True)
class Origin:
    """What a training was made from, as its run tells it; empty where that does not say.

    Attributes:
        code: digest of all that it depends on but its data.
        data: digest of the training data's content.
        record: what DVC calls the data (an MD5); empty where it does not know them.
        parts: digests by part of the fingerprint, to say what differs.
    """

    run_id: str
    code: str
    data: str
    commit: str
    record: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_run(cls, registry: Registry, run_id: str) -> Origin:
        tags = registry.run_tags(run_id)
        try:
            parts = json.loads(tags.get(f"{TAG}fingerprint_parts", "") or "{}")
        except ValueError:
            parts = {}
        return cls(
            run_id,
            checked_digest(tags.get(CODE_DIGEST, "")),
            checked_digest(tags.get(DATA_DIGEST, "")),
            tags.get("mlflow.source.git.commit", ""),
            tags.get(DATA_RECORD, ""),
            parts if isinstance(parts, dict) else {},
        )


def find_crossed(registries: Sequence[Registry], code: Origin, data: Origin) -> tuple[str, str]:
    """The newest run with the code of one training and the data of another, and its model's digest; else two empty
    texts."""
    for registry in registries:
        run_id = registry.find_finished_run({CODE_DIGEST: code.code, DATA_DIGEST: data.data})
        digest = checked_digest(registry.run_tags(run_id).get(f"{TAG}model_digest", "")) if run_id else ""
        if digest:
            return run_id, digest
    return "", ""


def train_crossed(record: Record, registry: Registry, code: Origin, data: Origin) -> Trained:
    """Trains the code of one training on the data of another, in a run of the project's experiment.

    Nothing of the project's own folder changes. What is trained is held against the digests that the two runs recorded:
    a run that is not truly of this code and this data is never made.

    Raises:
        CommandFailed: the training failed.
        ConfigError, InputError: the code or the data can not be brought here as they were, and why.
        ServiceError: git, DVC or the registry failed, or another crossed training is running.
    """
    project = record.project
    folder = project.state / "crossed"
    with alone(project.state / "crossed.lock", "another crossed training"):
        _end_abandoned(record, registry, folder)
        with worktree(project.root, code.commit, folder) as root:
            crossed = _as_here(load_project(root, profile=project.profile, environ=project.environ), project)
            _place_data(project, crossed, data)
            cell = _cell_of(crossed, code)
            return _train(record, registry, _single_stages(crossed, cell), cell, data)


def _train(record: Record, registry: Registry, crossed: Project, cell: Cell, data: Origin) -> Trained:
    made_from = digest_tree(crossed.root / crossed.config.data.train)
    if made_from != data.data:
        raise InputError("the training data is not what the run recorded", where=crossed.config.data.train)
    bench = Bench(Record(crossed, "train", dry_run=False, progress=record.progress), registry)
    return train_now(bench, cell, bench.base(), recorded_params(crossed, cell))


def _as_here(crossed: Project, project: Project) -> Project:
    """The checkout's project, with the interpreter and the tracking server of the one that asks."""
    here = {"uri": project.tracking_uri, "artifacts": project.artifact_location or ""}
    tracking = crossed.config.tracking.model_copy(update=here)
    return replace(crossed, config=crossed.config.model_copy(update={"tracking": tracking, "python": project.python}))


def _place_data(project: Project, crossed: Project, data: Origin) -> None:
    """Puts the training data that a run had into a checkout, and beside it the holdout of now, which programs read."""
    target = _of_its_own(crossed, crossed.config.data.train)
    with tempfile.TemporaryDirectory(dir=project.state, prefix="data-") as temporary:
        _copy(_brought(project, data, Path(temporary)), target)
    for kind in ("holdout", "current"):
        here, there = (getattr(one.config.data, kind) for one in (project, crossed))
        if here and there and (project.root / here).exists():
            _copy(project.root / here, _of_its_own(crossed, there))


def _of_its_own(crossed: Project, name: str) -> Path:
    """Where a checkout has a data set. Raises ConfigError for one outside of it, which is the project's own."""
    target = crossed.root / name
    if not target.resolve().is_relative_to(crossed.root.resolve()):
        raise ConfigError(
            f"{name} lies outside of the project, so a crossed training can not have its own",
            file=FILE_NAME,
            remedy="keep the data in the project's folder, or leave out evaluate.attribution",
        )
    return target


def _brought(project: Project, data: Origin, folder: Path) -> Path:
    """Training data with the digest that a run recorded: what is here, else that of a commit, brought into a folder.

    Raises:
        InputError, ServiceError: no commit has it, or can not be read; of the first that was tried.
    """
    here = project.root / project.config.data.train
    if here.exists() and digest_tree(here) == data.data:
        return here
    first: MlcicdError | None = None
    # DVC is the project's, and need not be beside us.
    search = user_environment(project.environ, project.python, {}).get("PATH")
    for commit in _commits_of(project, data):
        try:
            (folder / commit).mkdir()
            found = at_revision(here, commit, folder / commit, search=search)
            if digest_tree(found) == data.data:
                return found
        except MlcicdError as error:
            first = first or error
        first = first or InputError(
            f"the data of commit {commit[:9]} is not what run {data.run_id[:8]} learned from",
            where=project.config.data.train,
            why="It was changed and not committed, or made by the training itself.",
        )
    raise first or InputError("the run names no commit that its data could be brought from", where=data.run_id)


def _commits_of(project: Project, data: Origin) -> list[str]:
    """Where a run's training data may be: its own commit, and those that record what DVC calls it.

    A training by DVC writes its lock, which is committed afterwards, if at all.
    """
    name = data.record.removesuffix(".dir")
    recorded = commits_that_name(project.root, name, "*dvc.lock", "*.dvc")[:_COMMITS] if name else []
    return list(dict.fromkeys(commit for commit in (data.commit, *recorded) if commit))


def _copy(source: Path, target: Path) -> None:
    """A copy, since a program may write into what it reads."""
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)


def _cell_of(crossed: Project, code: Origin) -> Cell:
    """The cell that makes a checkout's training the one that a run recorded.

    Raises:
        InputError: none does; it says what differs.
    """
    base = fingerprint_of(crossed)
    for cell in cells(crossed.config.train.matrix):
        if of_cell(base, cell).code_digest == code.code:
            return cell
    differing = [part for part in base.changed_from(code.parts) if part not in ("data", "pipeline", "matrix", "cell")]
    raise InputError(
        f"the commit {code.commit[:9]} is not what run {code.run_id[:8]} was trained from",
        why=f"Other than then: {', '.join(differing)}." if differing else "",
        remedy="train from a clean checkout, in the same environment",
    )


def _single_stages(crossed: Project, cell: Cell) -> Project:
    """Where DVC trains, it is to make the model alone: the stages before would make the data anew.

    Raises:
        ConfigError: the same stages make both, or DVC is handed the values of a matrix.
    """
    train = crossed.config.train
    if not by_dvc(crossed):
        return crossed
    stages = read_pipeline(crossed.root).making([train.artifact], apart_from=[crossed.config.data.train])
    if cell.key or not stages:
        raise ConfigError(
            "DVC can not make this model from other data by itself: "
            + ("its values come from train.matrix" if cell.key else "the stage that makes it makes the data, too"),
            file=FILE_NAME,
        )
    names = " ".join(f"{stage.file}:{stage.key}" for stage in _in_order(stages))
    run = train.model_copy(update={"run": f"dvc repro --single-item {names}"})
    return replace(crossed, config=crossed.config.model_copy(update={"train": run}))


def _in_order(stages: Sequence[Stage]) -> list[Stage]:
    """Stages after those whose outputs they read."""
    left, ordered = list(stages), list[Stage]()
    while left:
        ready = [s for s in left if not any(s.deps & other.outs for other in left if other is not s)] or left[:1]
        ordered += ready
        left = [stage for stage in left if stage not in ready]
    return ordered


def _end_abandoned(record: Record, registry: Registry, folder: Path) -> None:
    """Ends the run of a crossed training that was killed here."""
    for journal in folder.glob("**/.mlcicd/training-run"):
        left = replace(record.project, root=journal.parent.parent)
        Bench(Record(left, "train", dry_run=False, progress=record.progress), registry).end_abandoned()
