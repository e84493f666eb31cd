"""The Open Inference Protocol v2: tensors in, tensors out."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import RequestRefused

_V2_NUMPY = {
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
_NUMPY_V2 = {numpy: v2 for v2, numpy in _V2_NUMPY.items()}


def datatype_of(spec: Any) -> str:
    import numpy as np

    kind: Any = getattr(spec, "type", None)
    try:
        return _NUMPY_V2.get(np.dtype(kind.to_numpy() if hasattr(kind, "to_numpy") else kind).name, "BYTES")
    except TypeError:
        return "BYTES"


def read_arrays(payload: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    inputs = payload.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise RequestRefused(400, "BAD_REQUEST", "'inputs' must be a list with at least one tensor")
    arrays = {}
    for tensor in inputs:
        if not isinstance(tensor, dict) or not {"name", "shape", "datatype", "data"} <= set(tensor):
            raise RequestRefused(400, "BAD_REQUEST", "each input needs name, shape, datatype and data")
        if tensor["datatype"] not in _V2_NUMPY:
            raise RequestRefused(400, "BAD_REQUEST", f"datatype must be one of {', '.join(_V2_NUMPY)}")
        if not isinstance(tensor["name"], str) or not tensor["shape"]:
            raise RequestRefused(400, "BAD_REQUEST", "an input's name must be a string and its shape not empty")
        try:
            array = np.array(tensor["data"], dtype=_V2_NUMPY[tensor["datatype"]])
            arrays[tensor["name"]] = array.reshape([int(size) for size in tensor["shape"]])
        except (ValueError, TypeError, OverflowError) as error:
            raise RequestRefused(400, "BAD_REQUEST", "an input's data does not fit its shape and datatype") from error
    return arrays


def written_outputs(predictions: Any) -> list[dict[str, Any]]:
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
            "datatype": _NUMPY_V2.get(array.dtype.name, "BYTES"),
            "data": array.reshape(-1).tolist(),
        }
        for name, array in named.items()
    ]
