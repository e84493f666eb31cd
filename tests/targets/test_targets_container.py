"""What an image is built from: written, linted, and its parts really run, without a daemon."""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
import yaml

from mlcicd.core.digests import digest_tree
from mlcicd.core.errors import ConfigError, InputError
from mlcicd.targets.base import ModelVersion
from mlcicd.targets.container import write_context
from mlcicd.targets.router import find_envoy

LOCK = "pandas==2.3.0 \\\n    --hash=sha256:00ab\nmlflow-skinny==3.13.0 --hash=sha256:11cd\n"
HADOLINT = Path(sys.executable).parent / "hadolint"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model's folder, as far as writing the context looks into it."""
    folder = tmp_path / "model"
    (folder / "data").mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {}\n")
    (folder / "requirements.txt").write_text("mlflow-skinny==3.13.0\npandas==2.3.0\n")
    (folder / "python_env.yaml").write_text("python: 3.11.7\nbuild_dependencies:\n- pip\n")
    (folder / "data" / "weights.bin").write_bytes(b"\0" * 2_000_000)
    return folder


def _version(model: Path, name: str = "toy", version: str = "7", digest: str = "") -> ModelVersion:
    return ModelVersion(name, version, model, digest, sys.executable)


def _lines(folder: Path) -> list[str]:
    return (folder / "Dockerfile").read_text().splitlines()


def test_the_context_holds_all_that_the_dockerfile_copies(model, tmp_path):
    made = write_context(_version(model, digest=digest_tree(model)), tmp_path / "out")
    assert (made.image, made.base) == ("toy:7", "docker.io/library/python:3.11.7-slim")
    assert not made.pinned and not made.locked
    copied = [
        w
        for line in _lines(made.folder)
        if line.startswith("COPY ") and "--from" not in line
        for w in line.split()[1:-1]
    ]
    assert {"requirements.txt", "start.py", "identity.json", "model"} < set(copied)
    ignored = (made.folder / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*", "nothing goes in but what is named"
    for name in copied:
        assert (made.folder / name).exists() and f"!{name}" in ignored
    assert digest_tree(made.folder / "model") == digest_tree(model)


@pytest.mark.parametrize("locked", [False, True])
def test_the_dockerfile_is_one_and_nobody_is_root(model, tmp_path, locked):
    (tmp_path / "lock.txt").write_text(LOCK)
    base = "registry.example.com/python:3.11@sha256:" + "a" * 64
    made = write_context(
        _version(model), tmp_path / "out", base=base, requirements=tmp_path / "lock.txt" if locked else None
    )
    assert made.pinned and made.locked is locked
    linted = subprocess.run(
        [str(HADOLINT), "--no-color", str(made.folder / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert linted.returncode == 0, linted.stdout + linted.stderr
    lines = _lines(made.folder)
    assert lines.index("USER 65532:65532") > max(i for i, line in enumerate(lines) if line.startswith(("COPY", "RUN")))
    assert any("--require-hashes" in line for line in lines) is locked
    assert f"ARG BASE={base}" in lines


def test_the_linter_itself_can_fail(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM debian\nRUN cd /tmp && apt-get install x\n")
    done = subprocess.run([str(HADOLINT), str(tmp_path / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "DL3008" in done.stdout


def test_the_compose_file_gives_as_little_as_can_be(model, tmp_path):
    made = write_context(_version(model), tmp_path / "out")
    document = yaml.safe_load((made.folder / "compose.yaml").read_text())
    for service in document["services"].values():
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"] and service["user"] == "65532:65532"
        assert service["mem_limit"] and service["pids_limit"]
    model_service, router = document["services"]["model"], document["services"]["router"]
    assert "ports" not in model_service and router["ports"] == ["127.0.0.1:8080:8080"]
    assert model_service["networks"] == ["models"] and document["networks"]["models"] == {"internal": True}
    assert model_service["environment"]["MLCICD_MODEL_DIGEST"] == digest_tree(model)


def test_envoy_takes_the_routers_file(model, tmp_path):
    made = write_context(_version(model), tmp_path / "out")
    done = subprocess.run(
        [str(find_envoy()), "--mode", "validate", "--config-path", str(made.folder / "envoy.json")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    text = (made.folder / "envoy.json").read_text()
    assert '"admin"' not in text and "127.0.0.1" not in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda m: (m / "requirements.txt").write_text("--index-url http://evil.example/\npandas==1\n"),
            "option of pip",
        ),
        (lambda m: (m / "requirements.txt").write_text("pandas==1\n-e /home/somebody\n"), "option of pip"),
        (lambda m: (m / "requirements.txt").unlink(), "requirements can not be read"),
        (lambda m: (m / "MLmodel").unlink(), "not an MLflow model"),
        (lambda m: (m / "python_env.yaml").unlink(), "which Python"),
        (lambda m: (m / "python_env.yaml").write_text("python: 3.11; RUN x\n"), "which Python"),
        (lambda m: (m / "data" / "weights.bin").write_bytes(b"x"), "not the model that was registered"),
    ],
)
def test_what_can_not_be_built_honestly_is_refused(model, tmp_path, change, said):
    digest = digest_tree(model)
    change(model)
    if "registered" not in said:
        digest = ""
    with pytest.raises(InputError, match=said):
        write_context(_version(model, digest=digest), tmp_path / "out")
    assert not (tmp_path / "out" / "Dockerfile").exists()


@pytest.mark.parametrize(
    "text",
    [
        # A comment does not go on in the next line, and ends what went on before it.
        "# x \\\n--extra-index-url https://evil/simple\nmlflow==3.1\n",
        "  # x \\\n--extra-index-url https://evil/simple\nmlflow==3.1\n",
        "mlflow==3.1 \\\n# x\n--extra-index-url https://evil/simple\n",
        "mlflow==3.1 \\\n# x \\\n--extra-index-url https://evil/simple\n",
        # Backslashes are taken off both ends of a line that goes on.
        "mlflow==3.1\n\\--extra-index-url https://evil/simple\\\n\n",
        "mlflow==3.1\n--extra-index-url \\\n https://evil/simple\\",
        "mlflow==3.1 --global-option=x\n",
        "-c constraints.txt --extra-index-url https://evil/simple\n",
    ],
)
def test_no_option_of_pip_is_hidden(model, tmp_path, text):
    (model / "requirements.txt").write_text(text)
    with pytest.raises(InputError, match="hold an option of pip"):
        write_context(_version(model), tmp_path / "out")


def test_comments_that_pip_passes_over_are_no_options(model, tmp_path):
    text = "# written by a tool: \\\nmlflow==3.1 \\\n    --hash=sha256:00ab\t# via --nobody\n#--index-url x\n"
    (model / "requirements.txt").write_text(text)
    write_context(_version(model), tmp_path / "out")


def _goes_in(rules: list[str], path: str) -> bool:
    """What a builder makes of `.dockerignore`: the last rule that names the path, or a folder it is in, decides."""
    parts = path.split("/")
    inside = False
    for rule in (rule for rule in rules if rule and not rule.startswith("#")):
        pattern = rule.removeprefix("!")
        for end in range(1, len(parts) + 1):
            tried = parts[end - 1] if pattern.startswith("**/") else "/".join(parts[:end])
            if fnmatch.fnmatchcase(tried, pattern.removeprefix("**/")):
                inside = rule.startswith("!")
    return inside


def test_all_that_the_digest_counts_goes_into_the_image(model, tmp_path):
    (model / "code" / "__pycache__").mkdir(parents=True)
    (model / "code" / "__pycache__" / "own.pyc").write_bytes(b"0")
    made = write_context(_version(model, digest=digest_tree(model)), tmp_path / "out")
    rules = (made.folder / ".dockerignore").read_text().splitlines()
    files = [path.relative_to(made.folder).as_posix() for path in (made.folder / "model").rglob("*") if path.is_file()]
    assert "model/code/__pycache__/own.pyc" in files
    assert [path for path in files if not _goes_in(rules, path)] == []
    for other in ("compose.yaml", "envoy.json", "server/__pycache__/app.pyc"):
        assert not _goes_in(rules, other), other


def test_names_and_folders_that_make_no_sense_are_refused(model, tmp_path):
    for version in ("1+a", "", "1\nRUN x", "$(x)"):
        with pytest.raises(ConfigError):
            write_context(_version(model, version=version), tmp_path / "out")
    for base in ("python 3", "python\nRUN x", "-x"):
        with pytest.raises(ConfigError):
            write_context(_version(model), tmp_path / "out", base=base)
    (tmp_path / "lock.txt").write_text("pandas==2.3.0\n")
    with pytest.raises(InputError, match="no hash"):
        write_context(_version(model), tmp_path / "out", requirements=tmp_path / "lock.txt")
    with pytest.raises(ConfigError, match="holds something"):
        write_context(_version(model), tmp_path)


@pytest.mark.parametrize("name", ["Ü ${HOME} `id`", 'x"\n  privileged: true', "{{ 7 * 7 }}", "$(id)"])
def test_a_hostile_name_is_in_no_file_that_is_carried_out(model, tmp_path, name):
    made = write_context(_version(model, name=name), tmp_path / "out")
    plain = write_context(_version(model), tmp_path / "plain")
    assert (made.folder / "Dockerfile").read_text() == (plain.folder / "Dockerfile").read_text()
    document = yaml.safe_load((made.folder / "compose.yaml").read_text())
    expected = yaml.safe_load((plain.folder / "compose.yaml").read_text())
    assert "$" not in document["services"]["model"].pop("image")
    expected["services"]["model"].pop("image")
    assert document == expected
    assert json.loads((made.folder / "identity.json").read_text())["name"] == name


def test_constraints_of_the_model_go_along(model, tmp_path):
    (model / "requirements.txt").write_text("-c constraints.txt\npandas\n")
    (model / "constraints.txt").write_text("pandas==2.3.0\n")
    made = write_context(_version(model), tmp_path / "out")
    assert "COPY requirements.txt constraints.txt /build/" in _lines(made.folder)
    assert (made.folder / "constraints.txt").exists()


def test_other_bytes_are_not_started(model, tmp_path):
    made = write_context(_version(model), tmp_path / "out")

    def start(**environ: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, str(made.folder / "start.py"), "--help"]
        return subprocess.run(argv, env={**os.environ, **environ}, capture_output=True, text=True, check=False)

    assert start().returncode == 0 and "--drain-s" in start().stdout
    assert start(MLCICD_MODEL_DIGEST=digest_tree(model)).returncode == 0
    other = start(MLCICD_MODEL_DIGEST="sha256:00")
    assert other.returncode == 3 and "not the registered model" in other.stderr
    (made.folder / "model" / "link").symlink_to("/etc/passwd")
    assert start().returncode == 3
    (made.folder / "model" / "link").unlink()
    (made.folder / "model" / "MLmodel").write_text("flavors: {x: {}}\n")
    assert start().returncode == 3


@pytest.mark.slow
def test_what_the_image_starts_serves_the_model_and_ends_when_asked(models, tmp_path):
    made = write_context(_version(models / "scripted-1", version="1"), tmp_path / "out")
    run_file = tmp_path / "run.json"
    argv = [sys.executable, str(made.folder / "start.py"), "--host=127.0.0.1", "--port=0", f"--run-file={run_file}"]
    process = subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not run_file.exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        url = f"http://127.0.0.1:{json.loads(run_file.read_text())['port']}"
        while requests.get(f"{url}/ready", timeout=20).status_code != 200:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        answer = requests.post(f"{url}/invocations", json={"dataframe_records": [{"x": 1.0}]}, timeout=20)
        assert answer.json() == {"predictions": [2.0]} and answer.headers["x-mlcicd-version"] == "1"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    shutil.rmtree(made.folder)
