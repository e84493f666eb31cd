"""evaluate: the candidate's signature against the data that it is judged on."""

from __future__ import annotations

from mlcicd.core.verdict import Check, CheckStatus, Severity
from mlcicd.data.conditions import kind_of
from mlcicd.data.source import quote
from mlcicd.evaluation.signature_change import read_signature
from mlcicd.evaluation.signature_skew import skew
from mlcicd.stages.expectations_asked import Ground
from mlcicd.stages.record import Record

_NAMED = 6


def skew_checks(record: Record, ground: Ground) -> list[Check]:
    """One check, where `data.checks.serving` asks for it and there is a model to look at."""
    data = record.project.config.data
    rule = data.checks.serving
    if rule is None or ground.candidate.answers is not None or not (ground.candidate.path / "MLmodel").is_file():
        return []
    severity = Severity.FAIL if rule.action == "fail" else Severity.WARN
    line = record.project.document.line(("data", "checks", "serving"))
    inputs = read_signature(ground.candidate.path).inputs
    required = "the signature's inputs are the data's features"
    if inputs is None:
        return [
            Check(
                name="serving.signature",
                status=CheckStatus.SKIPPED,
                severity=severity,
                required=required,
                reason="the candidate has no signature that says which inputs it takes",
                remedy="save models with a signature (mlflow.models.infer_signature)",
                details={"line": line},
            )
        ]
    left_out = {data.target, data.group, data.weight, *data.ignore}
    features = {n: kind_of(kind) for n, kind in ground.holdout.columns.items() if n not in left_out}
    parts = [
        f"count(*) FILTER ({quote(n)} IS NULL" + (f" OR isnan({quote(n)}))" if kind == "float" else ")")
        for n, kind in features.items()
    ]
    counts = ground.holdout.fetch(f"SELECT {', '.join(parts)} FROM data")[0] if parts else ()  # noqa: S608
    problems = skew(inputs, features, dict(zip(features, map(int, counts), strict=True)))
    more = f"; and {len(problems) - _NAMED} more" if problems[_NAMED:] else ""
    return [
        Check(
            name="serving.signature",
            status=CheckStatus.FAILED if problems else CheckStatus.PASSED,
            severity=severity,
            observed=f"{len(inputs)} inputs, {len(features)} features",
            required=required,
            reason="; ".join(problems[:_NAMED]) + more,
            remedy="infer the signature from the data that the model is given" if problems else "",
            details={"line": line},
        )
    ]
