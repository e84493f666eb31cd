"""self-test, backtest and suggest on a real registry: what they find, how they end, and what they print."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from mlcicd.config import Project
from mlcicd.config.evaluation import Evaluate
from mlcicd.core.errors import InputError
from mlcicd.core.verdict import Check, CheckStatus, Severity, Status, Verdict
from mlcicd.stages.gate_backtest import backtest
from mlcicd.stages.gate_self_test import self_test
from mlcicd.stages.gate_suggest import as_yaml, suggest

from .conftest import project_at, write_table

pytestmark = pytest.mark.slow

Make = Callable[..., Project]


def check(verdict: Verdict, name: str) -> Check:
    return next(c for c in verdict.checks if c.name == name)


def cli(project: Project, *arguments: str) -> Result:
    from mlcicd.cli import cli as command

    return CliRunner().invoke(command, ["gates", *arguments, "-C", str(project.root)])


def test_good_gates_pass_their_test(project: Make) -> None:
    verdict = self_test(project())
    assert verdict.status is Status.PASSED, verdict.summary
    assert verdict.details["reference"] == "the champion, version 2"
    assert check(verdict, "label-shuffled").reason == "caught by roc_auc, roc_auc vs champion"
    assert check(verdict, "identical").observed == "passed"
    assert "noise is failed from a loss of" in verdict.summary
    assert verdict.subject("model", "champion") is not None


def test_gates_that_catch_nothing_are_a_finding(project: Make) -> None:
    verdict = self_test(project("evaluate:\n  gates:\n    latency_p95_ms: {max: 100}\n"))
    assert verdict.status is Status.FAILED
    assert verdict.exit_code == 1
    assert verdict.summary == "the gates catch nothing: no gate reads what the model answers"
    assert verdict.details["not_tried"] == ["latency_p95_ms"]


def test_gate_far_below_the_champion_is_a_finding(project: Make) -> None:
    verdict = self_test(project("evaluate:\n  gates:\n    roc_auc: {min: 0.3}\n"))
    assert verdict.status is Status.FAILED
    shuffled = check(verdict, "label-shuffled")
    assert shuffled.status is CheckStatus.FAILED and shuffled.remedy
    idle = check(verdict, "gate roc_auc")
    assert idle.status is CheckStatus.FAILED and idle.severity is Severity.WARN


def test_gate_that_only_warns_stops_nothing(project: Make) -> None:
    verdict = self_test(project("evaluate:\n  gates:\n    roc_auc: {min: 0.7, severity: warn}\n"))
    assert verdict.status is Status.FAILED
    assert check(verdict, "label-shuffled").observed == "passed"


def test_champion_that_fails_its_own_gates_is_a_finding(project: Make) -> None:
    verdict = self_test(project("evaluate:\n  gates:\n    roc_auc: {min: 0.99}\n"))
    same = check(verdict, "identical")
    assert (verdict.status, same.status, same.severity) == (Status.FAILED, CheckStatus.FAILED, Severity.FAIL)
    assert "roc_auc" in same.reason


def test_gate_that_wants_better_is_told_its_price_and_not_failed(project: Make) -> None:
    text = "evaluate:\n  gates:\n    roc_auc: {min: 0.7, vs_champion: {superiority: true}}\n"
    verdict = self_test(project(text))
    assert check(verdict, "identical").severity is Severity.WARN
    assert verdict.status is Status.PASSED, verdict.summary


def test_holdout_of_two_rows_is_never_a_pass(project: Make) -> None:
    def two(path: Path) -> None:
        path.write_text("id,a,b,y\n1,2.0,0.0,1\n2,-2.0,0.0,0\n")

    assert self_test(project(holdout=two)).status is not Status.PASSED


def test_empty_holdout_is_an_input_error(project: Make) -> None:
    empty = project(holdout=lambda path: path.write_text("id,a,b,y\n"))
    for stage in (self_test, backtest):
        verdict = stage(empty)
        assert verdict.exit_code == 4, verdict.summary
    with pytest.raises(InputError):
        suggest(empty)


def test_self_test_prints_a_table_and_writes_its_verdict(project: Make) -> None:
    at = project()
    done = cli(at, "self-test")
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert any(line.split()[:2] == ["label-shuffled", "failed"] for line in lines)
    assert any(line.startswith("gate ") for line in lines)
    assert (at.root / ".mlcicd" / "verdicts" / "gates-self-test.json").is_file()
    assert "label-shuffled" in (at.root / ".mlcicd" / "report.html").read_text()


def test_json_alone_is_on_standard_output(project: Make) -> None:
    at = project()
    for command in ("self-test", "backtest"):
        document = json.loads(cli(at, command, "--json").stdout)
        assert document["stage"] == f"gates-{command}"
        assert document["status"] == "passed"
    assert json.loads(cli(at, "suggest", "--json", "--draws", "40").stdout)["rows"] == 1500


def test_misspelled_metric_ends_with_its_line(project: Make) -> None:
    at = project("evaluate:\n  gates:\n    roc_acu: {min: 0.7}\n")
    for command in ("self-test", "backtest", "suggest"):
        done = cli(at, command)
        assert done.exit_code == 2, done.output
        assert "mlcicd.yaml:8" in done.output


def test_backtest_replays_each_version_against_the_champion_of_its_time(project: Make) -> None:
    verdict = backtest(project(), draws=40)
    assert verdict.status is Status.PASSED, verdict.summary
    replays = {r["version"]: r for r in verdict.details["replays"]}
    assert [(r["against"], r["then"], r["status"]) for r in replays.values()] == [
        ("", "promoted", "passed"),
        ("1", "promoted", "passed"),
        ("2", "rolled back", "failed"),
        ("", "registered", "not replayed"),
    ]
    assert check(verdict, "version 3 against 2").status is CheckStatus.PASSED
    assert "not registered by mlcicd" in check(verdict, "version 4").reason
    assert verdict.details["false_alarms"]["itself"]["failed"] == 0


def test_backtest_tells_of_a_bad_version_that_gates_let_through(project: Make) -> None:
    verdict = backtest(project("evaluate:\n  gates:\n    roc_auc: {min: 0.01}\n"), draws=40)
    missed = check(verdict, "version 3 against 2")
    assert (missed.status, missed.severity) == (CheckStatus.FAILED, Severity.WARN)


def test_backtest_fails_gates_that_stop_the_champion_itself(project: Make) -> None:
    auc = backtest(project(), draws=40).details["replays"][1]["metrics"]["roc_auc"]
    verdict = backtest(project(f"evaluate:\n  gates:\n    roc_auc: {{min: {auc:.4f}}}\n"), draws=40)
    assert verdict.status is Status.FAILED
    alarm = check(verdict, "version 2 against itself")
    assert isinstance(alarm.observed, float) and alarm.observed > 0.9
    assert "roc_auc" in alarm.reason


def test_only_the_newest_versions_are_replayed(project: Make) -> None:
    replays = backtest(project(), last=2, draws=40).details["replays"]
    assert [r["version"] for r in replays] == ["3", "4"]


def test_registry_without_versions_is_an_input_error(project: Make) -> None:
    at = project()
    text = (at.root / "mlcicd.yaml").read_text().replace("name: tiny", "name: other")
    (at.root / "mlcicd.yaml").write_text(text)

    assert backtest(project_at(at.root)).exit_code == 4


def test_suggestion_is_yaml_that_passes_its_own_test(project: Make) -> None:
    found = suggest(project(), draws=60)
    text = as_yaml(found)
    proposed = yaml.safe_load(text)
    Evaluate.model_validate(proposed["evaluate"])
    gate = proposed["evaluate"]["gates"]["roc_auc"]
    assert 0.5 < gate["min"] < 0.95
    assert gate["vs_champion"]["margin"] > 0
    assert found.itself.failed == 0
    assert found.equal.blocked_share.estimate <= 0.15
    assert found.missed == ()
    assert "needs about" in text and "The smallest loss that is failed" in text
    at = project(text)
    assert self_test(at).status is Status.PASSED
    assert backtest(at, draws=40).status is Status.PASSED


def test_suggestion_leaves_room_for_what_other_holdouts_did(project: Make) -> None:
    found = suggest(project(), draws=40)
    (_, absolute, _), *_ = found.wholes
    # Version 1 had 0.90 on January's holdout, and 0.86 on February's.
    assert absolute is not None and absolute.shifts == 1
    assert absolute.value - absolute.threshold > 1.9 * 0.04


def test_suggestion_needs_rows(project: Make) -> None:
    with pytest.raises(InputError, match="needs 100 at least"):
        suggest(project(holdout=lambda path: write_table(path, 60, 2)))
    done = cli(project(holdout=lambda path: write_table(path, 60, 2)), "suggest")
    assert done.exit_code == 4


def test_gates_need_a_model(project: Make) -> None:
    def elsewhere(text: str) -> str:
        return text.replace("name: tiny", "name: none")

    at = project()
    path = at.root / "mlcicd.yaml"
    path.write_text(elsewhere(path.read_text()))
    done: Any = cli(at, "self-test")
    assert done.exit_code == 4
    assert "mlcicd train" in done.output


def test_hostile_names_of_slices_stay_on_their_line(project: Make) -> None:
    evil = '"x\n::error::owned\x1b[31m"'

    def rename(path: Path) -> None:
        lines = path.read_text().splitlines()
        marked = [f"{line},{evil if i % 2 else 'fine'}" for i, line in enumerate(lines[1:])]
        path.write_text("\n".join([lines[0] + ",place", *marked]) + "\n")

    text = "evaluate:\n  gates:\n    roc_auc: {min: 0.7}\n  slices:\n    - {by: place, metric: roc_auc, min: 0.7}\n"
    # Told apart by a column that only the holdout has: the model must not see it.
    at = project(text, holdout=rename)
    config = at.root / "mlcicd.yaml"
    config.write_text(config.read_text().replace("ignore: [id]", "ignore: [id, place]"))
    for command in (["self-test"], ["suggest", "--draws", "40"]):
        done = cli(at, *command)
        assert done.exit_code == 0, done.output
        assert "place=x" in done.output or 'by: "place"' in done.output
        assert "\x1b" not in done.output
        assert not any(line.startswith("::") for line in done.output.splitlines())


def test_weights_and_groups_reach_all_three(project: Make) -> None:
    def with_columns(path: Path) -> None:
        lines = path.read_text().splitlines()
        rows = [f"{line},d{i % 40},{1 + 3 * (i % 2)}" for i, line in enumerate(lines[1:])]
        path.write_text("\n".join([f"{lines[0]},day,w", *rows]) + "\n")

    plain = self_test(project())
    at = project(holdout=with_columns)
    config = at.root / "mlcicd.yaml"
    config.write_text(config.read_text().replace("ignore: [id]", "ignore: [id, day, w], group: day, weight: w"))
    at = project_at(at.root)
    verdict = self_test(at)
    assert verdict.status is Status.PASSED, verdict.summary
    value, unweighted = (v.details["trials"][0]["metrics"]["roc_auc"] for v in (verdict, plain))
    assert value != pytest.approx(unweighted, abs=1e-9)
    assert backtest(at, draws=40).status is Status.PASSED
    found = suggest(at, draws=40)
    (_, absolute, _), *_ = found.wholes
    assert absolute is not None
    assert absolute.value == pytest.approx(value)
