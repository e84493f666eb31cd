"""The OpenAPI description of the server, made from the model's signature."""

from __future__ import annotations

from typing import Any

from .model import Model
from .signature import BOUNDS, Column
from .v2 import DATATYPES

_NUMBERS = {"type": "array", "items": {"type": "integer", "minimum": 0}}


def description(model: Model, *, secured: bool) -> dict[str, Any]:
    """OpenAPI 3.1 of the routes of a loaded model; `secured` when callers need a token."""
    own = f"/v2/models/{model.name}"
    paths: dict[str, Any] = {
        "/invocations": {"post": _predicting("MLflow's protocol", _ref("Invocation"), _ref("Predictions"), "Error")},
        f"{own}/infer": {
            "post": _predicting("Open Inference Protocol v2", _ref("Inference"), _ref("Inferred"), "V2Error")
        },
        own: {"get": _reading("The model's name, versions and tensors", "Model")},
        f"{own}/ready": {"get": _health("Whether predictions will be answered", "Ready")},
        "/v2": {"get": _reading("The server", "Server")},
        "/v2/health/live": {"get": _health("Whether the process answers", "Live")},
        "/v2/health/ready": {"get": _health("Whether predictions will be answered", "Ready")},
    }
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": model.name, "version": model.version},
        "paths": paths,
        "components": {"schemas": {**_answers(), **_requests(model)}},
    }
    if secured:
        described["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, operations in paths.items():
            for operation in operations.values():
                if not path.endswith(("/ready", "/live")):
                    operation["security"] = [{"token": []}]
                    operation["responses"]["401"] = _answer("No token, or another one", "Error")
    return described


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _answer(what: str, schema: str) -> dict[str, Any]:
    return {"description": what, "content": {"application/json": {"schema": _ref(schema)}}}


def _reading(what: str, schema: str) -> dict[str, Any]:
    return {"summary": what, "responses": {"200": _answer("It", schema), "503": _answer("Not yet loaded", "Error")}}


def _health(what: str, schema: str) -> dict[str, Any]:
    return {"summary": what, "responses": {"200": _answer("Yes", schema), "503": _answer("Not now", schema)}}


def _predicting(what: str, asked: dict[str, str], answered: dict[str, str], error: str) -> dict[str, Any]:
    refusals = {
        "400": "The body is not JSON, or does not fit the model's signature",
        "408": "The body did not arrive in time",
        "413": "The body is too large",
        "415": "Neither JSON nor CSV",
        "500": "The model raised an exception, or its answer is not finite",
        "503": "Not ready, or too many requests are waiting",
        "504": "The prediction took too long",
    }
    return {
        "summary": what,
        "parameters": [
            {
                "name": "x-request-id",
                "in": "header",
                "required": False,
                "description": "Names the request in the inference log; made up when absent or unfit",
                "schema": {"type": "string"},
            }
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": asked}}},
        "responses": {
            "200": {
                "description": "The predictions",
                "headers": {
                    "x-request-id": {"schema": {"type": "string"}},
                    "x-mlcicd-version": {"schema": {"type": "string"}},
                },
                "content": {"application/json": {"schema": answered}},
            },
            **{status: _answer(why, error) for status, why in refusals.items()},
        },
    }


def _answers() -> dict[str, Any]:
    """Schemas of what is sent back."""
    error = {"error_code": {"type": "string"}, "message": {"type": "string"}}
    tensor = {
        "name": {"type": "string"},
        "datatype": {"enum": list(DATATYPES)},
        "shape": {"type": "array", "items": {"type": "integer"}},
    }
    return {
        "Error": _object(error),
        "V2Error": _object({**error, "error": {"type": "string"}}),
        "Predictions": _object({"predictions": {}}),
        "Inferred": _object(
            {
                "model_name": {"type": "string"},
                "model_version": {"type": "string"},
                "outputs": {"type": "array", "items": _object({**tensor, "data": {"type": "array"}})},
            }
        ),
        "Model": _object(
            {
                "name": {"type": "string"},
                "versions": {"type": "array", "items": {"type": "string"}},
                "platform": {"type": "string"},
                "inputs": {"type": "array", "items": _object(tensor)},
                "outputs": {"type": "array", "items": _object(tensor)},
            }
        ),
        "Server": _object({"name": {"type": "string"}, "version": {"type": "string"}, "extensions": {"type": "array"}}),
        "Ready": _object({"ready": {"type": "boolean"}}),
        "Live": _object({"live": {"type": "boolean"}}),
    }


def _object(properties: dict[str, Any], *, required: list[str] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(properties) if required is None else required,
        "properties": properties,
    }


def _requests(model: Model) -> dict[str, Any]:
    tensor = {
        "name": {"type": "string"},
        "shape": {**_NUMBERS, "minItems": 1},
        "datatype": {"enum": list(DATATYPES)},
        "data": {"type": "array"},
    }
    inference = _object(
        {
            "id": {"type": "string"},
            "inputs": {"type": "array", "minItems": 1, "items": _object(tensor)},
            "parameters": {"type": "object"},
            "outputs": {"type": "array", "items": _object({"name": {"type": "string"}})},
        },
        required=["inputs"],
    )
    if model.columns is None:
        forms = ("dataframe_split", "dataframe_records", "instances", "inputs")
        return {"Invocation": {"oneOf": [_object({form: {}}) for form in forms]}, "Inference": inference}
    record = _object(
        {column.name: _value(column) for column in model.columns},
        required=[column.name for column in model.columns if column.required],
    )
    records = {"type": "array", "minItems": 1, "items": _ref("Record")}
    split = _object(
        {
            "columns": {"type": "array", "items": {"type": "string"}, "examples": [[c.name for c in model.columns]]},
            "data": {"type": "array", "minItems": 1, "items": {"type": "array"}},
        }
    )
    by_name = _object(
        {c.name: {"type": "array", "minItems": 1, "items": _value(c)} for c in model.columns},
        required=[column.name for column in model.columns if column.required],
    )
    forms_of = {"dataframe_records": records, "dataframe_split": split, "instances": records, "inputs": by_name}
    params = {"params": {"type": ["object", "null"]}}
    return {
        "Record": record,
        "Invocation": {
            "oneOf": [_object({form: schema, **params}, required=[form]) for form, schema in forms_of.items()]
        },
        "Inference": inference,
    }


def _value(column: Column) -> dict[str, Any]:
    if column.kind in BOUNDS:
        low, high = BOUNDS[column.kind]
        return {"type": "integer", "minimum": low, "maximum": high}
    if column.kind in ("double", "float"):
        return {"type": ["number", "null"]}
    if column.kind == "boolean":
        return {"type": "boolean"}
    if column.kind == "datetime":
        return {"type": "string", "format": "date-time"}
    if column.kind == "binary":
        return {"type": "string", "contentEncoding": "base64"}
    return {"type": "string"}
