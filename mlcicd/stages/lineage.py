"""Who does it, from where, and with what: what a version and a move of the champion are traced back to."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Mapping
from typing import Any

import mlcicd
from mlcicd.config import Project
from mlcicd.core.errors import redact
from mlcicd.core.verdict import now
from mlcicd.registry import Origin, RegisteredVersion, Registry, recover
from mlcicd.registry.recovery import Aliases
from mlcicd.registry.tracking import TAG
from mlcicd.stages.common import registry_of
from mlcicd.stages.record import Record

_WHO = ("GITHUB_ACTOR", "GITLAB_USER_LOGIN", "BUILD_USER_ID", "USER", "LOGNAME")
_RUN = ("CI_PIPELINE_URL", "CI_JOB_URL", "BUILD_URL")
_LONGEST_PARAMS = 4000


def origin_of(environ: Mapping[str, str]) -> Origin:
    """Who runs this, and the address of the workflow run, which is empty where the environment does not say it.

    Who is the actor of the workflow, else the user of the environment, else the owner of this process.
    """
    who = next((environ[name] for name in _WHO if environ.get(name)), "") or _owner()
    server, repository, run = (environ.get(f"GITHUB_{key}", "") for key in ("SERVER_URL", "REPOSITORY", "RUN_ID"))
    address = f"{server}/{repository}/actions/runs/{run}" if run else ""
    return Origin(who, redact(address or next((environ[name] for name in _RUN if environ.get(name)), "")))


def version_lineage(record: Record, version: RegisteredVersion) -> dict[str, Any]:
    """What a file made with a version is traced back by: `model`, and `made` (when, by whom, in which run, from which
    commit, with which mlcicd)."""
    origin = origin_of(record.project.environ)
    return {
        "model": {
            "name": version.name,
            "version": version.version,
            "digest": version.digest,
            "evidence": version.tags.get(f"{TAG}evidence_digest", ""),
        },
        "made": {
            "at": now().isoformat(timespec="seconds"),
            "who": origin.who,
            "run": origin.run,
            "commit": record.git.commit,
            "tool": f"mlcicd {mlcicd.__version__}",
        },
    }


def _owner() -> str:
    """The name of the account that this process runs as; its number where the machine knows no name, as in containers
    that run as some number."""
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid {number}"


def aliases_of(project: Project) -> Aliases:
    return Aliases(project.config.register_.champion_alias, project.config.register_.previous_alias)


def recovered(record: Record) -> Registry:
    """The project's registry, in which what dead commands have left half done is mended first. A dry run mends nothing.

    Raises:
        ServiceError: the registry does not answer, or another command holds the model's lock for long.
    """
    registry = registry_of(record.project)
    if not record.dry_run:
        rules = record.project.config.register_
        for said in recover(
            registry,
            record.project.config.model.name,
            champion_alias=rules.champion_alias,
            previous_alias=rules.previous_alias,
        ):
            record.progress.step(f"mended first: {said}")
    return registry


def training_lineage(project: Project, run_tags: Mapping[str, str], params: Mapping[str, str]) -> dict[str, str]:
    """The environment lock and the parameters of a training, from its run. What is not known is empty.

    Parameters that would not fit a tag are on the run alone; their number is told.
    """
    try:
        parts = json.loads(run_tags.get("mlcicd.fingerprint_parts", "") or "{}")
    except ValueError:
        parts = {}
    text = redact(json.dumps(dict(params), sort_keys=True))
    return {
        "environment_lock": str(parts.get("lock", "")) if isinstance(parts, dict) else "",
        "interpreter": str(parts.get("interpreter", "")) if isinstance(parts, dict) else "",
        "params": text if len(text) <= _LONGEST_PARAMS else f"{len(params)} parameters: see the run",
    }
