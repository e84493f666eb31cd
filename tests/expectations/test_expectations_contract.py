"""What a candidate breaks for callers, what the champion knew beforehand, wear, flips, and waivers, in `evaluate`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pandas as pd
import pytest

from mlcicd.core.verdict import CheckStatus, Severity, Status, now
from mlcicd.data.row_sketch import row_sketch
from mlcicd.data.source import open_source
from mlcicd.registry.holdouts import judged_models
from mlcicd.stages.common import registry_of
from mlcicd.stages.expectations_waivers import waiver_tag

from .conftest import Bench, Find

pytestmark = pytest.mark.slow

LATER = (now() + timedelta(days=30)).date().isoformat()
EARLIER = (now() - timedelta(days=2)).date().isoformat()
SAME = "champion's training data"


# --- the signature


def test_the_same_signature_breaks_nothing(bench: Bench, find: Find) -> None:
    bench.crown("honest")
    verdict = bench.evaluate("jumpy")
    assert find(verdict, "signature").status is CheckStatus.PASSED


def test_a_signature_in_another_order_than_the_data_is_skew(bench: Bench, find: Find) -> None:
    config = bench.root / "mlcicd.yaml"
    config.write_text(config.read_text().replace("ignore: [id]}", "ignore: [id], checks: {serving: {}}}"))
    assert find(bench.evaluate("honest"), "serving.signature").status is CheckStatus.PASSED
    holdout = pd.read_csv(bench.root / "holdout.csv")
    holdout[[c for c in holdout if c != "a"] + ["a"]].to_csv(bench.root / "holdout.csv", index=False)
    check = find(bench.evaluate("honest"), "serving.signature")
    assert (check.status, check.severity) == (CheckStatus.FAILED, Severity.WARN)
    assert "the signature has 'a'" in check.reason


def test_a_new_required_input_fails_unless_it_is_declared(bench: Bench, find: Find) -> None:
    bench.crown("honest")
    verdict = bench.evaluate("wider")
    check = find(verdict, "signature")
    assert check.status is CheckStatus.FAILED
    assert "'g'" in check.reason
    assert "new and required" in check.reason
    assert verdict.status is Status.FAILED
    bench.configure("gates: {roc_auc: {min: 0.7}}\nschema_change: declared")
    verdict = bench.evaluate("wider")
    assert find(verdict, "signature").status is CheckStatus.PASSED
    assert verdict.status is Status.PASSED


def test_a_declaration_that_is_left_lying_about_is_a_finding(bench: Bench, find: Find) -> None:
    bench.crown("honest")
    bench.configure("gates: {roc_auc: {min: 0.7}}\nschema_change: declared")
    verdict = bench.evaluate("jumpy")
    check = find(verdict, "declared schema change")
    assert (check.status, check.severity) == (CheckStatus.FAILED, Severity.WARN)
    assert check.details["line"] == 7


def test_a_signature_in_order_is_no_gate(bench: Bench) -> None:
    bench.crown("honest")
    bench.configure("confidence: 0.95")
    assert bench.evaluate("jumpy").status is Status.UNGATED


# --- what the champion has learned from


def sketch(bench: Bench, file: str, **more: Any) -> dict[str, Any]:
    source = open_source(bench.root / file)
    return {"of": ["?"], "rows": row_sketch(source, sorted(source.columns)).to_json(), "keys": None, **more}


def test_a_champion_that_learned_elsewhere_is_a_fair_one(bench: Bench, find: Find) -> None:
    bench.crown("honest", rows=sketch(bench, "train.csv"))
    check = find(bench.evaluate("jumpy"), SAME)
    assert check.status is CheckStatus.PASSED
    assert check.details["rows"] == {"looked_at": 2500, "shared": 0}


def test_a_champion_trained_on_the_holdout_is_found(bench: Bench, find: Find) -> None:
    bench.crown("honest", train_data_digest=bench.digest("holdout.csv"))
    verdict = bench.evaluate("honest")
    check = find(verdict, SAME)
    assert (check.status, check.severity) == (CheckStatus.FAILED, Severity.WARN)
    assert "this very file" in check.reason


def test_a_champion_that_saw_some_of_the_rows_is_found_and_can_fail(bench: Bench, find: Find) -> None:
    train, holdout = ((bench.root / f).read_text().splitlines() for f in ("train.csv", "holdout.csv"))
    bench.write("leaked.csv", "\n".join([*train, *holdout[1:200]]) + "\n")
    bench.crown("honest", rows=sketch(bench, "leaked.csv"))
    bench.configure("gates: {roc_auc: {min: 0.7}}\nchampion_leak: fail")
    verdict = bench.evaluate("honest")
    check = find(verdict, SAME)
    assert check.status is CheckStatus.FAILED
    assert "199 of 2,500" in check.reason
    assert verdict.status is Status.FAILED


def test_time_and_keys_that_overlap_are_found(bench: Bench, find: Find) -> None:
    source = open_source(bench.root / "holdout.csv")
    keys = row_sketch(source, ["id"]).to_json()
    bench.crown("honest", rows=sketch(bench, "train.csv", keys=keys, time={"column": "id", "last": "2000009"}))
    check = find(bench.evaluate("honest"), SAME)
    assert check.status is CheckStatus.FAILED
    assert "have a id" in check.reason
    assert "10 holdout rows are not later" in check.reason


@pytest.mark.parametrize("rows", [{"rows": {"columns": 3}}, {"rows": "x"}, []])
def test_a_sketch_that_can_not_be_read_is_not_a_pass(bench: Bench, find: Find, rows: Any) -> None:
    bench.crown("honest", rows=rows)
    assert find(bench.evaluate("honest"), SAME).status is not CheckStatus.PASSED


# --- wear


def test_a_candidate_counts_once_and_past_the_budget_intervals_widen(bench: Bench, find: Find) -> None:
    bench.configure("gates: {roc_auc: {min: 0.7}}\nholdout_budget: 2")
    first = bench.evaluate("honest")
    again = bench.evaluate("honest")
    bench.evaluate("jumpy", dry_run=True)
    second = bench.evaluate("biased")
    assert [v.details["holdout_wear"]["candidates"] for v in (first, again, second)] == [1, 1, 2]
    assert not [c for c in second.checks if c.name == "holdout wear"]
    third = bench.evaluate("brittle")
    wear = find(third, "holdout wear")
    assert (wear.observed, wear.severity) == (3.0, Severity.WARN)
    assert third.details["holdout_wear"]["confidence"] == pytest.approx(1 - 0.05 * 2 / 3)
    assert find(third, "roc_auc").details["confidence"] == pytest.approx(1 - 0.05 * 2 / 3)
    # Another checkout asks the registry, not this folder.
    registry = registry_of(bench.project)
    assert len(judged_models(registry, ["tiny"], bench.digest("holdout.csv"))) == 3
    assert not judged_models(registry, ["tiny"], bench.digest("train.csv"))


# --- negative flips


def test_flips_are_gated_on_the_whole_and_by_slice(bench: Bench, find: Find) -> None:
    bench.crown("honest")
    bench.configure(
        "gates: {negative_flip_rate: {max: 0.05}}\nslices: [{by: g, metric: negative_flip_rate, max: 0.05}]"
    )
    worse = bench.evaluate("jumpy")
    whole = [c for c in worse.checks if c.name == "negative_flip_rate"]
    assert {c.slice for c in whole} == {"", "g=x", "g=y", "g=z"}
    assert all(c.status is CheckStatus.FAILED and c.interval for c in whole)
    alike = bench.evaluate("brittle")
    assert {c.status for c in alike.checks if c.name == "negative_flip_rate"} == {CheckStatus.PASSED}


# --- waivers


def waivers(bench: Bench, gate: str = "roc_auc", expires: str = LATER, **more: str) -> None:
    extra = "".join(f"    {key}: {value}\n" for key, value in more.items())
    bench.write(
        "waivers.yaml",
        f"waivers:\n  - gate: {gate}\n    reason: the new labels are late\n    approver: A. Person\n"
        f"    expires: {expires}\n{extra}",
    )


@pytest.fixture
def strict(bench: Bench) -> Bench:
    """No model of the workshop reaches the gate."""
    bench.configure("gates: {roc_auc: {min: 0.99}}\nwaivers: waivers.yaml")
    return bench


def test_a_waiver_lets_a_failed_gate_pass_and_says_so_loudly(strict: Bench, find: Find) -> None:
    waivers(strict)
    strict.commit()
    verdict = strict.evaluate("honest")
    assert verdict.status is Status.PASSED
    assert verdict.summary.startswith("PASSED WITH 1 WAIVER (roc_auc)")
    check = find(verdict, "roc_auc")
    assert check.reason.startswith(f"WAIVED until {LATER} by A. Person: the new labels are late")
    assert check.details["waived"] == "failed"
    assert find(verdict, "waiver: roc_auc").severity is Severity.WARN
    assert verdict.subject("waivers", "waivers.yaml") is not None
    assert waiver_tag(verdict) == f"roc_auc until {LATER} by A. Person: the new labels are late"


@pytest.mark.parametrize(
    ("gate", "expires", "words"),
    [("roc_auc", EARLIER, "it expired on"), ("brier", LATER, "it waives nothing")],
)
def test_an_expired_or_unused_waiver_waives_nothing_and_is_a_finding(
    strict: Bench, find: Find, gate: str, expires: str, words: str
) -> None:
    waivers(strict, gate, expires)
    strict.commit()
    verdict = strict.evaluate("honest")
    assert verdict.status is Status.FAILED
    assert words in find(verdict, f"waiver: {gate}").reason
    assert waiver_tag(verdict) == ""


def test_a_waiver_that_is_not_committed_waives_nothing(strict: Bench, find: Find) -> None:
    waivers(strict)
    verdict = strict.evaluate("honest")
    assert verdict.status is Status.FAILED
    assert "not committed" in find(verdict, "waivers").reason


def test_a_waiver_does_not_cover_what_could_not_be_measured(bench: Bench, find: Find) -> None:
    bench.configure("fairness: [{by: g, metric: accuracy, max: 0.5, groups: [nobody]}]\nwaivers: waivers.yaml")
    waivers(bench, "accuracy gap by g")
    bench.commit()
    verdict = bench.evaluate("honest")
    assert find(verdict, "accuracy gap by g").status is CheckStatus.FAILED
    assert "not in the holdout" in find(verdict, "accuracy gap by g").reason
    assert "could not be measured" in find(verdict, "waiver: accuracy gap by g").reason


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("waivers:\n  - gate: roc_auc\n    reason: short\n    approver: A. Person\n    expires: 2099-01-01\n", 3),
        (
            "waivers:\n  - gate: roc_auc\n    reason: long enough, this one\n    approver: Me Too\n    expires: soon\n",
            5,
        ),
        ("waivers:\n  - gate: roc_auc\n    reason: long enough, this one\n    approver: Me Too\n", 2),
        ("waivers:\n  - gate: a\n    reason: long enough, this one\n    approver: Me\n    expires: 2\n", 2),
        ("waivers:\n  - gat: roc_auc\n", 2),
        ("[]", 1),
    ],
)
def test_a_malformed_waiver_is_an_error_on_its_line(strict: Bench, text: str, line: int) -> None:
    strict.write("waivers.yaml", text)
    verdict = strict.evaluate("honest")
    assert verdict.exit_code == 2
    assert verdict.summary.startswith(f"waivers.yaml:{line}: "), verdict.summary


def test_a_waivers_file_that_is_not_there_is_an_error(strict: Bench) -> None:
    assert strict.evaluate("honest").exit_code == 4
