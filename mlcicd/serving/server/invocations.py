"""MLflow's own protocol, `/invocations`."""

from __future__ import annotations

import importlib
import io
from typing import Any

from .codec import dump, json_object, mlflow_codec, numbers
from .errors import RequestRefused, refused_by_mlflow, without_request_data
from .questions import Answer, Question
from .signature import Column, by_column, checked

FORMATS = ("dataframe_records", "dataframe_split", "inputs", "instances")


def media_type(content_type: str) -> str:
    """A content type without its parameters, as all that read a body compare it."""
    return content_type.partition(";")[0].strip().lower()


class Invocations:
    """Reads `/invocations` bodies for a model, and writes its answers.

    Args:
        schema: the input schema of the model's signature, or None.
        columns: its columns where they are named and scalar, else None.
        typed_by_hint: whether MLflow made the signature from the type hint of the model's `predict`.
    """

    def __init__(self, schema: Any, columns: tuple[Column, ...] | None, *, typed_by_hint: bool) -> None:
        self._schema = schema
        self._columns = columns
        self._typed_by_hint = typed_by_hint
        self._mlflow_error: Any = importlib.import_module("mlflow.exceptions").MlflowException

    def read(self, body: bytes, content_type: str) -> Question:
        """
        Raises:
            RequestRefused: with the status to answer.
        """
        kind = media_type(content_type) or "application/json"
        if kind == "text/csv":
            return Question(self._csv(body), None, body, written)
        if kind != "application/json":
            raise RequestRefused(415, "BAD_REQUEST", "content type must be application/json or text/csv")
        payload = json_object(body)
        params = payload.get("params")
        if params is not None and not isinstance(params, dict):
            raise RequestRefused(400, "BAD_REQUEST", "'params' must be a JSON object")
        return Question(self._data(payload), params, payload, written)

    def _data(self, payload: dict[str, Any]) -> Any:
        found = [form for form in FORMATS if form in payload]
        if len(found) != 1:
            raise RequestRefused(
                400,
                "BAD_REQUEST",
                f"the body must hold exactly one of {', '.join(FORMATS)}; it holds "
                + (", ".join(found) if found else "none of them"),
            )
        form = found[0]
        if self._typed_by_hint and form == "inputs":
            return payload[form]  # MLflow hands such a model the JSON value as it is
        if self._columns is not None:
            values = by_column(form, payload[form])
            table = checked(self._columns, *values) if values is not None else None
            if table is not None:
                return table
        data = self._by_mlflow(form, payload)
        if self._columns is not None and _is_empty(data):
            raise RequestRefused(400, "BAD_REQUEST", "the request has no rows")
        return data

    def _by_mlflow(self, form: str, payload: dict[str, Any]) -> Any:
        try:
            if form in ("instances", "inputs"):
                return mlflow_codec().parse_tf_serving_input({form: payload[form]}, schema=self._schema)
            orient = form[len("dataframe_") :]
            return mlflow_codec().dataframe_from_parsed_json(payload[form], pandas_orient=orient, schema=self._schema)
        except self._mlflow_error as error:
            raise refused_by_mlflow(error, payload) from error
        except Exception as error:
            # pandas' own complaints about a malformed table: still the caller's input.
            raise RequestRefused(
                400, "BAD_REQUEST", f"{form} can not be read: {without_request_data(str(error), payload)}"
            ) from error

    def _csv(self, body: bytes) -> Any:
        pd: Any = importlib.import_module("pandas")
        dtypes = None
        if self._schema is not None and self._schema.has_input_names() and not self._schema.is_tensor_spec():
            dtypes = dict(zip(self._schema.input_names(), self._schema.pandas_types()))  # noqa: B905
        try:
            frame = pd.read_csv(io.BytesIO(body), dtype=dtypes)
        except Exception as error:
            raise RequestRefused(400, "BAD_REQUEST", "the body can not be read as CSV of the signature") from error
        if frame.empty:
            raise RequestRefused(400, "BAD_REQUEST", "the request has no rows")
        return frame


def _is_empty(data: Any) -> bool:
    parts = data.values() if isinstance(data, dict) else [data]
    return any(tuple(getattr(part, "shape", ()))[:1] == (0,) for part in parts)


def written(predictions: Any) -> Answer:
    """The body of predictions, as MLflow writes it.

    Raises:
        RequestRefused: 500, when JSON can not carry them.
    """
    plain = mlflow_codec()._get_jsonable_obj(predictions, pandas_orient="records")
    return Answer(dump({"predictions": plain}), list(numbers(plain)))
