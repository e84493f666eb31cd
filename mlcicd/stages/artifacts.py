"""The artifact repository, where `register.artifacts` names one: what is put there, and what is fetched again."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from mlcicd.artifacts import Manifest, Store, fetch, open_store, put, verify
from mlcicd.config import FILE_NAME, Project
from mlcicd.core.digests import digest_json, digest_tree
from mlcicd.core.errors import ConfigError, InputError, learn_secret, redact
from mlcicd.core.verdict import Check, CheckStatus
from mlcicd.registry import RegisteredVersion
from mlcicd.registry.tracking import TAG, checked_digest
from mlcicd.stages.record import Record

ADDRESS, DIGEST = f"{TAG}artifacts", f"{TAG}artifacts_digest"
_MODEL, _EVIDENCE = "model", "evidence"


def store_of(project: Project) -> Store:
    """The artifact repository of the configuration.

    Raises:
        ConfigError: there is none, or its credentials are not there.
    """
    rules = project.config.register_.artifacts
    line = project.document.line(("register", "artifacts"))
    if not rules.url:
        raise ConfigError(
            "there is no artifact repository", file=FILE_NAME, line=line, remedy="set register.artifacts.url"
        )
    credentials = ""
    if rules.credentials_env:
        credentials = project.environ.get(rules.credentials_env, "")
        if not credentials:
            raise ConfigError(
                f"the environment variable {rules.credentials_env} is not set",
                file=FILE_NAME,
                line=line,
                why="register.artifacts.credentials_env names it.",
                remedy="give it to this step from a secret",
            )
        learn_secret(credentials)
    url = rules.url if "://" in rules.url else (project.root / rules.url).resolve().as_uri()
    return open_store(url, credentials=credentials, options=rules.options)


def store_artifacts(record: Record, model: Path, documents: Mapping[str, str], digest: str) -> dict[str, str]:
    """Puts the model's files and its evidence there; gives the tags that say where. Nothing where none is configured.

    Args:
        model: its verified bytes, a folder or a file.
        documents: name to text of the evidence.
        digest: of the model.

    Raises:
        ServiceError: the repository does not take it, or has something else at this address.
    """
    project = record.project
    if not project.config.register_.artifacts.url:
        return {}
    store = store_of(project)
    record.progress.step(f"putting the model and its evidence into {store.shown}")
    with tempfile.TemporaryDirectory(prefix="mlcicd-") as temporary:
        files = {f"{_MODEL}/{model.name}": model} if model.is_file() else {}
        for path in sorted(model.rglob("*")):
            if path.is_file():
                files[f"{_MODEL}/{path.relative_to(model).as_posix()}"] = path
        for name, text in documents.items():
            file = Path(temporary, name)
            file.write_text(text, encoding="utf-8")
            files[f"{_EVIDENCE}/{name}"] = file
        facts = {"model": project.config.model.name, "model_digest": digest}
        stored = put(store, project.config.model.name, files, facts, say=record.progress.step)
    said = f"{stored.sent} files sent, {stored.kept} there already; all read back"
    record.checks.append(Check(name="artifact repository", status=CheckStatus.PASSED, observed=said))
    address = redact(f"{store.shown}/{stored.address}")
    record.outputs["artifacts"] = address
    record.subject("artifacts", address, stored.digest)
    return {ADDRESS: address, DIGEST: stored.digest}


def artifacts_digest(version: RegisteredVersion) -> str:
    """The address of a version in the artifact repository; empty when it was not put into one."""
    return checked_digest(version.tags.get(DIGEST, ""))


def verify_artifacts(project: Project, version: RegisteredVersion) -> Manifest:
    """Reads everything of a version in the artifact repository, and proves that it is whole and this version's.

    Raises:
        InputError: it is not; or the version was not put there.
    """
    manifest = verify(store_of(project), version.name, _known(version))
    _about(manifest, version)
    return manifest


def fetch_artifacts(project: Project, version: RegisteredVersion, target: Path) -> None:
    """Downloads a version's folders `model` and `evidence` into a new folder, proven.

    Raises:
        InputError: they are not this version's, or the folder is there.
    """
    _about(fetch(store_of(project), version.name, _known(version), target), version)


def fetch_model(project: Project, version: RegisteredVersion) -> Path:
    """The version's model from the artifact repository, in the cache of verified models.

    Raises:
        InputError: it is not what was registered.
    """
    target = project.model_cache / version.digest.replace(":", "-")
    if target.is_dir() and digest_tree(target) == version.digest:
        return target
    project.model_cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=project.model_cache, prefix=".fetch-") as temporary:
        folder = Path(temporary, "all")
        fetch_artifacts(project, version, folder)
        found = digest_tree(folder / _MODEL)
        if found != version.digest:
            raise InputError(
                "the model in the artifact repository is not the one that was registered",
                where=f"version {version.version}",
                why=f"Its digest is {found}; registered was {version.digest}.",
                remedy="register again",
            )
        if target.exists():
            shutil.rmtree(target)
        (folder / _MODEL).rename(target)
    return target


def _known(version: RegisteredVersion) -> str:
    digest = artifacts_digest(version)
    if not digest:
        raise InputError(
            f"version {version.version} was not put into an artifact repository",
            remedy="set register.artifacts, and run `mlcicd register` again: it is the same version",
        )
    return digest


def _about(manifest: Manifest, version: RegisteredVersion) -> None:
    """Compares what a manifest lists with what the version says of itself, whatever the manifest says it is about."""
    prefix = f"{_MODEL}/"
    listed = {PurePosixPath(p.removeprefix(prefix)): d for p, (_, d) in manifest.files.items() if p.startswith(prefix)}
    tree = digest_json([(path.as_posix(), listed[path]) for path in sorted(listed)])
    evaluation = manifest.files.get(f"{_EVIDENCE}/evaluate.json", (0, ""))[1]
    model = {tree, *listed.values()} if len(listed) == 1 else {tree}
    if version.digest not in model or evaluation != version.tags.get(f"{TAG}evidence_digest", ""):
        raise InputError(
            f"the artifacts of version {version.version} are about another model or evaluation",
            where=version.tags.get(ADDRESS, ""),
            remedy="register again",
        )
