"""DVC's own digests, computed without DVC, so that a file can be held against what `dvc.lock` says of it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

from mlcicd.core.errors import InputError

_CHUNK = 1 << 20


def dvc_md5(path: Path, *, root: Path, legacy: bool = False, bytecode: bool = True) -> str:
    """The MD5 that DVC gives a file, or a directory (which ends in `.dir`).

    A directory's is the MD5 of the JSON list of its files' digests and relative paths, without what `.dvcignore`
    names (https://dvc.org/doc/user-guide/project-structure/internal-files).

    Args:
        root: the project, whose `.dvcignore` counts.
        legacy: as DVC before 3.0 did: text with its line ends made those of Unix.
        bytecode: false leaves `__pycache__` out, which DVC does not.

    Raises:
        InputError: it can not be read.
    """
    try:
        if path.is_file():
            return _file_md5(path, legacy=legacy)
        ignored = _ignored(root, path)
        entries = []
        for folder, names, files in os.walk(path, followlinks=True):
            names[:] = [name for name in names if bytecode or name != "__pycache__"]
            for name in files:
                file = Path(folder, name)
                if file not in ignored:
                    relative = file.relative_to(path).as_posix()
                    entries.append({"md5": _file_md5(file, legacy=legacy), "relpath": relative})
    except OSError as error:
        raise InputError(f"can not read it ({error.strerror})", where=str(error.filename or path)) from error
    entries.sort(key=lambda entry: entry["relpath"])
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def directory_entry(root: Path, directory_md5: str, relative: str) -> str:
    """MD5 of one file of a directory that DVC tracks, from the listing in DVC's cache; empty when that is not here."""
    digest = directory_md5.removesuffix(".dir")
    for base in (root / ".dvc/cache/files/md5", root / ".dvc/cache"):
        listing = base / digest[:2] / f"{digest[2:]}.dir"
        try:
            entries = json.loads(listing.read_bytes())
            return next((str(e["md5"]) for e in entries if e["relpath"] == relative), "")
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return ""


def _file_md5(path: Path, *, legacy: bool) -> str:
    found = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        head = file.read(512)
        file.seek(0)
        text = legacy and _is_text(head)
        held = b""
        while chunk := file.read(_CHUNK):
            if text:
                # A line's end may be cut in two by the end of a chunk.
                chunk, held = held + chunk, b""
                if chunk.endswith(b"\r"):
                    chunk, held = chunk[:-1], b"\r"
                chunk = chunk.replace(b"\r\n", b"\n")
            found.update(chunk)
        found.update(held)
    return found.hexdigest()


def _is_text(head: bytes) -> bool:
    """No zero byte, and at most three in ten that are neither printable ASCII nor white space (as DVC 2 decided)."""
    if not head:
        return True
    if b"\0" in head:
        return False
    printable = bytes(range(32, 127)) + b"\n\r\t\f\b"
    return len(head.translate(None, printable)) / len(head) <= 0.3


def _ignored(root: Path, folder: Path) -> set[Path]:
    """The files of a folder that the project's `.dvcignore` names; Git reads the same pattern language."""
    patterns = root / ".dvcignore"
    if not patterns.is_file():
        return set()
    lines = patterns.read_text(encoding="utf-8", errors="replace").splitlines()
    if not any(line.strip() and not line.lstrip().startswith("#") for line in lines):
        return set()
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--ignored"]
    command += [f"--exclude-from={patterns}", "--", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        # Not a Git repository: then everything counts, and the worst is a finding too many.
        return set()
    return {root / os.fsdecode(name) for name in done.stdout.split(b"\0") if name}
