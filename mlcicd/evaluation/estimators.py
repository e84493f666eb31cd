"""From a prepared holdout to each metric's sampling distribution, sharing what metrics have in common."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mlcicd.evaluation import calibration, counts, losses, macro, quantiles, ranking
from mlcicd.evaluation.metrics import Family, Metric, base_name
from mlcicd.evaluation.predictions import Problem, View
from mlcicd.evaluation.uncertainty import (
    Boundary,
    Draws,
    Exact,
    LogitNormal,
    Normal,
    Recovered,
    RootOf,
    SkewedMean,
    Uncertainty,
    Unknown,
)

Floats = NDArray[np.float64]

NO_CHAMPION = "there is no champion to compare with"
# Below this, rows without any variation say nothing about a quantity that has no bounds.
FEW = 30


@dataclass(frozen=True)
class Found:
    """A metric's distributions, or the reasons why there are none."""

    candidate: Uncertainty | None = None
    champion: Uncertainty | None = None
    difference: Uncertainty | None = None
    method: str = ""
    reason: str = ""
    champion_reason: str = ""
    identical: bool = False


class Estimator:
    """Finds metrics of one holdout; sorts, tables and draws are made once and shared."""

    def __init__(self, problem: Problem, resamples: int, seed: int) -> None:
        self._p = problem
        self._resamples = resamples
        self._seed = seed
        self._views = [problem.candidate] if problem.champion is None else [problem.candidate, problem.champion]
        self._ranked: dict[tuple[int, int], ranking.Ranked] = {}

    def find(self, metric: Metric) -> Found:
        """The distributions of one metric."""
        if self._p.reason:
            return self._nothing(self._p.reason)
        if metric.pairwise and not self._pair:
            return Found(reason=NO_CHAMPION)
        lacking = [self._lacking(v, metric) for v in self._views]
        if any(lacking):
            return self._alone(metric, lacking)
        shared = self._unusable(metric)
        if shared:
            return self._nothing(shared)
        found = self._families[metric.family](metric)
        if found.difference is not None and self._alike(metric):
            return replace(found, difference=Exact(0.0), identical=True)
        return self._checked(found)

    @property
    def _pair(self) -> bool:
        return len(self._views) == 2

    def _nothing(self, reason: str) -> Found:
        """The same reason for whichever models there are."""
        return Found(reason=reason, champion_reason=reason if self._pair else "")

    def _alike(self, metric: Metric) -> bool:
        """Whether both models gave the same scores on every row, and the same labels where those count.

        Equal labels without equal scores are no proof: two models may well agree on a hundred rows.
        """
        candidate, champion = self._views
        if not candidate.same_scores(champion):
            return False
        return metric.needs == "scores" or candidate.same_labels(champion)

    def _alone(self, metric: Metric, lacking: list[str]) -> Found:
        """One of the two models can not be measured; the other one still can."""
        if metric.pairwise:
            return Found(reason=lacking[0] or f"the champion can not be measured: {lacking[1]}")
        if all(lacking):
            return Found(reason=lacking[0], champion_reason=lacking[1] if self._pair else "")
        usable = 1 if lacking[0] else 0
        single = Problem(
            self._p.task,
            self._p.y,
            self._views[usable],
            None,
            self._p.weight,
            self._p.classes,
            self._p.reason,
        )
        found = Estimator(single, self._resamples, self._seed).find(metric)
        if usable == 0:
            return replace(found, champion_reason=f"the champion can not be measured: {lacking[1]}")
        return Found(champion=found.candidate, method=found.method, reason=lacking[0], champion_reason=found.reason)

    @staticmethod
    def _checked(found: Found) -> Found:
        """An estimate that came out NaN or infinite is a reason, not a number."""
        if found.candidate is not None and not math.isfinite(found.candidate.estimate):
            note = f"its value is {found.candidate.estimate}"
            found = replace(found, candidate=None, difference=None, reason=note)
        if found.champion is not None and not math.isfinite(found.champion.estimate):
            note = f"its value is {found.champion.estimate}"
            found = replace(found, champion=None, difference=None, champion_reason=note)
        return found

    @staticmethod
    def _lacking(view: View, metric: Metric) -> str:
        if metric.needs == "labels":
            return view.labels_reason if view.labels is None or view.labels_reason else ""
        if view.scores is None or view.scores_reason:
            return view.scores_reason
        if metric.probabilities and not (view.scores.min() >= 0 and view.scores.max() <= 1):
            return (
                f"its scores are not probabilities: they reach from {view.scores.min():.4g} to {view.scores.max():.4g}"
            )
        return ""

    def _unusable(self, metric: Metric) -> str:
        """Why the holdout does not define this metric, for any model."""
        if self._p.task == "binary":
            return self._one_class(base_name(metric))
        if self._p.task == "multiclass" and metric.family is Family.RANKING:
            absent = [c for k, c in enumerate(self._p.classes) if not self._class_counts[k]]
            if absent:
                return f"the holdout has no row of the class {absent[0]!r}, and one-vs-rest needs all"
        return ""

    @cached_property
    def _class_counts(self) -> NDArray[np.intp]:
        return np.bincount(self._p.y, minlength=max(len(self._p.classes), 2))

    def _one_class(self, name: str) -> str:
        negatives, positives = (int(c) for c in self._class_counts[:2])
        ranked = name in ("roc_auc", "average_precision")
        if positives == 0 and (ranked or name in counts.NEEDS_POSITIVES):
            return f"the {self._p.n} rows have a single class: none is positive ({self._p.classes[1]!r})"
        if negatives == 0 and (name == "roc_auc" or name in counts.NEEDS_NEGATIVES):
            return f"the {self._p.n} rows have a single class: none is negative ({self._p.classes[0]!r})"
        return ""

    @property
    def _families(self) -> dict[Family, Callable[[Metric], Found]]:
        return {
            Family.COUNTS: self._counts,
            Family.MACRO: self._macro,
            Family.MEAN: self._mean,
            Family.RANKING: self._ranking,
            Family.CALIBRATION: self._calibration,
            Family.QUANTILE: self._quantile,
        }

    def _rng(self, family: Family) -> np.random.Generator:
        # A stream a family: asking for one more metric does not move the others.
        return np.random.default_rng([self._seed, list(Family).index(family)])

    # --- counts

    @cached_property
    def _table(self) -> tuple[Floats, Floats]:
        labels = [np.asarray(v.labels) for v in self._views]
        if self._p.task == "binary":
            total, squares = counts.table(self._p.y, labels, self._p.weight)
        else:
            right = [answer == self._p.y for answer in labels]
            total, squares = counts.table(np.ones(self._p.n, dtype=bool), right, self._p.weight)
        draws = counts.draw_tables(total, squares, self._resamples, self._rng(Family.COUNTS))
        return total, draws

    def _counts(self, metric: Metric) -> Found:
        name = base_name(metric)
        if self._p.task == "multiclass" and name in macro.MACRO_METRICS:
            return self._macro(metric)
        if metric.pairwise:
            return self._negative_flips()
        function = counts.COUNT_METRICS[name]
        total, draws = self._table
        points, drawn = [], []
        for which in range(len(self._views)):
            pair = len(self._views) == 2
            points.append(float(function(counts.one_model(total, which) if pair else total)))
            drawn.append(function(counts.one_model(draws, which) if pair else draws))
        return _paired(points, drawn, "bootstrap of the joint contingency table")

    def _negative_flips(self) -> Found:
        total, draws = self._table
        method = "bootstrap of the joint contingency table"
        drawn = counts.negative_flip_rate(draws)
        return Found(Draws(float(counts.negative_flip_rate(total)), drawn), method=method)

    # --- macro

    @cached_property
    def _groups(self) -> tuple[NDArray[np.intp], int, Floats]:
        rng = self._rng(Family.MACRO)
        group, count = macro.deal(self._p.n, rng, len(self._p.classes))
        return group, count, macro.group_weights(count, self._resamples, rng)

    @cached_property
    def _class_sums(self) -> list[tuple[tuple[Floats, ...], tuple[Floats, ...]]]:
        group, count, weights = self._groups
        found = []
        for view in self._views:
            answer = np.asarray(view.labels)
            sums = macro.class_sums(self._p.y, answer, len(self._p.classes), (group, count), self._p.weight)
            found.append((tuple(s.sum(axis=0) for s in sums), tuple(weights @ s for s in sums)))
        return found

    def _macro(self, metric: Metric) -> Found:
        function = macro.MACRO_METRICS[base_name(metric)]
        points = [float(function(*total)) for total, _ in self._class_sums]
        drawn = [function(*draws) for _, draws in self._class_sums]
        smallest = int(self._class_counts[self._class_counts > 0].min())
        found = _paired(points, drawn, "bootstrap of groups of rows")
        return _without_certainty(found, metric.low, metric.high, smallest)

    # --- means

    def _loss(self, metric: Metric, view: View) -> Floats:
        return losses.row_loss(base_name(metric), self._p.y, np.asarray(view.scores), metric.parameter)

    def _mean(self, metric: Metric) -> Found:
        name, weight = base_name(metric), self._p.weight
        high = 1.0 if name == "brier" and self._p.task == "binary" else metric.high
        values = [self._loss(metric, view) for view in self._views]
        if name == "r2":
            parts = [losses.r2(self._p.y, v, weight) for v in values]
            if math.isnan(parts[0][0]):
                reason = "the labels are constant, and R2 compares with their variance"
                return self._nothing(reason)
        else:
            parts = [(losses.mean(v, weight), losses.centred(v, weight)) for v in values]
        singles: list[Uncertainty] = [
            _settled(losses.from_influence(v, i, metric.low, 1.0 if name == "r2" else high)) for v, i in parts
        ]
        if name == "rmse":
            singles = [RootOf(s) for s in singles]
            parts = [(math.sqrt(v), i / (2 * math.sqrt(v)) if v > 0 else i) for v, i in parts]
        difference: Uncertainty | None = None
        if len(parts) == 2:
            (c, ci), (h, hi) = parts
            bound = high - metric.low
            skewed = losses.from_influence(c - h, ci - hi, -bound, bound)
            difference = skewed if skewed.se > 0 else Recovered(singles[0], singles[1])
        return Found(
            singles[0],
            singles[1] if len(singles) == 2 else None,
            difference,
            "studentised mean with Hall's correction for skewness",
        )

    # --- ranking

    def _rank(self, which: int, class_: int) -> ranking.Ranked:
        key = (which, class_)
        if key not in self._ranked:
            scores = np.asarray(self._views[which].scores)
            truth = self._p.y
            if self._p.task == "multiclass":
                scores, truth = scores[:, class_], truth == class_
            self._ranked[key] = ranking.rank(truth, scores, self._p.weight)
        return self._ranked[key]

    def _ranking(self, metric: Metric) -> Found:
        if base_name(metric) == "average_precision":
            function, method = ranking.average_precision, "infinitesimal jackknife"
        else:
            function, method = ranking.roc_auc, "DeLong"
        columns = range(len(self._p.classes)) if self._p.task == "multiclass" else range(1)
        parts = []
        for which in range(len(self._views)):
            found = [function(self._rank(which, k)) for k in columns]
            value = math.fsum(v for v, _ in found) / len(found)
            influence = found[0][1] if len(found) == 1 else np.mean([i for _, i in found], axis=0)
            parts.append((value, influence))
        rarest = min(min(self._rank(0, k).counts) for k in columns)
        if rarest < 2:
            singles: list[Uncertainty] = [Unknown(v, 0.0, 1.0) for v, _ in parts]
        else:
            singles = [_on_logit(v, float(np.sqrt(i @ i)), rarest) for v, i in parts]
        difference: Uncertainty | None = None
        if len(parts) == 2:
            gap = parts[0][0] - parts[1][0]
            apart = parts[0][1] - parts[1][1]
            se = float(np.sqrt(apart @ apart))
            if rarest < 2:
                difference = Unknown(gap, -1.0, 1.0)
            elif se < 1e-12:
                difference = Recovered(singles[0], singles[1])
            else:
                difference = Normal(gap, se, rarest - 1, -1.0, 1.0)
        return Found(singles[0], singles[1] if len(singles) == 2 else None, difference, method)

    # --- calibration

    def _calibration(self, metric: Metric) -> Found:
        group, _, weights = self._groups
        points, drawn = [], []
        for view in self._views:
            truth, scores = _top_label(self._p, np.asarray(view.scores))
            points.append(calibration.ece(truth, scores, self._p.weight))
            drawn.append(calibration.ece_draws(truth, scores, (group, weights), self._p.weight))
        found = _paired(points, drawn, "bootstrap of groups of rows, debiased")
        return _without_certainty(found, 0.0, 1.0, self._p.n)

    # --- quantiles

    def _quantile(self, metric: Metric) -> Found:
        level = metric.parameter
        errors = [np.abs(self._p.y - np.asarray(view.scores)) for view in self._views]
        points, drawn = quantiles.draw_quantiles(
            errors, level, self._p.weight, self._resamples, self._rng(Family.QUANTILE)
        )
        found = _paired(points, drawn, "order statistics, drawn jointly")
        if self._p.n * min(level, 1 - level) < 5:
            # The quantile may lie beyond the largest error seen.
            found = replace(
                found,
                candidate=Unknown(points[0], 0.0, math.inf),
                champion=Unknown(points[1], 0.0, math.inf) if len(points) == 2 else None,
                difference=Unknown(points[0] - points[1], -math.inf, math.inf) if len(points) == 2 else None,
            )
        return found


def _top_label(problem: Problem, scores: Floats) -> tuple[NDArray[np.bool_], Floats]:
    """What calibration is about: the positive class of two, or the top label of many."""
    if problem.task == "binary":
        return problem.y, scores
    top = np.argmax(scores, axis=1)
    return top == problem.y, scores[np.arange(scores.shape[0]), top]


def _paired(points: list[float], drawn: list[Floats], method: str) -> Found:
    if len(points) == 1:
        return Found(Draws(points[0], drawn[0]), method=method)
    return Found(
        Draws(points[0], drawn[0]),
        Draws(points[1], drawn[1]),
        Draws(points[0] - points[1], drawn[0] - drawn[1]),
        method,
    )


def _without_certainty(found: Found, low: float, high: float, n: int) -> Found:
    """Draws that all agree say that no variation was seen, not that there is none."""

    def settle(part: Uncertainty | None) -> Uncertainty | None:
        if isinstance(part, Draws) and float(np.ptp(part.draws)) < 1e-12:
            return Boundary(part.estimate, n, low, high)
        return part

    candidate, champion = settle(found.candidate), settle(found.champion)
    difference = found.difference
    if isinstance(difference, Draws) and float(np.ptp(difference.draws)) < 1e-12 and candidate and champion:
        difference = Recovered(candidate, champion)
    return replace(found, candidate=candidate, champion=champion, difference=difference)


def _settled(mean: SkewedMean) -> Uncertainty:
    if mean.n < 2:
        return Unknown(mean.estimate, mean.low, mean.high)
    if mean.se > 0:
        return mean
    if math.isfinite(mean.low) and math.isfinite(mean.high):
        return Boundary(mean.estimate, mean.n, mean.low, mean.high)
    return mean if mean.n >= FEW else Unknown(mean.estimate, mean.low, mean.high)


def _on_logit(value: float, se: float, count: float) -> Uncertainty:
    if se < 1e-12 or not 1e-12 < value < 1 - 1e-12:
        return Boundary(value, count)
    return LogitNormal(value, se, count - 1)
