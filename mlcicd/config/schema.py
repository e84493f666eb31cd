"""The JSON Schema of mlcicd.yaml, for editors and for checking it without mlcicd."""

from __future__ import annotations

from typing import Any

from mlcicd.config.model import Config


def json_schema() -> dict[str, Any]:
    """The schema, made from the configuration's own models."""
    schema = Config.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "mlcicd.yaml"
    return schema
