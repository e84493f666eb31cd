"""Converts a model to ONNX, in the user's own interpreter.

This file is run by its path, told what to do in a JSON file, and imports nothing of mlcicd but the files beside it. It
needs skl2onnx, and for boosters onnxmltools. Each column of the table becomes an input of its own, by its name, so
that whoever asks the exported model can not mistake their order::

    python export_runner.py PLAN.json
"""

# mypy: ignore-errors
# Runs in the user's interpreter, whatever its version: plain Python without annotations.

import json
import sys
import warnings
from pathlib import Path

from score_loaders import LOADERS, TRUSTED, Refused, need
from score_runner import fail, features_of, read_table

QUANTIZABLE = ("MatMul", "Gemm", "Conv", "LSTM", "Attention")
# What there is in a graph in which something was quantized.
QUANTIZED = ("MatMulInteger", "ConvInteger", "DynamicQuantizeLinear", "DynamicQuantizeLSTM", "DequantizeLinear")


def native(kind, path):
    """The object of the library that made the model."""
    if kind == "mlflow":
        model = need("mlflow.pyfunc", "mlflow-skinny").load_model(path)
        try:
            return model.get_raw_model()
        except Exception as error:
            raise Refused(f"the MLflow model has no object of a library in it: {error}") from None
    if kind == "joblib":
        return need("joblib").load(path)
    if kind == "skops":
        LOADERS[kind](path)
        return need("skops.io", "skops").load(path, trusted=list(TRUSTED))
    if kind == "lightgbm":
        return need("lightgbm").Booster(model_file=path)
    if kind == "xgboost":
        booster = need("xgboost").Booster()
        booster.load_model(path)
        return booster
    raise Refused("it is ONNX already" if kind == "onnx" else f"a model of kind {kind} can not be converted")


def converted(model, features):
    """The ONNX model of a model, and the names of its classes, where it knows them."""
    family = type(model).__module__.partition(".")[0]
    text = [name for name in features.columns if getattr(features[name].dtype, "kind", "O") not in "biuf"]
    if family in ("lightgbm", "xgboost"):
        if text:
            raise Refused(f"the column {text[0]!r} is text or categories, which a converted booster does not know")
        made = booster(family, model, features.shape[1])
        return by_column(made, features.columns), getattr(model, "classes_", None)
    base = need("sklearn.base", "scikit-learn")
    if not isinstance(model, base.BaseEstimator):
        raise Refused(f"a {type(model).__module__}.{type(model).__name__} can not be converted to ONNX")
    return sklearn(model, features, text), getattr(model, "classes_", None)


def booster(family, model, width):
    tools = need("onnxmltools")
    kinds = need("onnxmltools.convert.common.data_types", "onnxmltools")
    types = [("X", kinds.FloatTensorType([None, width]))]
    if family == "lightgbm":
        return tools.convert_lightgbm(model, initial_types=types, zipmap=False)
    # The converter wants the names f0, f1, ...
    (model.get_booster() if hasattr(model, "get_booster") else model).feature_names = None
    return tools.convert_xgboost(model, initial_types=types)


def sklearn(model, features, text):
    skl2onnx = need("skl2onnx")
    kinds = need("skl2onnx.common.data_types", "skl2onnx")
    options = {id(model): {"zipmap": False}} if hasattr(model, "predict_proba") else None
    if not text and not chooses_columns(model):
        types = [("X", kinds.FloatTensorType([None, features.shape[1]]))]
        return by_column(skl2onnx.convert_sklearn(model, initial_types=types, options=options), features.columns)
    types = [
        (str(n), (kinds.StringTensorType if n in text else kinds.FloatTensorType)([None, 1])) for n in features.columns
    ]
    return renamed(skl2onnx.convert_sklearn(model, initial_types=types, options=options), features.columns)


def renamed(made, columns):
    """The same model with the names of the columns, in place of those that the converter made of them."""
    names = {put.name: str(name) for put, name in zip(made.graph.input, columns)}  # noqa: B905  (Python may be old)
    if len(made.graph.input) != len(columns):
        raise Refused("the converted model does not have an input for each column")
    for put in made.graph.input:
        put.name = names[put.name]
    for node in made.graph.node:
        for number, name in enumerate(node.input):
            node.input[number] = names.get(name, name)
    return made


def chooses_columns(model):
    """Whether a step of the model takes columns by their names."""
    steps = [step for _, step in getattr(model, "steps", [])]
    return type(model).__name__ == "ColumnTransformer" or any(chooses_columns(step) for step in steps)


def by_column(made, columns):
    """The same model with an input a column, in place of one matrix."""
    helper, tensor = need("onnx.helper", "onnx"), need("onnx", "onnx").TensorProto
    matrix = made.graph.input[0].name
    names = [str(name) for name in columns]
    inner = {name for node in made.graph.node for name in (*node.input, *node.output)}
    taken = sorted((inner - {matrix}) & set(names))
    if taken:
        raise Refused(f"the column {taken[0]!r} has a name that the converted model uses inside: rename it")
    del made.graph.input[:]
    made.graph.input.extend(helper.make_tensor_value_info(name, tensor.FLOAT, [None, 1]) for name in names)
    joined = matrix if matrix not in names else f"{matrix}_of_all"
    for node in made.graph.node:
        for number, name in enumerate(node.input):
            if name == matrix:
                node.input[number] = joined
    made.graph.node.insert(0, helper.make_node("Concat", names, [joined], axis=1))
    return made


def quantized(path):
    """Weights as whole numbers of eight bits, by onnxruntime."""
    need("onnxruntime")
    quantization = need("onnxruntime.quantization", "onnxruntime and onnx")
    onnx = need("onnx")
    nothing = "nothing in this model can be quantized: it has no product of matrices (leave out --quantize)"
    if not any(node.op_type in QUANTIZABLE for node in onnx.load(str(path)).graph.node):
        raise Refused(nothing)
    small = path.with_suffix(".quantized.onnx")
    quantization.quantize_dynamic(str(path), str(small), weight_type=quantization.QuantType.QInt8)
    if not any(node.op_type in QUANTIZED for node in onnx.load(str(small)).graph.node):
        raise Refused(nothing)
    small.replace(path)


def main():
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    out = Path(plan["out"])
    try:
        onnx = need("onnx")
        loaded = LOADERS[plan["kind"]](plan["model"])
        features = features_of(loaded, read_table(plan["data"]), plan["target"], plan["ignore"])
        with warnings.catch_warnings():
            # Of the converters; whether the result is right is measured.
            warnings.simplefilter("ignore")
            made, classes = converted(native(plan["kind"], plan["model"]), features)
        names = [c.item() if hasattr(c, "item") else c for c in classes] if classes is not None else None
        facts = {**plan["metadata"], "columns": json.dumps(list(map(str, features.columns)))}
        onnx.helper.set_model_props(made, {**facts, "classes": json.dumps(names, default=str)})
        out.write_bytes(made.SerializeToString())
        if plan["quantize"]:
            quantized(out)
    except Refused as error:
        fail(str(error))
    except Exception as error:
        fail(f"it could not be converted: {type(error).__name__}: {' '.join(str(error).split())}"[:1000], 1)
    Path(plan["report"]).write_text(json.dumps({"classes": names}, default=str), encoding="utf-8")


if __name__ == "__main__":
    main()
