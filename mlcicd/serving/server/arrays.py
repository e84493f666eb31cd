"""scikit-learn models that are asked with an array instead of a DataFrame.

scikit-learn's own estimators turn a numeric DataFrame into an array before they compute. Finding out that it is one,
and that its columns have the names of the training data, costs about six times what the prediction of a few rows does,
and has been settled here when the request was checked against the signature. So they get the array that they would
have made.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from .signature import NUMPY, Column, Table

# Whose first step is to make one numeric array of the whole input: not those that look at columns one by one
# (encoders, ColumnTransformer), hand their input on to other estimators, or call functions of the user.
_ESTIMATORS = {
    "linear_model": {
        "BayesianRidge",
        "ElasticNet",
        "ElasticNetCV",
        "GammaRegressor",
        "HuberRegressor",
        "Lasso",
        "LassoCV",
        "LinearRegression",
        "LogisticRegression",
        "LogisticRegressionCV",
        "PoissonRegressor",
        "Ridge",
        "RidgeCV",
        "RidgeClassifier",
        "RidgeClassifierCV",
        "SGDClassifier",
        "SGDRegressor",
        "TweedieRegressor",
    },
    "ensemble": {
        "ExtraTreesClassifier",
        "ExtraTreesRegressor",
        "GradientBoostingClassifier",
        "GradientBoostingRegressor",
        "HistGradientBoostingClassifier",
        "HistGradientBoostingRegressor",
        "IsolationForest",
        "RandomForestClassifier",
        "RandomForestRegressor",
    },
    "naive_bayes": {"GaussianNB"},
    "neighbors": {"KNeighborsClassifier", "KNeighborsRegressor"},
    "neural_network": {"MLPClassifier", "MLPRegressor"},
    "preprocessing": {"MaxAbsScaler", "MinMaxScaler", "PolynomialFeatures", "RobustScaler", "StandardScaler"},
    "svm": {"LinearSVC", "LinearSVR", "SVC", "SVR"},
    "tree": {"DecisionTreeClassifier", "DecisionTreeRegressor"},
}
# Not `boolean`: beside numbers, pandas makes objects of it.
_KINDS = frozenset({"double", "float", "integer", "long"})


def without_names(estimator: Any, columns: Sequence[Column]) -> Any:
    """A fitted scikit-learn model that answers the array of a table as the model answers its DataFrame.

    The table has all of these columns. What was learned is shared with the model; the columns' names are left out, so
    that an array without them is what it expects.

    Returns:
        None unless that is certain: for numeric columns in the order of the training data, and estimators of
        scikit-learn's own, alone or in a pipeline.
    """
    if not columns or not {column.kind for column in columns} <= _KINDS:
        return None
    names = getattr(estimator, "feature_names_in_", None)
    if names is None or list(names) != [column.name for column in columns]:
        return None
    if not _is(estimator, "pipeline", {"Pipeline"}):
        return _unnamed(estimator) if _makes_an_array(estimator) else None
    if getattr(estimator, "_sklearn_output_config", None) or not all(_makes_an_array(s) for _, s in estimator.steps):
        return None
    pipeline = copy.copy(estimator)
    pipeline.steps = [(name, _unnamed(step)) for name, step in estimator.steps]
    return pipeline


def _makes_an_array(step: Any) -> bool:
    if isinstance(step, str) or step is None:
        return step in (None, "passthrough")
    # Gradient boosting with categories looks at the columns' own types; a step may be set to answer DataFrames.
    if getattr(step, "is_categorical_", None) is not None or getattr(step, "_sklearn_output_config", None):
        return False
    return any(_is(step, module, names) for module, names in _ESTIMATORS.items())


def _unnamed(step: Any) -> Any:
    if not hasattr(step, "feature_names_in_"):
        return step
    unnamed = copy.copy(step)
    del unnamed.feature_names_in_
    return unnamed


def _is(estimator: Any, module: str, names: set[str]) -> bool:
    """Whether its class is one of these itself: a subclass may do something else."""
    kind = type(estimator)
    return kind.__name__ in names and kind.__module__.startswith(f"sklearn.{module}")


def array_of(table: Table) -> Any:
    """The array [rows, columns] that scikit-learn would make of the table's DataFrame.

    The numbers, their type and their order in memory are the same.
    """
    import numpy as np

    types = [NUMPY[column.kind] for column in table.kinds]
    if len(set(types)) == 1:
        return np.array(table.values, dtype=types[0]).T
    return np.vstack([np.array(items, dtype=kind) for items, kind in zip(table.values, types)]).T  # noqa: B905
