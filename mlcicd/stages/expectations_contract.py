"""What the candidate breaks for callers, what the champion knew beforehand, and how worn the holdout is."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from mlcicd.core.digests import digest_tree
from mlcicd.core.errors import ServiceError
from mlcicd.core.files import write_atomic
from mlcicd.core.verdict import Check, CheckStatus, Severity, Verdict
from mlcicd.data.leakage import LeakageLimits
from mlcicd.data.row_sketch import RowSketch, row_sketch
from mlcicd.data.source import Source, open_source, quote
from mlcicd.evaluation.proportions import Share
from mlcicd.evaluation.signature_change import Signature, compare, read_signature
from mlcicd.evaluation.wear import worn_confidence
from mlcicd.registry import Registry
from mlcicd.registry.holdouts import judged_models, note_judged, was_judged
from mlcicd.registry.tracking import TAG, checked_digest
from mlcicd.stages.common import digest_of, evidence_folder
from mlcicd.stages.evaluate_models import Model
from mlcicd.stages.expectations_asked import Ground
from mlcicd.stages.record import Record
from mlcicd.stages.reference import champion_version

_ROWS_FILE = "train_rows.json"

# --- the signature


def signature_checks(record: Record, ground: Ground) -> list[Check]:
    """Whether callers who know the champion can call the candidate."""
    if ground.champion is None or ground.candidate.answers is not None:
        return []
    declared = record.project.config.evaluate.schema_change == "declared"
    line = record.project.document.line(("evaluate", "schema_change"))
    common: dict[str, Any] = {"name": "signature", "required": "nothing breaks for the champion's callers"}
    described = [m for m in (ground.champion, ground.candidate) if (m.path / "MLmodel").is_file()]
    old = read_signature(ground.champion.path) if ground.champion in described else Signature()
    if old.empty or ground.candidate not in described:
        who = "champion" if old.empty else "candidate"
        return [
            Check(
                **common,
                status=CheckStatus.SKIPPED,
                severity=Severity.WARN,
                reason=f"the {who} has no signature that could be read: nobody knows what it takes and answers",
                remedy="save models as MLflow models with a signature (mlflow.models.infer_signature)",
            )
        ]
    new = read_signature(ground.candidate.path)
    changes = compare(old, new)
    details = {"breaking": list(changes.breaking), "compatible": list(changes.compatible), "line": line}
    told = "; ".join(changes.breaking[:5]) + (f"; and {len(changes.breaking) - 5} more" if changes.breaking[5:] else "")
    count = f"{len(changes.breaking)} breaking, {len(changes.compatible)} compatible changes"
    if changes.breaking and declared:
        reason = f"declared in mlcicd.yaml: {told}"
        return [Check(**common, status=CheckStatus.PASSED, observed=count, reason=reason, details=details)]
    checks = [
        Check(
            **common,
            status=CheckStatus.FAILED if changes.breaking else CheckStatus.PASSED,
            observed=count,
            reason=told or "; ".join(changes.compatible[:5]),
            remedy="keep the inputs and outputs, or move the callers and set evaluate.schema_change: declared"
            if changes.breaking
            else "",
            details=details,
        )
    ]
    if declared:
        checks.append(
            Check(
                name="declared schema change",
                status=CheckStatus.FAILED,
                severity=Severity.WARN,
                reason="evaluate.schema_change says declared, and nothing breaks: the next break would pass unseen",
                remedy="take schema_change out of mlcicd.yaml",
                details={"line": line},
            )
        )
    return checks


# --- what the champion has learned from


def keep_rows(record: Record) -> None:
    """Keeps a sketch of the training rows for `register`, where the training data is at hand."""
    data = record.project.config.data
    path = record.project.root / data.train
    subject = next((s for s in record.subjects if s.kind == "data" and s.name == "train"), None)
    kept = record.project.state / "evidence" / _ROWS_FILE
    if subject is None or not path.exists() or digest_tree(path) != subject.digest:
        return
    keys = list(data.checks.leakage.keys) if data.checks.leakage else []
    time = data.checks.leakage.time if data.checks.leakage else ""
    asked = [subject.digest, keys, time]
    if kept.is_file() and _loaded(kept.read_text(encoding="utf-8")).get("of") == asked:
        return
    record.progress.step("sketching the training rows")
    train = open_source(path)
    columns = [name for name in sorted(train.columns) if name not in keys]
    here = all(name in train.columns for name in keys)
    made = {
        "of": asked,
        "rows": row_sketch(train, columns).to_json(),
        "keys": row_sketch(train, keys).to_json() if keys and here else None,
        "time": {"column": time, "last": _end(train, time, "max")} if time in train.columns else None,
    }
    write_atomic(kept, json.dumps(made, sort_keys=True))


def _end(source: Source, column: str, which: str) -> str:
    # Text, so that times of every type can be written down; compared by the engine, in the type of the other table.
    (value,) = source.fetch(f"SELECT CAST({which}({quote(column)}) AS VARCHAR) FROM data")[0]  # noqa: S608
    return str(value) if value is not None else ""


def store_rows(record: Record, registry: Registry, run_id: str, folder: str, evaluation: Verdict) -> None:
    """Puts the sketch beside the model's other evidence, if it is of the data that the model was trained on."""
    kept = record.project.state / "evidence" / _ROWS_FILE
    train = evaluation.subject("data", "train")
    if kept.is_file() and train is not None:
        text = kept.read_text(encoding="utf-8")
        if _loaded(text).get("of", [""])[0] == train.digest:
            registry.log_text(run_id, text, f"{folder}/{_ROWS_FILE}")


def _loaded(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def leak_checks(record: Record, ground: Ground) -> list[Check]:
    """Whether the champion has learned from rows of this holdout: it would be hard to beat, and for no good reason."""
    if ground.champion is None:
        return []
    version = champion_version(record.project, ground.registry)
    if version is None:
        return []
    severity = Severity(record.project.config.evaluate.champion_leak)
    line = record.project.document.line(("evaluate", "champion_leak"))
    common: dict[str, Any] = {
        "name": "champion's training data",
        "required": "it shares no rows with this holdout",
        "severity": severity,
    }
    if version.tags.get(f"{TAG}train_data_digest", "") == digest_of(record, "data", "holdout"):
        reasons, sure = ["the champion was trained on this very file"], True
        told: dict[str, Any] = {}
    else:
        digest = version.tags.get(f"{TAG}evidence_digest", "")
        text = None
        if checked_digest(digest):
            text = ground.registry.read_text(version.run_id, f"{evidence_folder(digest)}/{_ROWS_FILE}")
        if text is None:
            # Who asked for failure gets no pass from missing evidence.
            fails = severity is Severity.FAIL
            return [
                Check(
                    **common,
                    status=CheckStatus.INCONCLUSIVE if fails else CheckStatus.SKIPPED,
                    reason="only its digest could be compared: no sketch of its rows was stored with this version",
                    remedy="versions that `mlcicd register` makes from now on have one",
                    details={"line": line},
                )
            ]
        reasons, told, sure = _overlaps(ground.holdout, _loaded(text), record.project.config.evaluate.confidence)
    status = CheckStatus.PASSED if not reasons else CheckStatus.FAILED if sure else CheckStatus.INCONCLUSIVE
    return [
        Check(
            **common,
            status=status,
            observed=f"version {version.version}",
            reason="; ".join(reasons),
            remedy="judge both on rows that are newer than the champion's training data" if reasons else "",
            details={**told, "line": line},
        )
    ]


def _overlaps(holdout: Source, kept: dict[str, Any], confidence: float) -> tuple[list[str], dict[str, Any], bool]:
    """(what the holdout shares with a sketch, figures, whether that is certain)."""
    reasons: list[str] = []
    told: dict[str, Any] = {}
    sure = True
    compared = 0
    for kind, allowed in (("rows", LeakageLimits().row_overlap), ("keys", 0.0)):
        if kept.get(kind) is None:
            continue
        try:
            sketch = RowSketch.from_json(kept[kind])
            found = sketch.shared_with(holdout)
        except ValueError:
            return ["the sketch of its rows can not be read"], told, False
        except KeyError as error:
            told[kind] = f"not compared: the holdout has no column {error.args[0]!r}"
            continue
        told[kind] = {"looked_at": found.looked, "shared": found.shared}
        compared += found.looked
        if found.looked and found.shared > allowed * found.looked:
            low, high = Share(found.shared, found.looked).interval(confidence)
            what = "rows" if kind == "rows" else f"rows have a {', '.join(sketch.columns)} that"
            reasons.append(
                f"{found.shared:,} of {found.looked:,} holdout {what} are in its training data "
                f"(share {low:.2%} to {high:.2%})"
            )
            sure = sure and low > allowed
    late = _time_overlap(holdout, kept.get("time"))
    if late:
        reasons.append(late)
    elif not compared:
        return ["no row could be compared with the sketch of its rows"], told, False
    return reasons, told, sure


def _time_overlap(holdout: Source, time: Any) -> str:
    if not isinstance(time, dict) or time.get("column") not in holdout.columns or not time.get("last"):
        return ""
    column, last = quote(time["column"]), str(time["last"])
    kind = holdout.columns[time["column"]]
    (rows,) = holdout.fetch(f"SELECT count(*) FROM data WHERE {column} <= TRY_CAST(? AS {kind})", [last])[0]  # noqa: S608
    if not rows:
        return ""
    return f"it learned from data up to {last}, and {rows:,} holdout rows are not later"


# --- wear


def count_judgement(record: Record, registry: Registry, candidate: Model) -> None:
    """Counts that this holdout judges the candidate; a worn one makes every interval of the evaluation wider."""
    project = record.project
    settings = project.config.evaluate
    holdout = digest_of(record, "data", "holdout")
    base = project.config.tracking.experiment or project.config.model.name
    judged = judged_models(registry, [base, f"{base}-pull-requests"], holdout)
    count = len(judged) + (not was_judged(judged, candidate.digest))
    line = project.document.line(("evaluate", "holdout_budget"))
    if not record.dry_run and not was_judged(judged, candidate.digest):
        try:
            note_judged(registry, holdout, candidate.digest)
        except ServiceError as error:
            record.checks.append(
                Check(
                    name="holdout wear",
                    status=CheckStatus.FAILED,
                    severity=Severity.WARN,
                    reason=f"this look at the holdout could not be counted: {error.one_line()}",
                    remedy="give the job the right to write tags in the tracking server",
                    details={"line": line},
                )
            )
    confidence = worn_confidence(settings.confidence, count, settings.holdout_budget)
    record.details["holdout_wear"] = {
        "candidates": count,
        "budget": settings.holdout_budget,
        "confidence": confidence,
    }
    if count <= settings.holdout_budget:
        return
    record.checks.append(
        Check(
            name="holdout wear",
            status=CheckStatus.FAILED,
            severity=Severity.WARN,
            observed=float(count),
            required=f"<= {settings.holdout_budget} candidates",
            reason=f"this holdout has judged {count} candidates, and its budget is {settings.holdout_budget}: "
            f"intervals have confidence {confidence:.6g} now, so that luck among all stays within the budget's",
            remedy="draw a fresh holdout",
            details={"line": line},
        )
    )
    # From here on, whoever asks for the confidence gets the one that is left.
    evaluate = settings.model_copy(update={"confidence": confidence})
    record.project = replace(project, config=project.config.model_copy(update={"evaluate": evaluate}))
