"""What the running router says of itself, over its admin socket."""

from __future__ import annotations

import http.client
import json
import math
import re
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mlcicd.core.errors import ServiceError
from mlcicd.targets.base import Counters
from mlcicd.targets.processes import POLL_S
from mlcicd.targets.router import LATENCY_EDGES_MS, ROUTES, cluster_name

_SAMPLE = re.compile(r"^envoy_cluster_(?P<metric>\w+)\{(?P<labels>[^}]*)\} (?P<value>\S+)$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class RouterAdmin:
    """A client of Envoy's admin interface."""

    def __init__(self, socket_path: Path, *, timeout_s: float = 5.0) -> None:
        self._socket = socket_path
        self._timeout_s = timeout_s

    def request(self, path: str, *, method: str = "GET") -> tuple[int, str]:
        """(status, body) of one request.

        Raises:
            ServiceError: nobody answers.
        """
        connection = _UnixConnection(self._socket, self._timeout_s)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise ServiceError(
                f"the router does not answer ({error})",
                where=str(self._socket),
                remedy="run the command again: it restarts a router that has died",
            ) from error
        finally:
            connection.close()

    def live(self) -> bool:
        """Whether it has taken its first configuration and listens."""
        try:
            return self.request("/ready")[0] == 200
        except ServiceError:
            return False

    def wait_for_clusters(self, version: str, *, timeout_s: float) -> None:
        """Waits until a version of the clusters file is in force."""
        self._wait_for(r"^cluster_manager\.cds\.version_text$", version, timeout_s)

    def wait_for_routes(self, version: str, *, timeout_s: float) -> None:
        """Waits until a version of the routes file is in force."""
        self._wait_for(rf"^http\.\w+\.rds\.{ROUTES}\.version_text$", version, timeout_s)

    def wait_for_secret(self, name: str, version: str, *, timeout_s: float) -> None:
        """Waits until a version of a certificate's file is in force."""
        self._wait_for(rf"^sds\.{name}\.version_text$", version, timeout_s)

    def _wait_for(self, statistic: str, version: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while f'"{version}"' not in self.request(f"/stats?filter={quote(statistic)}")[1]:
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"the router did not take its new configuration within {timeout_s:g} s",
                    where=str(self._socket),
                    why="The log of the router, in the logs folder beside it, says what it did not like.",
                )
            time.sleep(POLL_S)

    def wait_for_healthy(self, version: str, ports: list[int], *, timeout_s: float) -> None:
        """Waits until the router's own health checks have seen all these servers of a version.

        Raises:
            ServiceError: not within the time.
        """
        deadline = time.monotonic() + timeout_s
        while not set(ports) <= self.healthy_ports(version):
            if time.monotonic() > deadline:
                raise ServiceError(f"the router does not see version {version} as healthy after {timeout_s:g} s")
            time.sleep(POLL_S)

    def healthy_ports(self, version: str) -> set[int]:
        """The ports of a version's servers that take requests."""
        answer: dict[str, Any] = json.loads(self.request("/clusters?format=json")[1])
        name = cluster_name(version)
        return {
            host["address"]["socket_address"]["port_value"]
            for cluster in answer.get("cluster_statuses", [])
            if cluster["name"] == name
            for host in cluster.get("host_statuses", [])
            # Besides the state of discovery, every reason not to use a host is a key of its own here.
            if host["health_status"] == {"eds_health_status": "HEALTHY"}
        }

    def active_requests(self, version: str | None = None) -> int:
        """Requests a version is working on, or all that clients wait for."""
        statistic = f"cluster.{cluster_name(version)}.upstream_rq_active" if version else "downstream_rq_active"
        pattern = f"^{re.escape(statistic)}$" if version else rf"^http\.ingress\.{statistic}$"
        body = self.request(f"/stats?filter={quote(pattern)}")[1]
        return sum(int(line.rpartition(":")[2]) for line in body.splitlines() if line)

    def wait_idle(self, version: str | None = None, *, timeout_s: float) -> bool:
        """Whether the requests in flight ended within the time."""
        deadline = time.monotonic() + timeout_s
        while self.active_requests(version):
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True

    def counters(self, version: str, *, epoch: str) -> Counters:
        """What was counted for a version since it was added to this router process.

        Raises:
            ServiceError: the router does not answer, or knows no such version.
        """
        name = cluster_name(version)
        pattern = rf"^cluster\.{name}\.upstream_rq_(completed|time|[45]xx)$"
        status, body = self.request(f"/stats?format=prometheus&filter={quote(pattern)}")
        totals: dict[str, float] = {}
        cumulative: list[tuple[float, int]] = []
        for line in body.splitlines():
            sample = _SAMPLE.match(line)
            if sample is None:
                continue
            labels = dict(_LABEL.findall(sample["labels"]))
            if labels.get("envoy_cluster_name") != name:
                continue
            if sample["metric"] == "upstream_rq_time_bucket":
                cumulative.append((float(labels["le"]), int(sample["value"])))
            else:
                totals[sample["metric"] + labels.get("envoy_response_code_class", "")] = float(sample["value"])
        if status != 200 or "upstream_rq_completed" not in totals:
            raise ServiceError(f"the router has no counters for version {version}", where=str(self._socket))
        if not cumulative:
            # Envoy shows a histogram from its first merged value on; until then its buckets are empty.
            cumulative = [(float(edge), 0) for edge in (*LATENCY_EDGES_MS, math.inf)]
        cumulative.sort()
        running = [count for _, count in cumulative]
        return Counters(
            requests=int(totals["upstream_rq_completed"]),
            errors_4xx=int(totals.get("upstream_rq_xx4", 0)),
            errors_5xx=int(totals.get("upstream_rq_xx5", 0)),
            edges_ms=tuple(edge for edge, _ in cumulative),
            counts=tuple(count - before for count, before in zip(running, [0, *running[:-1]], strict=True)),
            sum_ms=totals.get("upstream_rq_time_sum", 0.0),
            epoch=epoch,
        )
