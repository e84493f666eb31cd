"""predict: a table, larger than memory if need be, scored with a registered model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlcicd.config import Project, seconds
from mlcicd.core.errors import ConfigError, InputError
from mlcicd.core.verdict import Check, CheckStatus, Status
from mlcicd.data.source import Source, open_source
from mlcicd.evaluation.batch import Batch, Job, Naming, Rows, predict_rows, request_digest, stamp_of
from mlcicd.evaluation.batch_output import read_lineage, write_lineage
from mlcicd.registry import RegisteredVersion
from mlcicd.stages.lineage import version_lineage
from mlcicd.stages.places import state_base
from mlcicd.stages.record import Record, stage
from mlcicd.stages.verified import verified_version


@stage("predict")
def predict(
    record: Record,
    *,
    input: str,
    output: str,
    model_version: str = "",
    alias: str = "",
    keys: str = "",
    batch_rows: int = 50_000,
    timeout: str = "24h",
    engine: str = "",
) -> Status | None:
    """Scores a table with a version whose evidence holds, as `deploy` asks for it, into one file.

    Args:
        input: Parquet (a file, a directory, a glob) or CSV; relative to the project.
        output: `.parquet`, `.csv`, `.csv.gz` or `.tsv`; relative to the project.
        model_version: version in the registry; the one with `alias` when empty.
        alias: alias of the version; the champion's when empty.
        keys: columns of the input that stand in the output, too, separated by commas.
        batch_rows: rows in memory at once.
        timeout: how long it may take (30m, 24h).
        engine: `local`, or `spark` (Parquet only), whose workers ask the model; by `data.engine` when empty.
    """
    project = record.project
    if batch_rows < 1:
        raise ConfigError(f"--batch-rows must be at least 1, not {batch_rows}")
    try:
        limit = seconds(timeout)
    except (KeyError, ValueError):
        raise ConfigError(f"not a duration: {timeout!r}", remedy="write a number and a unit, such as 24h") from None
    source = open_source(_at(project, input))
    # Before the digest, which may take minutes.
    stamp = stamp_of(source.files)
    _check_input(source, keys)
    version, model = verified_version(record, model_version, alias)
    if model is None:
        return Status.FAILED
    record.subject("data", "input", source.digest, path=input)
    job = Job(
        model=model,
        model_digest=version.digest,
        rows=Rows(source.files, source.format, source.delimiter, source.digest, stamp),
        output=_at(project, output),
        naming=_naming(project),
        keys=_keys(keys),
        target=project.config.data.target,
        ignore=project.config.data.ignore,
        batch_rows=batch_rows,
        metadata={},
        timeout=limit,
        spark=session_of(project, source, engine),
    )
    lineage = _lineage(record, version, job, source, input)
    if _stands(record, job, lineage, output):
        return Status.SKIPPED
    if record.dry_run:
        record.summary = f"dry run: would score {source.rows:,} rows with version {version.version} into {output}"
        return Status.PASSED
    record.progress.step(f"scoring {input} with version {version.version}")
    return _carried_out(record, job, lineage, version, output)


def _carried_out(
    record: Record, job: Job, lineage: dict[str, Any], version: RegisteredVersion, output: str
) -> Status | None:
    done = predict_rows(
        # What a Parquet file says of itself can not name its own digest.
        replace(job, metadata={"mlcicd.lineage": json.dumps(lineage, sort_keys=True)}),
        python=record.project.python,
        environ=record.project.environ,
        cwd=record.project.root,
        state=state_base(record.project),
        progress=record.progress,
    )
    record.details["predictions"] = {
        "rows": done.rows,
        "resumed_rows": done.resumed_rows,
        "bad_rows": done.bad_rows,
        "columns": dict(done.columns),
        **{name: done.figures[name] for name in ("load_seconds", "score_seconds", "write_seconds", "peak_bytes")},
    }
    record.outputs["rows"] = str(done.rows)
    record.checks.append(_answered(done))
    if done.bad_rows:
        return Status.FAILED
    lineage["output"] = {"digest": done.digest, "rows": done.rows, "columns": list(done.columns)}
    write_lineage(job.output, lineage)
    record.subject("predictions", "output", done.digest, path=output)
    record.outputs["output"] = output
    again = f" ({done.resumed_rows:,} of them by an earlier run)" if done.resumed_rows else ""
    record.summary = f"{done.rows:,} rows scored with version {version.version}{again}: {output}"
    return None


def _answered(done: Batch) -> Check:
    required = "a finite answer for every row"
    if not done.bad_rows:
        return Check(name="answers", status=CheckStatus.PASSED, observed=f"{done.rows:,} rows", required=required)
    return Check(
        name="answers",
        status=CheckStatus.FAILED,
        observed=f"{done.bad_rows:,} of {done.rows:,} rows",
        required=required,
        reason=f"{done.bad_rows:,} of {done.rows:,} answers are NaN, infinite or empty, the first for row "
        f"{done.first_bad_row} (counted from 0); no file was written",
        remedy="look at these rows of the input: cells that are empty or out of range are the usual cause",
    )


def _at(project: Project, path: str) -> Path:
    return Path(path) if Path(path).is_absolute() else project.root / path


def session_of(project: Project, source: Source, engine: str) -> dict[str, Any] | None:
    """The settings of `data.spark`'s session, where Spark is to be used; `engine` as :func:`predict` takes it.

    Raises:
        ConfigError: the rows are not Parquet.
    """
    if (engine or project.config.data.engine) != "spark":
        return None
    if source.format != "parquet":
        raise ConfigError(
            "on Spark, predict reads Parquet",
            where=str(source.path),
            why="The types of text files are known only when all of it was read.",
            remedy="write the rows as Parquet, or use --engine local",
        )
    return project.config.data.spark.model_dump()


def _keys(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _check_input(source: Source, keys: str) -> None:
    if source.format not in ("parquet", "csv"):
        raise InputError(f"predict does not read {source.format}", where=str(source.path), remedy="write it as Parquet")
    missing = [name for name in _keys(keys) if name not in source.columns]
    if missing:
        raise ConfigError(
            f"the input has no column {missing[0]!r} to be a key",
            where=str(source.path),
            why=f"Its columns are {', '.join(list(source.columns)[:12])}.",
        )


def _naming(project: Project) -> Naming:
    section, named = project.config.model, project.config.evaluate.predictions
    prefix = named.prefix or ("quantile_" if section.task in ("quantile", "forecast") else "probability_")
    return Naming(section.task, section.labels, section.quantiles, named.prediction, named.score, prefix)


def _lineage(record: Record, version: RegisteredVersion, job: Job, source: Source, named: str) -> dict[str, Any]:
    return {
        **version_lineage(record, version),
        "data": {"path": named, "digest": source.digest},
        "keys": list(job.keys),
        "request": request_digest(job, record.project.python),
    }


def _stands(record: Record, job: Job, lineage: dict[str, Any], output: str) -> bool:
    """Whether the very file that is asked for is there already, with no byte changed."""
    known = read_lineage(job.output)
    if known is None or known.get("request") != lineage["request"]:
        return False
    same = all(known.get("model", {}).get(key) == lineage["model"][key] for key in ("name", "version"))
    if same:
        record.subject("predictions", "output", known["output"]["digest"], path=output)
        record.outputs.update({"rows": str(known["output"].get("rows", "")), "output": output})
        record.summary = f"{output} is there already, of the same rows and the same model"
    return same
