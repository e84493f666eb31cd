"""A file as it was at a revision of the repository, without a checkout of everything."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from mlcicd.core.errors import InputError, ServiceError, redact

LIMIT_SECONDS = 3600


def at_revision(path: Path, revision: str, folder: Path, *, search: str | None = None) -> Path:
    """Brings a file (with DVC, a directory too) of a git revision into a folder.

    What git keeps comes from git (through its filters, so that LFS pointers become the content), what DVC keeps comes
    with the `dvc` on PATH, which pulls just that.

    Args:
        path: where it is now, or would be; its name decides how it is read.
        revision: branch, tag or commit.
        folder: it is written there under its own name.
        search: the PATH that `dvc` is looked for on; that of this process when None.

    Raises:
        InputError: there is no such revision, or neither git nor DVC has the path in it.
        ServiceError: git or DVC failed, or is not installed.
    """
    place = path.resolve()
    if revision.startswith("-"):
        raise InputError(f"not a revision: {revision!r}")
    root = _repository(place)
    name = place.relative_to(root).as_posix()
    if _git(root, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").returncode:
        raise InputError(
            f"there is no revision {revision!r}",
            where=str(root),
            remedy="fetch it first (a shallow checkout has one commit; use fetch-depth: 0)",
        )
    target = folder / place.name
    kind = _git(root, "cat-file", "-t", f"{revision}:{name}").stdout.decode().strip()
    if kind == "blob":
        _from_git(root, revision, name, target)
    else:
        _from_dvc(root, revision, name, target, search)
    return target


def _from_git(root: Path, revision: str, name: str, target: Path) -> None:
    with target.open("wb") as out:
        done = subprocess.run(
            ["git", "-C", str(root), "cat-file", "--filters", f"{revision}:{name}"],
            stdout=out,
            stderr=subprocess.PIPE,
            check=False,
            timeout=LIMIT_SECONDS,
        )
    if done.returncode:
        raise ServiceError(f"git could not read {name} at {revision}", where=str(root), why=_said(done.stderr))


def _from_dvc(root: Path, revision: str, name: str, target: Path, search: str | None) -> None:
    program = shutil.which("dvc", path=search)
    if program is None:
        raise ServiceError(
            f"git does not keep {name} at {revision}, and DVC is not installed",
            where=str(root),
            remedy="pip install dvc, if DVC keeps it; else name two files instead of a revision",
        )
    done = subprocess.run(
        [program, "get", "--quiet", str(root), name, "--rev", revision, "--out", str(target)],
        capture_output=True,
        check=False,
        timeout=LIMIT_SECONDS,
        cwd=root,
    )
    if done.returncode or not target.exists():
        raise InputError(
            f"neither git nor DVC has {name} at {revision}",
            where=str(root),
            why=_said(done.stderr),
            remedy="check the path, and that the DVC remote has that version (dvc push)",
        )


def _repository(path: Path) -> Path:
    for folder in path.parents:
        if (folder / ".git").exists():
            return folder
    raise InputError("this is not in a git repository", where=str(path), remedy="name two files instead of a revision")


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=False, timeout=60)
    except OSError as error:
        raise ServiceError("git does not run", why=str(error), remedy="install git") from error


def _said(stderr: bytes) -> str:
    lines = [line for line in redact(stderr.decode("utf-8", "replace")).splitlines() if line.strip()]
    return "; ".join(lines[-2:])[:400]
