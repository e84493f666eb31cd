"""Writes models as people save them (`python genuine_models.py FOLDER`): one entry of FOLDER is one model.

Run apart, so that the libraries' warnings and threads stay there.
"""

from __future__ import annotations

import json
import pickle
import struct
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np

# How a scikit-learn model reaches the disk; the estimators take turns.
PLAIN = [f"pickle{protocol}" for protocol in range(6)]
JOBLIB = ["joblib", "joblib-zlib", "joblib-gzip", "joblib-bz2", "joblib-xz", "joblib-lzma"]
MLFLOW = ["mlflow-skops", "mlflow-cloudpickle", "mlflow-pickle"]
WAYS = ["mlflow-skops", "pickle5", "joblib-zlib", "mlflow-cloudpickle", "joblib", "mlflow-skops", "pickle2",
        "joblib-gzip", "skops", "pickle0", "joblib-bz2", "mlflow-pickle", "pickle4", "joblib-xz", "pickle3",
        "joblib-lzma", "pickle1"]  # fmt: skip


def estimators() -> list[tuple[str, object]]:
    """Unfitted estimators, from the plain to the nested."""
    from sklearn import (
        calibration,
        cluster,
        compose,
        decomposition,
        discriminant_analysis,
        dummy,
        ensemble,
        feature_selection,
        gaussian_process,
        impute,
        kernel_approximation,
        linear_model,
        mixture,
        model_selection,
        multiclass,
        multioutput,
        naive_bayes,
        neighbors,
        neural_network,
        pipeline,
        preprocessing,
        svm,
        tree,
    )

    numbers = pipeline.make_pipeline(impute.SimpleImputer(strategy="median"), preprocessing.StandardScaler())
    columns = compose.make_column_transformer((numbers, [0, 1, 2]), (preprocessing.KBinsDiscretizer(4), [3, 4]))
    few = {"n_estimators": 8, "random_state": 0}
    return [
        ("logistic", linear_model.LogisticRegression()),
        ("logistic-cv", linear_model.LogisticRegressionCV(
            Cs=2, cv=2, scoring="roc_auc", l1_ratios=(0.0,), use_legacy_attributes=False)),
        ("ridge", linear_model.RidgeClassifier()),
        ("sgd", linear_model.SGDClassifier(loss="log_loss")),
        ("sgd-huber", linear_model.SGDClassifier(loss="modified_huber")),
        ("linear", linear_model.LinearRegression()),
        ("elastic-net", linear_model.ElasticNet()),
        ("lasso-cv", linear_model.LassoCV(cv=2, alphas=5)),
        ("huber", linear_model.HuberRegressor()),
        ("poisson", linear_model.PoissonRegressor()),
        ("bayesian-ridge", linear_model.BayesianRidge()),
        ("tree", tree.DecisionTreeClassifier(max_depth=4)),
        ("tree-regressor", tree.DecisionTreeRegressor(max_depth=4)),
        ("forest", ensemble.RandomForestClassifier(**few)),
        ("forest-regressor", ensemble.RandomForestRegressor(**few)),
        ("extra-trees", ensemble.ExtraTreesClassifier(**few)),
        ("boosting", ensemble.GradientBoostingClassifier(**few)),
        ("boosting-regressor", ensemble.GradientBoostingRegressor(loss="huber", **few)),
        ("hist-boosting", ensemble.HistGradientBoostingClassifier(max_iter=8)),
        ("hist-boosting-regressor", ensemble.HistGradientBoostingRegressor(max_iter=8, loss="poisson")),
        ("ada-boost", ensemble.AdaBoostClassifier(**few)),
        ("bagging", ensemble.BaggingClassifier(**few)),
        ("isolation-forest", ensemble.IsolationForest(**few)),
        ("voting", ensemble.VotingClassifier(
            [("a", linear_model.LogisticRegression()), ("b", naive_bayes.GaussianNB())])),
        ("stacking", ensemble.StackingClassifier([("a", naive_bayes.GaussianNB())], cv=2)),
        ("neighbours", neighbors.KNeighborsClassifier(algorithm="kd_tree")),
        ("neighbours-ball", neighbors.KNeighborsRegressor(algorithm="ball_tree")),
        ("neighbours-brute", neighbors.KNeighborsClassifier(algorithm="brute")),
        ("svc", svm.SVC()),
        ("svr", svm.SVR()),
        ("linear-svc", svm.LinearSVC()),
        ("calibrated", calibration.CalibratedClassifierCV(linear_model.LogisticRegression(), cv=2)),
        ("calibrated-isotonic", calibration.CalibratedClassifierCV(naive_bayes.GaussianNB(), method="isotonic", cv=2)),
        ("gaussian-nb", naive_bayes.GaussianNB()),
        ("mlp", neural_network.MLPClassifier(hidden_layer_sizes=(8,), max_iter=30)),
        ("mlp-regressor", neural_network.MLPRegressor(hidden_layer_sizes=(8,), max_iter=30)),
        ("gaussian-process", gaussian_process.GaussianProcessClassifier()),
        ("lda", discriminant_analysis.LinearDiscriminantAnalysis()),
        ("qda", discriminant_analysis.QuadraticDiscriminantAnalysis(reg_param=0.1)),
        ("k-means", cluster.KMeans(3, n_init=1)),
        ("mixture", mixture.GaussianMixture(2)),
        ("pca-pipeline", pipeline.make_pipeline(decomposition.PCA(3), linear_model.LogisticRegression())),
        ("columns", pipeline.make_pipeline(columns, linear_model.LogisticRegression())),
        ("kernel-map", pipeline.make_pipeline(kernel_approximation.Nystroem(n_components=9), svm.LinearSVC())),
        ("selection", pipeline.make_pipeline(
            feature_selection.SelectKBest(feature_selection.f_classif, k=3), linear_model.LogisticRegression())),
        ("logarithm", pipeline.make_pipeline(
            preprocessing.FunctionTransformer(np.abs), preprocessing.FunctionTransformer(np.log1p),
            linear_model.LogisticRegression())),
        ("search", model_selection.GridSearchCV(linear_model.LogisticRegression(), {"C": [0.1, 1.0]}, cv=2)),
        ("one-vs-rest", multiclass.OneVsRestClassifier(linear_model.LogisticRegression())),
        ("chain", multioutput.MultiOutputClassifier(linear_model.LogisticRegression())),
        ("dummy", dummy.DummyClassifier()),
        ("quantiles", pipeline.make_pipeline(
            preprocessing.QuantileTransformer(n_quantiles=20), preprocessing.PolynomialFeatures(2),
            linear_model.LogisticRegression())),
    ]  # fmt: skip


def save(model: object, way: str, folder: Path, name: str) -> None:
    """Writes a fitted model one way."""
    import joblib

    target = folder / f"{name}-{way}"
    if way.startswith("pickle"):
        target.with_suffix(".pkl").write_bytes(pickle.dumps(model, int(way[-1])))
    elif way.startswith("joblib"):
        method = way.partition("-")[2]
        joblib.dump(model, target.with_suffix(".joblib"), compress=(method, 3) if method else 0)
    else:
        _save_with_skops(model, way, target)


def _save_with_skops(model: object, way: str, target: Path) -> None:
    import mlflow.sklearn
    import skops.io

    data = skops.io.dumps(model)
    if way == "skops":
        target.with_suffix(".skops").write_bytes(data)
        return
    options = {"serialization_format": way.partition("-")[2], "pip_requirements": ["scikit-learn==1.5.0", "numpy"]}
    if way == "mlflow-skops":
        options["skops_trusted_types"] = skops.io.get_untrusted_types(data=data)
    mlflow.sklearn.save_model(model, target, **options)


def write_sklearn(folder: Path) -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(120, 6))
    labels = (features[:, 0] + random.normal(size=120) > 0).astype(int)
    several = np.column_stack([labels, labels[::-1]])
    for number, (name, model) in enumerate(estimators()):
        fitted = model.fit(features, several if name == "chain" else labels)
        way = WAYS[number % len(WAYS)]
        if way in ("skops", "mlflow-skops") and name == "chain":
            way = "pickle5"
        save(fitted, way, folder, name)


def write_text_models(folder: Path) -> None:
    """Words, categories and tables: the pickles with vocabularies, object arrays and pandas in them."""
    import joblib
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

    words = ["late again", "on time", "late and cold", "warm and on time"] * 10
    labels = [1, 0, 1, 0] * 10
    save(make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(words, labels), "pickle5", folder, "words")
    save(make_pipeline(HashingVectorizer(n_features=64), LogisticRegression()).fit(words, labels),
         "mlflow-skops", folder, "hashing")  # fmt: skip
    table = pd.DataFrame({"carrier": ["UA", "MQ"] * 20, "origin": ["EWR", "JFK", "LGA", "JFK"] * 10, "x": range(40)})
    for encoder, way in ((OneHotEncoder(), "joblib-zlib"), (OrdinalEncoder(), "mlflow-cloudpickle")):
        model = make_pipeline(
            make_column_transformer((encoder, ["carrier", "origin"]), remainder="passthrough"), LogisticRegression()
        )
        save(model.fit(table, labels), way, folder, type(encoder).__name__.lower())
    save(IsotonicRegression().fit(range(40), labels), "joblib", folder, "isotonic")
    joblib.dump({"table": table, "categories": table["carrier"].astype("category")}, folder / "table.joblib")


def write_boosters(folder: Path) -> None:
    import lightgbm
    import mlflow.lightgbm
    import mlflow.xgboost
    import xgboost

    random = np.random.default_rng(1)
    features = random.normal(size=(200, 4))
    labels = (features[:, 0] > 0).astype(int)
    light = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1).fit(features, labels)
    extreme = xgboost.XGBClassifier(n_estimators=5, n_jobs=1).fit(features, labels)
    pinned = {"pip_requirements": ["lightgbm"]}
    mlflow.lightgbm.save_model(light, folder / "lightgbm-api", **pinned)
    mlflow.lightgbm.save_model(light.booster_, folder / "lightgbm-native", **pinned)
    light.booster_.save_model(folder / "lightgbm.txt")
    save(light, "pickle5", folder, "lightgbm")
    save(lightgbm.LGBMRegressor(n_estimators=5, verbose=-1).fit(features, labels), "joblib-xz", folder, "lightgbm-reg")
    mlflow.xgboost.save_model(extreme, folder / "xgboost-api", pip_requirements=["xgboost"])
    mlflow.xgboost.save_model(extreme.get_booster(), folder / "xgboost-native", pip_requirements=["xgboost"])
    extreme.save_model(folder / "xgboost.json")
    extreme.save_model(folder / "xgboost.ubj")
    save(extreme, "pickle4", folder, "xgboost")
    save(xgboost.XGBRegressor(n_estimators=5).fit(features, labels), "joblib", folder, "xgboost-reg")


def write_others(folder: Path) -> None:
    """Formats without a library of theirs here are written by hand, as their libraries write them."""
    weights = np.arange(12.0).reshape(3, 4)
    np.save(folder / "weights.npy", weights)
    np.savez(folder / "weights.npz", a=weights, b=weights.T)
    np.savez_compressed(folder / "weights-compressed.npz", a=weights)
    np.save(folder / "names.npy", np.array(["late", None, 3], dtype=object))
    (folder / "coefficients.json").write_text(json.dumps({"weights": weights.tolist()}))
    header = json.dumps({"w": {"dtype": "F64", "shape": [3, 4], "data_offsets": [0, 96]}}).encode()
    (folder / "weights.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + weights.tobytes())
    layer = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 3}, "registered_name": None}
    model = {"module": "keras", "class_name": "Sequential", "config": {"layers": [layer]}, "registered_name": None}
    with zipfile.ZipFile(folder / "dense.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(model))
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.8.0"}))
        archive.writestr("model.weights.h5", b"\x89HDF\r\n\x1a\n" + bytes(300))
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpu"
    tensor += b"K\x04tQK\x00K\x04\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR"
    with zipfile.ZipFile(folder / "state.pt", "w") as archive:
        archive.writestr("state/data.pkl", b"\x80\x02ccollections\nOrderedDict\n)R" + b"X\x01\x00\x00\x00w"
                         + tensor + b"s.")  # fmt: skip
        archive.writestr("state/data/0", np.arange(4, dtype="f4").tobytes())
        archive.writestr("state/version", "3\n")


def write_all(folder: Path) -> None:
    warnings.simplefilter("ignore")
    folder.mkdir(parents=True, exist_ok=True)
    write_sklearn(folder)
    write_text_models(folder)
    write_boosters(folder)
    write_others(folder)


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
