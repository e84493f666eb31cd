"""The two models of an evaluation: where they come from, and what they answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mlcicd.config import FILE_NAME
from mlcicd.core.digests import digest_json, digest_tree
from mlcicd.core.errors import ConfigError, InputError
from mlcicd.core.model_format import find_model, is_callable_name
from mlcicd.core.verdict import Check, CheckStatus, Verdict
from mlcicd.data.questions import questions
from mlcicd.data.source import Source
from mlcicd.evaluation.answers import predictions_of
from mlcicd.evaluation.predictions import Predictions
from mlcicd.evaluation.scoring import Scored
from mlcicd.registry import Registry
from mlcicd.stages.common import digest_of, earlier
from mlcicd.stages.record import Record
from mlcicd.stages.reference import champion_version
from mlcicd.stages.scoring import scored_here
from mlcicd.stages.train import fingerprint_of


@dataclass(frozen=True)
class Model:
    """A model on disk, and where it comes from.

    `name`: the registered model that `version` is of. `answers`: the file of its predictions, where these are all that
    is known of it; nothing stands at `path` then.
    """

    path: Path
    digest: str
    run_id: str = ""
    version: str = ""
    answers: Path | None = None
    name: str = ""


def candidate_model(record: Record, registry: Registry, model: str) -> Model:
    project = record.project
    if model:
        return _named_model(record, model)
    if not project.config.train.present:
        raise ConfigError(
            "there is no candidate: mlcicd.yaml has no section `train`, and no option names a model",
            file=FILE_NAME,
            remedy="give `--predictions FILE` or `--model PATH`, or say under `train` how the model is made",
        )
    trained = _last_training(record)
    record.checks.append(_same_training(record, trained))
    subject = trained.subject("model", "candidate")
    if subject is None:
        raise InputError(
            "the last training left no model",
            where=".mlcicd/verdicts/train.json",
            why=f"It ended {trained.status}: {trained.summary}",
            remedy="mend the training and run `mlcicd train`",
        )
    for data in trained.subjects:
        if data.kind == "data" and data.name == "train":
            record.subjects.append(data)
    run_id = trained.outputs["run-id"]
    local = project.root / project.config.train.artifact
    if local.is_dir() and digest_tree(local) == subject.digest:
        return Model(local, subject.digest, run_id)
    path = registry.fetch_model(run_id, project.model_cache, digest=subject.digest)
    return Model(path, subject.digest, run_id)


def _last_training(record: Record) -> Verdict:
    """The verdict of the last training.

    Raises:
        InputError: nothing was trained here, or its verdict can not be read.
    """
    project = record.project
    if not project.verdict_path("train").exists():
        raise InputError(
            "there is no model to evaluate: `mlcicd train` has not run here",
            where=".mlcicd/verdicts/train.json",
            why="Without an option that names one, the model of this project's training is the candidate.",
            remedy="run `mlcicd train` first (in another job, download the folder .mlcicd that it uploaded), or name a "
            "model with --model PATH, or its answers with --predictions FILE",
        )
    return earlier(project, "train")


def _named_model(record: Record, model: str) -> Model:
    """The model that an option names: a directory, a file, or `module:function` of the project's code."""
    project = record.project
    path = Path(model) if Path(model).is_absolute() else project.root / model
    if is_callable_name(model) and not path.exists():
        # The code is the model: where that is the same, so is the function.
        code = fingerprint_of(project).parts
        return Model(path, digest_json([model, dict(code)]))
    find_model(path)
    return Model(path, digest_tree(path))


def _same_training(record: Record, trained: Verdict) -> Check:
    """Whether the model was trained from the code, data, parameters and environment of now; gates may have changed."""
    then = trained.details.get("fingerprint")
    now, changed = fingerprint_of(record.project), ["everything"]
    if isinstance(then, dict):
        files = trained.details.get("fingerprint_files")
        changed = now.changes_since(then, files if isinstance(files, dict) else {})
    # Which words of the configuration these parts are.
    said = {"command": "command (train.run, train.estimator or train.seed in mlcicd.yaml)"}
    params = record.project.config.train.params
    if isinstance(params, str) and params:
        said["params"] = f"params ({params})"
    if not changed:
        return Check(name="evidence: train", status=CheckStatus.PASSED, observed=str(trained.status))
    return Check(
        name="evidence: train",
        status=CheckStatus.FAILED,
        reason=f"the model was trained with something else: {', '.join(said.get(p, p) for p in changed)} changed since",
        remedy="run `mlcicd train` again",
    )


def champion_model(record: Record, registry: Registry) -> Model | None:
    version = champion_version(record.project, registry)
    named = record.project.config.evaluate.champion
    if version is None and named:
        raise InputError(
            f"evaluate.champion names {named}, and there is no such version",
            where=f"{FILE_NAME}:{record.project.document.line(('evaluate', 'champion'))}",
            remedy="correct it, or leave it out: without it, the champion alias of this model is meant",
        )
    if version is None:
        fails = record.project.config.evaluate.no_champion == "fail"
        record.checks.append(
            Check(
                name="champion",
                status=CheckStatus.FAILED if fails else CheckStatus.SKIPPED,
                reason="there is no champion yet: absolute gates alone decide (bootstrap)"
                if not fails
                else "there is no champion, and evaluate.no_champion says to fail then",
            )
        )
        return None
    if not version.digest:
        raise InputError(
            f"the champion, version {version.version}, was not registered by mlcicd: its bytes can not be verified",
            where=f"{version.name} version {version.version}",
            remedy="register it with `mlcicd register`, or remove the alias to start again",
        )
    record.progress.step(f"fetching the champion, version {version.version}")
    path = registry.fetch_model(version.run_id, record.project.model_cache, digest=version.digest)
    return Model(path, version.digest, version.run_id, version.version, name=version.name)


def score_model(record: Record, model: Model, asked: Path | Callable[[], Path], what: str, rows: int) -> Scored:
    record.progress.step(f"scoring the {what} on {rows:,} rows")
    scored = scored_here(record, model.path, model.digest, asked, digest_of(record, "data", "holdout"), what)
    if len(scored.answer) != rows:
        raise InputError(f"the {what} was scored on {len(scored.answer)} rows, and the holdout has {rows}")
    record.details[f"{what}_cost"] = {
        key: scored.figures[key] for key in ("load_seconds", "score_seconds", "peak_bytes")
    }
    return scored


def answers_of_runs(
    record: Record, registry: Registry, holdout: Source, models: Sequence[tuple[str, str]], why: str
) -> list[Predictions]:
    """What the models of other runs answer on the holdout.

    Args:
        models: run and digest of each.
        why: what they are asked for, in words.

    Raises:
        CommandFailed, InputError, ServiceError: one can not be fetched, is not admitted, or does not answer.
    """
    project = record.project
    with ExitStack() as stack:

        @cache
        def asked() -> Path:
            return stack.enter_context(questions(holdout, project.config.data.target, project.state / "cache"))

        found = []
        for place, (run_id, digest) in enumerate(models, 1):
            record.progress.step(f"{why}: asking training {place} of {len(models)} on {holdout.rows:,} rows")
            model = registry.fetch_model(run_id, project.model_cache, digest=digest)
            data = digest_of(record, "data", "holdout")
            scored = scored_here(record, model, digest, asked, data, f"training {run_id[:8]}")
            found.append(as_predictions(record, scored))
        return found


def as_predictions(record: Record, scored: Scored) -> Predictions:
    """What an answer array means for the task: values, labels, or scores by class."""
    section = record.project.config.model
    classes = scored.figures.get("classes")
    return predictions_of(section.task, scored.answer, classes, labels=section.labels, quantiles=section.quantiles)
