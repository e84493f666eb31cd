"""Git tags in GTO's form, where `register.git_tags` asks for them: `name@v1.2.0`, `name#production#3`.

They are annotated and stay in this clone; who wants a push to trigger something pushes them: `git push --tags`.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from mlcicd.core.errors import MlcicdError, ServiceError, redact
from mlcicd.core.verdict import Check, CheckStatus, Severity
from mlcicd.registry import RegisteredVersion
from mlcicd.registry.numbering import semver_of
from mlcicd.registry.tracking import TAG
from mlcicd.stages.record import Record

_COMMIT = re.compile(r"[0-9a-f]{40,64}")
# Two commands in one clone want the same number; the one that comes later counts again.
_ATTEMPTS = 5


def tag_registration(record: Record, version: RegisteredVersion) -> None:
    """`name@v1.2.0` on the commit that the version was made from. Nothing where it is not asked for, or is there."""

    def make(root: Path, commit: str, version: RegisteredVersion) -> str:
        tag = f"{version.name}@{_semver(version)}"
        if tag not in _tags(root) and not _made(root, tag, commit, _message(version)) and tag not in _tags(root):
            raise ServiceError(f"git did not make the tag {tag}")
        if _subject(root, tag) != _message(version) or _git(root, "rev-parse", f"{tag}^{{commit}}") != commit:
            raise ServiceError(f"the tag {tag} is there already, and names something else")
        return tag

    _tagged(record, version, make)


def tag_stage(record: Record, environment: str, version: RegisteredVersion | Callable[[], RegisteredVersion]) -> None:
    """`name#production#3` on the commit of the version that is there now.

    The last number counts all such tags of the model, as GTO counts them. Run again, it is the same tag: where the
    newest one of the environment names this version, no further one is made.
    """

    def make(root: Path, commit: str, version: RegisteredVersion) -> str:
        for _attempt in range(_ATTEMPTS):
            known = _counted(root, version.name)
            here = [number for number, stage in known.items() if stage == environment]
            tag = f"{version.name}#{environment}#{max(here, default=0)}"
            if here and _subject(root, tag) == _message(version):
                return tag
            tag = f"{version.name}#{environment}#{max(known, default=0) + 1}"
            if _made(root, tag, commit, _message(version)):
                return tag
        raise ServiceError(f"git did not make the tag {tag}")

    _tagged(record, version, make)


def _tagged(
    record: Record,
    which: RegisteredVersion | Callable[[], RegisteredVersion],
    make: Callable[[Path, str, RegisteredVersion], str],
) -> None:
    """A tag that can not be made is a warning: the registry has been written, and is what counts."""
    if not record.project.config.register_.git_tags:
        return
    try:
        version = which if isinstance(which, RegisteredVersion) else which()
        commit = version.tags.get(f"{TAG}git_commit", "")
        if not _COMMIT.fullmatch(commit):
            raise ServiceError("the version names no commit")
        record.outputs["git-tag"] = make(record.project.root, commit, version)
    except MlcicdError as error:
        record.checks.append(
            Check(
                name="git tag",
                status=CheckStatus.FAILED,
                severity=Severity.WARN,
                reason=error.one_line(),
                remedy="run the same command again in a clone that has the version's commit, and all tags",
            )
        )


def _semver(version: RegisteredVersion) -> str:
    number = semver_of(version)
    if not number:
        raise ServiceError(
            f"version {version.version} has no semantic version", remedy="register it again: it is the same version"
        )
    return number


def _message(version: RegisteredVersion) -> str:
    """What the tag is about; by it the tag is known again."""
    number = f" {semver_of(version)}" if semver_of(version) else ""
    return f"{version.name}{number}, version {version.version}"


def _counted(root: Path, name: str) -> dict[int, str]:
    """The tags `name#stage#number`: number to stage."""
    found = {}
    for tag in _tags(root):
        parts = tag.removeprefix(f"{name}#").rpartition("#")
        if tag.startswith(f"{name}#") and re.fullmatch(r"[0-9]{1,9}", parts[2]):
            found[int(parts[2])] = parts[0].removesuffix("!")
    return found


def _made(root: Path, tag: str, commit: str, message: str) -> bool:
    """Makes a tag; False when there is one of that name by now."""
    try:
        _git(root, "tag", "--annotate", "--message", message, tag, commit, environ=_tagger(root))
    except ServiceError:
        if tag in _tags(root):
            return False
        raise
    return True


def _tagger(root: Path) -> Mapping[str, str]:
    """Who makes a tag, where git knows nobody: a runner has no identity, and an annotated tag needs one."""
    try:
        _git(root, "var", "GIT_COMMITTER_IDENT")
    except ServiceError:
        return {"GIT_COMMITTER_NAME": "mlcicd", "GIT_COMMITTER_EMAIL": "mlcicd@localhost"}
    return {}


def _subject(root: Path, tag: str) -> str:
    return _git(root, "for-each-ref", "--format=%(contents:subject)", f"refs/tags/{tag}")


def _tags(root: Path) -> list[str]:
    return _git(root, "tag", "--list").splitlines()


def _git(root: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> str:
    # Also what git makes of the account's name says who ran it.
    identity = ["-c", "user.useConfigOnly=false"]
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *identity, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, **(environ or {})},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServiceError("git could not be run", why=str(error)) from error
    if done.returncode != 0:
        said = redact(done.stderr.strip().splitlines()[-1]) if done.stderr.strip() else "no reason given"
        raise ServiceError(f"git {arguments[0]} failed: {said}", where=str(root))
    return done.stdout.strip()
