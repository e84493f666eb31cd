"""What a training run depends on, in one digest: the same fingerprint is not trained twice."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlcicd.core.digests import digest_bytes, digest_file, digest_json
from mlcicd.core.errors import InputError
from mlcicd.training.dvc_pipeline import Pipeline, read_pipeline

_SHOWN = 5


class DataNotHere(InputError):
    """A data set is neither here nor known to DVC: it has to be made or fetched before anything can be said of it."""


@dataclass(frozen=True)
class Fingerprint:
    """Digests by part (`code`, `data`, `params`, `lock`, `interpreter`, `command`, `pipeline`), and one of them all.

    Attributes:
        files: digests of the single files that `code` and `lock` are made of, by path; to say what changed.
        making: of a training by DVC, digest of the stages that make the model and not its data; else empty.
    """

    parts: Mapping[str, str]
    files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    making: str = ""

    @property
    def digest(self) -> str:
        return digest_json(dict(self.parts))

    @property
    def code_digest(self) -> str:
        """Of all that the model depends on but its training data: code, parameters, environment, command and seed.

        A training by DVC runs the stages that are not up to date, and DVC knows what these read: code and parameters of
        the stages before, which make the data, are no part of it.
        """
        left_out = {"data", "pipeline"} | ({"command", "code", "params"} if self.making else set())
        parts = {name: digest for name, digest in self.parts.items() if name not in left_out}
        return digest_json({**parts, "making": self.making})

    def changed_from(self, parts: Mapping[str, str]) -> list[str]:
        """The names of the parts that differ from another fingerprint's."""
        return sorted(name for name in {*self.parts, *parts} if self.parts.get(name) != parts.get(name))

    def changes_since(self, parts: Mapping[str, str], files: Mapping[str, Mapping[str, str]]) -> list[str]:
        """As `changed_from`, with the files that differ where those are known: `code (train.py, clean.py new)`."""
        return [
            f"{name} ({_told(self.files[name], files[name])})" if name in self.files and name in files else name
            for name in self.changed_from(parts)
        ]


def _told(now: Mapping[str, str], then: Mapping[str, str]) -> str:
    words = [
        path if path in now and path in then else f"{path} {'new' if path in now else 'gone'}"
        for path in sorted({*now, *then})
        if now.get(path) != then.get(path)
    ]
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return ", ".join(words[:_SHOWN]) + more


def fingerprint(
    root: Path,
    *,
    command: Any,
    code: Sequence[str],
    lock: Sequence[str],
    params: str,
    data: Sequence[str],
    python: str,
    seed: int,
    makes: Sequence[str] = (),
    by_dvc: bool = False,
    pipeline: Pipeline | None = None,
) -> Fingerprint:
    """Computes the fingerprint. Data that DVC knows need not be here, and counts the same whether it is or not.

    Args:
        root: the project.
        command: the training command, or what stands for it; a JSON value.
        code: glob patterns of the code.
        lock: glob patterns of the files that pin the environment.
        params: path of the parameter file, or empty.
        data: paths of the data sets; digests come from DVC's own records where those match, else from the content.
        python: the interpreter; its version counts, not its path.
        seed: the seed given to the command.
        makes: paths that the command makes; what the DVC stages that make these, or the data, start from counts.
        by_dvc: the command is DVC's.
        pipeline: the DVC side of the project, when it was read already.

    Raises:
        DataNotHere: a data set is neither here nor known to DVC.
        InputError: there is no parameter file, a DVC record can not be read, or no file matches `code`.
    """
    code_files, lock_files = _digests(root, code), _digests(root, lock)
    if code and not code_files:
        raise InputError(
            f"no file matches train.code {list(code)}",
            where=str(root),
            why="Without the code in the fingerprint, a changed program would be taken for an unchanged one.",
            remedy="correct the patterns under train.code",
        )
    pipeline = pipeline or read_pipeline(root)
    return Fingerprint(
        {
            "command": digest_json([command, seed]),
            "code": _together(code_files),
            "lock": _together(lock_files),
            "params": digest_file(root / params) if params else "",
            "data": digest_json([_data_digest(pipeline, path) for path in data]),
            "pipeline": pipeline.identity(pipeline.relevant([*data, *makes])),
            "interpreter": interpreter_version(python),
        },
        {"code": code_files, "lock": lock_files},
        _making(pipeline, data, makes, seed) if by_dvc else "",
    )


def _making(pipeline: Pipeline, data: Sequence[str], makes: Sequence[str], seed: int) -> str:
    """Digest of the stages that make the model and not the data; empty where the same stages make both."""
    stages = pipeline.making(makes, apart_from=data)
    if not stages:
        return ""
    of_data = {out for stage in pipeline.relevant(data) for out in stage.outs}
    return digest_json([pipeline.identity(stages, apart_from=[*of_data, *data]), seed])


def _data_digest(pipeline: Pipeline, path: str) -> str:
    digest = pipeline.records.digest(path)
    if not digest:
        raise DataNotHere(
            f"{path} is not here, and DVC has no record of it",
            where=str(pipeline.root / path),
            remedy="make it with `dvc repro` or fetch it with `dvc pull`",
        )
    return digest


def interpreter_version(python: str) -> str:
    """`cpython-3.11.7-linux-x86_64`-like version of an interpreter.

    Raises:
        InputError: it does not run.
    """
    program = (
        "import platform as p;"
        "print('-'.join([p.python_implementation().lower(),p.python_version(),p.system().lower(),p.machine()]))"
    )
    try:
        done = subprocess.run([python, "-I", "-c", program], capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError("this interpreter does not run", where=python, why=str(error)) from error
    return done.stdout.strip()


def _digests(root: Path, patterns: Sequence[str]) -> dict[str, str]:
    """Digests of the files that match, by path, in the order of their names."""
    files = sorted({f for pattern in patterns for f in root.glob(pattern) if f.is_file() and _is_own(f, root)})
    return {f.relative_to(root).as_posix(): digest_bytes(f.read_bytes()) for f in files}


def _together(files: Mapping[str, str]) -> str:
    return digest_json(list(files.items())) if files else ""


def _is_own(file: Path, root: Path) -> bool:
    """Not in a hidden folder, nor in an environment that was installed into the project."""
    folders = file.relative_to(root).parts[:-1]
    return not any(part.startswith(".") or part in ("__pycache__", "site-packages", "node_modules") for part in folders)
