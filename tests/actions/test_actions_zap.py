"""The workflow that lets OWASP ZAP attack the staging endpoint: its script, with a stand-in for the container."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

WORKFLOW = Path(__file__).parents[2] / "workflows-templates" / "mlcicd-zap.yml"
IMAGE = "ghcr.io/zaproxy/zaproxy@sha256:" + "0a" * 32
DOCKER = """\
#!/bin/sh
printf '%s\\n' "$@" > "$RUNNER_TEMP/arguments"
printf '%s' "$ZAP_AUTH_HEADER: $ZAP_AUTH_HEADER_VALUE" > "$RUNNER_TEMP/header"
[ -z "$REPORTS" ] || echo '{}' > "$RUNNER_TEMP/zap/report.json"
exit "$ENDS"
"""


def _script() -> str:
    steps = yaml.safe_load(WORKFLOW.read_text())["jobs"]["scan"]["steps"]
    return str(next(step["run"] for step in steps if "run" in step))


def _run(folder: Path, *, ends: int = 0, reports: str = "yes", **changes: str) -> subprocess.CompletedProcess[str]:
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    docker = bin_folder / "docker"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    values = {"STAGING_URL": "https://scorer.staging.example.com/", "IMAGE": IMAGE, "TOKEN": "", **changes}
    environment = {**values, "RUNNER_TEMP": str(folder), "REPORTS": reports, "ENDS": str(ends)}
    environment["PATH"] = f"{bin_folder}:{os.environ['PATH']}"
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", _script()]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def _arguments(folder: Path) -> list[str]:
    return (folder / "arguments").read_text().splitlines()


def test_it_scans_the_description_and_keeps_the_token_out_of_the_command_line(tmp_path: Path) -> None:
    (tmp_path / ".github").mkdir()
    (tmp_path / ".github" / "zap-rules.tsv").write_text("100001\tFAIL\t(server error)\n")
    done = _run(tmp_path, TOKEN="staging-token")
    assert done.returncode == 0, done.stderr
    told = _arguments(tmp_path)
    assert told[told.index("-t") + 1] == "https://scorer.staging.example.com/openapi.json"
    assert IMAGE in told and told[told.index("-c") + 1] == "rules.tsv"
    assert not any("staging-token" in argument for argument in told)
    assert (tmp_path / "header").read_text() == "Authorization: Bearer staging-token"
    assert (tmp_path / "zap" / "rules.tsv").read_text().startswith("100001")


@pytest.mark.parametrize(
    ("ends", "reports", "code"), [(1, "yes", 1), (3, "", 3), (0, "", 3)], ids=["rule", "broken", "no-report"]
)
def test_what_zap_says_is_what_the_job_says(tmp_path: Path, ends: int, reports: str, code: int) -> None:
    assert _run(tmp_path, ends=ends, reports=reports).returncode == code
    assert "-c" not in _arguments(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"IMAGE": "ghcr.io/zaproxy/zaproxy:stable"},
        {"IMAGE": ""},
        {"STAGING_URL": ""},
        {"STAGING_URL": "https://scorer.example.com/v2"},
        {"STAGING_URL": "--help"},
    ],
    ids=["tag", "no-image", "no-url", "path", "option"],
)
def test_what_is_not_pinned_or_not_an_endpoint_is_not_run(tmp_path: Path, changes: dict[str, Any]) -> None:
    done = _run(tmp_path, **changes)
    assert done.returncode == 2 and "::error::Set the variable" in done.stdout
    assert not (tmp_path / "arguments").exists()
