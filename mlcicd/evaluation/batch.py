"""Predictions for a table that is larger than memory, computed in the user's interpreter and written as one file.

The answers of each piece are kept in a folder of the user's own until the file stands, so that a command that was
killed goes on where it was. The file is written beside its place, proven by counting what is in it, and renamed.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlcicd.core.digests import digest_file, digest_json
from mlcicd.core.errors import CommandFailed, ConfigError, InputError, ServiceError
from mlcicd.core.files import alone
from mlcicd.core.model_format import find_model
from mlcicd.core.progress import SILENT, Progress
from mlcicd.evaluation.batch_output import place_beside, prove, put_in_place
from mlcicd.evaluation.scoring import in_models_process, packages_beside

_HERE = Path(__file__).parent
RUNNER = _HERE / "batch_runner.py"
_RUNNER_FILES = (
    RUNNER,
    *(_HERE / name for name in ("batch_spark.py", "batch_tables.py", "score_runner.py", "score_loaders.py")),
)
OUTPUTS = (".parquet", ".pq", ".csv", ".csv.gz", ".tsv", ".tsv.gz")
# Parts that nobody has come back for.
_FORGOTTEN_S = 14 * 86400.0


Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Rows:
    """The table to score: its files in order, `parquet` or `csv`, and the digest of their content.

    `stamp` is that of :func:`stamp_of`, taken before the digest: what is written there later is noticed by it.
    """

    files: tuple[Path, ...]
    format: str
    delimiter: str
    digest: str
    stamp: Stamp


@dataclass(frozen=True)
class Naming:
    """What the answer means and how its columns are called: the task, and the names of `evaluate.predictions`."""

    task: str
    labels: Sequence[str] = ()
    quantiles: Sequence[float] = ()
    prediction: str = "prediction"
    score: str = "score"
    prefix: str = "probability_"


@dataclass(frozen=True)
class Job:
    """One table to be scored with one model.

    Attributes:
        model: the verified model: a directory or a file.
        output: the file to write; its suffix is one of `OUTPUTS`.
        keys: columns of the input that stand in the output, too.
        target, ignore: columns that a model which does not name its columns is not given.
        batch_rows: rows in memory at once.
        metadata: text by name that goes into a Parquet file.
        timeout: seconds.
        spark: `master` and `options` of the session whose workers ask the model; None: this machine does.
    """

    model: Path
    model_digest: str
    rows: Rows
    output: Path
    naming: Naming
    keys: Sequence[str]
    target: str
    ignore: Sequence[str]
    batch_rows: int
    metadata: Mapping[str, str]
    timeout: float
    spark: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Batch:
    """What came of a job.

    `bad_rows` counts rows whose answer is NaN, infinite or empty; where there are any, no file was written and `digest`
    is empty. `resumed_rows` were asked by an earlier run. `columns` maps the answer's columns to `number` or `text`.
    """

    rows: int
    resumed_rows: int
    bad_rows: int
    first_bad_row: int | None
    digest: str
    columns: Mapping[str, str]
    figures: Mapping[str, Any] = field(default_factory=dict)


def predict_rows(
    job: Job,
    *,
    python: str,
    environ: Mapping[str, str],
    cwd: Path,
    state: Path,
    progress: Progress = SILENT,
) -> Batch:
    """Scores a table, piece by piece, into one file that is whole or not there.

    Args:
        state: folder of the user's own, outside of the checkout: what is kept there is believed.

    Raises:
        ConfigError: the output's suffix is not known, or the output is the input.
        InputError: the table does not fit the model, or was changed since its stamp was taken.
        CommandFailed: the model could not be loaded, or failed on rows that the message names.
        ServiceError: another command writes this file or scores these rows, or the disk is full.
    """
    _check_output(job)
    key = _key(job, python)
    folder = _own_folder(state)
    with (
        alone(folder / f"{_short(str(job.output.resolve()))}.lock", "another prediction into this file"),
        alone(folder / f"{key}.lock", "another prediction of these rows with this model"),
    ):
        _check_unchanged(job)
        _forget(folder, key)
        parts = folder / key
        parts.mkdir(exist_ok=True)
        for begun in parts.glob("*.part"):
            # By a command that was killed: nobody finishes it.
            begun.unlink(missing_ok=True)
        with place_beside(job.output) as temporary:
            report = _run(job, parts, temporary, python, environ, cwd, progress)
            try:
                _check_unchanged(job)
            except InputError:
                # Answers to other rows than those that the folder is named after.
                shutil.rmtree(parts)
                raise
            digest = ""
            if not report["bad_rows"]:
                prove(temporary, job.output.name, report)
                digest = put_in_place(temporary, job.output)
        shutil.rmtree(parts)
    figures = ("load_seconds", "score_seconds", "write_seconds", "peak_bytes", "classes", "features")
    return Batch(
        rows=report["rows"],
        resumed_rows=report["resumed_rows"],
        bad_rows=report["bad_rows"],
        first_bad_row=report["first_bad_row"],
        digest=digest,
        columns=report["columns"],
        figures={name: report[name] for name in figures},
    )


def _check_output(job: Job) -> None:
    if not job.output.name.endswith(OUTPUTS) or job.output.name in OUTPUTS:
        raise ConfigError(
            f"the output {job.output.name!r} is of no kind that can be written",
            remedy=f"let its name end with one of {', '.join(OUTPUTS)}",
        )
    if any(job.output.resolve() == file.resolve() for file in job.rows.files):
        raise ConfigError("the output is the input", where=str(job.output), remedy="name another output")
    if job.output.is_dir():
        raise ConfigError("the output is a folder", where=str(job.output), remedy="name a file in it")


def _key(job: Job, python: str) -> str:
    """What the answers depend on: model, rows and their pieces, columns, our runner, the user's packages."""
    runner = [digest_file(file) for file in _RUNNER_FILES]
    rows = [job.rows.digest, job.rows.format, job.rows.delimiter, job.batch_rows]
    return _short([job.model_digest, rows, job.target, sorted(job.ignore), runner, packages_beside(python)])


def request_digest(job: Job, python: str) -> str:
    """What makes two jobs the same one: whoever asks again gets the same file."""
    return digest_json([_key(job, python), list(job.keys), asdict(job.naming), job.output.suffixes])


def _short(value: Any) -> str:
    return digest_json(value).rpartition(":")[2][:32]


def _own_folder(state: Path) -> Path:
    folder = state / "predict"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Whoever could write here could answer for the model.
        folder.chmod(0o700)
    except OSError as error:
        raise ServiceError(
            f"the folder for answers can not be made ({error.strerror})",
            where=str(folder),
            remedy="set XDG_STATE_HOME to a folder that can be written",
        ) from error
    return folder


def _forget(folder: Path, key: str) -> None:
    """Removes answers of jobs that nobody has come back for."""
    for found in folder.iterdir():
        if found.is_dir() and found.name != key and time.time() - found.stat().st_mtime > _FORGOTTEN_S:
            shutil.rmtree(found, ignore_errors=True)


def stamp_of(files: Sequence[Path]) -> Stamp:
    """Inode, size in bytes and time of the last change in ns of each file; zeros for one that is not there."""
    return tuple(_stamp(file) for file in files)


def _stamp(file: Path) -> tuple[int, int, int]:
    try:
        found = file.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_size, found.st_mtime_ns)


def _check_unchanged(job: Job) -> None:
    if stamp_of(job.rows.files) != job.rows.stamp:
        raise InputError(
            "the input was changed while it was read",
            where=str(job.rows.files[0]),
            remedy="run this again when nothing writes there",
        )


def _run(
    job: Job, parts: Path, out: Path, python: str, environ: Mapping[str, str], cwd: Path, progress: Progress
) -> dict[str, Any]:
    model = find_model(job.model)
    with tempfile.TemporaryDirectory(prefix="mlcicd-predict-") as temporary:
        plan, report = Path(temporary, "plan.json"), Path(temporary, "report.json")
        wanted = {
            **asdict(job.naming),
            "kind": model.kind,
            "model": str(model.path),
            "files": [str(file) for file in job.rows.files],
            "format": job.rows.format,
            "delimiter": job.rows.delimiter,
            "target": job.target,
            "ignore": list(job.ignore),
            "keys": list(job.keys),
            "batch_rows": job.batch_rows,
            "metadata": dict(job.metadata),
            "parts": str(parts),
            "out": str(out),
            "out_name": job.output.name,
            "report": str(report),
            "spark": dict(job.spark) if job.spark is not None else None,
            "cwd": str(cwd),
            "parent": os.getpid(),
        }
        plan.write_text(json.dumps(wanted), encoding="utf-8")
        done = in_models_process(
            [python, str(RUNNER), str(plan)], python=python, environ=environ, cwd=cwd, timeout=job.timeout,
            what="the prediction", progress=progress,
        )  # fmt: skip
        if done.returncode != 0 or not report.is_file():
            raise _failure(job, done.returncode, done.tail)
        found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        return found


def _failure(job: Job, returncode: int, tail: Sequence[str]) -> CommandFailed | InputError | ServiceError:
    said = next((line.removeprefix("score: ") for line in reversed(tail) if line.startswith("score: ")), "")
    if said and returncode == 4:
        return InputError(said, where=str(job.rows.files[0]), remedy="see the columns of the input, or data.ignore")
    if said and returncode == 5:
        return ServiceError(said, remedy="run the same command again")
    ending = f"killed by signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
    return CommandFailed(
        f"the model could not be asked ({ending})" + (f": {said}" if said else ""),
        where=str(job.model),
        log=tail[-15:],
        remedy="mend the rows or the model and run the same command again, which keeps what was answered; where memory "
        "ran out, with fewer --batch-rows",
    )
