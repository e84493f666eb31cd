"""Registered models: their tags and aliases, and the one atomic operation that MLflow has, their creation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlcicd.core.errors import ServiceError
from mlcicd.registry.connection import AGAIN, Connection, not_there, quoted, tag_value


@dataclass(frozen=True)
class RegisteredModel:
    """A registered model as one read saw it. `aliases` maps an alias to its version."""

    name: str
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)


class RegisteredModels(Connection):
    """What is done to registered models, as opposed to their versions."""

    def model(self, name: str) -> RegisteredModel | None:
        """A registered model with its tags and aliases; None when there is none."""
        from mlflow.exceptions import MlflowException

        with self._talking(f"read {name}"):
            try:
                return _model(self._client.get_registered_model(name), name)
            except MlflowException as error:
                if not_there(error):
                    return None
                raise

    def find_models(self, prefix: str) -> list[RegisteredModel]:
        """The registered models whose names begin with a prefix; `_` in it stands for any character."""
        found: list[RegisteredModel] = []
        token = None
        with self._talking(f"list the models {prefix}*"):
            while True:
                page = self._client.search_registered_models(
                    f"name LIKE '{quoted(prefix)}%'", max_results=100, page_token=token
                )
                found += [_model(item, item.name) for item in page]
                token = page.token
                if not token:
                    return found

    def create_model(self, name: str, tags: Mapping[str, str]) -> bool:
        """Makes a registered model with its tags, in one step of which exactly one caller is told True."""
        from mlflow.exceptions import MlflowException

        with self._talking(f"make {name}"):
            try:
                self._client.create_registered_model(name, tags={k: tag_value(v) for k, v in tags.items()})
            except MlflowException as error:
                # The latter: it was there, and was gone when the server wanted to say so.
                if error.error_code in ("RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"):
                    return False
                raise
        return True

    def delete_model(self, name: str) -> None:
        """Deletes a registered model; nothing when there is none."""
        from mlflow.exceptions import MlflowException

        with self._talking(f"delete {name}"):
            try:
                self._client.delete_registered_model(name)
            except MlflowException as error:
                if not not_there(error):
                    raise

    def tag_model(self, name: str, tags: Mapping[str, str]) -> None:
        with self._talking(f"tag {name}"):
            for key, value in tags.items():
                self._client.set_registered_model_tag(name, key, tag_value(value))

    def untag_model(self, name: str, keys: Iterable[str]) -> None:
        with self._talking(f"tag {name}"):
            for key in keys:
                self._client.delete_registered_model_tag(name, key)

    def set_alias(self, name: str, alias: str, version: str) -> None:
        with self._talking(f"set {name}@{alias}"):
            self._client.set_registered_model_alias(name, alias, version)

    def delete_alias(self, name: str, alias: str) -> None:
        with self._talking(f"delete {name}@{alias}"):
            self._client.delete_registered_model_alias(name, alias)


def _model(item: Any, asked: str) -> RegisteredModel:
    if item.name != asked or not item.name:
        # A proxy's `{}` with status 200 reads as a model without a name.
        raise ServiceError(f"the registry answered with something else than the model {asked!r}", remedy=AGAIN)
    return RegisteredModel(item.name, dict(item.tags or {}), {k: str(v) for k, v in dict(item.aliases or {}).items()})
