"""What a training run depends on, in one digest: the same fingerprint is not trained twice."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mlcicd.core.digests import digest_bytes, digest_file, digest_json, digest_tree
from mlcicd.core.errors import InputError


@dataclass(frozen=True)
class Fingerprint:
    """Digests by part (`code`, `data`, `params`, `lock`, `interpreter`, `command`), and the digest of them all."""

    parts: Mapping[str, str]

    @property
    def digest(self) -> str:
        return digest_json(dict(self.parts))

    def changed_from(self, parts: Mapping[str, str]) -> list[str]:
        """The names of the parts that differ from another fingerprint's."""
        return sorted(name for name in {*self.parts, *parts} if self.parts.get(name) != parts.get(name))


def fingerprint(
    root: Path,
    *,
    command: str,
    code: Sequence[str],
    lock: Sequence[str],
    params: str,
    data: Sequence[str],
    python: str,
    seed: int,
) -> Fingerprint:
    """Computes the fingerprint.

    Args:
        root: the project.
        command: the training command.
        code: glob patterns of the code.
        lock: glob patterns of the files that pin the environment.
        params: path of the parameter file, or empty.
        data: paths of the data sets; digests come from DVC's own records where those match, else from the content.
        python: the interpreter; its version counts, not its path.
        seed: the seed given to the command.

    Raises:
        InputError: a data set or the parameter file is neither here nor known to DVC, or no file matches `code`.
    """
    code_digest = _digest_matches(root, code)
    if code and not code_digest:
        raise InputError(
            f"no file matches train.code {list(code)}",
            where=str(root),
            why="Without the code in the fingerprint, a changed program would be taken for an unchanged one.",
            remedy="correct the patterns under train.code",
        )
    known = dvc_digests(root)
    return Fingerprint(
        {
            "command": digest_json([command, seed]),
            "code": code_digest,
            "lock": _digest_matches(root, lock),
            "params": digest_file(root / params) if params else "",
            "data": digest_json([data_digest(root, path, known) for path in data]),
            "interpreter": interpreter_version(python),
        }
    )


def data_digest(root: Path, path: str, known: Mapping[str, str]) -> str:
    """Digest of a data set: of its content where it is here, else as DVC recorded it."""
    if (root / path).exists():
        return digest_tree(root / path)
    if path in known:
        return known[path]
    raise InputError(
        f"{path} is not here, and DVC has no record of it",
        where=str(root / path),
        remedy="make it with `dvc repro` or fetch it with `dvc pull`",
    )


def dvc_digests(root: Path) -> dict[str, str]:
    """Digests of outputs as `dvc.lock` and `*.dvc` files record them, read without DVC: path to `md5:<hex>`.

    Raises:
        InputError: a record is not YAML.
    """
    result: dict[str, str] = {}
    lock = root / "dvc.lock"
    if lock.is_file():
        for stage in (_yaml(lock).get("stages") or {}).values():
            for out in stage.get("outs") or []:
                if out.get("md5"):
                    result[str(out["path"])] = f"md5:{out['md5']}"
    for file in sorted(root.glob("**/*.dvc")):
        if not file.is_file() or ".dvc" in file.parent.parts:
            continue
        for out in _yaml(file).get("outs") or []:
            if out.get("md5"):
                path = (file.parent / out["path"]).relative_to(root).as_posix()
                result[path] = f"md5:{out['md5']}"
    return result


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


def _digest_matches(root: Path, patterns: Sequence[str]) -> str:
    files = sorted({f for pattern in patterns for f in root.glob(pattern) if f.is_file() and _is_own(f, root)})
    if not files:
        return ""
    return digest_json([(f.relative_to(root).as_posix(), digest_bytes(f.read_bytes())) for f in files])


def _is_own(file: Path, root: Path) -> bool:
    """Not in a hidden folder, nor in an environment that was installed into the project."""
    folders = file.relative_to(root).parts[:-1]
    return not any(part.startswith(".") or part in ("__pycache__", "site-packages", "node_modules") for part in folders)


def _yaml(path: Path) -> dict[str, Any]:
    try:
        # BaseLoader: a digest of digits alone is text, not a number.
        loaded = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506  (makes only text)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError("this DVC record can not be read", where=str(path), why=str(error)) from error
    if not isinstance(loaded, dict):
        raise InputError("this DVC record is not a mapping", where=str(path))
    return loaded
