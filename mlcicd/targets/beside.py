"""A small process of ours beside a local target's router: one a state folder, known by its marker file."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlcicd.core.files import write_atomic
from mlcicd.targets import processes
from mlcicd.targets.processes import Process
from mlcicd.targets.state import StateFolder

_MARK = "token"
_SALT = 32


class Beside:
    """Starts, finds and ends the one process that a module of this package runs for a state folder.

    Args:
        folder: whose `run` folder holds the marker, `<name>.json`, and whose `logs` its output.
        name: of the module in :mod:`mlcicd.targets`, whose `main` is run with the marker's path as its argument.
    """

    def __init__(self, folder: StateFolder, name: str) -> None:
        self.marker = folder.run / f"{name}.json"
        self._run = folder.run
        self._log = folder.logs / f"{name}.log"
        self._module = f"mlcicd.targets.{name}"

    def running(self) -> list[Process]:
        """The processes that run with this marker; never the one that asks."""
        return [process for process, path in processes.with_argument(self._run).items() if path == self.marker]

    def start(self, told: Mapping[str, Any]) -> None:
        """Writes what the process is told, and starts it if it does not run, or runs with another token than ours.
        Called under the folder's lock.

        Args:
            told: with `target`, the arguments of :class:`~mlcicd.targets.local.LocalTarget`. The variable that its
                `token_env` names is the one secret of ours that the process gets: servers it starts ask for it. What
                is written of it is a salted hash. Who does not have it leaves a process as it is.
        """
        variable = told["target"].get("token_env") or ""
        token = os.environ.get(variable, "") if variable else ""
        mark, running = self._mark(), self.running()
        if running and token and _hashed(token, mark[:_SALT]) != mark:
            processes.stop(running, grace_s=2.0)
            running = []
        if not running:
            mark = _hashed(token, secrets.token_hex(_SALT // 2)) if token else ""
        write_atomic(self.marker, json.dumps({**told, _MARK: mark}), mode=0o600)
        if not running:
            # -I: what lies in the caller's folder or PYTHONPATH must not become part of it.
            code = f"import sys; sys.path.append({str(Path(__file__).resolve().parents[2])!r})\n"
            code += f"from {self._module} import main; main()"
            argv = [sys.executable, "-I", "-c", code, str(self.marker)]
            env = {**processes.plain_environment(), **({variable: token} if token else {})}
            processes.spawn(argv, env=env, log=self._log)

    def _mark(self) -> str:
        """Salt and hash of the token that the process was started with; empty when it was started with none."""
        try:
            return str(json.loads(self.marker.read_bytes()).get(_MARK, ""))
        except FileNotFoundError:
            return ""

    def stop(self) -> None:
        """Ends it, unless it is that process itself that asks."""
        processes.stop(self.running(), grace_s=2.0)
        self.marker.unlink(missing_ok=True)


def _hashed(token: str, salt: str) -> str:
    return salt + hashlib.pbkdf2_hmac("sha256", token.encode(), salt.encode(), 20_000).hex()
