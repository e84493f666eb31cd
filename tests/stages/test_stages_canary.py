"""The canary stage with the real router, real servers and real requests."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import git

from mlcicd.core.verdict import Status, Verdict
from mlcicd.rollout.labels import read_promotion
from mlcicd.rollout.state import Phase, RolloutState
from mlcicd.rollout.store import FileCell
from mlcicd.stages import approve, canary, deploy, evaluate, history, register, train, validate_data
from mlcicd.stages.common import registry_of
from mlcicd.stages.history import state_lines
from mlcicd.stages.places import place, state_folder
from mlcicd.targets import processes

from .conftest import change, copy_of, make_project, project_at

pytestmark = [pytest.mark.slow, pytest.mark.alone]

GOOD = '{"dataframe_records": [{"a": 0.1, "b": 0.2}]}\n'
LACKING = '{"dataframe_records": [{"a": null, "b": 0.2}]}\n'
PLAIN = "model = LogisticRegression().fit(X, y)"
# The champion copes with a reading that is not there; a plain regression does not.
IMPUTING = """\
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
model = make_pipeline(SimpleImputer(), LogisticRegression()).fit(X, y)"""


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 imputes, 2 is as good, 3 errs on requests without a reading."""
    root = tmp_path_factory.mktemp("canary") / "project"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch=main")
    make_project(root)
    (root / "requests.jsonl").write_text(GOOD * 49 + LACKING)
    change(root / "mlcicd.yaml", "  window: 500ms\n", "  window: 400ms\n  alpha: 0.05\n  beta: 0.05\n")
    change(root / "mlcicd.yaml", "{name: errors, floor: 0.02}", "{name: errors}")
    change(root / "train.py", PLAIN, IMPUTING)
    for number, (old, new) in enumerate(
        [("", ""), ("SimpleImputer()", "SimpleImputer(strategy='median')"), (IMPUTING, PLAIN)]
    ):
        text = (root / "train.py").read_text()
        if number == 2:
            text = text.replace("SimpleImputer(strategy='median')", "SimpleImputer()")
        (root / "train.py").write_text(text.replace(old, new) if old else text)
        git(root, "add", "--all")
        git(root, "commit", "--quiet", "--allow-empty", "--message", f"model {number + 1}")
        for stage in (validate_data, train, evaluate, register):
            verdict = stage(project_at(root))
            assert verdict.status is Status.PASSED, (stage, verdict)
        if number == 0:
            registry_of(project_at(root)).set_alias("tiny", "champion", "1")
    return root


@pytest.fixture
def waiting(registered: Path, tmp_path: Path) -> Iterator[Path]:
    """Version 1 live, version 2 beside it without traffic."""
    yield from _deployed(copy_of(registered, tmp_path / "copy"), "2")


@pytest.fixture
def bad_waiting(registered: Path, tmp_path: Path) -> Iterator[Path]:
    """Version 1 live, version 3 beside it without traffic."""
    yield from _deployed(copy_of(registered, tmp_path / "copy"), "3")


def _deployed(root: Path, version: str) -> Iterator[Path]:
    try:
        for number in ("1", version):
            verdict = deploy(project_at(root), model_version=number)
            assert verdict.status is Status.PASSED, verdict
        yield root
    finally:
        _target(root).stop()
        assert processes.with_argument(state_folder(project_at(root), "production") / "run") == {}


def _target(root: Path):
    return place(project_at(root), "").target


def _state(root: Path) -> RolloutState:
    envelope = json.loads((state_folder(project_at(root), "production") / "rollout.json").read_text())
    assert envelope["lease"] is None
    return RolloutState.from_json(envelope["rollout"])


def _run(root: Path, **options: str) -> Verdict:
    return canary(project_at(root), **options)


def _mlcicd(root: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mlcicd", "canary", *arguments],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _wait(condition, seconds: float = 60.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)
    return found


def test_an_equal_model_is_promoted(waiting: Path) -> None:
    verdict = _run(waiting)
    assert verdict.status is Status.PASSED, verdict
    assert verdict.outputs == {
        "continues": "false",
        "decision": "promote",
        "model-version": "2",
        "champion-version": "2",
    }
    assert "promoted after" in verdict.summary and "0 of its" in verdict.summary
    assert {check.name for check in verdict.checks} >= {"live version", "canary errors", "canary latency"}
    assert next(figure["title"] for figure in verdict.details["figures"]) == "Evidence against the canary"
    registry = registry_of(project_at(waiting))
    assert registry.version_at("tiny", "champion").version == "2"
    assert registry.version_at("tiny", "previous").version == "1"
    status = _target(waiting).status()
    assert (status.live, status.canary, status.previous, status.share) == ("2", None, "1", 0.0)
    windows = (waiting / verdict.evidence[0].path).read_text().splitlines()
    assert {json.loads(line)["share"] for line in windows} == {0.2, 0.5}
    again = _run(waiting)
    assert again.status is Status.SKIPPED


def test_a_model_that_errs_on_two_percent_is_taken_back_and_its_errors_are_counted(bad_waiting: Path) -> None:
    verdict = _run(bad_waiting)
    assert verdict.status is Status.FAILED, verdict
    assert verdict.outputs == {
        "continues": "false",
        "decision": "rollback",
        "model-version": "3",
        "champion-version": "1",
    }
    state = _state(bad_waiting)
    requests, errors = state.served
    assert errors > 0 and f"{errors} of its {requests} requests failed" in verdict.summary
    assert next(c for c in verdict.checks if c.name == "canary errors").status == "failed"
    assert (state.phase, _target(bad_waiting).status().canary) == (Phase.DONE, None)
    # Why, in the model's own words: what its server logged most often.
    assert "the model raised ValueError at " in verdict.summary
    assert "failures in its log)" in state.reason
    registry = registry_of(project_at(bad_waiting))
    assert registry.version_at("tiny", "champion").version == "1"
    assert registry.version("tiny", "3").tags["mlcicd.canary"].startswith("rollback: errors")
    said = state_lines(history.state(project_at(bad_waiting)))
    assert said[2].startswith("challenger   version 3") and "canary: rollback: errors" in said[3]


def test_scheduled_steps_in_processes_of_their_own_end_as_a_watch_does(bad_waiting: Path) -> None:
    # Some 36 requests and 0.7 errors of the canary in a window: not one window alone decides, on no machine.
    change(bad_waiting / "mlcicd.yaml", "window: 400ms", "window: 3s")
    change(bad_waiting / "mlcicd.yaml", "rate: 150", "rate: 60")
    change(bad_waiting / "mlcicd.yaml", "max_duration: 60s", "max_duration: 30m")
    assert _run(bad_waiting, mode="step").status is Status.SKIPPED
    started = _run(bad_waiting, mode="start")
    assert (started.status, started.outputs["decision"]) == (Status.SKIPPED, "continue")
    assert started.outputs["continues"] == "true"
    assert _target(bad_waiting).status().share == 0.2
    seen = 0
    trace: tuple = ()
    for number in range(60):
        if number < 3:
            with _mlcicd(bad_waiting, "step") as child:
                said, _ = child.communicate(timeout=120)
        else:
            said = _run(bad_waiting, mode="step").summary
        state = _state(bad_waiting)
        assert state.judge["windows"] in (seen, seen + 1), said
        assert state.trace[: len(trace)] == trace, "a step began anew"
        seen, trace = state.judge["windows"], state.trace
        if state.phase is Phase.DONE:
            break
    assert state.outcome == "rollback", said
    assert seen > 1
    status = _mlcicd(bad_waiting, "status").communicate(timeout=60)[0]
    assert "no canary is waiting" in status


def test_a_watch_that_is_ended_gives_the_traffic_back_and_goes_on_where_it_was(waiting: Path) -> None:
    store = FileCell(state_folder(project_at(waiting), "production") / "rollout.json")
    with _mlcicd(waiting) as child:
        try:
            _wait(lambda: child.poll() is not None or '"trace":[[' in (store.read() or ""))
        finally:
            child.send_signal(signal.SIGTERM)
        said, _ = child.communicate(timeout=60)
    assert child.returncode == 130, said
    before = _state(waiting)
    status = _target(waiting).status()
    assert (before.phase, status.canary, status.share) == (Phase.SUSPENDED, "2", 0.0)
    assert _run(waiting, mode="status").summary.count("suspended") == 1
    verdict = _run(waiting)
    assert verdict.status is Status.PASSED, verdict
    after = _state(waiting)
    assert after.trace[: len(before.trace)] == before.trace
    assert len(after.trace) > len(before.trace)


def test_pause_promote_and_abort_are_a_persons_word(waiting: Path) -> None:
    _run(waiting, mode="start")
    assert _run(waiting, mode="pause").status is Status.SKIPPED
    assert _run(waiting, mode="step").status is Status.SKIPPED
    assert (_state(waiting).phase, _target(waiting).status().share) == (Phase.PAUSED, 0.2)
    shown = _run(waiting, mode="status")
    assert "20% of the traffic (step 1, paused)" in shown.summary and "errors" in shown.summary
    printed = _mlcicd(waiting, "status", "--json").communicate(timeout=120)[0]
    rollout = json.loads(printed[printed.index("{") :])["details"]["rollout"]
    assert (rollout["phase"], rollout["share"], rollout["decision"]) == ("paused", 0.2, "continue")
    assert {metric["name"] for metric in rollout["metrics"]} == {"errors", "latency", "sample_ratio"}
    taken = _run(waiting, mode="abort", reason="a customer called")
    assert (taken.outputs["decision"], _target(waiting).status().canary) == ("rollback", None)
    assert "a customer called" in taken.summary
    assert deploy(project_at(waiting), model_version="2").status is Status.PASSED
    promoted = _run(waiting, mode="promote", reason="it must go out")
    assert (promoted.status, promoted.outputs["decision"]) == (Status.PASSED, "promote")
    assert "it must go out" in promoted.summary
    assert registry_of(project_at(waiting)).version_at("tiny", "champion").version == "2"


def test_with_its_state_in_the_registry_a_job_elsewhere_goes_on(waiting: Path) -> None:
    change(waiting / "mlcicd.yaml", "  min_requests: 50\n", "  min_requests: 50\n  state: registry\n")
    started = _run(waiting, mode="watch", watch_for="2s")
    assert (started.status, started.outputs["decision"]) == (Status.SKIPPED, "continue"), started
    assert not (state_folder(project_at(waiting), "production") / "rollout.json").exists()
    tags = registry_of(project_at(waiting)).version("tiny", "1").tags
    assert tags["mlcicd.rollout.production"]
    shown = _run(waiting, mode="status")
    windows = int(shown.summary.partition(" windows")[0].rpartition(" ")[2])
    assert windows > 0
    verdict = _run(waiting)
    assert verdict.status is Status.PASSED, verdict
    assert int(verdict.summary.partition(" windows")[0].rpartition(" ")[2]) > windows
    # Over, and found to be over by the next job.
    assert _run(waiting, mode="step").status is Status.SKIPPED


def test_another_champion_in_between_takes_the_traffic_back(waiting: Path) -> None:
    _run(waiting, mode="start")
    registry_of(project_at(waiting)).set_alias("tiny", "champion", "3")
    verdict = _run(waiting, mode="step")
    assert (verdict.status, verdict.exit_code) == (Status.ERROR, 5)
    assert "the champion is version 3" in verdict.summary
    assert (_state(waiting).phase, _target(waiting).status().share) == (Phase.SUSPENDED, 0.0)


def _stage_tags(root: Path) -> dict[str, str]:
    """The git tags of environments, and what they say they are about."""
    lines = git(root, "for-each-ref", "--format=%(refname:short) %(contents:subject)", "refs/tags").splitlines()
    tags = dict(line.split(" ", 1) for line in lines)
    return {name: about for name, about in tags.items() if "#" in name}


def _commit_of(root: Path, version: str) -> str:
    return registry_of(project_at(root)).version("tiny", version).tags["mlcicd.git_commit"]


def _outcomes(path: Path, began: float, worse_from: float) -> None:
    """Outcomes of predictions in steps of 200 ms for ten minutes: the canary misses as many as the champion, and from
    some time on many more."""
    lines = []
    for i in range(3000):
        t = round(began + 0.2 * i, 3)
        missed = 5 if t < worse_from else 40
        arms = {"champion": {"n": 100, "x": 10}, "canary": {"n": 50, "x": missed}}
        lines.append({"t": t, "seconds": 0.2, **{arm: {"rates": {"missed": n}} for arm, n in arms.items()}})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_canary_whose_approval_was_taken_back_has_no_traffic(waiting: Path) -> None:
    # As by the reviewers of a GitHub environment: nothing of it is in the registry.
    config = waiting / "mlcicd.yaml"
    change(config, "mode: deployment", "mode: delivery")
    change(config, "  traffic: {requests: requests.jsonl, rate: 150}\n", "")
    assert _run(waiting, mode="start").exit_code == 0
    assert _run(waiting, mode="step").exit_code in (0, 3)
    assert _target(waiting).status().share == 0.2
    assert approve(project_at(waiting), reason="a customer complained", model_version="2", revoke=True).exit_code == 0
    for mode in ("promote", "step", "start", "watch"):
        verdict = _run(waiting, mode=mode)
        assert verdict.exit_code == 5 and "taken the approval back" in verdict.summary, (mode, verdict)
        status = _target(waiting).status()
        assert (status.live, status.canary, status.share) == ("1", "2", 0.0)
    assert _state(waiting).phase is Phase.SUSPENDED
    assert approve(project_at(waiting), reason="it was another model", model_version="2").exit_code == 0
    # A watch goes on after the new approval, and hears of what is taken back while it watches.
    with _mlcicd(waiting) as child:
        try:
            _wait(lambda: child.poll() is not None or _target(waiting).status().share == 0.2)
            again = approve(project_at(waiting), reason="again", model_version="2", revoke=True)
            assert again.exit_code == 0, again
            said, _ = child.communicate(timeout=120)
        finally:
            child.kill()
    assert child.returncode == 5 and "taken the approval back" in said, said
    assert (_state(waiting).phase, _target(waiting).status().share) == (Phase.SUSPENDED, 0.0)
    _run(waiting, mode="abort")
    assert _target(waiting).status().canary is None


def test_outcomes_that_come_late_gate_the_promotion_and_take_it_back_afterwards(waiting: Path) -> None:
    late = "  labels: outcomes.jsonl\n  watch: 10m\n  traffic:"
    change(waiting / "mlcicd.yaml", "  traffic:", late)
    change(
        waiting / "mlcicd.yaml",
        "    - {name: errors}\n",
        "    - {name: errors}\n    - {name: missed, label_delay: 1s}\n",
    )
    change(waiting / "mlcicd.yaml", "deploy:\n", "register: {git_tags: true}\ndeploy:\n")
    began = time.time()
    _outcomes(waiting / "outcomes.jsonl", began, math.inf)
    verdict = _run(waiting)
    assert verdict.status is Status.PASSED, verdict
    assert (verdict.outputs["decision"], verdict.outputs["continues"]) == ("promote", "true")
    assert "what becomes of its predictions is watched" in verdict.summary
    promoted = _state(waiting)
    assert (promoted.phase, _target(waiting).status().live) == (Phase.WATCHING, "2")
    assert registry_of(project_at(waiting)).version_at("tiny", "champion").version == "2"
    assert _stage_tags(waiting) == {"tiny#production#1": "tiny v1.1.0, version 2"}
    assert _run(waiting, mode="step").status is Status.SKIPPED
    # The next version comes and waits for its start: those who look after this one go on.
    assert deploy(project_at(waiting), model_version="3").status is Status.PASSED
    for mode in ("status", "step"):
        verdict = _run(waiting, mode=mode)
        assert (verdict.status, verdict.outputs["model-version"]) == (Status.SKIPPED, "2")
        assert "version 3, deployed beside it, waits for its `canary start`" in verdict.summary
    _outcomes(waiting / "outcomes.jsonl", began, promoted.promoted)

    def taken_back() -> Verdict | None:
        step = _run(waiting, mode="step")
        return None if step.status is Status.SKIPPED else step

    verdict = _wait(taken_back)
    assert verdict.status is Status.FAILED, verdict
    assert (verdict.outputs["decision"], verdict.outputs["continues"]) == ("rollback", "false")
    assert (verdict.outputs["model-version"], verdict.outputs["champion-version"]) == ("2", "1")
    assert "taken back after its promotion: missed" in verdict.summary
    assert "version 3, deployed beside it, was taken out with it" in verdict.summary
    status = _target(waiting).status()
    assert (_state(waiting).phase, status.live, status.canary) == (Phase.DONE, "1", None)
    registry = registry_of(project_at(waiting))
    assert registry.version_at("tiny", "champion").version == "1"
    assert registry.version("tiny", "2").tags["mlcicd.canary"].startswith("rollback: missed")
    assert _stage_tags(waiting)["tiny#production#2"] == "tiny v1.0.0, version 1"
    assert git(waiting, "rev-parse", "tiny#production#2^{commit}").strip() == _commit_of(waiting, "1")
    # The evidence repeats the decision, of which the time of the promotion is a part.
    assert read_promotion(waiting / ".mlcicd/evidence/canary-windows.jsonl") == promoted.promoted
    result = _mlcicd(waiting, "replay", "--windows", ".mlcicd/evidence/canary-windows.jsonl")
    assert "rollback at window" in result.communicate(timeout=60)[0]


def test_what_the_router_can_not_count_is_refused_with_its_line(waiting: Path) -> None:
    for metric, why in (("clicked", "does not count clicked"), ("missed, label_delay: 1s", "from nowhere")):
        root = waiting / "mlcicd.yaml"
        before = root.read_text()
        change(root, "    - {name: errors}\n", f"    - {{name: errors}}\n    - {{name: {metric}}}\n")
        line = root.read_text().splitlines().index(f"    - {{name: {metric}}}") + 1
        verdict = _run(waiting)
        root.write_text(before)
        assert (verdict.status, verdict.exit_code) == (Status.ERROR, 2)
        assert why in verdict.summary
        assert f"mlcicd.yaml:{line}" in verdict.summary
    assert _target(waiting).status().share == 0
