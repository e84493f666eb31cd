"""The champion: its version, its model, and the profile of the data it learned from."""

from __future__ import annotations

import json
import re

from mlcicd.config import FILE_NAME, Project
from mlcicd.core.errors import ConfigError
from mlcicd.data.profile import Profile
from mlcicd.registry import RegisteredVersion, Registry
from mlcicd.registry.tracking import TAG, checked_digest
from mlcicd.stages.common import evidence_folder

_MODEL_URI = re.compile(r"^models:/([^/@]+)(?:@([A-Za-z0-9_-]+)|/(\d+))$")


def champion_version(project: Project, registry: Registry) -> RegisteredVersion | None:
    """The model to beat, as `evaluate.champion` names it; None when there is none yet.

    Raises:
        ConfigError: `evaluate.champion` is not a registry URI.
        InputError: it names a version that does not exist.
    """
    config = project.config
    uri = config.evaluate.champion or f"models:/{config.model.name}@{config.register_.champion_alias}"
    match = _MODEL_URI.match(uri)
    if not match:
        raise ConfigError(
            f"evaluate.champion is {uri!r}, not models:/<name>@<alias> or models:/<name>/<version>",
            file=FILE_NAME,
            line=project.document.line(("evaluate", "champion")),
        )
    name, alias, version = match.groups()
    return registry.version_at(name, alias) if alias else registry.version(name, version)


def champion_profile(project: Project, registry: Registry) -> tuple[str, Profile | None]:
    """The champion's version, and the profile of its training data; None when there is none."""
    champion = champion_version(project, registry)
    if champion is None:
        return "", None
    digest = champion.tags.get(f"{TAG}evidence_digest", "")
    if not checked_digest(digest):
        return champion.version, None
    text = registry.read_text(champion.run_id, f"{evidence_folder(digest)}/profile.json")
    return champion.version, Profile.from_json(json.loads(text)) if text is not None else None
