"""A registered version for Argo Rollouts and Flagger: the written files, and the judge with the real registry."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from click.testing import CliRunner
from controllers import Argo, Flagger
from kube_server import FakeCluster, kubeconfig, served
from support import git

from mlcicd.cli import cli
from mlcicd.core.errors import ConfigError
from mlcicd.core.verdict import Status
from mlcicd.registry import promote
from mlcicd.registry.tracking import TAG
from mlcicd.rollout.asked import Answer
from mlcicd.stages import register
from mlcicd.stages.canary_asked import Answers, Subject
from mlcicd.stages.canary_serve import Endpoint, make_server
from mlcicd.stages.common import registry_of

from .conftest import change, make_project, project_at

pytestmark = pytest.mark.slow
OPTIONS = "{namespace: ml, gateway: public, image: 'r.example.com/{name}:{version}', kubeconfig: .mlcicd/kubeconfig}"
NAME = "tiny--production"


@pytest.fixture
def cluster() -> Iterator[tuple[FakeCluster, str]]:
    made = FakeCluster()
    with served(made) as url:
        yield made, url


@pytest.fixture
def root(evaluated: Path, cluster: tuple[FakeCluster, str]) -> Path:
    """Version 1 is registered; the project's production is a cluster, and its counts are a file."""
    assert register(project_at(evaluated)).status is Status.PASSED
    kubeconfig(evaluated / ".mlcicd", cluster[1])
    config = evaluated / "mlcicd.yaml"
    change(
        config,
        "{target: local, strategy: canary, smoke: smoke.jsonl}",
        f"{{target: kubernetes, strategy: canary, smoke: smoke.jsonl, options: {OPTIONS}}}",
    )
    change(config, "  traffic: {requests: requests.jsonl, rate: 150}", "  source: file\n  windows: windows.jsonl")
    change(config, "    - {name: latency, type: histogram, tolerance: 20}\n", "")
    (evaluated / "windows.jsonl").write_text("")
    return evaluated


def second(root: Path) -> None:
    """Version 1 is the champion, and version 2 was measured against it."""
    registry = registry_of(project_at(root))
    first = registry.version("tiny", "1")
    registry.create_version("tiny", first.run_id, {**first.tags, f"{TAG}measured_against": "1", f"{TAG}content": "b"})
    registry.set_alias("tiny", "champion", "1")
    registry.set_alias("tiny", "challenger", "2")


def write(root: Path, folder: Path, *options: str) -> Any:
    return CliRunner().invoke(cli, ["kubernetes", "write", "-C", str(root), "-o", str(folder), *options])


def objects(folder: Path) -> dict[tuple[str, str], Any]:
    found = [yaml.safe_load(path.read_text()) for path in sorted(folder.glob("*.yaml"))]
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


@contextmanager
def judging(root: Path, said: list[str]) -> Iterator[str]:
    endpoint = Endpoint(Answers(project_at(root), "", said.append), token="", say=said.append)
    server = make_server(endpoint, "127.0.0.1", 0)
    thread = threading.Thread(target=lambda: server.serve_forever(0.02), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(30)


class Users:
    """Counts of both versions at the weight of now, a window whenever somebody waits."""

    def __init__(self, root: Path, error_rate: float) -> None:
        self.path = root / "windows.jsonl"
        self.error_rate = error_rate
        self.weights: list[int] = []

    def wait(self, _seconds: float) -> None:
        percent, start = self.weights[-1], time.time()
        time.sleep(0.55)
        canary, champion = 200 * percent, 200 * (100 - percent)
        window = {
            "t": start,
            "share": percent / 100,
            "champion": {"requests": champion, "errors": int(champion * 0.001)},
            "canary": {"requests": canary, "errors": int(canary * self.error_rate)},
        }
        with self.path.open("a") as file:
            file.write(json.dumps(window) + "\n")


def test_argo_is_given_a_version_asks_about_it_and_the_registry_follows(root: Path, tmp_path: Path) -> None:
    first = write(root, tmp_path / "first", "--controller", "argo-rollouts", "--judge-image", "r.example.com/judge:1")
    assert first.exit_code == 0, first.output
    assert "version 1, the first one: nothing is compared" in first.output
    assert "set `canary.state: registry`" in first.output
    assert objects(tmp_path / "first")["Rollout", NAME]["spec"]["strategy"]["canary"]["steps"] == []

    second(root)
    said: list[str] = []
    with judging(root, said) as url:
        done = write(root, tmp_path / "k8s", "--controller", "argo-rollouts", "--judge-url", url)
        assert done.exit_code == 0, done.output
        assert "version 2, to be compared with version 1" in done.output
        found, users = objects(tmp_path / "k8s"), Users(root, 0.001)
        templates = {name: one for (kind, name), one in found.items() if kind == "AnalysisTemplate"}
        argo = Argo(templates, users.weights.append, users.wait)
        assert argo.roll_out(found["Rollout", NAME]) == "Healthy", argo.measured[-3:]
    assert users.weights == [20, 50, 100]
    registry = registry_of(project_at(root))
    assert registry.version_at("tiny", "champion").version == "2"
    assert registry.version_at("tiny", "previous").version == "1"
    back = ("withdrawn", "-C", str(root), "--model-version", "2", "--reason", "too slow at night")
    told = CliRunner().invoke(cli, ["kubernetes", *back])
    assert told.exit_code == 0 and told.output == "the champion is version 1\n", told.output
    assert registry.version("tiny", "2").tags[f"{TAG}canary"] == "rollback: too slow at night"
    again = CliRunner().invoke(cli, ["kubernetes", *back])
    assert again.output == "the champion is version 1\n", "told twice, it goes no further back"
    _what_was_withdrawn_fails_until_it_is_the_champion_again(root)
    assert said[-1].startswith("version 2: promote:") and any("20.0% of the traffic" in line for line in said)


def test_what_was_withdrawn_is_tagged_in_git_where_that_is_asked_for(tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch=main")
    make_project(root)
    local = "{target: local, strategy: canary, smoke: smoke.jsonl}"
    change(root / "mlcicd.yaml", local, f"{{target: kubernetes, strategy: canary, options: {OPTIONS}}}")
    change(root / "mlcicd.yaml", "deploy:\n", "register: {git_tags: true}\ndeploy:\n")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--allow-empty", "--message", "a model")
    registry = registry_of(project_at(root))
    run, head = registry.start_run("tests", {}), git(root, "rev-parse", "HEAD")
    for content, measured in (("a", ""), ("b", "1")):
        tags = {f"{TAG}content": content, f"{TAG}measured_against": measured, f"{TAG}git_commit": head}
        registry.create_version("tiny", run, tags)
    aliases = {"champion_alias": "champion", "previous_alias": "previous"}
    promote(registry, "tiny", "1", expected_champion="", reason="the first", **aliases)
    promote(registry, "tiny", "2", expected_champion="1", reason="Argo promoted it", **aliases)
    back = ["kubernetes", "withdrawn", "-C", str(root), "--model-version", "2"]
    for _ in range(2):
        told = CliRunner().invoke(cli, back)
        assert told.output == "the champion is version 1\n", told.output
        assert git(root, "tag", "--list", "tiny#*").splitlines() == ["tiny#production#1"]
    assert git(root, "rev-parse", "tiny#production#1^{commit}") == head
    registry.tag_version("tiny", "1", {f"{TAG}git_commit": "unknown"})
    assert "warning: git tag: the version names no commit" in CliRunner().invoke(cli, back).output


def _what_was_withdrawn_fails_until_it_is_the_champion_again(root: Path) -> None:
    """The same manifests, applied once more, are no new test; nor is a judge that was not told of the way back."""
    registry, subject = registry_of(project_at(root)), Subject("2", "1")
    answers = Answers(project_at(root), "", lambda _said: None)
    for answered in (answers.ask(subject, 0.2), answers.promoted(subject)):
        assert (answered.answer, answered.reason) == (Answer.FAIL, "too slow at night")
    registry.set_alias("tiny", "champion", "2")
    assert {answers.ask(subject, 0.2).answer, answers.promoted(subject).answer} == {Answer.ADVANCE}
    registry.set_alias("tiny", "champion", "1")
    for answered in (answers.ask(subject, 0.2), answers.promoted(subject)):
        assert answered.answer is Answer.FAIL and "the champion is version 1 by now" in answered.reason


def test_flagger_is_answered_by_the_weight_that_the_cluster_reports(
    root: Path, tmp_path: Path, cluster: tuple[FakeCluster, str]
) -> None:
    second(root)
    said: list[str] = []
    with judging(root, said) as url:
        done = write(root, tmp_path / "k8s", "--controller", "flagger", "--judge-url", url)
        assert done.exit_code == 0, done.output
        users = Users(root, 0.3)
        flagger = Flagger(objects(tmp_path / "k8s")["Canary", NAME], users.weights.append)
        cluster[0].objects[f"/apis/flagger.app/v1beta1/namespaces/ml/canaries/{NAME}"] = flagger.canary
        for _ in range(20):
            flagger.iterate()
            if flagger.status["phase"] == "Failed":
                break
            users.wait(0)
        assert flagger.status["phase"] == "Failed", flagger.asked[-5:]
        # Another name is no Canary of this namespace.
        payload = {"name": "other", "metadata": {"version": "2", "champion": "1"}}
        assert requests.post(f"{url}/v1/flagger/rollback", json=payload, timeout=30).status_code == 400
    assert users.weights == [20, 0]
    version = registry_of(project_at(root)).version("tiny", "2")
    assert version.tags[f"{TAG}canary"].startswith("rollback: errors: the canary differs")
    assert registry_of(project_at(root)).version_at("tiny", "champion").version == "1"


def test_what_may_not_go_there_is_not_written_and_not_let_on(root: Path, tmp_path: Path) -> None:
    out, ask = tmp_path / "k8s", ("--controller", "flagger", "--judge-url", "http://judge:8090")
    second(root)
    registry = registry_of(project_at(root))
    registry.tag_version("tiny", "2", {f"{TAG}measured_against": "7"})
    refused = write(root, out, *ask)
    assert refused.exit_code == 4 and "was measured against version 7" in refused.output
    said: list[str] = []
    with judging(root, said) as url:
        query = "version=2&champion=1&percent=20"
        answer = requests.get(f"{url}/v1/argo?{query}", timeout=30).json()
        assert answer["answer"] == "fail" and "measured against version 7" in answer["reason"]
        gone = requests.get(f"{url}/v1/argo?{query.replace('version=2', 'version=77')}", timeout=30)
        assert gone.status_code in (400, 503) and "77" in gone.json()["error"]
    registry.tag_version("tiny", "2", {f"{TAG}measured_against": "1"})
    assert write(root, out, *ask, "--attempt", "a b").exit_code == 4

    change(root / "mlcicd.yaml", "  mode: deployment", "  mode: delivery")
    refused = write(root, out, *ask)
    assert refused.exit_code != 0 and "a person must approve version 2 for production" in refused.output
    answers = Answers(project_at(root), "", said.append)
    for answered in (answers.ask(Subject("2", "1", "2"), 0.2), answers.promoted(Subject("2", "1", "3"))):
        assert (
            answered.answer is Answer.FAIL
            and "version 2 may not have this traffic: a person must approve it, and nobody has" in answered.reason
        )
    change(root / "mlcicd.yaml", "  source: file\n  windows: windows.jsonl", "  source: router")
    with pytest.raises(ConfigError, match="does not count requests"):
        Answers(project_at(root), "", said.append)
    assert not out.exists()


def test_the_judge_as_a_command_needs_its_token_answers_and_ends_quietly(root: Path) -> None:
    serve = [sys.executable, "-m", "mlcicd", "canary", "serve", "-C", str(root), "--port", "0"]
    no_token = CliRunner().invoke(cli, ["canary", "serve", "-C", str(root), "--token-env", "JUDGE_TOKEN_NOT_SET"])
    assert no_token.exit_code == 2 and "JUDGE_TOKEN_NOT_SET is not set" in no_token.output
    environment = {**os.environ, "JUDGE_TOKEN": "secret-of-the-judge", "PYTHONUNBUFFERED": "1"}
    judge = subprocess.Popen(
        [*serve, "--token-env", "JUDGE_TOKEN"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert judge.stdout is not None
        first = judge.stdout.readline()
        assert "answers about production on http://127.0.0.1:" in first, first
        url = first.split()[-1]
        assert requests.get(f"{url}/health", timeout=60).ok
        assert requests.get(f"{url}/v1/argo", timeout=60).status_code == 401
        judge.send_signal(signal.SIGTERM)
        rest, _ = judge.communicate(timeout=120)
    finally:
        judge.kill()
        judge.wait()
    assert judge.returncode == 0 and "stopped" in rest and "secret-of-the-judge" not in first + rest
