"""export: a registered model as ONNX, if it keeps what the original was let through for."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlcicd.config import seconds
from mlcicd.core.digests import digest_file
from mlcicd.core.errors import ConfigError, ServiceError
from mlcicd.core.verdict import Check, CheckStatus, Status, conclude
from mlcicd.data.questions import questions
from mlcicd.data.source import open_source
from mlcicd.evaluation.batch_output import place_beside, put_in_place, write_lineage
from mlcicd.evaluation.export import agreement, export_onnx
from mlcicd.evaluation.scoring import Scored, score
from mlcicd.registry import RegisteredVersion
from mlcicd.stages.common import data_path, digest_of, prepare_data
from mlcicd.stages.lineage import version_lineage
from mlcicd.stages.record import Record, stage
from mlcicd.stages.verified import verified_version


@dataclass(frozen=True)
class _Pair:
    """A model and its export: where they are, and what they answer on the holdout."""

    model: Path
    exported: Path
    original: Scored
    answered: Scored
    classes: list[Any] | None


@stage("export")
def export(
    record: Record, *, output: str, quantize: bool = False, model_version: str = "", alias: str = ""
) -> Status | None:
    """Converts a version whose evidence holds to ONNX, and writes it if it agrees with the original on the holdout.

    Args:
        output: a file `NAME.onnx`; relative to the project.
        quantize: weights as whole numbers of eight bits.
        model_version: version in the registry; the one with `alias` when empty.
        alias: alias of the version; the champion's when empty.
    """
    project = record.project
    path = Path(output) if Path(output).is_absolute() else project.root / output
    if path.suffix != ".onnx" or path.is_dir():
        raise ConfigError(f"the output {output!r} is no file NAME.onnx", remedy="name one")
    prepare_data(record, project.config.data.holdout)
    holdout = data_path(record, "holdout")
    version, model = verified_version(record, model_version, alias)
    if model is None:
        return Status.FAILED
    work = project.state / "cache"
    work.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=work, prefix=".export-") as temporary,
        questions(open_source(holdout), project.config.data.target, work) as rows,
    ):
        pair = _converted(record, version, model, rows, Path(temporary, "model.onnx"), quantize=quantize)
        record.checks += _gates(record, pair, quantize=quantize)
        if conclude(record.checks) is Status.FAILED:
            return Status.FAILED
        if record.dry_run:
            record.summary = f"dry run: version {version.version} as ONNX passed, and was not written"
            return Status.PASSED
        digest = _written(pair.exported, path)
    write_lineage(path, _lineage(record, version, digest, quantize=quantize))
    record.subject("export", "onnx", digest, path=output)
    record.outputs["output"] = output
    figures = record.details["export"]
    record.summary = (
        f"version {version.version} as {'quantized ' if quantize else ''}ONNX, {figures['bytes']:,} bytes: {output}"
    )
    return None


def _converted(
    record: Record, version: RegisteredVersion, model: Path, rows: Path, out: Path, *, quantize: bool
) -> _Pair:
    project = record.project
    record.progress.step(f"converting version {version.version}")
    classes = export_onnx(
        model,
        rows,
        out,
        quantize=quantize,
        metadata={"mlcicd.model": version.name, "mlcicd.version": version.version, "mlcicd.digest": version.digest},
        target=project.config.data.target,
        ignore=project.config.data.ignore,
        python=project.python,
        environ=project.environ,
        cwd=project.root,
        timeout=seconds(project.config.evaluate.timeout),
        progress=record.progress,
    )

    def scored(path: Path, digest: str, what: str) -> Scored:
        record.progress.step(f"scoring the {what} on the holdout")
        return score(
            path,
            rows,
            model_digest=digest,
            data_digest=digest_of(record, "data", "holdout"),
            target=project.config.data.target,
            ignore=project.config.data.ignore,
            python=project.python,
            environ=project.environ,
            # Both are timed now, side by side.
            cache=out.with_name("answers"),
            cwd=project.root,
            timeout=seconds(project.config.evaluate.timeout),
            what=what,
            progress=record.progress,
        )

    return _Pair(
        model, out, scored(model, version.digest, "original"), scored(out, digest_file(out), "export"), classes
    )


def _gates(record: Record, pair: _Pair, *, quantize: bool) -> list[Check]:
    rules = record.project.config.export
    tolerance = rules.quantized_tolerance if quantize else rules.tolerance
    found = agreement(pair.original.answer, pair.answered.answer, pair.classes, tolerance)
    share = float(found.agrees.mean()) if found.agrees.size else 0.0
    sizes = [_bytes(path) for path in (pair.exported, pair.model)]
    medians = [_median(each) for each in (pair.answered, pair.original)]
    record.details["export"] = {
        "rows": int(found.agrees.size),
        "agreement": share,
        "largest_difference": found.largest if np.isfinite(found.largest) else None,
        "bytes": sizes[0],
        "original_bytes": sizes[1],
        "latency_ms": medians[0],
        "original_latency_ms": medians[1],
    }
    differs = f"{int((~found.agrees).sum()):,} of {found.agrees.size:,} rows differ, numbers by {found.largest:.3g}"
    return [
        _gate("agreement", share, ">=", rules.agreement, found.problem or differs, "raise export.tolerance, or do not "
              "quantize; trees split on 32-bit numbers in ONNX"),
        _gate("size", sizes[0] / max(1, sizes[1]), "<=", rules.size_ratio, f"{sizes[0]:,} bytes beside {sizes[1]:,}",
              "quantize it, train a smaller model, or raise export.size_ratio"),
        _gate("latency", medians[0] / medians[1] if medians[1] else np.nan, "<=", rules.latency_ratio,
              f"median {medians[0]:.3g} ms beside {medians[1]:.3g} ms for one row", "raise export.latency_ratio"),
    ]  # fmt: skip


def _gate(name: str, observed: float, sign: str, limit: float, said: str, remedy: str) -> Check:
    # What can not be measured is not kept: NaN passes neither way.
    kept = observed >= limit if sign == ">=" else observed <= limit
    return Check(
        name=name,
        status=CheckStatus.PASSED if kept else CheckStatus.FAILED,
        observed=float(observed),
        required=f"{sign} {limit:g}" + ("" if sign == ">=" else " times the original's"),
        reason="" if kept else said,
        remedy="" if kept else remedy,
        details={"said": said},
    )


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(f.stat().st_size for f in path.rglob("*") if f.is_file())


def _median(scored: Scored) -> float:
    seen = scored.figures.get("latencies_ms") or []
    return float(np.median(seen)) if seen else float("nan")


def _written(exported: Path, output: Path) -> str:
    """Puts the file in place, whole; gives its digest."""
    with place_beside(output) as temporary:
        try:
            shutil.copyfile(exported, temporary)
        except OSError as error:
            raise ServiceError(f"the file can not be written ({error.strerror})", where=str(output)) from error
        return put_in_place(temporary, output)


def _lineage(record: Record, version: RegisteredVersion, digest: str, *, quantize: bool) -> dict[str, Any]:
    return {
        **version_lineage(record, version),
        "format": "onnx",
        "quantized": quantize,
        "holdout": digest_of(record, "data", "holdout"),
        "measured": record.details["export"],
        "output": {"digest": digest},
    }
