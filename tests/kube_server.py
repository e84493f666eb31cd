"""A small API server over real HTTP that keeps state, applies server-side, and fails on demand.

It stands in for the API server and for the three controllers that matter: of Deployments, of KServe and of a Gateway.
It knows no schema: that the manifests are valid is tested against the published ones.
"""

from __future__ import annotations

import copy
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "kube-token-that-nobody-may-see"
KINDS = {
    "/api/v1": {
        "ConfigMap": "configmaps",
        "Service": "services",
        "ServiceAccount": "serviceaccounts",
        "Pod": "pods",
        "Secret": "secrets",
    },
    "/apis/apps/v1": {"Deployment": "deployments"},
    "/apis/policy/v1": {"PodDisruptionBudget": "poddisruptionbudgets"},
    "/apis/networking.k8s.io/v1": {"NetworkPolicy": "networkpolicies"},
    "/apis/gateway.networking.k8s.io/v1": {"HTTPRoute": "httproutes", "Gateway": "gateways"},
    "/apis/serving.kserve.io/v1beta1": {"InferenceService": "inferenceservices"},
    "/apis/flagger.app/v1beta1": {"Canary": "canaries"},
    "/apis/autoscaling/v2": {"HorizontalPodAutoscaler": "horizontalpodautoscalers"},
}
_OBJECT = re.compile(r"(/api/v1|/apis/[^/]+/[^/]+)/namespaces/([^/]+)/([^/]+)(?:/([^/]+))?(?:/(.+))?")


class Problem(Exception):
    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


class FakeCluster:
    """The state, and what is done to requests.

    Attributes:
        objects: by path.
        faults: called with number, method and path of each request; may answer with the name of a fault, or raise.
        log: "METHOD path" of each request that was let through.
        crash: images that end with exit code 3, and their log.
        stuck: images that never get ready.
        unpullable: images that the registry does not have.
        gateway: whether the Gateway accepts routes; or its objection.
        answer: what a version's Service says to a POST: called with the Service's name and the body.
        no_parts: whether its Gateway API is older than the parts of a mirror, and drops them.
        lost: routes that named a Service without a ready workload.
    """

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.applied: dict[str, dict[str, dict[str, Any]]] = {}
        self.faults: Callable[[int, str, str], str | None] = lambda _n, _method, _path: None
        self.log: list[str] = []
        self.authorizations: set[str] = set()
        self.crash: dict[str, str] = {}
        self.stuck: set[str] = set()
        self.unpullable: set[str] = set()
        self.gateway: bool | str = True
        self.answer: Callable[[str, bytes], tuple[int, bytes]] = lambda _s, _b: (200, b'{"predictions": [1.0]}')
        self.no_parts = False
        self.lost: list[str] = []
        self.shares: list[dict[str, int]] = []
        self.lock = threading.RLock()
        self._count = 0
        self._version = 100

    # --- for tests

    def kinds(self) -> list[str]:
        """Kind/name of all objects."""
        return sorted(f"{o['kind']}/{o['metadata']['name']}" for o in self.objects.values() if o["kind"] != "Pod")

    def weights(self) -> dict[str, int]:
        """Of the one route, by Service; empty without one."""
        for one in self.objects.values():
            if one["kind"] == "HTTPRoute":
                return {ref["name"]: ref["weight"] for ref in one["spec"]["rules"][0]["backendRefs"]}
        return {}

    def picture(self) -> Any:
        """The end state without what differs between two ways to it."""
        found = copy.deepcopy(self.objects)
        for one in found.values():
            for key in ("uid", "resourceVersion", "generation", "managedFields"):
                one["metadata"].pop(key, None)
            one.get("metadata", {}).get("annotations", {}).pop("mlcicd.io/revision", None)
            one.pop("status", None)
            if one["kind"] == "ConfigMap":
                desired = json.loads(one["data"]["desired.json"])
                inventory = json.loads(one["data"].get("inventory.json", "{}"))
                for version in [desired, *desired["versions"].values()]:
                    version.pop("revision", None)
                one["data"] = {"desired": desired, "inventory": inventory}
        return found

    def put(self, root: str, one: dict[str, Any], manager: str = "somebody") -> None:
        """An object, or its fields, as another manager would write them."""
        plural = KINDS[root][one["kind"]]
        path = f"{root}/namespaces/ml/{plural}/{one['metadata']['name']}"
        self.apply(path, one, manager, force=True, dry=False)

    # --- requests

    def take(self) -> int:
        with self.lock:
            self._count += 1
            return self._count

    def handle(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        with self.lock:
            self.log.append(f"{method} {path}")
            if path in KINDS:
                names = [{"kind": kind, "name": name} for kind, name in KINDS[path].items()]
                return 200, {"kind": "APIResourceList", "resources": names}
            match = _OBJECT.fullmatch(path)
            if not match:
                raise Problem(404, "NotFound", "the server could not find the requested resource")
            root, namespace, plural, name, rest = match.groups()
            kind = next((k for k, p in KINDS.get(root, {}).items() if p == plural), None)
            if kind is None or namespace != "ml":
                raise Problem(404, "NotFound", f"no {plural} in {namespace}")
            if rest == "log":
                image = self.objects[path.removesuffix("/log")]["spec"]["containers"][0]["image"]
                return 200, self.crash.get(image, "").encode()
            if rest and rest.startswith("proxy"):
                return self._proxied(name, body)
            if name is None:
                return self._collection(method, path, kind, query, json.loads(body or b"{}"))
            return self._object(method, path, query, json.loads(body or b"{}"))

    def _proxied(self, service: str, body: bytes) -> tuple[int, Any]:
        name = service.partition(":")[0]
        if f"/api/v1/namespaces/ml/services/{name}" not in self.objects:
            raise Problem(503, "ServiceUnavailable", f"no endpoints available for service {name}")
        status, answer = self.answer(name, body)
        return status, answer

    def _collection(self, method: str, path: str, kind: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        if method == "POST":
            own = f"{path}/{body['metadata']['name']}"
            if own in self.objects:
                raise Problem(409, "AlreadyExists", f"{own} already exists")
            return 201, self._store(own, body)
        wanted = dict(pair.split("=") for pair in query.get("labelSelector", "").split(",") if pair)
        items = [
            {k: v for k, v in one.items() if k not in ("kind", "apiVersion")}
            for at, one in self.objects.items()
            if at.rpartition("/")[0] == path and wanted.items() <= one["metadata"].get("labels", {}).items()
        ]
        return 200, {"kind": f"{kind}List", "items": items}

    def _object(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        if method == "PATCH":
            force, dry = query.get("force") == "true", query.get("dryRun") == "All"
            return 200, self.apply(path, body, query["fieldManager"], force=force, dry=dry)
        found = self.objects.get(path)
        if found is None:
            raise Problem(404, "NotFound", f"{path} not found")
        if method == "PUT":
            if body["metadata"].get("resourceVersion") != found["metadata"]["resourceVersion"]:
                raise Problem(409, "Conflict", "the object has been modified; please apply your changes to the latest")
            return 200, self._store(path, body)
        if method == "DELETE":
            for key, value in (body.get("preconditions") or {}).items():
                if found["metadata"][key] != value:
                    raise Problem(409, "Conflict", f"precondition failed: {key}")
            self._forget(path, found)
            return 200, {"kind": "Status", "status": "Success"}
        return 200, found

    def _forget(self, path: str, found: dict[str, Any]) -> None:
        del self.objects[path]
        self.applied.pop(path, None)
        if found["kind"] in ("Deployment", "InferenceService"):
            name = found["metadata"]["name"]
            service = name
            if found["kind"] == "InferenceService":
                service = f"{name}-predictor"
                self.objects.pop(f"/api/v1/namespaces/ml/services/{service}", None)
            self.objects.pop(f"/api/v1/namespaces/ml/pods/{service}-0", None)
            if service in self.weights():
                self.lost.append(f"{name} was deleted while it had traffic")

    def apply(self, path: str, body: dict[str, Any], manager: str, *, force: bool, dry: bool) -> dict[str, Any]:
        found = self.objects.get(path)
        wanted = body["metadata"].get("resourceVersion")
        if wanted is not None and (found is None or found["metadata"]["resourceVersion"] != wanted):
            raise Problem(409, "Conflict", "the object has been modified; please apply your changes to the latest")
        own = {k: v for k, v in body.items() if k != "metadata"}
        own["metadata"] = {k: v for k, v in body["metadata"].items() if k != "resourceVersion"}
        others = {m: _leaves(a) for m, a in self.applied.get(path, {}).items() if m != manager}
        mine, before = _leaves(own), _leaves(self.applied.get(path, {}).get(manager, {}))
        for other, fields in others.items():
            clash = [at for at in mine if at in fields and fields[at] != mine[at]]
            if clash and not force:
                where = ".".join(clash[0])
                raise Problem(409, "Conflict", f'Apply failed with 1 conflict: conflict with "{other}": .{where}')
        after = copy.deepcopy(found or {})
        kept = {at for fields in others.values() for at in fields}
        for at in before.keys() - mine.keys() - kept:
            _remove(after, at)
        for at, value in mine.items():
            _set(after, at, value)
        if dry:
            return self._completed(path, after)
        self.applied.setdefault(path, {})[manager] = copy.deepcopy(own)
        return self._store(path, after)

    # --- objects and their controllers

    def _completed(self, path: str, one: dict[str, Any]) -> dict[str, Any]:
        """With what the server adds by itself."""
        one = copy.deepcopy(one)
        if one["kind"] == "Service":
            one["spec"].setdefault("clusterIP", "10.0.0.1")
        if one["kind"] == "HTTPRoute" and self.no_parts:
            for rule in one["spec"]["rules"]:
                for copies in rule.get("filters", []):
                    copies["requestMirror"].pop("percent", None)
        if one["kind"] == "Deployment":
            one["spec"].setdefault("minReadySeconds", 0)
            one["spec"].setdefault("replicas", 1)
        return one

    def _store(self, path: str, one: dict[str, Any]) -> dict[str, Any]:
        one = self._completed(path, one)
        found = self.objects.get(path)
        metadata = one["metadata"]
        before = found["metadata"] if found else {"uid": f"uid-{self._version}", "generation": 0}
        metadata["uid"] = before["uid"]
        changed = found is None or found.get("spec") != one.get("spec")
        metadata["generation"] = before["generation"] + changed
        if found is None or {**found, "metadata": 0} != {**one, "metadata": 0} or _said(found) != _said(one):
            self._version += 1
            metadata["resourceVersion"] = str(self._version)
        else:
            metadata["resourceVersion"] = before["resourceVersion"]
        self.objects[path] = one
        self._control(one)
        return copy.deepcopy(one)

    def _control(self, one: dict[str, Any]) -> None:
        if one["kind"] == "Deployment":
            self._deployment(one)
        elif one["kind"] == "InferenceService":
            self._inference_service(one)
        elif one["kind"] == "HTTPRoute":
            self._route(one)

    def _pod(self, name: str, labels: dict[str, str], container: dict[str, Any]) -> bool:
        image = container["image"]
        state: dict[str, Any] = {"running": {}}
        restarts = 0
        if image in self.crash:
            state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
            restarts = 1
        elif image in self.unpullable:
            state = {"waiting": {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{image}"'}}
        status = {"name": container["name"], "state": state, "restartCount": restarts}
        if image in self.crash:
            status["lastState"] = {"terminated": {"exitCode": 3, "reason": "Error"}}
        self.objects[f"/api/v1/namespaces/ml/pods/{name}-0"] = {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {"name": f"{name}-0", "labels": labels},
            "spec": {"containers": [container]},
            "status": {"containerStatuses": [status]},
        }
        return image not in self.crash and image not in self.unpullable and image not in self.stuck

    def _deployment(self, one: dict[str, Any]) -> None:
        template, wanted = one["spec"]["template"], one["spec"]["replicas"]
        ready = self._pod(one["metadata"]["name"], template["metadata"]["labels"], template["spec"]["containers"][0])
        one["status"] = {
            "observedGeneration": one["metadata"]["generation"],
            "replicas": wanted,
            "updatedReplicas": wanted,
            "availableReplicas": wanted if ready else 0,
        }

    def _inference_service(self, one: dict[str, Any]) -> None:
        predictor, name = one["spec"]["predictor"], one["metadata"]["name"]
        container = (predictor.get("containers") or [{"name": "kserve-container", "image": "runtime"}])[0]
        ready = self._pod(f"{name}-predictor", predictor["labels"], container)
        # As KServe does: what it makes has the labels and annotations of what it makes it for, and an owner.
        copied = {key: one["metadata"][key] for key in ("labels", "annotations")}
        owner = {"ownerReferences": [{"kind": "InferenceService", "name": name, "controller": True}]}
        metadata = {"name": f"{name}-predictor", **copied, **owner}
        service = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {}}
        self._store(f"/api/v1/namespaces/ml/services/{name}-predictor", service)
        one["status"] = {
            "observedGeneration": one["metadata"]["generation"],
            "conditions": [{"type": "Ready", "status": "True" if ready else "False", "reason": "Fake"}],
        }

    def _route(self, one: dict[str, Any]) -> None:
        self.shares.append({ref["name"]: ref["weight"] for ref in one["spec"]["rules"][0]["backendRefs"]})
        for name in self.shares[-1]:
            self.lost += [] if self.serves(name) else [f"{name} got traffic and does not serve"]
        generation = one["metadata"]["generation"]

        def condition(kind: str, good: bool, message: str = "") -> dict[str, Any]:
            status = {"type": kind, "status": "True" if good else "False", "observedGeneration": generation}
            return {**status, "reason": kind if good else "NotAllowedByListeners", "message": message}

        good = self.gateway is True
        if self.gateway is not False:
            said = [condition("Accepted", good, str(self.gateway)), condition("ResolvedRefs", True)]
            one["status"] = {"parents": [{"parentRef": one["spec"]["parentRefs"][0], "conditions": said}]}

    def serves(self, service: str) -> bool:
        """Whether a Service is there, and the workload behind it is ready."""
        objects, name = self.objects, service.removesuffix("-predictor")
        deployment = objects.get(f"/apis/apps/v1/namespaces/ml/deployments/{service}")
        isvc = objects.get(f"/apis/serving.kserve.io/v1beta1/namespaces/ml/inferenceservices/{name}")
        isvc = isvc if service != name else None
        ready = bool(deployment and deployment["status"]["availableReplicas"]) or bool(
            isvc and isvc["status"]["conditions"][0]["status"] == "True"
        )
        return ready and f"/api/v1/namespaces/ml/services/{service}" in objects


def _said(one: dict[str, Any]) -> Any:
    return {k: one["metadata"].get(k) for k in ("labels", "annotations")}


def _leaves(one: dict[str, Any], at: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Fields by path; lists are whole."""
    found: dict[tuple[str, ...], Any] = {}
    for key, value in one.items():
        if isinstance(value, dict) and value:
            found |= _leaves(value, (*at, key))
        else:
            found[(*at, key)] = value
    return found


def _set(one: dict[str, Any], at: tuple[str, ...], value: Any) -> None:
    for key in at[:-1]:
        one = one.setdefault(key, {})
    one[at[-1]] = copy.deepcopy(value)


def _remove(one: dict[str, Any], at: tuple[str, ...]) -> None:
    for key in at[:-1]:
        one = one.get(key, {})
    one.pop(at[-1], None)


def _handler(cluster: FakeCluster) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            path = unquote(parts.path)
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            cluster.authorizations.add(self.headers.get("authorization", ""))
            fault = cluster.faults(cluster.take(), self.command, path)
            if fault == "close":
                self.close_connection = True
                return
            if fault == "html":
                self._say(200, b"<html>please log in</html>", {"content-type": "text/html"})
                return
            if fault and fault.isdigit():
                headers = {"retry-after": "0"} if fault == "429" else {}
                self._say(int(fault), b'{"kind": "Status", "message": "not now"}', headers)
                return
            if fault and fault.startswith("slow"):
                time.sleep(float(fault.removeprefix("slow")))
            if self.headers.get("authorization") != f"Bearer {TOKEN}":
                self._say(401, b'{"kind": "Status", "reason": "Unauthorized", "message": "Unauthorized"}', {})
                return
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            try:
                status, answer = cluster.handle(self.command, path, query, body)
            except Problem as problem:
                status = problem.status
                answer = {"kind": "Status", "reason": problem.reason, "message": str(problem)}
            if fault == "lost":
                # Done, and the answer never arrives.
                self.close_connection = True
                return
            raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self._say(status, raw[: len(raw) // 2] if fault == "cut" else raw, {})

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

        def _say(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"content-type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        """A client that went away in the middle is part of the tests."""


@contextmanager
def served(cluster: FakeCluster) -> Iterator[str]:
    """The URL of the API server."""
    server = _Server(("127.0.0.1", 0), _handler(cluster))
    thread = threading.Thread(target=lambda: server.serve_forever(0.02), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def kubeconfig(folder: Path, url: str, **user: Any) -> Path:
    """A kubeconfig file for it."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "ci"}}],
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "ci", "user": user or {"token": TOKEN}}],
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(document))
    return path
