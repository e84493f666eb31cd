"""train --twice: whether the same training makes the same model."""

from __future__ import annotations

from pathlib import Path

from mlcicd.core.digests import digest_tree
from mlcicd.core.verdict import Check, CheckStatus, Severity
from mlcicd.data.questions import questions
from mlcicd.data.source import open_source
from mlcicd.registry.tracking import TAG
from mlcicd.stages.record import Record
from mlcicd.stages.scoring import scored_here
from mlcicd.stages.train_data import by_dvc
from mlcicd.stages.train_one import Bench, Trained, run_of, train_in
from mlcicd.training.artifact import differing_files, put_model
from mlcicd.training.reproducible import Apart, compare_answers

_SHOWN_FILES = 5


def check_reproducible(record: Record, bench: Bench, first: Trained) -> list[Check]:
    """Trains again, in a run of its own that is never reused, and compares what the two models answer.

    Both are asked about the holdout's rows without their labels. The first model stays the candidate.

    Raises:
        CommandFailed: the second training failed, or one of the models could not be scored.
        InputError: the holdout is not here.
    """
    project = record.project
    target = project.root / project.config.train.artifact
    kept = bench.registry.fetch_model(first.run_id, project.model_cache, digest=first.digest)
    bench.bring_data()
    holdout = project.path(project.config.data.holdout, ("data", "holdout"))
    record.progress.step("training again, to compare")
    locks = {path: path.read_bytes() for path in _locks(project.root)} if by_dvc(project) else {}
    try:
        with run_of(bench, {f"{TAG}twice_of": first.run_id}) as run_id:
            made = train_in(bench, first.cell, run_id, again=True)
            bench.registry.finish_run(run_id, "FINISHED")
        second = project.state / "cache" / "second"
        put_model(made.model, second)
    finally:
        put_model(kept, target)
        for path, content in locks.items():
            path.write_bytes(content)
    with questions(open_source(holdout), project.config.data.target, project.state / "cache") as asked:
        data = digest_tree(holdout)
        one = scored_here(record, kept, first.digest, asked, data, "first model", made_here=not first.reused)
        other = scored_here(record, second, made.digest, asked, data, "second model", made_here=True)
    settings = project.config.train.reproducible
    apart = compare_answers(one.answer, other.answer, settings.tolerance)
    files = differing_files(kept, second)
    if apart.differing:
        # What the same training does by chance; of one that is reproducible a second one tells nothing. The run keeps
        # its model, for `evaluate` to ask.
        bench.registry.log_model(run_id, second)
        record.details["trainings"].append({"run": run_id, "digest": made.digest})
    record.details["reproducible"] = {
        "rows": apart.rows,
        "differing_rows": apart.differing,
        "largest_difference": apart.largest,
        "differing_files": files,
        "runs": [first.run_id, run_id],
    }
    return [_check(apart, files, settings.tolerance, warn=settings.action == "warn")]


def _check(apart: Apart, files: list[str], tolerance: float, *, warn: bool) -> Check:
    more = f" and {len(files) - _SHOWN_FILES} more" if len(files) > _SHOWN_FILES else ""
    told = f"files that differ: {', '.join(files[:_SHOWN_FILES])}{more}" if files else "the files are the same"
    if not apart.rows:
        return Check(
            name="reproducible",
            status=CheckStatus.INCONCLUSIVE,
            severity=Severity.WARN if warn else Severity.FAIL,
            reason="the holdout has no rows to compare answers on",
        )
    return Check(
        name="reproducible",
        status=CheckStatus.PASSED if apart.same else CheckStatus.FAILED,
        severity=Severity.WARN if warn else Severity.FAIL,
        observed=f"{apart.differing:,} of {apart.rows:,} rows differ, by at most {apart.largest:.3g}; {told}",
        required="the same answers" + (f" within {tolerance:g}" if tolerance else ""),
        reason=""
        if apart.same
        else f"two trainings of the same thing answer {apart.differing:,} of {apart.rows:,} rows differently",
        remedy="" if apart.same else "seed what draws (MLCICD_SEED), and sort what has no order; or set a tolerance",
    )


def _locks(root: Path) -> list[Path]:
    return [path for path in root.rglob("dvc.lock") if ".dvc" not in path.parts]
