"""Saves three models of a table: of few rows, of all rows, and of shuffled labels. Run by the fixture `registered`."""

import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")

import mlflow.sklearn  # noqa: E402
import pandas as pd  # noqa: E402
from mlflow.models import infer_signature  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402

table = pd.read_csv("train.csv")
X, y = table[["a", "b"]], table["y"]
shuffled = y.sample(frac=1, random_state=1).reset_index(drop=True)
for name, rows, labels in (("few", 40, y), ("all", len(X), y), ("shuffled", len(X), shuffled)):
    model = LogisticRegression().fit(X[:rows], labels[:rows])
    mlflow.sklearn.save_model(
        model, Path(sys.argv[1]) / name, signature=infer_signature(X, model.predict_proba(X)),
        pip_requirements=["scikit-learn"], pyfunc_predict_fn="predict_proba",
        serialization_format="skops", skops_trusted_types=["numpy.dtype"],
    )  # fmt: skip
