"""The desired state of a model in a cluster: a ConfigMap, written before anything moves, and only over what was read.

Jobs of several machines may meet. Each change raises `revision`; the route carries it, and a job that finds a higher
one there, or in the ConfigMap, has been overtaken and goes by the newer state.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlcicd.core.errors import InputError, ServiceError
from mlcicd.targets.kubernetes.api import Api, Refused
from mlcicd.targets.state import DeployedVersion, Desired

_KEY = "desired.json"
_INVENTORY = "inventory.json"
_TRIES = 30


class ClusterVersion(DeployedVersion):
    """A version in a cluster. What it runs is kept: a later change of the options does not change it."""

    python: str = ""
    image: str = ""
    storage_uri: str = ""
    peak_memory_mb: float | None = None


class ClusterDesired(Desired):
    """What should run there. Versions are the keys of `versions`."""

    model: str
    revision: int = 0
    versions: dict[str, ClusterVersion] = Field(default_factory=dict)  # type: ignore[assignment]

    @property
    def routed(self) -> set[str]:
        """Versions that have traffic, or copies of it."""
        with_traffic = {self.live} if self.share < 1 else set()
        return {
            version for version in (*with_traffic, self.canary if self.share > 0 or self.mirror else None) if version
        }


class Inventory(BaseModel):
    """What was ever applied, so that what templates no longer give is found, and what of it is to be removed.

    Args:
        kinds: `apiVersion/kind` of all objects that were applied.
        surplus: `apiVersion/kind/name` of those that the present templates do not give any more. It is written down
            before the others are applied, and removed after the traffic has left them.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    kinds: tuple[str, ...] = ()
    surplus: tuple[str, ...] = ()


class ClusterStore:
    """Reads and writes the desired state.

    Args:
        api: the cluster.
        namespace: of the ConfigMap.
        name: of the ConfigMap.
        metadata: its labels and annotations; the annotation `owner_key` says whose it is.
        empty: the state before anything was written.
    """

    def __init__(
        self, api: Api, namespace: str, name: str, metadata: dict[str, dict[str, str]], empty: ClusterDesired
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._metadata = metadata
        self._empty = empty

    def read(self) -> ClusterDesired:
        """The desired state as it is now."""
        return self._read()[0]

    def change(self, transition: Callable[[ClusterDesired], ClusterDesired]) -> tuple[ClusterDesired, ClusterDesired]:
        """Writes what the transition makes of the state, whoever else writes at the same time.

        Args:
            transition: called again for each state that is met. Of a state that it has made itself it must make the
                same one: then nothing is written, as after an answer that was lost.

        Returns:
            The state before and after. Its revision is one higher if anything changed.
        """
        for attempt in range(_TRIES):
            before, found = self._read()
            after = transition(before)
            if after.model_copy(update={"revision": before.revision}) == before:
                return before, before
            after = after.model_copy(update={"revision": before.revision + 1})
            try:
                self._write(after.model_dump_json(indent=1), found, {})
            except Refused as refused:
                if refused.status != 409:
                    raise
                # Somebody wrote in between, or our own write arrived and its answer did not.
                time.sleep(random.uniform(0, min(0.05 * 2**attempt, 1.0)))  # noqa: S311
                continue
            return before, after
        raise ServiceError(
            "others keep writing the desired state",
            where=f"ConfigMap {self._namespace}/{self._name}",
            remedy="let one job at a time deploy to an environment (`concurrency` on GitHub)",
        )

    def inventory(self) -> Inventory:
        """What was applied. It is beside the desired state, and changes without a new revision of that."""
        return self._read_inventory(self._api.get(self._path(self._name)))

    def stock(self, transition: Callable[[Inventory], Inventory]) -> Inventory:
        """Writes what the transition makes of the inventory, whoever else writes at the same time; nothing where there
        is no state.

        Returns:
            The inventory after it.
        """
        for attempt in range(_TRIES):
            found = self._api.get(self._path(self._name))
            before = self._read_inventory(found)
            after = transition(before)
            if found is None or after == before:
                return before
            try:
                self._write(found["data"][_KEY], found, {_INVENTORY: after.model_dump_json()})
            except Refused as refused:
                if refused.status != 409:
                    raise
                time.sleep(random.uniform(0, min(0.05 * 2**attempt, 1.0)))  # noqa: S311
                continue
            return after
        raise ServiceError(
            "others keep writing the inventory",
            where=f"ConfigMap {self._namespace}/{self._name}",
            remedy="let one job at a time deploy to an environment (`concurrency` on GitHub)",
        )

    def _read_inventory(self, found: dict[str, Any] | None) -> Inventory:
        text = (found or {}).get("data", {}).get(_INVENTORY)
        try:
            return Inventory() if text is None else Inventory.model_validate_json(text)
        except ValidationError as error:
            raise InputError(
                "the inventory of objects can not be read",
                where=f"ConfigMap {self._namespace}/{self._name}",
                why=str(error).splitlines()[0],
                remedy=f"remove the key {_INVENTORY}; objects of kinds that no template gives any more are then yours",
            ) from error

    def delete(self, revision: int) -> None:
        """Forgets the state, if it is still the one of that revision."""
        desired, found = self._read()
        if found is not None and desired.revision == revision:
            try:
                self._api.delete(self._path(self._name), found)
            except Refused as refused:
                if refused.status != 409:
                    raise

    def _read(self) -> tuple[ClusterDesired, dict[str, Any] | None]:
        found = self._api.get(self._path(self._name))
        if found is None:
            return self._empty, None
        where = f"ConfigMap {self._namespace}/{self._name}"
        try:
            desired = ClusterDesired.model_validate_json(found["data"][_KEY])
        except (ValidationError, KeyError, TypeError) as error:
            raise InputError(
                "the desired state can not be read",
                where=where,
                why=str(error).splitlines()[0],
                remedy="restore it, or delete the ConfigMap and deploy again",
            ) from error
        if (desired.model, desired.environment) != (self._empty.model, self._empty.environment):
            raise InputError(f"this is the state of {desired.model!r} in {desired.environment!r}", where=where)
        return desired, found

    def _write(self, desired: str, found: dict[str, Any] | None, more: dict[str, str]) -> None:
        metadata: dict[str, Any] = {"name": self._name, "namespace": self._namespace, **self._metadata}
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "data": {**(found or {}).get("data", {}), _KEY: desired, **more},
        }
        if found is None:
            self._api.create(self._path(""), body)
        else:
            metadata["resourceVersion"] = found["metadata"]["resourceVersion"]
            self._api.replace(self._path(self._name), body)

    def _path(self, name: str) -> str:
        return f"/api/v1/namespaces/{self._namespace}/configmaps" + (f"/{name}" if name else "")
