"""One model's objects in a cluster: applied, waited for, routed to, removed. What should be there the state says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

from mlcicd.core.errors import MlcicdError, ServiceError
from mlcicd.targets.kubernetes.api import Api, Refused
from mlcicd.targets.kubernetes.diff import object_diff, removal_diff
from mlcicd.targets.kubernetes.manifests import OWNER, REVISION, VERSION_LABEL, Manifests, Names, kinds_of
from mlcicd.targets.kubernetes.readiness import Report, hopeless, pull_problem, route_report, workload_report
from mlcicd.targets.kubernetes.settings import Settings
from mlcicd.targets.kubernetes.state import ClusterDesired, ClusterVersion, Inventory

Object = dict[str, Any]
_ROUTE = ("gateway.networking.k8s.io/v1", "HTTPRoute")
_TRIES = 5


class Overtaken(Exception):
    """Somebody else has written a newer state, or an object in between: read again, and go by that."""


class Cluster:
    """The objects of one model in one environment.

    Args:
        api: the cluster.
        names: what the objects are called.
        settings: the target's options.
        manifests: makes them.
        ready_timeout_s: how long a version may take to become ready.
        poll_s: seconds between two looks.
        sleep: how to wait.
    """

    def __init__(
        self,
        api: Api,
        names: Names,
        settings: Settings,
        manifests: Manifests,
        *,
        ready_timeout_s: float,
        poll_s: float,
        sleep: Callable[[float], None],
    ) -> None:
        self._api = api
        self._names = names
        self._settings = settings
        self._manifests = manifests
        self._ready_timeout_s = ready_timeout_s
        self._poll_s = poll_s
        self._sleep = sleep

    # --- versions

    def apply_model(self) -> None:
        """What all versions share: the service account, the network policy."""
        for one in self._manifests.model():
            self._apply(one)

    def apply_version(self, version: ClusterVersion) -> None:
        for one in self._manifests.version(version):
            self._apply(one)

    def plan(self, versions: Iterable[ClusterVersion], inventory: Inventory) -> list[str]:
        """What applying would change, line by line, asked of the API server, which changes nothing."""
        lines, versions = [], list(versions)
        for one in self._rendered(versions):
            before = self._owned(one)
            lines += object_diff(before, self._api.apply(self._path(one), one, dry_run=True, force=True))
        for one in self._no_longer_given(versions, inventory):
            lines += removal_diff(one)
        return lines

    def taken_stock(self, versions: Iterable[ClusterVersion], inventory: Inventory) -> Inventory:
        """The inventory as it has to be written before versions are applied."""
        versions = list(versions)
        given = self._rendered(versions)
        found = {_reference(one) for one in self._no_longer_given(versions, inventory)}
        wanted = {_identity(_reference(one)) for one in given}
        return Inventory(
            kinds=tuple(sorted({*inventory.kinds, *("/".join(kind) for kind in kinds_of(given))})),
            surplus=tuple(sorted(one for one in {*inventory.surplus, *found} if _identity(one) not in wanted)),
        )

    def remove(self, reference: str, still_surplus: Callable[[], bool]) -> None:
        """Deletes an object of the inventory, if it is there and ours.

        Args:
            still_surplus: asked after the object was seen: whoever applies it again has said so before.
        """
        api_version, kind, name = reference.rsplit("/", 2)
        for _ in range(_TRIES):
            if not self._api.serves(api_version, kind):
                return
            found = self._get(api_version, kind, name)
            if found is None or not self._is_ours(found) or not still_surplus():
                return
            if self._deleted([((api_version, kind), found)]):
                return
        raise ServiceError(f"{kind} {name} could not be deleted", where=self._settings.namespace)

    def _rendered(self, versions: Iterable[ClusterVersion]) -> list[Object]:
        given = [one for version in versions for one in self._manifests.version(version)]
        return [*self._manifests.model(), *given]

    def _no_longer_given(self, versions: Iterable[ClusterVersion], inventory: Inventory) -> list[Object]:
        """Objects of these versions, and of the model, that templates of now do not give."""
        versions = list(versions)
        given = self._rendered(versions)
        names = {self._names.versioned(version.version) for version in versions}
        own = (f"v1/ConfigMap/{self._names.name}", "/".join((*_ROUTE, self._names.name)))
        kept = {_identity(reference) for reference in (*map(_reference, given), *own)}
        # Items of a list do not say what they are.
        found = [
            {**one, "apiVersion": kind[0], "kind": kind[1]} for kind, one in self._found(kinds_of(given), inventory)
        ]
        return [
            one
            for one in found
            if _labels(one).get(VERSION_LABEL) in {None, *names} and _identity(_reference(one)) not in kept
        ]

    def _found(self, given: Iterable[tuple[str, str]], inventory: Inventory) -> list[tuple[tuple[str, str], Object]]:
        """Our objects of the templates' kinds, and of those of the past that the cluster still knows."""
        given = set(given)
        found = [(kind, one) for kind in sorted(given) for one in self._list(*kind)]
        groups = {(api_version.rpartition("/")[0], kind) for api_version, kind in given}
        for entry in inventory.kinds:
            api_version, _, kind = entry.rpartition("/")
            group = (api_version.rpartition("/")[0], kind)
            if group in groups or not self._api.serves(api_version, kind):
                continue
            groups.add(group)
            try:
                found += [((api_version, kind), one) for one in self._list(api_version, kind)]
            except Refused as refused:
                # A Role need not allow for ever what nothing needs any more. What is known to be left of such a kind
                # is named in the surplus, and its removal is refused aloud.
                if refused.status != 403:
                    raise
        return found

    def report(self, version: str) -> Report:
        """What the cluster says of a version's workload."""
        return workload_report(self._get(*self._manifests.workload, self._names.versioned(version)))

    def wait(self, versions: Iterable[str], *, serving: bool = False) -> dict[str, MlcicdError]:
        """Waits until versions are ready.

        Args:
            versions: which.
            serving: one pod that answers is enough.

        Returns:
            Why, of those that are not, and will not be or took too long.
        """
        waiting, failures = list(versions), dict[str, MlcicdError]()
        ends = time.monotonic() + self._ready_timeout_s
        while waiting:
            for version in list(waiting):
                report = self.report(version)
                labels = self._names.version_labels(version)
                if report.ready or (serving and report.serves):
                    waiting.remove(version)
                    continue
                error = hopeless(self._api, self._settings.namespace, labels, version)
                if error is None and time.monotonic() > ends:
                    error = ServiceError(
                        f"version {version} was not ready after {self._ready_timeout_s:g} s",
                        where=f"{self._manifests.workload[1]} {self._names.versioned(version)}",
                        why=pull_problem(self._api, self._settings.namespace, labels) or report.said,
                        remedy="look at its events (`kubectl describe`), or allow a longer time in `ready_timeout`",
                    )
                if error is not None:
                    failures[version] = error
                    waiting.remove(version)
            if waiting:
                self._sleep(self._poll_s)
        return failures

    def logs(self, version: str, lines: int) -> list[str]:
        """The ends of the logs of a version's pods; without those that can not be had."""
        path = f"/api/v1/namespaces/{self._settings.namespace}/pods"
        selector = ",".join(f"{key}={value}" for key, value in self._names.version_labels(version).items())
        pods = (self._api.get(path, {"labelSelector": selector}) or {}).get("items", [])
        limits = {"tailLines": str(lines), "limitBytes": "262144"}
        return [self._api.text(f"{path}/{pod['metadata']['name']}/log", limits) for pod in pods]

    # --- the route

    def route(self, desired: ClusterDesired) -> None:
        """Gives the versions their shares, and waits until a Gateway has accepted that.

        Raises:
            Overtaken: the route is of a newer state.
            ServiceError: the Gateway refuses it, or says nothing.
        """
        if desired.live is None:
            return
        live, canary = desired.live, desired.canary
        body = self._manifests.route(live, canary, desired.share, desired.revision, mirror=desired.mirror)
        current = self._owned(body)
        if current is not None:
            _check_revision(current, desired)
            body["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"]
        applied = self._apply(body, owned=True)
        self._check_mirror(applied, body, wanted=bool(desired.mirror))
        ends, said = time.monotonic() + self._settings.route_timeout_s, ""
        while True:
            accepted, said = route_report(applied)
            if accepted:
                return
            if time.monotonic() > ends:
                raise ServiceError(
                    "the Gateway does not accept the route",
                    where=f"HTTPRoute {self._settings.namespace}/{self._names.name}",
                    why=said or f"Nothing was said of it in {self._settings.route_timeout_s:g} s.",
                    remedy=f"look whether the Gateway {self._settings.gateway} is there, and admits routes of this "
                    "namespace",
                )
            self._sleep(self._poll_s)
            found = self._get(*_ROUTE, self._names.name)
            if found is None:
                raise Overtaken
            _check_revision(found, desired)
            applied = found

    def _check_mirror(self, applied: Object, body: Object, *, wanted: bool) -> None:
        """An API server drops fields that it does not know: without its part a mirror would copy everything."""
        # A mirror of a project's own template is none of ours to look after.
        kept, meant = _mirrors(applied), _mirrors(body)
        if wanted and (not meant or kept != meant):
            raise ServiceError(
                "requests can not be copied as they should be",
                where=f"HTTPRoute {self._settings.namespace}/{self._names.name}",
                why="The template of the route has no RequestMirror filter."
                if not meant
                else f"The cluster's Gateway API keeps of {meant[0]} only {kept[0] if kept else 'nothing'}.",
                remedy="install Gateway API 1.3 or later, or let canary.shadow.percent be 100",
            )

    def routed(self) -> bool:
        """Whether a Gateway has accepted the route as it is."""
        found = self._get(*_ROUTE, self._names.name)
        return found is not None and route_report(found)[0]

    def address(self) -> str:
        """URL of the endpoint, by its host names or the Gateway's status; empty when nobody may tell."""
        settings = self._settings
        try:
            path = self._api.path("gateway.networking.k8s.io/v1", "Gateway", settings.gateway_namespace)
            gateway = self._api.get(f"{path}/{settings.gateway_name}") or {}
        except ServiceError:
            # Only for show: the rights to read the Gateway are not needed for anything else.
            gateway = {}
        listeners = gateway.get("spec", {}).get("listeners", [])
        scheme = "https" if any(one.get("protocol") == "HTTPS" for one in listeners) else "http"
        named = [host for host in settings.hostnames if not host.startswith("*")]
        hosts = named or [str(one["value"]) for one in (gateway.get("status") or {}).get("addresses") or []]
        if not hosts:
            return ""
        host = f"[{hosts[0]}]" if ":" in hosts[0] else hosts[0]
        return f"{scheme}://{host}{settings.path.rstrip('/')}"

    # --- what is not wanted any more

    def remove_surplus(self, wanted: Callable[[], ClusterDesired], inventory: Inventory) -> None:
        """Deletes the objects of versions that are not wanted.

        Args:
            wanted: the newest state. It is asked after the objects were listed: whoever makes an object has written
                before that it is wanted.
        """
        for _ in range(_TRIES):
            listed = self._found(self._version_kinds, inventory)
            kept = {self._names.versioned(version) for version in wanted().versions}
            surplus = [
                (kind, one)
                for kind, one in listed
                if (label := one["metadata"].get("labels", {}).get(VERSION_LABEL)) and label not in kept
            ]
            if self._deleted(surplus):
                return
        raise ServiceError("objects that are not wanted any more could not be deleted", where=self._settings.namespace)

    def remove_all(self, inventory: Inventory) -> None:
        """Deletes the route and what all versions share."""
        for _ in range(_TRIES):
            route = self._get(*_ROUTE, self._names.name)
            shared = kinds_of(self._manifests.model())
            found = [(_ROUTE, route)] if route is not None and self._is_ours(route) else []
            state = ("v1", "ConfigMap", self._names.name)
            listed = [
                (kind, one)
                for kind, one in self._found(shared, inventory)
                if VERSION_LABEL not in _labels(one) and (*kind, one["metadata"]["name"]) != state
            ]
            if self._deleted([*found, *listed]):
                return
        raise ServiceError("the route could not be deleted", where=self._settings.namespace)

    def _deleted(self, objects: Iterable[tuple[tuple[str, str], Object]]) -> bool:
        """Whether all could be deleted as they were seen."""
        try:
            for kind, one in objects:
                path = self._api.path(*kind, self._settings.namespace, one["metadata"]["name"])
                self._api.delete(path, one)
        except Refused as refused:
            if refused.status != 409:
                raise
            return False
        return True

    # --- objects

    @cached_property
    def _version_kinds(self) -> list[tuple[str, str]]:
        placeholder = ClusterVersion(name=self._names.model, version="0", digest="", generation=0, image="none")
        return sorted(kinds_of(self._manifests.version(placeholder)))

    def _list(self, api_version: str, kind: str) -> list[Object]:
        path = self._api.path(api_version, kind, self._settings.namespace)
        found = self._api.get(path, {"labelSelector": self._names.selector}) or {}
        # KServe writes a service's labels and annotations on what it makes for it; that is its own to remove.
        made = [one for one in found.get("items", []) if not one["metadata"].get("ownerReferences")]
        return [one for one in made if self._is_ours(one)]

    def _is_ours(self, one: Object) -> bool:
        return bool((one["metadata"].get("annotations") or {}).get(OWNER) == self._names.owner)

    def _get(self, api_version: str, kind: str, name: str) -> Object | None:
        return self._api.get(self._api.path(api_version, kind, self._settings.namespace, name))

    def _path(self, one: Object) -> str:
        return self._api.path(one["apiVersion"], one["kind"], self._settings.namespace, one["metadata"]["name"])

    def _owned(self, one: Object) -> Object | None:
        """The object in the cluster, if it is there.

        Raises:
            ServiceError: it is somebody else's.
        """
        current = self._api.get(self._path(one))
        if current is not None and not self._is_ours(current):
            raise ServiceError(
                f"there is a {one['kind']} of that name already, and it is not ours",
                where=f"{self._settings.namespace}/{one['metadata']['name']}",
                remedy="rename or remove it; it is left as it is",
            )
        return current

    def _apply(self, one: Object, *, owned: bool = False) -> Object:
        if not owned:
            self._owned(one)
        try:
            return self._api.apply(self._path(one), one, force=self._settings.force_conflicts)
        except Refused as refused:
            if refused.status == 409 and "resourceVersion" in one["metadata"] and "conflict with" not in refused.why:
                raise Overtaken from refused
            raise


def _reference(one: Object) -> str:
    return "/".join((one["apiVersion"], one["kind"], one["metadata"]["name"]))


def _identity(reference: str) -> tuple[str, str, str]:
    """(group, kind, name): the versions of a group are views of one and the same object."""
    api_version, kind, name = reference.rsplit("/", 2)
    return api_version.rpartition("/")[0], kind, name


def _labels(one: Object) -> dict[str, str]:
    return one["metadata"].get("labels") or {}


def _mirrors(route: Object) -> list[Object]:
    filters = [one for rule in route["spec"].get("rules", []) for one in rule.get("filters") or []]
    return [one["requestMirror"] for one in filters if one.get("type") == "RequestMirror"]


def _check_revision(route: Object, desired: ClusterDesired) -> None:
    written = (route["metadata"].get("annotations") or {}).get(REVISION, "0")
    if written.isdigit() and int(written) > desired.revision:
        raise Overtaken
