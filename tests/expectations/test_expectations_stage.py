"""The further gates in `evaluate`: each catches a model that does wrong, and lets one that does right pass."""

from __future__ import annotations

import pytest

from mlcicd.core.verdict import CheckStatus, Status

from .conftest import Bench, Find

pytestmark = pytest.mark.slow

BEHAVIOUR = """\
expectations:
  - name: the group does not matter
    invariant: {column: g, swap: true}
    tolerance: 0.001
  - name: a raises the score
    directional: {column: a, add: 0.5}
    direction: not_lower
    tolerance: 0.001
  - name: a clear case
    given: {a: 3.0, b: 0.0}
    answer: {label: 1, min: 0.9}
  - name: b hardly matters
    invariant: {column: b, multiply: 1.5}
    tolerance: 0.2
    max_share: 0.05
"""
GATES = """\
gates:
  roc_auc: {min: 0.7}
  ece: {max: 0.08}
fairness:
  - {by: g, metric: demographic_parity_difference, max: 0.2, groups: [x, y]}
  - {by: g, metric: roc_auc, max: 0.15}
calibration: {max_reliability: 0.01, min_resolution: 0.03}
robustness:
  - {metric: roc_auc, max_drop: 0.03, noise: 0.1, missing: 0.02}
expectations: expectations.yaml
"""
FAIR, GAP = "demographic_parity_difference by g", "roc_auc gap by g"
NOISE, HOLES = "roc_auc under noise of 0.1 sd", "roc_auc under 0.02 missing"


@pytest.fixture
def gated(bench: Bench) -> Bench:
    bench.configure(GATES)
    bench.write("expectations.yaml", BEHAVIOUR)
    bench.commit()
    return bench


def test_a_model_that_does_right_passes_every_gate(gated: Bench, find: Find) -> None:
    verdict = gated.evaluate("honest")
    assert verdict.status is Status.PASSED, [(c.name, c.reason) for c in verdict.checks if c.status != "passed"]
    wanted = {FAIR, GAP, NOISE, HOLES, "brier reliability", "brier resolution", "ece"}
    names = {check.name for check in verdict.checks}
    assert wanted <= names
    assert sum(name.startswith("expectation: ") for name in names) == 4
    assert find(verdict, FAIR).details["line"] == 10
    assert find(verdict, NOISE).details["line"] == 14
    assert find(verdict, "expectation: a clear case").details["expectation"] == "expectations.yaml:9"


def test_a_biased_model_fails_fairness_and_invariance(gated: Bench, find: Find) -> None:
    verdict = gated.evaluate("biased")
    assert verdict.status is Status.FAILED
    gap = find(verdict, FAIR)
    assert gap.status is CheckStatus.FAILED
    assert gap.interval is not None
    assert gap.interval[0] > 0.2
    assert "g=x" in gap.reason
    assert gap.remedy
    invariant = find(verdict, "expectation: the group does not matter")
    assert invariant.status is CheckStatus.FAILED
    assert "rows do otherwise" in invariant.reason


def test_a_jumpy_model_fails_direction_calibration_and_noise(gated: Bench, find: Find) -> None:
    verdict = gated.evaluate("jumpy")
    for name in ("expectation: a raises the score", "brier reliability", "ece", "expectation: b hardly matters"):
        assert find(verdict, name).status is CheckStatus.FAILED, name
    assert verdict.exit_code == 1


def test_a_model_that_can_not_stand_a_hole_fails_that_gate_alone(gated: Bench, find: Find) -> None:
    verdict = gated.evaluate("brittle")
    holes = find(verdict, HOLES)
    assert holes.status is CheckStatus.FAILED
    assert holes.observed is None
    assert "NaN" in holes.reason
    assert find(verdict, NOISE).status is CheckStatus.PASSED
    assert find(verdict, "expectation: a clear case").status is CheckStatus.PASSED


def test_overconfident_scores_fail_reliability_and_rank_as_well_as_before(bench: Bench, find: Find) -> None:
    bench.configure("gates: {roc_auc: {min: 0.7}}\ncalibration: {max_reliability: 0.01}")
    verdict = bench.evaluate("overconfident")
    assert find(verdict, "roc_auc").status is CheckStatus.PASSED
    assert find(verdict, "brier reliability").status is CheckStatus.FAILED
