"""What `register` stores beside the verdicts: bill of materials, model card, control map, signature over all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlcicd
from mlcicd.config import Project
from mlcicd.core.digests import digest_bytes, digest_file, digest_tree
from mlcicd.core.errors import InputError, redact
from mlcicd.core.verdict import Verdict
from mlcicd.registry import Registry
from mlcicd.report.markup import clean, code, prose
from mlcicd.stages.common import evidence_folder
from mlcicd.stages.record import Record
from mlcicd.stages.supply_signing import BOM, CARD, CONTROLS, signature_names, store_signatures
from mlcicd.supply_chain.bom import Material, bill_of_materials
from mlcicd.supply_chain.card import Escapes, model_card
from mlcicd.supply_chain.controls import control_document, served_by
from mlcicd.supply_chain.packages import packages_of
from mlcicd.supply_chain.provenance import Facts, statement


def store_supply(
    record: Record, registry: Registry, run_id: str, evaluation: Verdict, *, model: Path, document: str
) -> dict[str, str]:
    """Writes what goes with a version into its evidence folder; the signatures last, over all of it.

    Args:
        model: the model's verified bytes.
        document: the evaluation as it is stored.

    Returns:
        All that is stored with the version, by name: the verdicts, too.

    Raises:
        ConfigError: the signing key, a lock file or the policy can not be used, or the job has no identity.
        ServiceError: Sigstore did not sign.
    """
    project = record.project
    folder = evidence_folder(digest_bytes(document.encode()))
    documents = documents_of(project, evaluation, model, record.details.get("scan", {}))
    for name, text in documents.items():
        registry.log_text(run_id, text, f"{folder}/{name}")
    signed = {**documents, "evaluate.json": document}
    for name in ("validate-data", "train"):
        path = project.verdict_path(name)
        if path.is_file():
            signed[f"{name}.json"] = path.read_text(encoding="utf-8")
    if not signature_names(project):
        return signed
    payload = statement(model, {name: text.encode() for name, text in signed.items()}, _facts(project, evaluation))
    return {**signed, **store_signatures(record, registry, run_id, folder, payload, len(signed))}


def documents_of(project: Project, evaluation: Verdict, model: Path, scans: Mapping[str, Any]) -> dict[str, str]:
    """Bill of materials, model card and control map of an evaluated model: name to text."""
    names = ["evaluate.json", BOM, CARD, *(["scan"] if scans else [])]
    names += [f"{n}.json" for n in ("validate-data", "train") if project.verdict_path(n).is_file()]
    names += signature_names(project)
    served = served_by(names)
    scan: Mapping[str, Any] = next(iter(scans.values()), {})
    material = Material(
        name=project.config.model.name,
        task=project.config.model.task,
        tree=digest_tree(model),
        files={
            path.relative_to(model).as_posix(): digest_file(path).rpartition(":")[2]
            for path in sorted(model.rglob("*"))
            if path.is_file()
        },
        packages=packages_of(_locks(project, model)),
        formats=scan.get("formats", []),
        served=served,
    )
    bom = bill_of_materials(material, evaluation, f"mlcicd {mlcicd.__version__}")
    return {
        BOM: json.dumps(bom, indent=1, sort_keys=True, allow_nan=False) + "\n",
        CARD: card_of(project, evaluation),
        CONTROLS: json.dumps(control_document(names), indent=1) + "\n",
    }


def card_of(project: Project, evaluation: Verdict) -> str:
    """The model card of an evaluation, with what people have written into the project's card kept.

    Raises:
        InputError: the card of the project can not be read.
    """
    path = project.root / project.config.supply_chain.card
    try:
        written = path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("the model card can not be read", where=path.name, why=str(error)) from error
    names = ["evaluate.json", CARD, BOM, *(f"{n}.json" for n in ("validate-data", "train"))]
    return model_card(
        written,
        name=project.config.model.name,
        task=project.config.model.task,
        evaluation=evaluation,
        served=served_by(names),
        escapes=Escapes(prose=prose, code=code, plain=clean),
    )


def _facts(project: Project, evaluation: Verdict) -> Facts:
    environ = project.environ
    commit = evaluation.subject("git")
    server, repository, run = (environ.get(f"GITHUB_{key}", "") for key in ("SERVER_URL", "REPOSITORY", "RUN_ID"))
    workflow = environ.get("GITHUB_WORKFLOW_REF", "")
    return Facts(
        model=project.config.model.name,
        parameters={
            "config": project.digest,
            # What stands in it may be a secret that `${NAME}` has put there, and it is written where many read.
            "command": redact(project.config.train.run),
            "source": f"{server}/{repository}" if repository else "",
        },
        materials={f"{s.kind}/{s.name}": s.digest for s in evaluation.subjects if s.kind in ("data", "environment")},
        commit=commit.digest if commit else "",
        builder=f"{server}/{workflow}" if workflow else "urn:mlcicd:local",
        invocation=f"{server}/{repository}/actions/runs/{run}" if run else "",
        started=evaluation.started.isoformat(),
        finished=evaluation.finished.isoformat(),
    )


def _locks(project: Project, model: Path) -> list[Path]:
    """The files that pin the environment: the model's own requirements, and the project's locks."""
    found = [path for pattern in project.config.train.lock for path in sorted(project.root.glob(pattern))]
    return [path for path in [model / "requirements.txt", *found] if path.is_file()]
