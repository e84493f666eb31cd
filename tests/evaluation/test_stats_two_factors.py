"""A difference split between two factors: shares that add up, intervals that cover, sentences that say it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from mlcicd.evaluation.intervals import MetricResult, estimate
from mlcicd.evaluation.predictions import Predictions
from mlcicd.evaluation.two_factors import Order, Share, Split, split
from mlcicd.stages.change_words import told


def steps(
    task: str, name: str, y: np.ndarray, models: dict[tuple[int, int], Predictions]
) -> tuple[MetricResult, list[Order]]:
    """The whole difference and both orders; models by (code, data), 1 the new one."""

    def one(after: tuple[int, int], before: tuple[int, int]) -> MetricResult:
        return estimate(task, [name], y, models[after], models[before], resamples=200)[0]

    code_first = Order(one((1, 0), (0, 0)), one((1, 1), (1, 0)))
    data_first = Order(one((1, 1), (0, 1)), one((0, 1), (0, 0)))
    return one((1, 1), (0, 0)), [code_first, data_first]


def regression(seed: int, n: int, spreads: dict[tuple[int, int], float]) -> tuple[np.ndarray, dict]:
    """Four models whose errors are correlated, as those of models of one task are."""
    rng = np.random.default_rng(seed)
    y, common = rng.normal(size=n), rng.normal(size=n)
    errors = {cell: s * (0.8 * common + 0.6 * rng.normal(size=n)) for cell, s in spreads.items()}
    return y, {cell: Predictions(scores=y + error) for cell, error in errors.items()}


SPREADS = {(0, 0): 1.0, (1, 0): 0.8, (0, 1): 1.1, (1, 1): 0.7}


@pytest.mark.parametrize("orders", [1, 2])
@pytest.mark.parametrize("name", ["mae", "rmse", "r2"])
def test_shares_add_up_and_are_shapleys(name: str, orders: int) -> None:
    y, models = regression(1, 300, SPREADS)
    whole, both = steps("regression", name, y, models)
    found = split(whole, both[:orders])
    assert found is not None and found.orders == orders
    value = {cell: estimate("regression", [name], y, m, resamples=100)[0].candidate for cell, m in models.items()}
    code = value[1, 0] - value[0, 0]
    if orders == 2:
        code = (code + value[1, 1] - value[0, 1]) / 2
    assert found.code.value == pytest.approx(code, abs=1e-12)
    assert found.code.value + found.data.value == pytest.approx(value[1, 1] - value[0, 0], abs=1e-12)


def test_intervals_of_shares_cover() -> None:
    unit = math.sqrt(2 / math.pi)
    code = unit * ((0.8 - 1.0) + (0.7 - 1.1)) / 2
    data = unit * ((1.1 - 1.0) + (0.7 - 0.8)) / 2
    hits, draws = np.zeros(2), 200
    for seed in range(draws):
        y, models = regression(seed, 250, SPREADS)
        found = split(*steps("regression", "mae", y, models))
        assert found is not None and found.code.interval and found.data.interval
        for i, (share, truth) in enumerate(((found.code, code), (found.data, data))):
            hits[i] += share.interval[0] <= truth <= share.interval[1]  # type: ignore[index]
    # Nominal 95 % is the least; the standard error is 0.015.
    assert (hits / draws > 0.91).all(), hits


def test_a_model_without_a_value_splits_nothing_and_a_step_that_is_none_is_zero() -> None:
    y, models = regression(2, 100, SPREADS)
    whole, (order, _) = steps("regression", "mae", y, {**models, (1, 0): models[0, 0]})
    found = split(whole, [order])
    assert found is not None and found.code == Share(0.0, (0.0, 0.0))
    assert split(whole, [replace(order, code=replace(order.code, difference=math.nan))]) is None
    assert split(whole, []) is None
    wild = split(whole, [replace(order, data=replace(order.data, difference_caution="one row is all"))])
    assert wild is not None and wild.data.interval is None and wild.code.interval is not None


def sentence(direction: str, code: float, data: float, **more: str) -> str:
    y, models = regression(3, 50, SPREADS)
    result = estimate("regression", ["mae"], y, models[1, 1], models[0, 0], resamples=100)[0]
    shares = (Share(value, (value - 0.01, value + 0.01)) for value in (code, data))
    found = Split("m", code + data, *shares, orders=2)  # type: ignore[misc]
    return told(replace(result, direction=direction), found, **more).reason  # type: ignore[arg-type]


def test_a_sentence_says_which_way_and_whose() -> None:
    same = sentence("higher", 0.03, 0.09)
    assert same.startswith(
        "m is better than the champion's by 0.12: 25% of that comes from the code (+0.030 [0.020, 0.040])"
    )
    assert sentence("lower", 0.03, 0.09).startswith("m is worse than the champion's by 0.12: 25% ")
    back = sentence("higher", 0.1, -0.04)
    assert "the new code makes it better (+0.100 [0.090, 0.110]), and the new data takes 40% of that back" in back
    given = sentence("higher", 0.04, -0.1)
    assert "worse than the champion's by 0.06: the new data makes it worse" in given
    assert "and the new code gives 40% of that back" in given
    assert "cancel out" in sentence("higher", 0.1, -0.099)
    assert "what the data did may be chance, on these rows" in sentence("higher", 0.1, 0.005)
    assert "chance" not in same
    alone = sentence("higher", -0.1, 0.0, changed="code")
    assert "worse than the champion's by 0.1 (-0.100 [-0.110, -0.090]), and all of it comes from the code" in alone
    assert "chance" not in alone
    assert "the other is not known (the old code: gone)." in sentence("higher", 0.1, 0.1, lacking="the old code: gone")
