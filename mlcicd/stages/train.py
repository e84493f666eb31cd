"""train: run the user's command, or prove that it need not run."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from mlcicd.config import Project, seconds
from mlcicd.core.digests import digest_tree
from mlcicd.core.errors import MlcicdError
from mlcicd.core.files import alone, write_atomic
from mlcicd.core.git import git_state
from mlcicd.core.verdict import Check, CheckStatus, Status
from mlcicd.registry import Registry
from mlcicd.registry.tracking import TAG
from mlcicd.stages.common import data_path, prepare_data, registry_of
from mlcicd.stages.record import Record, stage
from mlcicd.training import Fingerprint, fingerprint, run_training
from mlcicd.training.command import read_params

_ATTEMPT = f"{TAG}attempt"


@stage("train")
def train(record: Record, *, force: bool = False) -> Status | None:
    """Trains the model in an MLflow run, unless a run of the same fingerprint has one already.

    Only one training at a time runs in a folder: two would write the same model directory.

    Args:
        force: train even when nothing changed.
    """
    with alone(record.project.state / "train.lock", "another training"):
        return _train(record, force=force)


def _train(record: Record, *, force: bool) -> Status | None:
    project = record.project
    config = project.config
    prepare_data(record)
    data_path(record, "train")
    wanted = fingerprint_of(project)
    record.details["fingerprint"] = dict(wanted.parts)
    registry = registry_of(project)
    if not record.dry_run:
        _end_abandoned(record, registry)
    if config.train.reuse and not force:
        run_id = registry.find_finished_run({f"{TAG}fingerprint": wanted.digest})
        if run_id and _reuse(record, registry, run_id):
            return Status.SKIPPED
    params = read_params(project.path(config.train.params, ("train", "params"))) if config.train.params else {}
    if record.dry_run:
        record.summary = f"dry run: would train with `{config.train.run}`"
        return Status.PASSED
    record.progress.step(f"training: {config.train.run}")
    attempt = secrets.token_hex(16)
    # The journal first: a death right after it leaves a name to look for, one before it leaves nothing.
    write_atomic(_journal(record), attempt)
    run_id = registry.start_run(
        config.model.name,
        {
            _ATTEMPT: attempt,
            f"{TAG}fingerprint": wanted.digest,
            f"{TAG}fingerprint_parts": json.dumps(wanted.parts),
            "mlflow.source.git.commit": git_state(project.root).commit,
            "mlflow.source.name": config.train.run,
        },
    )
    _train_in_run(record, registry, run_id, wanted, params)
    _journal(record).unlink(missing_ok=True)
    return Status.PASSED


def fingerprint_of(project: Project) -> Fingerprint:
    """What a training of the project would depend on now."""
    config = project.config
    return fingerprint(
        project.root,
        command=config.train.run,
        code=config.train.code,
        lock=config.train.lock,
        params=config.train.params,
        data=[config.data.train],
        python=project.python,
        seed=config.train.seed,
    )


def _train_in_run(record: Record, registry: Registry, run_id: str, wanted: Fingerprint, params: dict[str, str]) -> None:
    project = record.project
    config = project.config
    try:
        made = run_training(
            project.root,
            command=config.train.run,
            artifact=config.train.artifact,
            python=project.python,
            environ=project.environ,
            tracking={"MLFLOW_TRACKING_URI": project.tracking_uri, "MLFLOW_RUN_ID": run_id},
            seed=config.train.seed,
            timeout=seconds(config.train.timeout),
            progress=record.progress,
        )
        registry.log_params(run_id, params)
        registry.log_model(run_id, made.model)
        registry.tag_run(run_id, {f"{TAG}model_digest": made.digest, f"{TAG}model_path": config.train.artifact})
    except KeyboardInterrupt:
        registry.finish_run(run_id, "KILLED")
        raise
    except MlcicdError:
        registry.finish_run(run_id, "FAILED")
        raise
    # FINISHED is the last write: a run that has it has its model and digest.
    registry.finish_run(
        run_id,
        "FINISHED",
        metrics={
            "mlcicd.train_seconds": made.completed.wall_seconds,
            "mlcicd.train_cpu_seconds": made.completed.cpu_seconds,
            "mlcicd.train_peak_mib": made.completed.peak_bytes / 2**20,
        },
    )
    record.subject("model", "candidate", made.digest, run=run_id)
    record.subject("environment", "training", wanted.digest)
    done = made.completed
    record.checks.append(
        Check(
            name="training command",
            status=CheckStatus.PASSED,
            observed=f"{done.wall_seconds:.1f} s, {done.cpu_seconds:.1f} CPU s, {done.peak_bytes / 2**20:.0f} MiB",
            required="exit code 0 and a model",
        )
    )
    record.outputs.update({"run-id": run_id, "model-path": config.train.artifact, "model-digest": made.digest})
    record.summary = f"trained in {done.wall_seconds:.1f} s (run {run_id[:8]})"


def _reuse(record: Record, registry: Registry, run_id: str) -> bool:
    """Takes the model of an earlier run of the same fingerprint, if its artifact is still whole."""
    digest = registry.run_tags(run_id).get(f"{TAG}model_digest", "")
    if not digest:
        return False
    local = record.project.root / record.project.config.train.artifact
    if not (local.is_dir() and digest_tree(local) == digest):
        try:
            local = registry.fetch_model(run_id, record.project.model_cache, digest=digest)
        except MlcicdError as error:
            record.progress.step(f"run {run_id[:8]} has the same fingerprint, but {error.one_line()}: training again")
            return False
    record.subject("model", "candidate", digest, run=run_id)
    record.outputs.update({"run-id": run_id, "model-path": _shown(record, local), "model-digest": digest})
    record.summary = f"nothing changed: code, data, parameters and lock are those of run {run_id[:8]}"
    return True


def _end_abandoned(record: Record, registry: Registry) -> None:
    """Ends the run of a training that was killed here, so that it is not RUNNING for ever."""
    journal = _journal(record)
    if journal.is_file():
        for run_id in registry.running_runs({_ATTEMPT: journal.read_text(encoding="utf-8").strip()}):
            registry.finish_run(run_id, "KILLED")
        journal.unlink(missing_ok=True)


def _journal(record: Record) -> Path:
    return record.project.state / "training-run"


def _shown(record: Record, path: Path) -> str:
    root = record.project.root
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
