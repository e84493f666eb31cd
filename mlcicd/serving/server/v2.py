"""The Open Inference Protocol v2: tensors in, tensors out."""

from __future__ import annotations

import functools
import importlib
import math
from typing import Any

from .codec import dump, json_object, numbers
from .errors import RequestRefused
from .questions import Answer, Question
from .signature import Column, checked

_NUMPY = {
    "BOOL": "bool",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "object",
}
DATATYPES = tuple(_NUMPY)
_OF_NUMPY = {numpy: v2 for v2, numpy in _NUMPY.items()}
# What JSON may hold for each; null stands for a missing number.
_PYTHON: dict[str, set[type]] = {"BOOL": {bool}, "BYTES": {str}}
# What every NumPy can hold.
_MAX_DIMENSIONS = 32


class OpenInference:
    """Reads `infer` bodies for a model: columns by input name, or one two-dimensional input for all columns.

    Args:
        name, version: the model's, for the answers.
        schema: the input schema of the model's signature, or None.
        columns: its columns where they are named and scalar, else None.
        params: the names of the model's inference parameters.
    """

    def __init__(
        self, name: str, version: str, schema: Any, columns: tuple[Column, ...] | None, params: frozenset[str]
    ) -> None:
        self._name = name
        self._version = version
        self._schema = schema
        self._columns = columns
        self._params = params

    def read(self, body: bytes) -> Question:
        """
        Raises:
            RequestRefused: 400, with what is wrong.
        """
        payload = json_object(body)
        if not isinstance(payload.get("id", ""), str):
            raise _bad("'id' must be a string")
        parameters = payload.get("parameters", {})
        if not isinstance(parameters, dict):
            raise _bad("'parameters' must be a JSON object")
        # Clients put things of their own there, too, such as MLServer's content types.
        params = {key: value for key, value in parameters.items() if key in self._params}
        data = self._data(_read_arrays(payload.get("inputs")))
        wanted = _wanted(payload.get("outputs"))
        return Question(data, params or None, payload, functools.partial(self._write, payload.get("id"), wanted))

    def _data(self, arrays: dict[str, Any]) -> Any:
        if self._schema is not None and self._schema.is_tensor_spec():
            return arrays if self._schema.has_input_names() else next(iter(arrays.values()))
        named = self._by_name(arrays)
        rows = len(next(iter(named.values()))) if named else 0
        if any(len(column) != rows for column in named.values()):
            raise _bad("the inputs have different numbers of rows")
        if rows == 0:
            raise _bad("the request has no rows")
        if self._columns is not None:
            table = checked(self._columns, {name: array.tolist() for name, array in named.items()}, rows)
            if table is not None:
                return table
        pd: Any = importlib.import_module("pandas")
        return pd.DataFrame(named)

    def _by_name(self, arrays: dict[str, Any]) -> dict[Any, Any]:
        """One-dimensional arrays by column."""
        name, first = next(iter(arrays.items()))
        if len(arrays) == 1 and first.ndim == 2 and (first.shape[1] > 1 or name not in self._names()):
            names: list[Any] = [*self._names()] or list(range(first.shape[1]))
            if len(names) != first.shape[1]:
                raise _bad(f"the input has {first.shape[1]} columns, the signature has {len(names)}")
            return {column: first[:, position] for position, column in enumerate(names)}
        if any(array.ndim > 2 or (array.ndim == 2 and array.shape[1] != 1) for array in arrays.values()):
            raise _bad("an input for one column has the shape [rows] or [rows, 1]")
        return {name: array.reshape(array.shape[0]) for name, array in arrays.items()}

    def _names(self) -> list[str]:
        named = self._schema is not None and self._schema.has_input_names()
        return list(self._schema.input_names()) if named else []

    def _write(self, request: str | None, wanted: list[str] | None, predictions: Any) -> Answer:
        outputs = _outputs(predictions)
        if wanted is not None:
            unknown = set(wanted) - {output["name"] for output in outputs}
            if unknown:
                raise _bad(f"the model has no such output; it has {', '.join(o['name'] for o in outputs)}")
            outputs = [output for output in outputs if output["name"] in wanted]
        answer: dict[str, Any] = {"model_name": self._name, "model_version": self._version, "outputs": outputs}
        if request is not None:
            answer["id"] = request
        return Answer(dump(answer), list(numbers([output["data"] for output in outputs])))

    def metadata(self, outputs: Any) -> dict[str, Any]:
        """The model's description; `outputs` is the output schema of its signature, or None."""
        return {
            "name": self._name,
            "versions": [self._version],
            "platform": "mlflow_pyfunc",
            "inputs": _described(self._schema, "input"),
            "outputs": _described(outputs, "predictions"),
        }


def _bad(message: str) -> RequestRefused:
    return RequestRefused(400, "BAD_REQUEST", message)


def _described(schema: Any, unnamed: str) -> list[dict[str, Any]]:
    return [
        {
            "name": spec.name or unnamed,
            "datatype": _datatype_of(spec),
            "shape": [int(size) for size in getattr(spec, "shape", None) or [-1]],
        }
        for spec in (schema.inputs if schema is not None else [])
    ]


def _datatype_of(spec: Any) -> str:
    import numpy as np

    kind: Any = getattr(spec, "type", None)
    try:
        return _OF_NUMPY.get(np.dtype(kind.to_numpy() if hasattr(kind, "to_numpy") else kind).name, "BYTES")
    except TypeError:
        return "BYTES"


def _wanted(outputs: Any) -> list[str] | None:
    if not outputs:
        return None
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise _bad("'outputs' must be a list of objects with a name")
    names = [output.get("name") for output in outputs]
    if not all(isinstance(name, str) for name in names):
        raise _bad("each of 'outputs' needs a name")
    return names


def _read_arrays(inputs: Any) -> dict[str, Any]:
    if not isinstance(inputs, list) or not inputs:
        raise _bad("'inputs' must be a list with at least one tensor")
    arrays: dict[str, Any] = {}
    for tensor in inputs:
        if not isinstance(tensor, dict) or not {"name", "shape", "datatype", "data"} <= set(tensor):
            raise _bad("each input needs name, shape, datatype and data")
        name, datatype = tensor["name"], tensor["datatype"]
        if not isinstance(datatype, str) or datatype not in _NUMPY:
            raise _bad(f"datatype must be one of {', '.join(_NUMPY)}")
        if not isinstance(name, str) or name in arrays:
            raise _bad("an input's name must be a string, each another one")
        arrays[name] = _read_array(tensor["shape"], datatype, tensor["data"])
    return arrays


def _read_array(shape: Any, datatype: str, data: Any) -> Any:
    import numpy as np

    if not isinstance(shape, list) or not shape or not all(type(size) is int and size >= 0 for size in shape):
        raise _bad("an input's shape must be a list of whole numbers")
    flat: list[Any] = []
    _flatten(data, flat)
    types = set(map(type, flat))
    whole = datatype.startswith(("INT", "UINT"))
    fits = types <= _PYTHON.get(datatype, {int} if whole else {int, float, type(None)})
    if not fits or not _has_shape(flat, shape):
        raise _bad("an input's data does not fit its shape and datatype")
    try:
        return np.array(flat, dtype=_NUMPY[datatype]).reshape(shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise _bad("an input's data does not fit its shape and datatype") from error


def _has_shape(flat: list[Any], shape: list[int]) -> bool:
    """Whether so many values fill the shape. The product of a long list of large sizes would take quadratic time."""
    if len(shape) > _MAX_DIMENSIONS:
        return False
    if not flat:
        return 0 in shape
    return max(shape) <= len(flat) and len(flat) == math.prod(shape)


def _flatten(data: Any, flat: list[Any]) -> None:
    if isinstance(data, list):
        for item in data:
            if isinstance(item, list):
                _flatten(item, flat)
            else:
                flat.append(item)
    else:
        raise _bad("an input's data must be a list")


def _outputs(predictions: Any) -> list[dict[str, Any]]:
    import numpy as np

    pd: Any = importlib.import_module("pandas")
    if isinstance(predictions, pd.DataFrame):
        named = {str(column): predictions[column].to_numpy() for column in predictions}
    elif isinstance(predictions, dict):
        named = {str(name): np.asarray(value) for name, value in predictions.items()}
    else:
        named = {"predictions": np.asarray(predictions)}
    return [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": _OF_NUMPY.get(array.dtype.name, "BYTES"),
            "data": array.reshape(-1).tolist(),
        }
        for name, array in named.items()
    ]
