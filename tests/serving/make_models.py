"""Writes the models the tests serve (`python make_models.py FOLDER`), apart, so that MLflow's warnings stay there."""

import sys
from pathlib import Path

import mlflow.pyfunc
import mlflow.sklearn
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, Schema
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression

# Answers the sum of its columns, and misbehaves on request: `x` says how.
SCRIPT = """
import os, time
import mlflow.pyfunc
from mlflow.models import set_model

class Scripted(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        first = model_input["x"].iloc[0]
        if first == -1:
            raise ValueError(f"can not score {model_input['word'].iloc[0]}")
        if first == -2:
            return [float("nan")] * len(model_input)
        if first == -3:
            time.sleep(0.6)
        if first == -4:
            os._exit(9)
        if first == -5:
            LEAKED.append(b"x" * (32 << 20))
        if first == -6:
            LEAKED.append(b"")
            if len(LEAKED) > 10:
                os._exit(9)
        return model_input["x"].to_numpy() + OFFSET

OFFSET = 0.0
LEAKED = []
set_model(Scripted())
"""
BROKEN = "raise RuntimeError('the weights are not where they should be')\n"


def scripted(folder: Path, name: str, code: str) -> None:
    script = folder / f"{name}.py"
    good = folder / "placeholder.py"
    script.write_text(code)
    good.write_text(SCRIPT)
    signature = ModelSignature(Schema([ColSpec("double", "x"), ColSpec("string", "word", required=False)]))
    # MLflow runs the script when it saves: a broken one is put in place afterwards.
    mlflow.pyfunc.save_model(folder / name, python_model=str(good), signature=signature, pip_requirements=["pandas"])
    (folder / name / "placeholder.py").write_text(code)


def sklearn_model(folder: Path) -> None:
    rng = np.random.default_rng(7)
    features = pd.DataFrame(rng.normal(size=(300, 3)), columns=["a", "b", "c"])
    labels = (features["a"] + 0.3 * rng.normal(size=300) > 0).astype("int64")
    model = LogisticRegression().fit(features, labels)
    mlflow.sklearn.save_model(
        model,
        folder / "sklearn",
        signature=infer_signature(features, model.predict(features)),
        serialization_format="cloudpickle",
        pip_requirements=["scikit-learn"],
    )
    np.savetxt(folder / "sklearn-golden.csv", np.column_stack([features, model.predict(features)])[:20])


# Says what it was given.
TYPES = """
import mlflow.pyfunc, pandas as pd
from mlflow.models import set_model

class Types(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        types = " ".join(str(model_input[column].dtype) for column in model_input)
        words = [str(w) for w in model_input["word"]] if "word" in model_input else ["-"] * len(model_input)
        return pd.DataFrame({"types": [types] * len(model_input), "word": words, "whole": model_input["whole"]})

set_model(Types())
"""


def typed_model(folder: Path) -> None:
    script = folder / "types.py"
    script.write_text(TYPES)
    columns = [("double", "real"), ("float", "single"), ("integer", "whole"), ("long", "big"), ("boolean", "flag")]
    specs = [ColSpec(kind, name) for kind, name in columns]
    signature = ModelSignature(Schema([*specs, ColSpec("string", "word", required=False)]))
    mlflow.pyfunc.save_model(
        folder / "types", python_model=str(script), signature=signature, pip_requirements=["pandas"]
    )


def tree_model(folder: Path) -> None:
    rng = np.random.default_rng(8)
    features = pd.DataFrame(rng.normal(size=(300, 3)), columns=["a", "b", "c"])
    model = HistGradientBoostingRegressor(max_iter=5).fit(features, features["a"] * features["b"])
    mlflow.sklearn.save_model(
        model,
        folder / "tree",
        signature=infer_signature(features, model.predict(features)),
        serialization_format="cloudpickle",
        pip_requirements=["scikit-learn"],
    )


if __name__ == "__main__":
    target = Path(sys.argv[1])
    for number in (1, 2, 3):
        scripted(target, f"scripted-{number}", SCRIPT.replace("OFFSET = 0.0", f"OFFSET = {number}.0"))
    scripted(target, "broken", BROKEN)
    scripted(target, "slow-start", SCRIPT + "\ntime.sleep(600)\n")
    sklearn_model(target)
    tree_model(target)
    typed_model(target)
