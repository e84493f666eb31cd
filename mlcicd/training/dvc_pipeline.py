"""Whether `dvc.lock` still is what `dvc.yaml`, its parameters and its data say, without DVC and without the data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlcicd.core.digests import digest_json
from mlcicd.core.errors import InputError
from mlcicd.training.dvc_hash import dvc_md5
from mlcicd.training.dvc_params import chosen_values, load_params, same_value, value_at
from mlcicd.training.dvc_records import (
    DvcRecords,
    dvc_files,
    entries,
    is_legacy,
    locked_stages,
    matches,
    normal,
    read_mapping,
    read_records,
    relative_to_root,
)

_OUTPUTS = ("outs", "metrics", "plots")
_DEFAULT_PARAMS = "params.yaml"


@dataclass(frozen=True)
class Stage:
    """A stage as `dvc.yaml` defines it and as `dvc.lock` knows it; the paths are relative to the project's root.

    `key` is its name within its file. `templated`: DVC makes its text from variables, so only the lock's side of it can
    be read here.
    """

    name: str
    key: str
    root: Path
    file: str
    folder: Path
    definition: Mapping[str, Any]
    templated: bool
    deps: frozenset[str] = frozenset()
    outs: frozenset[str] = frozenset()
    locked: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Pipeline:
    """The DVC side of a project: its stages and its records of data."""

    root: Path
    stages: Sequence[Stage] = ()
    records: DvcRecords = field(default_factory=lambda: DvcRecords(Path(), {}))

    def relevant(self, paths: Sequence[str]) -> list[Stage]:
        """The stages that make any of these paths, and those that make what they read."""
        wanted, found = {normal(path) for path in paths if path}, list[Stage]()
        while True:
            new = [s for s in self.stages if s not in found and any(_overlap(o, w) for o in s.outs for w in wanted)]
            if not new:
                return [stage for stage in self.stages if stage in found]
            found += new
            wanted |= {dep for stage in new for dep in stage.deps}

    def making(self, paths: Sequence[str], *, apart_from: Sequence[str]) -> list[Stage]:
        """The stages that make these paths (all stages where none is declared to), but for those that make others."""
        others = self.relevant(apart_from)
        return [stage for stage in self.relevant(paths) or self.stages if stage not in others]

    def makes(self, path: str) -> bool:
        return any(_overlap(out, normal(path)) for stage in self.stages for out in stage.outs)

    def sources(self, stages: Sequence[Stage]) -> list[str]:
        """What these stages read and none of them makes."""
        made = {out for stage in stages for out in stage.outs}
        deps = {dep for stage in stages for dep in stage.deps}
        return sorted(dep for dep in deps if not any(_overlap(out, dep) for out in made))

    def identity(self, stages: Sequence[Stage], *, apart_from: Sequence[str] = ()) -> str:
        """Digest of what these stages would make: their definitions, parameters and sources as they are now.

        What a stage makes for another is not part of it: that follows from the rest.

        Args:
            apart_from: sources that do not count.
        """
        if not stages:
            return ""
        about = [
            [s.name, s.definition, {f: chosen_values(self.root / f, k) for f, k in _params(s).items()}] for s in stages
        ]
        left_out = [normal(path) for path in apart_from]
        sources = [path for path in self.sources(stages) if not any(_overlap(path, other) for other in left_out)]
        return digest_json([about, [[path, self._source(path)] for path in sources]])

    def _source(self, path: str) -> str:
        here = self.root / path
        if self.records.covering(path) is not None or not here.exists():
            return self.records.digest(path)
        return dvc_md5(here, root=self.root, bytecode=False)


def read_pipeline(root: Path) -> Pipeline:
    """Reads the `dvc.yaml`, `dvc.lock` and `*.dvc` files of a project.

    Raises:
        InputError: one of them is not what DVC reads or writes.
    """
    stages: list[Stage] = []
    for file in dvc_files(root):
        if file.name == "dvc.yaml":
            stages += _stages(root, file)
    return Pipeline(root, stages, read_records(root))


def stale(pipeline: Pipeline, stages: Sequence[Stage]) -> dict[str, list[str]]:
    """Why stages are not what `dvc.lock` says: name of the stage to reasons. A fresh stage is not in it.

    Raises:
        InputError: something that is here can not be read.
    """
    found = {}
    for stage in stages:
        if stage.definition.get("frozen") != "true":
            reasons = list(_reasons(pipeline, stage))
            if reasons:
                found[stage.name] = reasons
    return found


def _reasons(pipeline: Pipeline, stage: Stage) -> Iterator[str]:
    if stage.locked is None:
        yield "dvc.lock does not know it: it has not run, or its lock was not committed"
        return
    lock = Path(stage.file).with_name("dvc.lock")
    deps = entries(stage.locked, "deps", pipeline.root / lock)
    if not stage.templated:
        if _commands(stage.definition.get("cmd")) != _commands(stage.locked.get("cmd")):
            yield "its command changed"
        outs = {
            relative_to_root(pipeline.root, stage.folder, out["path"])
            for out in entries(stage.locked, "outs", pipeline.root / lock)
        }
        for kind, then, now in (
            ("reads", {relative_to_root(pipeline.root, stage.folder, dep["path"]) for dep in deps}, stage.deps),
            ("makes", outs, stage.outs),
        ):
            for path in sorted(now - then):
                yield f"it now {kind} {path}"
            for path in sorted(then - now):
                yield f"it no longer {kind} {path}"
    for dep in deps:
        yield from _dep_reasons(pipeline, stage, dep)
    yield from _param_reasons(stage)


def _dep_reasons(pipeline: Pipeline, stage: Stage, dep: Mapping[str, Any]) -> Iterator[str]:
    path, md5 = relative_to_root(pipeline.root, stage.folder, dep["path"]), dep.get("md5")
    if not isinstance(md5, str):
        # A URL or a cloud's version: only DVC can ask for it.
        return
    if not stage.templated and path not in stage.deps:
        return
    covering = pipeline.records.covering(path)
    here = pipeline.root / path
    if covering is not None and covering[0] == path and covering[1].md5 != md5:
        yield f"{covering[1].origin} names other content of {path} than it was run with"
    elif here.exists():
        if not matches(pipeline.root, path, md5, legacy=is_legacy(dep)):
            yield f"{path} changed"
    elif covering is None:
        yield f"{path} is not here, and DVC has no record of it"
    elif covering[0] != path:
        inner = path.removeprefix(covering[0] + "/")
        known = pipeline.records.digest(path).removeprefix("md5:")
        if known == f"{covering[1].md5}/{inner}" and not _recorded_then(stage, covering[0], covering[1].md5):
            yield f"whether {path} changed can not be told without {covering[0]}"


def _recorded_then(stage: Stage, owner: str, md5: str) -> bool:
    """Whether the stage ran with this very directory as a whole."""
    deps = (stage.locked or {}).get("deps") or []
    return any(dep.get("path") == owner and dep.get("md5") == md5 for dep in deps)


def _param_reasons(stage: Stage) -> Iterator[str]:
    locked: dict[str, dict[str, Any]] = {}
    for file, values in _locked_params(stage).items():
        relative = relative_to_root(stage.root, stage.folder, file)
        locked[relative] = values
        if not (stage.root / relative).is_file():
            yield f"{relative} is not here"
        elif not relative.endswith(".py"):
            now = load_params(stage.root / relative)
            for key, value in values.items():
                if not same_value(value_at(now, key), value):
                    yield f"{key} in {relative} changed"
    if not stage.templated:
        for relative, keys in _params(stage).items():
            for key in keys or []:
                if key not in locked.get(relative, {}):
                    yield f"it now reads {key} of {relative}"


def _stages(root: Path, file: Path) -> Iterator[Stage]:
    lock = file.with_name("dvc.lock")
    locked = locked_stages(lock) if lock.is_file() else {}
    stages = read_mapping(file).get("stages") or {}
    if not isinstance(stages, dict):
        raise InputError("its stages are no mapping", where=str(file))
    at = file.relative_to(root).as_posix()
    prefix = "" if at == "dvc.yaml" else f"{file.parent.relative_to(root).as_posix()}:"
    for name, definition in stages.items():
        if not isinstance(definition, dict):
            raise InputError(f"the stage {name!r} is no mapping", where=str(file))
        body = definition.get("do", definition)
        body = body if isinstance(body, dict) else {}
        many = "foreach" in definition or "matrix" in definition
        templated = many or "${" in json.dumps(definition)
        wdir = body.get("wdir")
        folder = file.parent / (wdir if isinstance(wdir, str) and "${" not in wdir else ".")
        names = [n for n in locked if n.partition("@")[0] == name] if many else [name]
        for one in names or [name]:
            known = locked.get(one)
            defined = known if templated and known is not None else body
            yield Stage(
                name=prefix + one,
                key=one,
                root=root,
                file=at,
                folder=folder,
                definition=definition,
                templated=templated,
                deps=frozenset(relative_to_root(root, folder, p) for p in _paths(defined.get("deps"))),
                outs=frozenset(relative_to_root(root, folder, p) for key in _OUTPUTS for p in _paths(defined.get(key))),
                locked=known,
            )


def _paths(items: Any) -> Iterator[str]:
    """The paths of `deps` or `outs`, which are texts, mappings of a path to its settings, or a lock's entries."""
    for item in items if isinstance(items, list) else []:
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict) and "path" in item:
            yield str(item["path"])
        elif isinstance(item, dict):
            yield from map(str, item)


def _params(stage: Stage) -> dict[str, list[str] | None]:
    """Parameter files of a stage, relative to the project's root, and the keys it reads; None for all of the file."""
    found: dict[str, list[str] | None] = {}
    for item in stage.definition.get("params") or []:
        for file, keys in (item if isinstance(item, dict) else {_DEFAULT_PARAMS: [item]}).items():
            relative = relative_to_root(stage.root, stage.folder, str(file))
            if isinstance(keys, list):
                found[relative] = [*(found.get(relative) or []), *map(str, keys)]
            else:
                found[relative] = None
    return found


def _locked_params(stage: Stage) -> dict[str, dict[str, Any]]:
    """The values that a stage was run with: file (as the lock names it) to dotted key to value."""
    lock = load_params(stage.root / Path(stage.file).with_name("dvc.lock"))
    name = stage.key
    params = lock["stages"][name].get("params") or {} if stage.locked is not None else {}
    if not isinstance(params, dict):
        raise InputError(f"the params of {name!r} are no mapping", where=str(stage.file))
    return {str(file): values for file, values in params.items() if isinstance(values, dict)}


def _commands(cmd: Any) -> list[str]:
    return [str(one).strip() for one in (cmd if isinstance(cmd, list) else [cmd])]


def _overlap(one: str, other: str) -> bool:
    """Whether two paths are the same, or one is inside of the other."""
    return one == other or other.startswith(f"{one}/") or one.startswith(f"{other}/")
