"""What the cluster reports: whether a version is ready, why it will never be, and whether a route holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlcicd.core.errors import CommandFailed, MlcicdError, ServiceError
from mlcicd.targets.kubernetes.api import Api

Object = dict[str, Any]
_LOG_LINES = 25
# Restarts after which a container that ends by itself is not waited for any more.
_RESTARTS = 2
_EXIT_LOAD_FAILED = 3  # of mlcicd.serving.server
_NEVER_STARTS = frozenset(
    {
        "InvalidImageName",
        "ErrImageNeverPull",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    }
)
# The kubelet tries these again, and a registry may be away for a moment.
_PULL_FAILS = frozenset({"ErrImagePull", "ImagePullBackOff"})


@dataclass(frozen=True)
class Report:
    """Of one version's workload: whether it exists, whether any of its pods serves, whether all that is wanted is
    there, and what the cluster says of it."""

    exists: bool
    serves: bool
    ready: bool
    said: str = ""


def workload_report(found: Object | None) -> Report:
    """Of a Deployment or an InferenceService."""
    if found is None:
        return Report(False, False, False, "it is not there")
    metadata, status = found["metadata"], found.get("status") or {}
    observed, generation = status.get("observedGeneration"), int(metadata.get("generation") or 0)
    conditions = {c.get("type"): c for c in status.get("conditions") or []}
    if found["kind"] != "Deployment":
        ready = conditions.get("Ready", {})
        good = ready.get("status") == "True"
        # Not every release of KServe says what it has observed.
        return Report(True, good, good and int(observed or generation) >= generation, _said(ready))
    seen = int(observed or 0) >= generation
    replicas = found.get("spec", {}).get("replicas")
    wanted = 1 if replicas is None else int(replicas)
    available, updated = int(status.get("availableReplicas") or 0), int(status.get("updatedReplicas") or 0)
    total = int(status.get("replicas") or 0)
    ready_now = seen and updated >= wanted and available >= wanted and total <= updated and wanted > 0
    said = "; ".join(filter(None, (_said(c) for c in conditions.values() if c.get("status") != "True")))
    return Report(True, available > 0, ready_now, said or f"{available} of {wanted} pods are available")


def _said(condition: Object) -> str:
    return ": ".join(str(condition[key]) for key in ("reason", "message") if condition.get(key))[:300]


def hopeless(api: Api, namespace: str, labels: dict[str, str], version: str) -> MlcicdError | None:
    """Why a version's pods will not get ready however long one waits, from what they report; None while they may."""
    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    path = f"/api/v1/namespaces/{namespace}/pods"
    found = api.get(path, {"labelSelector": selector}) or {}
    for pod in found.get("items", []):
        for status in _containers(pod):
            error = _container_error(api, path, pod, status, version)
            if error is not None:
                return error
    return None


def _containers(pod: Object) -> Iterator[Object]:
    status = pod.get("status") or {}
    yield from status.get("initContainerStatuses") or []
    yield from status.get("containerStatuses") or []


def _container_error(api: Api, pods: str, pod: Object, status: Object, version: str) -> MlcicdError | None:
    name, state = pod["metadata"]["name"], status.get("state") or {}
    waiting = state.get("waiting") or {}
    where = f"pod {name}, container {status['name']}"
    if waiting.get("reason") in _NEVER_STARTS:
        return ServiceError(
            f"the container of version {version} can not start: {waiting['reason']}",
            where=where,
            why=str(waiting.get("message", ""))[:600],
            remedy="correct the image or the template",
        )
    ended = state.get("terminated") or (status.get("lastState") or {}).get("terminated") or {}
    restarts = int(status.get("restartCount") or 0)
    code = ended.get("exitCode")
    if not ended or code in (None, 0) or (restarts < _RESTARTS and code != _EXIT_LOAD_FAILED):
        return None
    params = {"container": status["name"], "tailLines": str(_LOG_LINES), "limitBytes": "20000"}
    if not state.get("terminated"):
        params["previous"] = "true"
    log = api.text(f"{pods}/{name}/log", params).splitlines()
    out_of_memory = ended.get("reason") == "OOMKilled"
    return CommandFailed(
        f"the server of version {version} ended before it was ready"
        + (": it needs more memory than it may have" if out_of_memory else ""),
        where=where,
        why=f"exit code {code}, {restarts} restarts. {ended.get('reason', '')}",
        remedy="raise `memory` in the target's options" if out_of_memory else "run the image by hand to see the error",
        log=log[-_LOG_LINES:],
    )


def pull_problem(api: Api, namespace: str, labels: dict[str, str]) -> str:
    """What the pods say that can not get their image; empty when all have it."""
    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    found = api.get(f"/api/v1/namespaces/{namespace}/pods", {"labelSelector": selector}) or {}
    for pod in found.get("items", []):
        for status in _containers(pod):
            waiting = (status.get("state") or {}).get("waiting") or {}
            if waiting.get("reason") in _PULL_FAILS:
                return f"{waiting['reason']}: {waiting.get('message', '')}"[:600]
    return ""


def route_report(route: Object) -> tuple[bool, str]:
    """Whether a Gateway has accepted the route as it is now; and what it says of a route that it refuses.

    Returns:
        Accepted, and an objection. Neither: no Gateway has looked yet.
    """
    generation = int(route["metadata"].get("generation") or 0)
    objections = []
    accepted = False
    for parent in (route.get("status") or {}).get("parents") or []:
        now = {
            c["type"]: c
            for c in parent.get("conditions") or []
            # Some controllers leave the generation out: then what they say is about what they see.
            if int(c.get("observedGeneration") or generation) >= generation
        }
        accept, resolved = now.get("Accepted"), now.get("ResolvedRefs")
        for condition in (accept, resolved):
            if condition is not None and condition.get("status") == "False":
                objections.append(_said(condition))
        accepted = accepted or bool(
            accept and accept["status"] == "True" and (resolved is None or resolved["status"] == "True")
        )
    return accepted and not objections, "; ".join(objections)
