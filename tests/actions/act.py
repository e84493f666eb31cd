"""Runs workflows under act, on this machine and without a network beyond loopback."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
STANDINS = Path(__file__).with_name("standins")
BIN = Path(sys.executable).parent
LIMIT_SECONDS = 900

_USES = re.compile(r"uses:\s*([\w.-]+/[\w.-]+)(?:/[\w./-]+)?@([0-9a-f]{40})")
_OURS = "mlcicd/mlcicd"


@dataclass(frozen=True)
class WorkflowRun:
    """How a workflow ended: act's exit code and all that it printed."""

    code: int
    log: str

    def job(self, name: str) -> str:
        """How a job ended: `succeeded`, `failed`, or `did not run`."""
        if re.search(rf"^\[[^\]]*/{re.escape(name)}\s*\].*🏁\s+Job succeeded", self.log, re.M):
            return "succeeded"
        if re.search(rf"^\[[^\]]*/{re.escape(name)}\s*\].*🏁\s+Job failed", self.log, re.M):
            return "failed"
        return "did not run"


def export(target: Path) -> Path:
    """A copy of this checkout's files as git sees them, changes included: what `uses:` would download."""
    listed = subprocess.run(
        ["git", "-C", str(CHECKOUT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
    ).stdout
    for name in filter(None, listed.decode().split("\0")):
        source = CHECKOUT / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    return target


def run_workflow(
    project: Path,
    workflow: str,
    event: str,
    *,
    ours: Path,
    folder: Path,
    payload: dict[str, Any] | None = None,
    variables: dict[str, str] | None = None,
    environment: dict[str, str] | None = None,
    path: Path | None = None,
) -> WorkflowRun:
    """Runs one workflow of a repository to its end.

    Args:
        ours: stands in for our own repository, at whatever commit the workflow names.
        folder: for act's cache, artifacts and the event.
        path: a folder that comes first on PATH.
    """
    (folder / "event.json").write_text(json.dumps(payload or {}))
    artifacts = folder / "artifacts"
    artifacts.mkdir(exist_ok=True)
    command = [str(BIN / "act"), event, "--workflows", f".github/workflows/{workflow}"]
    command += ["--eventpath", str(folder / "event.json"), "--platform", "ubuntu-latest=-self-hosted"]
    command += ["--secret", "GITHUB_TOKEN=not-a-token", "--no-recurse", "--pull=false"]
    for repository, commit in sorted(set(_USES.findall((project / ".github" / "workflows" / workflow).read_text()))):
        standin = ours if repository == _OURS else STANDINS / repository.partition("/")[2]
        if repository != "actions/checkout":  # act copies the repository itself
            command += ["--local-repository", f"{repository}@{commit}={standin}"]
    for key, value in {"TEST_ARTIFACTS": str(artifacts), **(environment or {})}.items():
        command += ["--env", f"{key}={value}"]
    for key, value in (variables or {}).items():
        command += ["--var", f"{key}={value}"]
    wheels = BIN.parent / "wheels"
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_", "GITHUB_", "VIRTUAL_ENV"))}
    # uv has no variable for "no index at all": the folder is the index.
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "UV_FIND_LINKS": str(wheels)}
    offline["UV_DEFAULT_INDEX"] = wheels.as_uri()
    kept |= offline
    kept |= {
        "PATH": os.pathsep.join([*([str(path)] if path else []), str(BIN), kept["PATH"]]),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    for name, value in offline.items():
        command += ["--env", f"{name}={value}"]
    done = subprocess.run(
        command, cwd=project, env=kept, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
    )
    log = done.stdout + done.stderr
    (folder / f"{workflow}.{event}.log").write_text(log)
    return WorkflowRun(done.returncode, log)
