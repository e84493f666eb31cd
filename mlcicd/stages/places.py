"""Environments: which one is meant, its target, and which version goes there."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlcicd.config import FILE_NAME, Project, seconds
from mlcicd.config.delivery import Environment
from mlcicd.core.digests import digest_bytes
from mlcicd.core.errors import ConfigError, InputError, redact
from mlcicd.registry import RegisteredVersion, Registry
from mlcicd.stages.artifacts import fetch_model
from mlcicd.stages.common import peak_memory
from mlcicd.stages.record import Record
from mlcicd.targets.base import ModelVersion, Planning, Target, load_target


@dataclass(frozen=True)
class Place:
    """An environment of the configuration and its target. `production` is the last one listed."""

    name: str
    settings: Environment
    target: Target
    production: bool


def place(project: Project, name: str) -> Place:
    """The environment of that name; the last one when the name is empty.

    Raises:
        ConfigError: there is no such environment, or its target does not take the options it is given, or
            can not do what is asked of all servers.
    """
    environments = project.config.deploy.environments
    name = environment_name(project, name)
    last = list(environments)[-1]
    settings = environments[name]
    plugin = load_target(settings.target)
    # A target that asks for more of the project than a folder says so by this method.
    make: Callable[..., Any] = getattr(plugin, "configured", plugin)
    state = state_folder(project, name)
    more: dict[str, Any] = {}
    if make is not plugin:
        more = {"model": project.config.model.name, "root": project.root, "environ": project.environ}
    more |= _server_options(project, name, plugin)
    ours = {*more, "token_env", "tls"} & set(settings.options)
    if ours:
        raise ConfigError(
            f"not an option of a target: {', '.join(sorted(ours))}",
            file=FILE_NAME,
            line=project.document.line(("deploy", "environments", name, "options")),
            remedy="remove it; what concerns all environments stands under `model` and `deploy`",
        )
    options = {"ready_timeout_s": seconds(settings.ready_timeout), **more, **settings.options}
    try:
        target = make(name, state, port=settings.port, **options)
    except TypeError as error:
        raise ConfigError(
            f"the target {settings.target!r} does not take these options: {error}",
            file=FILE_NAME,
            line=project.document.line(("deploy", "environments", name, "options")),
        ) from error
    return Place(name, settings, target, production=name == last)


def _server_options(project: Project, environment: str, plugin: type[Any]) -> dict[str, Any]:
    """What is asked of an environment's servers. Nothing when nothing is: a target need not know of it.

    Raises:
        ConfigError: something is, and the target can not do it. Servers that let everybody in, or a log with all
            columns, are not what was asked for.
    """
    deploy = project.config.deploy
    settings = deploy.environments[environment]
    options: dict[str, Any] = {}
    where: dict[str, tuple[str | int, ...]] = {}
    if deploy.inference_log is not None:
        options["inference_log"], where["inference_log"] = (
            deploy.inference_log.model_dump(),
            ("deploy", "inference_log"),
        )
    if deploy.token_env:
        options["token_env"], where["token_env"] = deploy.token_env, ("deploy", "token_env")
    if settings.tls is not None:
        files = {"certificate": settings.tls.certificate, "key": settings.tls.key, "client_ca": settings.tls.client_ca}
        options["tls"] = {name: str(project.root / path) for name, path in files.items() if path}
        where["tls"] = ("deploy", "environments", environment, "tls")
    if options and not getattr(plugin, "takes_server_options", False):
        asked = where[min(options)]
        raise ConfigError(
            f"the target {settings.target!r} can not do what {'.'.join(map(str, asked))} asks for",
            file=FILE_NAME,
            line=project.document.line(asked),
            why="Only targets that start our model server themselves can: of those built in, local.",
            remedy=f"remove {'.'.join(map(str, asked))}, and have the platform see to it",
        )
    return options


def token(project: Project) -> str:
    """What requests to the project's servers must carry; empty when they ask for none.

    Raises:
        ConfigError: `deploy.token_env` names a variable that is not set.
    """
    name = project.config.deploy.token_env
    value = project.environ.get(name, "") if name else ""
    if name and not value:
        raise ConfigError(
            f"the environment variable {name} is not set",
            file=FILE_NAME,
            line=project.document.line(("deploy", "token_env")),
            why="It holds the token that requests to the model server must carry.",
            remedy="set it, in CI from a secret",
        )
    return value


def environment_name(project: Project, name: str) -> str:
    """The name, if there is such an environment; that of the last one when it is empty.

    Raises:
        ConfigError: there is none.
    """
    environments = project.config.deploy.environments
    if not environments:
        raise ConfigError("deploy.environments is empty", file=FILE_NAME, line=project.document.line(("deploy",)))
    name = name or list(environments)[-1]
    if name not in environments:
        close = difflib.get_close_matches(name, list(environments), n=1)
        raise ConfigError(
            f"there is no environment {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""),
            file=FILE_NAME,
            line=project.document.line(("deploy", "environments")),
            remedy=f"choose from {', '.join(environments)}",
        )
    return name


def state_folder(project: Project, environment: str) -> Path:
    """Where an environment's state is kept: where the configuration says, else outside of the checkout, which CI cleans
    between two runs."""
    configured = project.config.deploy.environments[environment].state
    if configured:
        return project.root / configured
    here = digest_bytes(_identity(project).encode()).rpartition(":")[2][:12]
    return state_base(project) / f"{project.config.model.name}-{here}" / environment


def state_base(project: Project) -> Path:
    """The folder of the user's own, outside of any checkout: `$XDG_STATE_HOME/mlcicd`."""
    base = project.environ.get("XDG_STATE_HOME") or str(Path(project.environ.get("HOME", "~"), ".local", "state"))
    return Path(base).expanduser() / "mlcicd"


def _identity(project: Project) -> str:
    """What makes a project the same one here: on GitHub its repository, whose runners each have a checkout at a
    path of their own; elsewhere its path."""
    repository, workspace = project.environ.get("GITHUB_REPOSITORY"), project.environ.get("GITHUB_WORKSPACE")
    if repository and workspace and project.root.is_relative_to(Path(workspace).resolve()):
        return f"{repository}/{project.root.relative_to(Path(workspace).resolve()).as_posix()}"
    return str(project.root)


def version_to_deploy(record: Record, registry: Registry, wanted: str) -> RegisteredVersion:
    """The version that is asked for, or the one with the challenger alias.

    Raises:
        InputError: there is none.
    """
    config = record.project.config
    if wanted:
        return registry.version(config.model.name, wanted)
    found = registry.version_at(config.model.name, config.register_.alias)
    if found is None:
        raise InputError(
            f"no version of {config.model.name!r} carries the alias {config.register_.alias!r}",
            where=redact(registry.uri),
            remedy="run `mlcicd register` first, or name a version with --model-version",
        )
    return found


def fetched(record: Record, registry: Registry, version: RegisteredVersion) -> ModelVersion:
    """The version's verified bytes on this machine."""
    if not version.digest:
        raise InputError(
            f"version {version.version} was not registered by mlcicd: its bytes can not be verified",
            remedy="register it with `mlcicd register`",
        )
    if record.project.config.register_.artifacts.deploy_from:
        path = fetch_model(record.project, version)
    else:
        path = registry.fetch_model(version.run_id, record.project.model_cache, digest=version.digest)
    return ModelVersion(
        version.name, version.version, path, version.digest, record.project.python, peak_memory(registry, version)
    )


def planned(record: Record, registry: Registry, where: Place, version: RegisteredVersion) -> list[str]:
    """What deploying would change, as lines of a diff, from targets that can tell; nothing is fetched or changed."""
    if not isinstance(where.target, Planning):
        return []
    python, memory = record.project.python, peak_memory(registry, version)
    return where.target.plan(
        ModelVersion(version.name, version.version, Path(), version.digest, python, peak_memory_mb=memory)
    )
