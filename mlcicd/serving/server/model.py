"""The loaded model: its signature, and predictions for one request or for several together."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Union

from .arrays import array_of, without_names
from .errors import RequestRefused, model_failed, places_of, refused_by_mlflow
from .invocations import Invocations
from .questions import Answer, Question, Request
from .signature import Column, Table, columns_of, frame_of, joined
from .v2 import OpenInference

# Flavours whose `predict` answers each row by itself, so that rows of several requests may go in together.
ROW_WISE = frozenset({"mlflow.sklearn", "mlflow.xgboost", "mlflow.lightgbm", "mlflow.catboost"})

log = logging.getLogger("mlcicd.server")

Outcome = Union[Answer, RequestRefused]  # noqa: UP007  (Python 3.9)


class Model:
    """A loaded MLflow model.

    Args:
        path: the model's folder.
        name, version: as they are registered.
        batching: `on`, `off`, or `auto`: on for the flavours of `ROW_WISE`.
    """

    def __init__(self, path: Path, name: str, version: str, batching: str = "auto") -> None:
        self.name = name
        self.version = version
        self._model: Any = importlib.import_module("mlflow.pyfunc").load_model(str(path))
        self._mlflow_error: Any = importlib.import_module("mlflow.exceptions").MlflowException
        metadata = self._model.metadata
        self.schema: Any = metadata.get_input_schema()
        self.columns = columns_of(self.schema)
        by_hint = getattr(metadata, "_is_signature_from_type_hint", None)
        self.typed_by_hint = bool(by_hint and by_hint())
        params = metadata.get_params_schema()
        names = frozenset(str(spec.name) for spec in params.params) if params is not None else frozenset[str]()
        self._invocations = Invocations(self.schema, self.columns, typed_by_hint=self.typed_by_hint)
        self._v2 = OpenInference(name, version, self.schema, self.columns, names)
        loader = metadata.flavors.get("python_function", {}).get("loader_module")
        # A table has passed a check of the same types, and such models have nothing else that `predict` adds.
        self._direct: Any = getattr(self._model, "_predict_fn", None) if loader in ROW_WISE and not names else None
        self._of_array: Any = None if self._direct is None else _on_arrays(self._model, self._direct, self.columns)
        self.batched = self.columns is not None and (batching == "on" or (batching == "auto" and loader in ROW_WISE))

    def metadata(self) -> dict[str, Any]:
        """The model's description in the Open Inference Protocol."""
        return self._v2.metadata(self._model.metadata.get_output_schema())

    def answer(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Outcome]]]:
        """Answers requests by their position, as soon as each is known; runs in a worker thread.

        Tables of the same columns are predicted together where the model allows that.
        """
        outcomes: list[tuple[int, Outcome]] = []
        together: dict[Any, list[tuple[int, Question]]] = {}
        alone: list[tuple[int, Question]] = []
        for position, request in enumerate(requests):
            try:
                question = self._read(request)
            except RequestRefused as refused:
                outcomes.append((position, refused))
                continue
            if self.batched and isinstance(question.data, Table) and question.params is None:
                together.setdefault(question.data.kinds, []).append((position, question))
            else:
                alone.append((position, question))
        for group in together.values():
            answers = self._answer_together([question for _, question in group]) if len(group) > 1 else None
            if answers is None:
                alone += group
            else:
                outcomes += zip((position for position, _ in group), answers)  # noqa: B905
        yield outcomes
        for position, question in alone:
            yield [(position, self._answer_alone(question))]

    def _read(self, request: Request) -> Question:
        try:
            return self._read_by_protocol(request)
        except RecursionError as error:
            raise RequestRefused(400, "BAD_REQUEST", "the body is nested too deeply") from error
        except RequestRefused:
            raise
        except Exception as error:
            # A defect of ours: it must not become the failure of the requests that wait beside this one.
            log.error("a request could not be read: %s at %s", type(error).__name__, places_of(error))
            raise RequestRefused(500, "INTERNAL_ERROR", "the server failed to read the request") from error

    def _read_by_protocol(self, request: Request) -> Question:
        if request.protocol == "v2":
            return self._v2.read(request.body)
        return self._invocations.read(request.body, request.content_type)

    def _answer_alone(self, question: Question) -> Outcome:
        try:
            return self._write(question, self._predict(question))
        except RequestRefused as refused:
            return refused
        except Exception as error:
            # Whatever it is, it is this request's own: others may have been handed over with it.
            return model_failed(error, question.payload)

    @staticmethod
    def _write(question: Question, predictions: Any) -> Outcome:
        try:
            return question.write(predictions)
        except RequestRefused as refused:
            return refused
        except Exception as error:
            return model_failed(error, question.payload)

    def _answer_together(self, questions: Sequence[Question]) -> list[Outcome] | None:
        """One prediction for all; None if it fails or is not one answer a row, for one request may spoil it for
        the others."""
        try:
            table = joined([question.data for question in questions])
            predictions = self._predict_table(table)
            if len(predictions) != table.rows or isinstance(predictions, (dict, str)):
                return None
        except Exception:
            # Each is asked again by itself: then its own error is answered, and logged.
            return None
        cut = getattr(predictions, "iloc", predictions)
        outcomes, start = [], 0
        for question in questions:
            outcomes.append(self._write(question, cut[start : start + question.data.rows]))
            start += question.data.rows
        return outcomes

    def _predict_table(self, table: Table) -> Any:
        if self._of_array is not None and len(table.kinds) == len(self.columns or ()):
            return self._of_array(array_of(table))
        return (self._direct or self._model.predict)(frame_of(table))

    def _predict(self, question: Question) -> Any:
        data, params = question.data, question.params
        try:
            if params is None:
                return self._predict_table(data) if isinstance(data, Table) else self._model.predict(data)
            return self._model.predict(frame_of(data) if isinstance(data, Table) else data, params=params)
        except self._mlflow_error as error:
            by_signature = error.message.startswith("Failed to enforce") or params is not None
            if error.get_http_status_code() == 400 and by_signature:
                raise refused_by_mlflow(error, question.payload) from error
            raise model_failed(error, question.payload) from error
        except Exception as error:
            raise model_failed(error, question.payload) from error


def _on_arrays(model: Any, predict: Any, columns: Sequence[Column] | None) -> Any:
    """What predicts from the array of a table with all columns; None where only a DataFrame will do."""
    method = getattr(predict, "__name__", "")
    if columns is None or method not in ("predict", "predict_proba", "predict_log_proba"):
        return None
    try:
        estimator = model.get_raw_model()
    except (AttributeError, NotImplementedError):
        # MLflow of before 2.9, or not scikit-learn.
        return None
    unnamed = without_names(estimator, columns)
    return None if unnamed is None else getattr(unnamed, method)
