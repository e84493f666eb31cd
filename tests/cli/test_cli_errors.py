"""When something is wrong: one clear line, the right exit code, and the next run works."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stages.conftest import change, make_project

from .conftest import ROOT_OF_PACKAGE


def mlcicd(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    command = [sys.executable, "-m", "mlcicd", *arguments]
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=300, check=False)


def said(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout + done.stderr


@pytest.fixture
def root(repository: Path) -> Path:
    make_project(repository)
    return repository


def test_no_configuration(tmp_path: Path) -> None:
    done = mlcicd(tmp_path, "train")
    assert done.returncode == 2
    assert "mlcicd.yaml: there is no configuration here" in said(done)
    assert "mlcicd init" in said(done)
    assert "Traceback" not in said(done)


def test_unknown_key(root: Path) -> None:
    change(root / "mlcicd.yaml", "evaluate:", "evalute:")
    done = mlcicd(root, "evaluate")
    assert done.returncode == 2
    assert "mlcicd.yaml:5: unknown key 'evalute'; did you mean 'evaluate'?" in said(done)


def test_missing_data_file(root: Path) -> None:
    (root / "holdout.csv").unlink()
    done = mlcicd(root, "validate-data")
    assert done.returncode == 4
    assert "mlcicd.yaml:3: holdout.csv does not exist" in said(done)


@pytest.mark.parametrize("content", [b"", b"\n", b"\x00\x01\x02", b"id,a,a,y\n1,2,3,1\n"])
def test_damaged_data_file(root: Path, content: bytes) -> None:
    (root / "train.csv").write_bytes(content)
    done = mlcicd(root, "validate-data")
    assert done.returncode == 4, said(done)
    assert "train.csv" in said(done)
    assert "Traceback" not in said(done)


def test_header_only(root: Path) -> None:
    (root / "train.csv").write_text("id,a,b,y\n")
    done = mlcicd(root, "validate-data")
    assert done.returncode == 1
    assert "no rows" in said(done)


def test_training_command_that_fails(root: Path) -> None:
    change(root / "mlcicd.yaml", "run: python train.py", "run: echo why >&2; exit 3")
    done = mlcicd(root, "run", "--stages", "train,evaluate")
    assert done.returncode == 1
    assert "exit code 3" in said(done)
    assert "why" in said(done)
    change(root / "mlcicd.yaml", "run: echo why >&2; exit 3", "run: python train.py")
    assert mlcicd(root, "train").returncode == 0


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:////dev/null/m.db", "http://u:s3cret@127.0.0.1:9"])
def test_registry_that_is_not_there(root: Path, uri: str) -> None:
    with (root / "mlcicd.yaml").open("a") as file:
        file.write(f'tracking: {{uri: "{uri}"}}\n')
    done = mlcicd(root, "train")
    assert done.returncode == 5, said(done)
    assert "Traceback" not in said(done)
    assert "s3cret" not in said(done)


@pytest.mark.slow
def test_busy_port(evaluated: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        change(evaluated / "mlcicd.yaml", "smoke: smoke.jsonl}", f"smoke: smoke.jsonl, port: {port}}}")
        assert mlcicd(evaluated, "run", "--stages", "train,evaluate,register").returncode == 0
        done = mlcicd(evaluated, "deploy")
        try:
            assert done.returncode == 5, said(done)
            assert str(port) in said(done)
            assert "Traceback" not in said(done)
        finally:
            assert mlcicd(evaluated, "stop").returncode == 0
    try:
        assert mlcicd(evaluated, "deploy").returncode == 0
    finally:
        assert mlcicd(evaluated, "stop").returncode == 0


@pytest.mark.parametrize("arguments", [["train", "--nope"], ["run", "--stages", "tarin"], ["no-such-stage"]])
def test_usage(root: Path, arguments: list[str]) -> None:
    assert mlcicd(root, *arguments).returncode == 2


def test_truth_values_of_an_action(root: Path) -> None:
    """Composite inputs are strings: 'false' is false, and what is no truth value is an error."""
    change(root / "mlcicd.yaml", "run: python train.py", "run: exit 3")
    assert mlcicd(root, "train", MLCICD_INPUT_DRY_RUN="false").returncode == 1
    assert mlcicd(root, "train", MLCICD_INPUT_DRY_RUN="").returncode == 1
    assert mlcicd(root, "train", MLCICD_INPUT_DRY_RUN="maybe").returncode == 2


def test_json_is_the_verdict_and_nothing_else(root: Path) -> None:
    done = mlcicd(root, "validate-data", "--json")
    assert json.loads(done.stdout)["status"] == "passed"


def test_what_the_users_repository_holds_does_not_shadow_us(root: Path) -> None:
    (root / "json.py").write_text("raise SystemExit('shadowed')")
    done = subprocess.run(
        [sys.executable, "-I", "-m", "mlcicd", "validate-data"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, said(done)


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_training_leaves_everything_resumable(root: Path, sent: signal.Signals) -> None:
    slow = "run: touch started && sleep 60 && python train.py"
    change(root / "mlcicd.yaml", "run: python train.py", slow)
    child = subprocess.Popen(
        [sys.executable, "-m", "mlcicd", "train"], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    for _ in range(600):
        if (root / "started").exists():
            break
        time.sleep(0.1)
    assert (root / "started").exists()
    child.send_signal(sent)
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 130, out.decode()
    assert b"run the same command again" in out
    change(root / "mlcicd.yaml", slow, "run: python train.py")
    assert mlcicd(root, "train").returncode == 0
    import sqlite3

    with sqlite3.connect(root / "mlflow.db") as database:
        statuses = sorted(row[0] for row in database.execute("select status from runs"))
    database.close()
    assert statuses == ["FINISHED", "KILLED"]


def test_github_gets_outputs_summary_and_annotations_on_failure_too(root: Path, tmp_path: Path) -> None:
    change(root / "mlcicd.yaml", "evaluate:", "evalute:")
    output, summary = tmp_path / "output", tmp_path / "summary"
    done = mlcicd(
        root,
        "evaluate",
        GITHUB_ACTIONS="true",
        GITHUB_OUTPUT=str(output),
        GITHUB_STEP_SUMMARY=str(summary),
    )
    assert done.returncode == 2
    assert "::error file=mlcicd.yaml,line=5,title=mlcicd evaluate::" in done.stdout
    assert "\nerror\n" in output.read_text()
    assert "\n2\n" in output.read_text()
    assert "did you mean" in summary.read_text()


def test_what_a_child_prints_is_no_command_of_the_runner(root: Path, tmp_path: Path) -> None:
    change(root / "mlcicd.yaml", "run: python train.py", "run: echo '::error::forged'; exit 1")
    done = mlcicd(
        root,
        "train",
        GITHUB_ACTIONS="true",
        GITHUB_OUTPUT=str(tmp_path / "output"),
        GITHUB_STEP_SUMMARY=str(tmp_path / "summary"),
    )
    lines = done.stdout.splitlines()
    stop = next(i for i, line in enumerate(lines) if line.startswith("::stop-commands::"))
    token = lines[stop].removeprefix("::stop-commands::")
    resume = lines.index(f"::{token}::")
    forged = next(i for i, line in enumerate(lines) if "::error::forged" in line)
    assert stop < forged < resume
    assert not [line for line in lines[resume + 1 :] if line.startswith("::error::forged")]


def test_secrets_are_hidden_by_the_host_before_anything_of_the_users_runs(root: Path, tmp_path: Path) -> None:
    """By their name, and by being named in the configuration; and each before commands are stopped."""
    change(root / "mlcicd.yaml", "run: python train.py", "run: exit 1")
    change(root / "mlcicd.yaml", "deploy:\n", "deploy:\n  token_env: SCORER_WORD\n")
    secrets = {"REGISTRY_PASSWORD": "planted-by-name", "SCORER_WORD": "planted-by-key"}
    done = mlcicd(
        root,
        "train",
        GITHUB_ACTIONS="true",
        GITHUB_OUTPUT=str(tmp_path / "output"),
        GITHUB_STEP_SUMMARY=str(tmp_path / "summary"),
        **secrets,
    )
    lines = done.stdout.splitlines()
    stop = next(i for i, line in enumerate(lines) if line.startswith("::stop-commands::"))
    assert {f"::add-mask::{secret}" for secret in secrets.values()} <= set(lines[:stop])
    assert not [line for line in lines[stop:] if "planted" in line]
    assert "planted" not in mlcicd(root, "train", **secrets).stdout


@pytest.mark.parametrize("module", sorted(path.stem for path in (ROOT_OF_PACKAGE / "mlcicd").glob("c[lo]*.py")))
def test_whatever_is_imported_first_all_commands_are_there(module: str) -> None:
    program = (
        f"import mlcicd.{module}\nfrom mlcicd.cli import cli\nprint(*cli.commands, *cli.commands['canary'].commands)"
    )
    run = [sys.executable, "-c", program]
    found = subprocess.run(run, cwd=ROOT_OF_PACKAGE, capture_output=True, text=True, check=True).stdout.split()
    assert {"approve", "deploy", "predict", "replay", "scan", "simulate"} <= set(found)


def test_help_is_quick_in_imports() -> None:
    """No heavy module is imported for `--help`: that is what makes it quick on any machine."""
    program = (
        "import sys; sys.argv = ['mlcicd', '--help']\n"
        "from mlcicd.cli import cli\n"
        "try: cli(prog_name='mlcicd')\n"
        "except SystemExit: pass\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & "
        "{'mlflow', 'numpy', 'pydantic', 'duckdb', 'sklearn', 'pandas', 'rich', 'jinja2', 'yaml', 'requests'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT_OF_PACKAGE, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
