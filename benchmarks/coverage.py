"""How often nominal 95 % intervals hold the truth, and how often gates are wrong, on simulated populations.

    OPENBLAS_NUM_THREADS=1 python benchmarks/coverage.py [--draws 1000] [--rows 1000] [--only WORLD] [--jobs 2]

A holdout of 400,000 rows stands for the truth of a world; each draw is a new holdout of `--rows` rows from it, with two
models of correlated errors. Monte-Carlo error of a coverage of 0.95 over 1000 draws: 0.7 points (standard error). Draws
are dealt in parts, each with a seed of its own, to `--jobs` processes; the numbers do not depend on how many these are.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlcicd.core.verdict import CheckStatus
from mlcicd.evaluation import function_runner
from mlcicd.evaluation.functions import UserMetric, from_draws
from mlcicd.evaluation.gates import Gate, VsChampion, judge_gates
from mlcicd.evaluation.intervals import MetricResult, estimate
from mlcicd.evaluation.predictions import Predictions, Structure, prepare

POPULATION = 400_000
NOMINAL = 0.95
BINARY = [
    "accuracy", "balanced_accuracy", "precision", "recall", "specificity", "f1", "matthews_corrcoef",
    "negative_flip_rate", "roc_auc", "average_precision", "log_loss", "brier", "ece",
]  # fmt: skip


@dataclass(frozen=True)
class Holdout:
    """One simulated holdout, and two models' answers to it."""

    task: str
    y: NDArray
    candidate: Predictions
    champion: Predictions
    weight: NDArray | None = None
    structure: Structure | None = None

    def estimate(self, metrics: list[str], resamples: int, seed: int = 0) -> list[MetricResult]:
        return estimate(
            self.task, metrics, self.y, self.candidate, self.champion, sample_weight=self.weight, resamples=resamples,
            seed=seed, structure=self.structure,
        )  # fmt: skip


@dataclass(frozen=True)
class OwnHoldout(Holdout):
    """A holdout whose metrics are functions of a user's, called here as the runner calls them in the user's process."""

    amount: NDArray | None = None

    def estimate(self, metrics: list[str], resamples: int, seed: int = 0) -> list[MetricResult]:
        problem = prepare(self.task, self.y, self.candidate, self.champion)
        answers = {"y": self.y, "candidate": self.candidate.labels, "champion": self.champion.labels}
        arrays = {**answers, "column:amount": self.amount}
        found = []
        for name in metrics:
            said = function_runner.run(OWN[name], arrays, resamples, 1e9, seed)
            found.append(from_draws(UserMetric(name, f"benchmarks:{name}", "lower"), problem, said, NOMINAL))
        return found


def cost(y: NDArray, predictions: NDArray, amount: NDArray) -> float:
    """Mean of what wrong answers cost: amounts that are log-normal."""
    return float((amount * (predictions != y)).mean())


def missed_share(y: NDArray, predictions: NDArray, amount: NDArray) -> float:
    """What was missed of the positives, by amount: a ratio of sums."""
    return float((amount * (y & ~predictions)).sum() / (amount * y).sum())


OWN = {"cost": cost, "missed_share": missed_share}
Noise = tuple[float, float]
World = Callable[[int, np.random.Generator, Noise], Holdout]


def _expit(x: NDArray) -> NDArray:
    return 1 / (1 + np.exp(-x))


def binary(n: int, rng: np.random.Generator, noise: Noise) -> Holdout:
    """30 % positives, AUC about 0.75; both models see a noisy logit, and are somewhat overconfident."""
    z = rng.normal(size=n)
    y = rng.random(n) < _expit(1.3 * z - 1)
    return Holdout("binary", y, *(_binary_model(z + s * rng.normal(size=n)) for s in noise))


def _binary_model(z: NDArray) -> Predictions:
    p = _expit(1.6 * z - 1)
    return Predictions(labels=p > 0.4, scores=p, classes=(False, True))


def weighted(n: int, rng: np.random.Generator, noise: Noise) -> Holdout:
    """The same, with sample weights that grow with the signal: one row in ten weighs as much as four others."""
    z = rng.normal(size=n)
    y = rng.random(n) < _expit(1.3 * z - 1)
    weight = rng.gamma(2, 0.5, n) * (1 + (z > 1))
    return Holdout("binary", y, *(_binary_model(z + s * rng.normal(size=n)) for s in noise), weight=weight)


def clustered(n: int, rng: np.random.Generator, noise: Noise) -> Holdout:
    """Patients of 5 to 35 rows, whose signal and whose noise are alike."""
    patient, count = _groups(n, rng, 5, 35)
    z = 0.8 * rng.normal(size=n) + 0.6 * rng.normal(size=count)[patient]
    y = rng.random(n) < _expit(1.3 * z - 1)
    models = [_binary_model(z + s * (0.8 * rng.normal(size=n) + 0.6 * rng.normal(size=count)[patient])) for s in noise]
    return Holdout("binary", y, *models, structure=Structure(patient, "patient"))


def _groups(n: int, rng: np.random.Generator, low: int, high: int) -> tuple[NDArray, int]:
    sizes = rng.integers(low, high + 1, n // low + 1)
    group = np.repeat(np.arange(sizes.size), sizes)[:n]
    return group, int(group[-1]) + 1


def clustered_regression(n: int, rng: np.random.Generator, noise: Noise) -> Holdout:
    """Users of 5 to 35 rows, for each of whom a model is off by something of its own."""
    user, count = _groups(n, rng, 5, 35)
    x = rng.normal(size=n)
    y = 10 + 2 * x + rng.normal(size=n) + 0.5 * rng.normal(size=count)[user]
    models = [Predictions(10 + 2 * x + s * rng.normal(size=n) + s * rng.normal(size=count)[user]) for s in noise]
    return Holdout("regression", y, *models, structure=Structure(user, "user"))


def multiclass(n: int, rng: np.random.Generator, noise: Noise) -> Holdout:
    """Four classes of unequal size."""
    logits = rng.normal(size=(n, 4)) * 1.2 + np.array([0.8, 0.3, 0.0, -0.5])
    y = np.argmax(logits + rng.gumbel(size=(n, 4)), axis=1)

    def model(s: float) -> Predictions:
        seen = 1.3 * (logits + s * rng.normal(size=(n, 4)))
        p = np.exp(seen - seen.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        return Predictions(labels=p.argmax(axis=1), scores=p, classes=range(4))

    return Holdout("multiclass", y, *(model(s) for s in noise))


def multilabel(n: int, rng: np.random.Generator, noise: Noise) -> Holdout:
    """Three labels on 12, 27 and 50 % of rows, that come together."""
    shared = rng.normal(size=(n, 1))
    z = 0.5 * shared + rng.normal(size=(n, 3)) + np.array([-2.0, -1.0, 0.0])
    y = rng.random((n, 3)) < _expit(1.5 * z)
    models = [Predictions(scores=_expit(1.5 * (z + s * rng.normal(size=(n, 3))))) for s in noise]
    return Holdout("multilabel", y, *models)


def regression(n: int, rng: np.random.Generator, noise: Noise) -> Holdout:
    """Errors that grow with the value, a little skewed."""
    x = rng.normal(size=n)
    y = 20 + 2 * x + (1 + 0.2 * np.abs(x)) * (rng.gamma(4, 0.5, n) - 2)
    return Holdout("regression", y, *(Predictions(scores=20 + 2 * x + s * rng.normal(size=n)) for s in noise))


def heavy_tails(n: int, rng: np.random.Generator, noise: Noise) -> Holdout:
    """Log-normal values and errors: squared errors of which a few rows are half of the mean."""
    x = rng.normal(size=n)
    y = 5 + np.exp(0.5 * x + 0.5 * rng.normal(size=n))
    models = [Predictions(scores=5.1 + np.exp(0.5 * x + s / 3 * rng.normal(size=n))) for s in noise]
    return Holdout("regression", y, *models)


def quantile(n: int, rng: np.random.Generator, noise: Noise) -> Holdout:
    """Three quantiles of values whose spread a model knows more or less well."""
    x = rng.normal(size=n)
    spread = np.exp(0.3 * x)
    y = 20 + 3 * x + spread * rng.normal(size=n)

    def model(s: float) -> Predictions:
        centre, width = 20 + 3 * x + s * rng.normal(size=n), np.exp(0.3 * x + 0.3 * s * rng.normal(size=n))
        columns = [centre + width * z for z in (-1.2816, 0.0, 1.2816)]
        return Predictions(scores=np.stack(columns, axis=1), classes=(0.1, 0.5, 0.9))

    return Holdout("quantile", y, *(model(s) for s in noise))


def ranking(n: int, rng: np.random.Generator, noise: Noise) -> Holdout:
    """Queries of 5 to 15 documents of relevance 0 to 3, of unequal difficulty; n rows."""
    query, count = _groups(n, rng, 5, 15)
    z = rng.normal(size=n)
    relevance = np.clip(np.round(z + 0.3 * rng.normal(size=n)), 0, 3)
    hard = rng.gamma(4, 0.25, count)[query]
    models = [Predictions(scores=z + 2 * s * hard * rng.normal(size=n)) for s in noise]
    return Holdout("ranking", relevance, *models, structure=Structure(query, "query"))


def forecast(n: int, rng: np.random.Generator, noise: Noise) -> Holdout:
    """Four series whose forecast errors hang together in time (AR(1) of 0.5) and across series."""
    series, steps = 4, n // 4

    def errors() -> NDArray:
        shocks = rng.normal(size=(steps + 50, series)) + 0.5 * rng.normal(size=(steps + 50, 1))
        for step in range(1, len(shocks)):
            shocks[step] += 0.5 * shocks[step - 1]
        return shocks[50:]

    scale = np.array([1.0, 2.0, 3.0, 4.0])
    y = 50 + scale * errors()
    models = [Predictions(scores=(y + scale * (0.5 * errors() + s * errors())).ravel()) for s in noise]
    time_, scales = np.repeat(np.arange(steps), series), np.tile(scale, steps)
    named = np.tile(np.arange(series), steps)
    return Holdout("forecast", y.ravel(), *models, structure=Structure(named, "series", time_, scales))


def user_functions(n: int, rng: np.random.Generator, noise: Noise) -> Holdout:
    """The first world, with an amount a row that grows with the signal; one row in a hundred is 10 times the median."""
    z = rng.normal(size=n)
    y = rng.random(n) < _expit(1.3 * z - 1)
    amount = np.exp(0.3 * z + 0.9 * rng.normal(size=n))
    return OwnHoldout("binary", y, *(_binary_model(z + s * rng.normal(size=n)) for s in noise), amount=amount)


REGRESSION = ["mae", "mse", "rmse", "r2", "mape", "pinball@0.9", "median_absolute_error", "absolute_error@0.95"]
WORLDS: dict[str, tuple[World, list[str]]] = {
    "binary": (binary, BINARY),
    "weighted": (weighted, BINARY),
    "clustered": (clustered, BINARY),
    "multiclass": (multiclass, ["accuracy", "balanced_accuracy", "f1_macro", "f1_weighted", "matthews_corrcoef",
                                "log_loss", "brier", "roc_auc", "ece"]),
    "multilabel": (multilabel, ["accuracy", "hamming_loss", "f1_micro", "f1_macro", "f1_weighted", "f1_samples",
                                "roc_auc", "average_precision"]),
    "regression": (regression, REGRESSION),
    "heavy tails": (heavy_tails, REGRESSION),
    "clustered regression": (clustered_regression, ["mae", "rmse", "r2", "median_absolute_error",
                                                    "absolute_error@0.95"]),
    "quantile": (quantile, ["pinball", "pinball@0.9", "interval_coverage@0.8", "interval_score@0.8",
                            "interval_width@0.8", "absolute_error@0.9"]),
    "forecast": (forecast, ["mae", "rmse", "mase", "smape", "median_absolute_error"]),
    "ranking": (ranking, ["ndcg", "ndcg@5", "map", "map@5", "mrr"]),
    "user functions": (user_functions, list(OWN)),
}  # fmt: skip


def coverage(
    world: str, rows: int, draws: int, seed: int = 0, metrics: list[str] | None = None
) -> dict[str, dict[str, float]]:
    """Coverage of own and difference intervals by metric, and how often they lie below or above the truth."""
    make, own = WORLDS[world]
    asked = metrics or own
    rng = np.random.default_rng([seed, 1])
    truth = {r.name: r for r in make(POPULATION, rng, (0.5, 0.6)).estimate(asked, 100)}
    missed = {name: {"below": 0, "above": 0, "difference_below": 0, "difference_above": 0} for name in asked}
    for draw in range(draws):
        for result in make(rows, rng, (0.5, 0.6)).estimate(asked, 1000, draw):
            tally, true = missed[result.name], truth[result.name]
            low, high = result.candidate_interval or (np.nan, np.nan)
            tally["below"] += not high >= true.candidate
            tally["above"] += not low <= true.candidate
            if not result.pairwise:
                low, high = result.difference_interval or (np.nan, np.nan)
                tally["difference_below"] += not high >= true.difference
                tally["difference_above"] += not low <= true.difference
    out = {}
    for name, tally in missed.items():
        own_share = 1 - (tally["below"] + tally["above"]) / draws
        apart = 1 - (tally["difference_below"] + tally["difference_above"]) / draws
        out[name] = {"coverage": round(own_share, 4), "difference": round(apart, 4), **tally}
    return out


def false_failures(world: str, rows: int, draws: int, seed: int = 0) -> dict[str, dict[str, float]]:
    """How often a non-inferiority gate of margin 0 fails a model that is exactly as good as the champion."""
    make, own = WORLDS[world]
    names = [name for name in own if name != "negative_flip_rate"]
    gates = [Gate(name, vs_champion=VsChampion()) for name in names]
    rng = np.random.default_rng([seed, 2])
    failed = dict.fromkeys(names, 0)
    for draw in range(draws):
        results = make(rows, rng, (0.5, 0.5)).estimate(names, 1000, draw)
        for name, check in zip(names, judge_gates(gates, results), strict=True):
            failed[name] += check.status is CheckStatus.FAILED
    return {name: {"failed": round(count / draws, 4)} for name, count in failed.items()}


def gate_errors(rows: int, draws: int, seed: int = 0) -> dict[str, dict[str, float]]:
    """How often a non-inferiority gate of margin 0 fails an equally good model, and a worse one."""
    rng = np.random.default_rng(seed)
    out: dict[str, dict[str, float]] = {}
    names = ["accuracy", "roc_auc", "log_loss"]
    gates = [Gate(name, vs_champion=VsChampion()) for name in names]
    for label, noise in (("equal", 0.5), ("worse", 0.8), ("much worse", 1.2)):
        failed = dict.fromkeys(names, 0)
        for draw in range(draws):
            results = binary(rows, rng, (noise, 0.5)).estimate(names, 1000, draw)
            for name, check in zip(names, judge_gates(gates, results), strict=True):
                failed[name] += check.status is CheckStatus.FAILED
        out[label] = {name: count / draws for name, count in failed.items()}
    return out


def losing_streak(rows: int, sequences: int, *, step: float, margin: float, seed: int = 0) -> dict[str, float]:
    """Twenty candidates in turn, each truly `step` of AUC worse than the champion of the moment.

    A candidate that passes becomes the champion. Each holdout is new. `point` is a gate that compares point estimates
    with the same margin, as peers do.

    Returns:
        AUC lost in the end (mean of the sequences), and the share of candidates let through.
    """
    noises, areas = _ladder(step)
    gate = [Gate("roc_auc", vs_champion=VsChampion(margin=margin))]
    rng = np.random.default_rng([seed, 3])
    lost, passed = {"interval": 0.0, "point": 0.0}, {"interval": 0, "point": 0}
    for _ in range(sequences):
        place = dict.fromkeys(lost, 0)
        for _attempt in range(20):
            for kind in lost:
                at = place[kind]
                result = binary(rows, rng, (noises[at + 1], noises[at])).estimate(["roc_auc"], 100)[0]
                if kind == "interval":
                    through = judge_gates(gate, [result])[0].status is CheckStatus.PASSED
                else:
                    through = (result.difference or 0.0) > -margin
                place[kind] += through
                passed[kind] += through
        for kind in lost:
            lost[kind] += areas[0] - areas[place[kind]]
    share = {f"{kind} let through": round(count / sequences / 20, 4) for kind, count in passed.items()}
    return {**{f"{kind} lost": round(total / sequences, 4) for kind, total in lost.items()}, **share}


def _ladder(step: float) -> tuple[list[float], list[float]]:
    """Noises whose models lose `step` of AUC each, and their AUCs."""
    z = np.random.default_rng(0).normal(size=POPULATION)
    y = np.random.default_rng(1).random(POPULATION) < _expit(1.3 * z - 1)
    error = np.random.default_rng(2).normal(size=POPULATION)
    grid = np.linspace(0.3, 2.5, 30)
    found = [
        estimate("binary", ["roc_auc"], y, Predictions(scores=_expit(z + s * error)), resamples=100)[0].candidate
        for s in grid
    ]
    areas = [found[0] - step * k for k in range(22)]
    return [float(np.interp(-a, -np.array(found), grid)) for a in areas], areas


Tables = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Job:
    """One part of a table: `draws` holdouts with a seed of their own."""

    title: str
    kind: str
    world: str
    rows: int
    draws: int
    seed: int
    step: float = 0.0

    def run(self) -> Tables:
        if self.kind == "coverage":
            return coverage(self.world, self.rows, self.draws, self.seed)
        if self.kind == "gates":
            return false_failures(self.world, self.rows, self.draws, self.seed)
        return {"roc_auc": losing_streak(self.rows, self.draws, step=self.step, margin=0.005, seed=self.seed)}


def _jobs(worlds: list[str], rows: list[int], draws: int, *, streak: bool) -> list[Job]:
    """Parts small enough that two processes end at about the same time."""
    jobs = []
    for world in worlds:
        for n in rows:
            title = f"{world}, {n} rows, {draws} draws"
            jobs += [Job(title, "coverage", world, n, part, k) for k, part in enumerate(_parts(draws, 250))]
        n, half = rows[-1], draws // 2
        title = f"gates failed of an equal model: {world}, {n} rows, {half} draws"
        jobs += [Job(title, "gates", world, n, part, k) for k, part in enumerate(_parts(half, 250))]
    for step in (0.002, 0.004, 0.01) if streak else ():
        title = f"twenty candidates, each {step} of AUC worse, margin 0.005, 5000 rows"
        parts = _parts(max(5, draws // 100), 5)
        jobs += [Job(title, "streak", "binary", 5000, part, k, step) for k, part in enumerate(parts)]
    return jobs


def _parts(draws: int, size: int) -> list[int]:
    return [min(size, draws - start) for start in range(0, draws, size)]


def _joined(parts: list[tuple[Job, Tables]]) -> Tables:
    """Counts of the parts added up, shares averaged over their draws."""
    draws = sum(job.draws for job, _ in parts)
    out: Tables = {}
    for name, row in parts[0][1].items():
        out[name] = {}
        for key, first in row.items():
            if isinstance(first, int):
                out[name][key] = sum(table[name][key] for _, table in parts)
            else:
                out[name][key] = round(sum(table[name][key] * job.draws for job, table in parts) / draws, 4)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000])
    parser.add_argument("--only", choices=[*WORLDS, "streak"])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    worlds = [w for w in WORLDS if args.only in (None, w)]
    jobs = _jobs(worlds, args.rows, args.draws, streak=args.only in (None, "streak"))
    found: dict[str, Tables] = {}
    parts: dict[str, list[tuple[Job, Tables]]] = {}
    left = Counter(job.title for job in jobs)
    with ProcessPoolExecutor(args.jobs) as pool:
        for job, table in zip(jobs, pool.map(Job.run, jobs), strict=True):
            parts.setdefault(job.title, []).append((job, table))
            left[job.title] -= 1
            if left[job.title]:
                continue
            found[job.title] = _joined(parts[job.title])
            if not args.json:
                _print(job.title, found[job.title])
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        _print_rows(found)


def _print(title: str, table: dict[str, dict[str, float]]) -> None:
    print(f"\n{title}")
    for name, row in table.items():
        shown = [key for key in ("coverage", "difference") if key in row and name != "negative_flip_rate"]
        marks = [f"{key} {row[key]:.3f}" for key in shown if not 0.94 <= row[key] <= 0.96]
        print(f"  {name:24}" + "".join(f"  {key} {value:<7}" for key, value in row.items()), end="")
        print(f"  <- {', '.join(marks)}" if marks else "", flush=True)


def _print_rows(found: dict[str, dict[str, dict[str, float]]]) -> None:
    """The lines of the table in docs/metrics.md: what covers outside of 94 to 96 is named there."""
    print("\n| Rows | Metrics | Value | Difference | Failed |\n|---|---|---|---|---|")
    for title, table in found.items():
        if "draws" not in title or title.startswith("gates failed"):
            continue
        failed = found.get(f"gates failed of an equal model: {_half(title)}", {})
        alone = {name: row for name, row in table.items() if name != "negative_flip_rate"}
        cells = [
            _span([row[key] for row in which.values()]) for key, which in (("coverage", table), ("difference", alone))
        ]
        mean = 100 * np.mean([row["failed"] for row in failed.values()]) if failed else np.nan
        print(f"| {title} | {len(table)} | {cells[0]} | {cells[1]} | {mean:.1f} |", flush=True)


def _half(title: str) -> str:
    rest, draws, word = title.rsplit(" ", 2)
    return f"{rest} {int(draws) // 2} {word}"


def _span(shares: list[float]) -> str:
    return f"{100 * min(shares):.1f} to {100 * max(shares):.1f}, mean {100 * np.mean(shares):.1f}"


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"\n{time.perf_counter() - started:.0f} s")
