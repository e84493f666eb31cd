"""One training: reused where nothing changed, else run in an MLflow run of its own."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mlcicd.config import FILE_NAME, Project, seconds
from mlcicd.core.digests import digest_json, digest_tree
from mlcicd.core.errors import ConfigError, InputError, MlcicdError, redact
from mlcicd.core.files import write_atomic
from mlcicd.core.git import git_state
from mlcicd.core.process import Completed, shell_command
from mlcicd.core.yaml_lines import read_yaml
from mlcicd.registry import Registry
from mlcicd.registry.tracking import TAG
from mlcicd.stages.record import Record
from mlcicd.stages.train_data import bring_data, by_dvc
from mlcicd.training import DataNotHere, Fingerprint, Job, TrainingRun, fingerprint, run_training
from mlcicd.training.command import TrainingFailed, flat_params, read_params
from mlcicd.training.dvc_pipeline import Pipeline, read_pipeline
from mlcicd.training.estimator import INPUT, USAGE, about, estimator_job, objection
from mlcicd.training.matrix import Cell

_ATTEMPT = f"{TAG}attempt"
# Of everything that a training depends on but its data, and of the content of these: tags of its run.
CODE_DIGEST = f"{TAG}code_digest"
DATA_DIGEST = f"{TAG}data_digest"
# What DVC calls the data: with it, a commit is found that has them.
DATA_RECORD = f"{TAG}data_record"


@dataclass(frozen=True)
class Trained:
    """A cell's model: which run has it, where it is on this machine, and what it cost if it was trained just now."""

    cell: Cell
    run_id: str
    digest: str
    path: Path
    completed: Completed | None = None
    leftovers: tuple[str, ...] = ()

    @property
    def reused(self) -> bool:
        return self.completed is None


@dataclass
class Bench:
    """What the trainings of one call share.

    Args:
        train: false to take finished runs alone.
    """

    record: Record
    registry: Registry
    force: bool = False
    pull: bool = False
    train: bool = True
    interrupted: bool = False
    _ready: bool = field(default=False, init=False)

    @cached_property
    def pipeline(self) -> Pipeline:
        return read_pipeline(self.record.project.root)

    @property
    def journal(self) -> Path:
        return self.record.project.state / "training-run"

    def base(self) -> Fingerprint | None:
        """The project's fingerprint; None while its data is neither here nor recorded."""
        try:
            return fingerprint_of(self.record.project)
        except DataNotHere:
            return None

    def fingerprint_digest(self, cell: Cell) -> str:
        base = self.base()
        return of_cell(base, cell).digest if base is not None else ""

    def bring_data(self) -> None:
        if not self._ready:
            bring_data(self.record, self.pipeline, pull=self.pull)
            self._ready = True

    def end_abandoned(self) -> None:
        """Ends the run of a training that was killed here, so that it is not RUNNING for ever."""
        if self.journal.is_file() and not self.record.dry_run:
            attempt = self.journal.read_text(encoding="utf-8").strip()
            for run_id in self.registry.running_runs({_ATTEMPT: attempt}):
                self.registry.finish_run(run_id, "KILLED")
            self.journal.unlink(missing_ok=True)
            self.interrupted = True


def fingerprint_of(project: Project) -> Fingerprint:
    """What a training of the project would depend on now.

    Raises:
        DataNotHere: the training data is neither here nor known to DVC.
    """
    config = project.config
    train = config.train
    path = train.params if isinstance(train.params, str) else ""
    found = fingerprint(
        project.root,
        command=_estimator(project, Cell()) if train.estimator else train.run,
        code=[] if train.estimator else train.code,
        lock=train.lock,
        params=path,
        data=[config.data.train],
        python=project.python,
        seed=train.seed,
        makes=[train.artifact],
        by_dvc=by_dvc(project),
    )
    if not train.matrix:
        return found
    matrix = digest_json([train.matrix, train.choose_by, train.choose_direction])
    return replace(found, parts={**found.parts, "matrix": matrix})


def of_cell(base: Fingerprint, cell: Cell) -> Fingerprint:
    """The fingerprint of one cell: it does not depend on which other cells there are."""
    if not cell.key:
        return base
    parts = {name: digest for name, digest in base.parts.items() if name != "matrix"}
    return replace(base, parts={**parts, "cell": digest_json(cell.values)})


def what_is_run(project: Project) -> str:
    return project.config.train.run or project.config.train.estimator


def obtain(bench: Bench, cell: Cell) -> Trained | None:
    """The model of a cell: of an earlier run, or trained now; None in a dry run that would train.

    Raises:
        CommandFailed: the training failed.
        InputError: the data or the parameters are not here, or (without training) no run has the model.
    """
    record, settings = bench.record, bench.record.project.config.train
    base = bench.base()
    if base is not None and settings.reuse and not bench.force:
        found = _reuse(bench, cell, base)
        if found is not None:
            return found
    if not bench.train:
        raise InputError(
            f"no finished run has the cell {cell.key}",
            where="train.matrix",
            why="A cell is found by its fingerprint: it was not trained with this code, data and configuration, or in "
            "another tracking server.",
            remedy=f'run `mlcicd train --select "{cell.key}"` with the same tracking.uri',
        )
    params = recorded_params(record.project, cell)
    if record.dry_run:
        return None
    bench.bring_data()
    before = bench.base()
    if before is not None and settings.reuse and not bench.force and (base is None or before.parts != base.parts):
        # What `data.prepare` brought may be what an earlier run was trained with.
        found = _reuse(bench, cell, before)
        if found is not None:
            return found
    return train_now(bench, cell, before, params)


def _reuse(bench: Bench, cell: Cell, base: Fingerprint) -> Trained | None:
    """The model of an earlier run of the same fingerprint, if its artifact is still whole."""
    record, registry = bench.record, bench.registry
    run_id = registry.find_finished_run({f"{TAG}fingerprint": of_cell(base, cell).digest})
    tags = registry.run_tags(run_id) if run_id else {}
    digest = tags.get(f"{TAG}model_digest", "")
    if not digest:
        return None
    local = record.project.root / record.project.config.train.artifact
    if not (local.is_dir() and not local.is_symlink() and digest_tree(local) == digest):
        try:
            local = registry.fetch_model(run_id, record.project.model_cache, digest=digest)
        except MlcicdError as error:
            record.progress.step(f"run {run_id[:8]} has the same fingerprint, but {error.one_line()}: training again")
            return None
    _keep(record, base)
    _data_subject(record, tags.get(DATA_DIGEST, "") or bench.pipeline.records.digest(record.project.config.data.train))
    return Trained(cell, run_id, digest, local)


def train_now(bench: Bench, cell: Cell, before: Fingerprint | None, params: Mapping[str, str]) -> Trained:
    record, registry = bench.record, bench.registry
    project = record.project
    record.progress.step(f"training: {what_is_run(project)}")
    with run_of(bench, {"mlflow.source.git.commit": git_state(project.root).commit}) as run_id:
        data = "" if by_dvc(project) else digest_tree(project.root / project.config.data.train)
        made = train_in(bench, cell, run_id)
        # DVC's stages may have made the data just now; everything else is what it was when the training began.
        after = fingerprint_of(project)
        base = (
            replace(before, parts={**before.parts, "data": after.parts["data"]})
            if before and by_dvc(project)
            else before
        )
        base = base or after
        data = data or digest_tree(project.root / project.config.data.train)
        registry.log_params(run_id, params)
        registry.log_model(run_id, made.model)
        registry.tag_run(
            run_id,
            {
                f"{TAG}fingerprint": of_cell(base, cell).digest,
                f"{TAG}fingerprint_parts": json.dumps(of_cell(base, cell).parts),
                CODE_DIGEST: of_cell(base, cell).code_digest,
                f"{TAG}model_digest": made.digest,
                f"{TAG}model_path": project.config.train.artifact,
                DATA_DIGEST: data,
                DATA_RECORD: _record_of_data(project),
            },
        )
        _finish(registry, run_id, made.completed)
    _keep(record, base)
    _data_subject(record, data)
    return Trained(cell, run_id, made.digest, made.model, made.completed, made.leftovers)


def _record_of_data(project: Project) -> str:
    """The MD5 that DVC has recorded of the training data, or of the folder it is in; empty where it has none."""
    covering = read_pipeline(project.root).records.covering(project.config.data.train)
    return covering[1].md5 if covering is not None else ""


@contextmanager
def run_of(bench: Bench, tags: Mapping[str, str]) -> Iterator[str]:
    """A new MLflow run, which ends FAILED or KILLED when the block does not come to its end."""
    project, registry = bench.record.project, bench.registry
    attempt = secrets.token_hex(16)
    # The journal first: a death right after it leaves a name to look for, one before it leaves nothing.
    write_atomic(bench.journal, attempt)
    # What `${NAME}` has put into the command may be a secret, and everybody who reads the registry reads this.
    named = {_ATTEMPT: attempt, "mlflow.source.name": redact(what_is_run(project))}
    run_id = registry.start_run(project.config.model.name, {**named, **tags})
    try:
        yield run_id
    except KeyboardInterrupt:
        registry.finish_run(run_id, "KILLED")
        raise
    except MlcicdError:
        registry.finish_run(run_id, "FAILED")
        raise
    bench.journal.unlink(missing_ok=True)


def train_in(bench: Bench, cell: Cell, run_id: str, *, again: bool = False) -> TrainingRun:
    """Runs the training in a run that there is.

    Args:
        again: what is up to date is made anew, too.

    Raises:
        CommandFailed: it failed, or left no model.
        ConfigError: the estimator can not be made as the configuration says.
        InputError: the estimator can not be trained on this data.
    """
    project = bench.record.project
    config = project.config
    with _job(project, cell, again=again) as job:
        try:
            return run_training(
                project.root,
                job=job,
                artifact=config.train.artifact,
                python=project.python,
                environ=project.environ,
                tracking={"MLFLOW_TRACKING_URI": project.tracking_uri, "MLFLOW_RUN_ID": run_id},
                seed=cell.seed(config.train.seed),
                timeout=seconds(config.train.timeout),
                interrupted=bench.interrupted,
                progress=bench.record.progress,
            )
        except TrainingFailed as error:
            raise _told(project, error) from None


def _finish(registry: Registry, run_id: str, done: Completed) -> None:
    """FINISHED is the last write: a run that has it has its model and digest."""
    registry.finish_run(
        run_id,
        "FINISHED",
        metrics={
            "mlcicd.train_seconds": done.wall_seconds,
            "mlcicd.train_cpu_seconds": done.cpu_seconds,
            "mlcicd.train_peak_mib": done.peak_bytes / 2**20,
        },
    )


@contextmanager
def _job(project: Project, cell: Cell, *, again: bool) -> Iterator[Job]:
    train = project.config.train
    if not train.estimator:
        line = _forced(train.run) if again and by_dvc(project) else train.run
        with nullcontext(Job(shell_command(line), train.run, by_dvc(project), cell.environment)) as job:
            yield job
        return
    leakage = project.config.data.checks.leakage
    wanted = _estimator(project, cell)
    with estimator_job(
        python=project.python,
        estimator=train.estimator,
        params=wanted["params"],
        task=wanted["task"],
        data=project.config.data.train,
        target=wanted["target"],
        ignore=wanted["ignore"],
        time=leakage.time if leakage is not None else "",
        seed=cell.seed(train.seed),
        artifact=train.artifact,
        validate=bool(train.choose_by),
        environment=cell.environment,
    ) as job:
        yield job


def _forced(line: str) -> str:
    """The line of DVC that runs what is up to date, too.

    Raises:
        ConfigError: it is not a plain `dvc repro`.
    """
    if line.split()[:2] != ["dvc", "repro"] or any(sign in line for sign in "&|;<>`$\n"):
        raise ConfigError(
            f"--twice can not make `{line}` train again: DVC would find it done",
            file=FILE_NAME,
            remedy="use `dvc repro`, with targets as need be, as train.run",
        )
    return f"{line} --force"


def _estimator(project: Project, cell: Cell) -> dict[str, Any]:
    """What an estimator's training depends on; keys and times of rows are nothing to learn from."""
    config = project.config
    leakage = config.data.checks.leakage
    apart = {*config.data.ignore, *(leakage.keys if leakage else []), *([leakage.time] if leakage else [])} - {""}
    params = {**_estimator_params(project), **cell.params}
    wanted = about(config.train.estimator, params, config.model.task, config.data.target, sorted(apart))
    return wanted | {"validate": bool(config.train.choose_by)}


def _estimator_params(project: Project) -> dict[str, Any]:
    params = project.config.train.params
    if isinstance(params, dict):
        return params
    if not params:
        return {}
    path = project.path(params, ("train", "params"))
    return read_yaml(path, file=params, environ={}, interpolate=False).data


def recorded_params(project: Project, cell: Cell) -> dict[str, str]:
    """Parameters for the run's record: of the file or the configuration, and of the cell."""
    params = project.config.train.params
    if isinstance(params, dict):
        found = flat_params(params)
    else:
        found = read_params(project.path(params, ("train", "params"))) if params else {}
    return {**found, **flat_params(cell.values)}


def _keep(record: Record, base: Fingerprint) -> None:
    """What the model was made from, for the evaluation to compare with what is here then."""
    record.details["fingerprint"] = dict(base.parts)
    record.details["fingerprint_files"] = {part: dict(files) for part, files in base.files.items()}


def _data_subject(record: Record, digest: str) -> None:
    if not any(subject.kind == "data" and subject.name == "train" for subject in record.subjects):
        record.subject("data", "train", digest, path=record.project.config.data.train)


def _told(project: Project, error: TrainingFailed) -> MlcicdError:
    """What the runner of estimators says of the configuration or the data, where that is the cause."""
    said = objection(error.log) if project.config.train.estimator else ""
    if said and error.returncode == USAGE:
        key = "params" if said.startswith("params") else "estimator"
        return ConfigError(said, file=FILE_NAME, line=project.document.line(("train", key)))
    if said and error.returncode == INPUT:
        return InputError(said, where=project.config.data.train, remedy="see the data, or the section data")
    return error


def shown_path(record: Record, path: Path) -> str:
    root = record.project.root
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
