"""How often nominal 95 % intervals hold the truth, and how often gates are wrong, on simulated populations.

    python benchmarks/coverage.py [--draws 1000] [--rows 1000] [--only WORLD]

A population of a million rows stands for the truth; each draw is a holdout of `--rows` rows with two models
of correlated errors. Monte-Carlo error of a coverage of 0.95 over 1000 draws: 0.7 points (standard error).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mlcicd.core.verdict import CheckStatus
from mlcicd.evaluation.gates import Gate, VsChampion, judge_gates
from mlcicd.evaluation.intervals import estimate
from mlcicd.evaluation.predictions import Predictions, take

POPULATION = 1_000_000
Holdout = tuple[NDArray, Predictions, Predictions]
METRICS = {
    "binary": [
        "accuracy", "balanced_accuracy", "precision", "recall", "specificity", "f1", "matthews_corrcoef",
        "negative_flip_rate", "roc_auc", "average_precision", "log_loss", "brier", "ece",
    ],
    "multiclass": ["accuracy", "balanced_accuracy", "f1_macro", "f1_weighted", "matthews_corrcoef",
                   "log_loss", "brier", "roc_auc", "ece"],
    "regression": ["mae", "mse", "rmse", "r2", "mape", "pinball@0.9", "median_absolute_error",
                   "absolute_error@0.95"],
}  # fmt: skip


def binary(n: int, rng: np.random.Generator) -> Holdout:
    """30 % positives, AUC about 0.75; both models see a noisy logit, and are somewhat overconfident."""
    z = rng.normal(size=n)
    y = rng.random(n) < _expit(1.3 * z - 1)

    def model(noise: float) -> Predictions:
        p = _expit(1.6 * (z + noise * rng.normal(size=n)) - 1)
        return Predictions(labels=p > 0.4, scores=p, classes=(False, True))

    return y, model(0.5), model(0.6)


def multiclass(n: int, rng: np.random.Generator) -> Holdout:
    """Four classes of unequal size."""
    logits = rng.normal(size=(n, 4)) * 1.2 + np.array([0.8, 0.3, 0.0, -0.5])
    y = np.argmax(logits + rng.gumbel(size=(n, 4)), axis=1)

    def model(noise: float) -> Predictions:
        seen = 1.3 * (logits + noise * rng.normal(size=(n, 4)))
        p = np.exp(seen - seen.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        return Predictions(labels=p.argmax(axis=1), scores=p, classes=range(4))

    return y, model(0.4), model(0.6)


def regression(n: int, rng: np.random.Generator) -> Holdout:
    """Errors that grow with the value, a little skewed."""
    x = rng.normal(size=n)
    y = 10 + 2 * x + (1 + 0.2 * np.abs(x)) * (rng.gamma(4, 0.5, n) - 2)
    return y, *(Predictions(scores=10 + 2 * x + s * rng.normal(size=n)) for s in (0.5, 0.7))


def heavy_tails(n: int, rng: np.random.Generator) -> Holdout:
    """Log-normal values and errors: squared errors of which a few rows are half of the mean."""
    x = rng.normal(size=n)
    y = 5 + np.exp(0.5 * x + 0.5 * rng.normal(size=n))
    return y, *(Predictions(scores=5.1 + np.exp(0.5 * x + s * rng.normal(size=n))) for s in (0.15, 0.25))


WORLDS: dict[str, Callable[[int, np.random.Generator], Holdout]] = {
    "binary": binary,
    "multiclass": multiclass,
    "regression": regression,
    "heavy tails": heavy_tails,
}


def _expit(x: NDArray) -> NDArray:
    return 1 / (1 + np.exp(-x))


def coverage(world: str, rows: int, draws: int, seed: int = 0, metrics: list[str] | None = None) -> dict[str, dict]:
    """Coverage of own and difference intervals by metric, and how often they lie below or above the truth."""
    task = "regression" if world == "heavy tails" else world
    asked = metrics or METRICS[task]
    rng = np.random.default_rng(seed)
    y, candidate, champion = WORLDS[world](POPULATION, rng)
    truth = {r.name: r for r in estimate(task, asked, y, candidate, champion, resamples=100)}
    missed = {name: {"below": 0, "above": 0, "difference_below": 0, "difference_above": 0} for name in asked}
    for draw in range(draws):
        pick = rng.integers(0, POPULATION, rows)
        results = estimate(task, asked, y[pick], take(candidate, pick), take(champion, pick), resamples=1000, seed=draw)
        for result in results:
            tally, true = missed[result.name], truth[result.name]
            low, high = result.candidate_interval or (np.nan, np.nan)
            tally["below"] += not high >= true.candidate
            tally["above"] += not low <= true.candidate
            if result.difference_interval is not None:
                low, high = result.difference_interval
                tally["difference_below"] += not high >= true.difference
                tally["difference_above"] += not low <= true.difference
    out = {}
    for name, tally in missed.items():
        own = 1 - (tally["below"] + tally["above"]) / draws
        apart = 1 - (tally["difference_below"] + tally["difference_above"]) / draws
        out[name] = {"coverage": round(own, 4), "difference": round(apart, 4), **tally}
    return out


def gate_errors(rows: int, draws: int, seed: int = 0) -> dict[str, dict[str, float]]:
    """How often a non-inferiority gate of margin 0 fails an equally good model, and a worse one."""
    rng = np.random.default_rng(seed)
    out: dict[str, dict[str, float]] = {}
    names = ["accuracy", "roc_auc", "log_loss"]
    gates = [Gate(name, vs_champion=VsChampion()) for name in names]
    for label, noise in (("equal", 0.5), ("worse", 0.8), ("much worse", 1.2)):
        failed = dict.fromkeys(names, 0)
        for draw in range(draws):
            z = rng.normal(size=rows)
            y = rng.random(rows) < _expit(1.3 * z - 1)
            scores = [_expit(1.3 * (z + s * rng.normal(size=rows)) - 1) for s in (noise, 0.5)]
            models = [Predictions(scores=s, classes=(False, True)) for s in scores]
            results = estimate("binary", names, y, *models, resamples=1000, seed=draw)
            for name, check in zip(names, judge_gates(gates, results), strict=True):
                failed[name] += check.status is CheckStatus.FAILED
        out[label] = {name: count / draws for name, count in failed.items()}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--rows", type=int, nargs="+", default=[300, 1000, 5000])
    parser.add_argument("--only", choices=[*WORLDS, "gates"])
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found: dict[str, dict] = {}
    for rows in args.rows:
        for world in WORLDS:
            if args.only in (None, world):
                found[f"{world}, {rows} rows"] = coverage(world, rows, args.draws)
        if args.only in (None, "gates"):
            found[f"gates failed, {rows} rows"] = gate_errors(rows, args.draws)
    if args.json:
        print(json.dumps(found, indent=2))
        return
    for title, table in found.items():
        print(f"\n{title}, {args.draws} draws")
        for name, row in table.items():
            print(f"  {name:24}" + "".join(f"  {key} {value:<7}" for key, value in row.items()))


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"\n{time.perf_counter() - started:.0f} s")
