"""train: run the user's training, or prove that it need not run."""

from __future__ import annotations

from collections.abc import Sequence

from mlcicd.config import FILE_NAME, Project
from mlcicd.core.errors import ConfigError
from mlcicd.core.files import alone
from mlcicd.core.verdict import Check, CheckStatus, Severity, Status, conclude
from mlcicd.stages.common import registry_of
from mlcicd.stages.record import Record, stage
from mlcicd.stages.train_again import check_reproducible
from mlcicd.stages.train_best import choose_best, direction
from mlcicd.stages.train_cells import wanted_cells
from mlcicd.stages.train_data import by_dvc, check_lock, lock_is_mended
from mlcicd.stages.train_one import Bench, Trained, fingerprint_of, obtain, shown_path, what_is_run
from mlcicd.training.matrix import Cell

__all__ = ["fingerprint_of", "train"]


@stage("train")
def train(
    record: Record,
    *,
    force: bool = False,
    pull: bool = False,
    twice: bool = False,
    select: str = "",
    choose: bool = False,
) -> Status | None:
    """Trains the model in an MLflow run, unless a run of the same fingerprint has one already.

    With `train.matrix`, trains each of its cells so, in order, and makes the best run's model the candidate. Only one
    training at a time runs in a folder: two would write the same model directory.

    Args:
        force: train even when nothing changed.
        pull: fetch the data with `dvc pull` first, as far as it is needed and not here.
        twice: train again, and compare what the two models answer.
        select: key of the one cell of the matrix that is trained; the choice is left to a later `choose`.
        choose: train nothing, and choose among the runs of all cells.
    """
    with alone(record.project.state / "train.lock", "another training"):
        return _train(record, force=force, pull=pull, twice=twice, select=select, choose=choose)


def _train(record: Record, *, force: bool, pull: bool, twice: bool, select: str, choose: bool) -> Status | None:
    project = record.project
    if not project.config.train.present:
        raise ConfigError(
            "there is no section `train`: nothing says how the model is made",
            file=FILE_NAME,
            remedy="add `train: {run: python train.py}`; where models are made elsewhere, judge their predictions with "
            "`mlcicd evaluate --predictions FILE`",
        )
    wanted = wanted_cells(project, select=select, choose=choose)
    if project.config.train.matrix:
        # Told now, not after the trainings.
        direction(project)
    bench = Bench(record, registry_of(project), force=force and not choose, pull=pull, train=not choose)
    if check_lock(record, bench.pipeline) is CheckStatus.FAILED:
        return Status.FAILED
    bench.end_abandoned()
    trained: list[Trained] = []
    for cell in wanted:
        if len(wanted) > 1:
            record.progress.step(f"cell {len(trained) + 1} of {len(wanted)}: {cell.key}")
        one = obtain(bench, cell)
        if one is None:
            record.summary = _would(project, wanted)
            return Status.PASSED
        trained.append(one)
    if not all(one.reused for one in trained) and by_dvc(project):
        record.checks += lock_is_mended(project)
    best = choose_best(record, bench.registry, trained) if len(trained) > 1 else trained[0]
    if best is None:
        return Status.FAILED
    _report(record, bench, best, trained)
    if twice and not record.dry_run:
        again = check_reproducible(record, bench, best)
        record.checks += again
        record.summary += "".join(f"; trained twice: {check.observed}" for check in again)
    concluded = conclude(record.checks)
    if concluded in (Status.FAILED, Status.INCONCLUSIVE):
        # What failed is the news, not that there is a model.
        record.summary = ""
        return concluded
    return Status.SKIPPED if all(one.reused for one in trained) and not twice else Status.PASSED


def _would(project: Project, wanted: Sequence[Cell]) -> str:
    many = f", {len(wanted)} cells of train.matrix" if len(wanted) > 1 else ""
    return f"dry run: would train with `{what_is_run(project)}`{many}"


def _report(record: Record, bench: Bench, best: Trained, trained: Sequence[Trained]) -> None:
    record.subject("model", "candidate", best.digest, run=best.run_id)
    record.outputs.update(
        {"run-id": best.run_id, "model-path": shown_path(record, best.path), "model-digest": best.digest}
    )
    if best.cell.key:
        record.outputs["cell"] = best.cell.key
    alike = [one for one in trained if one.cell.params == best.cell.params]
    # Trainings that differ in the seed alone: `evaluate` reads from them what the seed does to a metric.
    record.details["trainings"] = [{"run": one.run_id, "digest": one.digest} for one in alike]
    new = [one for one in trained if one.completed is not None]
    for one in new:
        record.checks += _training_checks(one)
    if new:
        record.subject("environment", "training", bench.fingerprint_digest(best.cell))
        took = sum(one.completed.wall_seconds for one in new if one.completed is not None)
        record.summary = f"trained in {took:.1f} s (run {best.run_id[:8]})"
    else:
        record.summary = f"nothing changed: code, data, parameters and lock are those of run {best.run_id[:8]}"
    if len(trained) > 1:
        record.summary = f"{best.cell.key} is the best of {len(trained)} cells; {record.summary}"


def _training_checks(one: Trained) -> list[Check]:
    assert one.completed is not None
    done = one.completed
    of_cell = f" [{one.cell.key}]" if one.cell.key else ""
    checks = [
        Check(
            name=f"training command{of_cell}",
            status=CheckStatus.PASSED,
            observed=f"{done.wall_seconds:.1f} s, {done.cpu_seconds:.1f} CPU s, {done.peak_bytes / 2**20:.0f} MiB",
            required="exit code 0 and a model",
            details={
                "wall_seconds": done.wall_seconds,
                "cpu_seconds": done.cpu_seconds,
                "peak_bytes": done.peak_bytes,
                "run": one.run_id,
            },
        )
    ]
    if one.leftovers:
        checks.append(
            Check(
                name=f"left running{of_cell}",
                status=CheckStatus.FAILED,
                severity=Severity.WARN,
                observed=", ".join(one.leftovers),
                required="nothing",
                reason=f"the training command ended and left {len(one.leftovers)} processes running; they were ended",
                remedy="let the command wait for what it starts",
            )
        )
    return checks
