"""Trains a scikit-learn estimator on a table, in the user's own interpreter, and saves it as an MLflow model.

This file is run by its path and imports nothing of mlcicd: it needs numpy, pandas, scikit-learn and mlflow, which the
user's environment has, or it says what is missing. What to do is a JSON file::

    python estimator_runner.py SPEC.json

SPEC: `estimator`, `params`, `task`, `data`, `target`, `ignore`, `time` (column that a validation split goes by, or
empty), `seed`, `artifact`, `validate` (whether to measure on a validation split first), `run_id`.

Text and categories: to tree ensembles as ordinal numbers, to everything else one-hot, the rare ones together. Missing
numbers: left to estimators that know them, else the median with a column that tells of it. Numbers are standardised
for estimators that are neither trees nor ensembles of them. All of it is part of the saved model.
"""

# mypy: ignore-errors
# Runs in the user's interpreter, whatever its version: plain Python without annotations.

import difflib
import importlib
import json
import os
import shutil
import sys
from pathlib import Path

USAGE, INPUT, FAILED = 2, 4, 1
VALIDATION_SHARE = 0.2
# The split is the same for every cell of a matrix: cells are compared on the same rows.
SPLIT_SEED = 0
MOST_CATEGORIES = 100
RARE = 10
KEY_LIKE = 0.5
EXAMPLE_ROWS = 5


def fail(message, code):
    print(f"train: {message}", file=sys.stderr)
    raise SystemExit(code)


def read_table(path):
    import pandas as pd

    lower = path.lower()
    if Path(path).is_dir() or lower.endswith((".parquet", ".pq")):
        return pd.read_parquet(path)
    if lower.endswith((".csv", ".csv.gz", ".tsv", ".tsv.gz")):
        return pd.read_csv(path, sep="\t" if ".tsv" in lower else ",")
    if lower.endswith((".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")):
        return pd.read_json(path, lines=True)
    fail(f"{path}: not .parquet, .csv, .tsv or .jsonl", INPUT)


def make_estimator(name, params, task, seed):
    """The unfitted estimator, or a message that names the nearest thing there is."""
    from sklearn.base import is_classifier, is_regressor

    module, _, attribute = name.rpartition(".")
    try:
        found = importlib.import_module(module)
    except (ImportError, ValueError) as error:
        fail(f"estimator: there is no module {module!r} ({error})", USAGE)
    kind = getattr(found, attribute, None)
    if kind is None:
        fail(f"estimator: {module} has no {attribute!r}{nearest(attribute, dir(found))}", USAGE)
    if not isinstance(kind, type) or not hasattr(kind, "fit") or not hasattr(kind, "get_params"):
        fail(f"estimator: {name} is no scikit-learn estimator (a class with fit and get_params)", USAGE)
    try:
        known = kind().get_params(deep=False)
    except TypeError as error:
        fail(f"estimator: {name} can not be made from names and numbers alone ({error})", USAGE)
    for key in params:
        if key not in known:
            fail(f"params: {name} has no parameter {key!r}{nearest(key, known)}", USAGE)
    if "random_state" in known:
        params = {"random_state": seed, **params}
    estimator = kind(**params)
    wanted, right = ("a regressor", is_regressor) if task == "regression" else ("a classifier", is_classifier)
    if not right(estimator):
        fail(f"estimator: {name} is not {wanted}, and model.task is {task}", USAGE)
    return estimator, params


def nearest(name, known):
    close = difflib.get_close_matches(name, [k for k in known if not k.startswith("_")], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def split_columns(table):
    """Numbers and categories; a column that is neither is named."""
    from pandas.api import types

    numbers, names = [], []
    for column in table.columns:
        values = table[column]
        if values.isna().all():
            print(f"note: {column} has no values at all, and is left out")
        elif types.is_bool_dtype(values) or isinstance(values.dtype, type(values.astype("category").dtype)):
            names.append(column)
        elif types.is_datetime64_any_dtype(values) or types.is_timedelta64_dtype(values):
            fail(f"{column} is a time: make numbers of it that mean something, or name it under data.ignore", INPUT)
        elif types.is_numeric_dtype(values):
            numbers.append(column)
        else:
            first = values.dropna().head(1).tolist()
            if first and not isinstance(first[0], str):
                fail(f"{column} holds values of type {type(first[0]).__name__}, not numbers or text", INPUT)
            names.append(column)
            different = values.nunique()
            if different > max(MOST_CATEGORIES, KEY_LIKE * len(values)):
                print(f"note: {column} has {different} values in {len(values)} rows: if it is a key, see data.ignore")
    return numbers, names


def make_pipeline_of(estimator, numbers, names):
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline, make_pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

    trees = is_tree_based(estimator)
    if trees:
        encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    else:
        encoder = OneHotEncoder(
            handle_unknown="infrequent_if_exist",
            min_frequency=RARE,
            max_categories=MOST_CATEGORIES,
            sparse_output=False,
        )
    if knows_missing(estimator):
        numeric = "passthrough"
    else:
        imputer = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
        numeric = imputer if trees else make_pipeline(imputer, StandardScaler())
    parts = [("numbers", numeric, numbers), ("names", encoder, names)]
    return Pipeline([("columns", ColumnTransformer([part for part in parts if part[2]])), ("estimator", estimator)])


def is_tree_based(estimator):
    name = type(estimator).__name__
    return any(word in name for word in ("Tree", "Forest", "Boost", "XGB", "LGBM"))


def knows_missing(estimator):
    try:
        from sklearn.utils import get_tags

        return bool(get_tags(estimator).input_tags.allow_nan)
    except (ImportError, AttributeError):
        return "HistGradientBoosting" in type(estimator).__name__


def validation_rows(labels, times, task):
    """Positions of the rows to fit on and to measure on: the latest by time, else a drawn share, by label."""
    import numpy as np
    from sklearn.model_selection import train_test_split

    positions = np.arange(len(labels))
    if times is not None:
        order = np.argsort(times.to_numpy(), kind="stable")
        cut = len(order) - max(1, round(VALIDATION_SHARE * len(order)))
        return order[:cut], order[cut:]
    stratify = None if task == "regression" or labels.value_counts().min() < 2 else labels
    return train_test_split(positions, test_size=VALIDATION_SHARE, random_state=SPLIT_SEED, stratify=stratify)


def measured(model, features, labels, task):
    """Metrics by scikit-learn's names, as far as they are defined for these rows."""
    import numpy as np
    from sklearn import metrics as m

    answer = model.predict(features)
    if task == "regression":
        mse = m.mean_squared_error(labels, answer)
        return {
            "mae": m.mean_absolute_error(labels, answer),
            "rmse": float(np.sqrt(mse)),
            "mse": mse,
            "r2": m.r2_score(labels, answer),
        }
    average = "binary" if task == "binary" else "macro"
    positive = {"pos_label": model.classes_[-1]} if task == "binary" else {}
    found = {
        "accuracy": m.accuracy_score(labels, answer),
        "balanced_accuracy": m.balanced_accuracy_score(labels, answer),
        "f1": m.f1_score(labels, answer, average=average, zero_division=0, **positive),
    }
    if hasattr(model, "predict_proba") and set(labels) == set(model.classes_):
        scores = model.predict_proba(features)
        found["log_loss"] = m.log_loss(labels, scores, labels=list(model.classes_))
        if task == "binary":
            is_positive = (labels == model.classes_[-1]).astype(int)
            found["roc_auc"] = m.roc_auc_score(is_positive, scores[:, 1])
            found["average_precision"] = m.average_precision_score(is_positive, scores[:, 1])
            found["brier"] = m.brier_score_loss(is_positive, scores[:, 1])
        else:
            found["roc_auc"] = m.roc_auc_score(labels, scores, multi_class="ovr", labels=list(model.classes_))
    return found


def save(model, features, target):
    """Writes the model beside its place, then puts it there: `target` is never half a model."""
    import mlflow.sklearn
    from mlflow.models import infer_signature

    probabilities = hasattr(model, "predict_proba")
    example = features.head(EXAMPLE_ROWS)
    answer = model.predict_proba(example) if probabilities else model.predict(example)
    fresh = target.with_name(f".{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    common = {
        "signature": infer_signature(features, answer),
        "input_example": example,
        "pyfunc_predict_fn": "predict_proba" if probabilities else "predict",
        "pip_requirements": requirements(model),
    }
    trusted = trusted_types(model)
    if trusted is None:
        mlflow.sklearn.save_model(model, str(fresh), serialization_format="cloudpickle", **common)
    else:
        mlflow.sklearn.save_model(
            model, str(fresh), serialization_format="skops", skops_trusted_types=trusted, **common
        )
    fresh.rename(target)


def trusted_types(model):
    """What skops has to be told to trust; None where it can not keep this model, or is not there."""
    import inspect

    import mlflow.sklearn

    try:
        import skops.io
    except ImportError:
        return None
    if "skops_trusted_types" not in inspect.signature(mlflow.sklearn.save_model).parameters:
        return None
    try:
        types = skops.io.get_untrusted_types(data=skops.io.dumps(model))
    except Exception:
        # skops raises what it likes for a type it does not know.
        return None
    # This process made the object from these libraries; a type from elsewhere is nothing that skops should load.
    return types if all(name.split(".")[0] in ("sklearn", "numpy", "scipy") for name in types) else None


def requirements(model):
    """The packages that serve the model, pinned: what a model was made with is what loads it."""
    from importlib import metadata

    modules = {type(model.named_steps["estimator"]).__module__.split(".")[0]}
    wanted = {"sklearn": "scikit-learn"}
    names = {"mlflow-skinny", "numpy", "pandas", "scikit-learn", "skops", "cloudpickle"}
    names |= {wanted.get(module, module) for module in modules}
    found = []
    for name in sorted(names):
        try:
            found.append(f"{name}=={metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return found


def log(run_id, params, metrics):
    """Into a run that someone else started and will end."""
    if not run_id:
        return
    import time

    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    MlflowClient().log_batch(
        run_id,
        metrics=[Metric(name, float(value), now, 0) for name, value in metrics.items()],
        params=[Param(name, str(value)[:6000]) for name, value in params.items()],
    )


def load(spec):
    """Features, labels, and the times of the rows (None without such a column)."""
    table = read_table(spec["data"])
    target = spec["target"]
    if target not in table.columns:
        fail(f"{spec['data']} has no column {target!r} (data.target)", INPUT)
    unlabelled = int(table[target].isna().sum())
    if unlabelled:
        fail(f"{unlabelled} of {len(table)} rows of {spec['data']} have no {target}", INPUT)
    if len(table) < 2:
        fail(f"{spec['data']} has {len(table)} rows: nothing can be learned from that", INPUT)
    labels = table[target]
    if spec["task"] != "regression" and labels.nunique() < 2:
        fail(f"{target} has one value only: there is nothing to learn", INPUT)
    if spec["task"] == "binary" and labels.nunique() > 2:
        fail(f"{target} has {labels.nunique()} values, and model.task is binary", INPUT)
    times = table[spec["time"]] if spec["time"] in table.columns else None
    features = table.drop(columns=[c for c in [target, *spec["ignore"]] if c in table.columns])
    if features.columns.empty:
        fail(f"no column of {spec['data']} is left to learn from", INPUT)
    return features, labels, times


def main():
    # This file's folder is no place to import from: its neighbours have names of their own.
    sys.path[0] = str(Path.cwd())
    try:
        import numpy  # noqa: F401
        import pandas  # noqa: F401
        import sklearn
        from mlflow import sklearn as _  # noqa: F401
    except ImportError as error:
        fail(f"{sys.executable} can not import {error.name}: install it there, or name another (python:)", INPUT)
    from sklearn.base import clone

    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    estimator, params = make_estimator(spec["estimator"], spec["params"], spec["task"], spec["seed"])
    features, labels, times = load(spec)
    numbers, names = split_columns(features)
    print(
        f"{spec['estimator']} (scikit-learn {sklearn.__version__}) on {len(features)} rows: "
        f"{len(numbers)} numbers, {len(names)} categories"
    )
    model = make_pipeline_of(estimator, numbers, names)
    found = {}
    if spec["validate"]:
        fit_on, measure_on = validation_rows(labels, times, spec["task"])
        trial = clone(model).fit(features.iloc[fit_on], labels.iloc[fit_on])
        found = measured(trial, features.iloc[measure_on], labels.iloc[measure_on], spec["task"])
        print("validation: " + ", ".join(f"{name} {value:.4f}" for name, value in found.items()))
    model.fit(features, labels)
    save(model, features, Path(spec["artifact"]))
    log(
        os.environ.get("MLFLOW_RUN_ID"),
        {"estimator": spec["estimator"], **params},
        {f"validation_{name}": value for name, value in found.items()},
    )


if __name__ == "__main__":
    main()
