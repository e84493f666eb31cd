"""Models of several kinds, loaded in the user's own interpreter, behind one face.

Beside `score_runner.py`, which is run by its path; imports nothing of mlcicd, and a library only when a model is of its
kind. Each loader gives an object with `predict(table)`, `columns` (names of the columns that it wants, or None) and
`classes` (class labels in the order of the score columns, or None).
"""

# mypy: ignore-errors
# Runs in the user's interpreter, whatever its version: plain Python without annotations.

import importlib
import sys
from pathlib import Path


class Refused(Exception):
    """The model can not be used; the message says why and what to do."""


def need(module, package=None):
    """Imports a library, or names the package to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = (error.name or module).partition(".")[0]
        package = package or module.partition(".")[0]
        said = f"{sys.executable} can not import {missing}"
        raise Refused(f"{said}: install {package} there, or name another interpreter (python:)") from None


class Loaded:
    """A model, ready to answer: `answer` is a function of a table."""

    def __init__(self, answer, columns=None, classes=None, takes_all=False):
        self.predict = answer
        self.columns = columns
        self.classes = classes
        # It chooses its columns by itself: what it may see is not narrowed.
        self.takes_all = takes_all


def plain(values):
    return None if values is None else [v.item() if hasattr(v, "item") else v for v in values]


def mlflow_model(path):
    pyfunc = need("mlflow.pyfunc", "mlflow-skinny")
    model = pyfunc.load_model(path)
    inputs = model.metadata.get_input_schema()
    columns = None
    if inputs is not None and inputs.has_input_names():
        required = set(inputs.required_input_names())
        columns = [(name, name in required) for name in inputs.input_names()]
    try:
        native = model.get_raw_model()
    except Exception:
        # Older MLflow, or a flavour without a native model: the classes then come from the holdout's labels.
        native = None
    wide = doubles_of(inputs)
    answer = (lambda table: model.predict(widened(table, wide))) if wide else model.predict
    return Loaded(answer, columns, plain(getattr(native, "classes_", None)))


def doubles_of(inputs):
    """The columns that a signature calls double."""
    if inputs is None or not inputs.has_input_names():
        return []
    return [column.name for column in inputs.inputs if str(getattr(column, "type", "")) == "DataType.double"]


def widened(table, names):
    """Whole numbers as doubles, where the signature wants those and nothing is lost: a CSV can not say which they are.

    MLflow itself refuses them (`int64` to `float64` is no safe conversion to it), and advises signatures with doubles.
    """
    change = {}
    for name in names:
        whole = name in table.columns and getattr(table[name].dtype, "kind", "-") in "iu"
        if whole and (not len(table) or table[name].abs().max() <= 2**53):
            change[name] = table[name].astype("float64")
    return table.assign(**change) if change else table


def positive_columns(parts):
    """Probabilities as many estimators of several labels give them: a list with (n, 2) for each label."""
    import numpy as np

    return np.column_stack([np.asarray(p)[:, -1] for p in parts])


def estimator(model):
    """Anything with scikit-learn's methods: class probabilities where it has them, else its predictions."""
    columns = getattr(model, "feature_names_in_", None)
    wanted = None if columns is None else [(str(name), True) for name in columns]
    classes = getattr(model, "classes_", None)
    if hasattr(model, "predict_proba"):

        def answer(table):
            found = model.predict_proba(table)
            return positive_columns(found) if isinstance(found, list) else found

    elif hasattr(model, "predict"):
        answer, classes = model.predict, None
    elif callable(model):
        return Loaded(model, None, None)
    else:
        raise Refused(f"the object is a {type(model).__name__}: it has neither predict nor predict_proba")
    several = isinstance(classes, list) and any(hasattr(c, "__len__") and not isinstance(c, str) for c in classes)
    return Loaded(answer, wanted, None if several else plain(classes))


def joblib_model(path):
    try:
        import joblib
    except ImportError:
        import pickle

        with Path(path).open("rb") as file:
            # The model is the user's own, and this is the user's own process.
            return estimator(pickle.load(file))  # noqa: S301
    return estimator(joblib.load(path))


# Types that models of these libraries are made of, read by us one by one: none of them runs what it is given.
TRUSTED = (
    "numpy.dtype",
    "numpy.random._mt19937.MT19937",
    "numpy.random._pickle.__randomstate_ctor",
    "sklearn._loss._loss.CyAbsoluteError",
    "sklearn._loss._loss.CyExponentialLoss",
    "sklearn._loss._loss.CyHalfBinomialLoss",
    "sklearn._loss._loss.CyHalfGammaLoss",
    "sklearn._loss._loss.CyHalfMultinomialLoss",
    "sklearn._loss._loss.CyHalfPoissonLoss",
    "sklearn._loss._loss.CyHalfSquaredError",
    "sklearn._loss._loss.CyHuberLoss",
    "sklearn._loss._loss.CyPinballLoss",
    "sklearn._loss.link.HalfLogitLink",
    "sklearn._loss.link.IdentityLink",
    "sklearn._loss.link.Interval",
    "sklearn._loss.link.LogLink",
    "sklearn._loss.link.LogitLink",
    "sklearn._loss.link.MultinomialLogit",
    "sklearn._loss.loss.AbsoluteError",
    "sklearn._loss.loss.ExponentialLoss",
    "sklearn._loss.loss.HalfBinomialLoss",
    "sklearn._loss.loss.HalfGammaLoss",
    "sklearn._loss.loss.HalfMultinomialLoss",
    "sklearn._loss.loss.HalfPoissonLoss",
    "sklearn._loss.loss.HalfSquaredError",
    "sklearn._loss.loss.HuberLoss",
    "sklearn._loss.loss.PinballLoss",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.metrics._dist_metrics.ManhattanDistance64",
    "sklearn.metrics._dist_metrics.MinkowskiDistance64",
    "sklearn.neighbors._ball_tree.BallTree64",
    "sklearn.neighbors._ball_tree.newObj",
    "sklearn.neighbors._kd_tree.KDTree64",
    "sklearn.neighbors._kd_tree.newObj",
    "sklearn.tree._tree.Tree",
)


def skops_model(path):
    io = need("skops.io", "skops")
    strange = [name for name in io.get_untrusted_types(file=path) if name not in TRUSTED]
    if strange:
        raise Refused(
            f"the skops file holds types that are not known to be harmless: {', '.join(strange[:5])}; give a "
            "module:function that loads it with the types that you trust"
        )
    return estimator(io.load(path, trusted=list(TRUSTED)))


def categorical(table):
    """Text columns as categories, which is how boosters know them."""
    text = [
        name for name in table.columns if table[name].dtype.kind not in "biufM" and str(table[name].dtype) != "bool"
    ]
    return table.astype(dict.fromkeys(text, "category")) if text else table


def lightgbm_model(path):
    lightgbm = need("lightgbm")
    booster = lightgbm.Booster(model_file=path)
    names = booster.feature_name()
    # Trained on an array, it numbers its columns: then they are taken in the order of the data.
    numbered = names == [f"Column_{i}" for i in range(len(names))]
    columns = len(names) if numbered else [(name, True) for name in names]
    return Loaded(lambda table: booster.predict(categorical(table)), columns)


def xgboost_model(path):
    xgboost = need("xgboost", "xgboost (or xgboost-cpu)")
    booster = xgboost.Booster()
    booster.load_model(path)
    names = booster.feature_names
    columns = [(name, True) for name in names] if names else booster.num_features()

    def answer(table):
        matrix = xgboost.DMatrix(categorical(table), enable_categorical=True)
        return booster.predict(matrix, validate_features=bool(names))

    return Loaded(answer, columns)


ONNX_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(bool)": "bool",
    "tensor(string)": "str",
}


def onnx_model(path):
    """One input of all columns, or one input a column; of several outputs, the probabilities."""
    import numpy as np

    onnxruntime = need("onnxruntime")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    inputs, outputs = session.get_inputs(), session.get_outputs()
    chosen = next((o for o in outputs if "prob" in o.name.lower() or o.type.startswith("seq(map")), None)
    chosen = chosen or outputs[0]

    def typed(values, kind):
        if kind not in ONNX_TYPES:
            raise Refused(f"the ONNX model takes {kind}, and a table has none of that")
        if kind == "tensor(string)":
            return np.asarray(values, dtype=object).astype(str).astype(object)
        return np.ascontiguousarray(values, dtype=ONNX_TYPES[kind])

    def answer(table):
        if len(inputs) == 1:
            asked = {inputs[0].name: typed(table.to_numpy(), inputs[0].type)}
        else:
            asked = {i.name: typed(table[[i.name]].to_numpy(), i.type) for i in inputs}
        found = session.run([chosen.name], asked)[0]
        if isinstance(found, list) and found and isinstance(found[0], dict):
            loaded.classes = list(found[0])
            return np.array([[row[c] for c in loaded.classes] for row in found])
        return found

    if len(inputs) > 1:
        columns = [(i.name, True) for i in inputs]
    else:
        width = inputs[0].shape[1] if len(inputs[0].shape) == 2 else None
        columns = width if isinstance(width, int) else None
    loaded = Loaded(answer, columns)
    return loaded


def callable_model(name):
    """`module:function` of the project: a function of a table, or an object with predict."""
    module, _, attribute = name.partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise Refused(
            f"there is no module {error.name!r} for {name}: it is looked for in the project's folder"
        ) from None
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise Refused(f"{module} has no {attribute!r}")
        found = getattr(found, part)
    return estimator(found) if hasattr(found, "predict") else estimator(_checked(found, name))


def _checked(found, name):
    if not callable(found):
        raise Refused(f"{name} is a {type(found).__name__}, and no function")
    return found


LOADERS = {
    "mlflow": mlflow_model,
    "skops": skops_model,
    "joblib": joblib_model,
    "onnx": onnx_model,
    "lightgbm": lightgbm_model,
    "xgboost": xgboost_model,
    "callable": callable_model,
}
