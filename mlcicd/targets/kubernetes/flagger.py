"""What Flagger reports of its own canaries: its webhooks do not say which share of the traffic the canary has."""

from __future__ import annotations

import math
import re

from mlcicd.core.errors import InputError, ServiceError
from mlcicd.targets.kubernetes.api import Api

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def canary_share(api: Api, namespace: str, name: str) -> float:
    """The share (0 to 1) that a `Canary` reports to have.

    Raises:
        InputError: there is no such object, or what it reports is no percent.
        ServiceError: the API server refuses, or does not answer.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"not the name of a Canary: {name[:80]!r}")
    found = api.get(f"/apis/flagger.app/v1beta1/namespaces/{namespace}/canaries/{name}")
    if found is None:
        raise InputError(f"there is no Canary {namespace}/{name}")
    weight = (found.get("status") or {}).get("canaryWeight", 0)
    if not isinstance(weight, int | float) or not math.isfinite(weight) or not 0 <= weight <= 100:
        raise ServiceError(f"the Canary {namespace}/{name} reports a weight of {weight!r}")
    return float(weight) / 100
