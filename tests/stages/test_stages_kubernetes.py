"""deploy and canary of a project whose production is a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kube_server import FakeCluster, kubeconfig, served

from mlcicd.core.errors import ExitCode
from mlcicd.core.verdict import Status
from mlcicd.stages import canary, deploy, register
from mlcicd.stages.places import place

from .conftest import change, project_at
from .test_stages_deploy import alias

pytestmark = pytest.mark.slow

OPTIONS = "{namespace: ml, gateway: public, image: 'r.example.com/{name}:{version}', kubeconfig: .mlcicd/kubeconfig}"


class Lines:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def step(self, message: str) -> None:
        self.lines.append(message)

    def output(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def cluster() -> Iterator[tuple[FakeCluster, str]]:
    made = FakeCluster()
    made.answer = lambda _service, _body: (200, b'{"predictions": [[0.4, 0.6]]}')
    with served(made) as url:
        yield made, url


@pytest.fixture
def registered(evaluated: Path, cluster: tuple[FakeCluster, str]) -> Path:
    assert register(project_at(evaluated)).status is Status.PASSED
    kubeconfig(evaluated / ".mlcicd", cluster[1])
    change(
        evaluated / "mlcicd.yaml",
        "{target: local, strategy: canary, smoke: smoke.jsonl}",
        # What the stand-in answers is no model's.
        f"{{target: kubernetes, smoke: smoke.jsonl, parity: {{rows: 0}}, options: {OPTIONS}}}",
    )
    return evaluated


def test_it_shows_what_will_change_takes_back_what_fails_and_deploys(registered, cluster):
    made, _ = cluster
    told = Lines()
    dry = deploy(project_at(registered), dry_run=True, progress=told)
    assert dry.status is Status.PASSED and "would deploy version 1" in dry.summary
    assert "what changes in production:" in told.lines
    assert "+++ Deployment/tiny--production--v1 (to apply)" in told.lines
    assert any(line.startswith("+        image: r.example.com/tiny:1") for line in told.lines)
    assert made.kinds() == [], "a dry run changes nothing"

    # It answers, and not as it should: the version is taken away again.
    made.answer = lambda _service, _body: (500, b'{"error_code": "INTERNAL_ERROR", "message": "no"}')
    failed = deploy(project_at(registered))
    assert failed.status is Status.FAILED and "failed its smoke test" in failed.summary
    assert made.weights() == {} and not any("--v1" in name for name in made.kinds())

    made.answer = lambda _service, _body: (200, b'{"predictions": [[0.4, 0.6]]}')
    first = deploy(project_at(registered))
    assert first.status is Status.PASSED, first
    assert made.weights() == {"tiny--production--v1": 100} and alias(registered, "champion") == "1"
    pod = made.objects["/apis/apps/v1/namespaces/ml/deployments/tiny--production--v1"]["spec"]["template"]["spec"]
    digest = first.subject("model").digest
    assert {"name": "MLCICD_MODEL_DIGEST", "value": digest} in pod["containers"][0]["env"]
    assert deploy(project_at(registered)).status is Status.SKIPPED

    place(project_at(registered), "").target.stop()
    assert made.kinds() == [] and made.lost == []


def test_a_canary_without_a_source_of_counts_is_refused_before_anything_moves(registered, cluster):
    verdict = canary(project_at(registered))
    assert verdict.exit_code == ExitCode.USAGE
    assert "does not count requests" in verdict.summary
    assert cluster[0].log == []


def test_a_port_and_unknown_options_are_refused(registered):
    change(registered / "mlcicd.yaml", "gateway: public,", "gateway: public, replica: 3,")
    assert "options.replica" in deploy(project_at(registered)).summary
    change(registered / "mlcicd.yaml", " replica: 3,", "")
    change(registered / "mlcicd.yaml", "target: kubernetes,", "target: kubernetes, port: 8080,")
    assert "listeners choose the port" in deploy(project_at(registered)).summary
