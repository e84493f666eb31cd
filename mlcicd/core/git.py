"""What git knows about the project: commit, branch, whether there are changes that are not committed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mlcicd.core.errors import InputError, ServiceError

_CHECKOUT = 1800  # seconds; large files come through their filters


@dataclass(frozen=True)
class GitState:
    """`commit` is empty outside a repository, or in one without a commit."""

    commit: str = ""
    dirty: bool = False
    branch: str = ""


class Kept(StrEnum):
    """Whether git has a file as it stands."""

    COMMITTED = "committed"
    CHANGED = "changed"
    UNTRACKED = "untracked"
    NO_REPOSITORY = "no repository"


def kept(path: Path) -> Kept:
    """Whether the last commit has a file as it stands, by its content: flags of the index can hide a change, and so
    can filters and objects that stand for others (`git replace`), which are a clone's own settings.

    Line ends may differ as git may check them out. A file that the commit has and the folder has not is `CHANGED`.
    """
    root = path.parent.resolve()
    if not _in_repository(root):
        return Kept.NO_REPOSITORY
    blob = _git(root, "rev-parse", "--verify", "--quiet", f"HEAD:./{path.name}")
    if not blob:
        return Kept.UNTRACKED
    try:
        content = path.read_bytes()
    except OSError:
        return Kept.CHANGED
    forms = (content, content.replace(b"\r\n", b"\n"))
    same = any(_git(root, "hash-object", "--stdin", "--no-filters", given=form) == blob for form in forms)
    return Kept.COMMITTED if same else Kept.CHANGED


def _in_repository(root: Path) -> bool:
    return any((folder / ".git").exists() for folder in (root, *root.parents))


def git_state(root: Path) -> GitState:
    """The state of the repository that holds `root`; an empty one outside of a repository.

    Raises:
        ServiceError: there is a repository, and git does not read it.
    """
    if not _in_repository(root):
        return GitState()
    # In a repository, git must answer: without the commit, stale evidence would pass for fresh.
    if not _git(root, "rev-parse", "--git-dir"):
        raise ServiceError(
            "git does not read this repository",
            where=str(root),
            why="It is not installed, or the folder belongs to another user (container jobs).",
            remedy="install git, or run: git config --global --add safe.directory <folder>",
        )
    commit = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    if not commit:
        return GitState()
    # Untracked files can change what a training command does, so they count; ignored ones do not.
    dirty = bool(_git(root, "status", "--porcelain", "--", "."))
    return GitState(commit, dirty, _git(root, "rev-parse", "--abbrev-ref", "HEAD"))


def _git(root: Path, *arguments: str, given: bytes = b"") -> str:
    command = ["git", "--no-replace-objects", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, input=given, capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else ""


def commits_that_name(root: Path, text: str, *files: str) -> list[str]:
    """The commits of any branch after which a text stands in files where it did not before (or the other way round).

    Args:
        files: git's patterns of the files that are looked at.
    """
    return _git(root, "log", "--all", "--reverse", "--format=%H", f"-S{text}", "--", *files).split()


@contextmanager
def worktree(root: Path, commit: str, folder: Path) -> Iterator[Path]:
    """A checkout of a commit beside the one there is, removed at the end; gives the place of `root` in it.

    Hooks do not run: those of DVC and LFS tools would fetch data that nobody asked for.

    Args:
        root: a folder of the repository.
        folder: where; what an interrupted call has left there is removed.

    Raises:
        InputError: the repository has no such commit, or it has no such folder.
        ServiceError: git could not check it out.
    """
    if not commit or not _git(root, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"):
        raise InputError(
            f"the commit {commit[:9]} is not in this clone" if commit else "it is not known from which commit it is",
            where=str(root),
            remedy="fetch it (actions/checkout with `fetch-depth: 0`)" if commit else "train from a commit",
        )
    inside = _git(root, "rev-parse", "--show-prefix")
    _remove_worktree(root, folder)
    command = ["git", "-c", "core.hooksPath=/dev/null", "-C", str(root), "worktree", "add", "--quiet", "--detach"]
    try:
        done = subprocess.run([*command, str(folder), commit], capture_output=True, check=False, timeout=_CHECKOUT)
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
            raise ServiceError(f"git could not check out {commit[:9]}", where=str(folder), why="".join(said))
        if not (folder / inside).is_dir():
            raise InputError(f"the commit {commit[:9]} has no folder {inside}", where=str(root))
        yield folder / inside
    finally:
        _remove_worktree(root, folder)


def _remove_worktree(root: Path, folder: Path) -> None:
    _git(root, "worktree", "remove", "--force", "--force", str(folder))
    shutil.rmtree(folder, ignore_errors=True)
    _git(root, "worktree", "prune")
