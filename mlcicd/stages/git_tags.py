"""Git tags in GTO's form, where `register.git_tags` asks for them: `name@v3`, `name#champion#2`.

They are annotated and stay in this clone; who wants a push to trigger something pushes them: `git push --tags`.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from mlcicd.core.errors import MlcicdError, ServiceError, redact
from mlcicd.core.verdict import Check, CheckStatus, Severity
from mlcicd.registry import RegisteredVersion
from mlcicd.registry.tracking import TAG
from mlcicd.stages.record import Record

_COMMIT = re.compile(r"[0-9a-f]{40,64}")


def tag_registration(record: Record, version: RegisteredVersion) -> None:
    """`name@v3` on the commit that the version was made from. Nothing where it is not asked for, or is there."""
    if record.project.config.register_.git_tags:
        _tagged(record, version, lambda root, commit: _make(root, f"{version.name}@v{version.version}", commit))


def tag_promotion(record: Record, version: RegisteredVersion) -> None:
    """`name#champion#2` on the commit of the version; the last number counts the promotions.

    Run again, it is the same tag: a version that the newest of these tags names already gets no further one.
    """
    rules = record.project.config.register_
    if not rules.git_tags:
        return
    base = f"{version.name}#{rules.champion_alias}#"

    def make(root: Path, commit: str) -> str:
        known = sorted(int(n) for n in (t.removeprefix(base) for t in _list(root, base)) if n.isdigit())
        if known and _git(root, "for-each-ref", "--format=%(contents:subject)", f"refs/tags/{base}{known[-1]}") == (
            _message(version)
        ):
            return f"{base}{known[-1]}"
        return _make(root, f"{base}{(known[-1] if known else 0) + 1}", commit, _message(version))

    _tagged(record, version, make)


def _tagged(record: Record, version: RegisteredVersion, make: object) -> None:
    """A tag that can not be made is a warning: the registry has been written, and is what counts."""
    assert callable(make)
    commit = version.tags.get(f"{TAG}git_commit", "")
    try:
        if not _COMMIT.fullmatch(commit):
            raise ServiceError("the version names no commit")
        record.outputs["git-tag"] = make(record.project.root, commit)
    except MlcicdError as error:
        record.checks.append(
            Check(
                name="git tag",
                status=CheckStatus.FAILED,
                severity=Severity.WARN,
                reason=error.one_line(),
                remedy="run the same command again in a clone that has the version's commit",
            )
        )


def _make(root: Path, tag: str, commit: str, message: str = "") -> str:
    if tag not in _list(root, tag):
        _git(root, "tag", "--annotate", "--message", message or tag, tag, commit)
    return tag


def _message(version: RegisteredVersion) -> str:
    return f"{version.name} version {version.version}"


def _list(root: Path, prefix: str) -> list[str]:
    return [tag for tag in _git(root, "tag", "--list").splitlines() if tag.startswith(prefix)]


def _git(root: Path, *arguments: str) -> str:
    # A runner has no identity; the tag still says who ran it where git knows.
    identity = ["-c", "user.useConfigOnly=false"]
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *identity, *arguments], capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServiceError("git could not be run", why=str(error)) from error
    if done.returncode != 0:
        said = redact(done.stderr.strip().splitlines()[-1]) if done.stderr.strip() else "no reason given"
        raise ServiceError(f"git {arguments[0]} failed: {said}", where=str(root))
    return done.stdout.strip()
