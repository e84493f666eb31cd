"""The loaded model, and the translation between request bodies and its `predict`."""

from __future__ import annotations

import importlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .codec import dump, json_object, mlflow_codec, numbers
from .errors import RequestRefused, model_failed, without_request_data
from .v2 import datatype_of, read_arrays, written_outputs


@dataclass(frozen=True)
class Answer:
    """A body to send, and the numbers in it for the score histogram."""

    body: bytes
    scores: list[float]


class Model:
    """A loaded MLflow model, and the translation between request bodies and its `predict`."""

    def __init__(self, path: Path, name: str, version: str) -> None:
        self.name = name
        self.version = version
        self._model: Any = importlib.import_module("mlflow.pyfunc").load_model(str(path))
        self._mlflow_error: Any = importlib.import_module("mlflow.exceptions").MlflowException
        metadata = self._model.metadata
        self.schema: Any = metadata.get_input_schema()
        by_hint = getattr(metadata, "_is_signature_from_type_hint", None)
        self._typed_by_hint = bool(by_hint and by_hint())

    # MLflow's /invocations

    def invoke(self, body: bytes, content_type: str) -> Answer:
        """Answers one `/invocations` body; runs in a worker thread.

        Raises:
            RequestRefused: with the status to answer.
        """
        kind = content_type.partition(";")[0].strip().lower() or "application/json"
        payload: Any = None
        if kind == "application/json":
            payload = json_object(body)
            data = self._parse(payload)
            params = payload.get("params")
        elif kind == "text/csv":
            data, params = self._parse_csv(body), None
        else:
            raise RequestRefused(415, "BAD_REQUEST", "content type must be application/json or text/csv")
        predictions = self._predict(data, params, payload)
        return self._encode(predictions)

    def _parse(self, payload: dict[str, Any]) -> Any:
        formats = {"dataframe_split", "dataframe_records", "instances", "inputs"}
        found = sorted(formats.intersection(payload))
        if len(found) != 1:
            raise RequestRefused(
                400,
                "BAD_REQUEST",
                f"the body must hold exactly one of {', '.join(sorted(formats))}; it holds "
                + (", ".join(found) if found else "none of them"),
            )
        key = found[0]
        if self._typed_by_hint and key == "inputs":
            return payload[key]  # MLflow hands such a model the JSON value as it is
        try:
            if key in ("instances", "inputs"):
                return mlflow_codec().parse_tf_serving_input({key: payload[key]}, schema=self.schema)
            orient = key[len("dataframe_") :]
            return mlflow_codec().dataframe_from_parsed_json(payload[key], pandas_orient=orient, schema=self.schema)
        except self._mlflow_error as error:
            raise self._refused(error, payload) from error
        except Exception as error:
            # pandas' own complaints about a malformed table: still the caller's input.
            raise RequestRefused(
                400, "BAD_REQUEST", f"{key} can not be read: {without_request_data(str(error), payload)}"
            ) from error

    def _parse_csv(self, body: bytes) -> Any:
        pd: Any = importlib.import_module("pandas")
        dtypes = None
        if self.schema is not None and self.schema.has_input_names() and not self.schema.is_tensor_spec():
            dtypes = dict(zip(self.schema.input_names(), self.schema.pandas_types()))  # noqa: B905
        try:
            return pd.read_csv(io.BytesIO(body), dtype=dtypes)
        except Exception as error:
            raise RequestRefused(400, "BAD_REQUEST", "the body can not be read as CSV of the signature") from error

    def _predict(self, data: Any, params: Any, payload: Any) -> Any:
        try:
            return self._model.predict(data, params=params) if params is not None else self._model.predict(data)
        except self._mlflow_error as error:
            by_signature = error.message.startswith("Failed to enforce") or params is not None
            if error.get_http_status_code() == 400 and by_signature:
                raise self._refused(error, payload) from error
            raise model_failed(error, payload) from error
        except Exception as error:
            raise model_failed(error, payload) from error

    @staticmethod
    def _refused(error: Any, payload: Any) -> RequestRefused:
        message = without_request_data(error.message, payload)
        if message.startswith(("Failed to convert", "Failed to parse", "Failed to enforce")):
            message = message.partition(" data")[0] + " the data to the types of the model's signature"
        return RequestRefused(400, str(error.error_code), message)

    def _encode(self, predictions: Any) -> Answer:
        plain = mlflow_codec()._get_jsonable_obj(predictions, pandas_orient="records")
        return Answer(dump({"predictions": plain}), list(numbers(plain)))

    # Open Inference Protocol v2

    def metadata(self) -> dict[str, Any]:
        inputs = []
        if self.schema is not None:
            for spec in self.schema.inputs:
                shape = list(getattr(spec, "shape", None) or [-1])
                inputs.append({"name": spec.name or "input", "datatype": datatype_of(spec), "shape": shape})
        return {
            "name": self.name,
            "versions": [self.version],
            "platform": "mlflow_pyfunc",
            "inputs": inputs,
            "outputs": [],
        }

    def infer(self, body: bytes) -> Answer:
        """Answers one v2 `infer` body: columns by input name, or one two-dimensional input for all columns.

        Raises:
            RequestRefused: with the status to answer.
        """
        payload = json_object(body)
        arrays = read_arrays(payload)
        predictions = self._predict(self._from_arrays(arrays), payload.get("parameters") or None, payload)
        outputs = written_outputs(predictions)
        answer: dict[str, Any] = {"model_name": self.name, "model_version": self.version, "outputs": outputs}
        if isinstance(payload.get("id"), str):
            answer["id"] = payload["id"]
        return Answer(dump(answer), list(numbers([output["data"] for output in outputs])))

    def _from_arrays(self, arrays: dict[str, Any]) -> Any:
        pd: Any = importlib.import_module("pandas")
        if self.schema is not None and self.schema.is_tensor_spec():
            return arrays if self.schema.has_input_names() else next(iter(arrays.values()))
        first = next(iter(arrays.values()))
        if len(arrays) == 1 and first.ndim == 2 and first.shape[1] > 1:
            names = self.schema.input_names() if self.schema is not None and self.schema.has_input_names() else None
            if names is not None and len(names) != first.shape[1]:
                raise RequestRefused(
                    400,
                    "BAD_REQUEST",
                    f"the input has {first.shape[1]} columns, the signature has {len(names)}",
                )
            return pd.DataFrame(first, columns=names)
        if len({array.shape[0] for array in arrays.values()}) > 1:
            raise RequestRefused(400, "BAD_REQUEST", "the inputs have different numbers of rows")
        return pd.DataFrame({name: array.reshape(array.shape[0]) for name, array in arrays.items()})
