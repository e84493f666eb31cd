"""Writes one model of each kind, and what it should answer (`python make_models.py FOLDER`), apart from pytest.

Two features `a`, `b`, a column of text `c` for the boosters that know categories, and 300 rows in `rows.parquet`.
"""

import sys
import warnings
from pathlib import Path

import joblib
import lightgbm
import numpy as np
import pandas as pd
import skops.io
import xgboost
from skl2onnx import to_onnx
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression

MODULE = """\
import numpy as np

def chance(table):
    return 1 / (1 + np.exp(-table["a"].to_numpy()))

class Doubled:
    def predict(self, table):
        return 2 * table["b"]

doubled = Doubled()
number = 3
"""


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    draw = np.random.default_rng(3)
    table = pd.DataFrame(draw.normal(size=(300, 2)), columns=["a", "b"])
    y = (table["a"] + 0.4 * draw.normal(size=300) > 0).astype(int)
    table.assign(id=np.arange(300)).to_parquet(folder / "rows.parquet")
    answers = {}

    logistic = LogisticRegression().fit(table, y)
    joblib.dump(logistic, folder / "logistic.joblib", compress=3)
    answers["logistic"] = logistic.predict_proba(table)
    linear = LinearRegression().fit(table, table["b"] * 2)
    joblib.dump(linear, folder / "linear.pkl")
    answers["linear"] = linear.predict(table)
    for name, model in {
        "forest": RandomForestClassifier(5, random_state=0).fit(table, y),
        "boosted": HistGradientBoostingRegressor(max_iter=5).fit(table, table["b"]),
    }.items():
        skops.io.dump(model, folder / f"{name}.skops")
        answers[name] = model.predict_proba(table) if hasattr(model, "predict_proba") else model.predict(table)

    options = {"zipmap": False}
    array = table.to_numpy(np.float32)
    (folder / "tensor.onnx").write_bytes(
        to_onnx(logistic, array[:1], options={id(logistic): options}).SerializeToString()
    )
    (folder / "maps.onnx").write_bytes(to_onnx(logistic, array[:1]).SerializeToString())
    answers["tensor"] = answers["maps"] = answers["logistic"]

    light = lightgbm.train({"objective": "binary", "verbose": -1}, lightgbm.Dataset(table, y), num_boost_round=20)
    light.save_model(folder / "light.txt")
    answers["light"] = light.predict(table)
    trees = xgboost.XGBClassifier(n_estimators=5).fit(table, y)
    for suffix in ("json", "ubj"):
        trees.save_model(folder / f"trees_{suffix}.{suffix}")
        answers[f"trees_{suffix}"] = trees.predict_proba(table)[:, 1]

    (folder / "own.py").write_text(MODULE)
    answers["own:chance"] = 1 / (1 + np.exp(-table["a"].to_numpy()))
    answers["own:doubled"] = 2 * table["b"].to_numpy()
    np.savez(folder / "answers.npz", **answers)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
