"""Expectations and gates as they are written: what is wrong is named with its line, and given rows are judged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlcicd.config.expectations import Expectations
from mlcicd.core.errors import ConfigError
from mlcicd.evaluation.predictions import Predictions, Structure

from .conftest import Bench

# --- the file of expectations


@pytest.mark.parametrize(
    ("name", "text", "line", "words"),
    [
        ("e.jsonl", '{"name": "x"}\n', 1, "one of invariant"),
        ("e.jsonl", '\n{"name": "x", "given": {"a": NaN}}\n', 2, "not JSON"),
        ("e.jsonl", "", None, "no expectations"),
        ("e.jsonl", '{"name": "x", "given": {"a": 1}, "answer": {}}', 1, "at least one of label"),
        ("e.yaml", "expectations:\n  - {name: x, given: {q: 1}, answer: {label: 1}}\n", 2, "no feature 'q'"),
        ("e.yaml", "expectations:\n  - {name: x, given: {a: much}, answer: {label: 1}}\n", 2, "can not hold"),
        ("e.yaml", "expectations:\n  - {name: x, invariant: {column: g, add: 1}}\n", 2, "holds no numbers"),
        ("e.yaml", "expectations:\n  - {name: x, invariant: {column: a}}\n", 2, "one of set, add"),
        ("e.yaml", "expectations: []\n", 1, "at least 1"),
    ],
)
def test_a_wrong_expectation_is_an_error_on_its_line(
    bench: Bench, name: str, text: str, line: int | None, words: str
) -> None:
    bench.configure(f"expectations: {name}")
    bench.write(name, text)
    verdict = bench.evaluate("honest")
    assert verdict.exit_code == 2, verdict.summary
    place = f"{name}:{line}: " if line else f"{name}: "
    assert verdict.summary.startswith(place), verdict.summary
    assert words in verdict.summary


@pytest.mark.parametrize(
    ("evaluate", "words"),
    [
        ("fairness: [{by: g, metric: roc_acu, max: 0.1}]", "did you mean 'roc_auc'?"),
        ("fairness: [{by: g, metric: equalized_odds_ratio, max: 0.1}]", "takes min"),
        ("fairness: [{by: g, metric: accuracy, min: 0.1}]", "takes max"),
        ("fairness: [{by: g, metric: negative_flip_rate, max: 0.1}]", "compares two models"),
        ("robustness: [{metric: roc_auc, max_drop: 0.1}]", "at least one of noise"),
        ("robustness: [{metric: roc_auc, max_drop: .nan, noise: 1}]", "finite"),
        ("robustness: [{metric: roc_auc, max_drop: 0.1, noise: 1, columns: [aa]}]", "no feature 'aa'"),
        ("robustness: [{metric: roc_auc, max_drop: 0.1, swap: 1, columns: [a]}]", "no column for swap"),
        ("calibration: {}", "max_reliability or min_resolution"),
    ],
)
def test_a_wrong_gate_is_an_error_on_its_line(bench: Bench, evaluate: str, words: str) -> None:
    from mlcicd.stages import evaluate as run

    bench.configure(evaluate)
    try:
        verdict = run(bench.project, model=str(bench.workshop / "honest"))
    except ConfigError as error:
        said = error.one_line()
    else:
        assert verdict.exit_code == 2
        said = verdict.summary
    assert said.startswith("mlcicd.yaml:6: ")
    assert words in said


def test_expectations_of_one_name_are_refused() -> None:
    one = {"name": "x", "given": {"a": 1}, "answer": {"label": 1}}
    with pytest.raises(ValueError, match="two expectations"):
        Expectations.model_validate({"expectations": [one, one]})


# --- answers to given rows, of every kind of model


@pytest.mark.parametrize(
    ("task", "answer", "expected", "status"),
    [
        ("multiclass", Predictions(scores=np.array([[0.1, 0.8, 0.1]])), {"label": "y"}, "passed"),
        ("multiclass", Predictions(scores=np.array([[0.1, 0.8, 0.1]])), {"label": "z"}, "failed"),
        ("multiclass", Predictions(scores=np.array([[0.1, 0.8, 0.1]])), {"min": 0.5}, "no single score"),
        ("binary", Predictions(scores=np.array([0.7])), {"label": True, "min": 0.6}, "passed"),
        ("binary", Predictions(scores=np.array([0.7])), {"label": 1, "max": 0.6}, "failed"),
        ("binary", Predictions(labels=np.array([0.0])), {"label": 1}, "failed"),
        ("binary", Predictions(labels=np.array([0.0])), {"max": 0.5}, "no scores"),
        ("regression", Predictions(labels=np.array([3.0])), {"min": 2, "max": 4}, "passed"),
        ("regression", Predictions(labels=np.array([3.0])), {"min": 3.5}, "failed"),
        ("regression", Predictions(labels=np.array([np.nan])), {"min": 2}, "not finite"),
        ("regression", Predictions(labels=np.array([3.0])), {"label": 3}, "no labels"),
    ],
)
def test_given_rows_are_judged_in_the_words_of_the_task(
    task: str, answer: Predictions, expected: dict[str, Any], status: str
) -> None:
    from types import SimpleNamespace

    from mlcicd.stages.expectations_behaviour import _given_check

    y = {
        "multiclass": np.array(["x", "y", "z"] * 10),
        "binary": np.array([0, 1] * 15),
        "regression": np.arange(30) / 10,
    }[task]
    whole = Predictions(scores=np.tile([0.2, 0.3, 0.5], (30, 1))) if task == "multiclass" else Predictions(labels=y)
    record: Any = SimpleNamespace(project=SimpleNamespace(config=SimpleNamespace(model=SimpleNamespace(task=task))))
    ground: Any = SimpleNamespace(y=y, predictions=whole, structure=Structure())
    (expectation,) = Expectations.model_validate(
        {"expectations": [{"name": "x", "given": {"a": 1}, "answer": expected}]}
    ).expectations
    try:
        check = _given_check(record, ground, expectation, answer, "")
    except ValueError as error:
        assert status in str(error)
    else:
        assert check.status == status
