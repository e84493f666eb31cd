"""Multi-label, ranking, quantiles, forecasts and grouped rows: points, brute-force intervals, bad input."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mlcicd.core.errors import ConfigError, InputError
from mlcicd.evaluation.answers import predictions_of
from mlcicd.evaluation.curves import figures
from mlcicd.evaluation.forecasts import naive_errors, scale_of
from mlcicd.evaluation.gates import Gate, VsChampion, judge_gates
from mlcicd.evaluation.intervals import MetricResult, estimate
from mlcicd.evaluation.metrics import names
from mlcicd.evaluation.multilabel import indicator
from mlcicd.evaluation.predictions import Predictions, Structure
from mlcicd.evaluation.slices import by_values
from mlcicd.evaluation.weakest import weakest_slices

AVERAGED = {
    f"{metric}_{average}": (function, average)
    for metric, function in (("f1", sk.f1_score), ("precision", sk.precision_score), ("recall", sk.recall_score))
    for average in ("micro", "macro", "weighted", "samples")
}
BITS = st.lists(st.tuples(*[st.integers(0, 1)] * 6, st.sampled_from([1.0, 2.0, 0.5])), min_size=2, max_size=40)


def found(task: str, asked: list[str], y: object, *models: Predictions, **rest: object) -> dict[str, MetricResult]:
    return {r.name: r for r in estimate(task, asked, y, *models, **{"resamples": 100, **rest})}  # type: ignore[arg-type]


@settings(deadline=None, max_examples=80)
@given(rows=BITS, weighted=st.booleans())
def test_multilabel_points_are_those_of_scikit_learn(rows: list[tuple[float, ...]], weighted: bool) -> None:
    table = np.array(rows)
    y, p, weight = table[:, :3].astype(int), table[:, 3:6].astype(int), table[:, 6]
    extra = {"sample_weight": weight} if weighted else {}
    results = found(
        "multilabel", [*AVERAGED, "accuracy", "hamming_loss", "jaccard_samples"], y, Predictions(p), **extra
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {name: f(y, p, average=how, zero_division=0, **extra) for name, (f, how) in AVERAGED.items()}
        expected["jaccard_samples"] = sk.jaccard_score(y, p, average="samples", zero_division=0, **extra)
    expected["accuracy"] = sk.accuracy_score(y, p, **extra)
    expected["hamming_loss"] = sk.hamming_loss(y, p, **extra)
    for name, value in expected.items():
        assert results[name].candidate == pytest.approx(value, abs=1e-9), name
        low, high = results[name].candidate_interval or (math.nan, math.nan)
        assert low - 1e-12 <= results[name].candidate <= high + 1e-12, name


def multilabel_world(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 3)) + np.array([-1.0, 0.0, 0.5])
    y = rng.random((n, 3)) < 1 / (1 + np.exp(-z))
    return y, *(1 / (1 + np.exp(-(z + s * rng.normal(size=(n, 3))))) for s in (0.5, 0.9))


def test_multilabel_scores_are_those_of_scikit_learn_with_ties_and_weights() -> None:
    y, scores, _ = multilabel_world(200, 0)
    scores, weight = scores.round(1), np.random.default_rng(1).random(200) + 0.1
    for extra in ({}, {"sample_weight": weight}):
        results = found("multilabel", ["roc_auc", "average_precision"], y, Predictions(scores=scores), **extra)
        assert results["roc_auc"].candidate == pytest.approx(sk.roc_auc_score(y, scores, **extra))
        assert results["average_precision"].candidate == pytest.approx(sk.average_precision_score(y, scores, **extra))


def brute_force(y: np.ndarray, models: list[np.ndarray], function: Callable[..., float], repeats: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    draws = []
    for _ in range(repeats):
        pick = rng.integers(0, len(y), len(y))
        one, other = (function(y[pick], m[pick]) for m in models)
        draws.append((one, one - other))
    return np.array(draws)


def assert_width(result: MetricResult, draws: np.ndarray, slack: float = 0.16) -> None:
    for interval, drawn in ((result.candidate_interval, draws[:, 0]), (result.difference_interval, draws[:, 1])):
        assert interval is not None
        width = (interval[1] - interval[0]) / (2 * 1.96 * drawn.std())
        assert width == pytest.approx(1, abs=slack), (result.name, width)


def test_multilabel_widths_are_those_of_a_brute_force_bootstrap() -> None:
    y, *models = multilabel_world(800, 4)
    functions = {
        "accuracy": lambda y, p: sk.accuracy_score(y, p >= 0.5),
        "hamming_loss": lambda y, p: sk.hamming_loss(y, p >= 0.5),
        "f1_macro": lambda y, p: sk.f1_score(y, p >= 0.5, average="macro"),
        "f1_micro": lambda y, p: sk.f1_score(y, p >= 0.5, average="micro"),
        "average_precision": sk.average_precision_score,
    }
    results = found("multilabel", list(functions), y, *(Predictions(scores=m) for m in models), resamples=2000)
    for name, function in functions.items():
        assert_width(results[name], brute_force(y, models, function, 300))


def test_label_sets_as_text_lists_and_matrices() -> None:
    expected = np.array([[True, True], [False, False], [False, True]])
    for column in (["a|b", "", "b"], np.array(["a | b", "", "b"], dtype=object)):
        matrix, seen = indicator(column)
        assert (matrix == expected).all()
        assert seen == ["a", "b"]
    lists = np.empty(3, dtype=object)
    lists[:] = [["b", "a"], [], np.array(["b"])]
    assert (indicator(lists)[0] == expected).all()
    assert (indicator(expected.astype(float))[0] == expected).all()
    # columns in the model's own order
    answer = np.array([[0.9, 0.8], [0.1, 0.2], [0.9, 0.3]])
    results = found("multilabel", ["accuracy"], np.array(["a|b", "", "b"]), Predictions(None, answer, ["b", "a"]))
    assert results["accuracy"].candidate == 1.0
    for bad, message in ((np.array(["a", None], dtype=object), "no labels"), ([[0, 2]], "zeros and ones")):
        with pytest.raises(InputError, match=message):
            indicator(bad)
    with pytest.raises(InputError, match="'c', which is not one of"):
        indicator(["a", "c"], ["a", "b"])
    with pytest.raises(InputError, match="one column a label"):
        found("multilabel", ["accuracy"], np.array(["a", "b"]), Predictions(scores=np.ones((2, 3))))
    with pytest.raises(InputError, match="knows the labels"):
        models = (Predictions(None, np.ones((2, 2)), ["a", last]) for last in ("b", "z"))
        found("multilabel", ["accuracy"], np.array(["a", "b"]), *models)


@settings(deadline=None, max_examples=60)
@given(
    data=st.lists(
        st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.25, 0.5, 1.0])), min_size=2, max_size=7),
        min_size=1,
        max_size=8,
    ),
    k=st.integers(1, 8),
)
def test_ranking_points_are_those_of_scikit_learn(data: list[list[tuple[int, float]]], k: int) -> None:
    query = np.repeat(np.arange(len(data)), [len(q) for q in data])
    relevance, scores = (np.array(column, dtype=float) for column in zip(*[d for q in data for d in q], strict=True))
    mixed = np.random.default_rng(0).permutation(query.size)
    results = found(
        "ranking", ["ndcg", f"ndcg@{k}", "map"], relevance[mixed], Predictions(scores[mixed]),
        structure=Structure(query[mixed], "query"),
    )  # fmt: skip
    parts = [(relevance[query == q], scores[query == q]) for q in range(len(data))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "ndcg": np.mean([sk.ndcg_score([r], [s]) for r, s in parts]),
            f"ndcg@{k}": np.mean([sk.ndcg_score([r], [s], k=k) for r, s in parts]),
            "map": np.mean([sk.average_precision_score(r > 0, s) for r, s in parts]),
        }
    for name, value in expected.items():
        assert results[name].candidate == pytest.approx(value, abs=1e-9), name


def test_places_of_a_ranking_by_hand() -> None:
    structure = Structure(np.array(["q", "q", "q", "r", "r"]), "query")
    y, scores = np.array([0.0, 1, 1, 0, 1]), np.array([3.0, 2, 1, 1, 1])
    results = found("ranking", ["mrr", "mrr@1", "map@2", "map"], y, Predictions(scores), structure=structure)
    # q: relevant at places 2 and 3; r: a tie, in which the irrelevant document comes first
    assert results["mrr"].candidate == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert results["mrr@1"].candidate == 0.0
    assert results["map@2"].candidate == pytest.approx((1 / 2 / 2 + 1 / 2) / 2)
    assert results["map"].candidate == pytest.approx(((1 / 2 + 2 / 3) / 2 + 1 / 2) / 2)


def test_ranking_needs_queries_and_fails_closed() -> None:
    y, p = np.array([1.0, 0, 2, 0]), Predictions(np.array([1.0, 0, 1, 0]))
    assert "query of each row" in found("ranking", ["ndcg"], y, p)["ndcg"].reason
    with pytest.raises(ConfigError, match="whole number"):
        found("ranking", ["ndcg@0"], y, p, structure=Structure(np.zeros(4)))
    with pytest.raises(InputError, match="different sample weights"):
        found("ranking", ["map"], y, p, structure=Structure(np.zeros(4)), sample_weight=[1, 2, 1, 1])
    assert "negative relevance" in found("ranking", ["map"], -y, p, structure=Structure(np.zeros(4)))["map"].reason
    single = found("ranking", ["map"], y, p, structure=Structure(np.zeros(4)))["map"]
    assert single.candidate_interval == (0.0, 1.0)
    bad = Predictions(np.array([1.0, np.nan, 1, 0]))
    result = found("ranking", ["ndcg"], y, bad, p, structure=Structure(np.array([0, 0, 1, 1])))["ndcg"]
    assert "not finite" in result.reason
    assert judge_gates([Gate("ndcg", min=0.0)], [result])[0].status == "failed"
    weighted = found("ranking", ["map"], y, p, structure=Structure(np.array([0, 0, 1, 1])), sample_weight=[3, 3, 1, 1])
    assert weighted["map"].candidate == 1.0


def test_quantile_points_are_scikit_learns_and_by_hand() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=300)
    levels = [0.9, 0.1, 0.5]  # any order
    columns = np.stack([y * 0 + v for v in (1.2, -1.2, 0.1)], axis=1) + 0.1 * rng.normal(size=(300, 1))
    weight = rng.random(300) + 0.1
    for extra in ({}, {"sample_weight": weight}):
        results = found(
            "quantile",
            ["pinball", "pinball@0.9", "interval_coverage@0.8", "interval_score@0.8", "interval_width@0.8", "mae"],
            y, Predictions(None, columns, levels), **extra,
        )  # fmt: skip
        pin = [sk.mean_pinball_loss(y, columns[:, i], alpha=q, **extra) for i, q in enumerate(levels)]
        assert results["pinball@0.9"].candidate == pytest.approx(pin[0])
        assert results["pinball"].candidate == pytest.approx(np.mean(pin))
        inside = (y >= columns[:, 1]) & (y <= columns[:, 0])
        assert results["interval_coverage@0.8"].candidate == pytest.approx(
            np.average(inside, weights=extra.get("sample_weight"))
        )
        assert results["mae"].candidate == pytest.approx(sk.mean_absolute_error(y, columns[:, 2], **extra))
        # Winkler's score of the central interval is a sum of its two pinball losses.
        assert results["interval_score@0.8"].candidate == pytest.approx(2 / 0.2 * (pin[0] + pin[1]))
        assert results["interval_width@0.8"].candidate == pytest.approx(2.4)


def test_quantiles_that_are_not_there_are_a_reason() -> None:
    y = np.arange(40.0)
    model = Predictions(None, np.stack([y - 1, y + 1], axis=1), [0.1, 0.9])
    results = found("quantile", ["mae", "pinball@0.5", "interval_score@0.5", "pinball", "quantile_crossing"], y, model)
    assert "no median" in results["mae"].reason
    assert results["pinball@0.5"].reason == "it gave no 0.5 quantile"
    assert results["interval_score@0.5"].reason == "it gave no 0.25 quantile"
    assert results["pinball"].candidate == pytest.approx(0.1)
    assert results["quantile_crossing"].candidate == 0.0
    assert (results["quantile_crossing"].candidate_interval or (0, 0))[1] > 0
    assert "it gave no quantiles" in found("quantile", ["interval_width"], y, Predictions(y))["interval_width"].reason
    hole = np.stack([y - 1, np.where(y == 3, np.nan, y + 1)], axis=1)
    assert "not finite" in found("quantile", ["pinball"], y, Predictions(None, hole, [0.1, 0.9]))["pinball"].reason
    for levels in ([0.1], [0.1, 0.1], [0.1, 1.0], None):
        with pytest.raises(InputError, match="level"):
            found("quantile", ["pinball"], y, Predictions(None, np.ones((40, 2)), levels))


def test_mase_divides_by_the_seasonal_naive_error_of_each_series() -> None:
    values = [1.0, 5, 2, 7, 10, 10, 10, 3]
    series = ["a", "a", "a", "a", "c", "c", "c", "s"]
    errors = naive_errors(values, series, [2, 1, 3, 4, 1, 2, 3, 1], 2)
    assert errors == {"a": pytest.approx((abs(2 - 5) + abs(7 - 1)) / 2)}  # c is constant, s too short
    assert naive_errors([1.0, 3, 2], None, [1, 2, 3], 1) == {None: 1.5}
    scale = scale_of(errors, ["a", "a", "c"], 3)
    structure = Structure(time=np.array([5, 6, 5]), scale=scale)
    y, p = np.array([1.0, 2, 3]), Predictions(np.array([2.0, 4, 3]))
    assert (
        "1 rows are of series without a naive error"
        in found("forecast", ["mase"], y, p, structure=structure)["mase"].reason
    )
    assert "no naive error" in found("forecast", ["mase"], y, p)["mase"].reason
    kept = structure.take(np.array([True, True, False]))
    result = found("forecast", ["mase"], y[:2], Predictions(np.array([2.0, 4])), structure=kept)["mase"]
    assert result.candidate == pytest.approx((1 + 2) / 2 / 4.5)
    smape = found("forecast", ["smape"], np.array([0.0, 1, -1]), Predictions(np.array([0.0, 3, 1])))["smape"]
    assert smape.candidate == pytest.approx((0 + 2 * 2 / 4 + 2) / 3)


def grouped(seed: int, groups: int = 60, size: int = 15) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), size)
    z = rng.normal(size=group.size) + rng.normal(size=groups)[group]
    y = (rng.random(group.size) < 1 / (1 + np.exp(-z))).astype(int)
    noise = [s * (rng.normal(size=group.size) + rng.normal(size=groups)[group]) for s in (0.5, 0.8)]
    return group, y, *(1 / (1 + np.exp(-(z + e))) for e in noise)


@pytest.mark.slow
def test_grouped_widths_are_those_of_a_brute_force_cluster_bootstrap() -> None:
    group, y, candidate, champion = grouped(2)
    functions = {
        "accuracy": lambda y, p: np.mean((p >= 0.5) == y),
        "f1": lambda y, p: sk.f1_score(y, p >= 0.5),
        "roc_auc": sk.roc_auc_score,
        "average_precision": sk.average_precision_score,
        "log_loss": sk.log_loss,
        "brier": sk.brier_score_loss,
    }
    models = Predictions(scores=candidate), Predictions(scores=champion)
    structure = Structure(np.array([f"patient {g}" for g in group]), "patient")
    over = found("binary", list(functions), y, *models, structure=structure, resamples=2000)
    alone = found("binary", list(functions), y, *models, resamples=2000)
    rng = np.random.default_rng(0)
    rows = [np.flatnonzero(group == g) for g in range(60)]
    brute: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    for _ in range(400):
        pick = np.concatenate([rows[g] for g in rng.integers(0, 60, 60)])
        for name, function in functions.items():
            one, other = (function(y[pick], p[pick]) for p in (candidate, champion))
            brute[name].append((one, one - other))
    for name, result in over.items():
        assert_width(result, np.array(brute[name]), 0.2)
        assert result.units == "60 groups by patient"
        assert "60 groups by patient" in result.method
        assert result.candidate == alone[name].candidate
    # the rows of a patient are alike, so they are less evidence than they look
    wide, narrow = (r["log_loss"].candidate_interval or (0, 0) for r in (over, alone))
    assert wide[1] - wide[0] > 1.15 * (narrow[1] - narrow[0])


def test_groups_of_one_row_change_nothing_but_the_words() -> None:
    _, y, candidate, champion = grouped(3)
    models = Predictions(scores=candidate), Predictions(scores=champion)
    structure = Structure(np.arange(y.size), "row")
    asked = ["roc_auc", "log_loss", "average_precision", "brier"]
    over, alone = found("binary", asked, y, *models, structure=structure), found("binary", asked, y, *models)
    for name in asked:
        assert over[name].candidate_interval == pytest.approx(alone[name].candidate_interval, rel=2e-3), name
        assert over[name].difference_interval == pytest.approx(alone[name].difference_interval, rel=2e-2), name


def test_one_group_says_nothing_and_few_say_little() -> None:
    group, y, candidate, champion = grouped(4, groups=8)
    models = Predictions(scores=candidate), Predictions(scores=champion)
    asked = ["accuracy", "roc_auc", "log_loss", "ece", "f1"]
    alone = found("binary", asked, y, *models)
    few = found("binary", asked, y, *models, structure=Structure(group, "patient"))
    none = found("binary", asked, y, *models, structure=Structure(np.zeros(y.size), "patient"))
    for name in asked:
        assert few[name].candidate == none[name].candidate == alone[name].candidate
        low, high = none[name].candidate_interval or (0, 0)
        assert (low, high) == (0.0, math.inf if name == "log_loss" else 1.0)
        assert judge_gates([Gate(name, vs_champion=VsChampion(0.01))], [none[name]])[0].status == "inconclusive"
    check = judge_gates([Gate("accuracy", min=0.9999)], [few["accuracy"]])[0]
    assert "8 groups by patient" in check.reason
    assert check.details["units"] == "8 groups by patient"


def test_perfect_answers_in_few_groups_are_not_certainty() -> None:
    group, y, *_ = grouped(5, groups=10)
    for name in ("accuracy", "roc_auc", "brier", "f1"):
        perfect, half = Predictions(scores=y.astype(float)), Predictions(scores=np.full(y.size, 0.5))
        result = found("binary", [name], y, perfect, half, structure=Structure(group))[name]
        low, high = result.candidate_interval or (0, 0)
        assert high - low > 0.1, name


def test_groups_that_are_missing_or_do_not_fit_are_errors() -> None:
    y, p = np.array([0, 1, 0, 1]), Predictions(np.array([0, 1, 1, 1]))
    for values in ([1.0, np.nan, 2, 2], np.array(["a", None, "b", "b"], dtype=object)):
        with pytest.raises(InputError, match="1 rows have no patient"):
            found("binary", ["accuracy"], y, p, structure=Structure(np.asarray(values), "patient"))
    with pytest.raises(InputError, match="shape"):
        found("binary", ["accuracy"], y, p, structure=Structure(np.zeros(3)))
    with pytest.raises(InputError, match="have no time"):
        found("forecast", ["mae"], y, p, structure=Structure(time=np.array([1.0, np.nan, 2, 3])))


def test_rows_of_weight_zero_take_their_group_along() -> None:
    group, y, candidate, _ = grouped(6)
    weight = np.where(group < 40, 1.0, 0.0)
    asked = ["accuracy", "roc_auc", "log_loss"]
    zeroed = found("binary", asked, y, Predictions(scores=candidate), structure=Structure(group), sample_weight=weight)
    kept = group < 40
    shorter = found("binary", asked, y[kept], Predictions(scores=candidate[kept]), structure=Structure(group[kept]))
    assert zeroed == shorter
    assert zeroed["accuracy"].units == "40 groups by group"


def test_few_series_are_cut_into_blocks_of_time_and_many_are_units() -> None:
    rng = np.random.default_rng(0)
    step = np.cumsum(rng.normal(size=400)) / 5
    y, p = step, Predictions(step + np.repeat(rng.normal(size=40), 10))
    over = found("forecast", ["mae"], y, p, structure=Structure(time=np.arange(400)))["mae"]
    alone = found("forecast", ["mae"], y, p)["mae"]
    assert over.units == "20 blocks of time"
    wide, narrow = (r.candidate_interval or (0, 0) for r in (over, alone))
    assert wide[1] - wide[0] > 1.8 * (narrow[1] - narrow[0])
    many = found("forecast", ["mae"], y, p, structure=Structure(np.repeat(np.arange(40), 10), "shop", np.arange(400)))
    assert many["mae"].units == "40 groups by shop"
    dates = np.array([f"2026-01-{d:02}" for d in np.repeat(np.arange(1, 21), 20)], dtype=object)
    assert found("forecast", ["mae"], y, p, structure=Structure(time=dates))["mae"].units == "2 blocks of time"


def every_world() -> dict[str, tuple[np.ndarray, Predictions, Predictions, Structure | None]]:
    rng = np.random.default_rng(1)
    labels, one, other = multilabel_world(240, 1)
    y = rng.normal(size=240) + 10
    quantiles = [np.stack([y + s * rng.normal(size=240) + d for d in (-1, 0, 1)], axis=1) for s in (0.5, 0.8)]
    models = [Predictions(None, q, [0.1, 0.5, 0.9]) for q in quantiles]
    query = Structure(np.repeat(np.arange(24), 10), "query")
    when = Structure(time=np.arange(240), scale=np.ones(240))
    relevance = rng.integers(0, 3, 240).astype(float)
    return {
        "multilabel": (labels, Predictions(scores=one), Predictions(scores=other), None),
        "quantile": (y, *models, None),
        "forecast": (y, *models, when),
        "ranking": (relevance, *(Predictions(relevance + s * rng.normal(size=240)) for s in (1, 2)), query),
    }


@pytest.mark.parametrize("task", ["multilabel", "quantile", "forecast", "ranking"])
def test_every_metric_has_an_interval_and_the_report_its_parts(task: str) -> None:
    y, candidate, champion, structure = every_world()[task]
    results = found(task, names(task), y, candidate, champion, structure=structure)
    for result in results.values():
        assert not result.reason, (result.name, result.reason)
        low, high = result.candidate_interval or (math.nan, math.nan)
        assert low <= result.candidate <= high, result.name
        if result.champion is not None:
            apart = result.difference_interval or (math.nan, math.nan)
            assert apart[0] <= (result.difference or 0) <= apart[1], result.name
    same = found(task, names(task), y, candidate, candidate, structure=structure)
    for result in same.values():
        assert result.identical or result.name == "negative_flip_rate", result.name
    drawn = figures(task, y, candidate, champion, results=list(results.values()))
    assert drawn
    for figure in drawn:
        for series in figure["series"]:
            assert all(isinstance(v, str) or math.isfinite(v) for v in [*series["x"], *series["y"]])
    column = np.repeat([0, 1], 120)
    slices = by_values(task, names(task)[:2], y, candidate, champion, by="half", column=column, structure=structure)
    assert [s.n for s in slices] == [120, 120]
    weak = weakest_slices(task, y, candidate, {"half": column}, min_rows=20)
    assert isinstance(weak, list)


@pytest.mark.parametrize("task", ["multilabel", "quantile", "forecast", "ranking"])
def test_no_rows_two_rows_and_constant_scores(task: str) -> None:
    y, candidate, champion, structure = every_world()[task]
    for rows in (0, 2, 10):
        pick = np.arange(rows)
        parts = [Predictions(None if m.labels is None else m.labels[pick], None if m.scores is None else m.scores[pick],
                             m.classes) for m in (candidate, champion)]  # fmt: skip
        cut = None if structure is None else structure.take(pick)
        for result in found(task, names(task), y[pick], *parts, structure=cut).values():
            if rows == 0:
                assert result.reason == "the holdout has no rows"
            if not result.reason:
                low, high = result.candidate_interval or (math.nan, math.nan)
                assert low <= result.candidate <= high, result.name
                assert low < high, (result.name, rows)
    shape = (240, 3) if task != "ranking" else 240
    constant = Predictions(None if task != "ranking" else np.full(shape, 0.5), np.full(shape, 0.5), candidate.classes)
    for result in found(task, names(task), y, constant, structure=structure).values():
        assert result.reason or math.isfinite(result.candidate)


def test_what_a_models_answer_means() -> None:
    matrix = np.array([[0.2, 0.9], [0.4, 0.1]])
    assert predictions_of("multilabel", matrix, [0, 1]).classes is None
    assert predictions_of("multilabel", matrix, ["b", "a"]).classes == ["b", "a"]
    assert predictions_of("multilabel", matrix, [[0, 1], [0, 1]]).classes is None
    assert predictions_of("multilabel", matrix > 0.5, None, labels=["x", "y"]).labels is not None
    assert list(predictions_of("quantile", matrix, None, quantiles=[0.1, 0.9]).classes or ()) == [0.1, 0.9]
    assert predictions_of("forecast", matrix[:, 0]).labels is not None
    assert predictions_of("binary", matrix[:, 0]).scores is not None
    assert predictions_of("binary", np.array([0.0, 1.0])).labels is not None
