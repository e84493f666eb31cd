"""From a prepared holdout to each metric's sampling distribution, sharing what metrics have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mlcicd.evaluation import calibration, counts, forecasts, losses, macro, multilabel, quantiles, queries, ranking
from mlcicd.evaluation.drawn import Draws
from mlcicd.evaluation.means import explained, means
from mlcicd.evaluation.metrics import Family, Metric, base_name
from mlcicd.evaluation.problem import Problem, View
from mlcicd.evaluation.settled import (
    Found,
    area,
    area_difference,
    pair_of,
    paired,
    unknown,
    weighed,
    without_certainty,
)
from mlcicd.evaluation.uncertainty import Exact, Recovered
from mlcicd.evaluation.units import Units
from mlcicd.evaluation.usable import lacking, undefined

__all__ = ["NO_CHAMPION", "Estimator", "Found"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

NO_CHAMPION = "there is no champion to compare with"
_JOINT = "bootstrap of the joint contingency table"


# They look at the order of the scores and at nothing else.
_OF_ORDER = frozenset({"roc_auc", "average_precision"})


class Estimator:
    """Finds metrics of one holdout; sorts, tables and draws are made once and shared."""

    def __init__(self, problem: Problem, resamples: int, seed: int) -> None:
        self._p = problem
        self._resamples = resamples
        self._seed = seed
        self._views = [problem.candidate] if problem.champion is None else [problem.candidate, problem.champion]
        self._units = Units(problem)
        self._ranked: dict[tuple[int, int], ranking.Ranked] = {}

    def find(self, metric: Metric) -> Found:
        """The distributions of one metric."""
        if self._p.reason:
            return self._nothing(self._p.reason)
        if metric.pairwise and not self._pair:
            return Found(reason=NO_CHAMPION)
        lacks = [lacking(v, metric) for v in self._views]
        if any(lacks):
            return self._alone(metric, lacks)
        shared = undefined(self._p, metric)
        if shared:
            return self._nothing(shared)
        found = self._families[metric.family](metric)
        if self._p.cluster is not None:
            found = self._over_units(found, metric)
        if found.difference is not None and self._alike(metric):
            return replace(found, difference=Exact(0.0), identical=True)
        return self._checked(found)

    @property
    def _pair(self) -> bool:
        return len(self._views) == 2

    def _over_units(self, found: Found, metric: Metric) -> Found:
        if found.candidate is None:
            return found
        if self._units.number < 2:
            found = unknown(found, metric.low, metric.high)
        return replace(found, method=f"{found.method}, over {self._p.cluster_words}")

    def _nothing(self, reason: str) -> Found:
        """The same reason for whichever models there are."""
        return Found(reason=reason, champion_reason=reason if self._pair else "")

    def _alike(self, metric: Metric) -> bool:
        """Whether both models gave the same scores on every row, and the same labels where those count.

        Equal labels without equal scores are no proof: two models may well agree on a hundred rows. For a metric of
        the order alone, the same order is the same answer: a champion that was calibrated, or exported, is no other.
        """
        candidate, champion = self._views
        if candidate.quantiles is not None or champion.quantiles is not None:
            return candidate.same_quantiles(champion)
        if metric.name in _OF_ORDER and candidate.same_order(champion):
            return True
        if not candidate.same_scores(champion):
            return False
        return metric.needs == "scores" or candidate.same_labels(champion)

    def _alone(self, metric: Metric, lacks: list[str]) -> Found:
        """One of the two models can not be measured; the other one still can."""
        if metric.pairwise:
            return Found(reason=lacks[0] or f"the champion can not be measured: {lacks[1]}")
        if all(lacks):
            return Found(reason=lacks[0], champion_reason=lacks[1] if self._pair else "")
        usable = 1 if lacks[0] else 0
        single = replace(self._p, candidate=self._views[usable], champion=None)
        found = Estimator(single, self._resamples, self._seed).find(metric)
        if usable == 0:
            return replace(found, champion_reason=f"the champion can not be measured: {lacks[1]}")
        return Found(champion=found.candidate, method=found.method, reason=lacks[0], champion_reason=found.reason)

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

    @property
    def _families(self) -> dict[Family, Callable[[Metric], Found]]:
        return {
            Family.COUNTS: self._counts,
            Family.MACRO: self._macro,
            Family.MEAN: self._mean,
            Family.RANKING: self._ranking,
            Family.CALIBRATION: self._calibration,
            Family.QUANTILE: self._quantile,
            Family.QUERY: self._query,
        }

    def _rng(self, family: Family) -> np.random.Generator:
        # A stream a family: asking for one more metric does not move the others.
        return np.random.default_rng([self._seed, list(Family).index(family)])

    # --- counts

    def _joint(self, truth: Mask, answers: list[Mask], family: Family) -> tuple[Floats, Floats, Floats | None]:
        """(the joint table, (resamples, ...) draws of it, (groups, ...) the table without each group of rows)."""
        total, squares = counts.table(truth, answers, self._p.weight)
        if self._p.cluster is None:
            return total, counts.draw_tables(total, squares, self._resamples, self._rng(family)), None
        group, _, weights = self._groups
        draws, own = counts.draw_clustered(truth, answers, self._p.weight, (group, weights))
        return total, draws, np.maximum(total - own, 0.0)

    @cached_property
    def _table(self) -> tuple[Floats, Floats, Floats | None]:
        labels = [np.asarray(v.labels) for v in self._views]
        if self._p.task == "binary":
            return self._joint(self._p.y, labels, Family.COUNTS)
        right = [answer == self._p.y for answer in labels]
        if self._p.task == "multilabel":
            right = [every.all(axis=1) for every in right]
        return self._joint(np.ones(self._p.n, dtype=bool), right, Family.COUNTS)

    def _counts(self, metric: Metric) -> Found:
        name = base_name(metric)
        if self._p.task == "multiclass" and name in macro.MACRO_METRICS:
            return self._macro(metric)
        if name == "interval_coverage":
            within = [forecasts.inside(self._p.y, v, metric.parameter) for v in self._views]
            total, draws, others = self._joint(np.ones(self._p.n, dtype=bool), within, Family.COUNTS)
        else:
            total, draws, others = self._table
        if metric.pairwise:
            flips = counts.negative_flip_rate
            left = None if others is None else flips(others)
            found = Found(weighed(float(flips(total)), flips(draws), self._few, left), method=_JOINT)
            return self._varied(found, metric)
        function = counts.COUNT_METRICS["accuracy" if name == "interval_coverage" else name]

        def of(tables: Floats) -> list[Floats]:
            return [
                function(counts.one_model(tables, which) if self._pair else tables) for which in range(len(self._views))
            ]

        without = None if others is None else of(others)
        return self._varied(paired([float(v) for v in of(total)], of(draws), _JOINT, self._few, without), metric)

    @property
    def _few(self) -> float:
        """How many units were drawn, where the drawing itself does not allow for their number."""
        return math.inf if self._p.cluster is None else self._units.worth

    def _varied(self, found: Found, metric: Metric) -> Found:
        """A bootstrap of whole groups has no prior's pseudo-rows, and may see no variation at all."""
        if self._p.cluster is None:
            return found
        return without_certainty(found, metric.low, metric.high, self._units.number)

    # --- macro

    @cached_property
    def _groups(self) -> tuple[NDArray[np.intp], int, Floats]:
        rng = self._rng(Family.MACRO)
        group, count = macro.deal(self._units.number, rng, len(self._p.classes))
        weights = macro.group_weights(count, self._resamples, rng)
        return (group if self._p.cluster is None else group[self._p.cluster]), count, weights

    @cached_property
    def _class_sums(self) -> Sequence[tuple[tuple[Floats, ...], ...]]:
        """Of each model: sums over all rows, (resamples, ...) draws of them, and (groups, ...) without each group."""
        group, count, weights = self._groups
        found = []
        for view in self._views:
            answer = np.asarray(view.labels)
            if self._p.task == "multilabel":
                sums = multilabel.label_sums(self._p.y, answer, (group, count), self._p.weight)
            else:
                sums = macro.class_sums(self._p.y, answer, len(self._p.classes), (group, count), self._p.weight)
            total = tuple(s.sum(axis=0) for s in sums)
            others = tuple(np.maximum(t - s, 0.0) for t, s in zip(total, sums, strict=True))
            found.append((total, tuple(weights @ s for s in sums), others))
        return found

    def _macro(self, metric: Metric) -> Found:
        name = base_name(metric)
        function = multilabel.averaged(name) if self._p.task == "multilabel" else macro.MACRO_METRICS[name]
        points = [float(function(*total)) for total, _, _ in self._class_sums]
        drawn = [function(*draws) for _, draws, _ in self._class_sums]
        without = [function(*others) for _, _, others in self._class_sums] if self._p.cluster is not None else None
        seen = self._class_sums[0][0][1]
        smallest = max(1, min(int(seen[seen > 0].min()) if (seen > 0).any() else 1, self._units.number))
        found = paired(points, drawn, "bootstrap of groups of rows", self._units.worth, without)
        return without_certainty(found, metric.low, metric.high, smallest)

    # --- means

    def row_losses(self, metric: Metric, view: View) -> Floats:
        """(n,) what a metric of the family `mean` is the (weighted) mean of; the squares, of `rmse` and `r2`."""
        name, y = base_name(metric), self._p.y
        if self._p.task == "multilabel":
            return multilabel.row_score(name, y, np.asarray(view.labels))
        if metric.needs == "quantiles" or (name == "pinball" and view.quantiles is not None):
            return forecasts.quantile_loss(name, y, view, metric.level if name == "pinball" else metric.parameter)
        if name == "smape":
            return forecasts.smape(y, np.asarray(view.scores))
        loss = losses.row_loss("mae" if name == "mase" else name, y, np.asarray(view.scores), metric.parameter)
        return loss / np.asarray(self._p.scale) if name == "mase" else loss

    def _mean(self, metric: Metric) -> Found:
        name, weight = base_name(metric), self._p.weight
        if name == "r2":
            return self._r2(metric)
        parts = []
        for view in self._views:
            # One model after the other: a million rows of losses are memory.
            values = self.row_losses(metric, view)
            value, influence = losses.mean(values, weight), losses.centred(values, weight)
            del values
            parts.append((value, self._units.gathered(influence)))
        high = 1.0 if name == "brier" and self._p.task == "binary" else metric.high
        return means(parts, (metric.low, high), self._units.counted, rooted=name == "rmse")

    def _r2(self, metric: Metric) -> Found:
        parts = []
        for view in self._views:
            found = losses.r2(self._p.y, self.row_losses(metric, view), self._p.weight)
            if found is None:
                return self._nothing("the labels are constant, and R2 compares with their variance")
            parts.append(
                replace(found, above=self._units.gathered(found.above), below=self._units.gathered(found.below))
            )
        return explained(parts, 1.0, self._units.counted)

    def _query(self, metric: Metric) -> Found:
        query = np.asarray(self._p.cluster)
        weight = queries.query_weights(self._p.weight, query, self._units.number)
        parts = []
        for which in range(len(self._views)):
            found = queries.per_query(base_name(metric), self._lists[which], metric.parameter)
            parts.append((losses.mean(found, weight), losses.centred(found, weight)))
        return means(parts, (metric.low, metric.high))

    @cached_property
    def _lists(self) -> list[queries.Lists]:
        query = np.asarray(self._p.cluster)
        return [queries.sort_lists(self._p.y, np.asarray(v.scores), query, self._units.number) for v in self._views]

    # --- ranking

    def _rank(self, which: int, class_: int) -> ranking.Ranked:
        key = (which, class_)
        if key not in self._ranked:
            scores = np.asarray(self._views[which].scores)
            truth = self._p.y
            if self._p.task != "binary":
                scores = scores[:, class_]
                truth = truth == class_ if self._p.task == "multiclass" else truth[:, class_]
            self._ranked[key] = ranking.rank(truth, scores, self._p.weight)
        return self._ranked[key]

    def _ranking(self, metric: Metric) -> Found:
        if base_name(metric) == "average_precision":
            function, method = ranking.average_precision, "infinitesimal jackknife"
        else:
            function, method = ranking.roc_auc, "DeLong"
        columns = range(1 if self._p.task == "binary" else len(self._p.classes))
        values, influences = [], []
        for which in range(len(self._views)):
            found = [function(self._rank(which, k)) for k in columns]
            values.append(math.fsum(v for v, _ in found) / len(found))
            influence = found[0][1] if len(found) == 1 else np.mean([i for _, i in found], axis=0)
            influences.append(self._units.gathered(influence))
        rarest = min(min(self._rank(0, k).counts) for k in columns)
        unbiased = 1.0
        if self._p.cluster is not None and self._units.number > 1:
            rarest, unbiased = min(rarest, self._units.worth), math.sqrt(self._units.number / (self._units.number - 1))

        def spread(influence: Floats) -> tuple[float, float]:
            """(standard error, degrees of freedom and one) of contributions."""
            return unbiased * math.sqrt(float(influence @ influence)), min(rarest, losses.known(influence))

        singles = [area(v, *spread(i)) for v, i in zip(values, influences, strict=True)]
        difference = None
        if self._pair:
            difference = area_difference(singles, *spread(influences[0] - influences[1]))
        return pair_of(singles, difference, method)

    # --- calibration

    def _calibration(self, metric: Metric) -> Found:
        group, _, weights = self._groups
        singles, drawn = [], []
        for view in self._views:
            truth, scores = _top_label(self._p, np.asarray(view.scores))
            found, draws = calibration.calibration_error(truth, scores, (group, weights), self._p.weight, self._few)
            singles.append(found)
            drawn.append(draws)
        difference = None
        if self._pair:
            varies = min(float(d.std()) for d in drawn) > 0
            together = float(np.corrcoef(drawn[0], drawn[1])[0, 1]) if varies else 0.0
            difference = Recovered(singles[0], singles[1], together)
        return pair_of(list(singles), difference, "inversion of a bootstrap test")

    # --- quantiles

    def _quantile(self, metric: Metric) -> Found:
        level = metric.parameter
        errors = [np.abs(self._p.y - np.asarray(view.scores)) for view in self._views]

        told: list[float] = []

        def tables(below: list[Mask]) -> Floats:
            _, draws, others = self._joint(np.ones(self._p.n, dtype=bool), below, Family.QUANTILE)
            if others is not None and len(others) > 1:
                # How far each group moves the share of errors that are below, in either model.
                shares = [
                    counts.one_model(others[:, 1], which)[:, 1] / others[:, 1].sum(axis=(1, 2)) for which in (0, 1)
                ]
                told.extend(losses.known(share - share.mean()) for share in shares)
            return draws[:, 1]

        drawn = quantiles.draw_quantiles(errors, level, self._p.weight, tables)
        few = min([self._few, *told])
        found = paired(drawn.estimates, drawn.draws, "order statistics, drawn jointly", few)
        if drawn.difference is not None:
            gap = drawn.estimates[0] - drawn.estimates[1]
            found = replace(found, difference=Draws(gap, drawn.difference, few))
        if min(self._beyond(e, q, level) for e, q in zip(errors, drawn.estimates, strict=True)) < 5:
            # The quantile may lie beyond the largest error seen.
            return unknown(found, 0.0, math.inf)
        return found

    def _beyond(self, errors: Floats, quantile: float, level: float) -> float:
        """Rows, or groups with rows, that an error's quantile leaves on its shorter side."""
        if self._p.cluster is None:
            return self._p.n * min(level, 1 - level)
        outside = errors > quantile if level >= 0.5 else errors < quantile
        return float(np.unique(self._p.cluster[outside]).size)


def _top_label(problem: Problem, scores: Floats) -> tuple[Mask, Floats]:
    """What calibration is about: the positive class of two, or the top label of many."""
    if problem.task == "binary":
        return problem.y, scores
    top = np.argmax(scores, axis=1)
    return top == problem.y, scores[np.arange(scores.shape[0]), top]
