"""Ten metrics of two models with paired 95 % intervals, beside a naive bootstrap and two peers: time and memory.

    python benchmarks/evaluate.py [--rows 10000 100000 1000000] [--resamples 2000] [--budget 20] [--no-peers]

Each measurement runs in a process of its own (`ru_maxrss` never goes down), on the same scores, in turn. The
naive bootstrap draws rows with replacement and calls scikit-learn for each of the ten metrics of both models.
It runs as many resamples as fit into `--budget` seconds (two at least), and its time is scaled to
`--resamples`; ours is whole. The peers are MLflow's `evaluate` of static predictions and evidently's classification
report, each over both models; they give point estimates without intervals. They are installed into `.venv-bench`, and
left out, with the reason, where that fails. Memory is the peak of the whole process, imports included.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

METRICS = [
    "accuracy", "balanced_accuracy", "precision", "recall", "f1", "matthews_corrcoef", "roc_auc",
    "average_precision", "log_loss", "brier",
]  # fmt: skip


def holdout(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and two models' scores; 30 % positives."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=rows)
    y = (rng.random(rows) < 1 / (1 + np.exp(1 - 1.3 * z))).astype(np.int8)
    candidate, champion = (1 / (1 + np.exp(1 - 1.3 * (z + s * rng.normal(size=rows)))) for s in (0.5, 0.6))
    return y, candidate, champion


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ours(rows: int, resamples: int, budget: float) -> dict[str, float]:
    from mlcicd.evaluation.intervals import estimate
    from mlcicd.evaluation.predictions import Predictions

    y, candidate, champion = holdout(rows)
    before, started = peak_mb(), time.perf_counter()
    results = estimate(
        "binary", METRICS, y, Predictions(scores=candidate), Predictions(scores=champion), resamples=resamples
    )
    seconds = time.perf_counter() - started
    widths = {r.name: r.difference_interval[1] - r.difference_interval[0] for r in results}
    return {"seconds": seconds, "mb": peak_mb(), "added": peak_mb() - before, "roc_auc_width": widths["roc_auc"]}


def naive(rows: int, resamples: int, budget: float) -> dict[str, float]:
    from sklearn import metrics as sk

    y, candidate, champion = holdout(rows)
    before, started = peak_mb(), time.perf_counter()
    rng = np.random.default_rng(1)
    draws, done = [], 0
    while done < resamples and (done < 2 or time.perf_counter() - started < budget):
        pick = rng.integers(0, rows, rows)
        truth, pair = y[pick], []
        for scores in (candidate[pick], champion[pick]):
            labels = scores >= 0.5
            pair.append(
                [
                    sk.accuracy_score(truth, labels),
                    sk.balanced_accuracy_score(truth, labels),
                    sk.precision_score(truth, labels),
                    sk.recall_score(truth, labels),
                    sk.f1_score(truth, labels),
                    sk.matthews_corrcoef(truth, labels),
                    sk.roc_auc_score(truth, scores),
                    sk.average_precision_score(truth, scores),
                    sk.log_loss(truth, scores),
                    sk.brier_score_loss(truth, scores),
                ]
            )
        draws.append(np.subtract(*pair))
        done += 1
    seconds = (time.perf_counter() - started) * resamples / done
    spread = np.array(draws)[:, METRICS.index("roc_auc")].std(ddof=1)
    return {
        "seconds": seconds,
        "mb": peak_mb(),
        "added": peak_mb() - before,
        "roc_auc_width": 2 * 1.96 * float(spread),
        "done": done,
    }


def mlflow(rows: int, resamples: int, budget: float) -> dict[str, float]:
    import os
    import tempfile

    import pandas as pd
    from mlflow import models, set_tracking_uri, start_run

    y, candidate, champion = holdout(rows)
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(temporary)  # artifacts land in the working directory
        set_tracking_uri(f"sqlite:///{temporary}/mlflow.db")
        with start_run():
            pass  # the database is made before the clock starts
        started = time.perf_counter()
        for scores in (candidate, champion):
            table = pd.DataFrame({"y": y.astype(int), "p": (scores >= 0.5).astype(int)})
            with start_run():
                models.evaluate(data=table, targets="y", predictions="p", model_type="classifier", evaluators="default")
        seconds = time.perf_counter() - started
        os.chdir("/")
    return {"seconds": seconds, "mb": peak_mb()}


def evidently(rows: int, resamples: int, budget: float) -> dict[str, float]:
    import pandas as pd
    from evidently import BinaryClassification, DataDefinition, Dataset, Report
    from evidently.presets import ClassificationPreset

    y, *models = holdout(rows)
    started = time.perf_counter()
    shape = DataDefinition(
        classification=[
            BinaryClassification(target="y", prediction_labels="label", prediction_probas="p", pos_label=1)
        ],
        categorical_columns=["y", "label"],
        numerical_columns=["p"],
    )
    tables = [
        Dataset.from_pandas(
            pd.DataFrame({"y": y.astype(int), "label": (scores >= 0.5).astype(int), "p": scores}),
            data_definition=shape,
        )
        for scores in models
    ]
    Report([ClassificationPreset()]).run(tables[0], tables[1]).dict()
    return {"seconds": time.perf_counter() - started, "mb": peak_mb()}


MEASURES = {"ours": ours, "naive": naive, "mlflow": mlflow, "evidently": evidently}
PEERS = ("mlflow", "evidently")


def peers_python() -> str:
    """The interpreter of an environment with the peers, made once; empty where they do not install."""
    folder = Path(__file__).resolve().parents[1] / ".venv-bench"
    python = folder / "bin" / "python"
    done = folder / ".ready"
    if not done.is_file():
        commands = [
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "-q", *PEERS, "pandas<3"],
        ]
        for command in commands:
            made = subprocess.run(command, check=False, capture_output=True, text=True)
            if made.returncode:
                print(f"without {' and '.join(PEERS)}: {made.stderr.strip().splitlines()[-1:]}")
                return ""
        done.touch()
    return str(python)


def apart(which: str, rows: int, resamples: int, budget: float, python: str = sys.executable) -> dict[str, float]:
    """Runs one measurement in a process of its own; empty where a peer fails, with its last line said."""
    command = [python, __file__, "--measure", which, "--rows", str(rows)]
    command += ["--resamples", str(resamples), "--budget", str(budget)]
    done = subprocess.run(command, check=which not in PEERS, capture_output=True, text=True)
    if done.returncode:
        print(f"{which} failed: {done.stderr.strip().splitlines()[-1:]}")
        return {}
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--budget", type=float, default=20)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--measure", choices=MEASURES)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(MEASURES[args.measure](args.rows[0], args.resamples, args.budget)))
        return
    print(f"ten metrics, two models, paired 95 % intervals, {args.resamples} resamples")
    python = "" if args.no_peers else peers_python()
    print(f"{'rows':>9}  {'who':10} {'seconds':>9} {'x ours':>8} {'peak MB':>8} {'x ours':>7}  note")
    for rows in args.rows:
        own = apart("ours", rows, args.resamples, args.budget)
        for which in ("ours", "naive", *(PEERS if python else ())):
            found = own
            if which != "ours":
                where = python if which in PEERS else sys.executable
                found = apart(which, rows, args.resamples, args.budget, where)
            if found:
                note = f"{found['done']:.0f} resamples run" if "done" in found else ""
                note += f" AUC difference's width {found['roc_auc_width']:.5f}" if "roc_auc_width" in found else ""
                note += "" if "roc_auc_width" in found else " no intervals"
                print(
                    f"{rows:>9}  {which:10} {found['seconds']:>9.2f} {found['seconds'] / own['seconds']:>8.1f} "
                    f"{found['mb']:>8.0f} {found['mb'] / own['mb']:>7.2f}  {note.strip()}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
