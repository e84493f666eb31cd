"""A realistic set of verdicts: a pull request whose candidate is better overall and worse on one slice.

Run as a program it writes `report.html`, `summary.md` and `comment.md` into the directory given::

    python tests/report/sample_verdicts.py build/sample
"""

from __future__ import annotations

import math
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mlcicd.core.digests import digest_bytes
from mlcicd.core.verdict import Check, CheckStatus, Evidence, Severity, Status, Subject, Verdict

START = datetime(2026, 3, 14, 9, 30, tzinfo=UTC)
COMMIT = "7c1f0e9ab2d34c55e1f09b7a66a1e0d2c4b8f913"


def _digest(text: str) -> str:
    return digest_bytes(text.encode())


def _subjects(*extra: Subject) -> list[Subject]:
    return [
        Subject(
            kind="git",
            name=COMMIT[:12],
            digest=f"sha1:{COMMIT}",
            details={"dirty": False, "branch": "gbm-weather"},
        ),
        Subject(kind="config", name="mlcicd.yaml", digest=_digest("config")),
        *extra,
    ]


DATA = Subject(kind="data", name="data/2013-07.parquet", digest=_digest("holdout"), details={"rows": 29425})
MODEL = Subject(kind="model", name="flight-delays", digest=_digest("model"), details={"version": "7"})


def _verdict(stage: str, status: Status, offset: float, seconds: float, **fields: Any) -> Verdict:
    started = START + timedelta(seconds=offset)
    return Verdict(
        stage=stage,
        status=status,
        started=started,
        finished=started + timedelta(seconds=seconds),
        tool="mlcicd 0.1.0",
        **fields,
    )


def validate_data() -> Verdict:
    months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun"]
    drift = {
        "kind": "bars",
        "title": "Drift of each column against the champion's training data",
        "x_label": "column",
        "y_label": "population stability index",
        "series": [
            {
                "name": "July against January to June",
                "x": ["visib", "precip", "wind_speed", "dep_hour", "carrier", "distance", "dest"],
                "y": [0.162, 0.118, 0.061, 0.021, 0.017, 0.009, 0.004],
                "lo": [0.151, 0.109, 0.055, 0.017, 0.014, 0.007, 0.003],
                "hi": [0.174, 0.128, 0.068, 0.026, 0.021, 0.012, 0.006],
            }
        ],
        "reference": {"y": 0.1, "label": "tolerated"},
        "log_y": False,
    }
    rate = {
        "kind": "lines",
        "title": "Share of flights more than 15 minutes late, by month",
        "x_label": "month of 2013",
        "y_label": "share late",
        "series": [
            {"name": "JFK", "x": [*months, "Jul"], "y": [0.196, 0.205, 0.193, 0.226, 0.189, 0.268, 0.287]},
            {"name": "EWR", "x": [*months, "Jul"], "y": [0.261, 0.247, 0.262, 0.283, 0.234, 0.302, 0.311]},
            {"name": "LGA", "x": [*months, "Jul"], "y": [0.187, 0.199, 0.183, 0.231, 0.196, 0.271, 0.263]},
        ],
        "reference": None,
        "log_y": False,
    }
    return _verdict(
        "validate-data",
        Status.PASSED,
        0,
        6.4,
        summary="166,158 training and 29,425 holdout rows fit the schema; two weather columns drifted.",
        subjects=_subjects(DATA),
        checks=[
            Check(
                name="schema",
                status=CheckStatus.PASSED,
                observed="24 of 24 columns",
                required="every column as declared",
            ),
            Check(
                name="missing",
                slice="wind_gust",
                status=CheckStatus.PASSED,
                observed=0.0312,
                required="<= 0.05",
            ),
            Check(name="duplicate_keys", status=CheckStatus.PASSED, observed=0, required="<= 0"),
            Check(
                name="leakage.keys",
                status=CheckStatus.PASSED,
                observed=0,
                required="<= 0",
                reason="No flight_id is in both tables.",
            ),
            Check(
                name="leakage.time",
                status=CheckStatus.PASSED,
                observed="2013-07-01 00:05",
                required="after 2013-06-30 23:59",
            ),
            Check(
                name="drift",
                slice="visib",
                status=CheckStatus.FAILED,
                severity=Severity.WARN,
                observed=0.162,
                interval=(0.151, 0.174),
                required="<= 0.1",
                reason="Visibility in July is lower than in the months the champion was trained on.",
                remedy="see the column's histogram; retrain with July if it lasts for two windows.",
            ),
            Check(
                name="drift",
                slice="precip",
                status=CheckStatus.FAILED,
                severity=Severity.WARN,
                observed=0.118,
                interval=(0.109, 0.128),
                required="<= 0.1",
                reason="Thunderstorms: 4.1 % of the hours have rain above 2 mm, against 1.2 % before.",
            ),
            Check(
                name="drift",
                slice="carrier",
                status=CheckStatus.PASSED,
                observed=0.017,
                interval=(0.014, 0.021),
                required="<= 0.1",
            ),
        ],
        details={"figures": [drift, rate]},
        evidence=[Evidence(path=".mlcicd/data/profile.json", digest=_digest("profile"), kind="data profile")],
        outputs={"rows-train": "166158", "rows-holdout": "29425"},
    )


def train() -> Verdict:
    rounds = list(range(1, 201))
    loss = [0.52 + 0.17 * math.exp(-r / 28) for r in rounds]
    valid = [0.541 + 0.15 * math.exp(-r / 25) + 0.00004 * max(0, r - 110) for r in rounds]
    return _verdict(
        "train",
        Status.PASSED,
        7,
        94.2,
        summary="python train.py ended with status 0 and left a model of 1.9 MB.",
        subjects=_subjects(DATA, MODEL, Subject(kind="environment", name="requirements.lock", digest=_digest("lock"))),
        checks=[
            Check(name="command", status=CheckStatus.PASSED, observed="exit status 0", required="exit status 0"),
            Check(
                name="artifact",
                status=CheckStatus.PASSED,
                observed="model/ (7 files)",
                required="a model directory",
            ),
            Check(
                name="scan",
                status=CheckStatus.PASSED,
                observed=0,
                required="<= 0",
                reason="61 globals, all of them allowed.",
            ),
        ],
        details={
            "figures": [
                {
                    "kind": "lines",
                    "title": "Log loss by boosting round",
                    "x_label": "round",
                    "y_label": "log loss",
                    "series": [
                        {"name": "training", "x": rounds, "y": loss},
                        {"name": "validation", "x": rounds, "y": valid},
                    ],
                    "reference": None,
                    "log_y": False,
                }
            ]
        },
        outputs={"run-id": "d41f6c2b9e0a4f7c8b35", "model-digest": MODEL.digest},
    )


_CARRIERS = [
    ("UA", 4978, 0.741, 0.012, "passed"),
    ("B6", 4984, 0.733, 0.012, "passed"),
    ("EV", 4641, 0.728, 0.013, "passed"),
    ("DL", 4251, 0.726, 0.014, "passed"),
    ("AA", 2882, 0.719, 0.018, "passed"),
    ("MQ", 2261, 0.598, 0.020, "failed"),
    ("US", 1786, 0.688, 0.025, "passed"),
    ("9E", 1494, 0.702, 0.026, "passed"),
    ("WN", 1077, 0.629, 0.032, "inconclusive"),
]


def evaluate() -> Verdict:
    slices = [
        Check(
            name="roc_auc",
            slice=f"carrier = {carrier}",
            status=CheckStatus(status),
            observed=auc,
            interval=(auc - half, auc + half),
            reference=round(auc + (0.049 if carrier == "MQ" else -0.012), 3),
            required=">= 0.62",
            reason={
                "failed": f"The interval lies below 0.62 on {rows:,} rows, where the champion had 0.647.",
                "inconclusive": f"The interval holds 0.62: {rows:,} rows are too few to decide.",
                "passed": "",
            }[status],
            remedy={
                "failed": "look at what changed for this carrier, or hold the candidate back.",
                "inconclusive": "add holdout rows for this carrier, or raise min_rows above 1,077.",
                "passed": "",
            }[status],
            details={"rows": rows},
        )
        for carrier, rows, auc, half, status in _CARRIERS
    ]
    calibration = {
        "kind": "lines",
        "title": "Calibration: how often a predicted probability came true",
        "x_label": "predicted probability",
        "y_label": "observed share",
        "series": [
            {
                "name": "candidate",
                "x": [0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95],
                "y": [0.058, 0.148, 0.262, 0.349, 0.461, 0.541, 0.637, 0.741, 0.822, 0.91],
                "lo": [0.052, 0.141, 0.252, 0.336, 0.444, 0.52, 0.611, 0.708, 0.78, 0.842],
                "hi": [0.064, 0.155, 0.272, 0.362, 0.478, 0.562, 0.663, 0.774, 0.864, 0.961],
            },
            {
                "name": "champion",
                "x": [0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95],
                "y": [0.081, 0.171, 0.259, 0.331, 0.418, 0.488, 0.569, 0.652, 0.731, 0.803],
            },
        ],
        "reference": None,
        "log_y": False,
    }
    forest = {
        "kind": "intervals",
        "title": "ROC AUC by carrier, with 95 % intervals",
        "x_label": "carrier",
        "y_label": "ROC AUC",
        "series": [
            {
                "name": "candidate",
                "x": [c[0] for c in _CARRIERS],
                "y": [c[2] for c in _CARRIERS],
                "lo": [c[2] - c[3] for c in _CARRIERS],
                "hi": [c[2] + c[3] for c in _CARRIERS],
            }
        ],
        "reference": {"y": 0.62, "label": "required"},
        "log_y": False,
    }
    return _verdict(
        "evaluate",
        Status.FAILED,
        102,
        18.9,
        summary="Better than the champion overall, and worse than required for one carrier.",
        subjects=_subjects(
            DATA, MODEL, Subject(kind="model", name="flight-delays@champion", digest=_digest("champion"))
        ),
        checks=[
            Check(
                name="roc_auc",
                status=CheckStatus.PASSED,
                observed=0.7314,
                interval=(0.7242, 0.7386),
                reference=0.7198,
                required=">= 0.70",
            ),
            Check(
                name="roc_auc vs champion",
                status=CheckStatus.PASSED,
                observed=0.0116,
                interval=(0.0079, 0.0153),
                reference=0.0,
                required=">= -0.005",
                reason="Paired bootstrap over 29,425 flights.",
            ),
            Check(
                name="brier",
                status=CheckStatus.PASSED,
                observed=0.1527,
                interval=(0.1498, 0.1556),
                reference=0.1571,
                required="<= 0.16",
            ),
            Check(
                name="latency_p95_ms",
                status=CheckStatus.PASSED,
                observed=7.31,
                interval=(7.02, 7.66),
                reference=6.9,
                required="<= 20",
            ),
            *slices,
        ],
        details={"figures": [forest, calibration]},
        evidence=[
            Evidence(path=".mlcicd/evaluate/predictions.parquet", digest=_digest("predictions"), kind="predictions"),
            Evidence(path=".mlcicd/evaluate/metrics.json", digest=_digest("metrics"), kind="metrics"),
        ],
        outputs={"roc-auc": "0.7314", "decision": "hold"},
    )


def register() -> Verdict:
    return _verdict(
        "register",
        Status.SKIPPED,
        121,
        0.2,
        summary="Not registered: the evaluation of this model did not pass.",
        subjects=_subjects(MODEL),
    )


def deploy() -> Verdict:
    return _verdict(
        "deploy",
        Status.ERROR,
        122,
        31.0,
        summary="The registry did not answer.",
        subjects=_subjects(MODEL),
        error_exit_code=5,
        details={
            "error": {
                "what": "The registry did not answer.",
                "where": "https://mlflow.example.org/api/2.0/mlflow/registered-models/get (503)",
                "why": "Which version is in production can not be known without it, so nothing was switched.",
                "remedy": "start the tracking server, then run `mlcicd deploy` again.",
            }
        },
    )


def canary() -> Verdict:
    minutes = [m / 2 for m in range(0, 49)]
    weight = [1 if m < 6 else 5 if m < 12 else 25 if m < 18 else 50 for m in minutes]
    ratio = [1 + 0.18 * math.sin(m / 3) * math.exp(-m / 15) for m in minutes]
    return _verdict(
        "canary",
        Status.PASSED,
        160,
        1462,
        summary="Promoted at 50 % after 41,208 requests; nothing was worse than tolerated.",
        subjects=_subjects(MODEL),
        checks=[
            Check(
                name="errors",
                status=CheckStatus.PASSED,
                observed=1.04,
                interval=(0.91, 1.19),
                required="<= 1.25",
                reason="always-valid at alpha 0.01",
            ),
            Check(
                name="latency",
                status=CheckStatus.PASSED,
                observed=0.981,
                interval=(0.962, 1.003),
                required="<= 1.10",
            ),
            Check(name="traffic", status=CheckStatus.PASSED, observed=41208, required=">= 5000"),
        ],
        details={
            "figures": [
                {
                    "kind": "steps",
                    "title": "Share of traffic that the candidate served",
                    "x_label": "minutes",
                    "y_label": "per cent",
                    "series": [{"name": "candidate", "x": minutes, "y": weight}],
                    "reference": None,
                    "log_y": False,
                },
                {
                    "kind": "lines",
                    "title": "Error rate of the candidate over that of the champion",
                    "x_label": "minutes",
                    "y_label": "ratio",
                    "series": [
                        {
                            "name": "ratio",
                            "x": minutes,
                            "y": ratio,
                            "lo": [r - 2.2 / (m + 3) for r, m in zip(ratio, minutes, strict=True)],
                            "hi": [r + 2.4 / (m + 3) for r, m in zip(ratio, minutes, strict=True)],
                        }
                    ],
                    "reference": {"y": 1.25, "label": "tolerated"},
                    "log_y": False,
                },
            ]
        },
        outputs={"promoted": "true", "requests": "41208"},
    )


def verdicts() -> list[Verdict]:
    """Six stages: two passed, one failed, one skipped, one in error, one passed with figures."""
    return [validate_data(), train(), evaluate(), register(), deploy(), canary()]


def main(directory: Path) -> None:
    from mlcicd.report import comment_markdown, report_html, summary_markdown

    sample = verdicts()
    directory.mkdir(parents=True, exist_ok=True)
    page = report_html(sample, title="flight-delays, pull request 42", generated=START + timedelta(minutes=30))
    (directory / "report.html").write_text(page, encoding="utf-8")
    (directory / "summary.md").write_text(summary_markdown(sample), encoding="utf-8")
    (directory / "comment.md").write_text(comment_markdown(sample), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/sample"))
