"""What DVC recorded of data, in `dvc.lock` and `*.dvc` files, read without DVC."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from mlcicd.core.digests import digest_tree
from mlcicd.core.errors import InputError
from mlcicd.training.dvc_hash import directory_entry, dvc_md5

_NOT_OURS = frozenset({"__pycache__", "site-packages", "node_modules"})


@dataclass(frozen=True)
class Recorded:
    """What a record says of a path: its MD5 (`.dir` at the end for a directory), and which record it is.

    `origin` is the `.dvc` file, or `dvc.lock` and the stage.
    """

    md5: str
    origin: str
    legacy: bool = False

    @property
    def by_stage(self) -> bool:
        return not self.origin.endswith(".dvc")


@dataclass(frozen=True)
class DvcRecords:
    """The records of a project: path, relative to its root, to what is recorded of it."""

    root: Path
    outputs: Mapping[str, Recorded]

    def covering(self, path: str) -> tuple[str, Recorded] | None:
        """The record of a path, or of the nearest directory above it that has one."""
        at = PurePosixPath(normal(path))
        for candidate in (at, *at.parents):
            if str(candidate) in self.outputs:
                return str(candidate), self.outputs[str(candidate)]
        return None

    def digest(self, path: str) -> str:
        """Digest of data, the same whether it is here or not: DVC's, unless what is here differs from that.

        Returns an empty text when it is neither here nor recorded.

        Raises:
            InputError: what is here can not be read.
        """
        here = self.root / path
        covering = self.covering(path)
        if covering is None:
            return digest_tree(here) if here.exists() else ""
        owner, recorded = covering
        inner = PurePosixPath(normal(path)).relative_to(owner).as_posix()
        known = f"md5:{recorded.md5}" + ("" if inner == "." else f"/{inner}")
        if not here.exists() or self._unchanged(path, owner, inner, recorded):
            return known
        return digest_tree(here)

    def _unchanged(self, path: str, owner: str, inner: str, recorded: Recorded) -> bool:
        if inner == ".":
            return matches(self.root, path, recorded.md5, legacy=recorded.legacy)
        entry = directory_entry(self.root, recorded.md5, inner)
        if entry:
            return matches(self.root, path, entry, legacy=recorded.legacy)
        return matches(self.root, owner, recorded.md5, legacy=recorded.legacy)


def matches(root: Path, path: str, md5: str, *, legacy: bool) -> bool:
    """Whether what is at a path is what DVC recorded.

    Raises:
        InputError: it can not be read.
    """
    here = root / path
    if here.is_dir() != md5.endswith(".dir"):
        return False
    return dvc_md5(here, root=root, legacy=legacy) == md5


def read_records(root: Path) -> DvcRecords:
    """Reads all records of a project.

    Raises:
        InputError: a record is not what DVC writes.
    """
    outputs: dict[str, Recorded] = {}
    for file in dvc_files(root):
        if file.name == "dvc.lock":
            for name, stage in locked_stages(file).items():
                at = file.relative_to(root).as_posix()
                outputs.update(_outputs(root, file, stage, f"{at}: {name}", _folder(file, stage)))
        elif file.suffix == ".dvc":
            record = read_mapping(file)
            outputs.update(_outputs(root, file, record, file.relative_to(root).as_posix(), _folder(file, record)))
    return DvcRecords(root, outputs)


def dvc_files(root: Path) -> Iterator[Path]:
    """The `dvc.yaml`, `dvc.lock` and `*.dvc` files of a project, in the order of their paths."""
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if not name.startswith(".") and name not in _NOT_OURS)
        for name in sorted(files):
            if name in ("dvc.yaml", "dvc.lock") or (name.endswith(".dvc") and name != ".dvc"):
                yield Path(folder, name)


def locked_stages(lock: Path) -> dict[str, dict[str, Any]]:
    """The stages of a `dvc.lock`, by name.

    Raises:
        InputError: it is not what DVC writes.
    """
    content = read_mapping(lock)
    stages = content.get("stages") or {}
    # Before the schema of DVC 2, the stages stood at the top.
    if not isinstance(stages, dict) or not all(isinstance(stage, dict) for stage in stages.values()):
        raise InputError("this DVC record has no mapping of stages", where=str(lock))
    wdirs = _wdirs(lock.with_name("dvc.yaml"))
    return {name: {**stage, "wdir": wdirs.get(name.partition("@")[0], ".")} for name, stage in stages.items()}


def _wdirs(pipeline: Path) -> dict[str, str]:
    """The `wdir` of stages, to which the paths of the lock are relative."""
    if not pipeline.is_file():
        return {}
    stages = read_mapping(pipeline).get("stages")
    found = {}
    for name, stage in (stages if isinstance(stages, dict) else {}).items():
        body = stage.get("do", stage) if isinstance(stage, dict) else {}
        if isinstance(body, dict) and isinstance(body.get("wdir"), str):
            found[str(name)] = body["wdir"]
    return found


def entries(record: Mapping[str, Any], key: str, where: Path) -> list[dict[str, Any]]:
    """The `deps` or `outs` of a record.

    Raises:
        InputError: they are no list of mappings with a path.
    """
    found = record.get(key) or []
    if not isinstance(found, list) or not all(isinstance(e, dict) and isinstance(e.get("path"), str) for e in found):
        raise InputError(f"this DVC record has {key} that are no list of paths", where=str(where))
    return found


def is_legacy(entry: Mapping[str, Any]) -> bool:
    """Whether a digest was made by DVC before 3.0, which did not say `hash: md5`."""
    return entry.get("hash") != "md5"


def normal(path: str) -> str:
    return Path(os.path.normpath(path)).as_posix()


def _folder(file: Path, record: Mapping[str, Any]) -> Path:
    wdir = record.get("wdir")
    return file.parent / (wdir if isinstance(wdir, str) else ".")


def _outputs(
    root: Path, file: Path, record: Mapping[str, Any], origin: str, folder: Path
) -> Iterator[tuple[str, Recorded]]:
    for out in entries(record, "outs", file):
        md5 = out.get("md5")
        if isinstance(md5, str) and md5:
            yield relative_to_root(root, folder, out["path"]), Recorded(md5, origin, is_legacy(out))


_LONGEST_PATH = 4096


def relative_to_root(root: Path, folder: Path, path: str) -> str:
    """A path of a DVC file in `folder`, as it is called from the project's root.

    Raises:
        InputError: it is longer than any file system takes, or holds a NUL.
    """
    if len(path) > _LONGEST_PATH or "\0" in path or any(len(part.encode()) > 255 for part in path.split("/")):
        raise InputError(f"this is no path: {path[:80]!r}…", where=str(folder))
    return Path(os.path.relpath(folder / path, root)).as_posix()


def read_mapping(path: Path) -> dict[str, Any]:
    """A DVC file, all scalars as text (a digest of digits alone is no number).

    Raises:
        InputError: it can not be read, or is no mapping.
    """
    try:
        loaded = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506  (makes only text)
    except (yaml.YAMLError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise InputError(
            "this DVC record can not be read",
            where=str(path),
            why=str(error),
            remedy="mend it (a merge left half-done?), or take it from Git again",
        ) from error
    if loaded in (None, ""):
        return {}
    if not isinstance(loaded, dict):
        raise InputError("this DVC record is not a mapping", where=str(path))
    return loaded
