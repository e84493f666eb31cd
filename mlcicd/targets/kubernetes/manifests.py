"""The objects of a model, of one version, and the route, from templates that a project may replace file by file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlcicd.core.errors import ConfigError, InputError
from mlcicd.targets.kubernetes.names import dns_label
from mlcicd.targets.kubernetes.settings import Settings
from mlcicd.targets.kubernetes.state import ClusterVersion

if TYPE_CHECKING:
    import jinja2

Object = dict[str, Any]
TEMPLATES = Path(__file__).parent / "templates"
ROUTE = "route.yaml.j2"
MODEL_LABEL = "mlcicd.io/model"
VERSION_LABEL = "mlcicd.io/version"
MANAGED_BY = "app.kubernetes.io/managed-by"
# Whose an object is, in full: labels hold what a label may hold only.
OWNER = "mlcicd.io/owner"
VERSION = "mlcicd.io/model-version"
DIGEST = "mlcicd.io/model-digest"
REVISION = "mlcicd.io/revision"
_WORKLOADS = {"gateway": ("apps/v1", "Deployment"), "kserve": ("serving.kserve.io/v1beta1", "InferenceService")}
_USER = 65532
_MEMORY_UNMEASURED = "1Gi"
# A server holds its own modules beside the model, and answers several requests at once.
_MEMORY_FACTOR, _MEMORY_BASE_MB = 1.5, 256
_WEIGHTS = (100, 1000, 10_000, 100_000)


@dataclass(frozen=True)
class Names:
    """What the objects of one model in one environment are called."""

    model: str
    environment: str

    @property
    def name(self) -> str:
        return dns_label(self.model, self.environment)

    @property
    def owner(self) -> str:
        return f"{self.environment}/{self.model}"

    def versioned(self, version: str) -> str:
        # A version begins with its letter, so that its own name is no other model's.
        return dns_label(self.model, self.environment, f"v{version}")

    def service(self, version: str, settings: Settings) -> str:
        """The Service of a version; KServe names it after the InferenceService."""
        return self.versioned(version) + ("-predictor" if settings.kind == "kserve" else "")

    @property
    def labels(self) -> dict[str, str]:
        return {MANAGED_BY: "mlcicd", MODEL_LABEL: self.name}

    def version_labels(self, version: str) -> dict[str, str]:
        return {**self.labels, VERSION_LABEL: self.versioned(version)}

    @property
    def selector(self) -> str:
        return ",".join(f"{key}={value}" for key, value in self.labels.items())


class Manifests:
    """Renders objects.

    Args:
        names: what they are called.
        settings: the target's options.
        ready_timeout_s: how long a version may take to become ready.
        folder: the project's own templates; None: the package's alone.

    Raises:
        ConfigError: the folder is not there.
    """

    def __init__(self, names: Names, settings: Settings, ready_timeout_s: float, folder: Path | None) -> None:
        if folder is not None and not folder.is_dir():
            raise ConfigError("the folder of templates is not there", where=str(folder))
        self._names = names
        self._settings = settings
        self._ready_timeout_s = ready_timeout_s
        self._folder = folder
        self._compiled: dict[Path, jinja2.Template] = {}

    @property
    def workload(self) -> tuple[str, str]:
        """apiVersion and kind of what runs a version."""
        return _WORKLOADS[self._settings.kind]

    def model(self) -> list[Object]:
        """What all versions share."""
        found = self._render("model-", self._context(None))
        return [self._stamped(one, self._names.labels, {}) for one in found]

    def version(self, version: ClusterVersion) -> list[Object]:
        """What runs one version: the Deployment or InferenceService among it."""
        found = self._render("version-", self._context(version))
        labels = self._names.version_labels(version.version)
        notes = {VERSION: version.version, DIGEST: version.digest}
        if not any((one["apiVersion"], one["kind"]) == self.workload for one in found):
            raise ConfigError(f"the templates give no {self.workload[1]}", where=str(self._folder or TEMPLATES))
        return [self._stamped(one, labels, notes) for one in found]

    def route(
        self, live: str, canary: str | None, share: float, revision: int, *, mirror: float | None = None
    ) -> Object:
        """The HTTPRoute that sends `share` (0 to 1) to the canary and the rest to the live version, and copies the
        part `mirror` of the requests to the canary as well."""
        copies = self._mirror(canary, mirror) if canary and mirror else None
        context = {**self._context(None), "backends": self._backends(live, canary, share), "mirror": copies}
        found = [one for name, path in self._files("route") if name == ROUTE for one in self._objects(path, context)]
        if len(found) != 1 or found[0]["kind"] != "HTTPRoute":
            raise ConfigError(f"{ROUTE} has to give one HTTPRoute", where=str(self._folder or TEMPLATES))
        return self._stamped(found[0], self._names.labels, {REVISION: str(revision)})

    def _backends(self, live: str, canary: str | None, share: float) -> list[dict[str, Any]]:
        # The smallest sum that gives the share as whole numbers: some gateways take no larger weights than 1000.
        whole = next((n for n in _WEIGHTS if _gives(share, n)), _WEIGHTS[-1])
        part = round(share * whole) if canary else 0
        if canary and 0 < share < 1:
            # Neither version is left without any requests by a share that is not 0 or 1.
            part = min(max(part, 1), whole - 1)
        weights = [(canary, part), (live, whole - part)]
        return [
            {"service": self._names.service(version, self._settings), "weight": weight}
            for version, weight in weights
            if version is not None and weight > 0
        ]

    def _mirror(self, canary: str, fraction: float) -> Object:
        service = self._names.service(canary, self._settings)
        copies: Object = {"backendRef": {"group": "", "kind": "Service", "name": service, "port": 80}}
        thousandths = max(1, round(1000 * fraction))
        # All of them is what a filter without a part means, in releases that know no parts as well.
        if thousandths < 1000:
            whole = thousandths % 10 == 0
            part = thousandths // 10 if whole else {"numerator": thousandths, "denominator": 1000}
            copies["percent" if whole else "fraction"] = part
        return copies

    # --- what a template is given

    def _context(self, version: ClusterVersion | None) -> dict[str, Any]:
        names, settings = self._names, self._settings
        context: dict[str, Any] = {
            "model": names.model,
            "environment": names.environment,
            "name": names.name,
            "namespace": settings.namespace,
            "labels": names.labels,
            "options": settings,
            "image": settings.image,
            "pull_secrets": [{"name": secret} for secret in settings.image_pull_secrets],
            "allowed_namespaces": sorted({settings.gateway_namespace, *settings.allow_namespaces}),
        }
        if version is None:
            return context
        return {
            **context,
            "version": version.version,
            "digest": version.digest,
            "versioned": names.versioned(version.version),
            "service": names.service(version.version, settings),
            "version_labels": names.version_labels(version.version),
            "image": version.image,
            "storage_uri": version.storage_uri,
            "ready_timeout_s": max(10, math.ceil(self._ready_timeout_s)),
            "grace_s": math.ceil(settings.drain_s + settings.request_timeout_s) + 5,
            "pod_security": {
                "runAsNonRoot": True,
                "runAsUser": _USER,
                "runAsGroup": _USER,
                "fsGroup": _USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "runtime_security": _CONTAINER_SECURITY,
            "container": self._container(version),
        }

    def _container(self, version: ClusterVersion) -> Object:
        settings = self._settings
        memory = settings.memory or _memory(version.peak_memory_mb)
        options = {
            "name": version.name,
            "version": version.version,
            "host": "0.0.0.0",  # noqa: S104  (a pod's own address; the network policy says who reaches it)
            "port": 8080,
            "threads": settings.threads,
            "max-body-bytes": settings.max_body_bytes,
            "timeout-s": f"{settings.request_timeout_s:g}",
            "drain-s": f"{settings.drain_s:g}",
        }
        ready = {"path": "/ready", "port": "http"}
        return {
            "name": "kserve-container" if settings.kind == "kserve" else "server",
            "image": version.image,
            "imagePullPolicy": "IfNotPresent",
            "args": [f"--{key}={value}" for key, value in options.items()],
            "env": [
                # The image's own start refuses other bytes than these.
                {"name": "MLCICD_MODEL_DIGEST", "value": version.digest},
                {"name": "HOME", "value": "/tmp"},  # noqa: S108  (the pod's own, in memory of nobody else)
                {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"},
            ],
            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
            "resources": {"requests": {"cpu": settings.cpu, "memory": memory}, "limits": {"memory": memory}},
            "securityContext": {**_CONTAINER_SECURITY, "readOnlyRootFilesystem": True},
            "startupProbe": {
                "httpGet": ready,
                "periodSeconds": 2,
                "timeoutSeconds": 2,
                "failureThreshold": max(1, math.ceil(self._ready_timeout_s / 2)),
            },
            "readinessProbe": {"httpGet": ready, "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 2},
            "livenessProbe": {
                "httpGet": {"path": "/v2/health/live", "port": "http"},
                "periodSeconds": 10,
                "timeoutSeconds": 5,
                "failureThreshold": 6,
            },
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
        }

    # --- rendering

    def _files(self, prefix: str) -> list[tuple[str, Path]]:
        """Name and path of each template, the project's before the package's."""
        files: dict[str, Path] = {}
        for folder in (TEMPLATES, self._folder):
            if folder is not None:
                files.update({path.name: path for path in folder.glob(f"{prefix}*.yaml.j2")})
        return sorted(files.items())

    def _render(self, prefix: str, context: Mapping[str, Any]) -> list[Object]:
        return [one for _, path in self._files(prefix) for one in self._objects(path, context)]

    @cached_property
    def _environment(self) -> jinja2.Environment:
        import jinja2
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        return ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)

    def _objects(self, path: Path, context: Mapping[str, Any]) -> list[Object]:
        import jinja2
        import yaml

        try:
            if path not in self._compiled:
                self._compiled[path] = self._environment.from_string(path.read_text(encoding="utf-8"))
            found = [one for one in yaml.safe_load_all(self._compiled[path].render(context)) if one is not None]
        except jinja2.TemplateError as error:
            line = getattr(error, "lineno", None)
            raise ConfigError(f"the template fails: {error}", file=str(path), line=line) from error
        except (TypeError, ArithmeticError, LookupError) as error:
            # What an expression in it raised: `{{ 1 / 0 }}`.
            raise ConfigError("the template fails", where=str(path), why=f"{type(error).__name__}: {error}") from error
        except yaml.YAMLError as error:
            raise ConfigError("the template gives no YAML", where=str(path), why=str(error)) from error
        except (OSError, UnicodeDecodeError) as error:
            raise InputError("the template can not be read", where=str(path), why=str(error)) from error
        for one in found:
            if not _is_object(one):
                raise ConfigError(
                    "the template gives something that is no object of a cluster",
                    where=str(path),
                    remedy="each needs apiVersion, kind, and metadata with a name; labels and annotations are mappings",
                )
        return found

    def _stamped(self, one: Object, labels: Mapping[str, str], notes: Mapping[str, str]) -> Object:
        """With what tells whose it is, whatever the template says."""
        metadata = one["metadata"]
        metadata["namespace"] = self._settings.namespace
        metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **notes, OWNER: self._names.owner}
        return one


_CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def _is_object(found: object) -> bool:
    """Whether it has all that we read of an object ourselves, in the form that a cluster's objects have."""
    if not isinstance(found, dict) or not isinstance(found.get("metadata"), dict):
        return False
    metadata = found["metadata"]
    texts = (found.get("apiVersion"), found.get("kind"), metadata.get("name"))
    mappings = (metadata.get("labels") or {}, metadata.get("annotations") or {})
    return all(text and isinstance(text, str) for text in texts) and all(isinstance(one, dict) for one in mappings)


def _gives(share: float, whole: int) -> bool:
    """Whether a whole number out of `whole` is the share, and not 0 or all of it unless the share is."""
    part = round(share * whole)
    return math.isclose(share * whole, part, abs_tol=1e-6) and (share in (0, 1) or 0 < part < whole)


def _memory(peak_mb: float | None) -> str:
    if peak_mb is None or not math.isfinite(peak_mb) or peak_mb <= 0:
        return _MEMORY_UNMEASURED
    return f"{math.ceil((peak_mb * _MEMORY_FACTOR + _MEMORY_BASE_MB) / 64) * 64}Mi"


def kinds_of(objects: Iterable[Object]) -> set[tuple[str, str]]:
    return {(one["apiVersion"], one["kind"]) for one in objects}
