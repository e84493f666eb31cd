"""The target `mlflow`: versions run wherever an `mlflow.deployments` plug-in puts them (SageMaker and others).

The live version is the deployment `name`. A version under test is one of its own, `name--vVERSION`, which goes when the
version is promoted or taken away. A deployment of such a name that this state did not make is left as it is. Plug-ins
share no traffic between two: there is no canary, and no version is warm; going back is an update of the live deployment
with the verified copy of the previous one.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from mlcicd.core.digests import digest_tree
from mlcicd.core.errors import ConfigError, InputError, ServiceError
from mlcicd.core.files import locked, write_atomic
from mlcicd.targets.base import Counters, ModelVersion, ProcessStatus, TargetStatus, checked_share, way_back
from mlcicd.targets.kubernetes.names import dns_label
from mlcicd.targets.mlflow_bridge import Bridge

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,47}")


class _Desired(BaseModel):
    """What should run. `digests`: of each version that has a part to play; `made`: by deployment, the digest that the
    plug-in was last given, written after it has said that it is done."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    live: str | None = None
    canary: str | None = None
    previous: str | None = None
    rolled_back: bool = False
    digests: dict[str, str] = {}
    made: dict[str, str] = {}

    def having(self, **changes: object) -> _Desired:
        changed = self.model_copy(update=changes)
        kept = {changed.live, changed.canary, changed.previous}
        return changed.model_copy(update={"digests": {k: v for k, v in changed.digests.items() if k in kept}})


class MlflowTarget:
    """One environment, kept by a plug-in.

    Args:
        environment: its name.
        state: folder for the desired state and the verified copies of the models.
        model: its name.
        uri: target URI of the plug-in, such as `sagemaker:/eu-west-1`.
        name: the live deployment's name; made of the model's and the environment's when empty.
        flavor, config: handed to the plug-in.
        adopt: take over deployments of our names that are there and that this state did not make, as after its loss.
        port, ready_timeout_s: of other targets; a plug-in listens and waits as it does.

    Raises:
        ConfigError: the name can not be one, or there is no such plug-in.
    """

    def __init__(
        self,
        environment: str,
        state: Path,
        *,
        model: str,
        uri: str,
        name: str = "",
        flavor: str | None = None,
        config: Mapping[str, Any] | None = None,
        adopt: bool = False,
        port: int = 0,
        ready_timeout_s: float = 0.0,
    ) -> None:
        self.environment, self._state, self._uri = environment, state, uri
        self._name = name or dns_label(model, environment)
        self._flavor, self._config, self._adopt = flavor, dict(config or {}), adopt
        self._bridges: dict[str, Bridge] = {}
        if not _NAME.fullmatch(self._name):
            raise ConfigError(f"{self._name!r} can not be a deployment's name", remedy="use letters, digits and dashes")

    @classmethod
    def configured(
        cls, environment: str, state: Path, *, root: Path, environ: Mapping[str, str], **options: Any
    ) -> MlflowTarget:
        """The target of an environment in `mlcicd.yaml`.

        Args:
            root, environ: of other targets; a plug-in reads its process' own environment.

        Raises:
            ConfigError: as the constructor.
        """
        del root, environ
        return cls(environment, state, **options)

    def deploy(self, version: ModelVersion) -> str:
        """Makes a deployment of the version, beside the live one.

        Returns:
            A loopback URL of this process that asks this very deployment.

        Raises:
            InputError: the bytes are not those of the digest.
            ServiceError: the plug-in refused; or a deployment of that name is there that was not made here.
        """
        if not _NAME.fullmatch(version.version):
            raise ConfigError(f"not a version: {version.version!r}")
        with self._locked() as before:
            digest = self._take(version)
            if before.digests.get(version.version, digest) != digest:
                raise InputError(f"version {version.version} is deployed with other bytes", where=self.environment)
            if version.version == before.live:
                after = before
            else:
                digests = {**before.digests, version.version: digest}
                after = before.having(canary=version.version, digests=digests)
            try:
                self._apply(after)
            except ServiceError:
                # Not wanted any more: otherwise every later call would try, and fail, again.
                with suppress(ServiceError):
                    self._apply(before.having(made=self._read().made))
                raise
            return self._bridge(self._own_name(version.version, after))

    def set_share(self, version: str, share: float) -> None:
        """Refuses any share but 0.

        Raises:
            ConfigError: a plug-in shares no traffic.
        """
        if checked_share(share) > 0:
            raise ConfigError(
                "an mlflow.deployments plug-in shares no traffic between two versions",
                remedy=f"set deploy.environments.{self.environment}.strategy to direct",
            )

    def promote(self, version: str) -> None:
        """Updates the live deployment to a deployed version, and removes the one it was tested as."""
        with self._locked() as desired:
            if version == desired.live:
                self._apply(desired)
                return
            if version != desired.canary:
                raise ServiceError(
                    f"version {version} is not deployed", where=self.environment, remedy="deploy it first"
                )
            self._apply(desired.having(live=version, previous=desired.live, canary=None, rolled_back=False))

    def rollback(self) -> str:
        """Updates the live deployment to the previous version; repeated, it changes nothing.

        Raises:
            ServiceError: there is no previous version, or the plug-in refused.
        """
        with self._locked() as desired:
            goal = way_back(
                desired.live, desired.previous, rolled_back=desired.rolled_back, environment=self.environment
            )
            if goal == desired.live:
                self._apply(desired)
            else:
                self._apply(desired.having(live=goal, previous=None, canary=None, rolled_back=True))
            return goal

    def abort(self) -> None:
        """Removes the deployment of a version under test; nothing without one."""
        with self._locked() as desired:
            self._apply(desired.having(canary=None))

    def reconcile(self) -> None:
        """Makes what is missing and removes what should not be."""
        with self._locked() as desired:
            self._apply(desired)

    def status(self) -> TargetStatus:
        """The desired state, and what of it the plug-in lists."""
        desired = self._read()
        wanted = self._wanted(desired)
        there = self._there(wanted) if wanted else set()
        seen = [
            ProcessStatus("server", version, None, None, alive=name in there, ready=name in there)
            for name, version in wanted.items()
        ]
        url = f"{self._uri}#{self._name}"
        return TargetStatus(
            self.environment, url, desired.live, desired.canary, desired.previous, share=0.0, processes=tuple(seen)
        )

    def counters(self) -> Mapping[str, Counters]:
        """Empty: a plug-in counts nothing that could be asked."""
        return {}

    def stop(self) -> None:
        """Removes all deployments of this environment and forgets the versions."""
        with self._locked() as desired:
            self._apply(_Desired(made=desired.made))
        for bridge in self._bridges.values():
            bridge.close()
        self._bridges.clear()

    # --- inside

    def _apply(self, desired: _Desired) -> None:
        """Writes what should be, then does it; each step is noted when the plug-in has said that it is done.

        Raises:
            ServiceError: the plug-in refused; or, before anything is written, a deployment is somebody else's.
        """
        wanted = self._wanted(desired)
        try:
            there = self._there({*wanted, *desired.made})
        except ServiceError:
            # The next call that reaches the service does it.
            self._write(desired)
            raise
        self._refuse_others((set(wanted) & there) - set(desired.made))
        self._write(desired)
        for name, version in wanted.items():
            digest = desired.digests[version]
            if name in there and desired.made.get(name) == digest:
                continue
            act = "update" if name in there else "create"
            model = str(self._copy(digest))
            # Noted before, too: what a death leaves half made is found and removed.
            desired = desired.model_copy(update={"made": {**desired.made, name: ""}})
            self._write(desired)
            self._ask(f"{act} {name}", partial(self._given, act=act, name=name, model=model))
            desired = desired.model_copy(update={"made": {**desired.made, name: digest}})
            self._write(desired)
        for name in sorted(set(desired.made) - set(wanted)):
            if name in there:
                self._ask(f"delete {name}", partial(_delete, name=name))
            if name in self._bridges:
                self._bridges.pop(name).close()
            desired = desired.model_copy(update={"made": {k: v for k, v in desired.made.items() if k != name}})
            self._write(desired)
        self._sweep(desired)

    def _refuse_others(self, names: set[str]) -> None:
        if names and not self._adopt:
            raise ServiceError(
                f"a deployment {min(names)} is there that mlcicd did not make here",
                where=self._uri,
                why="It would be overwritten, and removed later.",
                remedy=f"choose another deploy.environments.{self.environment}.options.name; or, if it is this "
                "environment's and the state folder was lost, set options.adopt: true",
            )

    def _given(self, client: Any, *, act: str, name: str, model: str) -> None:
        if act == "create":
            client.create_deployment(name, model, self._flavor, config=dict(self._config))
        else:
            client.update_deployment(name, model_uri=model, flavor=self._flavor, config=dict(self._config))

    def _wanted(self, desired: _Desired) -> dict[str, str]:
        """By deployment, the version it should have."""
        versions = (desired.live, desired.canary)
        return {self._own_name(version, desired): version for version in versions if version is not None}

    def _own_name(self, version: str, desired: _Desired) -> str:
        # Two hyphens and a letter: no other environment's or model's own name ends so.
        return self._name if version == desired.live else f"{self._name}--v{version}"

    def _there(self, names: Iterable[str]) -> set[str]:
        """Which of these deployments the service has. A list may be one page of many, so what it does not hold is asked
        for by name."""
        found: Any = self._ask("list the deployments", lambda client: client.list_deployments())
        listed = {_name_of(item) for item in found}
        return {name for name in names if name in listed or self._ask(f"look for {name}", partial(_has, name=name))}

    def _ask(self, what: str, call: Callable[[Any], Any]) -> Any:
        from mlflow.deployments import get_deploy_client
        from mlflow.exceptions import MlflowException

        try:
            client = get_deploy_client(self._uri)
        except (MlflowException, RuntimeError) as error:
            raise ConfigError(
                f"there is no mlflow.deployments plug-in for {self._uri!r}",
                why=str(error),
                remedy="install the package that brings it beside mlcicd, or correct `options.uri`",
            ) from error
        try:
            return call(client)
        except Exception as error:
            # A plug-in is anybody's code, and raises what it likes.
            raise ServiceError(
                f"the plug-in could not {what}", where=self._uri, why=f"{type(error).__name__}: {error}"[:500]
            ) from error

    def _bridge(self, name: str) -> str:
        if name not in self._bridges:
            client = self._ask("be asked", lambda found: found)
            self._bridges[name] = Bridge(client, name)
        return self._bridges[name].url

    def _take(self, version: ModelVersion) -> str:
        """Copies a model to where it stays for a rollback; gives its digest.

        Raises:
            InputError: it is not what the digest says.
        """
        models = self._state / "models"
        models.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=models, prefix=".take-") as temporary:
            copy = Path(temporary, "model")
            shutil.copytree(version.path, copy, symlinks=True)
            digest = digest_tree(copy)
            if version.digest and digest != version.digest:
                raise InputError(
                    "the model is not the one that was registered",
                    where=str(version.path),
                    why=f"Its digest is {digest}; registered was {version.digest}.",
                )
            kept = self._copy(digest)
            if not kept.exists() or digest_tree(kept) != digest:
                shutil.rmtree(kept, ignore_errors=True)
                copy.rename(kept)
        return digest

    def _copy(self, digest: str) -> Path:
        return self._state / "models" / digest.replace(":", "-")

    def _sweep(self, desired: _Desired) -> None:
        """Removes the copies that no version needs."""
        kept = {self._copy(digest) for digest in desired.digests.values()}
        for folder in (self._state / "models").glob("sha256-*"):
            if folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _locked(self) -> Iterator[_Desired]:
        with locked(self._state / "lock"):
            yield self._read()

    def _read(self) -> _Desired:
        path = self._state / "mlflow.json"
        try:
            return _Desired.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return _Desired()
        except (ValidationError, OSError) as error:
            raise InputError(
                "the target's state can not be read",
                where=str(path),
                why=str(error).splitlines()[0],
                remedy="restore it; or remove it, and the deployments by hand, and deploy again",
            ) from error

    def _write(self, desired: _Desired) -> None:
        write_atomic(self._state / "mlflow.json", desired.model_dump_json(indent=2) + "\n", mode=0o600)


def _name_of(item: Any) -> str:
    """The name of a deployment in a plug-in's list: MLflow asks for `name`, its own for SageMaker has AWS's word."""
    if isinstance(item, Mapping):
        return str(item.get("name") or item.get("EndpointName") or "")
    return str(item)


def _has(client: Any, *, name: str) -> bool:
    try:
        return bool(client.get_deployment(name))
    except Exception:
        # How a plug-in says that there is none is its own affair; that the service answers, the list has just shown.
        return False


def _delete(client: Any, *, name: str) -> None:
    client.delete_deployment(name)
