"""Manifests for teams whose weights are moved by Argo Rollouts or Flagger, with our judge as the one who is asked.

They are written to files and never applied from here: such teams keep them in a repository that something else applies.
None carries the annotation by which the target `kubernetes` knows its own objects, so that it never removes one.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlcicd.core.errors import ConfigError
from mlcicd.targets.kubernetes.manifests import DIGEST, TEMPLATES, VERSION, Manifests, Object
from mlcicd.targets.kubernetes.state import ClusterVersion

Controller = Literal["argo-rollouts", "flagger"]
CONTROLLERS: tuple[Controller, ...] = ("argo-rollouts", "flagger")
PORT = 8090
TOKEN_ENV = "MLCICD_JUDGE_TOKEN"  # noqa: S105  (a variable's name)
_NAMESPACES = {"argo-rollouts": "argo-rollouts", "flagger": "flagger-system"}
_URL = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._~/-]*)?")


@dataclass(frozen=True)
class Judgement:
    """How the controller asks, and whom.

    Args:
        champion: the version that the new one is compared with; empty: there is none, and nothing is asked.
        attempt: which try of the same version it is.
        percents: of the traffic, one a step.
        interval_s: seconds between two questions.
        max_duration_s: how long the judge may stay undecided.
        patience_s: how long it may be unable to answer.
        url: of the judge; its Service's when empty.
        image: of the judge; empty: it runs elsewhere, and no objects are made for it.
        token_secret: name of the Secret whose key `token` questions carry; empty: none.
        environment_secret: name of the Secret that the judge's environment variables come from; empty: none.
        asked_from: namespace of the controller; empty: where it is installed by default.
    """

    champion: str
    attempt: str
    percents: tuple[float, ...]
    interval_s: float
    max_duration_s: float
    patience_s: float
    url: str = ""
    image: str = ""
    token_secret: str = ""
    environment_secret: str = ""
    asked_from: str = ""


class ControllerManifests(Manifests):
    """Renders a version's objects for a controller; its templates are replaced in folders of the controllers' names."""

    def handed_over(self, controller: Controller, version: ClusterVersion, judgement: Judgement) -> dict[str, Object]:
        """The objects, by the name of the file that each goes into.

        Raises:
            ConfigError: a step is no whole percent, the URL is none, the options are for KServe, a token is asked of
                Flagger, which sends none, or a template fails.
        """
        self._check(controller, judgement)
        found = self._render("model-", self._context(version))
        for folder in (controller, "controllers"):
            for path in self._found(folder):
                found += self._objects(path, self._handed(controller, version, judgement))
        named: dict[str, Object] = {}
        for one in found:
            metadata = one["metadata"]
            metadata["namespace"] = self._settings.namespace
            metadata["labels"] = {**(metadata.get("labels") or {}), **self._names.labels}
            own = one["kind"] in _OF_A_VERSION and metadata["name"] == self._names.name
            notes = {VERSION: version.version, DIGEST: version.digest} if own else {}
            if notes:
                metadata["annotations"] = {**(metadata.get("annotations") or {}), **notes}
            named[f"{one['kind'].lower()}-{metadata['name']}.yaml"] = one
        return named

    def _check(self, controller: Controller, judgement: Judgement) -> None:
        if self._settings.kind != "gateway" or not self._settings.image:
            raise ConfigError("a controller takes over Deployments: `kind: gateway` and an `image` are needed")
        if any(percent != int(percent) for percent in judgement.percents):
            raise ConfigError(
                "controllers take whole percents alone", where="canary.steps", remedy="such as [5, 25, 50]"
            )
        if judgement.url and not _URL.fullmatch(judgement.url):
            raise ConfigError(f"not the address of a judge: {judgement.url!r}")
        if not judgement.url and not judgement.image:
            raise ConfigError("who judges? Give the judge's image, or the address where it runs")
        if controller == "flagger" and judgement.token_secret:
            raise ConfigError(
                "Flagger's webhooks carry no token",
                remedy="leave it out: the judge's network policy lets Flagger's namespace ask alone",
            )

    def _found(self, folder: str) -> list[Path]:
        files = {path.name: path for path in (TEMPLATES / folder).glob("*.yaml.j2")}
        if self._folder is not None:
            files |= {path.name: path for path in (self._folder / folder).glob("*.yaml.j2")}
        return [path for _, path in sorted(files.items())]

    def _handed(self, controller: Controller, version: ClusterVersion, judgement: Judgement) -> dict[str, Any]:
        context = self._context(version)
        name, namespace = self._names.name, self._settings.namespace
        judge = f"{name}-judge"
        subject = {"version": version.version, "champion": judgement.champion, "attempt": judgement.attempt}
        # Argo and Flagger take whole seconds, and Flagger no fewer than ten.
        interval_s = max(10, math.ceil(judgement.interval_s))
        arguments = ["canary", "serve", "--working-directory=/project", f"--environment={self._names.environment}"]
        arguments += ["--host=0.0.0.0", f"--port={PORT}"]
        arguments += [f"--token-env={TOKEN_ENV}"] if judgement.token_secret else []
        return {
            **context,
            "controller": controller,
            "pod": self._pod(context),
            "champion": judgement.champion,
            "percents": [int(percent) for percent in judgement.percents],
            "subject": [{"name": key, "value": value} for key, value in subject.items()],
            "metadata": subject,
            "interval_s": interval_s,
            # The judge's own end comes first.
            "count": math.ceil(judgement.max_duration_s / interval_s) + 20,
            "errors": max(4, math.ceil(judgement.patience_s / interval_s)),
            "judge": judge,
            "judge_url": judgement.url.rstrip("/") or f"http://{judge}.{namespace}.svc:{PORT}",
            "judge_image": judgement.image,
            "judge_args": arguments,
            "judge_secret": judgement.environment_secret,
            "judge_security": {**context["runtime_security"], "readOnlyRootFilesystem": True},
            "token_secret": judgement.token_secret,
            "controller_namespace": judgement.asked_from or _NAMESPACES[controller],
        }

    def _pod(self, context: dict[str, Any]) -> Object:
        """The pods of a version, as those of the target's own Deployments; a Rollout's selector names no version."""
        settings, labels = self._settings, {**self._names.labels, "app": self._names.name}
        spec: dict[str, Any] = {
            "serviceAccountName": self._names.name,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": context["grace_s"],
            "securityContext": context["pod_security"],
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": {"app": self._names.name}},
                }
            ],
            "containers": [context["container"]],
            "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}],
        }
        if settings.image_pull_secrets:
            spec["imagePullSecrets"] = context["pull_secrets"]
        scraped = {"prometheus.io/scrape": "true", "prometheus.io/port": "8080", "prometheus.io/path": "/metrics"}
        return {"metadata": {"labels": labels, "annotations": scraped}, "spec": spec}


_OF_A_VERSION = ("Rollout", "Canary", "Deployment")


def written(one: Object) -> str:
    """An object as YAML that a person reads."""
    import yaml

    # Through JSON: what is the same object twice must not become an anchor.
    return yaml.safe_dump(json.loads(json.dumps(one)), sort_keys=False, width=110)
