"""The options of the `kubernetes` target, as they stand under `deploy.environments.<name>.options`."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from string import Formatter
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator

from mlcicd.config.base import Section
from mlcicd.core.errors import ConfigError

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
DnsLabel = Annotated[str, StringConstraints(pattern=rf"^{_LABEL}$")]
Hostname = Annotated[str, StringConstraints(pattern=rf"^(\*\.)?{_LABEL}(\.{_LABEL})*$", max_length=253)]
Quantity = Annotated[str, StringConstraints(pattern=r"^([0-9]+(\.[0-9]+)?(m|k|[MGT]|[KMGT]i)?)?$")]
PLACEHOLDERS = ("name", "version", "digest")


class Settings(Section):
    """What a cluster needs to know that the rest of the configuration does not say."""

    kind: Literal["gateway", "kserve"] = Field(
        "gateway", description="What runs a version: a Deployment of our own, or a KServe InferenceService."
    )
    namespace: DnsLabel = Field(description="Namespace of everything; it has to exist.")
    gateway: Annotated[str, StringConstraints(pattern=rf"^({_LABEL}/)?{_LABEL}$")] = Field(
        description="Gateway that the route is attached to: `name`, or `namespace/name`."
    )
    image: str = Field("", description="Image of a version, with {version} or {digest}, and perhaps {name}.")
    storage_uri: str = Field("", description="With kserve, instead of an image: where its MLflow runtime loads from.")
    hostnames: tuple[Hostname, ...] = Field((), description="Host names of the route; the Gateway's when empty.")
    path: str = Field("/", pattern=r"^/[A-Za-z0-9/._~-]*$", description="Path prefix of the route.")
    url: str = Field("", description="URL of the endpoint, where the Gateway's status does not tell it.")
    own_url: str = Field(
        "",
        description="URL of one version for its smoke test, with {service} and {namespace}; through the API server "
        "when empty.",
    )
    replicas: int | None = Field(2, ge=1, description="Pods a version; null leaves it to an autoscaler of yours.")
    cpu: Quantity = Field("500m", description="CPU that a pod requests; it has no limit.")
    memory: Quantity = Field(
        "", description="Memory that a pod requests and may not exceed; from the measured peak when empty."
    )
    threads: int = Field(1, ge=1, description="Predictions at a time in one pod.")
    max_body_bytes: int = Field(16 << 20, ge=1, description="Larger requests are refused.")
    request_timeout_s: float = Field(30.0, gt=0, description="The longest one prediction may take.")
    drain_s: float = Field(15.0, ge=0, le=600, description="Seconds between a pod's end being asked for, and its end.")
    route_timeout_s: float = Field(60.0, gt=0, description="How long the Gateway may take to accept the route.")
    image_pull_secrets: tuple[DnsLabel, ...] = Field((), description="Names of Secrets that the image is pulled with.")
    allow_namespaces: tuple[DnsLabel, ...] = Field(
        (), description="Namespaces whose pods may call the model, beside the Gateway's: Prometheus', for one."
    )
    allow_cidrs: tuple[str, ...] = Field(
        (), description="Addresses that may call it: those of the API server, for smoke tests through it."
    )
    templates: str = Field("", description="Folder whose files replace, or add to, the templates of the manifests.")
    kubeconfig: str = Field("", description="File of the cluster's address and credentials; $KUBECONFIG when empty.")
    context: str = Field("", description="Context in it; the current one when empty.")
    force_conflicts: bool = Field(False, description="Take over fields that something else manages.")

    @field_validator("image", "storage_uri", "own_url")
    @classmethod
    def _known_placeholders(cls, text: str) -> str:
        known = {*PLACEHOLDERS, "service", "namespace"}
        try:
            used = {name for _, name, _, _ in Formatter().parse(text) if name is not None}
        except ValueError as error:
            raise ValueError(f"not a template: {error}") from None
        if not used <= known:
            raise ValueError(f"unknown placeholder {{{min(used - known)}}}; there are {', '.join(sorted(known))}")
        return text

    @field_validator("allow_cidrs")
    @classmethod
    def _networks(cls, cidrs: tuple[str, ...]) -> tuple[str, ...]:
        for cidr in cidrs:
            ipaddress.ip_network(cidr)
        return cidrs

    @model_validator(mode="after")
    def _one_source(self) -> Settings:
        if bool(self.image) == bool(self.storage_uri):
            raise ValueError("give either `image` or, with kserve, `storage_uri`")
        if self.storage_uri and self.kind != "kserve":
            raise ValueError("`storage_uri` is for kind: kserve; a Deployment runs an `image`")
        if not re.search(r"\{(version|digest)\}", self.image or self.storage_uri):
            raise ValueError("two versions would be the same bytes: write {version} or {digest} into it")
        return self

    @property
    def gateway_namespace(self) -> str:
        return self.gateway.rpartition("/")[0] or self.namespace

    @property
    def gateway_name(self) -> str:
        return self.gateway.rpartition("/")[2]


def read_settings(environment: str, options: Mapping[str, Any]) -> Settings:
    """The options, checked.

    Raises:
        ConfigError: one is unknown, missing or makes no sense.
    """
    try:
        return Settings.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(["deploy", "environments", environment, "options", *map(str, first["loc"])])
        raise ConfigError(
            f"{key}: {first['msg'].removeprefix('Value error, ')}",
            why=f"{len(error.errors())} of the options are wrong." if len(error.errors()) > 1 else "",
            remedy="docs/kubernetes.md lists the options",
        ) from None
