"""The `kubernetes` target.

The desired state is a ConfigMap, so that any job on any machine finds it; traffic is shared by the weights of an
HTTPRoute, so that any Gateway API implementation routes it. Each version has a workload of its own, and the one before
stays warm::

    target = KubernetesTarget("production", model="scorer", options={...})
    url = target.deploy(version)          # beside the live one, without traffic
    target.set_share(version.version, 0.05)
    target.promote(version.version)
    target.rollback()
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from mlcicd.core.digests import digest_tree
from mlcicd.core.errors import ConfigError, InputError, MlcicdError, ServiceError
from mlcicd.targets.base import Counters, ModelVersion, ProcessStatus, TargetStatus, checked_share
from mlcicd.targets.failures import commonest_failure
from mlcicd.targets.kubernetes.api import Api
from mlcicd.targets.kubernetes.cluster import Cluster, Overtaken
from mlcicd.targets.kubernetes.controllers import Controller, ControllerManifests, Judgement
from mlcicd.targets.kubernetes.credentials import find_access
from mlcicd.targets.kubernetes.flagger import canary_share
from mlcicd.targets.kubernetes.forwarder import Forwarder
from mlcicd.targets.kubernetes.manifests import OWNER, Manifests, Names
from mlcicd.targets.kubernetes.names import dns_label
from mlcicd.targets.kubernetes.settings import read_settings
from mlcicd.targets.kubernetes.state import ClusterDesired, ClusterStore, ClusterVersion

# What a tag of an image may hold, and a bit less long than it may be.
_VERSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_TRIES = 10
_LOG_LINES = 2000


class Leftovers(ServiceError):
    """The traffic was moved; what is not wanted any more is still there."""


class KubernetesTarget:
    """Serves one model of one environment in a cluster.

    Args:
        environment: its name, as in the configuration.
        model: name of the registered model.
        options: see :class:`~mlcicd.targets.kubernetes.settings.Settings`.
        root: what relative paths among the options are relative to.
        environ: the environment variables; this process's own when None.
        ready_timeout_s: the longest a version may take to become ready.
        poll_s: seconds between two looks at what the cluster reports.
        sleep: how to wait, in seconds.

    Raises:
        ConfigError: an option is unknown, missing or makes no sense.
    """

    # The router's counters are Prometheus' to read, not ours.
    counts_requests = False

    def __init__(
        self,
        environment: str,
        *,
        model: str,
        options: Mapping[str, Any],
        root: Path = Path(),
        environ: Mapping[str, str] | None = None,
        ready_timeout_s: float = 120.0,
        poll_s: float = 1.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.environment = environment
        self._model = model
        self._settings = read_settings(environment, options)
        self._root = root
        self._environ = os.environ if environ is None else environ
        self._ready_timeout_s = ready_timeout_s
        self._poll_s = poll_s
        self._sleep = sleep
        self._names = Names(model, environment)
        self._forwarders: dict[str, Forwarder] = {}

    @classmethod
    def configured(
        cls,
        environment: str,
        _state_dir: Path,
        *,
        model: str,
        root: Path,
        environ: Mapping[str, str],
        port: int,
        ready_timeout_s: float,
        **options: Any,
    ) -> KubernetesTarget:
        """The target of an environment in `mlcicd.yaml`.

        Raises:
            ConfigError: as the constructor; or a port is given, which is the Gateway's to choose.
        """
        if port:
            raise ConfigError(f"deploy.environments.{environment}.port: the Gateway's listeners choose the port")
        return cls(
            environment, model=model, options=options, root=root, environ=environ, ready_timeout_s=ready_timeout_s
        )

    # --- what one asks for

    def plan(self, version: ModelVersion) -> list[str]:
        """What :meth:`deploy` would change in the cluster, as lines of a diff; it changes nothing."""
        taken, desired = self._taken(version, 0), self._store.read()
        # Those that a changed `kind` leaves without a workload are made anew, too.
        others = [one for one in desired.versions.values() if not self._cluster.report(one.version).exists]
        versions = {one.version: one for one in [*others, taken]}
        return self._cluster.plan(versions.values(), self._store.inventory())

    def deploy(self, version: ModelVersion) -> str:
        """Applies a version's objects beside the live ones, without traffic, and waits until it is ready.

        Returns:
            The URL of that very version: through the API server, or by the option `own_url`.

        Raises:
            InputError: the version is deployed with other bytes.
            CommandFailed: its server ends, as of a model that can not be loaded; with the end of its log.
            ServiceError: it is not ready in time; another canary has traffic; the cluster refuses something.
        """
        taken, seen = self._taken(version, 0), list[ClusterDesired]()

        def beside(before: ClusterDesired) -> ClusterDesired:
            seen.append(before)
            held = before.versions.get(taken.version)
            if held is not None:
                self._check_same(held, taken)
            if taken.version in (before.live, before.canary):
                return before
            if before.canary is not None and before.share > 0:
                raise ServiceError(
                    f"version {before.canary} is a canary with {before.share:.1%} of the traffic",
                    where=self.environment,
                    remedy="promote or abort it first",
                )
            own = held or taken.model_copy(update={"generation": before.generation + 1})
            versions = {**before.versions, taken.version: own}
            generation = max(before.generation, own.generation)
            return before.having(versions=versions, generation=generation, canary=taken.version, share=0.0)

        _, after = self._store.change(beside)
        try:
            self._converge(apply={taken.version})
        except MlcicdError as error:
            if taken.version not in seen[0].versions:
                # Not wanted any more: otherwise every later call would wait for it again.
                self._give_back(seen[0], after, error)
            raise
        return self._own_url(taken.version)

    def set_share(self, version: str, share: float) -> None:
        """Sends a share (0 to 1) of the traffic to the canary, the rest to the live version.

        Raises:
            ConfigError: the share is not a number from 0 to 1.
            ServiceError: the version is not deployed as a canary, nothing is live, or the Gateway refuses the route;
                the weights are then what they were.
        """
        share = checked_share(share)

        def shared(before: ClusterDesired) -> ClusterDesired:
            if before.live is None:
                raise ServiceError("nothing is live yet", where=self.environment, remedy="promote a version first")
            if before.canary != version:
                raise self._not_deployed(before, version, "as a canary")
            # Whoever has traffic of its own needs no copies.
            return before.having(share=share, mirror=None if share > 0 else before.mirror)

        self._switch(shared)

    def set_mirror(self, version: str, fraction: float) -> None:
        """Copies a fraction (0 to 1) of the requests to the canary, whose answers to them nobody sees; 0 ends it.

        Raises:
            ConfigError: the fraction is not a number from 0 to 1.
            ServiceError: the version is not deployed as a canary, nothing is live, the canary has traffic, or the
                Gateway can not do it; nothing is copied then.
        """
        fraction = checked_share(fraction)

        def mirrored(before: ClusterDesired) -> ClusterDesired:
            if fraction == 0 and (before.canary != version or not before.mirror):
                return before
            if before.live is None or before.canary != version:
                raise self._not_deployed(before, version, "as a canary beside a live version")
            if before.share > 0 and fraction > 0:
                raise ServiceError(
                    f"version {version} has {before.share:.1%} of the traffic already", where=self.environment
                )
            return before.having(mirror=fraction or None)

        self._switch(mirrored)

    def promote(self, version: str) -> None:
        """Makes a deployed version live; the one that was live stays warm.

        Raises:
            ServiceError: it is not deployed, not ready, or the Gateway refuses the route; the traffic is then where
                it was.
        """
        now = self._store.read()
        if version not in now.versions:
            raise self._not_deployed(now, version, "")
        if now.live != version:
            # Ready before the new state is written: what is written from here on can be reached.
            if not self._cluster.report(version).exists:
                self._cluster.apply_version(now.versions[version])
            for error in self._cluster.wait([version]).values():
                raise error

        def promoted(before: ClusterDesired) -> ClusterDesired:
            if version not in before.versions:
                raise self._not_deployed(before, version, "")
            if before.live == version:
                return before
            return before.having(live=version, previous=before.live, canary=None, share=0.0, rolled_back=False)

        self._switch(promoted)

    def rollback(self) -> str:
        """Makes the previous version live again and takes out any canary. Repeated, it changes nothing.

        Raises:
            ServiceError: there is no previous version.
        """

        def back(before: ClusterDesired) -> ClusterDesired:
            if before.previous is not None:
                return before.having(live=before.previous, previous=None, canary=None, share=0.0, rolled_back=True)
            if before.rolled_back and before.live is not None:
                return before
            raise ServiceError(
                "there is no previous version to go back to",
                where=self.environment,
                remedy="deploy and promote the version you want from the registry",
            )

        self._store.change(back)
        return str(self._converge().live)

    def abort(self) -> None:
        """Takes the canary out of the traffic, then removes it. Nothing happens without one."""
        self._store.change(lambda before: before.having(canary=None, share=0.0))
        self._converge()

    def reconcile(self) -> None:
        """Applies everything that is wanted, waits until it is ready, and removes what is not wanted.

        Raises:
            CommandFailed: a version's server ends.
            ServiceError: a version is not ready in time, or the cluster refuses something.
        """
        self._converge(apply=None)

    def stop(self) -> None:
        """Removes the route, then everything else, and forgets the versions."""
        self._store.change(lambda before: self._empty.model_copy(update={"generation": before.generation}))
        after = self._converge()
        self._store.delete(after.revision)
        for forwarder in self._forwarders.values():
            forwarder.close()
        self._forwarders.clear()

    # --- what one sees

    def status(self) -> TargetStatus:
        """What is wanted, and what the cluster reports of it. A pod has no process of ours: no pid, no port."""
        desired = self._store.read()
        processes = []
        for version in desired.versions:
            report = self._cluster.report(version)
            processes.append(ProcessStatus("server", version, None, None, alive=report.serves, ready=report.ready))
        if desired.live is not None:
            routed = self._cluster.routed()
            processes.append(ProcessStatus("router", "", None, None, alive=routed, ready=routed))
        return TargetStatus(
            environment=self.environment,
            url=(self._settings.url or self._cluster.address()) if desired.versions else "",
            live=desired.live,
            canary=desired.canary,
            previous=desired.previous,
            share=desired.share,
            processes=tuple(processes),
        )

    def counters(self) -> Mapping[str, Counters]:
        """Gateways have no counters in common.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "the kubernetes target counts no requests itself",
            where="canary.source",
            remedy="set `canary.source: prometheus`; docs/kubernetes.md has an example",
        )

    def mirror_counters(self) -> Mapping[str, Counters]:
        """Copies are counted by the canary's own server, and read from Prometheus with everything else.

        Raises:
            ConfigError: always.
        """
        return self.counters()

    def failure(self, version: str) -> str:
        """What the version's model raises most often, from the logs of its pods; empty when nothing is known."""
        try:
            logs = self._cluster.logs(version, _LOG_LINES)
        except MlcicdError:
            return ""
        with tempfile.TemporaryDirectory(prefix="mlcicd-") as folder:
            files = [Path(folder, f"{number}.log") for number in range(len(logs))]
            for file, text in zip(files, logs, strict=True):
                file.write_text(text, encoding="utf-8")
            return commonest_failure(files)

    def flagger_share(self, name: str) -> float:
        """The share (0 to 1) of the traffic that Flagger's `Canary` of this namespace reports.

        Raises:
            InputError: there is no such object.
            ServiceError: the API server refuses, or does not answer.
        """
        return canary_share(self._api, self._settings.namespace, name)

    def handed_over(
        self, controller: Controller, version: ModelVersion, judgement: Judgement
    ) -> dict[str, dict[str, Any]]:
        """A version's objects for a controller that moves the traffic itself, by file name; nothing is applied.

        Raises:
            ConfigError: see :meth:`~mlcicd.targets.kubernetes.controllers.ControllerManifests.handed_over`.
        """
        made = ControllerManifests(self._names, self._settings, self._ready_timeout_s, self._templates)
        return made.handed_over(controller, self._taken(version, 0), judgement)

    # --- from wanted to running

    def _converge(self, apply: Collection[str] | None = ()) -> ClusterDesired:
        """Moves the cluster to the newest state that is written down, and returns that.

        Args:
            apply: versions whose objects are applied again; None: all.
        """
        for _ in range(_TRIES):
            desired = self._store.read()
            try:
                self._move(desired, desired.versions if apply is None else apply)
            except Overtaken:
                continue
            if self._store.read().revision == desired.revision:
                self._clean_up()
                return desired
        raise ServiceError(
            "others keep changing what should run",
            where=self.environment,
            remedy="let one job at a time deploy to an environment (`concurrency` on GitHub)",
        )

    def _move(self, desired: ClusterDesired, apply: Collection[str]) -> None:
        cluster = self._cluster
        if not desired.versions:
            cluster.remove_all(self._store.inventory())
            return
        reports = {version: cluster.report(version) for version in desired.versions}
        warm = all(reports[version].serves for version in desired.routed)
        if warm:
            # Traffic before anything else: a rollback must not wait for what it does not need.
            cluster.route(desired)
        renewed = [v for v in desired.versions if v in apply or not reports[v].exists]
        if renewed:
            versions = [desired.versions[version] for version in renewed]
            self._store.stock(lambda inventory: cluster.taken_stock(versions, inventory))
            cluster.apply_model()
        for version in renewed:
            cluster.apply_version(desired.versions[version])
        failures = cluster.wait(renewed)
        failures |= cluster.wait((v for v in desired.routed if v not in renewed), serving=True)
        if not warm:
            for version in desired.routed & failures.keys():
                # The routes stay as they are: whatever serves now goes on serving.
                raise failures[version]
            cluster.route(desired)
        for error in failures.values():
            raise error

    def _clean_up(self) -> None:
        try:
            self._cluster.remove_surplus(self._store.read, self._store.inventory())
            self._prune()
        except MlcicdError as error:
            raise Leftovers(
                "the traffic is where it should be, but something that is not wanted any more could not be removed",
                where=self.environment,
                why=" ".join(filter(None, (error.one_line(), error.why))),
                remedy=error.remedy or "run the same command again once that is possible",
            ) from error

    def _prune(self) -> None:
        """Removes what templates no longer give; what serves by now was applied and routed to before."""
        for reference in self._store.inventory().surplus:

            def still_surplus(reference: str = reference) -> bool:
                return reference in self._store.inventory().surplus

            self._cluster.remove(reference, still_surplus)
            self._store.stock(
                lambda now, reference=reference: now.model_copy(  # type: ignore[misc]
                    update={"surplus": tuple(one for one in now.surplus if one != reference)}
                )
            )

    def _switch(self, transition: Callable[[ClusterDesired], ClusterDesired]) -> None:
        """Moves traffic; where the cluster does not take it, back to where it was.

        A version that has lost traffic does not get it again because something else could not be removed.
        """
        seen = list[ClusterDesired]()

        def recorded(before: ClusterDesired) -> ClusterDesired:
            seen.append(before)
            return transition(before)

        _, after = self._store.change(recorded)
        try:
            self._converge()
        except MlcicdError as error:
            way_out = isinstance(error, Leftovers) and _no_more_than_before(seen[0], after)
            if after.revision != seen[0].revision and not way_out:
                self._give_back(seen[0], after, error)
            raise

    def _give_back(self, before: ClusterDesired, after: ClusterDesired, error: MlcicdError) -> None:
        """Writes the earlier state again, unless somebody has written another since, and moves there.

        What fails here is added to the error that is being told already; the state stays written, and the next
        command goes on from it.
        """
        try:
            self._store.change(lambda now: before if now.revision == after.revision else now)
            self._converge()
        except MlcicdError as second:
            error.add_note(f"and going back failed: {second.one_line()}")

    # --- parts

    @cached_property
    def _api(self) -> Api:
        settings = self._settings
        file = self._root / Path(settings.kubeconfig).expanduser() if settings.kubeconfig else None
        return Api(find_access(file, settings.context, self._environ), sleep=self._sleep)

    @cached_property
    def _cluster(self) -> Cluster:
        manifests = Manifests(self._names, self._settings, self._ready_timeout_s, self._templates)
        return Cluster(
            self._api,
            self._names,
            self._settings,
            manifests,
            ready_timeout_s=self._ready_timeout_s,
            poll_s=self._poll_s,
            sleep=self._sleep,
        )

    @property
    def _templates(self) -> Path | None:
        return self._root / self._settings.templates if self._settings.templates else None

    @property
    def _empty(self) -> ClusterDesired:
        return ClusterDesired(environment=self.environment, model=self._model)

    @cached_property
    def _store(self) -> ClusterStore:
        metadata = {"labels": self._names.labels, "annotations": {OWNER: self._names.owner}}
        return ClusterStore(self._api, self._settings.namespace, self._names.name, metadata, self._empty)

    def _taken(self, version: ModelVersion, generation: int) -> ClusterVersion:
        if not _VERSION.fullmatch(version.version):
            raise ConfigError(f"not a version that an image may be tagged with: {version.version!r}")
        digest = version.digest or digest_tree(version.path)
        parts = {"name": dns_label(self._model), "version": version.version, "digest": digest.rpartition(":")[2]}
        return ClusterVersion(
            name=version.name,
            version=version.version,
            digest=digest,
            generation=generation,
            image=self._formatted(self._settings.image, **parts),
            storage_uri=self._formatted(self._settings.storage_uri, **parts),
            peak_memory_mb=version.peak_memory_mb,
        )

    def _formatted(self, template: str, **parts: str) -> str:
        return template.format(namespace=self._settings.namespace, service="", **parts) if template else ""

    def _check_same(self, held: ClusterVersion, taken: ClusterVersion) -> None:
        if (held.name, held.digest) != (taken.name, taken.digest):
            raise InputError(
                f"version {taken.version} is already deployed here as another model",
                where=self.environment,
                why=f"Deployed: {held.name} {held.digest}; asked for: {taken.name} {taken.digest}.",
                remedy="register other bytes as a new version",
            )

    def _own_url(self, version: str) -> str:
        service, namespace = self._names.service(version, self._settings), self._settings.namespace
        if self._settings.own_url:
            names = {"name": dns_label(self._model), "version": version, "digest": ""}
            return self._settings.own_url.format(service=service, namespace=namespace, **names)
        if version not in self._forwarders:
            path = f"/api/v1/namespaces/{namespace}/services/{service}:80"
            self._forwarders[version] = Forwarder(self._api, path)
        return self._forwarders[version].url

    def _not_deployed(self, desired: ClusterDesired, version: str, role: str) -> ServiceError:
        held = ", ".join(sorted(desired.versions)) or "none"
        return ServiceError(
            f"version {version} is not deployed here {role}".rstrip(),
            where=self.environment,
            why=f"Deployed: {held}; live: {desired.live or 'none'}; canary: {desired.canary or 'none'}.",
            remedy="deploy it first",
        )


def _no_more_than_before(before: ClusterDesired, after: ClusterDesired) -> bool:
    """Whether the canary has no more of the users' requests than it had, nor of their copies."""
    return after.live == before.live and after.share <= before.share and (after.mirror or 0) <= (before.mirror or 0)
