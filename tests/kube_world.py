"""A target and the stand-in cluster it talks to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kube_server
from kube_server import FakeCluster

from mlcicd.targets.base import ModelVersion
from mlcicd.targets.kubernetes import KubernetesTarget

OPTIONS: dict[str, Any] = {
    "namespace": "ml",
    "gateway": "gateways/public",
    "image": "registry.example.com/ml/{name}:{version}-{digest}",
    "hostnames": ["scorer.example.com"],
    "route_timeout_s": 1.0,
}
NAME = "toy--production"


def service(version: str) -> str:
    return f"{NAME}--v{version}"


def image(version: str) -> str:
    return f"registry.example.com/ml/toy:{version}-{version * 8}"


def model_version(version: str, digest: str = "") -> ModelVersion:
    return ModelVersion("toy", version, Path("/nowhere"), digest or f"sha256:{version * 8}", "python")


class World:
    """A cluster, and targets as several jobs would make them."""

    def __init__(self, folder: Path, cluster: FakeCluster, url: str) -> None:
        self.folder = folder
        self.cluster = cluster
        self.url = url
        self.slept: list[float] = []

    def target(self, **options: Any) -> KubernetesTarget:
        timeout = options.pop("ready_timeout_s", 20.0)
        config = kube_server.kubeconfig(self.folder, self.url)

        def sleep(seconds: float) -> None:
            self.slept.append(seconds)
            time.sleep(min(seconds, 0.01))

        return KubernetesTarget(
            "production",
            model="toy",
            options={**OPTIONS, "kubeconfig": str(config), **options},
            root=self.folder,
            environ={},
            ready_timeout_s=timeout,
            poll_s=0.01,
            sleep=sleep,
        )


@contextmanager
def world(folder: Path) -> Iterator[World]:
    folder.mkdir(parents=True, exist_ok=True)
    cluster = FakeCluster()
    with kube_server.served(cluster) as url:
        yield World(folder, cluster, url)
