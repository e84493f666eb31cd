"""Ten metrics of two models with paired 95 % intervals, beside a naive bootstrap: time and memory.

    python benchmarks/evaluate.py [--rows 10000 100000 1000000] [--resamples 2000] [--budget 20]

Each measurement runs in a process of its own (`ru_maxrss` never goes down), on the same scores, in turn. The
naive bootstrap draws rows with replacement and calls scikit-learn for each of the ten metrics of both models.
It runs as many resamples as fit into `--budget` seconds (two at least), and its time is scaled to
`--resamples`; ours is whole. Memory is what the measurement adds to the peak of holding the data.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

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
    return {"seconds": seconds, "mb": peak_mb() - before, "roc_auc_width": widths["roc_auc"]}


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
        "mb": peak_mb() - before,
        "roc_auc_width": 2 * 1.96 * float(spread),
        "done": done,
    }


def apart(which: str, rows: int, resamples: int, budget: float) -> dict[str, float]:
    """Runs one measurement in a process of its own."""
    command = [sys.executable, __file__, "--measure", which, "--rows", str(rows)]
    command += ["--resamples", str(resamples), "--budget", str(budget)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--budget", type=float, default=20)
    parser.add_argument("--measure", choices=["ours", "naive"])
    args = parser.parse_args()
    if args.measure:
        measure = ours if args.measure == "ours" else naive
        print(json.dumps(measure(args.rows[0], args.resamples, args.budget)))
        return
    print(f"ten metrics, two models, paired 95 % intervals, {args.resamples} resamples")
    heads = f"{'rows':>9} {'ours s':>8} {'naive s':>10} {'time':>8}"
    print(f"{heads} {'ours MB':>8} {'naive MB':>9} {'memory':>7}  note")
    for rows in args.rows:
        a, b = (apart(which, rows, args.resamples, args.budget) for which in ("ours", "naive"))
        print(
            f"{rows:>9} {a['seconds']:>8.2f} {b['seconds']:>10.0f} {b['seconds'] / a['seconds']:>7.0f}x "
            f"{a['mb']:>8.0f} {b['mb']:>9.0f} {b['mb'] / max(a['mb'], 0.1):>6.1f}x  "
            f"naive ran {b['done']:.0f} resamples; width of the AUC difference: "
            f"{a['roc_auc_width']:.5f}, naive {b['roc_auc_width']:.5f}"
        )


if __name__ == "__main__":
    main()
