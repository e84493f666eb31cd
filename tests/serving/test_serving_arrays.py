"""Models that are asked with an array: the same answers and errors as with a DataFrame, bit by bit."""

from __future__ import annotations

import warnings
from importlib import import_module

import numpy as np
import pytest
from sklearn.base import is_classifier
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from mlcicd.serving.server.arrays import _ESTIMATORS, array_of, without_names
from mlcicd.serving.server.signature import Column, Table, frame_of

KINDS = {
    "doubles": ("double", "double", "double"),
    "floats": ("float", "float", "float"),
    "longs": ("long", "long", "long"),
    "mixed": ("double", "integer", "float"),
}
# These are asked all of them; one of each kind of code beneath.
ALL_KINDS = {
    "HistGradientBoostingRegressor",
    "LogisticRegression",
    "MLPRegressor",
    "RandomForestClassifier",
    "StandardScaler",
}
# What would take seconds otherwise.
SMALL = {"n_estimators": 4, "max_iter": 40, "cv": 2}


def _columns(kinds):
    return tuple(Column(name, kind, True) for name, kind in zip("abc", kinds, strict=True))


def _table(columns, rows, seed=5):
    numbers = np.random.default_rng(seed).normal(scale=4, size=(len(columns), rows)).tolist()
    whole = [column.kind in ("integer", "long") for column in columns]
    values = [[round(v) for v in part] if w else part for part, w in zip(numbers, whole, strict=True)]
    return Table(columns, tuple(values), rows)


def _fitted(model, table):
    frame = frame_of(table)
    total = frame.sum(axis=1)
    # Above 0, as some of the regressions ask.
    labels = (total > 0).astype(int) if is_classifier(model) else total - total.min() + 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # forty steps are not enough for all of them
        return model.fit(frame, labels)


def _small(kind):
    return kind(**{name: value for name, value in SMALL.items() if name in kind().get_params()})


def _told(predict, given):
    """What it answers, or what it says of its input."""
    try:
        answer = predict(given)
    except ValueError as error:
        return str(error)
    return answer.dtype, answer.tobytes()


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module in sorted(_ESTIMATORS) for name in sorted(_ESTIMATORS[module])]
)
def test_an_array_is_answered_as_the_data_frame_is(module, name):
    kind = getattr(import_module(f"sklearn.{module}"), name)
    for kinds in KINDS.values() if name in ALL_KINDS else [KINDS["doubles"], KINDS["mixed"]]:
        columns = _columns(kinds)
        model = _fitted(_small(kind), _table(columns, 40))
        unnamed = without_names(model, columns)
        asked = [_table(columns, rows, seed=6) for rows in (1, 7)]
        if kinds[0] == "double":
            asked.append(Table(columns, ([None], *asked[0].values[1:]), 1))
        for table in asked:
            for method in ("predict", "predict_proba", "transform", "decision_function"):
                if hasattr(model, method):
                    answered = _told(getattr(unnamed, method), array_of(table))
                    assert answered == _told(getattr(model, method), frame_of(table)), (kinds, method)


def test_a_pipeline_of_them_too():
    columns = _columns(KINDS["mixed"])
    steps = [("scale", StandardScaler()), ("none", "passthrough"), ("model", LogisticRegression())]
    model = _fitted(Pipeline(steps), _table(columns, 40))
    unnamed = without_names(model, columns)
    asked = _table(columns, 9, seed=6)
    assert _told(unnamed.predict_proba, array_of(asked)) == _told(model.predict_proba, frame_of(asked))
    # The model itself keeps its names.
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame_of(_table(columns[:2], 1)))


class _Own(LinearRegression):
    """Looks at the names of what it is given."""

    def predict(self, frame):
        return frame["a"].to_numpy()


_Own.__name__ = "LinearRegression"


@pytest.mark.parametrize(
    "model",
    [
        _Own(),
        Pipeline([("own", FunctionTransformer(lambda frame: frame * 2)), ("model", LinearRegression())]),
        Pipeline(
            [("by column", ColumnTransformer([("scale", StandardScaler(), ["a"])])), ("model", LinearRegression())]
        ),
        Pipeline([("scale", StandardScaler().set_output(transform="pandas")), ("model", LinearRegression())]),
        Pipeline([("scale", StandardScaler()), ("model", LinearRegression())]).set_output(transform="pandas"),
    ],
    ids=["subclass", "function", "by-column", "step-of-data-frames", "pipeline-of-data-frames"],
)
def test_a_model_that_may_look_at_the_data_frame_gets_it(model):
    columns = _columns(KINDS["doubles"])
    assert without_names(_fitted(model, _table(columns, 20)), columns) is None


def test_an_array_needs_numbers_in_the_order_of_the_training_data():
    columns = _columns(KINDS["doubles"])
    table = _table(columns, 20)
    model = _fitted(LinearRegression(), table)
    assert without_names(model, columns) is not None
    assert without_names(model, columns[::-1]) is None
    assert without_names(model, columns[:2]) is None
    assert without_names(model, (*columns[:2], Column("c", "string", True))) is None
    assert without_names(model, (*columns[:2], Column("c", "boolean", True))) is None
    assert without_names(LinearRegression().fit(array_of(table), range(20)), columns) is None
    assert without_names(None, columns) is None


def test_categories_need_the_columns_own_types():
    from sklearn.ensemble import HistGradientBoostingRegressor

    columns = _columns(KINDS["longs"])
    model = HistGradientBoostingRegressor(max_iter=2, categorical_features=["c"])
    frame = frame_of(_table(columns, 40)).abs()
    assert without_names(model.fit(frame, frame["a"]), columns) is None
