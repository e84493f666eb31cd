"""The desired state of a local target: one JSON document, written whole before anything moves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from mlcicd.core.errors import InputError
from mlcicd.core.files import write_atomic


class Part(NamedTuple):
    """A process that a target needs: what it is in words, and the version it serves; none of the router's."""

    words: str
    version: str | None


class DeployedVersion(BaseModel):
    """A version the target holds a copy of. `generation` tells one deployment of it from the next, `launch` how often
    its servers were started anew since."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: str
    digest: str
    python: str
    generation: int
    launch: int = 0


class Desired(BaseModel):
    """What should run. Versions are the keys of `versions`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    environment: str
    port: int = 0
    generation: int = 0
    versions: dict[str, DeployedVersion] = {}
    live: str | None = None
    canary: str | None = None
    previous: str | None = None
    share: float = 0.0
    # The part of the requests that is copied to the canary; None: never since it was deployed.
    mirror: float | None = None
    rolled_back: bool = False

    def having(self, **changes: object) -> Self:
        """A copy with changes, without the versions that no longer have a part to play. A mirror ends with its
        canary."""
        changed = self.model_copy(update=changes)
        if changed.canary != self.canary:
            changed = changed.model_copy(update={"mirror": None})
        kept = {changed.live, changed.canary, changed.previous}
        return changed.model_copy(update={"versions": {k: v for k, v in changed.versions.items() if k in kept}})


@dataclass(frozen=True)
class StateFolder:
    """Where a local target keeps everything: the desired state, model copies, process records, router
    files, logs."""

    root: Path

    @property
    def desired(self) -> Path:
        return self.root / "desired.json"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def router(self) -> Path:
        return self.root / "router"

    def read(self, environment: str, port: int) -> Desired:
        """The desired state; that of an empty target when none was ever written.

        Args:
            port: where the router is to listen, unless something is deployed: that stays where its callers know it.

        Raises:
            InputError: the file is there and is not one of ours.
        """
        try:
            desired = Desired.model_validate_json(self.desired.read_bytes())
        except FileNotFoundError:
            return Desired(environment=environment, port=port)
        except (ValidationError, OSError) as error:
            raise InputError(
                "the target's state can not be read",
                where=str(self.desired),
                why=str(error).splitlines()[0],
                remedy="restore it, or remove it and deploy again: running servers are then stopped",
            ) from error
        return desired if desired.versions else desired.model_copy(update={"port": port or desired.port})

    def write(self, desired: Desired) -> None:
        write_atomic(self.desired, desired.model_dump_json(indent=2) + "\n", mode=0o600)
