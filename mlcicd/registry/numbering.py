"""Semantic versions of registered versions: given once, under the model's lock, and never again to another one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mlcicd.core.errors import ConfigError
from mlcicd.registry.tracking import TAG, RegisteredVersion

SEMVER, SIGNATURE = f"{TAG}semver", f"{TAG}signature"
FIRST = "v1.0.0"
_SEMVER = re.compile(r"v(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})")


@dataclass(frozen=True)
class Numbering:
    """How a new version is numbered.

    Args:
        signature: digest of what the model takes and gives; empty when it does not say.
        wanted: the semantic version that the configuration asks for; empty for the next one.
    """

    signature: str = ""
    wanted: str = ""


def semver_of(version: RegisteredVersion) -> str:
    """The semantic version of a version, such as `v1.2.0`; empty where it has none, or something that is none."""
    text = version.tags.get(SEMVER, "")
    return text if _SEMVER.fullmatch(text) else ""


def next_semver(versions: Sequence[RegisteredVersion], numbering: Numbering) -> str:
    """The semantic version of a new version: the wanted one, or the one after the highest.

    It is the next major one when the signature is another than that of the highest, so that those who call the model
    must look; else the next minor one. The first is v1.0.0.

    Args:
        versions: all others of the model.

    Raises:
        ConfigError: another version has the wanted one, or none comes after the highest.
    """
    numbered = {_parts(semver_of(v)): v for v in reversed(versions) if semver_of(v)}
    if numbering.wanted:
        holder = numbered.get(_parts(numbering.wanted))
        if holder is not None:
            raise ConfigError(
                f"{numbering.wanted} is version {holder.version} of {holder.name!r} already",
                why="register.version names the version of a model with other content.",
                remedy="raise register.version in mlcicd.yaml, or leave it out",
            )
        return numbering.wanted
    if not numbered:
        return FIRST
    highest = max(numbered)
    if numbered[highest].tags.get(SIGNATURE, "") != numbering.signature:
        following = f"v{highest[0] + 1}.0.0"
    else:
        following = f"v{highest[0]}.{highest[1] + 1}.0"
    if not _SEMVER.fullmatch(following):
        # It would be read as none, and be given again and again.
        holder = numbered[highest]
        raise ConfigError(
            f"no semantic version comes after {semver_of(holder)} of version {holder.version} of {holder.name!r}",
            why="A number has nine digits at most.",
            remedy=f"correct the tag {SEMVER} of version {holder.version}, or set register.version in mlcicd.yaml",
        )
    return following


def _parts(text: str) -> tuple[int, int, int]:
    found = _SEMVER.fullmatch(text)
    assert found is not None
    major, minor, patch = (int(part) for part in found.groups())
    return major, minor, patch
