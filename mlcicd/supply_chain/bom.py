"""The model's bill of materials: CycloneDX 1.6 JSON with its model card, data, metrics and packages.

Format: https://cyclonedx.org/docs/1.6/json. The document is written as JSON by itself, because the common library
drops `modelCard`; tests validate it strictly with the schema.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlcicd.core.digests import digest_json
from mlcicd.core.errors import redact
from mlcicd.core.verdict import CheckStatus, Verdict
from mlcicd.supply_chain.controls import Served
from mlcicd.supply_chain.packages import Package

_NAMESPACE = uuid.UUID("6d3b8c1e-5f0a-4b7e-9c55-0d0f7a3c2b91")
_TASKS = {"binary": "classification", "multiclass": "classification"}


@dataclass(frozen=True)
class Material:
    """What the bill is made of besides the evaluation. `files` is a model file's path to its SHA-256 (hex)."""

    name: str
    task: str
    tree: str
    files: Mapping[str, str]
    packages: Sequence[Package]
    formats: Sequence[str]
    served: Sequence[Served]


def bill_of_materials(material: Material, evaluation: Verdict, tool: str) -> dict[str, Any]:
    """The document; the same model and evaluation always give the same one."""
    serial = uuid.uuid5(_NAMESPACE, digest_json([material.tree, evaluation.to_json()]))
    model = "model"
    data = [s for s in evaluation.subjects if s.kind == "data"]
    libraries = [_library(package) for package in material.packages]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "timestamp": evaluation.finished.isoformat(),
            "tools": {
                "components": [{"type": "application", "name": "mlcicd", "version": tool.removeprefix("mlcicd ")}]
            },
            "component": {
                "type": "machine-learning-model",
                "bom-ref": model,
                "name": _text(material.name),
                "version": material.tree,
                "components": [
                    {
                        "type": "file",
                        "bom-ref": f"file:{index}",
                        "name": _text(path),
                        "hashes": [{"alg": "SHA-256", "content": digest}],
                    }
                    for index, (path, digest) in enumerate(sorted(material.files.items()))
                ],
                "modelCard": _card(material, evaluation, [f"data:{s.name}" for s in data]),
                "properties": _properties(material, evaluation),
            },
        },
        "components": [
            *(
                {
                    "type": "data",
                    "bom-ref": f"data:{s.name}",
                    "name": _text(s.name),
                    "version": s.digest,
                    "data": [{"type": "dataset", "name": _text(str(s.details.get("path", s.name)))}],
                }
                for s in data
            ),
            *libraries,
        ],
        "dependencies": [
            {"ref": model, "dependsOn": [*(f"data:{s.name}" for s in data), *(item["bom-ref"] for item in libraries)]}
        ],
    }


def _library(package: Package) -> dict[str, Any]:
    entry = {"type": "library", "bom-ref": package.purl, "name": package.name, "purl": package.purl}
    return entry | ({"version": package.version} if package.version else {})


def _card(material: Material, evaluation: Verdict, data: list[str]) -> dict[str, Any]:
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": _TASKS.get(material.task, material.task),
            "datasets": [{"ref": ref} for ref in data],
        },
        "quantitativeAnalysis": {"performanceMetrics": _metrics(evaluation)},
    }


def _metrics(evaluation: Verdict) -> list[dict[str, Any]]:
    """What was measured, and what was judged on slices."""
    found = []
    for result in evaluation.details.get("metrics", []):
        if isinstance(result, dict):
            found.append(_metric(result.get("name"), result.get("candidate"), result.get("candidate_interval")))
    for check in evaluation.checks:
        if check.slice and isinstance(check.observed, float | int):
            found.append(_metric(check.name, check.observed, check.interval, check.slice))
    return found


def _metric(name: Any, value: Any, interval: Any, where: str = "") -> dict[str, Any]:
    entry: dict[str, Any] = {"type": _text(str(name)), "value": _number(value)}
    if where:
        entry["slice"] = _text(where)
    if isinstance(interval, list | tuple) and len(interval) == 2:
        entry["confidenceInterval"] = {"lowerBound": _number(interval[0]), "upperBound": _number(interval[1])}
    return entry


def _properties(material: Material, evaluation: Verdict) -> list[dict[str, str]]:
    commit = evaluation.subject("git")
    judged = [c for c in evaluation.checks if c.status is not CheckStatus.SKIPPED]
    values = {
        "mlcicd:evaluation:status": str(evaluation.status),
        "mlcicd:evaluation:checks": str(len(judged)),
        "mlcicd:git:commit": commit.digest if commit else "",
        "mlcicd:git:dirty": str(bool(commit and commit.details.get("dirty"))).lower(),
        "mlcicd:model:formats": ", ".join(material.formats),
    }
    listed = [{"name": name, "value": _text(value)} for name, value in values.items()]
    for served in material.served:
        listed.append({"name": f"mlcicd:control:{served.framework}", "value": f"{served.control}: {served.evidence}"})
    return listed


def _number(value: Any) -> str:
    if isinstance(value, int | float):
        return repr(value) if math.isfinite(value) else "NaN" if math.isnan(value) else str(value)
    return _text(str(value))


def _text(text: str) -> str:
    """Text without secrets and without what a JSON reader elsewhere might stumble over."""
    kept = "".join(c if c.isprintable() else " " for c in redact(text))
    return kept[:1000]
